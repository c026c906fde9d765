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
from rtdecode.signal import Notice, Offset, SourceState
from rtdecode.sources.base import MUCH
from rtdecode.sources.change import ChangedError
from rtdecode.sources.lsl_directory import Directory
from rtdecode.sources.lsl_search import Search, same_identity
from rtdecode.sources.lsl_streams import (
    LOOK_S,
    SETTLE_S,
    Puller,
    StreamQuery,
    describe_stream,
    measure_offset,
    open_inlet,
    pylsl,
    reachable,
    resolve,
    same_host,
)

#: Samples taken by one pull at most.
PULL = 4096
#: A pull of samples returns after this, to look for markers; and without any, to look whether to end.
_POLL_S, _POLL_ALONE_S = 0.02, 0.1
#: How often is looked whether the stream is lost, or its reader is elsewhere.
_WATCH_S = 0.05
#: The same where a process reads many streams, each every tenth of a second at least: for the thread that stands in.
_WATCH_MANY_S = 1.0
_OFFSET_EVERY_S = 5.0
#: How often is looked whether a clock is to be measured: every so often, and at once after a reconnect.
_MEASURE_S, _MEASURE_MANY_S = 0.25, 1.0
#: ... and for so long after a step of the stamps: liblsl asks the sender anew every two seconds.
_HURRY_S = 5.0
#: How often is looked for a second sender that answers to the same description.
_LOOK_AROUND_S = 5.0
#: A stream that is silent for so long is looked for, in case its sender went without a word (a cable, a power cut).
_SILENT_S = 2.0
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


Event = Samples | Awake | Reopened | Ended | Notice


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
    number : int
        Which of the source's `origins` it is.
    directory : Directory, optional
        Finds the streams of all sources of the process, where it has many.
    """

    def __init__(
        self,
        query: StreamQuery,
        events: "SimpleQueue[Event]",
        timeout_s: float,
        number: int = 0,
        directory: Directory | None = None,
    ) -> None:
        self.number = number
        self.directory = directory
        self.measured: deque[Offset] = deque(maxlen=1000)
        self.query = query
        self.events = events
        self.timeout_s = timeout_s
        self.stop = threading.Event()
        self.reconnects = 0
        self.inlet: Any = None
        self.info: Any = None
        self.offset = ClockOffset()
        self._hurry_until = -math.inf
        self._threads: list[threading.Thread] = []

    def connect(self, query: StreamQuery, timeout: float, settle: float = SETTLE_S) -> None:
        """Find the stream, read its description, and measure its clock; raises `SourceError` where that fails."""
        deadline = hostclock.now() + timeout
        found = resolve(query, timeout, settle) if self.directory is None else self.directory.resolve(query, timeout)
        with reachable(found):
            inlet, info = open_inlet(found, max(0.5, deadline - hostclock.now()))
            offset = self._first_offset(inlet, info, max(0.5, deadline - hostclock.now()))
        self.inlet, self.info, self.offset = inlet, info, offset

    def subscribe(self, timeout: float) -> None:
        """Have the sender send. Last of all, since a sender may begin as soon as somebody listens."""
        with reachable(self.info):
            self.inlet.open_stream(timeout)

    def attach(self, found: Any, validate: Callable[[Any], None], timeout: float) -> None:
        """Go on with a stream that was found again. Subscribed at once: its clock is measured while samples come.

        That takes liblsl two thirds of a second. Where the clock was this host's own before, nobody waits for it.

        Raises
        ------
        SourceError
            What `validate` says of its description, or it cannot be reached.
        """
        with reachable(found):
            inlet, info = open_inlet(found, timeout)
            validate(info)
            inlet.open_stream(timeout)
            ours = same_host(info) and same_host(self.info) and self.offset.known and self.offset.offset == 0.0
            offset = ClockOffset(same_host=True) if ours else self._first_offset(inlet, info, timeout)
        self.inlet, self.info, self.offset = inlet, info, offset
        self.reconnects += 1

    def _first_offset(self, inlet: Any, info: Any, timeout: float) -> ClockOffset:
        offset = ClockOffset(same_host(info))
        measured = measure_offset(inlet, timeout)
        if measured is not None:
            self._measured(offset, measured)
        elif not offset.known:
            raise StreamNotFoundError(
                f"the clock of the LSL stream with {self.query} on {info.hostname()} cannot be measured; check that "
                "the firewall lets its UDP port through"
            )
        return offset

    def _measured(self, offset: ClockOffset, measured: tuple[float, float]) -> None:
        now = hostclock.now()
        offset.measured(now, *measured)
        self.measured.append(Offset(self.number, now, *measured))

    def start(self) -> None:
        """Begin to watch the stream, in a thread of its own, and to measure the clock, in another."""
        for target in self._targets():
            thread = threading.Thread(target=self._or_end, args=(target,), name=f"lsl-{self.query}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _targets(self) -> list[Callable[[], None]]:
        return [self._run, self._measure]

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

    def _measure(self) -> None:
        last, due, newest = self.inlet, hostclock.now() + _OFFSET_EVERY_S, (math.nan, math.nan)
        while not self.stop.wait(_MEASURE_S if self.directory is None else _MEASURE_MANY_S):
            inlet, offset = self.inlet, self.offset
            if inlet is None:
                return
            if inlet is last and self._hurry_until < hostclock.now() < due:
                continue
            last, due = inlet, hostclock.now() + _OFFSET_EVERY_S
            try:
                measured = measure_offset(inlet, 1.0)
            except RuntimeError:
                continue  # who pulls sees the loss too, and acts on it
            if measured is not None and measured != newest and inlet is self.inlet:
                newest = measured
                self._measured(offset, measured)

    def suspect(self, step: float) -> None:
        """The stamps went on by `step` seconds at once: measure soon whether the sender's clock was set."""
        self.offset.suspect(step)
        self._hurry_until = hostclock.now() + _HURRY_S

    @abstractmethod
    def _run(self) -> None:
        """What the watching thread does until `stop` is set."""


