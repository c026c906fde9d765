"""*decode*'s end of the bus: live samples as they come, and from the log what was missed."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

from rtdecode import hostclock
from rtdecode.daemon import bus
from rtdecode.daemon.inbox import SILENT_S, Inbox
from rtdecode.daemon.process import Stop
from rtdecode.daemon.rpc import Client
from rtdecode.errors import ProcessError
from rtdecode.signal import Batch, StreamInfo
from rtdecode.wire.framing import decode
from rtdecode.wire.messages import Event

#: Seconds that the log may take to answer. Live samples wait in their queue meanwhile.
ASK_TIMEOUT_S = 0.5

#: Seconds that it may take where nothing is missing as far as we know.
LOOK_TIMEOUT_S = 0.2

#: How often *acquire* is told that we are still there.
HERE_EVERY_S = 1.0

_EVENT_TOPIC = bus.EVENT_TOPIC.encode()


@dataclass(frozen=True, slots=True)
class Arrival:
    """One entry of the log, in order and without repetition. `received`: host time at which it was in our hands."""

    seq: int
    batch: Batch
    received: float
    end: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """Entries [first, stop) have left the log before they were fetched."""

    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class Restarted:
    """*acquire* is another process now; what follows is a new segment."""


@dataclass(frozen=True, slots=True)
class Heard:
    """Something that *acquire* announced."""

    event: Event


class Follower:
    """Follows one source of an *acquire*. Used by one thread.

    Parameters
    ----------
    inbox : Inbox
        Of that *acquire*; may serve other followers too.
    name : str
        The pipeline.
    source : str
        Empty where it is the only one.
    page : int
        Bytes of samples that are fetched from the log at once.
    """

    def __init__(self, inbox: Inbox, name: str, source: str = "", page: int = bus.PAGE_BYTES) -> None:
        self._name = name
        self._source = source
        self._page = page
        self._inbox = inbox
        self._client = inbox.client
        self.tap = inbox.tap(source)
        #: At which samples windows are due: every so many, from which on; (0, 0) where that cannot be said.
        self.grid = (0, 0)
        #: How long before those the samples before them are wanted, in seconds.
        self.lead = 1.0
        self.run = 0
        self.base = 0
        self.next = 0
        self.behind = True
        self._segment = 0
        self._joined = False
        self._gone: set[int] = set()  # runs that are over; messages of theirs may still wait here
        self._here_at = self._heard_at = 0.0

    def connect(self, stop: Stop, timeout: float) -> StreamInfo | None:
        """Ask *acquire* for its stream until it answers; None where we are asked to stop first.

        Raises
        ------
        ProcessError
            It does not within `timeout` seconds.
        """
        deadline = hostclock.now() + timeout
        while True:
            try:
                state = self._ask(bus.Info(source=self._source))
            except ProcessError:
                if stop.requested:
                    return None
                if hostclock.now() > deadline:
                    raise
                continue
            self.run = state.run
            assert state.info is not None
            self._inbox.open_lane()
            return state.info

    def read(self, limit: int) -> Iterator[Arrival | Lost | Restarted | Heard]:
        """What is here now, at most `limit` live messages or one page of the log; never waits for more to come."""
        if self.behind:
            yield from self._catch_up()
            return
        for _ in range(limit):
            taken = self._inbox.next(self.tap)
            if taken is None:
                self._look()
                return
            frames, received = taken
            self._heard_at = received
            if len(frames) == 2 and frames[0] == _EVENT_TOPIC:
                _, event, _ = decode(frames)
                if isinstance(event, Event):
                    yield Heard(event)
                continue
            message, batch = bus.read_samples(frames)
            if message.publisher in self._gone:
                continue
            if message.publisher != self.run:
                yield self._restart(message.publisher)
                return
            if message.seq > self.next:
                self.tap.waiting.appendleft(taken)  # it goes out before it stands in the log
                self.behind = True
                return
            if message.seq == self.next:
                yield self._arrival(message.seq, batch, received, message.end)

    def _look(self) -> None:
        """After a second of silence: what was published before our subscription arrived there is in the log alone."""
        if hostclock.now() < self._heard_at + HERE_EVERY_S:
            return
        self._heard_at = hostclock.now()
        with contextlib.suppress(ProcessError):  # one that does not answer is being started again
            state = self._ask(bus.Info(source=self._source), LOOK_TIMEOUT_S)
            self.behind = state.run == self.run and state.next > self.next

    def resume(self, base: int, segment: int) -> None:
        """Go on where another process left off: number segments as it did, whose newest was `segment`."""
        self.base = base
        self._segment = max(segment, base)

    def follow(self) -> None:
        """Tell *acquire* that we are ready."""
        self._client.ask(self._follows, 2.0)

    @property
    def _follows(self) -> bus.Follow:
        every, first = self.grid
        return bus.Follow(name=self._name, source=self._source, every=every, first=first, lead=self.lead)

    def here(self) -> None:
        """Tell *acquire* now and then that we are still at it: its log must not go while we have live samples to do."""
        if hostclock.now() >= self._here_at:
            self.tell()

    def tell(self) -> None:
        """Tell *acquire* what we want by now, and wait for no answer."""
        self._here_at = hostclock.now() + HERE_EVERY_S
        self._client.tell(self._follows)

    def leave(self) -> None:
        """Tell *acquire* that we need nothing more; one that is gone need not know."""
        try:
            self._client.ask(bus.Leave(name=self._name, source=self._source), ASK_TIMEOUT_S)
        except ProcessError:
            return

    def close(self) -> None:
        """Take no more messages."""
        self._inbox.leave(self.tap)

    @property
    def waiting(self) -> bool:
        """Whether there is something to read: a message that was sorted, or before those what the log has."""
        return hostclock.now() >= self._inbox.silent_until if self.behind else bool(self.tap.waiting)

    @property
    def look_at(self) -> float:
        """Host time from which a `read` is due although nothing waits."""
        return self._heard_at + HERE_EVERY_S

    def _catch_up(self) -> Iterator[Arrival | Lost | Restarted]:
        request = bus.Since(seq=self.next, source=self._source, max_bytes=self._page)
        try:
            result, frames = self._client.ask(request, ASK_TIMEOUT_S)
        except ProcessError:
            self._inbox.silent_until = hostclock.now() + SILENT_S
            return  # asked again at the next turn
        received = hostclock.now()
        state = bus.read_state(result)
        if state.run != self.run:
            yield self._restart(state.run)
            return
        # Not by `oldest` alone: an entry may have left between the reading of it and that of the entries.
        first = state.first if state.counts else state.oldest
        if first > self.next:
            missed = Lost(self.next, first)
            self.next = first
            if self._joined:
                yield missed
        self._joined = True
        for entry in bus.split(frames, state.counts):
            message, batch = bus.read_samples(entry)
            yield self._arrival(message.seq, batch, received, message.end)
        self.behind = self.next < state.next

    def _arrival(self, seq: int, batch: Batch, received: float, end: bool) -> Arrival:
        self.next = seq + 1
        if batch.chunk is not None:
            chunk = batch.chunk
            if self.base:
                chunk = dataclasses.replace(chunk, segment=chunk.segment + self.base)
                batch = Batch(chunk, batch.markers, batch.watermark)
            self._segment = max(self._segment, chunk.segment)  # what another process has had may be read again
        return Arrival(seq, batch, received, end)

    def _restart(self, run: int) -> Restarted:
        self._gone.add(self.run)
        self.run = run
        self.base = self._segment + 1
        self.next = 0
        self.behind = True
        self._inbox.open_lane()
        return Restarted()

    def info(self) -> StreamInfo:
        """The stream as *acquire* describes it now; raises `ProcessError` where it does not answer."""
        state = self._ask(bus.Info(source=self._source))
        assert state.info is not None
        return state.info

    def _ask(self, request: bus.LogRequest, timeout: float = ASK_TIMEOUT_S) -> bus.LogState:
        return bus.read_state(self._client.ask(request, timeout)[0])


def history(
    client: Client, stop: int, base: int, newest: float, seconds: float | None, source: str = ""
) -> Iterator[Batch]:
    """What the log holds before entry `stop`, oldest first.

    Parameters
    ----------
    client : Client
        Connected to the log, of the calling thread's own.
    stop : int
        One past the last entry.
    base : int
        Added to the segments' numbers, as the follower does.
    newest : float
        Stamp of the newest sample, in seconds.
    seconds : float, optional
        Leave out what is older than this.
    source : str
        Of which source, where *acquire* has several.
    """
    since = -math.inf if seconds is None else newest - seconds
    at = 0
    while at < stop:
        result, frames = client.ask(bus.Since(seq=at, source=source), 5.0)
        state = bus.read_state(result)
        for entry in bus.split(frames, state.counts):
            message, batch = bus.read_samples(entry)
            at = message.seq + 1
            if message.seq >= stop:
                return
            if _newest(batch) >= since:
                yield _rebased(batch, base)
        if not state.counts:
            return


def _newest(batch: Batch) -> float:
    return math.inf if batch.chunk is None or not len(batch.chunk) else float(batch.chunk.stamps[-1])


def _rebased(batch: Batch, base: int) -> Batch:
    if batch.chunk is None or not base:
        return batch
    return Batch(dataclasses.replace(batch.chunk, segment=batch.chunk.segment + base), batch.markers, batch.watermark)
