"""A clock that can only be heard: its offset, from what came stamped and when it came."""

import math
from collections import deque

#: The quickest message of each so many seconds is remembered; at first, of shorter ones.
BLOCK_S, FIRST_BLOCK_S = 0.5, 0.05
#: ... for so many seconds: two quartz clocks drift apart by 1.5 ms meanwhile.
MEMORY_S = 30.0
#: What these differ by within so many seconds is not known of the delay; and what differs for so long, stays.
LASTING_S = 2.0
#: How fast a greater delay is followed, in seconds per second.
SLEW = 1e-3
#: A difference of more seconds is a clock that was set.
STEP_S = 0.1
#: What cannot be known of the least delay: that of a sender that stamps, and of a network of one's own; and of the very
#: first message's, before others came.
FLOOR_S, FIRST_S = 1e-3, 0.02


class HeardOffset:
    """Host minus sender, by the quickest message of the last half minute.

    A message that took no time would give the offset itself, and delay can only add to it. So the offset is the least
    difference between arrival and stamp (as the minimum filter of RFC 5905, section 10, chooses its sample). A lesser
    one holds at once, since nothing comes before it was sampled; a greater one, once the quickest is forgotten, is
    approached by `SLEW`. What every message takes stays in it.

    `steps` counts how often one of the clocks was set.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.uncertainty = math.inf
        self._blocks: deque[tuple[float, float]] = deque()  # when each began, and its least difference
        self._n = 0
        self._since = math.inf
        self._value = 0.0
        self._heard_at = math.inf

    @property
    def known(self) -> bool:
        """Whether stamps can be mapped yet."""
        return self._n > 0

    def to_host(self, stamp: float) -> float:
        """Map a stamp of the sender to host time."""
        return stamp + self._value

    def heard(self, stamp: float, arrived: float) -> None:
        """A sample that the sender stamped so was here at this host time (seconds)."""
        delay = arrived - stamp
        self._n += 1
        if self._n == 1:
            self._begin(arrived, delay)
        elif self._value - delay > STEP_S and arrived - self._since > LASTING_S:
            self.steps += 1
            self._begin(arrived, delay)
        else:
            self._remember(arrived, delay)
        recent = [least for began, least in self._blocks if arrived - began <= LASTING_S]
        least = min(one for _, one in self._blocks)
        if min(recent) - self._value > STEP_S and arrived - self._blocks[0][0] > LASTING_S:
            self.steps += 1
            self._begin(arrived, min(recent))
            least = self._value
        self._value = min(least, self._value + SLEW * (arrived - self._heard_at))
        self._heard_at = arrived
        self.uncertainty = FLOOR_S + max(recent) - self._value + FIRST_S / self._n

    def _begin(self, arrived: float, delay: float) -> None:
        self._blocks.clear()
        self._blocks.append((arrived, delay))
        self._since = self._heard_at = arrived
        self._value = delay

    def _remember(self, arrived: float, delay: float) -> None:
        began, least = self._blocks[-1]
        if arrived - began < (BLOCK_S if arrived - self._since > LASTING_S else FIRST_BLOCK_S):
            self._blocks[-1] = (began, min(least, delay))
            return
        self._blocks.append((arrived, delay))
        while arrived - self._blocks[0][0] > MEMORY_S:
            self._blocks.popleft()
