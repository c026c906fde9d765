"""When samples are taken and when a window is rehearsed, so that its last samples find all else done and at hand."""

import math

from rtdecode.daemon.arrival import NextArrival
from rtdecode.signal import Chunk

#: Samples by which no window is due need wake nobody for so many seconds.
QUIET_S = 0.1

#: How much longer than lately it may take to take samples, and a reserve on top, in seconds.
LONGER, RESERVE_S = 1.25, 0.0005

#: What taking samples costs is remembered for so many chunks, more or less, and what a rehearsal costs for so many
#: rehearsals. Where the former is more than this share of real time, none wait: the encoder works while it listens,
#: and has no time to lose.
REMEMBERED, REHEARSALS, LOAD = 50, 8, 0.2

#: A rehearsal is worth it shortly before, in seconds: what is not used for a millisecond or two leaves the caches. And
#: it may not take longer than so many.
SOON_S, LONGEST_S = 0.005, 0.004

#: For so long after their earliest time nothing else is begun that can wait for a window's last samples, in seconds.
LATE_S = 0.003


class Pace:
    """Plans one pipeline's turns.

    Parameters
    ----------
    period : float
        Seconds from one raw sample to the next.
    """

    def __init__(self, period: float) -> None:
        #: Host time before which no window can become due; minus infinity where that is not known.
        self.quiet_until = -math.inf
        #: Host time at which to rehearse; infinity where no window is about to be due.
        self.rehearse_at = math.inf
        #: Host time up to which the last samples of a window may come any moment: what can wait does.
        self.expected_until = -math.inf
        #: How long before a window's last sample those before it are wanted, in seconds.
        self.lead = math.inf
        self._period = period
        self._expected = NextArrival(period)
        self._busy_s, self._busy_n = 0.0, 1.0  # seconds that lately went into taking samples, and how many those were
        self._rehearsal_s = 0.001

    def unknown(self) -> None:
        """Samples are being taken, or are missing: nothing can be said about the next ones."""
        self.quiet_until, self.rehearse_at, self.expected_until = -math.inf, math.inf, -math.inf

    def took(self, seconds: float, samples: int) -> bool:
        """Note what it took to take samples; whether there is time to let some wait for others."""
        self._busy_s += seconds - self._busy_s / REMEMBERED
        self._busy_n += samples - self._busy_n / REMEMBERED
        return self._busy_s / self._busy_n < LOAD * self._period

    def rehearsed(self, seconds: float) -> None:
        """Note what a rehearsal took."""
        self._rehearsal_s += (seconds - self._rehearsal_s) / REHEARSALS

    def plan(self, newest: Chunk, missing: float, now: float, *, patient: bool) -> None:
        """Find out what is to be done when.

        Parameters
        ----------
        newest : Chunk
            What was taken last.
        missing : float
            Raw samples behind it up to the one that makes a window due; negative where that is not known.
        now : float
            Host time.
        patient : bool
            As `took` said.
        """
        takes = LONGER * self._busy_s / self._busy_n * min(max(missing, 0.0), QUIET_S / self._period)
        ready = self._rehearsal_s + RESERVE_S
        self.lead = ready + takes if patient else math.inf
        due = self._expected.earliest(newest, missing)
        if not (patient and missing > 0 and due == due):
            return
        self.quiet_until = min(due - ready, newest.arrived + QUIET_S) - takes
        soon = now < due < now + SOON_S
        if soon:
            self.expected_until = due + LATE_S
        if self._rehearsal_s > LONGEST_S:
            self._rehearsal_s *= 0.9  # one that was held up is not the last
        elif soon:
            self.rehearse_at = due - self._rehearsal_s
