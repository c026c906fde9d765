"""*decode*: the process that runs a pipeline, or a row of them.

One thread does all of it, in turns: whichever pipeline has waited longest for one has the next, and each takes so much
in a turn and no more, so that none holds up the others. A swap of bundles is made ready in a second thread.
"""

import contextlib
import math
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog
import zmq

from rtdecode import hostclock
from rtdecode.config import Config
from rtdecode.config.processes import layout
from rtdecode.daemon import control
from rtdecode.daemon.admission import Admission
from rtdecode.daemon.bounds import Bounds
from rtdecode.daemon.endpoints import endpoints, prepare
from rtdecode.daemon.inbox import Inbox, Tap
from rtdecode.daemon.pipeline import HEALTH_EVERY_S, Pipeline
from rtdecode.daemon.process import SUPERVISED, Stop, settle
from rtdecode.daemon.progress import ProgressFile
from rtdecode.daemon.rpc import Caller, Server
from rtdecode.daemon.shelf import Shelf
from rtdecode.encode.sessions import kept
from rtdecode.errors import ConfigError, RtdecodeError
from rtdecode.wire.publisher import Publisher

#: Beyond the source's own timeout: how long *acquire* may take to start.
ACQUIRE_TIMEOUT_S = 20.0

#: At SIGTERM: how long what was received may take to be decoded; and how long messages have to leave.
DRAIN_S = 5.0
LINGER_S = 2.0

#: What subscribers of a process that crashed may take to connect again: `Subscriber` tries once a second at least.
RECONNECT_S = 1.5

#: How often, at least, subscribers, questions and clocks are looked at while there is always something to decode.
UPKEEP_S = 0.02


