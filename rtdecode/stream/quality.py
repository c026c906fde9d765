"""What is wrong with the samples of a window: not finite, flat, clipped, out of range, filled, blanked.

It is found on the samples as the decoder takes them (SI units, after filling and blanking, before interpolation and
conditioning), over the raw samples that a window is made of.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import ConfigError
from rtdecode.signal import Channel
from rtdecode.stream.extremes import Extremes
from rtdecode.stream.handling import Limit, Limits
from rtdecode.stream.rows import Rows


class Quality(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is wrong with a window's samples. Channels that are interpolated are not looked at."""

    not_finite: dict[str, int] = {}
    """Channels with samples that are NaN or infinite, and how many."""
    flat: tuple[str, ...] = ()
    """Channels that hardly move."""
    clipped: tuple[str, ...] = ()
    """Channels that stand at their highest or lowest value for several samples in a row."""
    out_of_range: tuple[str, ...] = ()
    """Channels beyond what they may be."""
    filled: int = 0
    """Raw samples that stand in for missing ones."""
    blanked: int = 0
    """Raw samples in which something was replaced around a marker."""

    @property
    def bad(self) -> tuple[str, ...]:
        """Every bad channel once."""
        return tuple(dict.fromkeys([*self.not_finite, *self.flat, *self.clipped, *self.out_of_range]))

    def describe(self) -> str:
        """The bad channels in words."""
        parts = []
        if self.not_finite:
            counts = ", ".join(f"{name} ({n})" for name, n in self.not_finite.items())
            parts.append(f"samples that are not finite: {counts}")
        for what, names in (("flat", self.flat), ("clipped", self.clipped), ("out of range", self.out_of_range)):
            if names:
                parts.append(f"{what}: {', '.join(names)}")
        return "; ".join(parts)


_SOUND = Quality()


class _Counts:
    """How often something was so, column by column, in any stretch of samples; costs nothing where it never was."""

    def __init__(self, n_columns: int) -> None:
        self._total = np.zeros(n_columns, np.int64)
        self._firsts: list[int] = []
        self._entries: list[tuple[NDArray[np.bool_], NDArray[np.int64]]] = []  # flags, and the count before them

    def add(self, first: int, flags: NDArray[np.bool_]) -> None:
        """Note flags, shape (n, columns), of the samples from `first` on."""
        self._firsts.append(first)
        self._entries.append((flags, self._total))
        self._total = self._total + flags.sum(axis=0)

    def between(self, start: int, stop: int) -> NDArray[np.int64] | None:
        """Counts in samples [start, stop); None where nothing was noted there."""
        if not self._firsts or stop <= self._firsts[0]:
            return None
        if start >= self._firsts[-1] + len(self._entries[-1][0]):
            return None
        return self._before(stop) - self._before(start)

    def _before(self, index: int) -> NDArray[np.int64]:
        at = bisect_right(self._firsts, index) - 1
        if at < 0:
            return self._entries[0][1]
        flags, before = self._entries[at]
        count: NDArray[np.int64] = before + flags[: index - self._firsts[at]].sum(axis=0)
        return count

    def forget(self, oldest: int) -> None:
        """Samples before `oldest` will not be asked for."""
        if self._firsts and self._firsts[0] + len(self._entries[0][0]) <= oldest:
            n = bisect_right(self._firsts, oldest) - 1
            if n > 0:
                del self._firsts[:n], self._entries[:n]
            elif len(self._firsts) == 1:
                self._firsts, self._entries = [], []


