"""*decode*: the process that runs one pipeline.

    acquire -> Follower -> Decoder.advance -> Output: Budget -> Decoder.encode -> ResultWriter -> Publisher

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

import msgspec
import structlog
import zmq

from rtdecode import hostclock
from rtdecode.config import Config, LslConfig
from rtdecode.daemon import control
from rtdecode.daemon.endpoints import endpoints, prepare
from rtdecode.daemon.follow import Arrival, Follower, Heard, Lost, Restarted
from rtdecode.daemon.model import build, make_decoder, verified
from rtdecode.daemon.output import Output
from rtdecode.daemon.process import SUPERVISED, Stop
from rtdecode.daemon.progress import Account, Progress, ProgressFile
from rtdecode.daemon.published import Published
from rtdecode.daemon.rpc import Caller, Server
from rtdecode.daemon.swap import MARGIN_S, Start, Swap, lost_reason
from rtdecode.decoder import Status
from rtdecode.errors import ConfigError, ContractError, ProcessError, RtdecodeError
from rtdecode.signal import Chunk
from rtdecode.wire.messages import Event, WireWindow
from rtdecode.wire.publisher import Publisher
from rtdecode.wire.results import wire_window

#: Live messages taken in one turn, before subscribers and questions are looked at.
PER_TURN = 32

#: Pages of the log taken in one turn, before a window is encoded.
PAGES_PER_TURN = 16

HEALTH_EVERY_S = 1.0

#: What a pipeline announces itself, as its own samples pass: of what *acquire* announces, these are not passed on.
OWN_EVENTS = frozenset({"connected", "gap", "reconnect", "end", "stop"})

#: Why a window is a gap whose samples went with *acquire*; and why one is skipped that went with the log.
RESTARTED = "acquire was started again before it was decoded"
UNREAD = "its samples left the log while no process decoded"

#: Beyond the source's own timeout: how long *acquire* may take to start.
ACQUIRE_TIMEOUT_S = 20.0

#: At SIGTERM: how long what was received may take to be decoded; and how long messages have to leave.
DRAIN_S = 5.0
LINGER_S = 2.0


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
        self._published = Published()
        self._swap: Swap | None = None
        self._ended = False
        self._newest = math.nan
        self._position: tuple[int, int] | None = None
        self._compare_until = -math.inf
        self._joining = True
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
            self._publisher = Publisher(self._pipeline.publish, hwm=self._pipeline.hwm)
            stack.callback(self._publisher.close, LINGER_S)
            source = self._config.source
            timeout = ACQUIRE_TIMEOUT_S + (source.timeout_s if isinstance(source, LslConfig) else 0.0)
            info = self._follower.connect(self._stop, timeout)
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
            self._model = build(path, self._name, self._pipeline, self._info, opened)
            stack.callback(lambda: self._model.close())
            self._begin(earlier)
            self._publisher.describe(self._model.description(self._name, self._info))
            self._follower.follow()
            gc.collect()
            gc.freeze()
            on_ready(self._publisher.endpoint)
            self._loop()

    def _progress_file(self) -> ProgressFile:
        return ProgressFile(self._found.folder / f"{self._name}.progress")

    def _path(self, earlier: Progress | None) -> Path:
        """The bundle to start with: the one that a process before this one had swapped to, if it is still there."""
        if earlier is not None and earlier.bundle and Path(earlier.bundle).exists():
            return Path(earlier.bundle)
        return self._pipeline.bundle

    def _begin(self, earlier: Progress | None) -> None:
        run = self._follower.run
        self._account = Account(earlier if earlier is not None else Progress(run=run))
        progress = self._account.progress
        progress.bundle = str(self._model.path)
        self._output = Output(self._name, self._pipeline, self._publisher, self._account, self._file, self._model)
        if earlier is None:
            return
        self._logger.info("taking over", windows_published=sum(earlier.counts.values()), entry=earlier.taken)
        if earlier.run == run:
            self._follower.resume(earlier.base, earlier.segment)
            return
        # *acquire* was started again too: its log begins anew, and segments are numbered on.
        progress.run, progress.taken, progress.base = run, 0, max(earlier.base, earlier.segment) + 1
        self._follower.resume(progress.base, progress.base)
        self._output.take(self._account.forsaken(Status.GAP, RESTARTED), math.nan)

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        poller = zmq.Poller()
        for socket in (self._follower.socket, self._publisher.socket, self._asked.socket):
            poller.register(socket, zmq.POLLIN)
        poller.register(self._stop.socket, zmq.POLLIN)
        exit_at_end = self._config.session.exit_at_end
        while not self._stop.requested and not (self._ended and exit_at_end):
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
            self._event(news.event, news.text, **news.details)

    def _turn(self) -> None:
        self._attend()
        self._take_what_came()
        self._output.work()
        self._output.save()
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
                if self._ended:
                    return came
            if not (page and self._follower.behind):
                break
        return came

    def _finish(self) -> None:
        """Decode what was received, publish it all, and say how it went."""
        self._stop.supervised.leave()
        deadline = hostclock.now() + DRAIN_S
        while not self._ended and hostclock.now() < deadline:
            if not self._take_what_came():  # nothing left, or a log that answers no more
                break
        self._output.drain(deadline)
        if self._swap is not None:
            self._swap.cancel()
            self._asked.refuse(self._swap.caller, ProcessError("the process ends"))
            self._swap = None
        if not self._ended:
            self._event("stop", f"stopped by {self._stop.reason}")
        self._health()
        self._follower.leave()
        progress = self._account.progress
        counts = " ".join(f"{status}={n}" for status, n in sorted(progress.counts.items()))
        self._logger.info("done", windows=progress.due, counts=counts, dropped=self._publisher.dropped)

    # --- samples ------------------------------------------------------------------------------------------------------

    def _take(self, entry: Arrival | Lost | Restarted | Heard) -> None:
        match entry:
            case Arrival():
                self._decode(entry)
            case Lost():
                self._lost(lost_reason(entry), entry.first, entry.stop)
                self._model.decoder.lost(lost_reason(entry))
            case Restarted():
                self._restarted()
                return
            case Heard(event):
                if event.event not in OWN_EVENTS:
                    self._publisher.send(f"{self._name}.event", msgspec.structs.replace(event, pipeline=self._name))
                return
        if self._swap is not None:
            self._swap.put(entry, self._newest)

    def _decode(self, entry: Arrival) -> None:
        """Take samples, and hand on the windows that they make due."""
        batch, chunk, decoder, account = entry.batch, entry.batch.chunk, self._model.decoder, self._account
        new = entry.seq >= account.progress.taken  # not taken by a process before this one
        if chunk is not None and len(chunk):
            self._newest = float(chunk.stamps[-1])
            if self._joining:
                self._join(chunk, entry.seq)
            self._position = (chunk.segment, chunk.stop_index)
            if new:
                account.moved(chunk.segment, chunk.first_index, chunk.stop_index)
        if new:
            left = account.forsaken(Status.SKIPPED, UNREAD)
            self._output.take(left, math.nan)
        items = decoder.advance(batch.chunk, batch.markers, batch.watermark)
        if entry.end:
            items += decoder.advance_to_end()
        self._tell(told=not new)
        if self._newest < self._compare_until:  # the bundle before this one may have given them
            items = [item for item in items if item not in self._published]
        items = account.take(items, entry.seq)
        for item in items:
            self._published.note(item)
        self._output.take(items, entry.received)
        if entry.end:
            self._output.drain(attend=self._attend)
            self._ended = True
            self._event("end", "the source has ended")

    def _join(self, chunk: Chunk, seq: int) -> None:
        """The first samples that this process takes: where is that, and what has it missed."""
        self._joining = False
        progress, decoder = self._account.progress, self._model.decoder
        if progress.segment < 0:
            if chunk.first_index or seq:
                self._event("joined", f"decoding from index {chunk.first_index} on", index=chunk.first_index)
            return
        if seq > progress.taken:
            self._lost(f"{seq - progress.taken} chunks left the log while no process decoded", progress.taken, seq)
        stop = progress.index
        if chunk.segment == progress.segment:
            stop = min(stop, chunk.first_index)
        if chunk.segment >= progress.segment and stop > progress.first:
            due = decoder.resume(progress.segment, progress.first, stop, UNREAD)
            self._output.take(self._account.resume(due), math.nan)
            if seq > progress.taken or chunk.segment == progress.segment:
                decoder.lost(UNREAD)

    def _lost(self, text: str, first: int, stop: int) -> None:
        """Entries of the log were never seen here."""
        self._event("lost", f"{text}; markers in them are not known here", first=first, stop=stop)

    def _tell(self, *, told: bool) -> None:
        """Publish what the decoder says about holes and segments, unless a process before this one has."""
        for incident in self._model.decoder.incidents():
            if not told:
                windows = tuple(wire_window(window) for window in incident.windows)
                self._event(incident.event, incident.text, windows, **incident.details)

    def _restarted(self) -> None:
        """*acquire* was started again: what has begun gets no more samples, and window ids go on in new segments."""
        account = self._account
        if not self._ended:
            items = self._model.decoder.advance_to_end(interrupted=True)
            self._tell(told=False)
            account.add(items)
            self._output.take(items, math.nan)
            self._output.take(account.forsaken(Status.GAP, RESTARTED), math.nan)
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
        model = self._model
        model.decoder = make_decoder(model.opened, model.variant, self._pipeline, info)
        self._follower.follow()
        self._ended = False
        self._joining = True
        self._position = None
        progress = account.progress
        progress.run, progress.base, progress.taken = self._follower.run, self._follower.base, 0
        progress.segment, progress.first, progress.index = -1, 0, 0
        self._event("restart", "acquire was started again", segment=self._follower.base)

    def _event(
        self,
        event: str,
        text: str,
        windows: tuple[WireWindow, ...] = (),
        /,
        **details: str | int | float | bool | None,
    ) -> None:
        stamp = hostclock.now()
        message = Event(seq=0, origin=self._name, event=event, text=text, stamp=stamp, details=details, windows=windows)
        self._publisher.send(f"{self._name}.event", message)
        self._logger.info(text, about=event)

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
        return {
            "process": "decode",
            "pid": os.getpid(),
            "pipeline": self._name,
            "state": "ended" if self._ended else "decoding",
            "bundle": self._model.bundle.id,
            "bundle_path": str(self._model.path),
            "publish": self._publisher.endpoint,
            "engine": self._model.engine.info.describe(),
            "next_entry": self._follower.next,
            "behind": self._follower.behind,
            "segment": self._position[0] if self._position else None,
            "next_index": self._position[1] if self._position else None,
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
        elif self._ended:
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
                start=Start(self._follower.next, self._follower.base, self._newest),
                seconds=request.seconds,
            )

    def _switch(self, swap: Swap) -> None:
        """Between two chunks: the new model takes over, or its fault is told."""
        self._swap = None
        try:
            if self._ended:
                swap.cancel()
                raise ProcessError("the stream has ended; there is nothing left to decode")
            model = swap.finish()
        except RtdecodeError as error:
            self._logger.warning("swap refused", bundle=str(swap.path), reason=str(error))
            self._event("swap refused", str(error), bundle=str(swap.path))
            self._asked.refuse(swap.caller, error)
            return
        self._output.drain(attend=self._attend)
        old, self._model = self._model, model
        self._output.use(model)
        self._compare_until = self._newest + MARGIN_S
        self._account.swapped(str(model.path), [result for result, _ in swap.held])
        for result, received in swap.held:
            if self._published.follows(result):
                self._account.add([result])
                self._published.note(result)
                self._output.take([result], received)
        self._output.save()
        old.close()
        self._publisher.describe(model.description(self._name, self._info))
        segment, index = self._position or (0, 0)
        details: dict[str, str | int | float | bool | None] = {
            "old": old.bundle.id[:12],
            "new": model.bundle.id[:12],
            "segment": segment,
            "index": index,
        }
        self._event("swapped", f"bundle {details['new']} decodes from index {index} on", **details)
        self._asked.answer(swap.caller, details)
