"""Trigger channels (STI101, Status, UPPT...) become markers, by declared rules.

A reader is fed samples and gives markers; which ones depends on the samples alone, never on how they were cut.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import SourceError
from rtdecode.signal import Chunk, Marker, StreamInfo


@dataclass(frozen=True, slots=True)
class TriggerRule:
    """How the values of one trigger channel become markers.

    A value is rounded to the nearest whole number and masked (in two's complement, so the negative values of a
    sign-extended BioSemi Status come out as the port saw them). A code counts once it has held for `debounce_s`;
    shorter ones are glitches. The marker is stamped at the first sample of the code, plus `delay_s`.

    Parameters
    ----------
    channel : str
        Name of the channel.
    mask : int
        Bits that count: 255 for 8 bits, 0xFFFF for 16.
    edge : {"rising", "falling", "change"}
        ``rising``: a code other than 0 begins (its value is the marker's). ``falling``: a code other than 0 ends (the
        value is that of the code that ended). ``change``: any code begins, 0 included.
    debounce_s : float
        Seconds that a code must last to count.
    delay_s : float
        Added to the stamp: positive where the stimulus appears after the trigger (a display's lag), negative where it
        came before.
    """

    channel: str
    mask: int = 0xFFFF
    edge: Literal["rising", "falling", "change"] = "rising"
    debounce_s: float = 0.0
    delay_s: float = 0.0

    def __post_init__(self) -> None:
        where = f"trigger rule for channel {self.channel!r}"
        if self.edge not in ("rising", "falling", "change"):
            raise SourceError(f"{where}: edge is {self.edge!r}; expected rising, falling or change")
        if not 0 < self.mask <= 0xFFFF_FFFF:
            raise SourceError(f"{where}: mask is {self.mask}; expected 1 to {0xFFFF_FFFF}")
        if not (math.isfinite(self.debounce_s) and self.debounce_s >= 0):
            raise SourceError(f"{where}: debounce_s is {self.debounce_s}; expected seconds, 0 or more")
        if not math.isfinite(self.delay_s):
            raise SourceError(f"{where}: delay_s is {self.delay_s}; expected seconds")


@dataclass(slots=True)
class _Pending:
    """A code that has begun and not yet lasted long enough."""

    code: int
    stamp: float
    samples: int


class TriggerReader:
    """Applies one rule to one channel, sample by sample.

    Parameters
    ----------
    rule : TriggerRule
        The rule.
    sfreq : float
        Sampling rate in Hz, which turns `TriggerRule.debounce_s` into samples.
    """

    def __init__(self, rule: TriggerRule, sfreq: float) -> None:
        self.rule = rule
        self._hold = max(1, math.ceil(rule.debounce_s * sfreq - 1e-6))
        self._state: int | None = None  # the code in force; None before the first sample
        self._pending: _Pending | None = None
        self._newest = -math.inf

    def feed(self, values: NDArray[np.float32], stamps: NDArray[np.float64]) -> list[Marker]:
        """Take consecutive samples of the channel, and give the markers that they complete.

        Parameters
        ----------
        values : ndarray of float32, shape (n,)
            Values of the trigger channel. NaN and Inf repeat the code in force.
        stamps : ndarray of float64, shape (n,)
            Their stamps in seconds.
        """
        if not len(values):
            return []
        codes = self._codes(values)
        starts = np.flatnonzero(np.diff(codes, prepend=codes[0] - 1))
        lengths = np.diff(starts, append=len(codes))
        markers: list[Marker] = []
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            self._run(int(codes[start]), float(stamps[start]), length, markers)
        self._newest = float(stamps[-1])
        return markers

    def hole(self) -> None:
        """Samples are missing here: a code that has not lasted long enough begins anew after the hole."""
        self._pending = None

    def reset(self) -> None:
        """Forget everything: another segment begins."""
        self._state, self._pending, self._newest = None, None, -math.inf

    @property
    def watermark(self) -> float:
        """Every marker with a stamp up to this one has been given."""
        newest = self._newest if self._pending is None else math.nextafter(self._pending.stamp, -math.inf)
        return newest + min(0.0, self.rule.delay_s)

    def _codes(self, values: NDArray[np.float32]) -> NDArray[np.int64]:
        finite = np.isfinite(values)
        codes = np.rint(np.where(finite, values, 0)).astype(np.int64) & self.rule.mask
        if not finite.all():
            # The code in force includes one that is still pending: a NaN neither ends nor begins anything.
            before = self._pending.code if self._pending is not None else self._state
            last = np.maximum.accumulate(np.where(finite, np.arange(len(codes)), -1))
            codes = np.where(last >= 0, codes[last], before if before is not None else 0)
        return codes

    def _run(self, code: int, stamp: float, length: int, markers: list[Marker]) -> None:
        if self._state is None:  # whatever is on at the start began before it
            self._state = code
            return
        if code == self._state:
            self._pending = None
            return
        if self._pending is None or self._pending.code != code:
            self._pending = _Pending(code, stamp, 0)
        self._pending.samples += length
        if self._pending.samples >= self._hold:
            self._accept(self._pending, markers)
            self._pending = None

    def _accept(self, pending: _Pending, markers: list[Marker]) -> None:
        before, self._state = self._state, pending.code
        code = before if self.rule.edge == "falling" else pending.code
        if code or self.rule.edge == "change":
            markers.append(Marker(pending.stamp + self.rule.delay_s, str(code), self.rule.channel))


class Triggers:
    """All the trigger rules of one source.

    Parameters
    ----------
    rules : sequence of TriggerRule
        The rules; two may read the same channel (two masks).
    info : StreamInfo
        The stream that they read.

    Raises
    ------
    SourceError
        Where a rule names a channel that the stream does not have.
    """

    def __init__(self, rules: Sequence[TriggerRule], info: StreamInfo) -> None:
        for rule in rules:
            if rule.channel not in info.names:
                likely = [channel.name for channel in info.channels if channel.type in ("stim", "misc")]
                listed = ", ".join(likely or info.names)
                raise SourceError(
                    f"{info.source} has no channel {rule.channel!r} to read triggers from; expected one of {listed}"
                )
        self._readers = [(info.names.index(rule.channel), TriggerReader(rule, info.sfreq)) for rule in rules]
        self._segment: int | None = None
        self._next = 0

    def feed(self, chunk: Chunk) -> list[Marker]:
        """The markers that this chunk completes, in order of their stamps."""
        if self._segment != chunk.segment:
            for _, reader in self._readers:
                reader.reset()
        elif chunk.first_index != self._next:
            for _, reader in self._readers:
                reader.hole()
        self._segment, self._next = chunk.segment, chunk.stop_index
        markers = [m for at, reader in self._readers for m in reader.feed(chunk.samples[:, at], chunk.stamps)]
        return sorted(markers)

    @property
    def watermark(self) -> float:
        """Every trigger marker with a stamp up to this one has been given; infinite where there are no rules."""
        return min((reader.watermark for _, reader in self._readers), default=math.inf)
