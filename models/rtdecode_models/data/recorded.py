"""Trials of continuous recordings, whatever named the files: cut by the daemon's decoder, fitted on training alone."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rtdecode.decoder import Status
from rtdecode.encode.contract import ChannelRule, check_contract
from rtdecode.encode.manifest import Contract
from rtdecode.errors import ConfigError, ContractError, RecordingError
from rtdecode.signal import StreamInfo
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.steps import Conditioning, Pick
from rtdecode.stream.window import Locked, Sliding, WindowSpec
from rtdecode_models.data.fitting import Fitted, appended, fit_groups, to_fit_on
from rtdecode_models.data.positions import positions_of
from rtdecode_models.data.recordings import Recording, contract_of, cut, label_of
from rtdecode_models.data.remembered import Remembered
from rtdecode_models.data.source import Deployed
from rtdecode_models.data.spec import Bids, Recordings
from rtdecode_models.data.trials import Dataset, Gallery, Trials

#: The name of the label that marker patterns make.
LABEL = "label"
#: How many windows a raw piece holds, and how many windows go with a bundle for parity.
RAW_WINDOWS, DEPLOYED_WINDOWS = 2, 256
#: Seconds that a raw piece may last.
RAW_SECONDS = 180.0
#: Bytes of recordings, and of windows, that are kept.
_RECORDINGS, _CUTS = 1 << 30, 1 << 31

ArraysOf = Callable[[str], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True, slots=True)
class Session:
    """A recording that has not been read.

    Parameters
    ----------
    name, subject : str
        What it is called and whose it is.
    read : callable
        Reads it.
    bad : frozenset of str
        Channels that its annotators call bad.
    """

    name: str
    subject: str
    read: Callable[[], Recording]
    bad: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """Windows of one session.

    Parameters
    ----------
    x : ndarray of float32, shape (n, time, channels)
        Conditioned windows.
    markers : tuple of str
        What locked each; empty for sliding windows.
    lost : mapping of str to int
        Why windows that were due are not here -> how many.
    sfreq : float
        Conditioned rate in Hz.
    """

    x: NDArray[np.float32]
    markers: tuple[str, ...]
    lost: Mapping[str, int]
    sfreq: float


class RecordedSource:
    """A `TrialSource` over recordings.

    Parameters
    ----------
    spec : Recordings or Bids
        The recipe's table.
    sessions : sequence of Session
        In the order of the data.
    gallery : Gallery, optional
        What the markers name, where they name stimuli.

    Raises
    ------
    ConfigError
        The table says too little, or contradicts itself.
    """

    def __init__(self, spec: Recordings | Bids, sessions: Sequence[Session], gallery: Gallery | None = None) -> None:
        self._spec = spec
        self._sessions = {session.name: session for session in sessions}
        self._gallery = gallery
        self._window = window_of(spec)
        self._row_of: dict[str, int] = {}
        if gallery is not None and spec.stimuli is not None:
            template = spec.stimuli.marker
            self._row_of = {template.replace("{name}", name): row for row, name in enumerate(gallery.names)}
        self._hashes: dict[str, str] = {}
        #: Where windows begin in the first segment, in conditioned samples: the same whatever is fitted.
        self._starts: dict[str, tuple[int, ...]] = {}
        self._recordings: Remembered[Recording] = Remembered(_RECORDINGS, _bytes_of)
        self._cuts: Remembered[Cut] = Remembered(_CUTS, lambda made: made.x.nbytes)

    @property
    def sessions(self) -> tuple[str, ...]:
        """Names of all sessions, in the order of the data."""
        return tuple(self._sessions)

    @property
    def test_sessions(self) -> tuple[str, ...]:
        """None: a recipe declares them."""
        return ()

    def subject_of(self, session: str) -> str:
        """Whose session it is."""
        return self._sessions[session].subject

    def dataset(self, train: Sequence[str], fit_on: NDArray[np.int64] | None = None) -> Dataset:
        """Trials of these sessions, by a chain that is fitted on them; see `TrialSource.dataset`."""
        names = [name for name in self._sessions if name in set(train)]
        subjects = list(dict.fromkeys(self.subject_of(name) for name in names))
        info = self._recording(names[0]).info
        contract = self._contract(info)
        declared = self._declared(names, contract)
        fitted = self._fit(names, subjects, contract, declared, fit_on)
        chain = appended(self._spec.fit, declared)
        trials = self._trials(names, subjects, contract, chain, lambda name: fitted.of(self.subject_of(name), name))
        self._check_labels(trials, names)
        raw: NDArray[np.float32] | None = None
        starts: tuple[int, ...] = ()
        if not fitted.subjects:
            raw, starts = self._raw(trials.sessions[trials.session[0]], contract, trials, np.arange(RAW_WINDOWS))
        columns = check_contract(info, contract, self._rule)
        conditioner = Conditioner(
            chain.stream, [info.channels[at] for at in columns], contract.sfreq, fitted.of(subjects[0], names[0])
        )
        return Dataset(
            train=trials,
            test=None,
            contract=contract,
            conditioning=chain,
            arrays=fitted.everyone,
            window=self._window,
            markers=self._markers(),
            raw=raw,
            raw_starts=starts,
            provenance={"recordings": {name: self._hashes[name] for name in names}},
            subject_arrays=fitted.subjects,
            session_arrays=fitted.sessions,
            channels=tuple(channel.name for channel in conditioner.channels),
            positions=positions_of(conditioner.channels),
        )

    def test(self, sessions: Sequence[str], fitted: Dataset) -> Trials:
        """Trials of other sessions, by the chain of `fitted`; see `TrialSource.test`."""
        names = [name for name in self._sessions if name in set(sessions)]
        subjects = list(dict.fromkeys([*fitted.train.subjects, *(self.subject_of(name) for name in names)]))
        return self._trials(
            names,
            subjects,
            fitted.contract,
            fitted.conditioning,
            lambda name: fitted.arrays_of(self.subject_of(name), name),
        )

    def deployed(self, fitted: Dataset, subject: str | None = None) -> Deployed:
        """What a bundle for this subject needs; see `TrialSource.deployed`."""
        there = [fitted.train.sessions[at] for at in np.unique(fitted.train.session)]
        mine = [name for name in there if subject in (None, self.subject_of(name))]
        if not mine:
            raise ConfigError(f"no training session is of {subject!r}; there are {', '.join(fitted.train.subjects)}")
        arrays = fitted.arrays_of(subject)
        made = self._cut(mine[0], fitted.contract, fitted.conditioning, arrays)
        rows = fitted.trained_on.get(mine[0], np.arange(len(made.x)))[:DEPLOYED_WINDOWS]
        raw, starts = self._raw(mine[0], fitted.contract, fitted.train, rows)
        labels = self._labels([made.markers[row] for row in rows])
        return Deployed(arrays, made.x[rows], raw, starts, labels)

    @property
    def _rule(self) -> ChannelRule:
        return "by-name" if self._spec.channels else "strict"

    def _recording(self, name: str) -> Recording:
        recording = self._recordings.get(name, self._sessions[name].read)
        self._hashes[name] = recording.sha256
        return recording

    def _contract(self, info: StreamInfo) -> Contract:
        """All data channels; or those that the recipe names, pattern by pattern."""
        whole = contract_of(info)
        if not self._spec.channels:
            return whole
        chosen = {}
        for pattern in self._spec.channels:
            found = [channel for channel in whole.channels if fnmatchcase(channel.name, pattern)]
            if not found:
                names = ", ".join(channel.name for channel in whole.channels)
                raise ConfigError(
                    f"data.channels: {pattern!r} matches no data channel of {info.source}; it has {names}"
                )
            chosen.update({channel.name: channel for channel in found})
        return Contract(channels=tuple(chosen.values()), sfreq=whole.sfreq)

    def _declared(self, names: Sequence[str], contract: Contract) -> Conditioning:
        """The recipe's chain, after a `pick` of the channels that no training session calls bad."""
        declared = self._spec.conditioning
        bad = frozenset[str]().union(*(self._sessions[name].bad for name in names))
        good = tuple(channel.name for channel in contract.channels if channel.name not in bad)
        if len(good) == len(contract.channels):
            return declared
        if not good:
            raise ConfigError(f'every channel is called bad by one of {", ".join(names)}; set bad_channels = "keep"')
        return Conditioning(stream=(Pick(channels=good), *declared.stream), window=declared.window)

    def _fit(
        self,
        names: Sequence[str],
        subjects: Sequence[str],
        contract: Contract,
        declared: Conditioning,
        fit_on: NDArray[np.int64] | None,
    ) -> Fitted:
        if self._spec.fit.nothing:
            return Fitted({})
        seen = self._trials(names, subjects, contract, to_fit_on(declared), lambda _: {})
        return fit_groups(self._spec.fit, seen, fit_on)

    def _trials(
        self, names: Sequence[str], subjects: Sequence[str], contract: Contract, chain: Conditioning, arrays: ArraysOf
    ) -> Trials:
        """Trials of these sessions, one after the other."""
        cuts = [self._cut(name, contract, chain, arrays(name)) for name in names]
        counts = [len(made.x) for made in cuts]
        if not sum(counts):
            lost = sum((Counter(made.lost) for made in cuts), Counter[str]())
            raise RecordingError(
                f"{', '.join(names)} give no usable window; {dict(lost)} windows were due but unusable"
            )
        markers = [marker for made in cuts for marker in made.markers]
        return Trials(
            x=np.concatenate([made.x for made in cuts if len(made.x)]),
            sfreq=next(made.sfreq for made in cuts if len(made.x)),
            subject=np.repeat([subjects.index(self.subject_of(name)) for name in names], counts).astype(np.int64),
            session=np.repeat(np.arange(len(names)), counts).astype(np.int64),
            subjects=tuple(subjects),
            sessions=tuple(names),
            labels=self._labels(markers),
            classes={LABEL: tuple(self._spec.labels)} if self._spec.labels else {},
            item=np.array([self._row_of[marker] for marker in markers], np.int64) if self._gallery else None,
            gallery=self._gallery,
        )

    def _labels(self, markers: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """The class of each window, by its marker; nothing where no classes are declared."""
        if not self._spec.labels:
            return {}
        known = {marker: label_of(marker, self._spec.labels) for marker in set(markers)}
        return {LABEL: np.array([known[marker] for marker in markers], np.int64)}

    def _cut(self, name: str, contract: Contract, chain: Conditioning, arrays: Mapping[str, NDArray[Any]]) -> Cut:
        """Windows of one session; what declared chains gave is remembered."""

        def make() -> Cut:
            x, markers, starts = [], [], []
            lost: Counter[str] = Counter()
            sfreq = contract.sfreq
            recording = self._recording(name)
            first = next(batch.chunk.segment for batch in recording.batches if batch.chunk is not None)
            try:
                results = cut(recording, contract, chain, arrays, [self._window], self._rule)
            except ContractError as error:  # whose advice is for a stream that is live
                raise ContractError(
                    f"{name} is unlike the first recording that is trained on, whose channels, units and rate all must "
                    "have; name the channels that all have in data.channels, in whatever order they stand, or leave "
                    f"{name} out ({error})"
                ) from error
            for result in results:
                marker = "" if result.marker is None else result.marker.value
                sfreq = result.sfreq
                if result.status != Status.OK:
                    lost[result.status] += 1
                elif self._gallery is not None and marker not in self._row_of:
                    lost["not in the gallery"] += 1
                else:
                    x.append(result.outputs["window"])
                    markers.append(marker)
                    if result.segment == first:
                        starts.append(result.start)
            windows = np.stack(x) if x else np.empty((0, 0, 0), np.float32)
            self._starts[name] = tuple(starts)
            return Cut(windows, tuple(markers), dict(lost), sfreq)

        if arrays:
            return make()
        return self._cuts.get((name, msgspec.json.encode((contract, chain))), make)

    def _markers(self) -> dict[str, tuple[str, ...]]:
        if self._spec.labels:
            return dict(self._spec.labels)
        names = self._gallery.names if self._gallery is not None else ()
        return {name: (marker,) for name, marker in zip(names, self._row_of, strict=True)}

    def _check_labels(self, trials: Trials, names: Sequence[str]) -> None:
        present = set(trials.labels[LABEL].tolist()) if self._spec.labels else set()
        for row, (label, patterns) in enumerate(self._spec.labels.items()):
            if row not in present:
                raise RecordingError(
                    f"label {label!r} (markers {', '.join(patterns)}) has no usable window in {', '.join(names)}"
                )

    def _raw(
        self, name: str, contract: Contract, trials: Trials, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32] | None, tuple[int, ...]]:
        """The start of a recording that was cut, long enough for the first of these windows, and where they begin.

        A golden recording starts at index 0 of a segment, so there is none where the recording begins elsewhere; nor is
        there where the first windows come so late that a bundle would carry minutes.
        """
        starts = tuple(self._starts[name][row] for row in rows[:RAW_WINDOWS] if row < len(self._starts[name]))
        if not starts or (starts[-1] + trials.x.shape[1]) / trials.sfreq > RAW_SECONDS:
            return None, ()
        recording = self._recording(name)
        columns = check_contract(recording.info, contract, self._rule)
        # One sample more than its share: output k of the chain needs the input samples up to k / ratio.
        needed = (starts[-1] + trials.x.shape[1]) * contract.sfreq / trials.sfreq
        chunks = [batch.chunk for batch in recording.batches if batch.chunk is not None]
        pieces: list[NDArray[np.float32]] = []
        length = 0
        for chunk in chunks:
            if chunk.first_index != length or chunk.segment != chunks[0].segment or length > needed:
                break
            pieces.append(chunk.samples[:, columns])
            length = chunk.stop_index
        if length < needed:
            return None, ()
        return np.concatenate(pieces)[: math.ceil(needed) + 1], starts


