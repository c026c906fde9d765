"""*decode*: the process that runs one pipeline.

    acquire -> Follower -> Decoder -> ResultWriter -> Publisher

One thread does all of it, in turns that never wait for a subscriber, a questioner or the log for long. A swap of
bundles is made ready in a second one.
"""

import contextlib
import gc
import math
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
from rtdecode.daemon.follow import Arrival, Follower, Lost, Restarted
from rtdecode.daemon.model import build, make_decoder, verified
from rtdecode.daemon.process import Stop
from rtdecode.daemon.progress import Progress, ProgressFile, Published
from rtdecode.daemon.rpc import Caller, Server
from rtdecode.daemon.swap import MARGIN_S, Start, Swap, lost_reason
from rtdecode.decoder import Result, Status
from rtdecode.errors import ConfigError, ContractError, ProcessError, RtdecodeError
from rtdecode.signal import Chunk
from rtdecode.wire.messages import Event, Health
from rtdecode.wire.publisher import Publisher

#: Live messages taken in one turn, before subscribers and questions are looked at.
PER_TURN = 32

HEALTH_EVERY_S = 1.0

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
        self._resume = (0, 0)
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
            stack.callback(opened[1].close)
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
            if earlier is not None and earlier.run != self._follower.run:
                earlier = None
                if path != self._pipeline.bundle:  # swapped in another session: that session is over
                    opened[1].close()
                    path = self._pipeline.bundle
                    opened = verified(path, self._pipeline)
            self._model = build(path, self._name, self._pipeline, self._info, opened)
            stack.callback(lambda: self._model.engine.close())
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
        if earlier is None:
            self._progress = Progress(run=self._follower.run, bundle=str(self._model.path))
            return
        self._progress = earlier
        self._progress.bundle = str(self._model.path)
        self._resume = (earlier.done, earlier.part)
        self._follower.base = earlier.base
        self._logger.info("taking over", windows_published=earlier.due, entry=earlier.done)

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
        if self._follower.behind:
            return 0
        wait = max(0.0, self._next_health - hostclock.now())
        return math.ceil(1e3 * min(wait, 0.02 if self._swap is not None else HEALTH_EVERY_S))

    def _attend(self) -> None:
        """Show the supervisor that this loop turns, and publish what it has to say."""
        for news in self._stop.supervised.attend():
            self._event(news.event, news.text, **news.details)

    def _turn(self) -> None:
        self._attend()
        for entry in self._follower.read(PER_TURN):
            self._take(entry)
            self._attend()
            if self._ended:
                break
        self._publisher.service()
        while (question := self._asked.receive()) is not None:
            self._answer(*question)
        if self._swap is not None and self._swap.done:
            self._switch(self._swap)
        if hostclock.now() >= self._next_health:
            self._health()

    def _finish(self) -> None:
        """Decode what was received, publish it all, and say how it went."""
        self._stop.supervised.leave()
        deadline = hostclock.now() + DRAIN_S
        while not self._ended and hostclock.now() < deadline:
            entries = list(self._follower.read(PER_TURN))
            for entry in entries:
                self._take(entry)
            if not entries:  # nothing left, or a log that answers no more
                break
        if self._swap is not None:
            self._swap.cancel()
            self._asked.refuse(self._swap.caller, ProcessError("the process ends"))
            self._swap = None
        if not self._ended:
            self._event("stop", f"stopped by {self._stop.reason}")
        self._health()
        self._follower.leave()
        counts = " ".join(f"{status}={n}" for status, n in sorted(self._progress.counts.items()))
        self._logger.info("done", windows=self._progress.due, counts=counts, dropped=self._publisher.dropped)

    # --- samples ------------------------------------------------------------------------------------------------------

    def _take(self, entry: Arrival | Lost | Restarted) -> None:
        match entry:
            case Arrival():
                self._decode(entry)
            case Lost():
                self._event("lost", lost_reason(entry), first=entry.first, stop=entry.stop)
                self._model.decoder.lost(lost_reason(entry))
            case Restarted():
                self._restarted()
                return
        if self._swap is not None:
            self._swap.put(entry, self._newest)

    def _decode(self, entry: Arrival) -> None:
        batch, (done, part) = entry.batch, self._resume
        out = entry.seq < done  # by the process before this one
        self._model.engine.quiet = out
        if batch.chunk is not None and len(batch.chunk):
            self._note(batch.chunk, entry.seq)
        results = self._model.decoder.push(batch.chunk, batch.markers, batch.watermark)
        if entry.end:
            results += self._model.decoder.finish()
        if out:
            return
        skip = part if entry.seq == done else 0
        for n, result in enumerate(results[skip:], start=skip + 1):
            self._publish(result, entry.received)
            self._progress.done, self._progress.part = entry.seq, n
            self._file.save(self._progress)
        self._progress.done, self._progress.part = entry.seq + 1, 0
        self._file.save(self._progress)
        if entry.end:
            self._ended = True
            self._event("end", "the source has ended")

    def _note(self, chunk: Chunk, seq: int) -> None:
        """Announce where we joined, holes and new segments."""
        at, self._position = self._position, (chunk.segment, chunk.stop_index)
        self._newest = float(chunk.stamps[-1])
        if at is None:
            done = self._resume[0]
            if seq > done > 0:
                self._event("lost", f"{seq - done} chunks left the log while no process decoded", first=done, stop=seq)
            elif chunk.first_index or seq:
                self._event("joined", f"decoding from index {chunk.first_index} on", index=chunk.first_index)
        elif at[0] != chunk.segment:
            self._event("reconnect", f"segment {chunk.segment} begins", segment=chunk.segment)
        elif at[1] != chunk.first_index:
            missing = chunk.first_index - at[1]
            self._event(
                "gap",
                f"{missing} samples are missing before index {chunk.first_index}",
                segment=chunk.segment,
                n=missing,
            )

    def _restarted(self) -> None:
        """*acquire* was started again: what is pending gets no more samples, and window ids go on in new segments."""
        if not self._ended:
            for result in self._model.decoder.finish():
                self._publish(result, hostclock.now())
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
        self._model.decoder = make_decoder(self._model.bundle, self._model.engine, self._pipeline, info)
        self._follower.follow()
        self._ended = False
        self._resume = (0, 0)
        self._position = None
        self._progress = msgspec.structs.replace(
            self._progress, run=self._follower.run, base=self._follower.base, done=0, part=0
        )
        self._event("restart", "acquire was started again", segment=self._follower.base)

    # --- results ------------------------------------------------------------------------------------------------------

    def _publish(self, result: Result, received: float) -> None:
        if self._newest < self._compare_until and result in self._published:
            return  # given by the bundle before this one
        writer = self._model.writer
        message, arrays = writer.write(
            result, received=received if math.isfinite(received) else None, published=hostclock.now()
        )
        if message.status == "late" and result.status is Status.OK and self._pipeline.on_late == "keep":
            message = msgspec.structs.replace(message, status="ok", reason="")
        self._publisher.send(writer.topic, message, arrays)
        counts = self._progress.counts
        counts[message.status] = counts.get(message.status, 0) + 1
        self._published.note(result)

    def _event(self, event: str, text: str, **details: str | int | float | bool | None) -> None:
        message = Event(seq=0, origin=self._name, event=event, text=text, stamp=hostclock.now(), details=details)
        self._publisher.send(f"{self._name}.event", message)
        self._logger.info(text, about=event)

    def _health(self) -> None:
        now = hostclock.now()
        self._next_health = now + HEALTH_EVERY_S
        message = Health(
            seq=0,
            pipeline=self._name,
            due=self._progress.due,
            counts={status.value: self._progress.counts.get(status.value, 0) for status in Status},
            dropped=self._publisher.dropped,
            uptime_s=now - self._began,
        )
        self._publisher.send(f"{self._name}.health", message)

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

    def status(self) -> dict[str, Any]:
        """What the control socket answers."""
        return {
            "process": "decode",
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
            "due": self._progress.due,
            "counts": dict(self._progress.counts),
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
        old, self._model = self._model, model
        self._compare_until = self._newest + MARGIN_S
        owed = [(result, received) for result, received in swap.held if self._published.follows(result)]
        self._progress.bundle = str(model.path)
        for result, received in owed:
            self._publish(result, received)
        self._file.save(self._progress)
        old.engine.close()
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
