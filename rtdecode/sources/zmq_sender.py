"""Serve any source over ZeroMQ in the minimal format (docs/zmq-source.md), at its own rate, with its markers."""

import secrets
from typing import Any

import zmq

from rtdecode import hostclock
from rtdecode.errors import PortInUseError, SourceError
from rtdecode.signal import Chunk, StreamInfo
from rtdecode.sources.pacing import PacedSender
from rtdecode.sources.zmq_format import VERSION, End, Header, Mark, Samples, write_message

#: Seconds of messages that wait for a slow subscriber before it loses some; also how long is waited at the end.
_QUEUED, _LINGER_S = 2000, 2.0


class ZmqSender(PacedSender):
    """A PUB socket that sends samples, markers and the end of one stream.

    Samples go out as float32 in SI units. Whoever subscribes later gets the samples from then on.

    Parameters
    ----------
    info : StreamInfo
        What the source said when it was opened.
    name : str
        The stream's name, which is also the topic.
    endpoint : str
        Where to publish; checked (`rtdecode.wire.endpoint`). Port 0 takes a free one, which `endpoint` then tells.
    bind : bool
        Listen there, instead of connecting to it.
    markers : bool
        Serve markers.
    chunk_s : float
        Seconds of samples that are sent at once.
    clock : str
        Name of this host's clock, by which a receiver on this host knows that the stamps are its own time.

    Raises
    ------
    PortInUseError
        Another process listens there.
    SourceError
        The address cannot be used.
    """

    def __init__(
        self,
        info: StreamInfo,
        name: str,
        endpoint: str,
        *,
        bind: bool = True,
        markers: bool = True,
        chunk_s: float = 0.02,
        clock: str = "",
    ) -> None:
        super().__init__(info, chunk_s)
        self.name = name
        self._serves_markers = markers
        self._clock = clock
        self._run = secrets.token_hex(8)
        self._base = self._next = 0  # number of the recording's sample 0; and of the next sample
        self._place: tuple[int, int] | None = None
        self._newest = 0.0
        self._subscribers: set[bytes] = set()
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.XPUB)
        for option, value in (
            (zmq.SNDHWM, _QUEUED),
            (zmq.MAXMSGSIZE, 4096),
            (zmq.LINGER, round(_LINGER_S * 1e3)),
            (zmq.IPV6, int("[" in endpoint)),
        ):
            self._socket.setsockopt(option, value)
        try:
            if bind:
                self._socket.bind(endpoint.removesuffix(":0") + ":*" if endpoint.endswith(":0") else endpoint)
                endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
            else:
                self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            if error.errno == zmq.EADDRINUSE:
                raise PortInUseError(f"{endpoint} is in use by another process; choose another port") from None
            raise SourceError(f"{endpoint} cannot be used: {error.strerror}; choose another address") from None
        self.endpoint = endpoint

    def wait_for_consumers(self, timeout: float) -> bool:
        """Wait until somebody has subscribed; False after `timeout` s."""
        deadline = hostclock.now() + timeout
        while not self._look():
            left = deadline - hostclock.now()
            if left <= 0:
                return False
            self._socket.poll(max(1, round(1e3 * min(0.2, left))))  # in short waits, for Ctrl-C
        return True

    def _look(self) -> bool:
        """Whether somebody is subscribed."""
        while int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            upstream = self._socket.recv(zmq.NOBLOCK)
            if upstream[:1] == b"\x01":
                self._subscribers.add(upstream[1:])
            elif upstream[:1] == b"\x00":
                self._subscribers.discard(upstream[1:])
        return bool(self._subscribers)

    def _push(self, part: Chunk) -> None:
        self._number(part)
        info = self.info
        self._next = self._base + part.stop_index
        self._newest = float(part.stamps[-1])
        header = Samples(
            v=VERSION,
            stream=self.name,
            run=self._run,
            index=self._base + part.first_index,
            n=len(part),
            dtype="<f4",
            sfreq=info.sfreq,
            channels=info.names,
            units=tuple(channel.unit for channel in info.channels),
            types=tuple(channel.type for channel in info.channels),
            stamp=float(part.stamps[0]),
            clock=self._clock,
        )
        self._send(write_message(header, part.samples, self.name))

    def _number(self, part: Chunk) -> None:
        """One count over the whole stream: a recording that is played again, or a new segment of it, goes on."""
        segment, after = self._place or (part.segment, 0)
        if part.segment != segment:
            missing = max(0, round((float(part.stamps[0]) - self._newest) * self.info.sfreq) - 1)
            self._base = self._next + missing - part.first_index
        elif part.first_index < after:
            self._base = self._next - part.first_index
        self._place = part.segment, part.stop_index

    def _mark(self, value: str, stamp: float) -> bool:
        if self._serves_markers:
            self._write(Mark(v=VERSION, stream=self.name, run=self._run, value=value, stamp=stamp))
        return self._serves_markers

    def _write(self, header: Header) -> None:
        self._send(write_message(header, topic=self.name))

    def _send(self, frames: list[bytes]) -> None:
        self._look()
        self._socket.send_multipart(frames)

    def drain(self) -> None:
        """Say that nothing more will come; `close` gives what is still queued the time to leave."""
        self._write(End(v=VERSION, stream=self.name, run=self._run))

    def close(self) -> None:
        """Let go of the socket, once what is queued has left. Safe to call twice."""
        if not self._context.closed:
            self._socket.close()
            self._context.term()