def window_of(spec: Recordings | Bids) -> WindowSpec:
    """The window as a decoder takes it.

    Raises
    ------
    ConfigError
        Neither or both of `window` and `sliding` are given, or they do not fit `labels` and `stimuli`.
    """
    patterns = [pattern for those in spec.labels.values() for pattern in those]
    if (spec.window is None) == (spec.sliding is None):
        raise ConfigError("[data] needs one of `window` (around markers) and `sliding` (all along)")
    try:
        if spec.sliding is not None:
            if patterns or spec.stimuli:
                raise ConfigError("[data] has `sliding` windows, which have no markers, and `labels` or `stimuli`")
            return Sliding(length=spec.sliding.length, hop=spec.sliding.hop)
        assert spec.window is not None
        if not patterns and spec.stimuli is not None:
            patterns = [spec.stimuli.marker.replace("{name}", "*")]
        if not patterns:
            raise ConfigError("[data] has a `window` around markers, but neither `labels` nor `stimuli` name any")
        return Locked(tmin=spec.window.tmin, tmax=spec.window.tmax, markers=tuple(patterns))
    except ValueError as error:
        raise ConfigError(f"[data] window: {error}") from error


def _bytes_of(recording: Recording) -> int:
    return sum(batch.chunk.samples.nbytes for batch in recording.batches if batch.chunk is not None)
