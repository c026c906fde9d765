"""*acquire*: the process that owns the source.

One thread takes samples from the source and hands them on at once: into the log, and to every subscriber. It also
watches how the source is, and publishes each change. A second one answers: what the log still holds, and the control
socket. Neither waits for a decoder.
"""

import contextlib
import gc
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
import structlog
import zmq

from rtdecode import hostclock
from rtdecode.config import Config, RecordingConfig, SimulatedConfig
from rtdecode.daemon import bus, control
from rtdecode.daemon.account import SourceAccount
from rtdecode.daemon.endpoints import endpoints, log_of, prepare
from rtdecode.daemon.log import ReplayLog
from rtdecode.daemon.process import Stop
from rtdecode.daemon.recording import ERRORS, Recording
from rtdecode.daemon.rpc import Server, bind
from rtdecode.daemon.sources import make_source
from rtdecode.errors import ConfigError, NotRecordedError, ProcessError, RtdecodeError
from rtdecode.signal import Batch, Notice, SourceState, StreamInfo
from rtdecode.sources.base import Source
from rtdecode.wire.clock import clock_id
from rtdecode.wire.framing import encode
from rtdecode.wire.messages import Event

#: Longest wait for samples before a request to stop is looked at.
READ_TIMEOUT_S = 0.1

#: A read that took so much longer than it was asked to says that we were held up, not that the source was silent.
HELD_UP_S = 0.1

#: States of a source that its user should see in the log at a glance.
TROUBLE = frozenset({SourceState.STALLED, SourceState.RECOVERING, SourceState.CHANGED})

#: How long a recording waits for the decoders that the supervisor announced.
HOLD_TIMEOUT_S = 120.0

#: Decoders that may follow, those on other machines included.
FOLLOWERS = 64

#: Live messages that wait for a slow decoder; what it misses beyond them it finds in the log.
QUEUED = 1000


