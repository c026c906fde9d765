"""Whether a process still turns: what its supervisor concludes from the beats it hears, and from those it misses.

A process beats from its main loop, so that one that hangs falls silent however many of its threads go on. Pure: time is
given to it.
"""

import enum
from dataclasses import dataclass

#: Longest step of a supervisor's clock: time in which the supervisor itself did not run counts against nobody.
LONGEST_STEP_S = 0.5

#: What a process may take to leave once it has said that it does: a recording's last blocks have to reach the disk.
LEAVE_S = 60.0


class WakingClock:
    """Counts only the time in which its owner was awake.

    Where the supervisor was stopped, the machine suspended, or either so loaded that the supervisor did not come to its
    turn, its children had no chance to be heard either. Each step is therefore cut at `LONGEST_STEP_S`.

    Parameters
    ----------
    now : float
        Seconds on any monotonic clock.
    """

    def __init__(self, now: float) -> None:
        self._last = now
        self.now = 0.0
        #: Seconds that the last step was cut by.
        self.slept = 0.0

    def tick(self, now: float) -> float:
        """Advance to `now`; the time awake in seconds."""
        passed = now - self._last
        step = min(max(passed, 0.0), LONGEST_STEP_S)
        self.slept = max(passed - step, 0.0)
        self._last = now
        self.now += step
        return self.now


class Phase(enum.Enum):
    """Where a process is in its life."""

    STARTING = "starting"
    BEATING = "beating"
    LEAVING = "leaving"


@dataclass(slots=True)
class Pulse:
    """One process's signs of life, in seconds of a `WakingClock`.

    Parameters
    ----------
    began : float
        When it was started.
    start_s : float
        What it may take until it is ready.
    hang_s : float
        How long it may be silent from then on.
    """

    began: float
    start_s: float
    hang_s: float
    phase: Phase = Phase.STARTING
    heard: float = 0.0
    ready: float = 0.0

    def __post_init__(self) -> None:
        self.heard = self.began

    def beat(self, now: float) -> None:
        """It turns, and hence is ready. One that leaves stays so: a late beat takes nothing back."""
        self.heard = now
        if self.phase is Phase.STARTING:
            self.phase, self.ready = Phase.BEATING, now

    def leave(self, now: float) -> None:
        """It has said its last."""
        self.heard = now
        self.phase = Phase.LEAVING

    @property
    def limit(self) -> float:
        """Seconds of silence that are too many."""
        return {Phase.STARTING: self.start_s, Phase.BEATING: self.hang_s, Phase.LEAVING: LEAVE_S}[self.phase]

    def overdue(self, now: float) -> bool:
        """Whether it has been silent for too long."""
        return now - self.heard > self.limit

    @property
    def lived(self) -> float:
        """Seconds that it was seen to run, from its being ready to its last beat."""
        return 0.0 if self.phase is Phase.STARTING else self.heard - self.ready

    def describe(self) -> str:
        """How it is overdue, for people."""
        match self.phase:
            case Phase.STARTING:
                return f"hung: not ready after {self.limit:g} s"
            case Phase.BEATING:
                return f"hung: silent for {self.limit:g} s"
            case Phase.LEAVING:
                return f"hung: still there {self.limit:g} s after its end"