class Decode:
    """Runs the pipelines of one process.

    Parameters
    ----------
    config : Config
        The whole configuration.
    name : str
        Which process: the pipeline that has it for itself, or ``decode.1``...
    stop : Stop
        Ends it.
    """

    def __init__(self, config: Config, name: str, stop: Stop) -> None:
        self._config = config
        self.name = name
        self._names = members(config, name)
        self._stop = stop
        self._logger = structlog.get_logger()
        self._began = hostclock.now()
        self._found = endpoints(config)
        self._pipelines: dict[str, Pipeline] = {}
        self._publishers: dict[str, Publisher] = {}
        self._inboxes: dict[str, Inbox] = {}
        self._of_tap: dict[Tap, Pipeline] = {}
        self._queue: deque[Pipeline] = deque()
        self._faults: list[RtdecodeError] = []
        self._clocks_at = self._here_at = 0.0

    def run(self, on_ready: Callable[[str], None]) -> None:
        """Decode until the streams have ended or somebody asks to stop; everything decoded is then out.

        Parameters
        ----------
        on_ready : callable
            Called with the endpoint that results go to (several with a comma between), once the bundles are verified
            and the streams meet their contracts.

        Raises
        ------
        RtdecodeError
            Why a pipeline cannot run; at the end, where others could go on.
        """
        prepare(self._found, private=self._config.bus.dir is None)
        with contextlib.ExitStack() as stack:
            # Before the bundles are loaded, which takes a while: whoever subscribed to the process before this one
            # connects again meanwhile.
            for name in self._names:
                self._pipelines[name] = self._made(name, stack)
            bound = hostclock.now()
            shelf = Shelf()
            with kept():
                for pipeline in self._pipelines.values():
                    stack.callback(pipeline.close)
                    pipeline.open(shelf)
            context = stack.enter_context(zmq.Context())
            asked = Server[control.Request](context, self._found.decoders[self._names[0]], control.Request)
            self._asked = stack.enter_context(contextlib.closing(asked))
            if not self._connect(context, stack):
                return
            for n, pipeline in enumerate(self._pipelines.values()):
                pipeline.stagger(n / len(self._pipelines))
            settle()
            on_ready(",".join(publisher.endpoint for publisher in self._publishers.values()))
            if any(pipeline.resumes for pipeline in self._pipelines.values()):
                # What became due meanwhile reaches nobody who is not back yet.
                while hostclock.now() < bound + RECONNECT_S and not self._stop.wait(0.1):
                    self._attend()
            self._loop()
            if self._faults:
                raise self._faults[0]

    def _made(self, name: str, stack: contextlib.ExitStack) -> Pipeline:
        config = self._config.pipeline(name)
        assert isinstance(config.source, str)
        if config.publish not in self._publishers:
            hwm = sum(
                one.hwm for other in self._names if (one := self._config.pipeline(other)).publish == config.publish
            )
            publisher = self._publishers[config.publish] = Publisher(config.publish, hwm=hwm)
            stack.callback(publisher.close, LINGER_S)
        file = stack.enter_context(contextlib.closing(ProgressFile(self._found.folder / f"{name}.progress")))
        bounds = Bounds(alone=len(self._names) == 1)
        return Pipeline(
            self._config, name, self._found.of(config.source), file, self._publishers[config.publish], bounds
        )

    def _connect(self, context: "zmq.Context[Any]", stack: contextlib.ExitStack) -> bool:
        """Have every pipeline ready for its samples; False where we are asked to stop first."""
        admission = Admission(self._config, self.name)
        for name, pipeline in self._pipelines.items():
            source = self._config.pipeline(name).source
            assert isinstance(source, str)
            owner = self._found.sources[source]
            if owner not in self._inboxes:
                inbox = self._inboxes[owner] = Inbox(context, self._found.at(owner))
                stack.callback(inbox.close)
            patience = getattr(self._config.inputs[source], "timeout_s", 0.0)
            patience += ACQUIRE_TIMEOUT_S
            own = SUPERVISED not in os.environ
            if not pipeline.connect(self._inboxes[owner], self._asked, self._stop, patience, admission, own=own):
                return False
            self._of_tap[pipeline.reads.tap] = pipeline
        return True

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        everything, beside = self._pollers()
        while not self._stop.requested and not self._over:
            if any(inbox.renewed for inbox in self._inboxes.values()):
                everything, beside = self._pollers()
            self._rehearse()  # first: it takes milliseconds, and what is quiet until then is so no longer
            patience, quiet = self._patience_ms(), self._quiet_ms()
            readable = dict(beside.poll(min(patience, quiet)) if quiet > 0 else everything.poll(patience))
            # Windows first: what is to be done now and then may wait for them, and they for nothing.
            self._sort()
            until = hostclock.now() + UPKEEP_S
            while self._queue and hostclock.now() < until:
                pipeline = self._queue.popleft()
                pipeline.queued = False
                self._turn(pipeline)
                self._sort()
            self._attend()
            for publisher in self._publishers.values():
                if publisher.socket in readable:
                    publisher.service()
            if self._asked.socket in readable:
                self._answer_all()
            self._look_at_clocks()
            if not self._queue:
                self._catch_up()
        self._finish()

    def _pollers(self) -> tuple[zmq.Poller, zmq.Poller]:
        """For everything that can come, and for all but samples."""
        everything, beside = zmq.Poller(), zmq.Poller()
        for inbox in self._inboxes.values():
            inbox.renewed = False
            everything.register(inbox.readable, zmq.POLLIN)
        others = (*(publisher.socket for publisher in self._publishers.values()), self._asked.socket, self._stop.socket)
        for socket in others:
            everything.register(socket, zmq.POLLIN)
            beside.register(socket, zmq.POLLIN)
        return everything, beside

    @property
    def _over(self) -> bool:
        if not self._pipelines:
            return True
        return self._config.session.exit_at_end and all(pipeline.ended for pipeline in self._pipelines.values())

    def _patience_ms(self) -> int:
        if self._queue:
            return 0
        return math.ceil(1e3 * min(max(0.0, self._clocks_at - hostclock.now()), HEALTH_EVERY_S))

    def _rehearse(self) -> None:
        """Have what the next window takes in the caches when it comes, where there is nothing else to do until then."""
        if len(self._pipelines) > 1:
            return
        for pipeline in self._pipelines.values():
            if (at := pipeline.rehearse_at) < math.inf:  # a few milliseconds ahead: nothing else is waited for
                time.sleep(max(0.0, at - hostclock.now()))
                pipeline.rehearse()

    def _quiet_ms(self) -> int:
        """How long no sample can make a window due. What comes meanwhile is taken together, and costs less."""
        if len(self._pipelines) > 1:  # each has a time of its own, see `_sort`
            return 0
        quiet = min(pipeline.quiet_until for pipeline in self._pipelines.values()) - hostclock.now()
        return 0 if quiet < 1e-3 else math.floor(1e3 * quiet)

    def _sort(self) -> None:
        """Pipelines for which something came stand in the queue, in the order in which it did.

        Not yet where it can make no window due: then it is taken together with what comes next.
        """
        now = hostclock.now()
        for inbox in self._inboxes.values():
            for tap in inbox.sort():
                pipeline = self._of_tap.get(tap)
                if pipeline is None:
                    continue
                if (until := pipeline.idle_until) <= now:
                    self._put(pipeline)
                else:
                    self._clocks_at = min(self._clocks_at, until)

    def _catch_up(self) -> None:
        """What pipelines have put off, one after the other as long as nothing comes."""
        for pipeline in self._pipelines.values():
            if pipeline.catch_up() and len(self._pipelines) > 1:
                self._sort()
                if self._queue:
                    return

    def _put(self, pipeline: Pipeline) -> None:
        if not pipeline.queued:
            pipeline.queued = True
            self._queue.append(pipeline)

    def _turn(self, pipeline: Pipeline) -> None:
        try:
            pipeline.turn(self._attend)
        except RtdecodeError as error:
            if len(self._names) == 1:
                raise
            self._logger.error("given up", about=pipeline.name, why=str(error))
            self._faults.append(error)
            pipeline.give_up(error)
            self._remove(pipeline)
            return
        if pipeline.busy and pipeline.idle_until <= hostclock.now():
            self._put(pipeline)
        self._clocks_at = min(self._clocks_at, pipeline.due_at)

    def _remove(self, pipeline: Pipeline) -> None:
        del self._pipelines[pipeline.name]
        self._of_tap.pop(pipeline.reads.tap)
        if pipeline.queued:
            self._queue.remove(pipeline)
        pipeline.close()

    def _look_at_clocks(self) -> None:
        """Pipelines that want a turn whatever comes: not at every message, since it costs something for each."""
        now = hostclock.now()
        if now < self._clocks_at:
            return
        at = now + HEALTH_EVERY_S
        for pipeline in self._pipelines.values():
            if pipeline.due_at <= now or (pipeline.busy and pipeline.idle_until <= now):
                self._put(pipeline)
            else:
                at = min(at, pipeline.due_at, *([pipeline.idle_until] if pipeline.busy else []))
        self._clocks_at = at

    def _answer_all(self) -> None:
        while (question := self._asked.receive()) is not None:
            self._answer(*question)
        self._clocks_at = 0.0  # a swap may have begun

    def _attend(self) -> None:
        """Show the supervisor that this loop turns, and publish what it has to say."""
        for news in self._stop.supervised.attend():
            for pipeline in self._pipelines.values():
                pipeline.say(news)
        now = hostclock.now()
        if now >= self._here_at:
            self._here_at = now + 0.25
            for pipeline in self._pipelines.values():
                pipeline.here()

    def _finish(self) -> None:
        """Decode what was received, publish it all, and say how it went."""
        self._stop.supervised.leave()
        deadline = hostclock.now() + DRAIN_S
        for pipeline in self._pipelines.values():
            pipeline.finish(self._stop.reason, deadline, self._attend)

    # --- requests -----------------------------------------------------------------------------------------------------

    def _answer(self, caller: Caller, request: control.Request) -> None:
        asked = self._asked
        one = self._pipelines.get(request.pipeline or (self._names[0] if len(self._names) == 1 else ""))
        if one is None and (request.pipeline or isinstance(request, control.Swap)):
            known = ", ".join(self._pipelines)
            asked.refuse(caller, ConfigError(f"there is no pipeline {request.pipeline!r} here; there are: {known}"))
            return
        match request:
            case control.Status() if one is None:
                asked.answer(caller, self.status())
            case control.Status():
                assert one is not None
                asked.answer(caller, one.status() | self._of_process())
            case control.Stop() if one is None or len(self._names) == 1:
                asked.answer(caller, {"stopping": True})
                self._stop.request("the control socket")
            case control.Stop():
                assert one is not None
                asked.answer(caller, {"stopping": True})
                one.finish("the control socket", hostclock.now() + DRAIN_S, self._attend)
                self._remove(one)
            case control.Swap():
                assert one is not None
                one.swap(caller, request)
            case control.Record():
                asked.refuse(caller, ConfigError("a pipeline does not record; ask acquire"))

    def status(self) -> dict[str, Any]:
        """What the control socket answers about several pipelines."""
        of_pipeline = {name: pipeline.status() for name, pipeline in self._pipelines.items()}
        ended = all(pipeline.ended for pipeline in self._pipelines.values())
        return {"state": "ended" if ended else "decoding", "pipelines": of_pipeline} | self._of_process()

    def _of_process(self) -> dict[str, Any]:
        together = {"host": self.name, "beside": len(self._pipelines) - 1} if len(self._names) > 1 else {}
        return {
            "process": "decode",
            "pid": os.getpid(),
            **together,
            "refused_requests": self._asked.refused,
            "restarts": self._stop.supervised.restarts,
            "uptime_s": hostclock.now() - self._began,
        }


def members(config: Config, name: str) -> tuple[str, ...]:
    """The pipelines of a process; raises `ConfigError`, naming those there are."""
    hosts = {host.name: host.members for host in layout(config).decode}
    if name in hosts:
        return hosts[name]
    config.pipeline(name)
    host = layout(config).decode_of(name)
    raise ConfigError(
        f"pipeline {name!r} shares the process {host.name} with {len(host.members) - 1} more: start that, or give each "
        "a process of its own ([processes] decode)"
    )
