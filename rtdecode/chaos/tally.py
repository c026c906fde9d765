"""Every window of a chaos run held against the truth: is it what its message says."""

import bisect
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rtdecode.chaos import truth
from rtdecode.wire.messages import Window

#: How far a marker-locked window may lie from its marker's sample: stamps under jitter are good to one sample.
MARKER_SAMPLES = 1
#: The stamp of a window's newest sample may be off by its published uncertainty, or by one sample and this share of one
#: (the daemon's clock and the sender's are read at different moments).
SLACK = 0.25
#: No uncertainty excuses more than this, in seconds.
LARGEST_UNCERTAINTY_S = 0.05


@dataclass(slots=True)
class Life:
    """One life of the sender, as it told it.

    Parameters
    ----------
    zero : float
        Stamp of its sample 0, on the host's clock.
    sfreq : float
        Its rate in Hz.
    dropped : list of (int, int)
        Samples that it never sent.
    skews : list of (int, float)
        From this sample on its clock was so many seconds ahead of the host's.
    heard : (int, int) or None
        First and last of its samples that good windows held: what *acquire* is known to have had.
    """

    zero: float
    sfreq: float
    dropped: list[tuple[int, int]] = field(default_factory=list)
    skews: list[tuple[int, float]] = field(default_factory=lambda: [(0, 0.0)])
    heard: tuple[int, int] | None = None

    def skew(self, count: int) -> float:
        """Seconds that its clock was ahead at a sample."""
        at = bisect.bisect_right([first for first, _ in self.skews], count) - 1
        return self.skews[at][1]

    def hear(self, first: int, last: int) -> None:
        """A good window held these samples."""
        before = self.heard or (first, last)
        self.heard = min(before[0], first), max(before[1], last)

    def stamp(self, count: int) -> float:
        """What its clock said of a sample."""
        return self.zero + self.skew(count) + count / self.sfreq


@dataclass(frozen=True, slots=True)
class Judged:
    """One window's message, judged.

    Parameters
    ----------
    at : float
        Host time of its receipt.
    key : tuple
        Window, segment, start, marker: its identity.
    status : str
        As published.
    wrong : str
        What is wrong with it; empty where nothing is.
    """

    at: float
    key: tuple[str, int, int, str]
    status: str
    wrong: str


class Tally:
    """Judges windows as they come.

    Parameters
    ----------
    lives : mapping of int to Life
        Grows while the run goes on.
    delay_s : float
        How much later than they were taken samples may be stamped, where a transport carries no stamps: from arrivals
        alone, the constant part of the way cannot be known.
    """

    def __init__(self, lives: Mapping[int, Life], delay_s: float = 0.0) -> None:
        self._lives = lives
        self._delay_s = delay_s
        self._places: dict[tuple[int, int, float], int] = {}
        self._seen: dict[tuple[str, int, int, str], str] = {}
        self.judged: list[Judged] = []
        self.counts: Counter[str] = Counter()

    def add(self, at: float, message: Window, arrays: Mapping[str, NDArray[np.generic]]) -> Judged:
        """Judge a window received at host time `at`."""
        key = (message.window, message.segment, message.start, message.marker.value if message.marker else "")
        wrong = ""
        if message.status in ("ok", "late"):
            said = truth.read_witness(arrays["witness"])
            wrong = said.fault or self._misplaced(message, said)
            if not wrong:
                self._lives[said.life].hear(said.first, said.last)
        earlier = self._seen.setdefault(key, message.status)
        if not wrong and earlier != message.status and {earlier, message.status} & {"ok", "late"}:
            wrong = f"came twice, as {earlier} and as {message.status}"
        judged = Judged(at, key, message.status, wrong)
        self.judged.append(judged)
        self.counts[message.status] += 1
        return judged

    def untold(self) -> int:
        """Sliding windows between the first and the last one of each segment of which no message told."""
        starts: dict[int, set[int]] = {}
        for _, segment, start, marker in self._seen:
            if not marker:
                starts.setdefault(segment, set()).add(start)
        hop = round(truth.HOP_S * truth.SFREQ)
        return sum((max(told) - min(told)) // hop + 1 - len(told) for told in starts.values())

    def _misplaced(self, message: Window, said: truth.Witness) -> str:
        """Right samples under the wrong name: another time, another marker, another place in the segment."""
        life = self._lives.get(said.life)
        if life is None:
            return f"life {said.life} of the sender is unknown"
        stamp = message.ledger.stamp
        if stamp is None:
            return "no stamp"
        error = stamp - life.stamp(said.last)
        allowed = max((1 + SLACK) / life.sfreq, min(message.ledger.uncertainty or 0.0, LARGEST_UNCERTAINTY_S))
        allowed += self._delay_s
        if not math.isfinite(error) or abs(error) > allowed:
            return f"its stamp is off by {error * 1e3:.1f} ms (allowed {allowed * 1e3:.1f})"
        if message.marker is not None:
            off = said.first - int(message.marker.value.removeprefix("n"))
            if abs(off) > MARKER_SAMPLES:
                return f"it begins {off} samples from its marker"
        apart = said.first - message.start
        before = self._places.setdefault((said.life, message.segment, life.skew(said.last)), apart)
        if apart != before:
            return f"sample {said.first} stands at {message.start} of segment {message.segment}, not {before} earlier"
        return ""
