"""Publishing: every message to whoever subscribed, the last values to whoever comes late, and never a wait.

A subscriber that reads too slowly has a queue of `hwm` messages in this process; when it is full, messages are dropped
for that subscriber alone. libzmq does not tell how many. Two things are known and counted: each send that met a queue
that had just filled up, and the losses that `rtdecode.Subscriber` finds by sequence numbers and reports upstream.
"""

import secrets
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import msgspec
import zmq
from numpy.typing import NDArray

from rtdecode.errors import WireError
from rtdecode.wire.endpoint import check_endpoint, port_in_use, refuse_live_ipc
from rtdecode.wire.framing import describe_arrays, encode_header, topic_of
from rtdecode.wire.messages import Description, Event, Message, Samples
from rtdecode.wire.report import LossReport, read_report

_SUBSCRIBE = b"\x01"
_POLLIN = int(zmq.POLLIN)  # the enumeration's own operators are slow
_MAX_UPSTREAM_BYTES = 4096
_MAX_REPORTERS = 1024

#: Of events, more than the last one is kept for late subscribers: so many, not older than so many seconds. What a
#: process says as it starts is said before those who heard the one before it are back.
EVENTS_KEPT = 16
EVENTS_KEPT_S = 30.0


class Publisher:
    """A bound socket that publishes messages.

    Not thread-safe: one thread makes, feeds, services and closes it.

    Parameters
    ----------
    endpoint : str
        ``tcp://HOST:PORT`` or ``ipc://PATH``; port ``0`` or ``*`` takes a free one, which `endpoint` then tells.
    hwm : int
        Messages that wait for one slow subscriber before it loses some.
    context : zmq.Context, optional
        One of the caller's; otherwise the publisher has its own and ends it.

    Raises
    ------
    ConfigError
        `endpoint` is none.
    PortInUseError
        Another process listens there.
    WireError
        The address cannot be bound for another reason.
    """

    def __init__(self, endpoint: str, *, hwm: int = 1000, context: zmq.Context[Any] | None = None) -> None:
        check_endpoint(endpoint, bind=True)
        refuse_live_ipc(endpoint)
        self._owns_context = context is None
        self._context = zmq.Context() if context is None else context
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.SNDHWM, hwm)
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._socket.setsockopt(zmq.XPUB_NODROP, 1)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MAX_UPSTREAM_BYTES)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 10)
        self._socket.setsockopt(zmq.IPV6, int("[" in endpoint))
        try:
            self._socket.bind(endpoint.removesuffix(":0") + ":*" if endpoint.endswith(":0") else endpoint)
        except zmq.ZMQError as error:
            self.close(linger=0)
            if error.errno == zmq.EADDRINUSE:
                raise port_in_use(endpoint) from error
            raise WireError(f"cannot publish on {endpoint}: {error.strerror}") from error
        self.endpoint: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._life = secrets.randbits(32) or 1
        self._next_seq: dict[str, int] = {}
        self._retained: dict[str, deque[tuple[float, Message, list[bytes]]]] = {}
        self._sent = 0
        self._met_full_queue = 0
        self._reported: dict[int, int] = {}
        self._reported_total = 0

    @property
    def socket(self) -> zmq.Socket[bytes]:
        """The socket, for the owner's poller: when it is readable, call `service`."""
        return self._socket

    @property
    def dropped(self) -> int:
        """Messages that slow subscribers did not get, as far as is known: never too many.

        What `rtdecode.Subscriber`s found missing and reported, added up; or, where that is more (other clients do not
        report), the number of sends that met a queue that had just filled up.
        """
        return max(self._met_full_queue, self._reported_total)

    def send(self, topic: str, message: Message, arrays: Mapping[str, NDArray[Any]] | None = None) -> int:
        """Publish one message; returns at once, whatever the subscribers do.

        `seq` (but for `Samples`, whose `seq` is its log's), `publisher` and `arrays` of the header are filled in here.
        The last message of each topic (but for `Samples`) is kept for late subscribers; of events the last few.

        Returns
        -------
        int
            The message's `seq`.

        Raises
        ------
        WireError
            The topic is not the message's, or something in it cannot travel.
        """
        if topic != (expected := topic_of(message)):
            raise WireError(f"topic {topic!r} does not belong to this message; it goes out as {expected!r}")
        live = isinstance(message, Samples)
        seq = message.seq if live else self._next_seq.get(topic, 0)
        message, header, buffers = self._encoded(message, seq, arrays or {})
        self.service()  # last, so that who just came gets the description and the value before this one first
        if not live:
            self._next_seq[topic] = seq + 1
            kept = self._retained.setdefault(topic, deque(maxlen=EVENTS_KEPT if isinstance(message, Event) else 1))
            kept.append((time.monotonic(), message, buffers))
        self._sent += 1
        self._put([topic.encode(), header, *buffers])
        return seq

    def rehearse(self, message: Message, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go through what `send` does, and send nothing: shortly before a message whose time counts."""
        self._encoded(message, message.seq, arrays)
        self.service()

    def describe(self, message: Description) -> int:
        """Publish the stream's description; late subscribers get it before anything else. Returns its `seq`."""
        return self.send(topic_of(message), message)

    def service(self) -> None:
        """Answer new subscribers with the descriptions and the last values they asked for, and read loss reports.

        Call it when `socket` is readable; `send` does so too.
        """
        prefixes: list[bytes] = []
        while int(self._socket.getsockopt(zmq.EVENTS)) & _POLLIN:
            upstream = self._socket.recv(zmq.NOBLOCK)
            if upstream[:1] == _SUBSCRIBE:
                prefixes.append(upstream[1:])
            elif (report := read_report(upstream)) is not None:
                self._note(report)
        if prefixes:
            self._resend(tuple(prefixes))

    def _encoded(
        self, message: Message, seq: int, arrays: Mapping[str, NDArray[Any]]
    ) -> tuple[Message, bytes, list[bytes]]:
        """A message as it goes out, its header, and its arrays."""
        described, views = describe_arrays(arrays)
        message = msgspec.structs.replace(message, seq=seq, publisher=self._life, arrays=described, retained=False)
        return message, encode_header(message), [bytes(view) for view in views]

    def _resend(self, prefixes: tuple[bytes, ...]) -> None:
        wanted = [topic for topic in self._retained if topic.encode().startswith(prefixes)]
        wanted.sort(key=lambda topic: not isinstance(self._retained[topic][-1][1], Description))
        since = time.monotonic() - EVENTS_KEPT_S
        for topic in wanted:
            kept = self._retained[topic]
            while len(kept) > 1 and kept[0][0] < since:
                kept.popleft()
            for _, message, buffers in kept:
                header = encode_header(msgspec.structs.replace(message, retained=True))
                self._put([topic.encode(), header, *buffers])

    def _note(self, report: LossReport) -> None:
        known = self._reported.pop(report.subscriber, 0)
        missed = min(max(report.missed, known), self._sent)
        self._reported_total += missed - known
        self._reported[report.subscriber] = missed
        if len(self._reported) > _MAX_REPORTERS:
            del self._reported[next(iter(self._reported))]

    def _put(self, frames: list[bytes]) -> None:
        """Send, dropping only for subscribers whose queue is full."""
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            # With NODROP libzmq refuses where any queue is full, and tells; without, it serves those that have room.
            self._met_full_queue += 1
            self._socket.setsockopt(zmq.XPUB_NODROP, 0)
            self._socket.send_multipart(frames, zmq.NOBLOCK)
            self._socket.setsockopt(zmq.XPUB_NODROP, 1)

    def close(self, linger: float = 1.0) -> None:
        """Close the socket; what is still queued has `linger` seconds to leave. Closing twice does nothing.

        The wait is here where the context is the publisher's own, else where the caller ends the context.
        """
        if not self._socket.closed:
            self._socket.close(linger=int(linger * 1000))
        if self._owns_context and not self._context.closed:
            self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
