"""What *acquire* shares with other machines, under the hand of a test: its publisher and its log, without a source."""

import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import zmq

from rtdecode import hostclock
from rtdecode.daemon import bus
from rtdecode.daemon.endpoints import log_of
from rtdecode.daemon.log import ReplayLog
from rtdecode.daemon.rpc import Server, bind
from rtdecode.signal import Batch, StreamInfo


class Shared:
    """Publishes batches, and answers the log's questions in a thread."""

    def __init__(
        self,
        info: StreamInfo,
        folder: Path,
        *,
        run: int = 1,
        clock: str | None = None,
        ahead: float = 0.0,
        log_seconds: float = 1e6,
    ) -> None:
        from rtdecode.wire.clock import clock_id

        self.info, self.run = info, run
        self.clock = clock_id() if clock is None else clock
        self.ahead = ahead  # seconds by which this clock is ahead of the host's
        self.endpoint = f"ipc://{folder / 'share'}"
        self.asked: list[Any] = []
        self._log = ReplayLog(log_seconds, 1 << 26)
        self._position = (0, 0)
        self._context: zmq.Context[Any] = zmq.Context()
        self._publisher = self._context.socket(zmq.PUB)
        bind(self._publisher, self.endpoint)
        self._server = Server[bus.LogRequest](self._context, log_of(self.endpoint), bus.LogRequest)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def send(self, batch: Batch, *, end: bool = False, live: bool = True) -> None:
        """One entry; `live` False: lost on the way."""
        seq = self._log.next
        now = hostclock.now()
        frames = bus.samples_frames(batch, self.run, seq, self._position, now, end=end)
        if batch.chunk is not None:
            self._position = (batch.chunk.segment, batch.chunk.stop_index)
        self._log.append(frames, now)
        if live:
            self._publisher.send_multipart(frames)

    def send_raw(self, *frames: bytes) -> None:
        """Anything."""
        self._publisher.send_multipart(frames)

    def _serve(self) -> None:
        while not self._stop.is_set():
            self._server.socket.poll(20)
            while (request := self._server.receive()) is not None:
                self._answer(*request)

    def _answer(self, caller: Any, request: Any) -> None:
        self.asked.append(request)
        if isinstance(request, bus.Clock):
            now = hostclock.now() + self.ahead
            reading = bus.Reading(received=now, answered=hostclock.now() + self.ahead, clock=self.clock)
            return self._server.answer(caller, msgspec.to_builtins(reading))
        state = bus.LogState(run=self.run, oldest=self._log.oldest, next=self._log.next, info=self.info)
        frames: list[bytes] = []
        if isinstance(request, bus.Since):
            entries = self._log.since(request.seq, bus.PAGE_BYTES)
            counts = tuple(len(entry.frames) for entry in entries)
            state = msgspec.structs.replace(state, first=entries[0].seq if entries else request.seq, counts=counts)
            frames = [frame for entry in entries for frame in entry.frames]
        self._server.answer(caller, msgspec.to_builtins(state), frames)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._server.close()
        self._publisher.close()
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
