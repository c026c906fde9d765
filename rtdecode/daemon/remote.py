"""Another machine's *acquire* as a source: its samples as they are published, and from its log what was missed.

It lives here, and not among the other sources, because it speaks what the processes of a session speak (`daemon.bus`).
"""

import contextlib
import math
import os
import platform
import threading
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
import zmq

from rtdecode import hostclock
from rtdecode.daemon import bus
from rtdecode.daemon.endpoints import log_of
from rtdecode.daemon.remote_clock import RemoteClock
from rtdecode.daemon.rpc import Client
from rtdecode.errors import ProcessError, RtdecodeError, SourceError, StampError, StreamNotFoundError, WireError
from rtdecode.signal import (
    Batch,
    Chunk,
    Marker,
    Notice,
    Offset,
    Origin,
    Raw,
    SourceState,
    StreamInfo,
    check_stamps,
    even_stamps,
)
from rtdecode.sources.change import ChangedError, Declared, changes
from rtdecode.sources.refused import Refusals
from rtdecode.sources.trigger import TriggerRule, Triggers
from rtdecode.sources.zmq_link import Back, Broken, Frames, Link, Lost
from rtdecode.wire.clock import clock_id

#: Largest frame that is taken: a page of the log is `bus.PAGE_BYTES` and one entry more.
MAX_BYTES = 64 << 20
#: Seconds that the log may take to answer; live samples wait in their queue meanwhile.
_ASK_S = 0.5
#: So many questions without an answer, and what was missed is given up.
_TRIES = 6
#: While nothing comes the other log is asked so often whether it has more, and may take so long to say it.
_LOOK_S, _LOOK_WAIT_S = 1.0, 0.2
_SAMPLES, _MARKERS = 0, 1


