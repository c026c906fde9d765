"""*decode*: the process that runs one pipeline.

    acquire -> Follower -> Feed: Decoder.advance -> Output: Budget -> Decoder.encode -> ResultWriter -> Publisher

One thread does all of it, in turns that never wait for a subscriber, a questioner or the log for long. In each turn it
takes all that has come, and then encodes one window of those that wait. A swap of bundles is made ready in a second
thread.
"""

import contextlib
import gc
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
import zmq

from rtdecode import hostclock
from rtdecode.config import Config, RecordingConfig, SimulatedConfig
from rtdecode.daemon import control
from rtdecode.daemon.announcer import Announcer
from rtdecode.daemon.endpoints import endpoints, prepare
from rtdecode.daemon.feed import RESTARTED, Feed
from rtdecode.daemon.follow import Arrival, Follower, Heard, Lost, Restarted
from rtdecode.daemon.model import Model, build, make_decoder, verified
from rtdecode.daemon.output import Output
from rtdecode.daemon.process import SUPERVISED, Stop
from rtdecode.daemon.progress import Account, Progress, ProgressFile
from rtdecode.daemon.rpc import Caller, Server
from rtdecode.daemon.swap import Start, Swap
from rtdecode.decoder import Status
from rtdecode.errors import ConfigError, ContractError, ProcessError, RtdecodeError
from rtdecode.wire.publisher import Publisher

#: Live messages taken in one turn, before subscribers and questions are looked at.
PER_TURN = 32

#: Pages of the log taken in one turn, before a window is encoded.
PAGES_PER_TURN = 16

HEALTH_EVERY_S = 1.0

#: Beyond the source's own timeout: how long *acquire* may take to start.
ACQUIRE_TIMEOUT_S = 20.0

#: At SIGTERM: how long what was received may take to be decoded; and how long messages have to leave.
DRAIN_S = 5.0
LINGER_S = 2.0

#: What subscribers of a process that crashed may take to connect again: `Subscriber` tries once a second at least.
RECONNECT_S = 1.5


