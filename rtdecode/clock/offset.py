"""A sender's clock mapped to the host's, from measurements of the offset between the two."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

#: How far two clocks may drift apart per second; what a measurement loses in worth as it grows old.
DRIFT = 2e-5
#: How fast the applied offset follows the measured one, in seconds per second: stamps stay increasing.
SLEW = 1e-3
#: Offsets below this, on the same host, are errors of measurement.
SAME_HOST_S = 1e-3


class ClockOffset:
    """Maps stamps of a sender to host time.

    The offset in force is that of the best recent measurement: the one with the least uncertainty, where each second
    of age counts as `DRIFT` more. It moves towards a new one by `SLEW` at most, so that mapped stamps never step
    backwards and a correction never looks like a hole.

    Parameters
    ----------
    same_host : bool
        Sender and host are one machine. Their clock is then one, and stamps stay as they are to the last bit, as long
        as no measurement contradicts.
    keep : int
        Measurements kept.
    """

    def __init__(self, same_host: bool = False, keep: int = 32) -> None:
        self._measured: deque[tuple[float, float, float]] = deque(maxlen=keep)
        self._same_host = same_host
        self._applied: float | None = None
        self._last = 0.0

    def measured(self, time: float, offset: float, uncertainty: float) -> None:
        """Take a measurement: at host time `time`, host minus sender was `offset`, give or take `uncertainty` (s)."""
        if self._same_host and not self._measured and abs(offset) >= max(uncertainty, SAME_HOST_S):
            self._same_host = False  # one host name, two clocks
        self._measured.append((time, offset, uncertainty))

    @property
    def known(self) -> bool:
        """Whether stamps can be mapped yet."""
        return self._same_host or bool(self._measured)

    @property
    def uncertainty(self) -> float:
        """Of the measurement in force, in seconds; 0 on the same host."""
        return 0.0 if self._same_host or not self._measured else self._best()[2]

    @property
    def offset(self) -> float:
        """Seconds to be added to the sender's stamps, before slewing; 0 on the same host."""
        return 0.0 if self._same_host or not self._measured else self._best()[1]

    def _best(self) -> tuple[float, float, float]:
        newest = self._measured[-1][0]
        return min(self._measured, key=lambda one: one[2] + DRIFT * (newest - one[0]))

    def to_host(self, stamps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map stamps of the sender, given in order of time, to host time."""
        if self._same_host or not len(stamps):
            return stamps.copy()
        target = self.offset
        if self._applied is None:
            self._applied, self._last = target, float(stamps[0])
        reach = SLEW * np.maximum(stamps - self._last, 0.0)
        offsets = self._applied + np.clip(target - self._applied, -reach, reach)
        self._applied = float(offsets[-1])
        self._last = max(self._last, float(stamps[-1]))
        host: NDArray[np.float64] = stamps + offsets
        return host