class RemoteSource:
    """The stream of another machine's *acquire*, with its own indices and segments.

    A window thus has the same name, and the same payload, on both machines. What was missed is fetched from the other
    log; what is no longer there is a hole. When the other *acquire* is started again, another segment begins.

    Parameters
    ----------
    endpoint : str
        The other's `bus.share`; checked (`rtdecode.wire.endpoint`).
    triggers : sequence of TriggerRule
        How trigger channels become markers, beside those that come.
    timeout_s : float
        Seconds to wait for it, at the start and after a loss.
    end_when_lost : bool
        End at the first loss.
    clock : str
        Name of this host's clock. Where the other's has the same name, its stamps are taken as they are; elsewhere its
        clock is asked, now and every few seconds, in a thread beside.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        triggers: Sequence[TriggerRule] = (),
        timeout_s: float = 10.0,
        end_when_lost: bool = False,
        clock: str | None = None,
    ) -> None:
        self._address = endpoint
        self._log = log_of(endpoint)
        self._rules = tuple(triggers)
        self._timeout_s, self._end_when_lost = timeout_s, end_when_lost
        self._name = f"{platform.node()}:{os.getpid()}:{id(self):x}"
        self._refused = Refusals()
        self._link: Link | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._info: StreamInfo | None = None
        self._clock = RemoteClock(clock_id() if clock is None else clock, _ASK_S)
        self._run = self._next = self._base = 0
        self._place = (-1, 0)  # segment and next index
        self._newest = -math.inf
        self._behind = True
        self._look_at = 0.0
        self._unanswered = 0
        self._ready: deque[Batch] = deque()
        self._notices: list[Notice] = []
        self._watermark = -math.inf
        self._lost_at: float | None = None
        self._changed: tuple[float, ChangedError] | None = None
        self._over = False  # nothing more will come
        self._stop = threading.Event()
        self._reading = threading.Lock()

    # --- open ---------------------------------------------------------------------------------------------------------

    def open(self) -> StreamInfo:
        """Find the other *acquire*, and say what it reads."""
        self._context = zmq.Context()
        self._client = self._ask_there(self._context)
        self._link = Link(
            self._address, bind=False, pattern="sub", topics=(bus.SAMPLES_TOPIC,), max_bytes=MAX_BYTES, max_frames=4
        )
        try:
            state, info = self._find()
            self._run, self._info = state.run, info
            self._triggers = Triggers(self._rules, info)
            self._client.ask(bus.Follow(name=self._name, remote=True), self._timeout_s)
        except SourceError:
            self.close()
            raise
        except RtdecodeError as error:
            self.close()
            raise SourceError(f"{self._log}: {error}") from None
        self._clock.listen(self._ask_there(self._context))
        return info

    def _ask_there(self, context: "zmq.Context[zmq.Socket[bytes]]") -> Client:
        return Client(context, self._log, "the other acquire", max_bytes=MAX_BYTES)

    def _find(self) -> tuple[bus.LogState, StreamInfo]:
        deadline = hostclock.now() + self._timeout_s
        why = "no answer"
        while not self._stop.is_set() and hostclock.now() < deadline:
            try:
                found = self._ask_info()
                if found is not None:
                    self._clock.begin(self._client)
                    return found
                why = "it has no stream yet"
            except (ProcessError, WireError) as error:
                why = str(error)
            self._stop.wait(0.05)
        raise StreamNotFoundError(
            f"no acquire shares its samples at {self._address} (and answers at {self._log}) within "
            f"{self._timeout_s:g} s: {why}; start it there, with `share` in [bus] set to this address"
        )

    def _ask_info(self) -> tuple[bus.LogState, StreamInfo] | None:
        state = bus.read_state(self._client.ask(bus.Info(), _ASK_S)[0])
        info = state.info
        if info is None:
            return None
        if not (0 < info.sfreq < math.inf and info.channels and len(set(info.names)) == len(info.channels)):
            raise WireError("acquire describes no stream that can be: rate or channels are missing, or names repeat")
        return state, StreamInfo(info.channels, info.sfreq, f"zmq:{info.source}", info.source_id, info.declared_by_user)

    @property
    def refused(self) -> int:
        """Messages that were not taken."""
        return self._refused.total

    @property
    def info(self) -> StreamInfo:
        """What `open` gave."""
        if self._info is None:
            raise SourceError("the ZMQ source is not open; call open() first, or use `with`")
        return self._info

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Samples (in SI already) and markers, with the other host's stamps."""
        info = self.info
        kind = "MEG" if any(one.type in ("mag", "grad") for one in info.channels) else "EEG"
        n = len(info.channels)
        samples = Origin(
            info.source, kind, info.source_id, "", info.sfreq, "float32", n, scales=tuple(1.0 for _ in range(n))
        )
        return samples, Origin(f"{info.source}-markers", "Markers")

    # --- read ---------------------------------------------------------------------------------------------------------

    def read(self, timeout: float) -> Batch | None:
        """The next samples and markers, as soon as one is there."""
        assert self.info is not None  # raises where it is not open
        with self._reading:
            deadline = hostclock.now() + timeout
            while not self._stop.is_set():
                if self._ready:
                    return self._with_news(self._ready.popleft())
                if self._over:
                    return None
                self._turn(max(0.0, deadline - hostclock.now()))
                self._give_up()
                if not self._ready and (self._notices or hostclock.now() >= deadline):
                    return self._with_news(Batch(None, (), self._watermark))
        return None

    def _with_news(self, batch: Batch) -> Batch:
        notices, self._notices = self._notices, []
        offsets: list[Offset] = []
        for one in self._clock.take():
            offsets += [one, Offset(_MARKERS, one.time, one.value, one.uncertainty)]
        return Batch(batch.chunk, batch.markers, batch.watermark, batch.raw, offsets, notices)

    def _turn(self, timeout: float) -> None:
        assert self._link is not None
        if self._behind and self._lost_at is None:
            self._catch_up()
            return
        match self._link.next(timeout):
            case Frames() as item:
                self._live(item)
            case Lost():
                self._lose()
            case Back():
                self._return()
            case Broken():
                self._refuse("a connection that did not speak ZeroMQ's protocol")
            case None:
                self._look()

    def _look(self) -> None:
        """After a second of silence: what was published before our subscription arrived there is in the log alone."""
        if self._next < 0 or self._lost_at is not None or hostclock.now() < self._look_at:
            return
        self._look_at = hostclock.now() + _LOOK_S
        with contextlib.suppress(RtdecodeError):  # one that does not answer is noticed by its silence
            state = bus.read_state(self._client.ask(bus.Info(), _LOOK_WAIT_S)[0])
            self._behind = state.run == self._run and state.next > self._next

    def _live(self, item: Frames) -> None:
        try:
            if item.excess:
                raise WireError("a message of more frames than samples have")
            message, batch = bus.read_samples(item.frames)
            if message.publisher != self._run:
                self._restarted(message.publisher)
            elif message.seq > self._next >= 0:
                self._behind = True  # this one is in the log as well
            elif message.seq >= self._next:
                self._entry(message.seq, batch, item.arrived, message.end)
        except (WireError, StampError) as error:
            self._refuse(str(error))

    def _catch_up(self) -> None:
        """A page of the log."""
        try:
            result, frames = self._client.ask(bus.Since(seq=self._next), _ASK_S)
            state = bus.read_state(result)
        except RtdecodeError as error:
            self._unanswered += 1
            if self._unanswered >= _TRIES:
                self._unanswered, self._behind = 0, False
                self._notices.append(Notice("lost", f"what was missed cannot be fetched: {error}"))
                self._next = -1  # whatever comes next
            return
        arrived = hostclock.now()
        self._unanswered = 0
        if state.run != self._run:
            self._restarted(state.run)
            return
        first = state.first if state.counts else state.oldest
        if first > self._next:
            if self._place[0] >= 0:
                n = first - self._next
                self._notices.append(Notice("lost", f"{n} entries have left the other log unread", details={"n": n}))
            self._next = first
        for entry in bus.split(frames, state.counts):
            try:
                message, batch = bus.read_samples(entry)
                self._entry(message.seq, batch, arrived, message.end)
            except (WireError, StampError) as error:
                self._refuse(str(error))
                self._next += 1
        self._behind = self._next < state.next

    def _entry(self, seq: int, batch: Batch, arrived: float, end: bool) -> None:
        """One entry of the other log, on this host's clock."""
        if self._changed is not None:
            self._next = seq + 1
            self._refuse(f"samples of what is something else: {self._changed[1].changes[0]}")
            return
        chunk, raw = batch.chunk, []
        if chunk is not None and len(chunk):
            self._check(chunk)
            raw.append(Raw(_SAMPLES, chunk.samples, chunk.stamps))
            chunk = self._placed(chunk, arrived)
        else:
            chunk = None
        self._next = seq + 1
        for mark in batch.markers:
            if not math.isfinite(mark.stamp):
                raise WireError(f"the marker {mark.value!r} has the stamp {mark.stamp}")
            raw.append(Raw(_MARKERS, (mark.value,), np.array([mark.stamp])))
        markers = [Marker(self._clock.to_host(one.stamp), one.value, one.stream) for one in batch.markers]
        if chunk is not None:
            markers += self._triggers.feed(chunk)
        if math.isfinite(batch.watermark):
            complete = self._clock.to_host(batch.watermark)
        else:
            complete = math.inf if batch.watermark > 0 else -math.inf
        self._watermark = max(self._watermark, min(complete, self._triggers.watermark))
        if end:
            self._over, self._watermark = True, math.inf
        self._ready.append(Batch(chunk, markers, self._watermark, raw))

    def _check(self, chunk: Chunk) -> None:
        """Refuse what would break whoever decodes it."""
        chunk.check(len(self.info.channels))
        check_stamps(chunk.stamps, chunk.first_index)
        if (chunk.segment + self._base, chunk.first_index) < self._place or chunk.segment < 0 or chunk.first_index < 0:
            raise StampError(f"samples from index {chunk.first_index} of segment {chunk.segment} on came again")
        if not 0.0 <= chunk.uncertainty < math.inf:
            raise StampError(f"the stamps' uncertainty is {chunk.uncertainty}")

    def _placed(self, chunk: Chunk, arrived: float) -> Chunk:
        segment = chunk.segment + self._base
        first, last = self._clock.to_host(float(chunk.stamps[0])), self._clock.to_host(float(chunk.stamps[-1]))
        if segment == self._place[0] and first <= self._newest:
            # The offset was corrected by more than the time that passed; stamps still increase.
            first = self._newest + 0.1 / self.info.sfreq
            last = max(last, first + 0.1 * (len(chunk) - 1) / self.info.sfreq)
        self._newest = last
        self._place = (segment, chunk.stop_index)
        stamps = even_stamps(first, last, len(chunk))
        uncertainty = chunk.uncertainty + self._clock.uncertainty
        return Chunk(chunk.samples, stamps, chunk.first_index, segment, arrived, uncertainty, chunk.invalidates)

    # --- trouble ------------------------------------------------------------------------------------------------------

    def _restarted(self, run: int) -> None:
        """Another process is there now; where it reads what the one before it did, another segment begins."""
        try:
            found = self._ask_info()
            if found is None or found[0].run != run:
                return  # asked again when the next entry comes
            self._clock.begin(self._client)
        except RtdecodeError:
            return
        self._run = run
        self._next, self._behind, self._base = 0, True, self._place[0] + 1
        self._place = (self._place[0], 0)
        before, now = self.info, found[1]
        different = changes(Declared(before.sfreq, before.channels), Declared(now.sfreq, now.channels))
        if different:
            changed = ChangedError(f"the stream at {self._address}", different)
            self._changed = (self._changed[0] if self._changed else hostclock.now()), changed
            self._notices.append(Notice("state", str(changed), SourceState.CHANGED, changed.details))
            return
        self._changed = None
        self._notices.append(Notice("state", "the other acquire was started again", SourceState.STREAMING))
        try:
            self._client.ask(bus.Follow(name=self._name, remote=True), _ASK_S)
        except RtdecodeError as error:
            self._refuse(str(error))

    def _lose(self) -> None:
        self._lost_at = hostclock.now()
        self._notices.append(Notice("state", f"nobody is at {self._address} any more", SourceState.RECOVERING))

    def _return(self) -> None:
        if self._lost_at is not None:
            self._lost_at = None
            self._behind = True
            if self._changed is None:
                self._notices.append(Notice("state", "the connection is there again", SourceState.STREAMING))

    def _give_up(self) -> None:
        now = hostclock.now()
        if self._lost_at is not None and (self._end_when_lost or now - self._lost_at > self._timeout_s):
            self._end()
        elif self._changed is not None and now - self._changed[0] > self._timeout_s:
            self._over = True
            raise self._changed[1]

    def _end(self) -> None:
        if not self._over:
            self._over, self._watermark = True, math.inf
            self._ready.append(Batch(None, (), math.inf))

    def _refuse(self, why: str) -> None:
        self._notices += self._refused.add(why)

    # --- close --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take leave, and let go of everything. Safe to call twice, and from another thread than `read`."""
        self._stop.set()
        if self._link is not None:
            self._link.close()
        with self._reading:
            context, self._context = self._context, None
            if context is None:
                return
            if self._clock.close():
                with contextlib.suppress(RtdecodeError):  # who is gone need not know
                    self._client.ask(bus.Leave(name=self._name), 0.2)
            self._client.close()
            context.term()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