class Watch:
    """Follows the samples of one segment, and tells the quality of any stretch of them.

    Parameters
    ----------
    limits : Limits
    channels : sequence of Channel
        Those that the conditioning chain takes.
    known_bad : ndarray of int
        Columns that are not looked at.
    first_index : int
        Of the segment's first sample.
    capacity : int
        Raw samples that are remembered.

    Raises
    ------
    ConfigError
        A limit names a channel type that none of the channels has.
    """

    def __init__(
        self,
        limits: Limits,
        channels: Sequence[Channel],
        known_bad: NDArray[np.intp],
        *,
        first_index: int = 0,
        capacity: int = 1,
    ) -> None:
        self.max_bad = limits.max_bad
        self._names = [channel.name for channel in channels]
        self._known_bad = known_bad
        self._flat = _vector("flat", limits.flat, channels)
        self._range = _vector("range", limits.range, channels)
        self._clip = limits.clip
        self._next = first_index
        self._not_finite = _Counts(len(self._names))
        self._filled = _Counts(1)
        self._blanked = _Counts(1)
        self._extremes = None
        if self._flat is not None or self._range is not None or self._clip is not None:
            self._extremes = Extremes(len(self._names), capacity, first_index, self._clip)

    def push(self, rows: Rows, bad: NDArray[np.bool_] | None) -> None:
        """Take consecutive samples.

        Parameters
        ----------
        rows : Rows
            What is not finite is still so.
        bad : ndarray of bool, shape (n, channels), or None
            Where they are not finite.
        """
        first, self._next = self._next, self._next + len(rows)
        if bad is not None:
            self._not_finite.add(first, bad)
        if rows.filled is not None:
            self._filled.add(first, rows.filled[:, None])
        if rows.blanked is not None:
            self._blanked.add(first, rows.blanked[:, None])
        if self._extremes is not None:
            self._extremes.push(rows.samples if bad is None else np.where(bad, np.float32(np.nan), rows.samples))

    def skip(self, next_index: int) -> None:
        """Samples up to `next_index` never came."""
        if self._extremes is not None:
            self._extremes.skip(next_index)
        self._next = next_index

    def forget(self, oldest: int) -> None:
        """Samples before `oldest` will not be asked for."""
        for counts in (self._not_finite, self._filled, self._blanked):
            counts.forget(oldest)

    def quality(self, start: int, stop: int) -> Quality | None:
        """The quality of raw samples [start, stop), all of which came; None where nothing is wrong."""
        not_finite = self._not_finite.between(start, stop)
        filled = self._filled.between(start, stop)
        blanked = self._blanked.between(start, stop)
        flat = clipped = beyond = None
        if self._extremes is not None:
            high, low = self._extremes.between(start, stop)
            moved = high >= low  # false where a channel had no finite sample
            if self._flat is not None:
                flat = moved & (high - low < self._flat)
            if self._range is not None:
                beyond = moved & (np.maximum(high, -low) > self._range)
            if self._clip is not None:
                top, bottom = self._extremes.rails(start, stop)
                clipped = moved & ((top >= high) | (bottom <= low))
                if flat is not None:
                    clipped &= ~flat
        if not_finite is None and filled is None and blanked is None and self._extremes is None:
            return None
        found = Quality(
            not_finite={}
            if not_finite is None
            else {self._names[at]: int(not_finite[at]) for at in self._of(not_finite > 0)},
            flat=self._named(flat),
            clipped=self._named(clipped),
            out_of_range=self._named(beyond),
            filled=0 if filled is None else int(filled[0]),
            blanked=0 if blanked is None else int(blanked[0]),
        )
        return None if found == _SOUND else found

    def explain(self, quality: Quality) -> str:
        """Why a window of this quality is an artifact, in words."""
        if not self.max_bad:
            return quality.describe()
        return f"{len(quality.bad)} bad channels, {self.max_bad} allowed: {quality.describe()}"

    def _of(self, flags: NDArray[np.bool_]) -> list[int]:
        if len(self._known_bad):
            flags = flags.copy()
            flags[self._known_bad] = False
        return np.flatnonzero(flags).tolist()

    def _named(self, flags: NDArray[np.bool_] | None) -> tuple[str, ...]:
        return () if flags is None or not flags.any() else tuple(self._names[at] for at in self._of(flags))


def _vector(key: str, limit: Limit | None, channels: Sequence[Channel]) -> NDArray[np.float64] | None:
    """One limit for each channel; NaN, which nothing is below or beyond, where there is none."""
    if limit is None:
        return None
    if not isinstance(limit, Mapping):
        return np.full(len(channels), float(limit))
    types = {channel.type for channel in channels}
    if unknown := sorted(set(limit) - types):
        raise ConfigError(
            f"quality: {key} names channel type {unknown[0]!r}; the bundle decodes {', '.join(sorted(types))}"
        )
    return np.array([limit.get(channel.type, np.nan) for channel in channels])
