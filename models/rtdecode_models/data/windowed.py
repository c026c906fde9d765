"""Trials of windows that were cut elsewhere: fitted on training alone, then conditioned by the daemon's own steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.manifest import Contract
from rtdecode.errors import ConfigError
from rtdecode.signal import DATA_TYPES, Channel
from rtdecode.stream.condition import Conditioner, window_conditioner
from rtdecode.stream.steps import Baseline, Conditioning
from rtdecode.stream.window import Locked, WindowSpec
from rtdecode_models.data.fitting import Fitted, appended, fit_groups
from rtdecode_models.data.positions import positions_of
from rtdecode_models.data.remembered import Remembered
from rtdecode_models.data.source import Deployed
from rtdecode_models.data.spec import Fit
from rtdecode_models.data.trials import Dataset, Gallery, Trials

#: How many windows go with a bundle for parity.
DEPLOYED_WINDOWS = 256
#: Channel type -> the SI units that its samples can be in.
_SI = dict.fromkeys(("eeg", "seeg", "ecog", "dbs"), ("V",)) | {
    "mag": ("T",),
    "ref_meg": ("T",),
    "grad": ("T/m", "T"),
}
#: Bytes of windows that are kept.
_KEPT = 1 << 31


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Windows of one session, after the stream steps of the declared chain.

    Parameters
    ----------
    x : ndarray of float32, shape (n, time, channels)
        In SI units, or in what the declared chain gives.
    labels : mapping of str to ndarray of int64, shape (n,)
        Label name -> class of each.
    item : ndarray of int64, shape (n,), optional
        Row of the gallery.
    gallery : Gallery, optional
        The same for all sessions of a training, or of a test.
    files : mapping of str to str
        File -> SHA-256.
    """

    x: NDArray[np.float32]
    labels: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    item: NDArray[np.int64] | None = None
    gallery: Gallery | None = None
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WindowSession:
    """A session that has not been read.

    Parameters
    ----------
    name, subject : str
        What it is called and whose it is.
    read : callable
        Reads it.
    test : bool
        It can only be tested on.
    """

    name: str
    subject: str
    read: Callable[[], Windows]
    test: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """The stream behind windows that were cut elsewhere.

    Parameters
    ----------
    contract : Contract
        What it must offer.
    conditioning : Conditioning
        From there to the windows: its stream steps were done, its window steps were not, or do not mind being done
        twice.
    window : WindowSpec
        What the daemon cuts.
    classes : mapping of str to tuple of str
        Label name -> what its classes are called.
    markers : mapping of str to tuple of str
        Class -> marker patterns; for the bundle's head.
    """

    contract: Contract
    conditioning: Conditioning
    window: WindowSpec
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    markers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def locked(tmin: float, tmax: float, markers: Mapping[str, tuple[str, ...]]) -> Locked:
    """The window around markers of the classes; around every marker where none are named."""
    patterns = tuple(pattern for those in markers.values() for pattern in those)
    try:
        return Locked(tmin=tmin, tmax=tmax, markers=patterns or ("*",))
    except ValueError as error:
        raise ConfigError(f"[data] {error}") from error


