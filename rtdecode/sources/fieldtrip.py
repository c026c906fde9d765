"""Live samples and events from a FieldTrip buffer (Oostenveld et al. 2011, doi:10.1155/2011/156869)."""

import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from rtdecode import hostclock
from rtdecode.clock.stream_clock import StreamClock
from rtdecode.errors import SourceError
from rtdecode.signal import Batch, Chunk, Marker, Notice, Offset, Origin, Raw, SourceState, StreamInfo
from rtdecode.sources.change import ChangedError, Declared, changes
from rtdecode.sources.declare import Declare, Described
from rtdecode.sources.fieldtrip_client import Client
from rtdecode.sources.fieldtrip_given import Given
from rtdecode.sources.fieldtrip_link import RETRY_S, Back, Changed, Ended, Events, Hole, Link, Lost, Quiet, Samples
from rtdecode.sources.fieldtrip_sensors import describe_header
from rtdecode.sources.fieldtrip_wire import DataType, Event, Header, Order
from rtdecode.sources.trigger import TriggerRule, Triggers
from rtdecode.sources.units import to_si

__all__ = ["PORT", "FieldTripSource"]

#: Where buffers listen by custom.
PORT = 1972
#: Seconds between two notes of where the sender's clock stands.
_OFFSET_EVERY_S = 5.0
#: Which of the `origins` samples and events are.
_SAMPLES, _EVENTS = 0, 1
#: Number formats that XDF has, for those that it does not have.
_RECORDED: dict[DataType, tuple[str, str]] = {
    DataType.CHAR: ("int8", "i1"),
    DataType.INT8: ("int8", "i1"),
    DataType.UINT8: ("int16", "<i2"),
    DataType.INT16: ("int16", "<i2"),
    DataType.UINT16: ("int32", "<i4"),
    DataType.INT32: ("int32", "<i4"),
    DataType.UINT32: ("int64", "<i8"),
    DataType.INT64: ("int64", "<i8"),
    DataType.UINT64: ("int64", "<i8"),
    DataType.FLOAT32: ("float32", "<f4"),
    DataType.FLOAT64: ("double64", "<f8"),
}


