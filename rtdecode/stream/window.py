"""Which windows a decoder cuts, and where each one lies on the conditioned sample grid."""

import math
from fractions import Fraction

import msgspec


class _Window(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="window"):
    name: str


class Sliding(_Window, tag="sliding"):
    """A window of `length` seconds every `hop` seconds, counted from the start of the segment."""

    length: float
    hop: float
    name: str = "sliding"

    def n_samples(self, sfreq: float) -> int:
        """Samples in one window at `sfreq` Hz."""
        return round_half_up(samples(self.length, sfreq))

    def step(self, sfreq: float) -> Fraction:
        """Samples from one window to the next: window n starts at n steps, rounded, so that no hop drifts."""
        return samples(self.hop, sfreq)


class Locked(_Window, tag="locked"):
    """A window over [tmin, tmax) seconds around each marker whose value matches one of the patterns (shell wildcards)."""

    tmin: float
    tmax: float
    markers: tuple[str, ...]
    name: str = "locked"

    def n_samples(self, sfreq: float) -> int:
        """Samples in one window at `sfreq` Hz."""
        return round_half_up(samples(self.tmax - self.tmin, sfreq))

    def offset(self, sfreq: float) -> int:
        """First sample of a window, relative to the marker's sample."""
        return round_half_up(samples(self.tmin, sfreq))


WindowSpec = Sliding | Locked


def samples(seconds: float, sfreq: float) -> Fraction:
    """Seconds as a number of samples, exact for times and rates of at most six decimals."""
    return Fraction(seconds).limit_denominator(10**6) * Fraction(sfreq).limit_denominator(10**6)


def round_half_up(x: Fraction) -> int:
    """Nearest whole number; halves go up, whatever their sign, so that no two windows round differently."""
    return math.floor(x + Fraction(1, 2))
