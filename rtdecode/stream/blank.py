"""Blanking: samples around markers (a stimulation artefact, say) replaced before any filter sees them."""

import bisect
import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import ConfigError
from rtdecode.signal import Channel, Marker
from rtdecode.stream.fill import between
from rtdecode.stream.finite import hold_finite
from rtdecode.stream.handling import Blank
from rtdecode.stream.rows import STAMP, Rows, join
from rtdecode.stream.runner import find, unique
from rtdecode.stream.window import matches

#: A straight line needs the sample after it. Stretches of more seconds, where one blank runs into the next, are held
#: instead, so that nobody waits for their end.
LONGEST_LINE_S = 0.5


class Blanker:
    """Runs one `Blank`. What comes out does not depend on how the rows that go in are cut.

    Every marker up to a row's stamp less `Blank.tmin` has been given by `mark` before the row is pushed.

    Parameters
    ----------
    where : str
        For messages.
    blank : Blank
    channels : sequence of Channel
        Of the rows.
    sfreq : float
        Hz.

    Raises
    ------
    ContractError
        A channel is not there.
    ConfigError
        A channel comes twice, or `tmax` is not after `tmin`.
    """

    def __init__(self, where: str, blank: Blank, channels: Sequence[Channel], sfreq: float) -> None:
        if not -math.inf < blank.tmin < blank.tmax < math.inf:
            raise ConfigError(f"{where}: tmax = {blank.tmax:g} s; expected more than tmin, {blank.tmin:g} s")
        if blank.channels:
            unique(where, "channels", blank.channels)
        names = blank.channels or [channel.name for channel in channels]
        self._blank = blank
        self._columns = np.array(find(where, channels, names), np.intp)
        self._longest = max(1, math.ceil(LONGEST_LINE_S * sfreq))
        self._marks: list[float] = []
        self._pending: list[Rows] = []  # from the first row of an unfinished line on
        self._waiting = 0  # rows in there
        self._holding = False  # this stretch has become too long for a line
        self._last = np.full(len(self._columns), np.nan, np.float32)

    def takes(self, marker: Marker) -> bool:
        """Whether it blanks around this marker."""
        return matches(marker.value, self._blank.markers)

    def mark(self, marker: Marker) -> None:
        """Note a marker."""
        if self.takes(marker):
            bisect.insort(self._marks, marker.stamp)

    def push(self, rows: Rows) -> list[Rows]:
        """Take consecutive rows; give those that are ready, in order."""
        mask = self._mask(rows.times[:, STAMP])
        if not mask.any() and not self._pending:
            self._holding = False
            self._note(rows.samples)
            return [rows]
        if self._blank.method != "linear":
            return [self._replace(rows, mask)]
        ready: list[Rows] = []
        # Stretches of one kind, one after the other.
        edges = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), len(mask)]
        for start, stop in itertools.pairwise(edges):
            part = rows.cut(start, stop)
            ready += self._disturbed(part) if mask[start] else self._clean(part)
        return ready

    def flush(self) -> list[Rows]:
        """Nothing continues these rows: give what waits for the end of a line, and forget the samples before."""
        ready = self._hold_pending()
        self._holding = False
        self._last[:] = np.nan
        return ready

    def _mask(self, stamps: NDArray[np.float64]) -> NDArray[np.bool_]:
        if not self._marks:
            return np.zeros(len(stamps), np.bool_)
        marks = np.array(self._marks)
        before = np.searchsorted(marks, stamps - self._blank.tmax, side="left")
        after = np.searchsorted(marks, stamps - self._blank.tmin, side="right")
        # Stamps increase within a segment; and a marker from before the last samples of the one before is late.
        del self._marks[: int(before[-1])]
        found: NDArray[np.bool_] = after > before
        return found

    def _note(self, samples: NDArray[np.float32]) -> None:
        """Remember the last finite sample of each channel."""
        mine = samples[:, self._columns]
        last = mine[-1]
        self._last = last.copy() if np.isfinite(last).all() else hold_finite(mine, self._last)[0][-1]

    def _replace(self, rows: Rows, mask: NDArray[np.bool_]) -> Rows:
        samples = rows.samples.copy()
        if self._blank.method == "zero":
            samples[np.ix_(mask, self._columns)] = 0
        else:
            mine = samples[:, self._columns]
            mine[mask] = np.nan
            held, _ = hold_finite(mine, self._last)
            self._last = held[-1]
            samples[np.ix_(mask, self._columns)] = held[mask]
        return _blanked(rows, samples, mask)

    def _clean(self, rows: Rows) -> list[Rows]:
        ready: list[Rows] = []
        if self._pending:
            whole = join(self._pending)
            samples = whole.samples.copy()
            after = rows.samples[0, self._columns]
            samples[:, self._columns] = between("linear", self._last, after, len(whole))
            ready.append(_blanked(whole, samples, np.ones(len(whole), np.bool_)))
            self._pending, self._waiting = [], 0
        self._holding = False
        self._note(rows.samples)
        return [*ready, rows]

    def _disturbed(self, rows: Rows) -> list[Rows]:
        self._pending.append(rows)
        self._waiting += len(rows)
        self._holding |= self._waiting > self._longest
        return self._hold_pending() if self._holding else []

    def _hold_pending(self) -> list[Rows]:
        if not self._pending:
            return []
        whole = join(self._pending)
        samples = whole.samples.copy()
        samples[:, self._columns] = self._last
        self._pending, self._waiting = [], 0
        return [_blanked(whole, samples, np.ones(len(whole), np.bool_))]


def _blanked(rows: Rows, samples: NDArray[np.float32], mask: NDArray[np.bool_]) -> Rows:
    blanked = mask if rows.blanked is None else rows.blanked | mask
    return Rows(samples, rows.times, rows.filled, blanked)
