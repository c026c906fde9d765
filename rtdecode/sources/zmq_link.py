"""A receiving ZeroMQ socket that knows whether anybody is at its other end."""

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import zmq
from zmq.utils.monitor import recv_monitor_message

from rtdecode import hostclock
from rtdecode.errors import SourceError

#: Messages that wait to be read. What is beyond them waits at the sender, which drops what is beyond its own bound.
QUEUED = 1000
#: A peer that says nothing at all, not even to libzmq's own questions, is gone after this.
SILENT_S = 10.0
#: A connection that libzmq has given up for good (it does after a breach of protocol) is made anew after this.
REMAKE_S = 2.0
#: How long another thread that closes the link may have to wait.
_SLICE_S = 0.05

_FAILED = (zmq.Event.HANDSHAKE_FAILED_NO_DETAIL, zmq.Event.HANDSHAKE_FAILED_PROTOCOL, zmq.Event.HANDSHAKE_FAILED_AUTH)
_MONITORED = (
    zmq.Event.CONNECTED | zmq.Event.ACCEPTED | zmq.Event.CONNECT_DELAYED | zmq.Event.CONNECT_RETRIED
    | zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED | _FAILED[0] | _FAILED[1] | _FAILED[2]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Frames:
    """One message, and the host time at which it was in our hands. `excess`: it had more frames, which are gone."""

    frames: Sequence[bytes]
    arrived: float
    excess: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """Nobody is at the other end any more."""


@dataclass(frozen=True, slots=True)
class Back:
    """Somebody is there again."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Somebody connected who does not speak ZeroMQ's protocol, and was let go."""


Item = Frames | Lost | Back | Broken


class Link:
    """One SUB or PULL socket, with its monitor. Read by one thread; closed by any.

    Parameters
    ----------
    endpoint : str
        Checked (`rtdecode.wire.endpoint`); port 0 takes a free one, which `endpoint` then tells.
    bind : bool
        Listen there, instead of connecting to it.
    pattern : {"sub", "pull"}
        What the sender's socket is the other half of: ``PUB`` or ``PUSH``.
    topics : sequence of str
        Prefixes, for ``sub``.
    max_bytes : int
        Largest frame. A peer that announces a larger one is let go before memory is taken for it.
    max_frames : int
        Frames of one message that are kept.

    Raises
    ------
    SourceError
        The address cannot be bound or connected to.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        bind: bool,
        pattern: Literal["sub", "pull"],
        topics: Sequence[str] = ("",),
        max_bytes: int,
        max_frames: int,
    ) -> None:
        self.connected = False
        self.empty_at = hostclock.now()
        self._bind = bind
        self._max_frames = max_frames
        self._peers: set[int] = set()
        self._trying_at = self.empty_at  # libzmq was seen to try, or to have, a connection
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.SUB if pattern == "sub" else zmq.PULL)
        for option, value in (
            (zmq.RCVHWM, QUEUED),
            (zmq.MAXMSGSIZE, max_bytes),
            (zmq.LINGER, 0),
            (zmq.RECONNECT_IVL, 100),
            (zmq.HEARTBEAT_IVL, 2000),
            (zmq.HEARTBEAT_TIMEOUT, round(SILENT_S * 1e3)),
            (zmq.IPV6, int("[" in endpoint)),
        ):
            self._socket.setsockopt(option, value)
        for topic in topics if pattern == "sub" else ():
            self._socket.setsockopt_string(zmq.SUBSCRIBE, topic)
        self._monitor = self._socket.get_monitor_socket(_MONITORED)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        try:
            if bind:
                self._socket.bind(endpoint.removesuffix(":0") + ":*" if endpoint.endswith(":0") else endpoint)
                endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
            else:
                self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            verb = "listened on" if bind else "connected to"
            raise SourceError(
                f"{endpoint} cannot be {verb}: {error.strerror}; set `endpoint` of [source] to an address "
                f"{'of this machine that is free' if bind else 'where the sender publishes'}"
            ) from None
        self.endpoint = endpoint

    def next(self, timeout: float) -> Item | None:
        """The next thing that happened; None where nothing did within `timeout` seconds, or it was closed."""
        deadline = hostclock.now() + timeout
        while not self._closed.is_set():
            with self._lock:
                if self._closed.is_set():
                    return None
                # Messages first: what a sender sent before it went is given before its going is told.
                item = self._receive() or self._watch()
                left = deadline - hostclock.now()
                if item is not None or left <= 0:
                    return item
                self._poller.poll(max(1, round(1e3 * min(left, _SLICE_S))))
        return None

    def _receive(self) -> Frames | None:
        before = hostclock.now()
        try:
            frames = [self._socket.recv(zmq.NOBLOCK)]
        except zmq.Again:
            self.empty_at = before
            return None
        arrived = hostclock.now()
        excess = False
        while self._socket.getsockopt(zmq.RCVMORE):
            frame = self._socket.recv(zmq.NOBLOCK)  # libzmq hands out whole messages only
            if len(frames) < self._max_frames:
                frames.append(frame)
            else:
                excess = True
        return Frames(frames, arrived, excess)

    def _watch(self) -> Lost | Back | Broken | None:
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor, zmq.NOBLOCK)
            kind, value = zmq.Event(event["event"]), int(event["value"])
            self._trying_at = hostclock.now()
            if kind in (zmq.Event.CONNECTED, zmq.Event.ACCEPTED):
                self._peers.add(value)
            elif kind == zmq.Event.HANDSHAKE_SUCCEEDED:
                if not self.connected:
                    self.connected = True
                    return Back()
            elif kind == zmq.Event.DISCONNECTED:
                self._peers.discard(value)
                if self.connected and not self._peers:
                    self.connected = False
                    return Lost()
            elif kind in _FAILED:
                return Broken()
        if not self._bind and not self.connected and hostclock.now() - self._trying_at > REMAKE_S:
            self._remake()
        return None

    def _remake(self) -> None:
        self._trying_at = hostclock.now()
        with contextlib.suppress(zmq.ZMQError):  # libzmq may have forgotten it by itself
            self._socket.disconnect(self.endpoint)
        self._peers.clear()
        self._socket.connect(self.endpoint)

    def close(self) -> None:
        """Let go of the sockets. Safe to call twice, and from any thread."""
        self._closed.set()
        with self._lock:
            if not self._context.closed:
                self._socket.disable_monitor()
                self._monitor.close(0)
                self._socket.close(0)
                self._context.term()
