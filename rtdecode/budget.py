"""Which due window is encoded next, by what, and which is given up: from deadlines and from what the stages took.

Pure: times come in as host-clock seconds, and the queue holds what it is given.
"""

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from rtdecode.result import Task

#: What a stage took is forgotten after so many measurements or so many seconds; the newest few are always kept.
RECENT = 256
MEMORY_S = 5.0
KEPT = 8

#: Where a prediction gives every window up, nothing is measured any more. So often one is encoded in spite of it.
PROBE_S = 0.5


class StageTimes:
    """What a stage took lately: quantiles of the newest measurements.

    Parameters
    ----------
    recent : int
        Measurements kept.
    memory_s : float
        Seconds after which one is forgotten, but for the newest `KEPT`.
    """

    def __init__(self, recent: int = RECENT, memory_s: float = MEMORY_S) -> None:
        self._recent = recent
        self._memory_s = memory_s
        self._taken: deque[tuple[float, float]] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    @property
    def newest(self) -> float:
        """When the newest measurement was made; minus infinity where there is none."""
        return self._taken[-1][0] if self._taken else -math.inf

    def note(self, seconds: float, at: float) -> None:
        """A run of the stage that ended at `at` took so many seconds."""
        self._taken.append((at, seconds))
        insort(self._sorted, seconds)
        old = at - self._memory_s
        while len(self._taken) > self._recent or (len(self._taken) > KEPT and self._taken[0][0] < old):
            del self._sorted[bisect_left(self._sorted, self._taken.popleft()[1])]

    def quantile(self, q: float) -> float:
        """The smallest of the recent measurements that at least a share `q` of them does not exceed; 0 without any.

        Hyndman and Fan's definition 1 (The American Statistician 50, 1996): a value that was measured, never one in
        between.
        """
        if not self._sorted:
            return 0.0
        return self._sorted[max(0, math.ceil(q * len(self._sorted)) - 1)]


class Stages:
    """What the stages took lately: waiting, encoding, encoding by the variant, publishing."""

    def __init__(self) -> None:
        self.queue = StageTimes()
        self.encode = StageTimes()
        self.variant = StageTimes()
        self.publish = StageTimes()


class Action(StrEnum):
    """What becomes of a window."""

    ENCODE = "encode"
    VARIANT = "variant"
    """Encode it by the cheaper variant."""
    ENCODE_LATE = "encode-late"
    """Encode it, though it is predicted to be late."""
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Decision:
    """One window's turn.

    Parameters
    ----------
    task : Task
        The window.
    action : Action
        What becomes of it.
    reason : str
        Why it is skipped; empty otherwise.
    """

    task: Task
    action: Action
    reason: str = ""


