"""*acquire*: the process that owns the source, or a row of them.

One thread takes samples from each source and hands them on at once: into its log, and to every subscriber. It also
watches how each is, and publishes each change. A second one answers: what the logs still hold, and the control socket.
Neither waits for a decoder.
"""

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import structlog
import zmq

from rtdecode import hostclock
from rtdecode.config import Config, RecordingConfig, SimulatedConfig
from rtdecode.config.processes import layout
from rtdecode.daemon import bus, control
from rtdecode.daemon.endpoints import endpoints, log_of, prepare
from rtdecode.daemon.lane import Lanes, path_of, room
from rtdecode.daemon.process import Stop, settle
from rtdecode.daemon.reader import READ_TIMEOUT_S, Reader
from rtdecode.daemon.rpc import Server, bind
from rtdecode.daemon.sources import make_sources
from rtdecode.errors import ConfigError, NotRecordedError, ProcessError, RtdecodeError
from rtdecode.sources.base import Source
from rtdecode.wire.clock import clock_id

#: From one round over several sources to the next: what a sample may wait to be seen. Longer where there are many,
#: since a round costs something for each.
TICK_S, TICK_MANY_S, MANY = 0.002, 0.005, 16

#: How long a recording waits for the decoders that the supervisor announced.
HOLD_TIMEOUT_S = 120.0

#: What a lane must have room for, in seconds of the stream.
LANE_S = 0.2

#: Live messages that wait for a slow decoder; what it misses beyond them it finds in the log.
QUEUED = 1000


