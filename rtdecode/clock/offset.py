"""A sender's clock mapped to the host's, from measurements of the offset between the two."""

import math
from collections import deque
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

#: The rates of two quartz clocks differ by this much (one standard deviation), as far as measurements do not say.
DRIFT = 5e-5
#: ... and the difference of their rates wanders: what a measurement loses in worth per second of age.
WANDER = 2e-6
#: How fast the offset in force follows the fitted one, in seconds per second: stamps stay increasing.
SLEW = 1e-3
#: Offsets below this, on the same host, are errors of measurement.
SAME_HOST_S = 1e-3
#: So many measurements in a row on one side of the line, each further from it than they are uncertain and than this
#: (seconds), say that one of the clocks was set.
STRAYS = 3
STRAY_S = 5e-3
#: One is enough where it shows, to this part, what the stamps' own step made suspect; for so many measurements.
ALIKE, SUSPECTED = 0.1, 3
#: The line is drawn on for so many seconds, and is level beyond.
_REACH_S = 600.0
_ITERATIONS = 8
#: Iterations end where the line moves by less (seconds).
_SETTLED_S = 1e-8
_FLOOR_S = 1e-6


@dataclass(frozen=True, slots=True)
class _Force:
    """The offset in force from sender time `since` on: a line, and what is left of the one before."""

    since: float
    value: float
    slope: float
    lag: float
    uncertainty: float

    def at(self, time: float) -> float:
        ahead = time - self.since
        lag = math.copysign(max(0.0, abs(self.lag) - SLEW * max(0.0, ahead)), self.lag)
        return self.value + self.slope * min(max(ahead, -_REACH_S), _REACH_S) + lag


class ClockOffset:
    """Maps stamps of a sender to host time.

    A robust straight line of offset over time: least squares weighted by the uncertainty of each measurement, which
    grows with its age; a measurement further from the line than it is uncertain weighs less in proportion (Huber's
    weights, by iteration; Huber 1964), and quartz clocks' 50 ppm are the prior of the slope. A new line is approached
    by `SLEW` at most, so that mapped stamps never step backwards and a correction never looks like a hole. When
    `STRAYS` measurements in a row contradict the line on the same side, a clock was set: what was before is forgotten,
    and `steps` counts it.

    One thread may measure while others map: what is in force is replaced as a whole.

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
        self._force: _Force | None = None
        self._strays = 0
        self._suspected, self._suspected_for = 0.0, 0
        self.steps = 0

    def suspect(self, step: float) -> None:
        """The sender's stamps went on by `step` seconds at once: samples are missing, or its clock was set."""
        self._suspected, self._suspected_for = step, SUSPECTED

    def measured(self, time: float, offset: float, uncertainty: float) -> None:
        """Take a measurement: at host time `time`, host minus sender was `offset`, give or take `uncertainty` (s)."""
        if not (math.isfinite(time) and math.isfinite(offset) and math.isfinite(uncertainty)):
            return
        first = not self._measured
        sender_time = time - offset
        expected = 0.0 if self._same_host else offset if self._force is None else self._force.at(sender_time)
        known = 0.0 if self._force is None else self._force.uncertainty
        stray = offset - expected
        far = abs(stray) >= max(uncertainty + known, SAME_HOST_S if self._same_host else STRAY_S)
        self._strays = int(math.copysign(abs(self._strays) * (self._strays * stray > 0) + 1, stray)) if far else 0
        borne_out = self._borne_out(stray, uncertainty + known) and far
        self._measured.append((time, offset, uncertainty))
        if self._same_host:
            if first and far:
                self._same_host = False  # one host name, two clocks
            elif abs(self._strays) < STRAYS and not borne_out:
                return
        stepped = not first and (borne_out or abs(self._strays) >= STRAYS)
        if stepped:
            while len(self._measured) > (1 if borne_out else STRAYS):
                self._measured.popleft()
            self._strays = 0
        value, slope, error = _fit(list(self._measured))
        before = None if stepped else self._force
        lag = 0.0 if before is None else before.at(sender_time) - value
        self._force = _Force(sender_time, value, slope, lag, error)
        if stepped:
            self._same_host = False
            self.steps += 1

    def _borne_out(self, stray: float, error: float) -> bool:
        """Whether a measurement shows the suspected step: the sender went on, so that host minus sender fell."""
        if not self._suspected_for:
            return False
        self._suspected_for -= 1
        return abs(stray + self._suspected) <= max(error, ALIKE * self._suspected)

    @property
    def known(self) -> bool:
        """Whether stamps can be mapped yet."""
        return self._same_host or self._force is not None

    @property
    def uncertainty(self) -> float:
        """Of the offset in force, in seconds; 0 on the same host.

        One standard deviation of the line, and what the best measurement may be wrong by: unequal ways there and back
        do not average out.
        """
        force = self._force
        return 0.0 if self._same_host or force is None else force.uncertainty + abs(force.lag)

    @property
    def offset(self) -> float:
        """Seconds to be added to the sender's stamps at the newest measurement, before slewing; 0 on the same host."""
        force = self._force
        return 0.0 if self._same_host or force is None else force.value

    @overload
    def to_host(self, stamps: float) -> float: ...
    @overload
    def to_host(self, stamps: NDArray[np.float64]) -> NDArray[np.float64]: ...
    def to_host(self, stamps: float | NDArray[np.float64]) -> float | NDArray[np.float64]:
        """Map stamps of the sender to host time."""
        force = self._force
        if isinstance(stamps, np.ndarray):
            return np.array([self.to_host(float(one)) for one in stamps], np.float64)
        return stamps if self._same_host or force is None else stamps + force.at(stamps)


def _fit(measured: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    """Offset at the newest measurement, its slope, and its uncertainty."""
    time, value, uncertainty = np.array(measured, np.float64).T
    x = time - time[-1]
    sigma = np.maximum(uncertainty, _FLOOR_S) + WANDER * np.abs(x)
    best = int(np.argmin(sigma))
    level, slope = float(value[best]), 0.0
    s0 = s1 = s2 = 0.0
    for _ in range(_ITERATIONS):
        weight = np.minimum(1.0, sigma / np.maximum(np.abs(value - level - slope * x), 1e-12)) / sigma**2
        wx = weight * x
        s0, s1, s2 = float(weight.sum()), float(wx.sum()), float(wx @ x) + DRIFT**-2
        t0, t1 = float(weight @ value), float(wx @ value)
        determinant = s0 * s2 - s1 * s1
        before = level, slope
        level, slope = (s2 * t0 - s1 * t1) / determinant, (s0 * t1 - s1 * t0) / determinant
        if abs(level - before[0]) < _SETTLED_S and abs(slope - before[1]) * _REACH_S < _SETTLED_S:
            break
    error = math.sqrt(s2 / (s0 * s2 - s1 * s1))
    return level, slope, error + float(sigma[best])