class DataLink(Link):
    """Pulls samples: in the reader's own thread while it reads, since every hand-over between threads costs time.

    liblsl forgets what it holds once it notices that the sender is gone. So while the reader is elsewhere, this link's
    thread takes what comes; and it finds the stream again when it is lost.

    Parameters
    ----------
    validate : callable
        Called with a reopened stream's description; raises `ChangedError` where it is not what it was.
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
        directory: Directory | None = None,
    ) -> None:
        super().__init__(query, events, timeout_s, directory=directory)
        self._validate = validate
        self._end_when_lost = end_when_lost
        self._pulling = threading.Lock()
        self._puller: Puller | None = None
        self._put = self._taken = 0  # samples; one is written under the lock alone, the other by the reader alone
        self._arrived = math.inf
        #: Whether markers come beside the samples, for which the reader looks now and then.
        self.with_markers = False
        self._known: set[str] = set()
        #: Lost, or to be stopped.
        self._wanted = threading.Event()

    def start(self) -> None:
        """Begin to watch the stream."""
        self._begin()
        super().start()
        if self.directory is not None:
            self.directory.watch(self)

    def close(self) -> None:
        """Stop the threads and let go of the inlet. Safe to call twice."""
        if self.directory is not None:
            self.directory.leave(self)
        self.stop.set()
        self._wanted.set()
        super().close()

    @property
    def waiting(self) -> int:
        """Samples that are here; `MUCH` where something else is. That a stream is lost shows at a pull alone."""
        if not self.events.empty():
            return MUCH
        inlet = self.inlet
        return 0 if self._puller is None or inlet is None else int(inlet.samples_available())

    def _targets(self) -> list[Callable[[], None]]:
        return [*super()._targets(), *([self._look_around] if self.directory is None else [])]

    def _begin(self) -> None:
        self._arrived = hostclock.now()
        self._puller = Puller(self.inlet, PULL)

    def next(self, timeout: float) -> Event | None:
        """The next event, in the order in which things came; None where there is none within `timeout` seconds."""
        deadline, left = hostclock.now() + timeout, timeout
        poll = _POLL_S if self.with_markers else _POLL_ALONE_S
        while True:
            if self._puller is None:  # lost: the thread looks for it
                return self._queued(max(0.0, left))
            with self._pulling:
                # What the thread took came before what is pulled now.
                event = self._queued() or self._pull(min(poll, max(0.0, left)))
            if event is not None or left <= 0:
                return event
            left = deadline - hostclock.now()

    def _queued(self, timeout: float | None = None) -> Event | None:
        if timeout is None and self.events.empty():  # far cheaper than to be told so by an exception
            return None
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
            self._wanted.set()
        if not len(stamps):
            return None
        self._arrived = arrived
        return Samples(values, stamps, arrived)

    def _run(self) -> None:
        while not self._idle():
            if self._puller is None:
                if self._end_when_lost:
                    self.events.put(Ended())
                    return
                if not self._recover():
                    return
            elif self._pulling.acquire(blocking=False):
                try:
                    self._stand_in()
                finally:
                    self._pulling.release()

    def _idle(self) -> bool:
        """Wait until there may be something to do; whether the end has come."""
        if self.directory is None:
            return self.stop.wait(_WATCH_S)
        self._wanted.wait(_WATCH_MANY_S)
        self._wanted.clear()
        return self.stop.is_set()

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

    def _recover(self) -> bool:
        """Look for the stream until it is back as it was; False where it is not, in time."""
        self._say(SourceState.RECOVERING, f"the LSL stream {self.info.name()!r} is lost; looking for it")
        began = hostclock.now()
        deadline = began + self.timeout_s
        search = Search(self.query, self.info, self.directory)
        refused: SourceError | None = None
        while not self.stop.is_set() and hostclock.now() < deadline:
            found = search.look()
            if found is None or self.stop.is_set():
                continue
            try:
                self.attach(found, self._validate, 2.0)
            except StreamNotFoundError:
                continue
            except SourceError as error:
                search.refuse(found)
                if str(error) != str(refused):  # somebody works on it: the time runs from here
                    deadline = hostclock.now() + self.timeout_s
                    self._say(
                        SourceState.CHANGED, str(error), **(error.details if isinstance(error, ChangedError) else {})
                    )
                refused = error
            else:
                took = hostclock.now() - began
                text = f"the LSL stream {self.info.name()!r} is found again after {took:.3g} s"
                self.events.put(Reopened(self.info, self.offset))
                self._say(SourceState.STREAMING, text, found_s=took)
                self._begin()
                return True
        self.events.put(Ended(refused))
        return False

    def _look_around(self) -> None:
        """See now and then whether there is a second sender, and whether ours has gone without a word."""
        looked = hostclock.now()
        while not self.stop.wait(0.5):
            if self._puller is not None and (self.silent or hostclock.now() - looked > _LOOK_AROUND_S):
                self.seen(pylsl().resolve_bypred(self.query.predicate, 2, LOOK_S))
                looked = hostclock.now()

    @property
    def silent(self) -> bool:
        """Whether nothing has come for so long that its sender may have gone without a word."""
        return self._puller is not None and hostclock.now() - self._arrived > _SILENT_S

    def seen(self, streams: list[Any]) -> None:
        """These answer to the description now: ours, and others."""
        if self._puller is None:
            return
        ours, silent = self.info, self.silent
        found = {one.uid(): one for one in streams}
        others = [one for uid, one in found.items() if uid != ours.uid()]
        for one in others:
            if one.uid() not in self._known:
                self._twin(one)
        self._known &= found.keys()
        self._known |= {one.uid() for one in others}
        gone = silent and ours.uid() not in found and any(same_identity(one, ours) for one in others)
        with self._pulling:
            if gone and ours is self.info:
                self._puller = None
                self._wanted.set()

    def _twin(self, info: Any) -> None:
        text = (
            f"a second LSL stream has {self.query}: {describe_stream(info)}; the first stays in use. Set `source_id`, "
            "so that the session cannot go on with the wrong one"
        )
        self.events.put(Notice("second sender", text, details={"source_id": info.source_id(), "host": info.hostname()}))

    def _say(self, state: SourceState, text: str, **details: str | int | float | bool | None) -> None:
        self.events.put(Notice("state", text, state, details))