class Acquire:
    """Reads the sources of one process, and serves what came.

    Parameters
    ----------
    config : Config
        The whole configuration.
    stop : Stop
        Ends it.
    source : Source, optional
        In place of the configuration's, where that has one.
    process : str
        Which of the session's processes that own sources.
    """

    def __init__(self, config: Config, stop: Stop, source: Source | None = None, process: str = "acquire") -> None:
        hosts = [host for host in layout(config).acquire if host.name == process]
        if not hosts:
            known = ", ".join(host.name for host in layout(config).acquire)
            raise ConfigError(f"{config.path} has no process {process!r} that owns sources; it has: {known}")
        names = hosts[0].members
        made = {names[0]: source} if source is not None else make_sources({one: config.inputs[one] for one in names})
        self._config = config
        self._stop = stop
        self._process = process
        self._readers = [Reader(config, name, made[name], alone=len(names) == 1) for name in names]
        self._of = {reader.name: reader for reader in self._readers}
        self._logger = structlog.get_logger()
        self._began = hostclock.now()
        self._faults: list[RtdecodeError] = []
        self._closing = threading.Event()
        self._lanes: Lanes | None = None
        self._serving_failed: Exception | None = None

    def run(self, on_ready: Callable[[], None], *, hold: int = 0, resumed: bool = False) -> None:
        """Read until the sources end or somebody asks to stop; then serve the logs until the decoders have it all.

        Parameters
        ----------
        on_ready : callable
            Called when the streams are found and the endpoints answer.
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
            A stream is not found; or a source failed, after everything that came was served.
        """
        found = endpoints(self._config)
        prepare(found, private=self._config.bus.dir is None)
        found = found.at(self._process)
        with contextlib.ExitStack() as stack:
            context = stack.enter_context(zmq.Context())
            publisher = context.socket(zmq.PUB)
            stack.callback(publisher.close)
            publisher.setsockopt(zmq.SNDHWM, QUEUED * len(self._readers))
            publisher.setsockopt(zmq.LINGER, 1000)
            bind(publisher, found.samples)
            if self._config.bus.share is not None:
                bind(publisher, self._config.bus.share)
            log = stack.enter_context(contextlib.closing(Server[bus.LogRequest](context, found.log, bus.LogRequest)))
            if self._config.bus.share is not None:
                bind(log.socket, log_of(self._config.bus.share))
            asked = stack.enter_context(
                contextlib.closing(Server[control.Request](context, found.acquire, control.Request))
            )
            for reader in self._readers:
                stack.callback(reader.close)
            self._open()
            self._lanes = self._make_lanes(found.samples)
            if self._lanes is not None:
                stack.callback(self._lanes.close)
            server = threading.Thread(target=self._serve, args=(log, asked), name="log", daemon=True)
            server.start()
            stack.callback(server.join)
            stack.callback(self._closing.set)
            for reader in self._readers:
                stack.callback(reader.close_recording)
                reader.begin(publisher, self._lanes, resumed=resumed)
            on_ready()
            if hold and any(self._waits(reader) for reader in self._readers):
                self._hold(hold)
            settle()
            try:
                self._read()
            except Exception as error:
                for reader in self._live:
                    reader.fail(error)  # a bug, hence a crash: no end is said, for another process will go on
                raise
            self._drain()
            if self._faults:
                raise self._faults[0]
        lost = sum(reader.recording.lost for reader in self._readers if reader.recording is not None)
        if self._config.recording is not None and lost:
            raise NotRecordedError(
                f"{lost} samples were not recorded to {self._config.recording.dir}; the events tell when, and why"
            )

    def _make_lanes(self, samples: str) -> Lanes | None:
        """Of a source that is alone (to read several in turn takes longer than to wake somebody) and fits them."""
        path = path_of(samples)
        if path is None or len(self._readers) > 1 or self._readers[0].bytes_per_s * LANE_S > room():
            return None
        return Lanes(path)

    def _waits(self, reader: Reader) -> bool:
        return isinstance(self._config.inputs[reader.name], RecordingConfig | SimulatedConfig)

    def _open(self) -> None:
        """Open the sources. Looking for a stream may take a minute, which nobody who says stop wants to wait for."""
        opened = threading.Event()

        def leave_early() -> None:
            while not opened.wait(0.1):
                if self._stop.requested:
                    self._logger.info("stopped before the source was found", by=self._stop.reason)
                    os._exit(0)  # nothing has been read, so there is nothing to lose

        threading.Thread(target=leave_early, name="stop", daemon=True).start()
        try:
            with ThreadPoolExecutor(len(self._readers)) as pool:  # each waits more than it works
                for one in [pool.submit(reader.open) for reader in self._readers]:
                    one.result()
        finally:
            opened.set()

    # --- samples ------------------------------------------------------------------------------------------------------

    @property
    def _live(self) -> list[Reader]:
        return [reader for reader in self._readers if not reader.over]

    def _read(self) -> None:
        for reader in self._readers:
            reader.start()
        live = self._live
        while not self._stop.requested and live:
            self._attend()
            if self._serving_failed is not None:
                raise self._serving_failed
            if len(live) == 1:
                self._of_one(live[0], READ_TIMEOUT_S)
            else:
                self._round(live)
            if any(reader.over for reader in live):
                live = self._live
        for reader in self._live:
            reader.event("stop", f"stopped by {self._stop.reason}")
            reader.finish()

    def _round(self, live: list[Reader]) -> None:
        """What each source has, then a pause: without it a core would be spent on looking."""
        began = hostclock.now()
        for reader in live:
            self._of_one(reader)
        pause = began + (TICK_S if len(live) <= MANY else TICK_MANY_S) - hostclock.now()
        if pause > 0:
            self._stop.wait(pause)

    def _of_one(self, reader: Reader, timeout: float | None = None) -> None:
        """What one source has, now or within so many seconds. One that ends, or fails, leaves the others to go on."""
        try:
            if timeout is None:
                reader.turn()
            else:
                reader.read(timeout)
        except RtdecodeError as error:
            self._faults.append(error)
            reader.fail(error)
        if reader.over:
            reader.finish()

    def _attend(self) -> None:
        """Show the supervisor that this loop turns, and publish what it has to say."""
        for news in self._stop.supervised.attend():
            self._everywhere(news.event, news.text, news.details)
        for reader in self._readers:
            reader.attend()

    def _everywhere(self, event: str, text: str, details: dict[str, str | int | float | bool | None]) -> None:
        """Something about the session: the decoders of every source hear it."""
        for reader in self._readers:
            reader.event(event, text, details)

    # --- beginning and end --------------------------------------------------------------------------------------------

    def _hold(self, decoders: int) -> None:
        deadline = hostclock.now() + HOLD_TIMEOUT_S
        for reader in self._readers:
            reader.phase = "waiting for decoders"
        while (
            len(set().union(*(reader.asked_for for reader in self._readers))) < decoders
            and hostclock.now() < deadline
            and not self._stop.wait(0.01)
        ):
            self._attend()

    def _drain(self) -> None:
        """Everything is said; stay until the decoders have it all or ask no more."""
        while any(self._drains(reader) for reader in self._readers):
            self._attend()
            self._closing.wait(0.02)
        self._stop.supervised.leave()
        for reader in self._readers:
            if reader.followers:
                who = ", ".join(sorted(reader.followers))
                reader.event("left", f"left before these decoders had everything: {who}")

    def _drains(self, reader: Reader) -> bool:
        return bool(reader.followers) and hostclock.now() - reader.asked < self._config.bus.drain_s

    # --- answers ------------------------------------------------------------------------------------------------------

    def _serve(self, log: Server[bus.LogRequest], asked: Server[control.Request]) -> None:
        poller = zmq.Poller()
        poller.register(log.socket, zmq.POLLIN)
        poller.register(asked.socket, zmq.POLLIN)
        if self._lanes is not None:
            poller.register(self._lanes.socket, zmq.POLLIN)
        try:
            while not self._closing.is_set():
                poller.poll(100)
                if self._lanes is not None:
                    self._lanes.accept()  # before the log: what it does not hold yet then comes by the lane
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
        reader = self._of.get(request.source, self._readers[0] if len(self._readers) == 1 else None)
        if reader is None:
            known = ", ".join(self._of)
            return log.refuse(caller, ProcessError(f"there is no source {request.source!r} here; there are: {known}"))
        try:
            state, frames = reader.answer(request)
        except ProcessError as error:
            return log.refuse(caller, error)
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
                recordings = [reader.recording for reader in self._readers if reader.recording is not None]
                if not recordings:
                    asked.refuse(caller, ConfigError("this session has no section [recording]; add one, with a `dir`"))
                else:
                    for recording in recordings:
                        recording.record(on)
                    asked.answer(caller, {"recording": on})

    def status(self) -> dict[str, Any]:
        """What the control socket answers."""
        of_source = {reader.name: reader.status() for reader in self._readers}
        several = {
            "state": "ended" if all(reader.over for reader in self._readers) else "reading",
            "sources": of_source,
            "events": sum(reader.events for reader in self._readers),
        }
        return {
            "process": self._process,
            "pid": os.getpid(),
            **(several if len(of_source) > 1 else next(iter(of_source.values()))),
            **({} if self._lanes is None else {"lanes": self._lanes.status()}),
            "restarts": self._stop.supervised.restarts,
            "uptime_s": hostclock.now() - self._began,
        }
