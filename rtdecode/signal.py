"""Chunk, Marker, StreamInfo: the only types that every room shares."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import lt

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import StampError

#: Up to so many numbers are compared one by one, which takes less time than to begin with arrays.
_FEW = 64

#: Channel types that are brain data; the others (``stim``, ``eog``, ``misc``...) ride along and are never decoded.
DATA_TYPES = frozenset({"eeg", "mag", "grad", "ref_meg", "seeg", "ecog", "dbs", "csd", "fnirs"})


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel of a stream.

    Parameters
    ----------
    name : str
        As the stream or the file spells it.
    type : str
        MNE's channel types: ``eeg``, ``mag``, ``grad``, ``seeg``, ``ecog``, ``stim``, ``eog``, ``misc``...
    unit : str
        SI unit of the samples as this project hands them on: ``V``, ``T``, ``T/m``; ``1`` for plain numbers such as
        trigger codes; empty where the stream declares none and neither did the user.
    position : tuple of float, optional
        Sensor position in metres, head coordinates, if known.
    """

    name: str
    type: str = "eeg"
    unit: str = ""
    position: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a stream declares about itself, after units were converted to SI.

    Parameters
    ----------
    channels : tuple of Channel
        In the order of the columns of `Chunk.samples`.
    sfreq : float
        Nominal sampling rate in Hz.
    source : str
        Where it comes from, for people: ``lsl:NAME``, ``recording:FILE``, ``simulated:...``.
    source_id : str
        The sender's own identity, where it has one.
    declared_by_user : tuple of str
        What the stream left open and the configuration declared, e.g. ``"unit of 64 channels: uV"``. Published.
    """

    channels: tuple[Channel, ...]
    sfreq: float
    source: str = ""
    source_id: str = ""
    declared_by_user: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Channel names, in column order."""
        return tuple(channel.name for channel in self.channels)


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Consecutive samples of one segment.

    Parameters
    ----------
    samples : ndarray of float32, shape (n, channels)
        In SI units (or plain numbers for trigger channels), C-contiguous.
    stamps : ndarray of float64, shape (n,)
        Seconds; host time when live, the recording's own time in a replay. Strictly increasing.
    first_index : int
        Index of the first sample, counted from the start of its segment. A jump in it is a hole.
    segment : int
        Counts restarts of the sender or its clock.
    arrived : float
        Host time at which the last sample was in our hands; NaN in a replay.
    uncertainty : float
        Half-width of the stamps' error in seconds, as far as the clock knows it; 0 where the stamps are the truth.
    invalidates : int or None
        A hole was found late: samples of this segment from this index on, given earlier, lie behind it and were counted
        and stamped as if it were not there. The jump of `first_index` before this chunk is that hole's length.
    """

    samples: NDArray[np.float32]
    stamps: NDArray[np.float64]
    first_index: int
    segment: int = 0
    arrived: float = math.nan
    uncertainty: float = 0.0
    invalidates: int | None = None

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def stop_index(self) -> int:
        """Index one past the last sample."""
        return self.first_index + len(self.samples)

    def check(self, n_channels: int) -> None:
        """Raise `StampError` unless shapes, types and stamps are as declared above."""
        n = len(self.stamps)
        if self.samples.dtype != np.float32 or self.stamps.dtype != np.float64:
            raise StampError(
                f"a chunk at index {self.first_index} has {self.samples.dtype} samples and {self.stamps.dtype} stamps; "
                "expected float32 and float64"
            )
        if self.samples.shape != (n, n_channels):
            raise StampError(
                f"a chunk at index {self.first_index} has samples of shape {self.samples.shape} and {n} stamps; "
                f"expected ({n}, {n_channels})"
            )
        check_stamps(self.stamps, self.first_index)


#: The first whole numbers, for `even_stamps`.
_COUNT = np.arange(512.0)


def even_stamps(first: float, last: float, n: int) -> NDArray[np.float64]:
    """`n` equally spaced stamps. A live clock makes a chunk's stamps by this, so that two of them rebuild them all.

    The very numbers that `numpy.linspace` gives, by the same operations, without its many others: a recording's reader
    may use either.
    """
    step = (last - first) / max(n - 1, 1)
    if not 1 < n <= len(_COUNT) or step == 0:
        return np.linspace(first, last, n)
    stamps: NDArray[np.float64] = _COUNT[:n] * step
    stamps += first
    stamps[-1] = last
    return stamps


def check_stamps(stamps: NDArray[np.float64], first_index: int, previous: float = -math.inf) -> None:
    """Raise `StampError` unless the stamps are finite and increase strictly, from `previous` on.

    Parameters
    ----------
    stamps : ndarray of float64, shape (n,)
        Seconds.
    first_index : int
        Index of the first sample, for the message.
    previous : float
        The stamp of the sample before the first.
    """
    # The usual case, cheaply: every chunk passes here more than once. What increases up to a finite end is finite.
    if 0 < len(stamps) <= _FEW:
        listed = stamps.tolist()
        if previous < listed[0] and listed[-1] < math.inf and all(map(lt, listed, listed[1:])):
            return
    elif len(stamps) and previous < stamps[0] and (stamps[1:] > stamps[:-1]).all() and stamps[-1] < math.inf:
        return
    if not np.isfinite(stamps).all():
        at = int(np.flatnonzero(~np.isfinite(stamps))[0])
        raise StampError(f"the stamp of sample {first_index + at} is {stamps[at]}; expected seconds")
    steps = np.diff(stamps, prepend=previous)
    if len(steps) and not (steps > 0).all():
        at = int(np.flatnonzero(~(steps > 0))[0])
        before = float(stamps[at] - steps[at])
        how = "repeats the stamp before it" if steps[at] == 0 else f"runs backwards by {-steps[at] * 1e3:.3f} ms"
        raise StampError(
            f"the stamp of sample {first_index + at}, {stamps[at]:.6f} s, {how} ({before:.6f} s); "
            "expected stamps that increase"
        )


@dataclass(frozen=True, slots=True, order=True)
class Marker:
    """Something that happened at a moment: a stimulus, a key, a trigger code.

    Parameters
    ----------
    stamp : float
        Seconds, on the same clock as the chunks'.
    value : str
        Numeric codes are written without a fraction where they have none: ``"5"``.
    stream : str
        The stream or channel it came from.
    """

    stamp: float
    value: str
    stream: str = ""


class SourceState(StrEnum):
    """How a source is."""

    CONNECTING = "connecting"
    STREAMING = "streaming"
    STALLED = "stalled"
    """Connected, and silent for three chunk periods."""
    RECOVERING = "recovering"
    """Lost; being looked for."""
    CHANGED = "changed"
    """It is back as something else, and refused."""
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a source has to say beside its samples.

    Parameters
    ----------
    event : str
        ``state``, ``clock``, ``hole``...: becomes the name of the published event.
    text : str
        For people.
    state : SourceState or None
        The state that begins with it.
    details : mapping
        For programs.
    """

    event: str
    text: str
    state: SourceState | None = None
    details: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Origin:
    """One stream as its sender declares it: what a recording says about it.

    Parameters
    ----------
    name, type, source_id, hostname : str
        The sender's words.
    sfreq : float
        Nominal rate in Hz; 0 for markers.
    format : str
        Type of the values as XDF names it: ``float32``, ``double64``, ``int8``, ``int16``, ``int32``, ``int64``,
        ``string``.
    n_channels : int
        Values per sample.
    xml : str
        The sender's whole description (an LSL stream's own XML); empty where it has none.
    scales : tuple of float
        Of the samples' own stream: the factors that take its channels to those of the chunks (see
        `rtdecode.sources.units.to_si`), so that a replay makes the same chunks of what was recorded. Empty where the
        chunks are not made so: then they are recorded too.
    """

    name: str
    type: str
    source_id: str = ""
    hostname: str = ""
    sfreq: float = 0.0
    format: str = "string"
    n_channels: int = 1
    xml: str = ""
    scales: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Raw:
    """Samples or markers as they came, before anything was made of them: what is recorded.

    Parameters
    ----------
    stream : int
        Which of the source's `origins`.
    values : ndarray of shape (n, channels), or tuple of str
        In the sender's own type; text for markers.
    stamps : ndarray of float64, shape (n,)
        Seconds on the sender's own clock.
    """

    stream: int
    values: NDArray[np.generic] | tuple[str, ...]
    stamps: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Offset:
    """One measurement of a sender's clock.

    At host time `time`, host minus sender was `value`, give or take `uncertainty` (all seconds).
    """

    stream: int
    time: float
    value: float
    uncertainty: float


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What a source gives at one read: samples, markers, and how far the markers are complete.

    Parameters
    ----------
    chunk : Chunk or None
        None where only markers or the watermark moved.
    markers : sequence of Marker
        In any order; a marker's samples may have come before it or may come after it.
    watermark : float
        Every marker with a stamp up to this one has been given by now. ``inf`` at the end of a recording.
    raw : sequence of Raw
        The same, and what else came, as it came. Empty where the source has nothing rawer than `chunk`.
    offsets : sequence of Offset
        Measurements of the senders' clocks since the last batch.
    notices : sequence of Notice
        What happened to the source before these samples.
    """

    chunk: Chunk | None
    markers: Sequence[Marker] = field(default=())
    watermark: float = -math.inf
    raw: Sequence[Raw] = field(default=())
    offsets: Sequence[Offset] = field(default=())
    notices: Sequence[Notice] = field(default=())
