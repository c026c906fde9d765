"""The streams behind an LSL source: each with a thread that watches it, and finds it again when it is lost.

liblsl's own recovery is off: it reattaches to a stream with another rate or other channels without a word.
"""

import math
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode import hostclock
from rtdecode.clock.offset import ClockOffset
from rtdecode.errors import SourceError, StreamNotFoundError
from rtdecode.signal import Marker
from rtdecode.sources.lsl_streams import (
    LOOK_S,
    SETTLE_S,
    MarkerQuery,
    Puller,
    StreamQuery,
    describe_stream,
    measure_offset,
    pylsl,
    resolve,
    same_host,
)
from rtdecode.sources.xdf_reader import marker_value

#: Samples taken by one pull at most.
PULL = 4096
#: A pull of samples returns after this, to look for markers and whether to end.
_POLL_S = 0.02
#: How often is looked whether the stream is lost, or its reader is elsewhere.
_WATCH_S = 0.02
#: The same for markers, where it also says how stale a watermark may be.
_MARKER_POLL_S = 0.02
_OFFSET_EVERY_S = 5.0
#: Samples that may lie unread, in seconds, before the source gives up.
_UNREAD_S = 60.0


@dataclass(frozen=True, slots=True)
class Samples:
    """One pull: raw values, raw stamps, and the host time at which they were in our hands."""

    values: NDArray[np.generic]
    stamps: NDArray[np.float64]
    arrived: float


@dataclass(frozen=True, slots=True)
class Reopened:
    """The data stream was lost and found again; what follows is another segment."""

    info: Any
    offset: ClockOffset


@dataclass(frozen=True, slots=True)
class Ended:
    """No more data samples will come; with an error where a thread failed."""

    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Awake:
    """A marker waits to be taken from its link."""


Event = Samples | Awake | Reopened | Ended


