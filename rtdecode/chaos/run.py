"""One daemon through a list of faults, and the row that each of them gives."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rtdecode import hostclock
from rtdecode.chaos.faults import Fault
from rtdecode.chaos.recorded import missing_stamps
from rtdecode.chaos.sender import BLOCK_S
from rtdecode.chaos.stage import Stage
from rtdecode.chaos.tally import Judged, Tally
from rtdecode.chaos.truth import SFREQ
from rtdecode.errors import ProcessError
from rtdecode.wire.messages import Event, Health, Window

#: Good windows in a row that say that all is well.
CALM = 8
#: Seconds to wait for a sign, and for all to be well again.
NOTICE_S, RECOVER_S = 30.0, 90.0
#: What the death of *acquire* may cost of what it had received: docs/recording.md.
UNWRITTEN_S = 0.5


@dataclass(slots=True)
class Row:
    """What became of one fault.

    Parameters
    ----------
    fault, over : str
        Which, and on which transport.
    detected_s : float or None
        Seconds from the fault to the first sign of it; None where it has none.
    recovered_s : float or None
        Seconds from its end to the first good window whose samples were taken after it; None where none came.
    windows, lost, wrong : int
        Windows published from the fault until all was well; those among them that are not `ok`; and those that claimed
        to be good and were not what they said.
    samples_lost : int
        Samples that reached *acquire* (or would have, had it lived) and are in no recording.
    outage : str
        Why samples may be missing: ``acquire``, ``disk`` or nothing.
    problems : list of str
        Everything that should not be.
    """

    fault: str
    over: str
    detected_s: float | None = None
    recovered_s: float | None = None
    windows: int = 0
    lost: int = 0
    wrong: int = 0
    samples_lost: int = 0
    outage: str = ""
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        """For people who wait."""
        good = "; ".join(self.problems or ["as it must be"])
        return f"{self.over}: {self.fault}: {self.lost} of {self.windows} windows lost, {self.wrong} wrong: {good}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SeenEvent:
    """An event, and when it came."""

    at: float
    message: Event


class Chaos:
    """Drives one `Stage` through faults.

    Parameters
    ----------
    stage : Stage
        Running.
    progress : callable
        Called with a line about what is going on.
    """

    def __init__(self, stage: Stage, progress: Callable[[str], None]) -> None:
        self._stage = stage
        self._progress = progress
        self._tally = Tally(stage.lives, BLOCK_S / 2 if stage.over == "fieldtrip" else 0.0)
        self._taken = 0
        self._events: list[SeenEvent] = []
        self._health: Health | None = None
        self._spans: list[tuple[Row, float]] = []

    def run(self, faults: Sequence[Fault]) -> list[Row]:
        """Every fault in turn; each begins when all is well."""
        self._calm(-math.inf, RECOVER_S)
        rows = []
        for fault in faults:
            rows.append(self._one(fault))
            self._progress(rows[-1].line())
            if self._stage.fault:
                raise ProcessError(self._stage.fault)
        return rows

    def close(self) -> list[str]:
        """End the session; count what the recordings lack, and hold the last counters against what was heard.

        Returns
        -------
        list of str
            What does not add up.
        """
        code = self._stage.stop()
        self._take()
        problems = [] if code == 0 else [f"the daemon ended with exit code {code}"]
        begins = [began - (UNWRITTEN_S if row.outage == "acquire" else 0.0) for row, began in self._spans]
        missing = missing_stamps(self._stage.recordings, self._stage.lives)
        for (row, _), began, ended in zip(self._spans, begins, [*begins[1:], math.inf], strict=True):
            row.samples_lost = int(((missing >= began) & (missing < ended)).sum())
            allowed = 0.0
            if row.outage == "acquire":
                allowed = UNWRITTEN_S + (row.detected_s or 0.0) + (row.recovered_s or 0.0)
            elif row.outage == "disk":
                allowed = self._unrecorded(began, ended) / SFREQ
            if row.samples_lost > allowed * SFREQ:
                text = f"{row.samples_lost} samples are in no recording; {allowed * SFREQ:.0f} are accounted for"
                row.problems.append(text)
        if untold := self._tally.untold():
            problems.append(f"of {untold} sliding windows no message told")
        if self._health is None:
            problems.append("no counters were published")
        elif self._health.due != (told := sum(self._health.counts.values())):
            problems.append(f"{self._health.due} windows were due and {told} accounted for")
        return problems

    def _unrecorded(self, since: float, until: float) -> int:
        """Samples that the recorder itself said it could not record, between two host times."""
        said = [one.message for one in self._events if since <= one.message.stamp < until]
        return max((int(one.details.get("not_recorded") or 0) for one in said), default=0)

    # --- one fault ----------------------------------------------------------------------------------------------------

    def _one(self, fault: Fault) -> Row:
        row = Row(fault.name, self._stage.over, outage=fault.outage)
        self._take()
        since = len(self._tally.judged)
        events_since = len(self._events)
        began = hostclock.now()
        self._spans.append((row, began))
        undo = fault.begin(self._stage)
        if fault.signs:
            noticed = self._until(lambda: self._sign(fault, began, events_since, since), max(NOTICE_S, fault.hold_s))
            if noticed is None:
                row.problems.append(f"not noticed: none of {', '.join(fault.signs)}")
            else:
                row.detected_s = noticed - began
        self._until(lambda: None, began + fault.hold_s - hostclock.now())
        if undo is not None:
            try:
                undo()
            except OSError as error:  # what was to be undone is gone, which the rest of the row will show
                row.problems.append(f"could not be undone: {error}")
        ended = hostclock.now()
        good = self._calm(ended, RECOVER_S)
        if good is None:
            row.problems.append(f"no good window within {RECOVER_S:g} s")
        else:
            row.recovered_s = good - ended
        judged = self._tally.judged[since:]
        row.windows = len(judged)
        row.lost = sum(one.status != "ok" for one in judged)
        wrong = [one for one in judged if one.wrong]
        row.wrong = len(wrong)
        row.problems += [f"{one.key}: {one.wrong}" for one in wrong[:5]]
        return row

    def _sign(self, fault: Fault, began: float, events_since: int, since: int) -> float | None:
        """When the first sign of a fault came."""
        events = [one for one in self._events[events_since:] if one.message.stamp > began]
        found = [one.at for one in events if _names(one.message) & set(fault.signs)]
        found += [one.at for one in self._tally.judged[since:] if one.status in fault.signs]
        return min(found, default=None)

    def _calm(self, after: float, timeout: float) -> float | None:
        """Wait for good windows in a row whose newest sample was taken after `after`; when the first of them came."""

        def first_of_many() -> float | None:
            row: list[Judged] = []
            for one in self._tally.judged[-4 * CALM :]:
                row = [*row, one] if one.status == "ok" and not one.wrong and one.at > after else []
                if len(row) == CALM:
                    return row[0].at
            return None

        return self._until(first_of_many, timeout)

    def _until(self, found: Callable[[], float | None], timeout: float) -> float | None:
        deadline = hostclock.now() + timeout
        while hostclock.now() < deadline:
            self._take()
            if (what := found()) is not None:
                return what
            if self._stage.fault:
                raise ProcessError(self._stage.fault)
            time.sleep(0.01)
        return None

    def _take(self) -> None:
        """Judge what has come."""
        seen = self._stage.seen
        while self._taken < len(seen):
            one = seen[self._taken]
            self._taken += 1
            if isinstance(one.message, Window):
                self._tally.add(one.at, one.message, one.arrays)
            elif isinstance(one.message, Event):
                self._events.append(SeenEvent(one.at, one.message))
            elif isinstance(one.message, Health):
                self._health = one.message


def _names(message: Event) -> set[str]:
    """By what an event may be known: its name, the state that it says begins."""
    return {message.event, str(message.details.get("state", ""))}