class Acquire:
    """Reads one source, and serves what came.

    Parameters
    ----------
    config : Config
        The whole configuration.
    stop : Stop
        Ends it.
    source : Source, optional
        In place of the configuration's.
    """

    def __init__(self, config: Config, stop: Stop, source: Source | None = None) -> None:
        self._config = config
        self._stop = stop
        self._source = source if source is not None else make_source(config.source)
        self._log = ReplayLog(config.bus.log_seconds, round(config.bus.log_mb * 1e6))
        self._run = secrets.randbits(32) or 1
        self._logger = structlog.get_logger()
        self._began = hostclock.now()
        self._phase = ""  # of this process, where that says more than the source's state
        self._account: SourceAccount | None = None
        self._watermark = float("-inf")
        self._markers = 0
        self._events = 0
        self._info: StreamInfo | None = None
        self._recording: Recording | None = None
        self._followers: set[str] = set()
        self._asked_for: set[str] = set()
        self._asked = self._began
        self._closing = threading.Event()
        self._serving_failed: Exception | None = None

    def run(self, on_ready: Callable[[], None], *, hold: int = 0, resumed: bool = False) -> None:
        """Read until the source ends or somebody asks to stop; then serve the log until the decoders have it all.

        Parameters
        ----------
        on_ready : callable
            Called when the stream is found and the endpoints answer.
        hold : int
            Wait for so many decoders before the first sample of a recording or a simulation is read.
        resumed : bool
            The session has begun already, in a process that crashed: a recording that cannot go on does not end it.

        Raises
        ------
        ConfigError
            The session is to be recorded, and no file can be begun.
        NotRecordedError
            At the end: samples that were to be recorded were not.
        RtdecodeError
            The stream is not found, or the source failed, after everything it had given was served.
        """
        found = endpoints(self._config)
        prepare(found, private=self._config.bus.dir is None)
        with contextlib.ExitStack() as stack:
            context = stack.enter_context(zmq.Context())
            publisher = context.socket(zmq.PUB)
            stack.callback(publisher.close)
            publisher.setsockopt(zmq.SNDHWM, QUEUED)
            publisher.setsockopt(zmq.LINGER, 1000)
            bind(publisher, found.samples)
            if self._config.bus.share is not None:
                bind(publisher, self._config.bus.share)
            self._publisher = publisher
            log = stack.enter_context(contextlib.closing(Server[bus.LogRequest](context, found.log, bus.LogRequest)))
            if self._config.bus.share is not None:
                bind(log.socket, log_of(self._config.bus.share))
            asked = stack.enter_context(
                contextlib.closing(Server[control.Request](context, found.acquire, control.Request))
            )
            stack.callback(self._source.close)
            self._info = self._open()
            server = threading.Thread(target=self._serve, args=(log, asked), name="log", daemon=True)
            server.start()
            stack.callback(server.join)
            stack.callback(self._closing.set)
            if self._config.recording is not None:
                self._recording = Recording(self._config, self._info, self._source.origins)
                stack.callback(lambda recording: self._say(recording.close()), self._recording)
                if not resumed:
                    self._recording.must_begin()
            self._event("connected", f"reading {self._info.source}", {"source": self._info.source})
            on_ready()
            if hold and isinstance(self._config.source, RecordingConfig | SimulatedConfig):
                self._hold(hold)
            gc.collect()
            gc.freeze()
            try:
                self._read()
            except RtdecodeError as error:
                self._failed(error)
                self._end()
                raise
            except Exception as error:
                self._failed(error)  # a bug, hence a crash: no end is said, for another process will go on
                raise
            else:
                self._end()
        if self._config.recording is not None and self._recording is not None and self._recording.lost:
            raise NotRecordedError(
                f"{self._recording.lost} samples were not recorded to {self._config.recording.dir}; the events tell "
                "when, and why"
            )

    def _open(self) -> StreamInfo:
        """Open the source. Looking for a stream may take a minute, which nobody who says stop wants to wait for."""
        opened = threading.Event()

        def leave_early() -> None:
            while not opened.wait(0.1):
                if self._stop.requested:
                    self._logger.info("stopped before the source was found", by=self._stop.reason)
                    os._exit(0)  # nothing has been read, so there is nothing to lose

        threading.Thread(target=leave_early, name="stop", daemon=True).start()
        try:
            return self._source.open()
        finally:
            opened.set()

    # --- samples ------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        assert self._info is not None
        self._phase = ""
        account = self._account = SourceAccount(hostclock.now(), self._info.sfreq, self._config.source.stall_s)
        while not self._stop.requested:
            self._attend()
            if self._serving_failed is not None:
                raise self._serving_failed
            asked = hostclock.now()
            timeout = min(account.wait(asked), READ_TIMEOUT_S)
            batch = self._source.read(timeout)
            if batch is None:
                self._end_of_source("the source has ended")
                self._event("end", "the source has ended")
                return
            self._hand_on(batch)
            now = hostclock.now()
            self._say(account.took(batch, now, held_up=now - asked > timeout + HELD_UP_S))
        self._event("stop", f"stopped by {self._stop.reason}")

    def _hand_on(self, batch: Batch) -> None:
        """A batch on its way: to the recorder, the subscribers, the log. First of all: nothing may hold samples up."""
        if self._recording is not None:
            self._recording.put(batch)
        if batch.chunk is not None or batch.markers or batch.watermark > self._watermark:
            self._send(batch)
            self._watermark = max(self._watermark, batch.watermark)
            self._markers += len(batch.markers)

    def _send(self, batch: Batch, *, end: bool = False) -> None:
        now = hostclock.now()
        frames = bus.samples_frames(batch, self._run, self._log.next, self._position, now, end=end)
        self._publisher.send_multipart(frames)
        self._log.append(frames, now)

    @property
    def _position(self) -> tuple[int, int]:
        return (0, 0) if self._account is None else self._account.position

    def _failed(self, error: Exception) -> None:
        self._phase = "failed"
        self._end_of_source(str(error))
        self._event("error", str(error), {"error": type(error).__name__})

    def _attend(self) -> None:
        """Show the supervisor that this loop turns, and publish what it has to say."""
        for news in self._stop.supervised.attend():
            self._event(news.event, news.text, news.details)
        if self._recording is not None:
            self._say(self._recording.notices())

    # --- what happens -------------------------------------------------------------------------------------------------

    def _say(self, notices: Iterable[Notice]) -> None:
        for notice in notices:
            self._event(notice.event, notice.text, notice.details, trouble=notice.state in TROUBLE)

    def _end_of_source(self, text: str) -> None:
        if self._account is not None:
            self._say(self._account.ended(text, hostclock.now()))

    def _event(
        self,
        event: str,
        text: str,
        details: Mapping[str, str | int | float | bool | None] | None = None,
        *,
        trouble: bool = False,
    ) -> None:
        message = Event(
            seq=self._events,
            publisher=self._run,
            origin="acquire",
            event=event,
            text=text,
            stamp=hostclock.now(),
            # A source's own numbers may be numpy's, which do not travel.
            details={k: v.item() if isinstance(v, np.float64) else v for k, v in (details or {}).items()},
        )
        self._events += 1
        self._publisher.send_multipart(encode(bus.EVENT_TOPIC, message))
        if self._recording is not None:
            self._recording.event(message)
        log = self._logger.error if event in ERRORS else self._logger.warning if trouble else self._logger.info
        log(text, about=event, **({"state": message.details["state"]} if event == "state" else {}))

    # --- beginning and end --------------------------------------------------------------------------------------------

    def _hold(self, decoders: int) -> None:
        deadline = hostclock.now() + HOLD_TIMEOUT_S
        self._phase = "waiting for decoders"
        while len(self._asked_for) < decoders and hostclock.now() < deadline and not self._stop.wait(0.01):
            self._attend()

    def _end(self) -> None:
        """Say that nothing more will come, and stay until the decoders have it all or ask no more."""
        if self._phase != "failed":
            self._phase = "ended"
        self._send(Batch(None, (), self._watermark), end=True)
        self._asked = hostclock.now()
        while self._followers and hostclock.now() - self._asked < self._config.bus.drain_s:
            self._attend()
            self._closing.wait(0.02)
        self._stop.supervised.leave()
        if self._followers:
            self._event("left", f"left before these decoders had everything: {', '.join(sorted(self._followers))}")

    # --- answers ------------------------------------------------------------------------------------------------------

    def _serve(self, log: Server[bus.LogRequest], asked: Server[control.Request]) -> None:
        poller = zmq.Poller()
        poller.register(log.socket, zmq.POLLIN)
        poller.register(asked.socket, zmq.POLLIN)
        try:
            while not self._closing.is_set():
                poller.poll(100)
                while (request := log.receive()) is not None:
                    self._answer_log(log, *request)
                while (question := asked.receive()) is not None:
                    self._answer_control(asked, *question)
        except Exception as error:  # without answers decoders starve: the whole process has crashed
            self._serving_failed = error

    def _answer_log(self, log: Server[bus.LogRequest], caller: Any, request: bus.LogRequest) -> None:
        received = hostclock.now()
        if isinstance(request, bus.Clock):
            reading = bus.Reading(received=received, answered=hostclock.now(), clock=clock_id())
            return log.answer(caller, msgspec.to_builtins(reading))
        state = bus.LogState(run=self._run, oldest=self._log.oldest, next=self._log.next, info=None)
        frames: list[bytes] = []
        match request:
            case bus.Info():
                state = msgspec.structs.replace(state, info=self._info)
            case bus.Since(seq=seq):
                self._asked = received
                entries = self._log.since(seq, bus.PAGE_BYTES)
                state = msgspec.structs.replace(
                    state,
                    first=entries[0].seq if entries else seq,
                    counts=tuple(len(entry.frames) for entry in entries),
                )
                frames = [frame for entry in entries for frame in entry.frames]
            case bus.Follow(name=name):
                if name not in self._followers and len(self._followers) >= FOLLOWERS:
                    return log.refuse(caller, ProcessError(f"{FOLLOWERS} decoders follow already; expected no more"))
                self._asked = received
                self._followers.add(name)
                if not request.remote:
                    self._asked_for.add(name)
            case bus.Leave(name=name):
                self._followers.discard(name)
        log.answer(caller, msgspec.to_builtins(state), frames)

    def _answer_control(self, asked: Server[control.Request], caller: Any, request: control.Request) -> None:
        match request:
            case control.Status():
                asked.answer(caller, self.status())
            case control.Stop():
                asked.answer(caller, {"stopping": True})
                self._stop.request("the control socket")
            case control.Swap():
                asked.refuse(caller, ConfigError("acquire has no bundle; ask a pipeline to swap"))
            case control.Record(on=on):
                if self._recording is None:
                    asked.refuse(caller, ConfigError("this session has no section [recording]; add one, with a `dir`"))
                else:
                    asked.answer(caller, self._recording.record(on))

    def status(self) -> dict[str, Any]:
        """What the control socket answers."""
        now = hostclock.now()
        source = {"state": SourceState.CONNECTING.value} if self._account is None else self._account.status(now)
        return {
            "process": "acquire",
            "pid": os.getpid(),
            **source,
            **({"state": self._phase} if self._phase else {}),
            "source": None if self._info is None else self._info.source,
            "run": self._run,
            "segment": self._position[0],
            "next_index": self._position[1],
            "samples": 0 if self._account is None else self._account.samples,
            "markers": self._markers,
            "log": {"oldest": self._log.oldest, "next": self._log.next, "bytes": self._log.n_bytes},
            "decoders": sorted(self._followers),
            "recording": None if self._recording is None else self._recording.status(),
            "events": self._events,
            "restarts": self._stop.supervised.restarts,
            "uptime_s": now - self._began,
        }
