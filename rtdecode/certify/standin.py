"""What stands in for the amplifier: noise on the channels of the bundles' contracts, and the markers they wait for."""

import threading
from collections.abc import Sequence
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import ConfigError
from rtdecode.signal import Batch, Channel, Chunk, Marker, Origin, StreamInfo
from rtdecode.stream.window import matches

#: Standard deviation of the noise by unit; 1 for others.
NOISE = {"V": 1e-5, "T": 1e-12, "T/m": 1e-11}

#: Seconds of samples that are made ready at once; megabytes of noise that are played over and over.
_READY_S, _NOISE_MB = 0.2, 32

#: Seconds that a code stands on a trigger channel.
_PULSE_S = 0.05

#: A marker comes by up to so much of its interval later than the one before it would have it.
_SPREAD = 0.1


class Trigger(msgspec.Struct, frozen=True):
    """A trigger channel of the stand-in, and seconds that a code must stand there to count."""

    channel: str
    mask: int
    debounce_s: float


class StandIn(msgspec.Struct, frozen=True, kw_only=True):
    """What the sender is to send, and how: all that its process is told.

    `transport` is the source's kind. `name` is the stream's; `endpoint` is where ZeroMQ or FieldTrip samples go.
    """

    transport: str
    name: str
    channels: tuple[tuple[str, str, str], ...]
    """Name, MNE type and SI unit of each."""
    sfreq: float
    chunk: int
    """Samples that are sent at once."""
    endpoint: str = ""
    bind: bool = True
    marker_name: str | None = None
    markers: tuple[str, ...] = ()
    """Values that are sent in turn as markers."""
    codes: tuple[int, ...] = ()
    """Values that are put on the trigger channel in turn."""
    triggers: tuple[Trigger, ...] = ()
    every_s: float = 1.0
    """Seconds from one marker to the next, at least."""

    def info(self) -> StreamInfo:
        """The same as a source declares it."""
        channels = tuple(Channel(name, kind, unit) for name, kind, unit in self.channels)
        return StreamInfo(channels, self.sfreq, source=f"stand-in:{self.name}", source_id=self.name)


class StandInSource:
    """Plays a `StandIn` from stamp 0 on, as fast as it is read; it ends when it is closed.

    Parameters
    ----------
    what : StandIn
    seed : int
        Of the noise.
    """

    def __init__(self, what: StandIn, seed: int = 0) -> None:
        self.info = what.info()
        self._what = what
        self._closed = threading.Event()
        self._next = 0
        # Whole chunks, so that the sender cuts each batch into whole chunks too.
        self._size = what.chunk * max(1, round(_READY_S * what.sfreq / what.chunk))
        blocks = max(2, int(_NOISE_MB * 2**20 / (4 * len(what.channels) * self._size)))
        rng = np.random.default_rng(seed)
        scale = np.array([NOISE.get(unit, 1.0) for _, _, unit in what.channels], np.float32)
        self._noise = rng.standard_normal((blocks * self._size, len(what.channels)), np.float32) * scale
        self._rng = np.random.default_rng([seed, 1])
        self._columns = [self.info.names.index(trigger.channel) for trigger in what.triggers]
        self._noise[:, self._columns] = 0.0
        self._mark_at = self._next_mark(0.0)
        self._marks = 0
        self._code, self._code_until = 0, 0

    def open(self) -> StreamInfo:
        """Nothing has to be opened."""
        return self.info

    @property
    def origins(self) -> tuple[Origin, ...]:
        """None: nothing is rawer than its chunks."""
        return ()

    def read(self, timeout: float) -> Batch | None:
        """The next samples, without waiting for anything, and the markers among them."""
        if self._closed.is_set():
            return None
        first, stop = self._next, self._next + self._size
        self._next = stop
        at = first % len(self._noise)
        samples = self._noise[at : at + self._size]
        stamps = np.arange(first, stop) / self.info.sfreq
        markers = []
        if self._what.codes:
            samples = samples.copy()
            self._stand(samples, first)
        while self._mark_at < stop / self.info.sfreq:
            markers += self._mark(samples, first)
            self._mark_at = self._next_mark(self._mark_at)
        return Batch(Chunk(samples, stamps, first), markers, float(stamps[-1]))

    def close(self) -> None:
        """End it."""
        self._closed.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next_mark(self, last: float) -> float:
        """Not in step with the chunks: a marker falls anywhere within one."""
        return last + self._what.every_s * (1.0 + _SPREAD * self._rng.random())

    def _mark(self, samples: NDArray[np.float32], first: int) -> list[Marker]:
        what = self._what
        if what.codes:
            trigger = what.triggers[0]
            self._code = what.codes[self._marks % len(what.codes)]
            begin = int(self._mark_at * what.sfreq)
            self._code_until = begin + max(2, int((_PULSE_S + trigger.debounce_s) * what.sfreq))
            samples[begin - first : self._code_until - first, self._columns[0]] = self._code
        self._marks += 1
        return [Marker(self._mark_at, what.markers[(self._marks - 1) % len(what.markers)])] if what.markers else []

    def _stand(self, samples: NDArray[np.float32], first: int) -> None:
        """A code that began in the samples before these stands on."""
        if self._code_until > first:
            samples[: self._code_until - first, self._columns[0]] = self._code


def example(pattern: str) -> str:
    """A marker value that a pattern with shell wildcards takes: ``concept/*`` takes ``concept/1``.

    Raises
    ------
    ConfigError
        None was found.
    """
    value, at = "", 0
    while at < len(pattern):
        one = pattern[at]
        close = pattern.find("]", at + 2) if one == "[" else -1
        if close > 0:
            wanted = pattern[at : close + 1]
            value += next((letter for letter in map(chr, range(33, 127)) if fnmatchcase(letter, wanted)), "1")
            at = close
        else:
            value += "1" if one in "*?" else one
        at += 1
    if not matches(value, [pattern]):
        raise ConfigError(f"no marker is known that {pattern!r} takes; certify with --live, or name markers in full")
    return value


def examples(patterns: Sequence[str]) -> tuple[str, ...]:
    """One value for each pattern, each value once, in order."""
    return tuple(dict.fromkeys(example(pattern) for pattern in patterns))
