"""Reading what rtdecode publishes, in a ``for`` or an ``async for`` loop.

::

    with Subscriber("tcp://127.0.0.1:5555") as subscriber:
        for received in subscriber:
            print(received.topic, received.message, received.arrays)
"""

import dataclasses
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

import numpy as np
import zmq
import zmq.asyncio
from numpy.typing import NDArray
from zmq.utils.monitor import parse_monitor_message

from rtdecode import hostclock
from rtdecode.errors import WireError
from rtdecode.wire.clock import clock_id
from rtdecode.wire.endpoint import check_endpoint
from rtdecode.wire.framing import decode
from rtdecode.wire.messages import Description, Event, Message, Window
from rtdecode.wire.report import LossReport, write_report

_log = logging.getLogger("rtdecode.wire")

_LOG_EVERY = 1000
_POLLIN = int(zmq.POLLIN)  # the enumeration's own operators are slow
_MAX_MESSAGE_BYTES = 2**28


@dataclasses.dataclass(frozen=True, slots=True)
class Received:
    """One message as it came in."""

    topic: str
    message: Message
    arrays: Mapping[str, NDArray[np.generic]]
    """Read-only."""
    at: float
    """Host-clock time of its receipt here."""
    age: float | None
    """Seconds from the newest sample (of an event: from its stamp) to receipt; None where the publisher's clock is not
    this host's, or not yet known."""


