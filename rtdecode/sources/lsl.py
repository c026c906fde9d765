"""Live samples and markers over the Lab Streaming Layer (Kothe et al. 2025, Imaging Neuroscience 3, IMAG.a.136)."""

import builtins
import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

import numpy as np

from rtdecode import hostclock
from rtdecode.clock.stream_clock import StreamClock
from rtdecode.errors import SourceError, StampError
from rtdecode.signal import Batch, Chunk, Marker, Notice, Offset, Origin, Raw, StreamInfo
from rtdecode.sources.base import MUCH
from rtdecode.sources.change import ChangedError, Declared, changes
from rtdecode.sources.declare import Declare, Described, describe
from rtdecode.sources.lsl_data import DataLink
from rtdecode.sources.lsl_directory import Directory
from rtdecode.sources.lsl_links import Awake, Ended, Event, Link, Reopened, Samples
from rtdecode.sources.lsl_markers import MarkerLink, raw_markers
from rtdecode.sources.lsl_search import described, identity
from rtdecode.sources.lsl_streams import (
    MarkerQuery,
    StreamQuery,
    channels_of,
    configure_lsl,
    describe_stream,
    format_of,
)
from rtdecode.sources.trigger import TriggerRule, Triggers
from rtdecode.sources.units import to_si

__all__ = ["LslSource", "MarkerQuery", "configure_lsl"]


