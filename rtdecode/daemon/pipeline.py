"""One pipeline at work in *decode*, which may run several of them.

    Inbox -> Follower -> Feed: Decoder.advance -> Output: Budget -> Decoder.encode -> ResultWriter -> Publisher

It works in turns that never wait for a subscriber, a questioner or the log for long. In each turn it takes what has
come, within bounds, and then encodes one window of those that wait. A swap of bundles is made ready in a second thread.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from rtdecode import hostclock
from rtdecode.config import Config
from rtdecode.daemon import control
from rtdecode.daemon.admission import Admission
from rtdecode.daemon.announcer import Announcer
from rtdecode.daemon.bounds import Bounds
from rtdecode.daemon.endpoints import Endpoints
from rtdecode.daemon.feed import RESTARTED, Feed
from rtdecode.daemon.follow import Arrival, Follower, Heard, Lost, Restarted
from rtdecode.daemon.grid import due_grid
from rtdecode.daemon.inbox import Inbox
from rtdecode.daemon.model import Model, Opened, build, make_decoder, verified
from rtdecode.daemon.output import Output
from rtdecode.daemon.process import Stop
from rtdecode.daemon.progress import Account, Progress, ProgressFile
from rtdecode.daemon.rpc import Caller, Server
from rtdecode.daemon.shelf import Shelf
from rtdecode.daemon.supervised import News
from rtdecode.daemon.swap import Start, Swap
from rtdecode.decoder import Status
from rtdecode.errors import ConfigError, ContractError, ProcessError, RtdecodeError
from rtdecode.wire.publisher import Publisher

HEALTH_EVERY_S = 1.0

#: How often is looked whether a swap is ready.
SWAP_EVERY_S = 0.02


class Pipeline:
    """Runs one pipeline.

    Parameters
    ----------
    config : Config
        The whole configuration.
    name : str
        Which pipeline.
    found : Endpoints
        With the addresses in front of who owns its source.
    file : ProgressFile
        Where its account is kept.
    publisher : Publisher
        Where results go; others may publish there too.
    bounds : Bounds
        Of one turn.
    """

    def __init__(
        self, config: Config, name: str, found: Endpoints, file: ProgressFile, publisher: Publisher, bounds: Bounds
    ) -> None:
        self.name = name
        #: Whether it stands in its process's queue.
        self.queued = False
        self._config = config
        self._pipeline = config.pipeline(name)
        assert isinstance(self._pipeline.source, str)
        self._source = self._pipeline.source
        self._found = found
        self._file = file
        self._publisher = publisher
        self._bounds = bounds
        self._logger = structlog.get_logger().bind(pipeline=name)
        self._began = hostclock.now()
        self._swap: Swap | None = None
        self._may_catch_up = False
        self._next_health = 0.0
        self._earlier = file.load()
        self._path = self._bundle()

    def _bundle(self) -> Path:
        """The bundle to start with: the one that a process before this one had swapped to, if it is still there."""
        earlier = self._earlier
        if earlier is not None and earlier.bundle and Path(earlier.bundle).exists():
            return Path(earlier.bundle)
        return self._pipeline.bundle

    def open(self, shelf: Shelf) -> None:
        """Load and verify the bundle; raises what is wrong with it."""
        self._shelf = shelf
        self._opened: Opened = verified(self._path, self._pipeline, shelf, self.name)

    def connect(
        self,
        inbox: Inbox,
        asked: Server[control.Request],
        stop: Stop,
        timeout: float,
        admission: Admission,
        *,
        own: bool,
    ) -> bool:
        """Find *acquire*, and be ready for its samples; False where we are asked to stop first.

        Parameters
        ----------
        inbox : Inbox
            Of the *acquire* that owns the source.
        asked : Server
            Answers questions about this pipeline.
        stop : Stop
        timeout : float
            Seconds that it may take to start.
        admission : Admission
            Whether there is room for it.
        own : bool
            Nobody supervises this process: an account from another start of *acquire* is another session's.

        Raises
        ------
        RtdecodeError
            Why the pipeline cannot run.
        """
        self._asked = asked
        self._context = inbox.context
        self._follower = Follower(inbox, self.name, self._source, self._bounds.page_bytes)
        info = self._follower.connect(stop, timeout)
        if info is None:
            self._opened.engine.close()
            return False
        self._info = info
        # A supervisor begins without a record: what is there is of this session, whoever has crashed meanwhile.
        if self._earlier is not None and self._earlier.run != self._follower.run and own:
            self._earlier = None
            if self._path != self._pipeline.bundle:  # swapped in another session: that session is over
                self._opened.engine.close()
                self._path = self._pipeline.bundle
                self.open(self._shelf)
        self._admission = admission
        self._admit(self._opened)
        model = build(self._path, self.name, self._pipeline, self._info, self._opened, self._shelf)
        self._begin(self._earlier, model)
        self._publisher.describe(self._feed.model.description(self.name, self._info))
        self._follower.follow()
        return True

    def _admit(self, opened: Opened) -> None:
        """Measure what a bundle takes; raises `AdmissionError` where that is more than there is room for."""
        if self._admission.policy != "off":
            load = self._admission.known(opened, self._pipeline, self._info)
            text = self._admission.take(self.name, load)
            if text:
                self._logger.warning("more than can be done in time", why=text)

    @property
    def resumes(self) -> bool:
        """Whether it goes on where a process before this one crashed."""
        return self._earlier is not None

    def _begin(self, earlier: Progress | None, model: Model) -> None:
        run = self._follower.run
        self._account = Account(earlier if earlier is not None else Progress(run=run))
        progress = self._account.progress
        progress.bundle = str(model.path)
        self._output = Output(self.name, self._pipeline, self._publisher, self._account, self._file, model)
        self._announcer = Announcer(self.name, self._publisher)
        self._feed = Feed(model, self._account, self._output, self._announcer)
        self._follower.grid = due_grid(model.decoder, self._pipeline)
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

    # --- turns --------------------------------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether its stream has."""
        return self._feed.ended

    @property
    def reads(self) -> Follower:
        """Its end of the bus."""
        return self._follower

    @property
    def busy(self) -> bool:
        """Whether there is something to do now that is in its own hands."""
        return self._follower.waiting or self._output.waiting > 0

    @property
    def due_at(self) -> float:
        """Host time at which it wants a turn whatever comes."""
        health = max(self._next_health, self._feed.pace.expected_until)
        at = health if self._feed.ended else min(health, self._follower.look_at)
        return min(at, hostclock.now() + SWAP_EVERY_S) if self._swap is not None else at

    @property
    def quiet_until(self) -> float:
        """Host time before which no sample can make a window due: until then samples need wake nobody."""
        return -math.inf if self.busy or self._swap is not None or self._feed.ended else self._feed.pace.quiet_until

    @property
    def idle_until(self) -> float:
        """The same, of messages that are here already: until then they may wait for others."""
        holds = self._swap is None and not (self._feed.ended or self._follower.behind or self._output.waiting)
        return self._feed.pace.quiet_until if holds else -math.inf

    def stagger(self, share: float) -> None:
        """Give health at its own time within each period, `share` of it from now on: not all pipelines at once."""
        self._next_health = hostclock.now() + share * HEALTH_EVERY_S

    def here(self) -> None:
        """Tell *acquire* now and then that its log is still needed."""
        if not self._feed.ended:
            self._follower.lead = min(self._feed.pace.lead, 1.0)
            self._follower.here()

    def say(self, news: News) -> None:
        """Publish what the supervisor has to say."""
        self._announcer.say(news.event, news.text, **news.details)

    def turn(self, attend: Callable[[], object]) -> None:
        """Take what came, and encode a window; `attend` is called in between."""
        self._take_what_came(attend)
        self._output.work()
        self._output.save()
        self._may_catch_up = self._feed.pace.rehearse_at == math.inf
        if news := self._file.news():
            self._announcer.say("account not kept", news)
        for one in self._output.news():
            self._announcer.say(one.event, one.text, **one.details)
        if self._swap is not None and self._swap.done:
            self._switch(self._swap, attend)
        if hostclock.now() >= max(self._next_health, self._feed.pace.expected_until):
            self._health()

    @property
    def rehearse_at(self) -> float:
        """Host time shortly before a window's last samples can be here; infinity where that is not known."""
        return math.inf if self.busy else self._feed.pace.rehearse_at

    def rehearse(self) -> None:
        """Go through what a window takes."""
        self._feed.pace.rehearse_at = math.inf
        began = hostclock.now()
        self._output.rehearse()
        self._feed.pace.rehearsed(hostclock.now() - began)

    def catch_up(self) -> bool:
        """Do what was put off; whether there was anything. For when nothing waits."""
        if not self._may_catch_up:
            return False
        self._may_catch_up = False
        self._feed.model.decoder.catch_up()
        return True

    def _take_what_came(self, attend: Callable[[], object]) -> bool:
        """Samples from the bus, or from the log until it has no more; whether there were any."""
        came = False
        for _ in range(self._bounds.pages):
            page = False
            for entry in self._follower.read(self._bounds.messages):
                page = came = True
                self._output.hold()
                self._take(entry, attend)
                attend()
                if self._feed.ended:
                    return came
            if not (page and self._follower.behind):
                break
        return came

    def finish(self, reason: str, deadline: float, attend: Callable[[], object]) -> None:
        """Decode what was received, publish it all, and say how it went."""
        while not self._feed.ended and hostclock.now() < deadline:
            if not self._take_what_came(attend):  # nothing left, or a log that answers no more
                break
        self._output.drain(deadline)
        self._cancel(ProcessError("the process ends"))
        if not self._feed.ended:
            if self._follower.behind:
                text = f"entries of acquire's log from {self._follower.next} on were not decoded: it answers no more"
                self._announcer.say("lost", text, first=self._follower.next)
            self._announcer.say("stop", f"stopped by {reason}")
        self._health()
        self._follower.leave()
        progress = self._account.progress
        counts = " ".join(f"{status}={n}" for status, n in sorted(progress.counts.items()))
        self._logger.info("done", windows=progress.due, counts=counts, dropped=self._publisher.dropped)

    def give_up(self, error: RtdecodeError) -> None:
        """It cannot go on; others in its process can."""
        self._cancel(ProcessError("the pipeline is given up"))
        details: dict[str, str | int | float | bool | None] = {"process": self.name, "error": type(error).__name__}
        self._announcer.say("given up", f"pipeline {self.name} is given up: {error}", **details)
        self._follower.leave()

    def close(self) -> None:
        """Let go of what runs it."""
        if hasattr(self, "_feed"):
            self._feed.model.close()
        elif hasattr(self, "_opened"):
            self._opened.engine.close()
        if hasattr(self, "_follower"):
            self._follower.close()

    # --- samples ------------------------------------------------------------------------------------------------------

    def _take(self, entry: Arrival | Lost | Restarted | Heard, attend: Callable[[], object]) -> None:
        match entry:
            case Arrival():
                self._feed.take(entry, attend)
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
        self._cancel(ProcessError("acquire was started again meanwhile; try once more"))
        model = self._feed.model
        decoder = make_decoder(model.opened, model.variant, self._pipeline, info)
        self._follower.follow()
        self._feed.restart(decoder, self._follower.run, self._follower.base)
        self._announcer.say("restart", "acquire was started again", segment=self._follower.base)

    def _health(self) -> None:
        self._next_health = max(self._next_health, hostclock.now() - HEALTH_EVERY_S) + HEALTH_EVERY_S
        self._publisher.send(f"{self.name}.health", self._output.health())

    # --- requests -----------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What the control socket answers; its process adds its own."""
        model, position = self._feed.model, self._feed.position
        return {
            "pipeline": self.name,
            **({"reads": self._source} if self._source else {}),
            "state": "ended" if self._feed.ended else "decoding",
            "bundle": model.bundle.id,
            "bundle_path": str(model.path),
            "publish": self._publisher.endpoint,
            "engine": model.what_runs(),
            "next_entry": self._follower.next,
            "behind": self._follower.behind,
            "segment": position[0] if position else None,
            "next_index": position[1] if position else None,
            "due": self._account.progress.due - self._output.waiting,
            "counts": dict(self._account.progress.counts),
            "pending": self._output.waiting,
            "dropped": self._publisher.dropped,
            "swapping_to": None if self._swap is None else str(self._swap.path),
            "uptime_s": hostclock.now() - self._began,
        }

    def swap(self, caller: Caller, request: control.Swap) -> None:
        """Begin to make another bundle ready; the answer comes when it has taken over, or cannot."""
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
                name=self.name,
                pipeline=self._pipeline,
                info=self._info,
                found=self._found,
                context=self._context,
                start=Start(self._follower.next, self._follower.base, self._feed.newest),
                seconds=request.seconds,
                admit=self._admit,
            )

    def _cancel(self, why: ProcessError) -> None:
        """Give up a swap that is under way."""
        if self._swap is not None:
            self._swap.cancel()
            self._asked.refuse(self._swap.caller, why)
            self._swap = None

    def _switch(self, swap: Swap, attend: Callable[[], object]) -> None:
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
        self._output.drain(attend=attend)
        old = self._feed.model
        self._feed.switch(model, swap.held)
        # At once: until *acquire* knows, it keeps samples together that make a window due.
        self._follower.grid = due_grid(model.decoder, self._pipeline)
        self._follower.lead = 1.0
        self._follower.tell()
        old.close()
        model.join(self._shelf.prefixes)
        self._publisher.describe(model.description(self.name, self._info))
        segment, index = self._feed.position or (0, 0)
        details: dict[str, str | int | float | bool | None] = {
            "old": old.bundle.id[:12],
            "new": model.bundle.id[:12],
            "segment": segment,
            "index": index,
        }
        self._announcer.say("swapped", f"bundle {details['new']} decodes from index {index} on", **details)
        self._asked.answer(swap.caller, details)