class WindowedSource:
    """A `TrialSource` over windows.

    Parameters
    ----------
    sessions : sequence of WindowSession
        In the order of the data.
    live : Live
        The stream behind them.
    fit : Fit
        What is fitted.

    Raises
    ------
    ConfigError
        A running alignment is to be fitted: it follows a stream, and there is none here; or names repeat.
    """

    def __init__(self, sessions: Sequence[WindowSession], live: Live, fit: Fit) -> None:
        if fit.whitening == "running_alignment":
            raise ConfigError(
                'data.fit.whitening = "running_alignment" follows a stream, and these data are windows; '
                'expected "euclidean_alignment", "mvnn" or "none"'
            )
        self._sessions = {session.name: session for session in sessions}
        if len(self._sessions) < len(sessions):
            raise ConfigError(
                f"[data] has {len(sessions)} sessions with {len(self._sessions)} names; each needs its own"
            )
        _check(live)
        self._live, self._fit = live, fit
        # With nothing fitted yet a declared chain that cannot run is found before anything is read.
        chain = live.conditioning
        self._conditioned = Conditioner(chain.stream, _channels(live.contract), live.contract.sfreq, {})
        self._files: dict[str, Mapping[str, str]] = {}
        self._windows: Remembered[Windows] = Remembered(_KEPT, lambda windows: windows.x.nbytes)

    @property
    def sessions(self) -> tuple[str, ...]:
        """Names of all sessions, in the order of the data."""
        return tuple(self._sessions)

    @property
    def test_sessions(self) -> tuple[str, ...]:
        """Those that the data declare for testing alone."""
        return tuple(name for name, session in self._sessions.items() if session.test)

    def subject_of(self, session: str) -> str:
        """Whose session it is."""
        return self._sessions[session].subject

    def dataset(self, train: Sequence[str], fit_on: NDArray[np.int64] | None = None) -> Dataset:
        """Trials of these sessions, by a chain that is fitted on them; see `TrialSource.dataset`."""
        names = [name for name in self._sessions if name in set(train)]
        subjects = list(dict.fromkeys(self.subject_of(name) for name in names))
        fitted = Fitted({})
        if not self._fit.nothing:
            baselines = [step for step in self._live.conditioning.window if isinstance(step, Baseline)]
            seen = self._trials(names, subjects, lambda _: {}, Conditioning(window=tuple(baselines)))
            fitted = fit_groups(self._fit, seen, fit_on)
        steps = self._fitted_steps
        trials = self._trials(names, subjects, lambda name: fitted.of(self.subject_of(name), name), steps)
        return Dataset(
            train=trials,
            test=None,
            contract=self._live.contract,
            conditioning=appended(self._fit, self._live.conditioning),
            arrays=fitted.everyone,
            window=self._live.window,
            markers=self._live.markers,
            provenance={"files": {file: sha for name in names for file, sha in self._files[name].items()}},
            subject_arrays=fitted.subjects,
            session_arrays=fitted.sessions,
            channels=tuple(channel.name for channel in self._conditioned.channels),
            positions=positions_of(self._conditioned.channels),
        )

    def test(self, sessions: Sequence[str], fitted: Dataset) -> Trials:
        """Trials of other sessions, by the chain of `fitted`; see `TrialSource.test`."""
        names = [name for name in self._sessions if name in set(sessions)]
        subjects = list(dict.fromkeys([*fitted.train.subjects, *(self.subject_of(name) for name in names)]))
        return self._trials(
            names, subjects, lambda name: fitted.arrays_of(self.subject_of(name), name), self._fitted_steps
        )

    def deployed(self, fitted: Dataset, subject: str | None = None) -> Deployed:
        """What a bundle for this subject needs, without raw samples; see `TrialSource.deployed`."""
        there = [fitted.train.sessions[at] for at in np.unique(fitted.train.session)]
        mine = [name for name in there if subject in (None, self.subject_of(name))]
        if not mine:
            raise ConfigError(f"no training session is of {subject!r}; there are {', '.join(fitted.train.subjects)}")
        arrays = fitted.arrays_of(subject)
        read = self._read(mine[0])
        rows = fitted.trained_on.get(mine[0], np.arange(len(read.x)))[:DEPLOYED_WINDOWS]
        labels = {label: read.labels[label][rows] for label in self._live.classes}
        windows = self._condition(read.x[rows], arrays, self._fitted_steps)
        return Deployed(arrays, windows, labels=labels)

    @property
    def _fitted_steps(self) -> Conditioning:
        """The fitted stream steps, and all window steps."""
        return appended(self._fit, Conditioning(window=self._live.conditioning.window))

    def _read(self, name: str) -> Windows:
        windows = self._windows.get(name, self._sessions[name].read)
        self._files[name] = windows.files
        expected = (self._live.window.n_samples(self._conditioned.sfreq), len(self._conditioned.channels))
        if windows.x.shape[1:] != expected:
            raise ConfigError(
                f"session {name!r} holds windows of {windows.x.shape[1]} samples and {windows.x.shape[2]} channels; "
                f"the declared stream, conditioning and window give {expected[0]} samples ({self._conditioned.sfreq:g} "
                f"Hz) and {expected[1]} channels"
            )
        if not len(windows.x):
            raise ConfigError(f"session {name!r} holds no window")
        bad = np.flatnonzero(~np.isfinite(windows.x).all(axis=(1, 2)))
        if len(bad):
            raise ConfigError(f"session {name!r}: window {bad[0]} (and {len(bad) - 1} more) holds numbers not finite")
        return windows

    def _trials(
        self,
        names: Sequence[str],
        subjects: Sequence[str],
        arrays: Callable[[str], Mapping[str, NDArray[Any]]],
        steps: Conditioning,
    ) -> Trials:
        """Trials of these sessions, one after the other."""
        read = [self._read(name) for name in names]
        counts = [len(windows.x) for windows in read]
        x = np.empty((sum(counts), *read[0].x.shape[1:]), np.float32)
        at = 0
        for name, windows in zip(names, read, strict=True):
            x[at : at + len(windows.x)] = self._condition(windows.x, arrays(name), steps)
            at += len(windows.x)
        return Trials(
            x=x,
            sfreq=self._conditioned.sfreq,
            subject=np.repeat([subjects.index(self.subject_of(name)) for name in names], counts).astype(np.int64),
            session=np.repeat(np.arange(len(names)), counts).astype(np.int64),
            subjects=tuple(subjects),
            sessions=tuple(names),
            labels={label: np.concatenate([windows.labels[label] for windows in read]) for label in self._live.classes},
            classes=self._live.classes,
            item=None if read[0].item is None else np.concatenate([w.item for w in read if w.item is not None]),
            gallery=read[0].gallery,
        )

    def _condition(
        self, x: NDArray[np.float32], arrays: Mapping[str, NDArray[Any]], steps: Conditioning
    ) -> NDArray[np.float32]:
        """Windows through some of the chain, by the daemon's own steps."""
        if not steps.stream and not steps.window:
            return x
        conditioner = Conditioner(steps.stream, self._conditioned.channels, self._conditioned.sfreq, arrays)
        finish = window_conditioner(steps.window, self._live.window, conditioner)
        out = np.empty_like(x)
        for row, window in enumerate(x):
            if steps.stream:
                conditioner.restart(0)
                window = conditioner.push(window)
            out[row] = finish(window)
        return out