class Subscriber:
    """A connection to a publisher, which may start later, end and come back.

    One bad message does not end it: malformed ones are counted and logged. Not thread-safe.

    Parameters
    ----------
    endpoint : str
        ``tcp://HOST:PORT`` or ``ipc://PATH``.
    topics : sequence of str
        Prefixes of ``PIPELINE.KIND``; the empty one takes everything. The description of a pipeline that is named comes
        along.
    timeout : float, optional
        Seconds without a message after which iteration ends; None waits for ever.
    hwm : int
        Messages that may wait here before they wait at the publisher, and are lost there.

    Attributes
    ----------
    descriptions : dict of str to Description
        The latest of each pipeline.
    malformed : int
        Messages that could not be read.
    missed : dict of str to int
        Messages lost, by topic, found by jumps of `seq`.
    connected : bool
        Whether a publisher is there now, as of the last `receive`.

    Raises
    ------
    ConfigError
        `endpoint` is none.
    """

    def __init__(
        self, endpoint: str, topics: Sequence[str] = ("",), *, timeout: float | None = None, hwm: int = 1000
    ) -> None:
        self.endpoint = check_endpoint(endpoint)
        self.timeout = timeout
        self.descriptions: dict[str, Description] = {}
        self.malformed = 0
        self.missed: dict[str, int] = {}
        self.connected = False
        self._last: dict[str, tuple[int, int | None]] = {}
        self._latest_description: Description | None = None
        self._id = secrets.randbits(63)
        self._reported = 0
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.XSUB)
        self._socket.setsockopt(zmq.RCVHWM, hwm)
        self._socket.setsockopt(zmq.LINGER, 100)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MAX_MESSAGE_BYTES)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 50)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 10)
        self._socket.setsockopt(zmq.IPV6, int("[" in endpoint))
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._poller = zmq.Poller()
        self._async_poller: zmq.asyncio.Poller | None = None
        for socket in (self._socket, self._monitor):
            self._poller.register(socket, zmq.POLLIN)
        for topic in _with_descriptions(topics):
            self._socket.send(b"\x01" + topic.encode())
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise WireError(f"cannot connect to {endpoint}: {error.strerror}") from error

    @property
    def description(self) -> Description | None:
        """The description that came last, or None before the first."""
        return self._latest_description

    def receive(self, timeout: float | None = None) -> Received | None:
        """Next message.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most; None waits for ever, 0 takes what is there.

        Returns
        -------
        Received or None
            None when the time was up.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if (received := self._next()) is not None:
                return received
            left = _milliseconds_left(deadline)
            if not self._poller.poll(left) and left is not None:
                return None

    async def receive_async(self, timeout: float | None = None) -> Received | None:  # noqa: ASYNC109 - as `receive`
        """`receive` for asyncio: waits without holding the event loop."""
        if self._async_poller is None:
            self._async_poller = zmq.asyncio.Poller()
            for socket in (self._socket, self._monitor):
                self._async_poller.register(socket, zmq.POLLIN)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if (received := self._next()) is not None:
                return received
            left = _milliseconds_left(deadline)
            if not await self._async_poller.poll(-1 if left is None else left) and left is not None:
                return None

    def __iter__(self) -> Iterator[Received]:
        while (received := self.receive(self.timeout)) is not None:
            yield received

    async def __aiter__(self) -> AsyncIterator[Received]:
        while (received := await self.receive_async(self.timeout)) is not None:
            yield received

    def _next(self) -> Received | None:
        """Next message that is there already and worth handing on."""
        self._watch()
        while int(self._socket.getsockopt(zmq.EVENTS)) & _POLLIN:
            frames = self._socket.recv_multipart(zmq.NOBLOCK)
            at = hostclock.now()
            try:
                topic, message, arrays = decode(frames)
            except WireError as error:
                self._count_malformed(error)
                continue
            if self._is_new(topic, message):
                self._report()
                return Received(topic, message, arrays, at, self._age(message, at))
        self._report()
        return None

    def _watch(self) -> None:
        """Follow whether a publisher is there."""
        while int(self._monitor.getsockopt(zmq.EVENTS)) & _POLLIN:
            event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))["event"]
            if event == zmq.EVENT_MONITOR_STOPPED:
                return
            self.connected = event == zmq.EVENT_HANDSHAKE_SUCCEEDED

    def _is_new(self, topic: str, message: Message) -> bool:
        """Keep count of `seq`; False for a last value, sent for another late subscriber, that was seen here before."""
        # Of a topic that is new, or whose publisher was restarted, nothing can be said about what came before.
        publisher, last = self._last.get(topic, (message.publisher, None))
        if last is not None and publisher == message.publisher:
            if message.retained and message.seq <= last:
                return False
            if message.seq > last + 1:
                self.missed[topic] = self.missed.get(topic, 0) + message.seq - last - 1
        self._last[topic] = message.publisher, message.seq
        if isinstance(message, Description):
            self.descriptions[message.pipeline] = self._latest_description = message
        return True

    def _age(self, message: Message, at: float) -> float | None:
        if self._latest_description is None or self._latest_description.clock_id != clock_id():
            return None
        match message:
            case Window():
                stamp = message.ledger.stamp
            case Event():
                stamp = message.stamp
            case _:
                return None
        return None if stamp is None else at - stamp

    def _count_malformed(self, error: WireError) -> None:
        if self.malformed % _LOG_EVERY == 0:
            _log.warning("%s: message %d that cannot be read: %s", self.endpoint, self.malformed + 1, error)
        self.malformed += 1

    def _report(self) -> None:
        """Tell the publisher how many messages did not arrive, whenever that has changed."""
        missed = sum(self.missed.values())
        if missed == self._reported:
            return
        try:
            self._socket.send(write_report(LossReport(self._id, missed)), zmq.NOBLOCK)
        except zmq.Again:  # the way up is full; the next report holds this one's loss too
            return
        self._reported = missed

    def close(self) -> None:
        """Close the connection. Closing twice does nothing."""
        if self._socket.closed:
            return
        self._report()
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close()
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _with_descriptions(topics: Sequence[str]) -> list[str]:
    """The topics, and before them the descriptions of the pipelines that they name."""
    named = {topic.partition(".")[0] for topic in topics if "." in topic}
    return [*(f"{pipeline}.description" for pipeline in sorted(named)), *topics]


def _milliseconds_left(deadline: float | None) -> int | None:
    return None if deadline is None else max(0, math.ceil((deadline - time.monotonic()) * 1000))
