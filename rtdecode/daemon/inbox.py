"""One process's subscription to an *acquire*: live messages of its sources, each for the followers that want it.

A process that runs many pipelines thus polls one socket, and not one for each. Where *acquire* has a lane (see
`rtdecode.daemon.lane`), messages come by that, and the subscription stands in when it is over.
"""

import contextlib
from collections import deque
from typing import Any

import zmq

from rtdecode import hostclock
from rtdecode.daemon import bus
from rtdecode.daemon.endpoints import Endpoints
from rtdecode.daemon.lane import Lane, path_of
from rtdecode.daemon.rpc import Client

#: Live messages that wait while windows are encoded, for each follower; what does not fit is in the log.
QUEUED = 2000

#: After a question that was not answered, nobody asks for so many seconds: one that is gone would hold all up in turn.
SILENT_S = 0.5

#: A message, and the host time at which it was in our hands.
Taken = tuple[list[bytes], float]


class Tap:
    """The live messages of one source, for one follower: without a source's name in their topics."""

    def __init__(self) -> None:
        self.waiting: deque[Taken] = deque()


class Inbox:
    """Hears one *acquire*, and asks it. Used by one thread.

    Parameters
    ----------
    context : zmq.Context
    found : Endpoints
        With that *acquire*'s addresses in front.
    """

    def __init__(self, context: "zmq.Context[Any]", found: Endpoints) -> None:
        self.context = context
        self.client = Client(context, found.log, "acquire")
        #: Until when it is not asked for what is in its log.
        self.silent_until = 0.0
        self.socket: zmq.Socket[bytes] = context.socket(zmq.SUB)
        self.socket.setsockopt(zmq.RCVHWM, QUEUED)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(found.samples)
        self._lane: Lane | None = None
        self._path = path_of(found.samples)
        #: Whether `socket` or the lane took the other's place since somebody last looked.
        self.renewed = False
        self._taps: dict[bytes, tuple[bytes, list[Tap]]] = {}
        self._heard: list[Tap] = []

    def tap(self, source: str) -> Tap:
        """The messages of a source, from now on."""
        tap = Tap()
        for kind in (bus.SAMPLES_TOPIC, bus.EVENT_TOPIC):
            topic = bus.topic(kind, source)
            if topic not in self._taps:
                self._taps[topic] = kind.encode(), []
                if self._lane is None:
                    self.socket.setsockopt(zmq.SUBSCRIBE, topic)
            self._taps[topic][1].append(tap)
        return tap

    @property
    def readable(self) -> Any:
        """What to poll."""
        return self.socket if self._lane is None else self._lane.socket

    def open_lane(self) -> None:
        """Hear *acquire* by its lane from now on, where it has one. What was missed on the way is in its log."""
        if self._path is None or self._lane is not None:
            return
        try:
            self._lane = Lane(self._path)
        except OSError:
            return
        self.renewed = True
        self._heard += self._subscribed()  # events among it stand in no log
        for topic in self._taps:
            self.socket.setsockopt(zmq.UNSUBSCRIBE, topic)

    def _close_lane(self, lane: Lane) -> None:
        lane.close()
        self._lane = None
        self.renewed = True
        # What came since then, for no subscription: told by the lane, or long ago. One call lets go of all that.
        with contextlib.suppress(zmq.Again):
            self.socket.recv_multipart(zmq.NOBLOCK)
        for topic in self._taps:
            self.socket.setsockopt(zmq.SUBSCRIBE, topic)

    def leave(self, tap: Tap) -> None:
        """Nobody reads this one any more."""
        for _, taps in self._taps.values():
            if tap in taps:
                taps.remove(tap)

    def next(self, tap: Tap) -> Taken | None:
        """The next message of a tap that is here; None where there is none."""
        if not tap.waiting:
            self._heard += self._receive()
        return tap.waiting.popleft() if tap.waiting else None

    def sort(self) -> list[Tap]:
        """Take what is here; the taps that have got something since the last call, in the order in which it came."""
        heard, self._heard = self._heard + self._receive(), []
        return heard

    def _receive(self) -> list[Tap]:
        heard: list[Tap] = []
        if self._lane is not None:
            while (packet := self._lane.receive()) is not None:
                heard += self._deliver(packet)
            if not self._lane.over:
                return heard
            self._close_lane(self._lane)
        return heard + self._subscribed()

    def _subscribed(self) -> list[Tap]:
        """Deliver what came by the subscription."""
        heard: list[Tap] = []
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return heard
            heard += self._deliver(frames)

    def _deliver(self, frames: list[bytes]) -> list[Tap]:
        received = hostclock.now()
        kind, taps = self._taps.get(frames[0], (b"", ()))  # a name that begins like one of ours is not ours
        frames[0] = kind
        for tap in taps:
            if len(tap.waiting) < QUEUED:
                tap.waiting.append((frames, received))
        return list(taps)

    def close(self) -> None:
        """Let go of the sockets."""
        if self._lane is not None:
            self._lane.close()
        self.socket.close()
        self.client.close()