class Decode:
    """Runs one pipeline.

    Parameters
    ----------
    config : Config
        The whole configuration.
    name : str
        Which pipeline.
    stop : Stop
        Ends it.
    """

    def __init__(self, config: Config, name: str, stop: Stop) -> None:
        self._config = config
        self._name = name
        self._pipeline = config.pipeline(name)
        self._stop = stop
        self._logger = structlog.get_logger()
        self._began = hostclock.now()
        self._found = endpoints(config)
        self._swap: Swap | None = None
        self._next_health = 0.0

    def run(self, on_ready: Callable[[str], None]) -> None:
        """Decode until the stream has ended or somebody asks to stop; everything decoded is then out.

        Parameters
        ----------
        on_ready : callable
            Called with the endpoint that results go to, once the bundle is verified and the stream meets its contract.

        Raises
        ------
        RtdecodeError
            Why the pipeline cannot run.
        """
        prepare(self._found, private=self._config.bus.dir is None)
        with contextlib.ExitStack() as stack:
            self._file = stack.enter_context(contextlib.closing(self._progress_file()))
            earlier = self._file.load()
            # Before the bundle is loaded, which takes a while: whoever subscribed to the process before this one
            # connects again meanwhile.
            self._publisher = Publisher(self._pipeline.publish, hwm=self._pipeline.hwm)
            stack.callback(self._publisher.close, LINGER_S)
            bound = hostclock.now()
            path = self._path(earlier)
            opened = verified(path, self._pipeline)
            stack.callback(opened.engine.close)
            self._context = stack.enter_context(zmq.Context())
            self._follower = stack.enter_context(contextlib.closing(Follower(self._context, self._found, self._name)))
            self._asked = stack.enter_context(
                contextlib.closing(
                    Server[control.Request](self._context, self._found.decoders[self._name], control.Request)
                )
            )
            source = self._config.source
            patience = 0.0 if isinstance(source, RecordingConfig | SimulatedConfig) else source.timeout_s
            info = self._follower.connect(self._stop, ACQUIRE_TIMEOUT_S + patience)
            if info is None:
                return
            self._info = info
            # A supervisor begins without a record: what is there is of this session, whoever has crashed meanwhile.
            if earlier is not None and earlier.run != self._follower.run and SUPERVISED not in os.environ:
                earlier = None
                if path != self._pipeline.bundle:  # swapped in another session: that session is over
                    opened.engine.close()
                    path = self._pipeline.bundle
                    opened = verified(path, self._pipeline)
            self._begin(earlier, build(path, self._name, self._pipeline, self._info, opened))
            stack.callback(lambda: self._feed.model.close())
            self._publisher.describe(self._feed.model.description(self._name, self._info))
            self._follower.follow()
            gc.collect()
            gc.freeze()
            on_ready(self._publisher.endpoint)
            if earlier is not None:  # what became due meanwhile reaches nobody who is not back yet
                while hostclock.now() < bound + RECONNECT_S and not self._stop.wait(0.1):
                    self._attend()
            self._loop()

    def _progress_file(self) -> ProgressFile:
        return ProgressFile(self._found.folder / f"{self._name}.progress")

    def _path(self, earlier: Progress | None) -> Path:
        """The bundle to start with: the one that a process before this one had swapped to, if it is still there."""
        if earlier is not None and earlier.bundle and Path(earlier.bundle).exists():
            return Path(earlier.bundle)
        return self._pipeline.bundle

    def _begin(self, earlier: Progress | None, model: Model) -> None:
        run = self._follower.run
        self._account = Account(earlier if earlier is not None else Progress(run=run))
        progress = self._account.progress
        progress.bundle = str(model.path)
        self._output = Output(self._name, self._pipeline, self._publisher, self._account, self._file, model)
        self._announcer = Announcer(self._name, self._publisher)
        self._feed = Feed(model, self._account, self._output, self._announcer)
        if earlier is None:
            return
        self._logger.info("taking over", windows_published=sum(earlier.counts.values()), entry=earlier.taken)
        if earlier.run == run:
            self._follower.resume(earlier.base, earlier.segment)
            return
        # *acquire* was started again too. What had begun is a gap when the first samples come.
        self._account.follow(run, max(earlier.base, earlier.segment) + 1)
        self._follower.resume(progress.base, progress.base)
        self._output.take(self._account.forsaken(Status.GAP, RESTARTED), math.nan)

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        poller = zmq.Poller()
        for socket in (self._follower.socket, self._publisher.socket, self._asked.socket):
            poller.register(socket, zmq.POLLIN)
        poller.register(self._stop.socket, zmq.POLLIN)
        exit_at_end = self._config.session.exit_at_end
        while not self._stop.requested and not (self._feed.ended and exit_at_end):
            poller.poll(self._patience_ms())
            self._turn()
        self._finish()

    def _patience_ms(self) -> int:
        if self._follower.behind or self._output.waiting:
            return 0
        wait = max(0.0, self._next_health - hostclock.now())
        return math.ceil(1e3 * min(wait, 0.02 if self._swap is not None else HEALTH_EVERY_S))

    def _attend(self) -> None:
        """Show the supervisor that this loop turns, and publish what it has to say."""
        for news in self._stop.supervised.attend():
            self._announcer.say(news.event, news.text, **news.details)
        if not self._feed.ended:
            self._follower.here()

    def _turn(self) -> None:
        self._attend()
        self._take_what_came()
        self._output.work()
        self._output.save()
        if news := self._file.news():
            self._announcer.say("account not kept", news)
        self._publisher.service()
        while (question := self._asked.receive()) is not None:
            self._answer(*question)
        if self._swap is not None and self._swap.done:
            self._switch(self._swap)
        if hostclock.now() >= self._next_health:
            self._health()

    def _take_what_came(self) -> bool:
        """Samples from the bus, or from the log until it has no more; whether there were any."""
        came = False
        for _ in range(PAGES_PER_TURN):
            page = False
            for entry in self._follower.read(PER_TURN):
                page = came = True
                self._output.hold()
                self._take(entry)
                self._attend()
                if self._feed.ended:
                    return came
            if not (page and self._follower.behind):
                break
        return came

    def _finish(self) -> None:
        """Decode what was received, publish it all, and say how it went."""
        self._stop.supervised.leave()
        deadline = hostclock.now() + DRAIN_S
        while not self._feed.ended and hostclock.now() < deadline:
            if not self._take_what_came():  # nothing left, or a log that answers no more
                break
        self._output.drain(deadline)
        if self._swap is not None:
            self._swap.cancel()
            self._asked.refuse(self._swap.caller, ProcessError("the process ends"))
            self._swap = None
        if not self._feed.ended:
            if self._follower.behind:
                text = f"entries of acquire's log from {self._follower.next} on were not decoded: it answers no more"
                self._announcer.say("lost", text, first=self._follower.next)
            self._announcer.say("stop", f"stopped by {self._stop.reason}")
        self._health()
        self._follower.leave()
        progress = self._account.progress
        counts = " ".join(f"{status}={n}" for status, n in sorted(progress.counts.items()))
        self._logger.info("done", windows=progress.due, counts=counts, dropped=self._publisher.dropped)

    # --- samples ------------------------------------------------------------------------------------------------------

    def _take(self, entry: Arrival | Lost | Restarted | Heard) -> None:
        match entry:
            case Arrival():
                self._feed.take(entry, self._attend)
            case Lost():
                self._feed.lost(entry)
            case Restarted():
                self._restarted()
                return
            case Heard(event):
                self._announcer.pass_on(event)
                return
        if self._swap is not None:
            self._swap.put(entry, self._feed.newest)

    def _restarted(self) -> None:
        """*acquire* was started again: what has begun gets no more samples, and window ids go on in new segments."""
        self._feed.interrupted()
        self._output.hold()
        info = self._follower.info()
        if info != self._info:
            raise ContractError(
                f"acquire was started again, with another stream: {info.source}, {len(info.channels)} channels at "
                f"{info.sfreq:g} Hz; it was {self._info.source}, {len(self._info.channels)} channels at "
                f"{self._info.sfreq:g} Hz"
            )
        if self._swap is not None:
            self._swap.cancel()
            self._asked.refuse(self._swap.caller, ProcessError("acquire was started again meanwhile; try once more"))
            self._swap = None
        model = self._feed.model
        decoder = make_decoder(model.opened, model.variant, self._pipeline, info)
        self._follower.follow()
        self._feed.restart(decoder, self._follower.run, self._follower.base)
        self._announcer.say("restart", "acquire was started again", segment=self._follower.base)

    def _health(self) -> None:
        self._next_health = hostclock.now() + HEALTH_EVERY_S
        self._publisher.send(f"{self._name}.health", self._output.health())

    # --- requests -----------------------------------------------------------------------------------------------------

    def _answer(self, caller: Caller, request: control.Request) -> None:
        match request:
            case control.Status():
                self._asked.answer(caller, self.status())
            case control.Stop():
                self._asked.answer(caller, {"stopping": True})
                self._stop.request("the control socket")
            case control.Swap():
                self._begin_swap(caller, request)
            case control.Record():
                self._asked.refuse(caller, ConfigError("a pipeline does not record; ask acquire"))

    def status(self) -> dict[str, Any]:
        """What the control socket answers."""
        model, position = self._feed.model, self._feed.position
        return {
            "process": "decode",
            "pid": os.getpid(),
            "pipeline": self._name,
            "state": "ended" if self._feed.ended else "decoding",
            "bundle": model.bundle.id,
            "bundle_path": str(model.path),
            "publish": self._publisher.endpoint,
            "engine": model.engine.info.describe(),
            "next_entry": self._follower.next,
            "behind": self._follower.behind,
            "segment": position[0] if position else None,
            "next_index": position[1] if position else None,
            "due": self._account.progress.due - self._output.waiting,
            "counts": dict(self._account.progress.counts),
            "pending": self._output.waiting,
            "dropped": self._publisher.dropped,
            "swapping_to": None if self._swap is None else str(self._swap.path),
            "refused_requests": self._asked.refused,
            "restarts": self._stop.supervised.restarts,
            "uptime_s": hostclock.now() - self._began,
        }

    def _begin_swap(self, caller: Caller, request: control.Swap) -> None:
        if self._swap is not None:
            self._asked.refuse(caller, ProcessError(f"a swap to {self._swap.path} is under way; wait for it"))
        elif self._feed.ended:
            self._asked.refuse(caller, ProcessError("the stream has ended; there is nothing left to decode"))
        elif not Path(request.bundle).is_absolute():
            self._asked.refuse(caller, ConfigError(f"bundle {request.bundle!r}: expected an absolute path"))
        else:
            self._swap = Swap(
                Path(request.bundle),
                caller,
                name=self._name,
                pipeline=self._pipeline,
                info=self._info,
                found=self._found,
                context=self._context,
                start=Start(self._follower.next, self._follower.base, self._feed.newest),
                seconds=request.seconds,
            )

    def _switch(self, swap: Swap) -> None:
        """Between two chunks: the new model takes over, or its fault is told."""
        self._swap = None
        try:
            if self._feed.ended:
                swap.cancel()
                raise ProcessError("the stream has ended; there is nothing left to decode")
            model = swap.finish()
        except RtdecodeError as error:
            self._logger.warning("swap refused", bundle=str(swap.path), reason=str(error))
            self._announcer.say("swap refused", str(error), bundle=str(swap.path))
            self._asked.refuse(swap.caller, error)
            return
        self._output.drain(attend=self._attend)
        old = self._feed.model
        self._feed.switch(model, swap.held)
        old.close()
        self._publisher.describe(model.description(self._name, self._info))
        segment, index = self._feed.position or (0, 0)
        details: dict[str, str | int | float | bool | None] = {
            "old": old.bundle.id[:12],
            "new": model.bundle.id[:12],
            "segment": segment,
            "index": index,
        }
        self._announcer.say("swapped", f"bundle {details['new']} decodes from index {index} on", **details)
        self._asked.answer(swap.caller, details)