class Link(ABC):
    """One inlet, its clock offset, and its threads.

    Parameters
    ----------
    query : StreamQuery
        Which stream.
    events : SimpleQueue
        Where everything that comes is put.
    timeout_s : float
        How long to look for the stream.
    """

    def __init__(self, query: StreamQuery, events: "SimpleQueue[Event]", timeout_s: float) -> None:
        self.query = query
        self.events = events
        self.timeout_s = timeout_s
        self.stop = threading.Event()
        self.reconnects = 0
        self.inlet: Any = None
        self.info: Any = None
        self.offset = ClockOffset()
        self._threads: list[threading.Thread] = []

    def connect(self, query: StreamQuery, timeout: float, settle: float = SETTLE_S) -> None:
        """Find the stream, read its description, and measure its clock; raises `SourceError` where that fails."""
        deadline = hostclock.now() + timeout
        found = resolve(query, timeout, settle)
        module = pylsl()
        # as_numpy: text comes as bytes; pylsl's own decoding would lose the marker over one that is not UTF-8.
        inlet = module.StreamInlet(found, recover=False, processing_flags=0, as_numpy=True)
        offset = ClockOffset(same_host(found))
        try:
            info = inlet.info(max(0.5, deadline - hostclock.now()))
            first = measure_offset(inlet, max(0.5, deadline - hostclock.now()))
        except (module.util.LostError, module.util.TimeoutError) as error:
            raise _unreachable(found, error) from error
        if first is not None:
            offset.measured(hostclock.now(), *first)
        elif not offset.known:
            raise StreamNotFoundError(
                f"the clock of the LSL stream with {query} on {found.hostname()} cannot be measured; check that the "
                "firewall lets its UDP port through"
            )
        self.inlet, self.info, self.offset = inlet, info, offset

    def subscribe(self, timeout: float) -> None:
        """Have the sender send. Last of all, since a sender may begin as soon as somebody listens."""
        module = pylsl()
        try:
            self.inlet.open_stream(timeout)
        except (module.util.LostError, module.util.TimeoutError) as error:
            raise _unreachable(self.info, error) from error

    def start(self) -> None:
        """Begin to watch the stream, in a thread of its own, and to measure the clock, in another."""
        for target in (self._run, self._measure):
            thread = threading.Thread(target=self._or_end, args=(target,), name=f"lsl-{self.query}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _or_end(self, target: Callable[[], None]) -> None:
        """Run a thread; whatever it dies of ends the source, or the reader would wait for ever."""
        try:
            target()
        except Exception as error:
            self.events.put(Ended(error))

    @property
    def alive(self) -> bool:
        """Whether its threads still run."""
        return any(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        """Stop the threads and let go of the inlet. Safe to call twice."""
        self.stop.set()
        for thread in self._threads:
            thread.join(timeout=5.0)
        self._threads.clear()
        self.inlet = None

    def again(self) -> StreamQuery:
        """What to look for after a loss: the same identity, or the same name, type and host."""
        name, type_, identity = self.info.name(), self.info.type(), self.info.source_id()
        if identity:  # with the name, since some senders give all their streams one identity
            return StreamQuery(name, type_, identity)
        return StreamQuery(name, type_, hostname=self.info.hostname())

    def reconnect(self, timeout: float) -> bool:
        """Look for the stream again until it is there, `timeout` is over, or the source is closed."""
        deadline = hostclock.now() + timeout
        while not self.stop.is_set() and hostclock.now() < deadline:
            try:
                self._look()
            except StreamNotFoundError:
                continue
            self.reconnects += 1
            return True
        return False

    def _look(self) -> None:
        # resolve() lists what is visible when it fails, which takes a second; here it is asked again and again.
        if not pylsl().resolve_bypred(self.again().predicate, 1, LOOK_S):
            raise StreamNotFoundError(f"no LSL stream with {self.again()}")
        self.connect(self.again(), 2.0, settle=0.0)
        self.subscribe(2.0)

    def _measure(self) -> None:
        while not self.stop.wait(_OFFSET_EVERY_S):
            inlet, offset = self.inlet, self.offset
            if inlet is None:
                return
            try:
                measured = measure_offset(inlet, 1.0)
            except RuntimeError:
                continue  # who pulls sees the loss too, and acts on it
            if measured is not None and inlet is self.inlet:
                offset.measured(hostclock.now(), *measured)

    @abstractmethod
    def _run(self) -> None:
        """What the watching thread does until `stop` is set."""


def _unreachable(found: Any, error: Exception) -> StreamNotFoundError:
    return StreamNotFoundError(
        f"an LSL stream is visible ({describe_stream(found)}) but cannot be opened ({error}); check that the firewall "
        "lets its TCP port through, or restart the sender"
    )


class DataLink(Link):
    """Pulls samples: in the reader's own thread while it reads, since every hand-over between threads costs time.

    liblsl forgets what it holds once it notices that the sender is gone. So while the reader is elsewhere, this link's
    thread takes what comes; and it finds the stream again when it is lost.

    Parameters
    ----------
    validate : callable
        Called with a reopened stream's description; raises `SourceError` where it is not what it was.
    end_when_lost : bool
        A lost stream ends the source at once.
    """

    def __init__(
        self,
        query: StreamQuery,
        events: "SimpleQueue[Event]",
        timeout_s: float,
        validate: Callable[[Any], None],
        end_when_lost: bool,
    ) -> None:
        super().__init__(query, events, timeout_s)
        self._validate = validate
        self._end_when_lost = end_when_lost
        self._pulling = threading.Lock()
        self._puller: Puller | None = None
        self._put = self._taken = 0  # samples; one is written under the lock alone, the other by the reader alone

    def start(self) -> None:
        """Begin to watch the stream."""
        self._puller = Puller(self.inlet, PULL)
        super().start()

    def next(self, timeout: float) -> Event | None:
        """The next event, in the order in which things came; None where there is none within `timeout` seconds."""
        deadline = hostclock.now() + timeout
        while True:
            left = deadline - hostclock.now()
            if self._puller is None:  # lost: the thread looks for it
                return self._queued(max(0.0, left))
            with self._pulling:
                # What the thread took came before what is pulled now.
                event = self._queued() or self._pull(min(_POLL_S, max(0.0, left)))
            if event is not None or left <= 0:
                return event

    def _queued(self, timeout: float | None = None) -> Event | None:
        try:
            event = self.events.get(block=timeout is not None, timeout=timeout)
        except Empty:
            return None
        if isinstance(event, Samples):
            self._taken += len(event.stamps)
        return event

    def _pull(self, timeout: float) -> Samples | None:
        """Under the lock: what is there, as soon as something is."""
        if self._puller is None or self.stop.is_set():
            return None
        values, stamps = self._puller.pull(timeout)
        arrived = hostclock.now()
        if self._puller.lost:
            self._puller = None
        return Samples(values.copy(), stamps.copy(), arrived) if len(stamps) else None

    def _run(self) -> None:
        while not self.stop.wait(_WATCH_S):
            if self._puller is None:
                if self._end_when_lost or not self.reconnect(self.timeout_s):
                    self.events.put(Ended())
                    return
                self._validate(self.info)
                self.events.put(Reopened(self.info, self.offset))
                self._puller = Puller(self.inlet, PULL)
            elif self._pulling.acquire(blocking=False):
                try:
                    self._stand_in()
                finally:
                    self._pulling.release()

    def _stand_in(self) -> None:
        """Take what has come while the reader is elsewhere."""
        samples = self._pull(0.0)
        if samples is not None:
            self._put += len(samples.stamps)
            self.events.put(samples)
        if self._put - self._taken > _UNREAD_S * self.info.nominal_srate():
            raise SourceError(
                f"{self._put - self._taken} samples of the LSL stream with {self.query} lie unread; "
                "the process that reads them is too slow or has stopped"
            )


class MarkerLink(Link):
    """Pulls markers, and knows until when they are complete."""

    def __init__(self, query: MarkerQuery, events: "SimpleQueue[Event]", timeout_s: float) -> None:
        super().__init__(query, events, timeout_s)
        self.empty_at = -math.inf
        self.waiting: deque[Marker] = deque()

    def connect(self, query: StreamQuery, timeout: float, settle: float = SETTLE_S) -> None:
        """As for any stream; one with a regular rate carries samples and is refused."""
        super().connect(query, timeout, settle)
        if self.info.nominal_srate() > 0:
            raise SourceError(
                f"the LSL stream with {query} has a regular rate ({describe_stream(self.info)}); expected a marker "
                "stream (irregular rate, 0 Hz)"
            )

    def _run(self) -> None:
        module = pylsl()
        while not self.stop.is_set():
            try:
                self._pull()
            except module.util.LostError:
                # A dead sender has no more markers, and one that comes back stamps them later than now.
                self.empty_at = hostclock.now()
                self._reconnect_quietly()

    def _pull(self) -> None:
        """Wait for a marker, then take what else is there: until nothing is, nobody knows how far they are complete."""
        timeout = _MARKER_POLL_S
        while True:
            asked = hostclock.now()
            row, stamp = self.inlet.pull_sample(timeout)
            if row is None:
                self.empty_at = asked  # and not later: one may have come since, and wait for the next pull
                return
            timeout = 0.0
            if math.isfinite(stamp):
                host = float(self.offset.to_host(np.array([stamp], np.float64))[0])
                self.waiting.append(Marker(host, marker_value(row), self.info.name()))
                self.events.put(Awake())

    def _reconnect_quietly(self) -> None:
        try:
            self.reconnect(LOOK_S)
        except SourceError:
            self.stop.wait(0.5)  # something else has taken its name; keep looking for what was there
