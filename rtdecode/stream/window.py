"""Which windows a decoder cuts, and where each one lies on the conditioned sample grid."""

import math
from collections.abc import Iterable
from fnmatch import fnmatchcase
from fractions import Fraction

import msgspec


class _Window(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="window"):
    name: str


class Sliding(_Window, frozen=True, kw_only=True, tag="sliding"):
    """A window of `length` seconds every `hop` seconds, counted from the start of the segment."""

    length: float
    hop: float
    name: str = "sliding"

    def __post_init__(self) -> None:
        """Refuse windows without length or progress."""
        if not self.length > 0 or not self.hop > 0:
            raise ValueError(f"length and hop must be positive seconds, not {self.length} and {self.hop}")

    @property
    def duration(self) -> float:
        """Seconds in one window."""
        return self.length

    def n_samples(self, sfreq: float) -> int:
        """Samples in one window at `sfreq` Hz."""
        return sample_at(self.duration, sfreq)

    def fault(self, sfreq: float) -> str | None:
        """What is wrong with it at `sfreq` Hz, if anything: no two windows may be the same."""
        if self.step(sfreq) >= 1:
            return None
        sample = f"{1 / sfreq:g} s at {sfreq:g} Hz"
        return f"window {self.name!r} hops by {self.hop:g} s; expected at least one sample, {sample}"

    def step(self, sfreq: float) -> Fraction:
        """Samples from one window to the next: window n starts at n steps, rounded, so that no hop drifts."""
        return samples(self.hop, sfreq)


class Locked(_Window, frozen=True, kw_only=True, tag="locked"):
    """A window over [tmin, tmax) seconds around each marker that matches one of the patterns (shell wildcards)."""

    tmin: float
    tmax: float
    markers: tuple[str, ...]
    name: str = "locked"

    def __post_init__(self) -> None:
        """Refuse windows without length or markers."""
        if not self.tmax > self.tmin:
            raise ValueError(f"tmax must lie after tmin, not {self.tmax} after {self.tmin}")
        if not self.markers:
            raise ValueError('name at least one marker pattern, for example ["T1", "T2"] or ["*"]')

    @property
    def duration(self) -> float:
        """Seconds in one window."""
        return self.tmax - self.tmin

    def n_samples(self, sfreq: float) -> int:
        """Samples in one window at `sfreq` Hz."""
        return sample_at(self.duration, sfreq)

    def fault(self, sfreq: float) -> str | None:
        """What is wrong with it at `sfreq` Hz, if anything; as for `Sliding`, where something may be."""
        return None

    def matches(self, value: str) -> bool:
        """Whether a marker's value fits one of the patterns; case matters."""
        return matches(value, self.markers)

    def offset(self, sfreq: float) -> int:
        """First sample of a window, relative to the marker's sample."""
        return sample_at(self.tmin, sfreq)


class SlidingCursor:
    """The next window of a sliding kind that is not out yet.

    Parameters
    ----------
    window : Sliding
    order : int
        Its place among the pipeline's windows.
    length : int
        Conditioned samples in one.
    sfreq : float
        Conditioned rate in Hz.
    first_output : int
        First conditioned sample that is there.
    """

    def __init__(self, window: Sliding, order: int, length: int, sfreq: float, first_output: int) -> None:
        self.window = window
        self.order = order
        self.length = length
        self._step = window.step(sfreq)
        # Windows that begin before the first sample that is here were never due.
        self._n = max(0, math.floor(first_output / self._step) - 1)
        while round_half_up(self._n * self._step) < first_output:
            self._n += 1
        self.start = round_half_up(self._n * self._step)

    @property
    def stop(self) -> int:
        """One past its last conditioned sample."""
        return self.start + self.length

    def advance(self) -> None:
        """It is out."""
        self._n += 1
        self.start = round_half_up(self._n * self._step)

    def coming(self, start: int, stop: int) -> int:
        """How many of its windows that are not out yet begin in [start, stop)."""
        return max(0, self._before(stop) - max(self._n, self._before(start)))

    def _before(self, start: int) -> int:
        """How many of its windows begin before `start`."""
        return max(0, math.ceil((start - Fraction(1, 2)) / self._step))


WindowSpec = Sliding | Locked


def matches(value: str, patterns: Iterable[str]) -> bool:
    """Whether a marker's value fits one of the patterns (shell wildcards); case matters."""
    return any(fnmatchcase(value, pattern) for pattern in patterns)


def describe_window(window: WindowSpec) -> str:
    """A window in words."""
    if isinstance(window, Sliding):
        return f"{window.name}: {window.length:g} s every {window.hop:g} s"
    return f"{window.name}: {window.tmin:g} to {window.tmax:g} s around markers {', '.join(window.markers)}"


def samples(seconds: float, sfreq: float) -> Fraction:
    """Seconds as a number of samples, exact for times and rates of at most six decimals."""
    return Fraction(seconds).limit_denominator(10**6) * Fraction(sfreq).limit_denominator(10**6)


def round_half_up(x: Fraction) -> int:
    """Nearest whole number; halves go up, whatever their sign, so that no two windows round differently."""
    return math.floor(x + Fraction(1, 2))


def sample_at(seconds: float, sfreq: float) -> int:
    """The sample at a time relative to an anchor; a length in whole samples."""
    return round_half_up(samples(seconds, sfreq))