def _check(live: Live) -> None:
    """What else would be found only when a bundle of it meets a stream."""
    names = [channel.name for channel in live.contract.channels]
    if "" in names or len(set(names)) < len(names):
        bad = next(name for name in names if not name or names.count(name) > 1)
        raise ConfigError(f"data.signal.channels has the name {bad!r} twice or empty; expected names that differ")
    for channel in live.contract.channels:
        if channel.type not in DATA_TYPES:
            raise ConfigError(
                f"channel {channel.name} is of type {channel.type!r}, which is not brain data; expected one of "
                f"{', '.join(sorted(DATA_TYPES))}"
            )
        expected = _SI.get(channel.type)
        if expected is not None and channel.unit not in expected:
            raise ConfigError(
                f"channel {channel.name} has the unit {channel.unit!r}; expected {' or '.join(map(repr, expected))}, "
                "as the daemon hands samples on"
            )
    for label, classes in live.classes.items():
        if len(set(classes)) < max(len(classes), 2):
            raise ConfigError(f"data.classes.{label} is {list(classes)}; expected two or more names that differ")
    known = {name for classes in live.classes.values() for name in classes}
    if unknown := [name for name in live.markers if name not in known]:
        raise ConfigError(f"data.markers names {unknown[0]!r}, which is no class of data.classes")


def _channels(contract: Contract) -> list[Channel]:
    return [Channel(channel.name, channel.type, channel.unit) for channel in contract.channels]
