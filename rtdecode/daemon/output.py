"""From due windows to messages: in the order that the budget wants, each once, and accounted for."""

import math
from collections.abc import Callable, Iterable, Set

import msgspec

from rtdecode import hostclock
from rtdecode.budget import Action, Budget, Decision, Stages, StageTimes
from rtdecode.config import PipelineConfig
from rtdecode.daemon.model import Model
from rtdecode.daemon.progress import Account, ProgressFile
from rtdecode.encode.engine import News
from rtdecode.encode.triton import TritonEngine
from rtdecode.errors import EncodeError
from rtdecode.result import Result, Status, Task
from rtdecode.stream.incidents import WindowRef
from rtdecode.wire.messages import Health
from rtdecode.wire.publisher import Publisher

#: Only encoders that take less, once a window is due, are rehearsed, in seconds.
REHEARSED_S = 0.002


class Output:
    """Encodes and publishes one pipeline's windows.

    Parameters
    ----------
    name : str
        The pipeline.
    pipeline : PipelineConfig
    publisher : Publisher
    account : Account
    file : ProgressFile
        Where the account is kept.
    model : Model
        What encodes; replaced when bundles are swapped.
    """

    def __init__(
        self,
        name: str,
        pipeline: PipelineConfig,
        publisher: Publisher,
        account: Account,
        file: ProgressFile,
        model: Model,
    ) -> None:
        self._name = name
        self._pipeline = pipeline
        self._publisher = publisher
        self._account = account
        self._file = file
        self._began = hostclock.now()
        self.use(model)

    def use(self, model: Model) -> None:
        """`model` encodes from now on; nothing waits. What its encoders take is known from their first runs."""
        self._model = model
        self._saved = False
        self._last: Result | None = None
        self._remote = model.engine if isinstance(model.engine, TritonEngine) else None
        self._stages = Stages()
        now = hostclock.now()
        for seconds in model.opened.first_runs:
            self._stages.encode.note(seconds, now)
        for seconds in () if model.variant is None else model.variant.first_runs:
            self._stages.variant.note(seconds, now)
        pipeline = self._pipeline
        self._budget = None
        if pipeline.budget_ms is not None:
            self._budget = Budget(
                self._stages,
                pipeline.budget_ms / 1e3,
                on_late=pipeline.on_late,
                queue=pipeline.queue,
                quantile=pipeline.quantile,
            )

    @property
    def waiting(self) -> int:
        """Windows in the queue."""
        return 0 if self._budget is None else len(self._budget)

    def hold(self) -> None:
        """More samples are about to be taken."""
        if self._budget is not None:
            self._budget.hold()

    def take(self, items: Iterable[Result | Task], received: float) -> None:
        """Windows that are due and accounted for: results are published, the others encoded in their turn.

        Without a budget that is at once.
        """
        for item in items:
            if isinstance(item, Result):
                self.publish(item, received)
                continue
            item.received = received
            if self._budget is None:
                self._encode(item)
                continue
            while (decision := self._budget.room(hostclock.now())) is not None:
                self._carry_out(decision)
            self._budget.put(item)
        self._saved = False

    def work(self) -> None:
        """One window of those that wait, and those that are hopeless."""
        while self._budget is not None and (decision := self._budget.next(hostclock.now())) is not None:
            self._carry_out(decision)
            if decision.action is not Action.SKIP:
                return

    def withdraw(self, wrong: Set[WindowRef], reason: str) -> Set[WindowRef]:
        """Windows that turned out to touch a hole: those that still wait are published as `gap`, and named."""
        if self._budget is None:
            return set()
        tasks = self._budget.withdraw(lambda task: task.ref in wrong)
        for task in tasks:
            self.publish(self._model.decoder.withdraw(task, reason), task.received)
        return {task.ref for task in tasks}

    def drain(self, deadline: float = math.inf, attend: Callable[[], object] = lambda: None) -> None:
        """All that wait; at the deadline, the rest is skipped. `attend` is called in between."""
        while self._budget is not None and (decision := self._budget.next(hostclock.now())) is not None:
            attend()
            if hostclock.now() > deadline:
                decision = Decision(decision.task, Action.SKIP, "the process ends")
            self._carry_out(decision)

    def save(self) -> None:
        """Write the account down, where it changed."""
        if not self._saved:
            self._file.save(self._account.progress)
            self._saved = True

    def publish(self, result: Result, received: float) -> None:
        """One result on its way, and into the account."""
        writer = self._model.writer
        began = hostclock.now()
        message, arrays = writer.write(result, received=received if math.isfinite(received) else None, published=began)
        if message.status == "late" and result.status is Status.OK and self._pipeline.on_late == "keep":
            message = msgspec.structs.replace(message, status="ok", reason="")
        self._publisher.send(writer.topic, message, arrays)
        if result.status is Status.OK:
            self._last = result
        self._account.settle(result, message.status, met=message.ledger.met)
        self._file.save(self._account.progress)
        self._saved = True
        now = hostclock.now()
        self._stages.publish.note(now - began, now)

    def rehearse(self) -> None:
        """Go through what the next window takes, with the last one: its code and data are then in the caches.

        Only where that takes next to no time.
        """
        result = self._last
        if result is None or result.variant or not self._stages.encode.quantile(0.5) < REHEARSED_S:
            return
        try:
            self._model.decoder.rehearse(result)
        except EncodeError:  # the window is tried all the same, and tells
            return
        now = hostclock.now()
        message, arrays = self._model.writer.write(result, received=now, published=now)
        self._publisher.rehearse(message, arrays)

    def news(self) -> list[News]:
        """What happened to the server that encodes, since the last call."""
        return [] if self._remote is None else self._remote.news()

    def health(self) -> Health:
        """The counters, and what the stages took lately."""
        progress = self._account.progress
        stages = {
            name: times
            for name, times in (
                ("queue", self._stages.queue),
                ("encode", self._stages.encode),
                ("variant", self._stages.variant),
                ("publish", self._stages.publish),
            )
            if len(times)
        }
        return Health(
            seq=0,
            pipeline=self._name,
            # Of windows that became due, those whose turn has come. Not the sum of the counts: the two must agree.
            due=progress.due - self.waiting,
            counts={status.value: progress.counts.get(status.value, 0) for status in Status},
            dropped=self._publisher.dropped,
            uptime_s=hostclock.now() - self._began,
            pending=self.waiting,
            missed=progress.missed,
            variants=progress.variants,
            p50_ms={name: _ms(times, 0.5) for name, times in stages.items()},
            p99_ms={name: _ms(times, 0.99) for name, times in stages.items()},
        )

    def _carry_out(self, decision: Decision) -> None:
        task = decision.task
        if decision.action is Action.SKIP:
            self.publish(self._model.decoder.skip(task, decision.reason), task.received)
        else:
            if self._remote is not None and decision.action is Action.ENCODE:
                # Of a window that is late as it is, and wanted all the same, the deadline is no bound any more.
                self._remote.allow(self._deadline(task))
            self._encode(task, variant=decision.action is Action.VARIANT)

    def _deadline(self, task: Task) -> float:
        """Host time at which a window is out of budget; infinity where it has none."""
        budget_ms = self._pipeline.budget_ms
        return math.inf if budget_ms is None or math.isnan(task.arrived) else task.arrived + budget_ms / 1e3

    def _encode(self, task: Task, *, variant: bool = False) -> None:
        began = hostclock.now()
        result = self._model.decoder.encode(task, variant=variant)
        done = hostclock.now()
        self.publish(result, task.received)
        stage = self._stages.variant if variant else self._stages.encode
        stage.note(done - began, done)
        self._stages.queue.note(began - task.at, began)


def _ms(times: StageTimes, share: float) -> float:
    return times.quantile(share) * 1e3
