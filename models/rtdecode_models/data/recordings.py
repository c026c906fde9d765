"""Training windows, cut by the very decoder that will run live: training data are live data, byte for byte."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.decoder import Decoder, Result, Status
from rtdecode.encode.contract import ChannelRule, check_contract
from rtdecode.encode.engine import EngineInfo, Outputs, StatelessEngine
from rtdecode.encode.manifest import Contract, ContractChannel
from rtdecode.errors import ConfigError, RecordingError
from rtdecode.signal import DATA_TYPES, Batch, StreamInfo
from rtdecode.sources.declare import Declare
from rtdecode.sources.recording import RecordingSource
from rtdecode.sources.trigger import TriggerRule
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.steps import Conditioning
from rtdecode.stream.window import Locked, WindowSpec
from rtdecode_models.data.fitting import appended, fit_arrays
from rtdecode_models.data.spec import Fit


class WindowTap(StatelessEngine):
    """An engine that encodes nothing: its one output, ``window``, is what an encoder would have been given."""

    def __init__(self, input_shape: tuple[int, int]) -> None:
        self._info = EngineInfo("none", "cpu", "fp32", 1, input_shape, output_shapes=(("window", input_shape),))

    @property
    def info(self) -> EngineInfo:
        """Nothing runs."""
        return self._info

    def finish(self, window: NDArray[np.float32], first_index: int) -> Outputs:
        """The window itself, copied out of the ring."""
        return {"window": np.array(window, dtype=np.float32, order="C")}

    def close(self) -> None:
        """Nothing to let go of."""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A recording in memory, as its source gave it.

    Parameters
    ----------
    name : str
        As the recipe names it.
    sha256 : str
        Of the file.
    info : StreamInfo
        What it declares.
    batches : tuple of Batch
        Samples and markers, in the order of reading.
    """

    name: str
    sha256: str
    info: StreamInfo
    batches: tuple[Batch, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Epochs:
    """Labelled windows.

    Parameters
    ----------
    x : ndarray of float32, shape (n, time, channels)
        Conditioned windows.
    y : ndarray of int64, shape (n,)
        Index into the labels.
    run : ndarray of int64, shape (n,)
        Index into the recordings.
    start : ndarray of int64, shape (n,)
        First conditioned sample of each, counted from its recording's start.
    lost : mapping of str to int
        Status -> due windows that had it and are not among these.
    sfreq : float
        Conditioned rate in Hz.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    run: NDArray[np.int64]
    start: NDArray[np.int64]
    lost: Mapping[str, int]
    sfreq: float

    def __len__(self) -> int:
        return len(self.y)


def read_recording(
    folder: Path, name: str, declare: Declare | None = None, triggers: Sequence[TriggerRule] = ()
) -> Recording:
    """Read a whole recording.

    Parameters
    ----------
    folder : Path
        What `name` is relative to.
    name : str
        The file.
    declare, triggers
        As `RecordingSource` takes them.

    Raises
    ------
    RecordingError
        It is missing, empty or unreadable.
    """
    path = folder / name
    if not path.is_file():
        raise RecordingError(f"the recording {path} does not exist; is the data folder right?")
    batches = []
    with RecordingSource(path, declare=declare, triggers=triggers) as source:
        info = source.info
        while (batch := source.read(1.0)) is not None:
            batches.append(batch)
    return Recording(name, hashlib.sha256(path.read_bytes()).hexdigest(), info, tuple(batches))


def contract_of(info: StreamInfo) -> Contract:
    """The contract that this stream meets: its data channels, in their order, at its rate."""
    channels = tuple(
        ContractChannel(name=channel.name, type=channel.type, unit=channel.unit)
        for channel in info.channels
        if channel.type in DATA_TYPES
    )
    if not channels:
        types = ", ".join(sorted({channel.type for channel in info.channels}))
        raise ConfigError(f"{info.source} has no brain data channel; its channels are of type {types}")
    return Contract(channels=channels, sfreq=info.sfreq)


def cut(
    recording: Recording,
    contract: Contract,
    conditioning: Conditioning,
    arrays: Mapping[str, NDArray[Any]],
    windows: Sequence[WindowSpec],
    rule: ChannelRule = "strict",
) -> list[Result]:
    """Every due window of a recording; the outputs of those that are `ok` hold ``window``."""
    columns = check_contract(recording.info, contract, rule)
    channels = tuple(recording.info.channels[at] for at in columns)
    conditioner = Conditioner(conditioning.stream, channels, contract.sfreq, arrays)
    shape = (windows[0].n_samples(conditioner.sfreq), len(conditioner.channels))
    decoder = Decoder(
        columns=columns,
        channels=channels,
        n_stream_channels=len(recording.info.channels),
        sfreq=contract.sfreq,
        conditioner=conditioner,
        window_steps=conditioning.window,
        windows=windows,
        engine=WindowTap(shape),
        heads=(),
    )
    results: list[Result] = []
    for batch in recording.batches:
        results += decoder.push(batch.chunk, batch.markers, batch.watermark)
    return results + decoder.finish()


def epochs(
    recordings: Sequence[Recording],
    contract: Contract,
    conditioning: Conditioning,
    arrays: Mapping[str, NDArray[Any]],
    windows: Sequence[Locked],
    labels: Mapping[str, Sequence[str]],
) -> Epochs:
    """Labelled windows of several recordings.

    Parameters
    ----------
    recordings : sequence of Recording
        In the order that `Epochs.run` counts.
    contract : Contract
        What each must meet.
    conditioning : Conditioning
        The chain, restarted for each recording.
    arrays : mapping of str to ndarray
        What the chain names.
    windows : sequence of Locked
        All of one length. Several of them, shifted against one another (`crops`), give several windows to each marker.
    labels : mapping of str to sequence of str
        Label -> marker patterns.

    Raises
    ------
    RecordingError
        No window came out, or a label has none.
    """
    x, y, run, start = [], [], [], []
    lost: Counter[str] = Counter()
    sfreq = contract.sfreq
    for index, recording in enumerate(recordings):
        for result in cut(recording, contract, conditioning, arrays, windows):
            if result.status != Status.OK or result.marker is None:
                lost[result.status] += 1
                continue
            x.append(result.outputs["window"])
            y.append(label_of(result.marker.value, labels))
            run.append(index)
            start.append(result.start)
            sfreq = result.sfreq
    missing = [label for at, label in enumerate(labels) if at not in y]
    if missing:
        raise RecordingError(
            f"label {missing[0]!r} (markers {', '.join(labels[missing[0]])}) has no usable window in "
            f"{', '.join(recording.name for recording in recordings)}; {dict(lost)} windows were due but unusable"
        )
    return Epochs(
        np.stack(x), np.array(y, np.int64), np.array(run, np.int64), np.array(start, np.int64), dict(lost), sfreq
    )


def label_of(marker: str, labels: Mapping[str, Sequence[str]]) -> int:
    """Index of the first label with a pattern that the marker matches; raise `ConfigError` where none has."""
    for index, patterns in enumerate(labels.values()):
        if any(fnmatchcase(marker, pattern) for pattern in patterns):
            return index
    raise ConfigError(f"marker {marker!r} belongs to none of the labels {', '.join(labels)}")


def crops(window: Locked, shifts: Sequence[float]) -> tuple[Locked, ...]:
    """The same window shifted by these seconds, for more training windows out of each trial."""
    return tuple(
        Locked(
            tmin=window.tmin + shift, tmax=window.tmax + shift, markers=window.markers, name=f"{window.name}{shift:+g}"
        )
        for shift in shifts
    )


def fit_conditioning(
    declared: Conditioning,
    train: Epochs,
    *,
    alignment: bool,
    shrinkage: float,
    standardise: bool,
) -> tuple[Conditioning, dict[str, NDArray[np.float64]]]:
    """Append stream steps fitted on `train`, and on nothing else, to the chain that it was cut with.

    Parameters
    ----------
    declared : Conditioning
        That chain.
    train : Epochs
        Training windows.
    alignment, shrinkage, standardise
        Whether to align (Euclidean, with this share of a multiple of the identity) and to standardise.

    Returns
    -------
    tuple of Conditioning and dict
        The longer chain, and the arrays that it names.
    """
    fit = Fit(
        whitening="euclidean_alignment" if alignment else "none",
        shrinkage=shrinkage,
        scaling="standard" if standardise else "none",
    )
    return appended(fit, declared), fit_arrays(fit, train.x)