class FieldTripSource:
    """Follows one FieldTrip buffer, from its newest sample on.

    The buffer's sample counter is the clock: it is fitted against the times at which the counts were seen to grow, and
    says exactly how much is missing wherever samples are. Where the counter goes back, or the buffer was put another
    header, another segment begins. Events become markers, stamped by the clock at the sample that they name.

    What waits on the buffer when it is found again is read in full and recorded, but decoded no further back than
    `catch_up_s`; what lies before is a hole whose samples are in the recording.

    Parameters
    ----------
    host : str
        Name or address.
    port : int
        TCP port.
    sensors : path, optional
        FIF file, or TSV file with the columns name, type and units, that says what the channels are.
    declare : Declare
        What buffer and file leave undeclared.
    triggers : sequence of TriggerRule
        How trigger channels become markers.
    events : bool
        Take the buffer's events as markers.
    timeout_s : float
        Seconds to look for the buffer, at the start and after a loss.
    lateness_s : float
        How late an event may be put after its sample's time. The watermark stays that far behind.
    catch_up_s : float
        Seconds of waiting samples that are decoded at most.
    end_when_lost : bool
        End at the first loss.
    order : {"<", ">"}
        Byte order to speak in.
    retry_s : float
        Seconds between two attempts to connect.

    Raises
    ------
    StreamNotFoundError
        At `open`: no buffer, or none with a header, within `timeout_s`.
    SourceError
        At `open`: its channels cannot be told. At `read`: it came back as another, and stayed so for `timeout_s`.
    """

    def __init__(
        self,
        host: str,
        port: int = PORT,
        *,
        sensors: Path | None = None,
        declare: Declare | None = None,
        triggers: Sequence[TriggerRule] = (),
        events: bool = True,
        timeout_s: float = 10.0,
        lateness_s: float = 0.5,
        catch_up_s: float = 2.0,
        end_when_lost: bool = False,
        order: Order = "<",
        retry_s: float = RETRY_S,
    ) -> None:
        self._name = f"fieldtrip:{host}:{port}"
        self._events_name = f"{self._name}-events"
        self._sensors = sensors
        self._declare = declare or Declare()
        self._rules = tuple(triggers)
        self._with_events = events
        self._lateness_s = lateness_s
        self._catch_up_s = catch_up_s
        self._link = Link(Client(host, port, order=order), timeout_s, end_when_lost, self._validate, events, retry_s)
        self._info: StreamInfo | None = None
        self._ended = self._closed = False

    # --- opening ------------------------------------------------------------------------------------------------------

    def open(self) -> StreamInfo:
        """Find the buffer, and begin to follow it."""
        try:
            header = self._link.open()
            self._header = header
            self._described = self._describe(header)
            sfreq = nominal_rate(header)
            self._info = StreamInfo(
                self._described.channels, sfreq, self._name, declared_by_user=self._described.declared_by_user
            )
            self._triggers = Triggers(self._rules, self._info)
        except SourceError:
            self.close()
            raise
        self._clock = StreamClock(sfreq)
        self._given = Given(1.0 / sfreq)
        self._shift = 0.0  # what is added to the counter, as seconds, for the recording
        self._recorded = -math.inf  # newest of those seconds
        self._value = 0.0  # host time less those seconds
        self._complete = self._passed = -math.inf
        self._surplus: deque[Batch] = deque()
        self._begin_segment()
        self._link.start()
        return self._info

    @property
    def info(self) -> StreamInfo:
        """What `open` gave."""
        if self._info is None:
            raise SourceError("the FieldTrip source is not open; call open() first, or use `with`")
        return self._info

    @property
    def refused(self) -> int:
        """Answers that were none, each of which cost the connection."""
        return self._link.refused

    @property
    def reconnects(self) -> int:
        """How often the buffer was lost and found again."""
        return self._link.reconnects

    @property
    def origins(self) -> tuple[Origin, ...]:
        """The samples, and the events where they are taken."""
        info = self.info
        names = "".join(
            f"<channel><label>{escape(c.name)}</label><type>{c.type.upper()}</type></channel>" for c in info.channels
        )
        xml = f"<info><desc><channels>{names}</channels></desc></info>"
        kind = _RECORDED[self._header.data_type][0]
        samples = Origin(
            info.source,
            "Data",
            sfreq=info.sfreq,
            format=kind,
            n_channels=len(info.channels),
            xml=xml,
            scales=tuple(self._described.scales.tolist()),
        )
        return (samples, Origin(self._events_name, "Markers")) if self._with_events else (samples,)

    def _describe(self, header: Header) -> Described:
        return describe_header(header, self._declare, self._name, self._sensors)

    def _declared(self, header: Header, described: Described) -> Declared:
        return Declared(
            nominal_rate(header),
            described.channels,
            scales=described.scales.tolist(),
            format=header.data_type.name.lower(),
        )

    def _validate(self, header: Header) -> None:
        """A buffer that is back must hold what it held."""
        found = changes(self._declared(self._header, self._described), self._declared(header, self._describe(header)))
        if found:
            raise ChangedError(self._name, found)

    # --- reading ------------------------------------------------------------------------------------------------------

    def read(self, timeout: float) -> Batch | None:
        """The next samples and events, as soon as one is there."""
        if self._gone():
            return None
        _ = self.info
        if self._surplus:
            return self._surplus.popleft()
        item = self._link.next(timeout)
        if self._gone():
            return None
        match item:
            case None:
                return self._batch()
            case Quiet(complete=complete):
                self._complete = complete
                return self._batch()
            case Samples():
                self._complete = item.complete
                return self._take(item)
            case Events():
                return self._take_events(item)
            case Hole():
                return self._batch(notices=[self._hole(item)])
            case Lost(reason=reason):
                text = f"{self._name} is lost ({reason}); it is looked for"
                return self._batch(notices=[Notice("state", text, SourceState.RECOVERING, {"reason": reason})])
            case Changed(error=error):
                details = error.details if isinstance(error, ChangedError) else {}
                return self._batch(notices=[Notice("state", str(error), SourceState.CHANGED, details)])
            case Back():
                return self._back(item)
            case Ended(error=error):
                self._ended = True
                if error is not None:
                    self.close()
                    raise error
                return Batch(None, self._stamped(math.inf), math.inf)

    def _gone(self) -> bool:
        return self._ended or self._closed

    def _back(self, item: Back) -> Batch:
        how = "its counter goes on"
        markers: list[Marker] = []
        if item.anew:
            markers = self._stamped(math.inf)
            self._clock.restart()
            self._begin_segment()
            self._go_on(item.begin)
            how = "its counter began anew, and so does the segment"
        details = {"anew": item.anew, "reconnects": self._link.reconnects, "counter": item.begin}
        notice = Notice("state", f"{self._name} is back: {how}", SourceState.STREAMING, details)
        return self._batch(notices=[notice], markers=markers)

    def _begin_segment(self) -> None:
        self._skipping = False
        self._given.clear()
        self._uncertainty = 0.0
        self._offset_at = -math.inf
        self._pending: list[tuple[int, Event]] = []

    def _go_on(self, begin: int) -> None:
        """The recording's seconds go on where the counter does not: readers of XDF take them for one clock."""
        period = 1.0 / self.info.sfreq
        now = hostclock.now() - self._value - self._link.header.n_samples * period
        self._shift = max(now, self._recorded + period - begin * period)

    def _seconds(self, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """The counter as seconds, as it is recorded."""
        return numbers / self.info.sfreq + self._shift

    def _hole(self, item: Hole) -> Notice:
        n = item.stop - item.begin
        return Notice(
            "lost",
            f"{n} samples had left {self._name} before they could be read; they are in no recording",
            details={"n": n, "counter": item.begin},
        )

    def _take(self, item: Samples) -> Batch:
        """Record all of it, and decode what is not too old."""
        n = len(item.values)
        oldest = item.counted - round(self._catch_up_s * self.info.sfreq)
        skipped = min(n, max(0, oldest - item.first))
        if skipped:
            notices = [] if self._skipping else [self._behind(item, oldest - item.first)]
            self._skipping = True
            self._surplus.append(self._batch(raw=[self._raw(item, 0, skipped)], notices=notices))
        if skipped < n:
            self._skipping = False
            self._decoded(item, skipped)
        return self._surplus.popleft()

    def _behind(self, item: Samples, n: int) -> Notice:
        return Notice(
            "backlog",
            f"{item.counted - item.first} samples waited on {self._name}: the first {n} are recorded and not decoded",
            details={"n": n, "counter": item.first},
        )

    def _raw(self, item: Samples, begin: int, stop: int) -> Raw:
        _, dtype = _RECORDED[self._header.data_type]
        numbers = np.arange(item.first + begin, item.first + stop)
        stamps = self._seconds(numbers)
        self._recorded = float(stamps[-1])
        return Raw(_SAMPLES, item.values[begin:stop].astype(dtype), stamps)

    def _decoded(self, item: Samples, begin: int) -> None:
        """The counter says whether samples are missing before these; none are missing within them."""
        first, n = item.first + begin, len(item.values) - begin
        samples = to_si(item.values[begin:], self._described.scales)
        for piece in self._clock.counted(first, n, item.seen):
            self._given.add(first + piece.begin, piece.stamps)
            self._given.period = self._clock.period
            self._uncertainty = piece.uncertainty
            chunk = Chunk(
                samples[piece.begin : piece.stop],
                piece.stamps,
                piece.first_index,
                piece.segment,
                item.arrived,
                piece.uncertainty,
                piece.invalidates,
            )
            raw = self._raw(item, begin + piece.begin, begin + piece.stop)
            self._surplus.append(self._batch(chunk, raw=[raw]))

    def _take_events(self, item: Events) -> Batch:
        numbers = [event.sample if event.sample >= 0 else max(0, item.counted - 1) for event in item.events]
        self._pending += zip(numbers, item.events, strict=True)
        texts = tuple(event.text for event in item.events)
        return self._batch(raw=[Raw(_EVENTS, texts, self._seconds(np.array(numbers)))])

    def _batch(
        self,
        chunk: Chunk | None = None,
        *,
        raw: Sequence[Raw] = (),
        notices: Sequence[Notice] = (),
        markers: Sequence[Marker] = (),
    ) -> Batch:
        newest = self._given.newest
        found = [*markers, *self._stamped(-math.inf if newest is None else newest[0])]
        if chunk is not None:
            found += self._triggers.feed(chunk)
        # Events whose stamps are not known yet lie behind the newest sample.
        stamp = -math.inf if newest is None else newest[1]
        complete = min(self._complete, stamp) - self._lateness_s if self._with_events else math.inf
        self._passed = max(self._passed, min(complete, self._triggers.watermark))
        return Batch(chunk, found, self._passed, raw, self._measured(), notices)

    def _stamped(self, newest: float) -> list[Marker]:
        """The events up to this sample become markers: it has been given a stamp, or never will be."""
        if self._given.newest is None:
            return []
        due = [(number, event) for number, event in self._pending if number <= newest]
        self._pending = [(number, event) for number, event in self._pending if number > newest]
        return [Marker(self._given.stamp(number), event.text, self._events_name) for number, event in due]

    def _measured(self) -> list[Offset]:
        """Now and then: where the counter, as seconds, stands against the host's clock."""
        now, newest = hostclock.now(), self._given.newest
        if newest is None or now < self._offset_at + _OFFSET_EVERY_S:
            return []
        self._offset_at = now
        self._value = newest[1] - float(self._seconds(np.array(newest[0])))
        return [Offset(stream, now, self._value, self._uncertainty) for stream in range(len(self.origins))]

    def close(self) -> None:
        """Stop following, and disconnect. Safe to call twice, and from another thread than `read`."""
        self._closed = True
        self._link.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def nominal_rate(header: Header) -> float:
    """Hz: the shortest decimal number that the header's float32 stands for (998.4, not 998.4000244140625)."""
    return float(str(np.float32(header.sfreq)))
