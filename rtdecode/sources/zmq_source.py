"""Live samples and markers over ZeroMQ in the minimal format (docs/zmq-source.md)."""

import builtins
import math
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from rtdecode import hostclock
from rtdecode.errors import SourceError, StreamNotFoundError
from rtdecode.signal import Batch, Chunk, Notice, Offset, Origin, Raw, SourceState, StreamInfo
from rtdecode.sources import zmq_format as format_
from rtdecode.sources.change import Change, ChangedError, changes
from rtdecode.sources.declare import Declare
from rtdecode.sources.refused import Refusals
from rtdecode.sources.trigger import TriggerRule, Triggers
from rtdecode.sources.units import to_si
from rtdecode.sources.zmq_clock import SenderClock
from rtdecode.sources.zmq_described import declared, described, origins, stream_info
from rtdecode.sources.zmq_format import MalformedError, Mark, Message, Samples
from rtdecode.sources.zmq_link import Back, Broken, Frames, Link, Lost
from rtdecode.sources.zmq_markers import Marks

__all__ = ["ZmqSource"]

#: Senders and runs that are remembered.
_REMEMBERED = 64
#: Which of the `origins` samples and markers are.
_SAMPLES, _MARKERS = 0, 1


class ZmqSource:
    """One stream of the minimal format.

    Holes are what the sender's own count says, to the sample. A sender that was started again begins another segment.
    What is malformed, of a sender that was replaced, or of another shape than the stream had, is refused and counted.

    Parameters
    ----------
    endpoint : str
        Checked (`rtdecode.wire.endpoint`).
    bind : bool
        Listen there, instead of connecting to it.
    pattern : {"sub", "pull"}
        ``sub`` for senders with a PUB socket, ``pull`` for PUSH.
    topic : str
        Prefix of the topics that are taken; of ``sub`` alone.
    stream : str, optional
        Name of the stream; the first one that comes where absent.
    declare : Declare
        What the stream leaves undeclared.
    triggers : sequence of TriggerRule
        How trigger channels become markers.
    timeout_s : float
        Seconds to wait for the first samples, and for the sender after a loss.
    lateness_s : float
        How late a marker may come after the samples of its time. The watermark stays that far behind.
    end_when_lost : bool
        End at the first loss.
    clock : str
        Name of this host's clock: stamps of a sender that names the same are taken as they are.

    Attributes
    ----------
    ignored : int
        Messages of other streams.

    Raises
    ------
    StreamNotFoundError
        At `open`: no samples within `timeout_s`.
    SourceError
        At `open`: the endpoint cannot be used, or the stream cannot be decoded.
    ChangedError
        At `read`: the stream was something else for `timeout_s`.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        bind: bool = False,
        pattern: Literal["sub", "pull"] = "sub",
        topic: str = "",
        stream: str | None = None,
        declare: Declare | None = None,
        triggers: Sequence[TriggerRule] = (),
        timeout_s: float = 10.0,
        lateness_s: float = 0.5,
        end_when_lost: bool = False,
        clock: str = "",
    ) -> None:
        self._address = endpoint
        self._bind = bind
        self._pattern = pattern
        self._topic = topic
        self._stream = stream
        self._declare = declare or Declare()
        self._rules = tuple(triggers)
        self._timeout_s = timeout_s
        self._lateness_s = lateness_s
        self._end_when_lost = end_when_lost
        self._clock_name = clock
        self.ignored = 0
        self._refused = Refusals()
        self._link: Link | None = None
        self._info: StreamInfo | None = None
        self._run: str | int | None = None
        self._past: deque[str | int] = deque(maxlen=_REMEMBERED)
        self._unlike: deque[tuple[Any, ...]] = deque(maxlen=_REMEMBERED)  # that were refused: told once
        self._others: set[str] = set()
        self._next = 0
        self._chunks: deque[Chunk] = deque()
        self._raw: list[Raw] = []
        self._notices: list[Notice] = []
        self._offsets: list[Offset] = []
        self._lost_at: float | None = None
        self._changed: tuple[float, ChangedError] | None = None
        self._watermark = self._newest = -math.inf
        self._first: deque[Frames] = deque(maxlen=_REMEMBERED)  # that came at `open`
        self._ended = self._closed = False

    # --- open ---------------------------------------------------------------------------------------------------------

    def open(self) -> StreamInfo:
        """Wait for the first samples, and say what the stream is."""
        self._link = Link(
            self._address,
            bind=self._bind,
            pattern=self._pattern,
            topics=(self._topic,),
            max_bytes=format_.MAX_FRAME_BYTES,
            max_frames=format_.MAX_FRAMES,
        )
        try:
            header = self._first_samples(self._link)
            self._stream = header.stream
            self._described = described(header, self._declare)
            self._info = stream_info(header, self._described)
            self._triggers = Triggers(self._rules, self._info)
        except SourceError:
            self.close()
            raise
        self._declared, self._header = declared(header, self._described), header
        self._clock = SenderClock(header.sfreq)
        self._marks = Marks(self._clock, self._refuse, _MARKERS)
        return self._info

    def _first_samples(self, link: Link) -> Samples:
        """Wait for the first message that holds samples of the stream; it is read again, with markers before it."""
        deadline = hostclock.now() + self._timeout_s
        while (left := deadline - hostclock.now()) > 0 and not self._closed:
            item = link.next(left)
            if isinstance(item, Broken):
                self._refuse("a connection that did not speak ZeroMQ's protocol")
            message = self._read(item) if isinstance(item, Frames) else None
            if isinstance(item, Frames) and message is not None:
                self._first.append(item)
                if isinstance(message.header, Samples):
                    return message.header
        where = f"{'to' if self._bind else 'at'} {link.endpoint}"
        named = f" of the stream {self._stream!r}" if self._stream else ""
        seen = f"; messages of {', '.join(map(repr, sorted(self._others)))} came" if self._others else ""
        refused = f"; {self.refused} messages were refused, the last: {self._refused.why}" if self.refused else ""
        raise StreamNotFoundError(
            f"no samples{named} came {where} within {self._timeout_s:g} s{seen}{refused}; start the sender, and check "
            "endpoint, bind, pattern and stream of [source]"
        )

    @property
    def refused(self) -> int:
        """Messages, and connections, that were not taken."""
        return self._refused.total

    @property
    def endpoint(self) -> str:
        """Where it listens, or whom it is connected to, once open."""
        assert self._link is not None
        return self._link.endpoint

    @property
    def info(self) -> StreamInfo:
        """What `open` gave."""
        self._check_open()
        assert self._info is not None
        return self._info

    @property
    def origins(self) -> tuple[Origin, ...]:
        """The samples, and the markers."""
        self._check_open()
        return origins(self._header, self._described)

    # --- read ---------------------------------------------------------------------------------------------------------

    def read(self, timeout: float) -> Batch | None:
        """The next samples and markers, as soon as one is there."""
        if self._closed or (self._ended and not self._chunks):
            return None
        self._check_open()
        assert self._link is not None
        if self._chunks:
            return self._batch()
        deadline = hostclock.now() + timeout
        while True:
            item = self._first.popleft() if self._first else self._link.next(max(0.0, deadline - hostclock.now()))
            if self._is_closed():
                return None
            match item:
                case Frames():
                    self._take(item)
                case Lost():
                    self._lose()
                case Back():
                    self._return("the connection is there again")
                case Broken():
                    self._refuse("a connection that did not speak ZeroMQ's protocol")
            self._give_up()
            if self._is_over():
                return self._batch()
            if self._chunks or self._marks or self._notices or item is None or hostclock.now() >= deadline:
                return self._batch()

    def _batch(self) -> Batch:
        assert self._link is not None
        chunk = self._chunks.popleft() if self._chunks else None
        markers, raw_markers = self._marks.take()
        raw, self._raw = [*self._raw, *raw_markers], []
        notices, self._notices = self._notices, []
        offsets, self._offsets = self._offsets, []
        if chunk is not None:
            markers += self._triggers.feed(chunk)
            self._newest = float(chunk.stamps[-1])
        if self._ended and not self._chunks:
            complete = math.inf
        else:  # markers that wait for their samples fall behind the newest one
            complete = min(min(self._link.empty_at, self._newest) - self._lateness_s, self._triggers.watermark)
        self._watermark = max(self._watermark, complete)
        return Batch(chunk, markers, self._watermark, raw, offsets, notices)

    def _take(self, item: Frames) -> None:
        """One message: what it gives is put where the next batches take it."""
        message = self._read(item)
        if message is None:
            return
        header = message.header
        if header.run in self._past:
            self._refuse(f"run {header.run!r} of {header.stream!r}, which another sender has replaced")
            return
        if isinstance(header, Samples):
            assert message.values is not None
            self._samples(header, message.values, item.arrived)
        elif isinstance(header, Mark):
            (self._marks.add if header.run == self._run else self._marks.add_early)(header)
        elif header.run != self._run:
            self._refuse(f"an end of run {header.run!r}, of which no samples came")
        else:
            self._ended = True

    def _read(self, item: Frames) -> Message | None:
        try:
            if item.excess:
                raise MalformedError(f"a message has more than {format_.MAX_FRAMES} frames")
            message = format_.read_message(item.frames)
        except MalformedError as error:
            self._refuse(str(error))
            return None
        if self._stream is not None and message.header.stream != self._stream:
            self._ignore(message.header.stream)
            return None
        return message

    def _samples(self, header: Samples, values: NDArray[np.generic], arrived: float) -> None:
        again = header.run != self._run or (header.index == 0 and self._next > 0)
        if not again and header.index < self._next:
            self._refuse(f"samples from {header.index} on came again, or too late; expected {self._next}")
            return
        if header.declared != self._header.declared and not self._same(header):
            return
        if again:
            self._restart(header)
        if self._changed is not None:
            self._changed = None
            self._notices.append(Notice("state", "the sender is what it was again", SourceState.STREAMING))
        n = len(values)
        own = np.arange(n) / header.sfreq + (header.index / header.sfreq if header.stamp is None else header.stamp)
        pieces = self._clock.place(header.index, None if header.stamp is None else own, n, arrived)
        self._next = header.index + n
        self._raw.append(Raw(_SAMPLES, values, own))
        if (note := self._clock.note(arrived)) is not None:
            self._offsets += [note, Offset(_MARKERS, note.time, note.value, note.uncertainty)]
        self._marks.place(header.run)
        samples = to_si(values, self._described.scales)
        self._chunks += [
            Chunk(
                samples[piece.begin : piece.stop],
                piece.stamps,
                piece.first_index,
                piece.segment,
                arrived,
                piece.uncertainty,
                piece.invalidates,
            )
            for piece in pieces
        ]

    def _restart(self, header: Samples) -> None:
        if self._run is not None:
            if header.run != self._run:
                self._past.append(self._run)
            self._marks.forsake()
        self._clock.restart(shared=self._shares_clock(header))
        self._run = header.run

    def _shares_clock(self, header: Samples) -> bool:
        return header.stamp is not None and bool(header.clock) and header.clock == self._clock_name

    def _same(self, header: Samples) -> bool:
        """Whether another header means the same stream; what is different is told, and the message refused."""
        try:
            found = changes(self._declared, declared(header, described(header, self._declare)))
        except SourceError as error:
            found = [Change("description", str(error), "one that can be decoded")]
        if not found:
            self._header = header
            return True
        self._refuse(f"samples of another shape: {found[0]}", tell=(header.run, header.declared) in self._unlike)
        if (header.run, header.declared) not in self._unlike:
            self._unlike.append((header.run, header.declared))
            changed = ChangedError(f"the ZMQ stream {header.stream!r}", found)
            self._notices.append(Notice("state", str(changed), SourceState.CHANGED, changed.details))
            self._changed = (hostclock.now() if self._changed is None else self._changed[0]), changed
        return False

    # --- trouble ------------------------------------------------------------------------------------------------------

    def _refuse(self, why: str, *, tell: bool = True) -> None:
        self._notices += self._refused.add(why, tell=tell)

    def _ignore(self, stream: str) -> None:
        self.ignored += 1
        if stream not in self._others and len(self._others) < _REMEMBERED:
            self._others.add(stream)
            if self._info is not None:
                text = f"messages of the stream {stream!r} come as well, and are ignored"
                self._notices.append(Notice("other stream", text, details={"stream": stream}))

    def _lose(self) -> None:
        self._lost_at = hostclock.now()
        if self._end_when_lost:
            self._ended = True
        text = f"nobody is at the other end of {self.endpoint}"
        self._notices.append(Notice("state", text, SourceState.RECOVERING))

    def _return(self, text: str) -> None:
        if self._lost_at is not None:
            self._lost_at = None
            self._notices.append(Notice("state", text, SourceState.STREAMING))

    def _give_up(self) -> None:
        """End where the sender has been gone for long; raise where it has been something else for long."""
        now = hostclock.now()
        if self._lost_at is not None and now - self._lost_at > self._timeout_s:
            self._ended = True
        elif self._changed is not None and now - self._changed[0] > self._timeout_s:
            self._ended = True
            raise self._changed[1]

    # --- close --------------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._info is None:
            raise SourceError("the ZMQ source is not open; call open() first, or use `with`")

    def _is_closed(self) -> bool:  # by another thread, meanwhile
        return self._closed

    def _is_over(self) -> bool:  # by what was just read
        return self._ended

    def close(self) -> None:
        """Let go of the socket. Safe to call twice, and from another thread than `read`."""
        self._closed = True
        if self._link is not None:
            self._link.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: builtins.type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