class Budget:
    """The queue of due windows, and the order in which it is worked off.

    Parameters
    ----------
    stages : Stages
        What encoding and publishing took; its owner notes each run.
    budget_s : float
        Allowed time from a window's arrival to its publication.
    on_late : {"mark", "keep", "skip", "variant"}
        What becomes of a window that is predicted to miss it: encoded nevertheless (``mark``, ``keep``); skipped;
        encoded by the variant, or skipped where that is predicted to miss it too.
    queue : int
        Windows that may wait.
    quantile : float
        Of the recent times of a stage: what it is predicted to take.

    Notes
    -----
    A budget is *behind* where the windows that wait, encoded oldest first, would not all make their deadlines. As long
    as it is not, they are worked off oldest first: nothing is gained by another order. When it is, the newest goes
    first, for an answer about now is worth more than one about a second ago. With a variant, a window is then left to
    the slower encoder only where those that wait could still make it, by the variant, afterwards.
    """

    def __init__(
        self,
        stages: Stages,
        budget_s: float,
        *,
        on_late: Literal["mark", "keep", "skip", "variant"] = "mark",
        queue: int = 32,
        quantile: float = 0.9,
    ) -> None:
        self._budget_s = budget_s
        self._on_late = on_late
        self._bound = queue
        self._quantile = quantile
        self._queue: deque[Task] = deque()  # oldest first
        self._held = 0  # so many of the oldest are safe from more samples
        self._stages = stages
        self._probed = -math.inf

    def __len__(self) -> int:
        return len(self._queue)

    def hold(self) -> None:
        """More samples are about to come: what waits is made safe from them."""
        while self._held < len(self._queue):
            self._queue[self._held].hold()
            self._held += 1

    def room(self, now: float) -> Decision | None:
        """What has to be done before one more window fits; None where there is room.

        Not behind, the oldest is encoded. Behind, one is given up: a hopeless one where there is one, else the oldest.
        """
        if len(self._queue) < self._bound:
            return None
        if not self.behind(now):
            return self._decide(self._pop(0), now)
        hopeless = self._hopeless(now)
        if hopeless is not None:
            return self._decide(self._pop(hopeless), now)
        return Decision(self._pop(0), Action.SKIP, f"the queue is full: {self._bound} newer windows wait")

    def put(self, task: Task) -> None:
        """A window is due. `room` has nothing left to be done."""
        assert len(self._queue) < self._bound
        self._queue.append(task)

    def next(self, now: float) -> Decision | None:
        """Whose turn it is, and what becomes of it; None where nothing waits. Whatever it names has left the queue."""
        if not self._queue:
            return None
        hopeless = self._hopeless(now)
        if hopeless is not None:
            return self._decide(self._pop(hopeless), now)
        return self._decide(self._pop(-1 if self.behind(now) else 0), now)

    def withdraw(self, wrong: Callable[[Task], bool]) -> list[Task]:
        """Take those that are `wrong` out of the queue, oldest first."""
        found = [at for at, task in enumerate(self._queue) if wrong(task)]
        return [self._pop(at - before) for before, at in enumerate(found)]

    def behind(self, now: float) -> bool:
        """Whether the windows that wait, encoded oldest first, would not all make their deadlines."""
        each = self._cost(self._stages.encode)
        return any(now + (n + 1) * each > self._deadline(task) for n, task in enumerate(self._queue))

    def _decide(self, task: Task, now: float) -> Decision:
        left = self._deadline(task) - now
        cost = self._cost(self._stages.encode)
        if cost <= left:
            cheaper = self._on_late == "variant" and self._dooms(now + cost)
            return Decision(task, Action.VARIANT if cheaper else Action.ENCODE)
        if self._on_late in ("mark", "keep"):
            return Decision(task, Action.ENCODE_LATE)
        if self._on_late == "variant":
            cost = self._cost(self._stages.variant)
            if cost <= left:
                return Decision(task, Action.VARIANT)
        if left > 0 and self._probe(now):
            return Decision(task, Action.VARIANT if self._on_late == "variant" else Action.ENCODE_LATE)
        return Decision(task, Action.SKIP, f"predicted to take {cost * 1e3:.1f} ms, with {left * 1e3:.1f} ms left")

    def _dooms(self, until: float) -> bool:
        """Whether one of those that wait would be late even by the variant, if nothing is done for them until then."""
        each = self._cost(self._stages.variant)
        return any(until + n * each > self._deadline(task) for n, task in enumerate(reversed(self._queue), start=1))

    def _hopeless(self, now: float) -> int | None:
        """Place of the oldest window that nothing can be done for: said at once, not when its turn comes."""
        if self._on_late in ("mark", "keep"):
            return None
        cost = self._cost(self._stages.encode)
        if self._on_late == "variant":
            cost = min(cost, self._cost(self._stages.variant))
        for at, task in enumerate(self._queue):
            if cost > self._deadline(task) - now:
                return at
        return None

    def _probe(self, now: float) -> bool:
        """Whether a prediction is to be put to the test: for a while nothing was encoded to correct it."""
        times = self._stages.variant if self._on_late == "variant" else self._stages.encode
        due = now - max(times.newest, self._probed) > PROBE_S
        if due:
            self._probed = now
        return due

    def _cost(self, encode: StageTimes) -> float:
        return encode.quantile(self._quantile) + self._stages.publish.quantile(self._quantile)

    def _deadline(self, task: Task) -> float:
        return math.inf if math.isnan(task.arrived) else task.arrived + self._budget_s

    def _pop(self, at: int) -> Task:
        task = self._queue[at]
        del self._queue[at]
        if (at % (len(self._queue) + 1)) < self._held:
            self._held -= 1
        return task