class LslSource:
    """One LSL data stream, and any number of marker streams.

    Stamps are the sender's, mapped to host time; on the same host they are the sender's to the last bit. Samples that
    the sender lost show as a step between stamps and become a jump of `Chunk.first_index`, or another segment where it
    is longer than an hour. When the stream is lost, the source looks for it for up to `timeout_s`; once it is back, and
    is what it was, another segment begins. One that is back as something else is refused, and the source goes on
    looking for what was there.

    A clean end of the sender and a crash look the same in LSL: either way the source ends (`read` returns None) when
    nothing came back within `timeout_s`, or at once with `end_when_lost`.

    Parameters
    ----------
    name, type, source_id : str, optional
        Which data stream; at least one.
    markers : sequence of MarkerQuery
        Which marker streams.
    declare : Declare
        What the stream leaves undeclared.
    triggers : sequence of TriggerRule
        How trigger channels become markers.
    timeout_s : float
        Seconds to wait for a stream, at the start and after a loss.
    lateness_s : float
        How late a marker may come after the samples of its time. The watermark stays that far behind.
    end_when_lost : bool
        End at the first loss instead of looking for the stream again.
    directory : Directory, optional
        Finds the streams of all sources of the process, where it has many. Somebody reads each of them ten times a
        second at least.

    Raises
    ------
    StreamNotFoundError
        At `open`: no such stream; the visible ones are listed.
    SourceError
        At `open`: more than one matches, or the stream cannot be decoded. At `read`: it came back as another
        (`ChangedError`), and did not come back as it was within `timeout_s`.
    StampError
        At `read`: stamps that are no numbers.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        type: str | None = None,  # noqa: A002 - LSL's own word for it
        source_id: str | None = None,
        markers: Sequence[MarkerQuery] = (),
        declare: Declare | None = None,
        triggers: Sequence[TriggerRule] = (),
        timeout_s: float = 10.0,
        lateness_s: float = 0.5,
        end_when_lost: bool = False,
        directory: Directory | None = None,
    ) -> None:
        self._declare = declare or Declare()
        self._rules = tuple(triggers)
        self._lateness_s = lateness_s
        self._timeout_s = timeout_s
        self._events: SimpleQueue[Event] = SimpleQueue()
        query = StreamQuery(name, type, source_id)
        self._data = DataLink(query, self._events, timeout_s, self._validate, end_when_lost, directory)
        self._markers = [MarkerLink(one, self._events, timeout_s, 1 + k, directory) for k, one in enumerate(markers)]
        self._info: StreamInfo | None = None
        self._origins: tuple[Origin, ...] = ()
        self._notices: list[Notice] = []
        self._failure: StampError | None = None
        self._surplus: deque[Chunk] = deque()
        self._newest = -math.inf
        self._ended = self._closed = False

    def open(self) -> StreamInfo:
        """Find the streams and subscribe to them."""
        links: list[Link] = [self._data, *self._markers]
        try:
            with ThreadPoolExecutor(len(links)) as pool:  # each takes a second or two, most of it waiting
                for connected in [pool.submit(link.connect, link.query, self._timeout_s) for link in links]:
                    connected.result()
            raw = self._data.info
            _check_decodable(raw)
            self._described = self._describe(raw)
        except SourceError:
            self.close()
            raise
        self._was = self._declared(raw, identity(raw))
        scales = self._described.scales.tolist()
        self._as_they_come = format_of(raw) == "float32" and all(scale == 1.0 for scale in scales)
        self._origins = (_origin(raw, scales), *(_origin(link.info) for link in self._markers))
        self._info = StreamInfo(
            self._described.channels,
            float(raw.nominal_srate()),
            f"lsl:{raw.name()}",
            raw.source_id(),
            self._described.declared_by_user,
        )
        self._clock = StreamClock(self._info.sfreq, self._data.offset)
        self._data.with_markers = bool(self._markers)
        for marker_link in self._markers:
            marker_link.beside = self._data
        try:
            self._triggers = Triggers(self._rules, self._info)
            for link in links:
                link.subscribe(self._timeout_s)
        except SourceError:
            self.close()
            raise
        for link in links:
            link.start()
        return self._info

    @property
    def info(self) -> StreamInfo:
        """What `open` gave."""
        self._check_open()
        assert self._info is not None
        return self._info

    @property
    def reconnects(self) -> int:
        """How often the data stream was lost and found again."""
        return self._data.reconnects

    @property
    def origins(self) -> tuple[Origin, ...]:
        """The data stream, then the marker streams in the order in which they were asked for."""
        return self._origins

    def read(self, timeout: float) -> Batch | None:
        """The next samples and markers, as soon as one is there."""
        if self._gone():
            return None
        self._check_open()
        if self._surplus:
            return self._batch(self._surplus.popleft())
        deadline = hostclock.now() + timeout
        while True:
            try:
                event = Ended(self._failure) if self._failure else self._data.next(max(0.0, deadline - hostclock.now()))
            except SourceError as error:
                event = Ended(error)
            if self._gone():
                return None
            if event is None:
                return self._batch(None)
            if isinstance(event, Samples):
                raw = Raw(0, event.values, event.stamps)
                try:
                    self._surplus.extend(self._chunks(event))
                except StampError as error:
                    self._failure = error  # at the next read: what came is recorded, whatever its stamps
                return self._batch(self._surplus.popleft() if self._surplus else None, raw)
            if isinstance(event, Notice):
                self._notices.append(event)
                return self._batch(None)
            if isinstance(event, Ended):
                return self._end(event)
            if isinstance(event, Reopened):
                self._clock.restart(event.offset)
            elif any(link.waiting for link in self._markers):
                return self._batch(None)

    def waiting(self) -> int:
        """How many samples there are to read; `MUCH` where something else is."""
        return MUCH if self._surplus or self._failure is not None else self._data.waiting

    def gather(self, until: float, most: int) -> None:
        """Samples that come up to this host time, or the next `most`, may be given together by the next `read`."""
        self._data.gather = until, most

    def _gone(self) -> bool:
        return self._ended or self._closed

    def _check_open(self) -> None:
        if self._info is None:
            raise SourceError("the LSL source is not open; call open() first, or use `with`")

    def _batch(self, chunk: Chunk | None, *raw: Raw) -> Batch:
        # Before the markers are taken, not after: a thread moves its mark only when all before it waits to be taken.
        empty_at = min((link.empty_at for link in self._markers), default=math.inf)
        markers, marker_raw = self._take_markers() if self._markers else ([], [])
        if chunk is not None:
            if self._rules:
                markers += self._triggers.feed(chunk)
            self._newest = float(chunk.stamps[-1])
        complete = min(empty_at, self._newest) - self._lateness_s if self._markers else math.inf
        notices, self._notices = self._notices, []
        watermark = min(complete, self._triggers.watermark) if self._rules else complete
        return Batch(chunk, markers, watermark, [*raw, *marker_raw], self._take_offsets(), notices)

    def _take_markers(self) -> tuple[list[Marker], list[Raw]]:
        markers, raw = [], []
        for link in self._markers:
            marked = []
            while link.waiting:
                marked.append(link.waiting.popleft())
            if marked:
                raw.append(raw_markers(link.number, marked))
            markers += [one.marker for one in marked if one.marker is not None]
        return markers, raw

    def _take_offsets(self) -> list[Offset]:
        offsets = []
        for link in (self._data, *self._markers):
            while link.measured:
                offsets.append(link.measured.popleft())
        return offsets

    def _end(self, event: Ended) -> Batch:
        self._ended = True
        if event.error is not None:
            self.close()
            raise event.error
        seen = hostclock.now()
        while any(link.empty_at < seen and link.alive for link in self._markers) and hostclock.now() < seen + 1.0:
            self._data.stop.wait(0.005)  # what the marker threads are about to find still belongs to the recording
        markers, raw = self._take_markers()
        return Batch(None, markers, math.inf, raw, self._take_offsets(), self._notices)

    def close(self) -> None:
        """Stop the threads and disconnect. Safe to call twice, and from another thread than `read`."""
        self._closed = True
        self._events.put(Awake())
        for link in (self._data, *self._markers):
            link.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: builtins.type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _chunks(self, event: Samples) -> Iterator[Chunk]:
        """One chunk, or more where samples were lost between or another segment begins."""
        try:
            pieces = self._clock.stamped(event.stamps)
        except StampError as error:
            raise StampError(
                f"LSL stream {self._data.info.name()!r}: {error}; the sender has no working clock"
            ) from None
        # Nobody writes into samples: those that need no scaling are not copied either.
        samples = (
            np.asarray(event.values, np.float32) if self._as_they_come else to_si(event.values, self._described.scales)
        )
        for piece in pieces:
            if piece.missing and piece.invalidates is None:
                self._data.suspect(piece.missing * self._clock.period)
            if piece.why and not piece.first_index:
                details = {"segment": piece.segment, "uncertainty_s": piece.uncertainty}
                self._notices.append(Notice("clock", f"another segment begins: {piece.why}", details=details))
            yield Chunk(
                samples[piece.begin : piece.stop],
                piece.stamps,
                piece.first_index,
                piece.segment,
                event.arrived,
                piece.uncertainty,
                piece.invalidates,
            )

    def _describe(self, raw: Any) -> Described:
        return describe(channels_of(raw), self._declare, f"LSL stream {raw.name()!r}", raw.type())

    def _declared(self, raw: Any, who: dict[str, str]) -> Declared:
        one = self._describe(raw)
        units = [channel.unit for channel in channels_of(raw)]
        return Declared(float(raw.nominal_srate()), one.channels, units, one.scales.tolist(), format_of(raw), who)

    def _validate(self, raw: Any) -> None:
        """A stream that came back must be what it was."""
        found = changes(self._was, self._declared(raw, described(raw)))
        if found:
            raise ChangedError(f"the LSL stream {self._data.info.name()!r}", found)


def _origin(raw: Any, scales: Sequence[float] = ()) -> Origin:
    return Origin(
        raw.name(),
        raw.type(),
        raw.source_id(),
        raw.hostname(),
        float(raw.nominal_srate()),
        format_of(raw),
        raw.channel_count(),
        raw.as_xml(),
        tuple(scales),
    )


def _check_decodable(raw: Any) -> None:
    if raw.nominal_srate() <= 0:
        raise SourceError(
            f"the LSL stream is irregular ({describe_stream(raw)}); expected a regular rate; a stream of markers is "
            "named under `markers`"
        )
    if format_of(raw) == "string":
        raise SourceError(f"the LSL stream holds text ({describe_stream(raw)}); expected numbers")
