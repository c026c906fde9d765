"""The FieldTrip buffer: its messages against recorded ones, its server, and the source that follows one."""

import itertools
import math
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fieldtrip_buffer import Buffer
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdecode import hostclock
from rtdecode.clock.stream_clock import StreamClock
from rtdecode.errors import PortInUseError, SourceError, StreamNotFoundError
from rtdecode.signal import Batch, Channel, Chunk, Notice, Raw, SourceState, StreamInfo
from rtdecode.sources import fieldtrip_wire as wire
from rtdecode.sources.change import ChangedError
from rtdecode.sources.declare import Declare
from rtdecode.sources.fieldtrip import FieldTripSource
from rtdecode.sources.fieldtrip_client import Client
from rtdecode.sources.fieldtrip_fif import big_endian
from rtdecode.sources.fieldtrip_sender import FieldTripSender, event_of, header_of
from rtdecode.sources.fieldtrip_sensors import describe_header
from rtdecode.sources.fieldtrip_server import FieldTripServer
from rtdecode.sources.fieldtrip_wire import (
    Block,
    ChunkType,
    Command,
    DataType,
    Event,
    Header,
    HeaderChunk,
    MalformedError,
    Value,
)

ORDERS: tuple[wire.Order, wire.Order] = ("<", ">")
DUMPS = ("buffer_bci/raw_buffer/0001", "fieldtrip_maci64_test/0001", "fieldtrip_bug1262/0001")


def header(n: int = 2, kind: DataType = DataType.FLOAT32, sfreq: float = 100.0, names: str = "") -> Header:
    listed = "".join(f"{name}\0" for name in names or "ABCDEFGH"[:n]).encode()
    return Header(n, 0, 0, sfreq, kind, (HeaderChunk(ChunkType.CHANNEL_NAMES, listed),))


def ramp(begin: int, stop: int, n: int = 2, kind: DataType = DataType.FLOAT32) -> Block:
    return Block.of(np.arange(begin, stop)[:, None] * np.ones(n), kind)


def source_of(port: int, **options: Any) -> FieldTripSource:
    return FieldTripSource(
        "127.0.0.1", port, **{"declare": Declare(unit="V", type="eeg"), "timeout_s": 30.0, **options}
    )


@pytest.fixture
def server() -> Iterator[FieldTripServer]:
    with FieldTripServer() as one:
        yield one


@contextmanager
def connected(port: int, order: wire.Order = "<") -> Iterator[Client]:
    with closing(Client("127.0.0.1", port, order=order, answer_s=20)) as client:
        client.connect()
        yield client


class Seen:
    """What a source gave."""

    def __init__(self, source: FieldTripSource) -> None:
        self.source = source
        self.batches: list[Batch] = []

    def until(self, done: Callable[[], bool]) -> None:
        deadline = hostclock.now() + 60
        while not done():
            assert hostclock.now() < deadline, self.notices
            batch = self.source.read(1.0)
            assert batch is not None, "the source has ended"
            self.batches.append(batch)

    @property
    def chunks(self) -> list[Chunk]:
        return [batch.chunk for batch in self.batches if batch.chunk is not None]

    @property
    def notices(self) -> list[Notice]:
        return [notice for batch in self.batches for notice in batch.notices]

    @property
    def states(self) -> list[SourceState | None]:
        return [notice.state for notice in self.notices if notice.event == "state"]

    @property
    def markers(self) -> list[str]:
        return [marker.value for batch in self.batches for marker in batch.markers]

    def column(self, segment: int = 0) -> list[float]:
        """The first channel of what was decoded."""
        return [float(v) for chunk in self.chunks if chunk.segment == segment for v in chunk.samples[:, 0]]

    def raw(self, stream: int = 0) -> list[Raw]:
        return [raw for batch in self.batches for raw in batch.raw if raw.stream == stream]

    def recorded(self) -> list[float]:
        """The first channel of what is recorded."""
        return [float(v) for raw in self.raw() for v in np.asarray(raw.values)[:, 0]]


# --- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", DUMPS)
def test_recorded_messages_come_out_byte_for_byte(shared_data: Path, folder: str) -> None:
    dump = shared_data / "fieldtrip_buffer" / folder
    told = (dump / "header").read_bytes()
    found = Header.decode(told)
    assert found.encode() == told
    samples = (dump / "samples").read_bytes()
    block = Block(found.n_channels, len(samples) // found.frame, found.data_type, samples)
    assert block.encode()[16:] == samples
    events = (dump / "events").read_bytes() if (dump / "events").exists() else b""
    listed = wire.decode_events(events)
    assert wire.encode_events(listed) == events
    assert Header.decode(found.encode(">"), ">") == found
    assert Block.decode(block.encode(">"), ">") == block
    assert wire.decode_events(wire.encode_events(listed, ">"), ">") == listed


def test_a_recorded_session_is_what_its_authors_say(shared_data: Path) -> None:
    dump = shared_data / "fieldtrip_buffer" / DUMPS[0]
    found = Header.decode((dump / "header").read_bytes())
    assert (found.n_channels, found.n_samples, found.sfreq, found.data_type) == (3, 9000, 100.0, DataType.FLOAT64)
    assert [c.name for c in describe_header(found, Declare(), "it").channels] == ["Cz", "CPz", "Oz"]
    events = wire.decode_events((dump / "events").read_bytes())
    assert len(events) == 165
    assert (events[0].sample, events[0].text) == (850, "subject/test")
    assert events[6].text == "stimulus.rowFlash/1,0,0"
    assert events[-1].text == "startPhase.cmd/exit"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("folder", DUMPS)
def test_a_recorded_session_played_through_the_server_is_read_back_as_it_was(
    server: FieldTripServer, shared_data: Path, folder: str, order: wire.Order
) -> None:
    dump = shared_data / "fieldtrip_buffer" / folder
    told = Header.decode((dump / "header").read_bytes())
    samples = (dump / "samples").read_bytes()
    events = wire.decode_events((dump / "events").read_bytes() if (dump / "events").exists() else b"")
    n = len(samples) // told.frame
    with connected(server.port) as writer, connected(server.port, order) as reader:
        assert writer.put_header(told)
        for begin in range(0, n, 5):
            part = samples[begin * told.frame : min(n, begin + 5) * told.frame]
            assert writer.put_samples(Block(told.n_channels, len(part) // told.frame, told.data_type, part))
        for event in events:
            assert writer.put_events([event])
        back = reader.header()
        assert back is not None
        assert (back.n_samples, back.n_events, back.chunks) == (n, len(events), told.chunks)
        block = reader.samples(0, n, told.frame)
        assert block is not None
        assert block.data == samples
        assert not events or reader.events(0, len(events)) == events
    assert not server.refused


@given(data=st.data(), order=st.sampled_from(ORDERS), kind=st.sampled_from(list(DataType)))
def test_messages_survive_both_byte_orders(data: st.DataObject, order: wire.Order, kind: DataType) -> None:
    size = kind.dtype.itemsize
    n, m = data.draw(st.integers(1, 5)), data.draw(st.integers(0, 5))
    block = Block(n, m, kind, data.draw(st.binary(min_size=n * m * size, max_size=n * m * size)))
    assert Block.decode(block.encode(order), order) == block
    chunks = tuple(
        HeaderChunk(type_, content)
        for type_, content in data.draw(st.lists(st.tuples(st.integers(0, 12), st.binary(max_size=24)), max_size=4))
    )
    one = Header(n, m, 7, 250.5, kind, chunks)
    assert Header.decode(one.encode(order), order) == one
    value = Value(kind, data.draw(st.binary(min_size=m * size, max_size=m * size)))
    event = Event(Value.of(data.draw(st.text())), value, *data.draw(st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 3)))
    assert wire.decode_events(wire.encode_events([event, event], order), order) == (event, event)
    assert isinstance(event.text, str)


@given(body=st.binary(max_size=80), order=st.sampled_from(ORDERS))
@settings(max_examples=500)
def test_bytes_that_are_no_message_are_refused_by_name(body: bytes, order: wire.Order) -> None:
    readers: list[Callable[[bytes, wire.Order], object]] = [
        Header.decode, Block.decode, wire.decode_events, wire.decode_range, wire.decode_wait, wire.decode_counts,
    ]  # fmt: skip
    for read in readers:
        with suppress(MalformedError):
            read(body, order)


@pytest.mark.parametrize("order", ORDERS)
def test_a_message_that_is_cut_short_is_refused(order: wire.Order) -> None:
    whole: list[tuple[bytes, Callable[[bytes, wire.Order], object]]] = [
        (header().encode(order), Header.decode),
        (ramp(0, 3).encode(order), Block.decode),
        (wire.encode_events([Event(Value.of("a"), Value.of([1]), 0)], order), wire.decode_events),
    ]
    for body, read in whole:
        read(body, order)
        for stop in range(1, len(body)):
            with pytest.raises(MalformedError):
                read(body[:stop], order)


@pytest.mark.parametrize("n_channels", [0, wire.MAX_CHANNELS + 1, 2**32 - 1])
def test_a_header_of_more_channels_than_there_are_is_refused_before_they_are_named(n_channels: int) -> None:
    with pytest.raises(MalformedError, match=f"a header of {n_channels} channels; expected 1 to"):
        Header.decode(struct.pack("<IIIfII", n_channels, 0, 0, 250.0, DataType.FLOAT32, 0))


def test_resolutions_follow_the_byte_order_and_other_chunks_do_not() -> None:
    chunks = (
        HeaderChunk(ChunkType.RESOLUTIONS, struct.pack("<2d", 0.5, 3)),
        HeaderChunk(ChunkType.CTF_RES4, b"12345678"),
    )
    body = Header(2, 0, 0, 1.0, DataType.INT16, chunks).encode(">")
    assert struct.pack(">2d", 0.5, 3) in body
    assert b"12345678" in body


# --- server -----------------------------------------------------------------------------------------------------------


def test_the_server_keeps_the_newest(server: FieldTripServer) -> None:
    with FieldTripServer(n_samples=10) as small, connected(small.port) as client:
        assert client.header() is None
        assert not client.put_samples(ramp(0, 1))
        assert client.wait(0, 0, 0) is None
        assert client.put_header(header())
        for begin, stop in itertools.pairwise([0, 4, 9, 22, 25]):
            assert client.put_samples(ramp(begin, stop))
        assert client.samples(14, 25, 8) is None
        kept = client.samples(15, 25, 8)
        assert kept is not None
        assert kept.values[:, 0].tolist() == list(range(15, 25))
        assert client.samples(24, 26, 8) is None
        assert client.wait(24, 0, 10) == (25, 0)
        assert client.wait(25, 0, 0.01) == (25, 0)
        assert not client.put_samples(ramp(0, 1, 3))
        assert not client.put_samples(ramp(0, 1, kind=DataType.INT8))
        assert client.put_events([Event(Value.of("a"), Value.of(""), 3)])
        assert client.wait(25, 0, 10) == (25, 1)
        assert client.flush(Command.FLUSH_DAT)
        assert client.flush(Command.FLUSH_EVT)
        assert client.wait(0, 0, 0) == (0, 0)
        assert client.flush(Command.FLUSH_HDR)
        assert client.header() is None
        assert not small.refused
        assert small.unmet


def test_the_server_wakes_whoever_waits(server: FieldTripServer) -> None:
    with connected(server.port) as writer, connected(server.port, ">") as reader:
        writer.put_header(header())
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.append(reader.wait(0, 0, 9.0)))
        thread.start()
        while not server.waits:
            pass
        writer.put_samples(ramp(0, 7))
        thread.join(30)
        assert found == [(7, 0)]


def test_the_server_refuses_what_is_no_request_and_goes_on(server: FieldTripServer) -> None:
    bad = [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("<HHI", 2, Command.GET_HDR, 0),
        struct.pack("<HHI", 1, Command.PUT_DAT, 2**32 - 1),
        wire.message(0x777, b"123"),
        wire.message(Command.PUT_HDR, header().encode()[:-1]),
        wire.message(Command.PUT_DAT, struct.pack("<IIII", 2**31, 2**31, 10, 0)),
        wire.message(Command.WAIT_DAT, b""),
    ]
    for count, one in enumerate(bad, 1):
        with socket.create_connection(("127.0.0.1", server.port), 20) as peer:
            peer.sendall(one)
            answer = b""
            with suppress(ConnectionResetError):
                answer = peer.recv(8)
            assert not answer or struct.unpack("<HHI", answer)[1] & 0xFF == 5
        while server.refused.total() < count:
            pass
    with connected(server.port) as client:
        assert client.put_header(header())
        assert client.header() is not None


def test_a_client_that_takes_nothing_holds_nobody_up(server: FieldTripServer) -> None:
    everything = wire.message(Command.GET_DAT)
    with connected(server.port) as client, socket.create_connection(("127.0.0.1", server.port)) as deaf:
        client.put_header(header())
        client.put_samples(ramp(0, 100_000))
        deaf.sendall(everything * 50)  # 40 MB of answers, which it never reads
        for k in range(100):
            assert client.put_samples(ramp(100_000 + k, 100_001 + k))
        assert client.wait(100_099, 0, 10) == (100_100, 0)


# --- what the channels are --------------------------------------------------------------------------------------------


def test_resolutions_scale_whole_numbers_and_leave_others_alone() -> None:
    for kind, factor in ((DataType.INT16, 0.5e-6), (DataType.FLOAT32, 1e-6)):
        one = header(kind=kind)
        chunks = (*one.chunks, HeaderChunk(ChunkType.RESOLUTIONS, struct.pack("<2d", 0.5, 0.5)))
        found = describe_header(Header(2, 0, 0, 1.0, kind, chunks), Declare(unit="uV", type="eeg"), "it")
        assert found.scales.tolist() == pytest.approx([factor] * 2, rel=1e-12)


def test_a_tsv_file_says_what_the_channels_are(tmp_path: Path) -> None:
    path = tmp_path / "a_channels.tsv"
    path.write_text("name\ttype\tunits\nB\tTRIG\tn/a\nA\tMEGGRADPLANAR\tT/m\nC\tEEG\tuV\n")
    found = describe_header(header(), Declare(), "it", path)
    assert [(c.name, c.type, c.unit) for c in found.channels] == [("A", "grad", "T/m"), ("B", "stim", "1")]
    assert found.declared_by_user == ("sensors of 2 channels: a_channels.tsv",)
    with pytest.raises(SourceError, match=r"'D', .*a_channels.tsv has not"):
        describe_header(header(4), Declare(), "it", path)
    nameless = Header(2, 0, 0, 1.0, DataType.INT16)
    with pytest.raises(SourceError, match=r"2 channels without names, .* has 3"):
        describe_header(nameless, Declare(), "it", path)


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        (ChunkType.CHANNEL_NAMES, b"A\0", "a list of 1 names"),
        (ChunkType.CHANNEL_FLAGS, b"eeg\0\1", "1 flags"),
        (ChunkType.CHANNEL_FLAGS, b"eeg\0\1\2", "1 kinds"),
        (ChunkType.RESOLUTIONS, b"12345678", "8 bytes of resolutions"),
        (ChunkType.RESOLUTIONS, struct.pack("<2d", 1, math.nan), "no number"),
        (ChunkType.NEUROMAG_HEADER, b"12345678" * 4, "FIF"),
    ],
)
def test_chunks_that_do_not_fit_are_refused_by_name(kind: ChunkType, data: bytes, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        describe_header(Header(2, 0, 0, 1.0, DataType.INT16, (HeaderChunk(kind, data),)), Declare(), "it")


@pytest.fixture(scope="module")
def fif(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    import mne

    info = mne.create_info(["A", "B", "STI"], 100.0, ["mag", "grad", "stim"])
    for channel, cal in zip(info["chs"], (2.0, 3.0, 1.0), strict=True):
        channel["cal"] = cal
        channel["loc"][:3] = [0.01, 0.02, 0.03]
    with info._unlock():
        info["dev_head_t"] = mne.Transform("meg", "head")
    path = tmp_path_factory.mktemp("fif") / "a_info.fif"
    mne.io.write_info(path, info)
    return path.read_bytes()


def little_endian(data: bytes) -> bytes:
    """A FIF file as Neuromag's real-time interface sends it: in the other byte order, and without its last tag."""
    tags, at = [], 0
    while at < len(data):
        kind, type_, size, following = struct.unpack_from(">iiii", data, at)
        body = data[at + 16 : at + 16 + size]
        if type_ == 30:
            body = np.frombuffer(body[:80], ">u4").astype("<u4").tobytes() + body[80:]
        elif type_ == 5:
            body = np.frombuffer(body, ">u8").astype("<u8").tobytes()
        elif type_ not in (0, 10):
            assert not size % 4
            body = np.frombuffer(body, ">u4").astype("<u4").tobytes()
        tags.append(struct.pack("<iiii", kind, type_, size, 0) + body)
        at = following or at + 16 + size
        if following == -1:
            break
    return b"".join(tags[:-1])


@pytest.mark.parametrize("change", [lambda data: data, little_endian])
@pytest.mark.parametrize(("kind", "scale"), [(DataType.INT32, 2.0), (DataType.FLOAT32, 1.0)])
def test_a_fif_header_says_what_the_channels_are(
    fif: bytes, change: Callable[[bytes], bytes], kind: DataType, scale: float
) -> None:
    chunk = HeaderChunk(ChunkType.NEUROMAG_HEADER, change(fif))
    found = describe_header(Header(3, 0, 0, 100.0, kind, (chunk,)), Declare(), "it")
    assert [(c.name, c.type, c.unit) for c in found.channels] == [
        ("A", "mag", "T"), ("B", "grad", "T/m"), ("STI", "stim", "1"),
    ]  # fmt: skip
    assert found.channels[0].position == pytest.approx((0.01, 0.02, 0.03))
    assert found.scales[0] == scale


def test_a_fif_header_may_stand_in_a_file_of_its_own(fif: bytes, tmp_path: Path) -> None:
    (tmp_path / "a_info.fif").write_bytes(fif)
    found = describe_header(header(2), Declare(), "it", tmp_path / "a_info.fif")
    assert [c.unit for c in found.channels] == ["T", "T/m"]


@given(at=st.integers(0, 3000), byte=st.integers(0, 255), stop=st.integers(0, 5000))
@settings(max_examples=100)
def test_a_damaged_fif_header_is_refused_or_read(fif: bytes, at: int, byte: int, stop: int) -> None:
    damaged = bytearray(fif)
    damaged[at % len(damaged)] = byte
    with suppress(SourceError):
        big_endian(bytes(damaged[:stop]), "it")


# --- the source -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", list(DataType))
def test_every_number_format_in_both_byte_orders(server: FieldTripServer, kind: DataType, order: wire.Order) -> None:
    values = np.array([[0, 1], [2, 3], [100, 127]])
    with connected(server.port, order) as client:
        client.put_header(header(kind=kind))
        with source_of(server.port, order=order) as source:
            client.put_samples(Block.of(values, kind))
            seen = Seen(source)
            seen.until(lambda: len(seen.column()) == 3)
            raw = np.concatenate([np.asarray(one.values) for one in seen.raw()])
            form = source.origins[0].format
    np.testing.assert_array_equal(np.concatenate([c.samples for c in seen.chunks]), values.astype(np.float32))
    np.testing.assert_array_equal(raw, values)
    assert raw.dtype == {"double64": "f8", "float32": "f4"}.get(form, form)
    assert np.concatenate([one.stamps for one in seen.raw()]).tolist() == [0.0, 0.01, 0.02]


def test_events_become_markers_at_their_samples(server: FieldTripServer) -> None:
    events = [
        Event(Value.of("Stimulus"), Value.of("S  1"), 0),
        Event(Value.of("row"), Value.of([1, 0, 2.5]), 50),
        Event(Value.of("key"), Value(DataType.UINT8, b"\x07"), 99),
        Event(Value.of("alone"), Value.of(""), 120),
        Event(Value.of(""), Value.of([3]), 10),
        Event(Value.of("unknown sample"), Value.of(""), -1),
    ]
    with connected(server.port) as client:
        client.put_header(header())
        with source_of(server.port, lateness_s=60) as source:
            client.put_events(events)  # before any sample: stamped once there is a clock
            seen = Seen(source)
            seen.until(lambda: bool(seen.raw(1)))
            assert not seen.markers
            client.put_samples(ramp(0, 100))
            seen.until(lambda: len(seen.markers) == len(events) - 1)
            assert "alone" not in seen.markers  # its sample has not come
            client.put_samples(ramp(100, 130))
            seen.until(lambda: len(seen.markers) == len(events))
            client.put_events([Event(Value.of("n"), Value.of([k]), k % 100) for k in range(2500)])
            seen.until(lambda: len(seen.markers) == len(events) + 2500)
    texts = ["Stimulus/S  1", "row/1,0,2.5", "key/7", "alone", "3", "unknown sample"]
    assert sorted(seen.markers[: len(events)]) == sorted(texts)
    assert seen.markers[len(events) :] == [f"n/{k}" for k in range(2500)]
    stamps = [marker.stamp for batch in seen.batches for marker in batch.markers]
    given = np.concatenate([chunk.stamps for chunk in seen.chunks])
    by_text = dict(zip(seen.markers, stamps, strict=True))
    for event in events[:4]:
        assert by_text[event.text] == given[event.sample]  # to the last bit


def test_events_may_be_left_where_they_are(server: FieldTripServer) -> None:
    with connected(server.port) as client:
        client.put_header(header())
        with source_of(server.port, events=False) as source:
            client.put_events([Event(Value.of("a"), Value.of(""), 0)])
            client.put_samples(ramp(0, 10))
            seen = Seen(source)
            seen.until(lambda: len(seen.column()) == 10)
            assert len(source.origins) == 1
    assert not seen.markers
    assert seen.batches[-1].watermark == math.inf


def test_what_was_there_before_is_left_where_it_is(server: FieldTripServer) -> None:
    with connected(server.port) as client:
        client.put_header(header())
        client.put_samples(ramp(0, 50))
        client.put_events([Event(Value.of("old"), Value.of(""), 1)])
        with source_of(server.port) as source:
            client.put_samples(ramp(50, 60))
            seen = Seen(source)
            seen.until(lambda: len(seen.column()) == 10)
    assert seen.column() == list(range(50, 60))
    assert seen.chunks[0].first_index == 0
    assert not seen.markers


@pytest.mark.parametrize("how", ["put a header", "flush the samples"])
def test_a_counter_that_goes_back_begins_a_segment(server: FieldTripServer, how: str) -> None:
    with connected(server.port) as client:
        client.put_header(header())
        with source_of(server.port) as source:
            seen = Seen(source)
            client.put_samples(ramp(0, 100))
            seen.until(lambda: len(seen.column()) == 100)
            assert client.put_header(header()) if how == "put a header" else client.flush(Command.FLUSH_DAT)
            client.put_samples(ramp(0, 40))
            seen.until(lambda: len(seen.column(1)) == 40)
    assert seen.column(1) == list(range(40))
    assert seen.states == [SourceState.RECOVERING, SourceState.STREAMING]
    assert "went back from 100" in seen.notices[0].text
    first = next(chunk for chunk in seen.chunks if chunk.segment == 1)
    assert first.first_index == 0
    # What is recorded has one clock throughout, that no reader takes for two.
    assert (np.diff(np.concatenate([raw.stamps for raw in seen.raw()])) > 0).all()


def test_a_counter_that_jumps_beyond_all_that_can_have_come_begins_a_segment(server: FieldTripServer) -> None:
    with connected(server.port) as client:
        client.put_header(header())
        with source_of(server.port) as source:
            seen = Seen(source)
            client.put_samples(ramp(0, 100))
            seen.until(lambda: len(seen.column()) == 100)
            with server.store._grown:
                server.store._samples = 2**32 - 50
                server.store._grown.notify_all()
            seen.until(lambda: SourceState.STREAMING in seen.states)
            client.put_samples(ramp(0, 20))
            seen.until(lambda: seen.column(1)[-20:] == list(range(20)))
    assert f"jumped from 100 to {2**32 - 50}" in seen.notices[0].text
    assert not [notice for notice in seen.notices if notice.event in ("lost", "backlog")]


def test_a_port_that_is_taken_is_told_as_such(server: FieldTripServer) -> None:
    with pytest.raises(PortInUseError, match=str(server.port)):
        FieldTripServer(port=server.port)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (header(sfreq=200.0), "rate: 200 Hz instead of 100 Hz"),
        (header(3), "number of channels: 3 instead of 2"),
        (header(names="AX"), "names of channels: 'X' at place 2 instead of 'B'"),
        (header(names="BA"), "order of channels: 'B' at place 1 instead of 'A'"),
        (header(kind=DataType.FLOAT64), "format: float64 instead of float32"),
    ],
)
def test_a_buffer_that_is_something_else_is_refused_until_it_is_what_it_was(
    server: FieldTripServer, other: Header, said: str
) -> None:
    with connected(server.port) as client:
        client.put_header(header())
        with source_of(server.port) as source:
            seen = Seen(source)
            client.put_samples(ramp(0, 100))
            seen.until(lambda: len(seen.column()) == 100)
            client.put_header(other)
            client.put_samples(ramp(0, 50, other.n_channels, other.data_type))
            seen.until(lambda: SourceState.CHANGED in seen.states)
            assert said in next(n.text for n in seen.notices if n.state is SourceState.CHANGED)
            client.put_header(header())
            client.put_samples(ramp(0, 30))
            seen.until(lambda: len(seen.column(1)) == 30)
    assert seen.column(1) == list(range(30))


def test_a_buffer_that_stays_something_else_ends_the_source(server: FieldTripServer) -> None:
    with connected(server.port) as client:
        client.put_header(header())
        with source_of(server.port, timeout_s=0.3) as source:
            seen = Seen(source)
            client.put_samples(ramp(0, 100))
            seen.until(lambda: len(seen.column()) == 100)
            client.put_header(header(sfreq=50.0))
            with pytest.raises(ChangedError, match="rate: 50 Hz instead of 100 Hz"):
                seen.until(lambda: False)
            assert source.read(0.0) is None


def test_samples_that_left_the_ring_are_a_hole_of_known_length() -> None:
    with FieldTripServer(n_samples=200) as server, connected(server.port) as client:
        client.put_header(header())
        with source_of(server.port, catch_up_s=100.0) as source:
            seen = Seen(source)
            client.put_samples(ramp(0, 10))
            seen.until(lambda: len(seen.column()) == 10)
            client.put_samples(ramp(10, 1000))  # one block that is larger than the ring
            seen.until(lambda: seen.column()[-1] == 999)
    lost = next(notice for notice in seen.notices if notice.event == "lost")
    assert lost.details["n"] == 790
    assert seen.column() == [*range(10), *range(800, 1000)]
    assert seen.chunks[1].first_index == 800
    assert not any(notice.event == "state" for notice in seen.notices)


class Relay:
    """A cable between the source and a buffer, to be cut and mended."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._whole = True
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._whole:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._to))
            self._ends += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    @staticmethod
    def _pump(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        with suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        self._whole = False
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def mend(self) -> None:
        self._whole = True

    def close(self) -> None:
        self.cut()
        self._listener.close()


def test_after_a_cut_the_backlog_is_recorded_and_the_newest_decoded(server: FieldTripServer) -> None:
    with closing(Relay(server.port)) as relay, connected(server.port) as client:
        client.put_header(header())
        with source_of(relay.port, catch_up_s=1.0) as source:
            seen = Seen(source)
            client.put_samples(ramp(0, 100))
            seen.until(lambda: len(seen.column()) == 100)
            relay.cut()
            seen.until(lambda: SourceState.RECOVERING in seen.states)
            client.put_samples(ramp(100, 1000))
            client.put_events([Event(Value.of("while away"), Value.of(""), 500)])
            relay.mend()
            seen.until(lambda: len(seen.recorded()) == 1000 and bool(seen.markers))
            assert source.reconnects == 1
    assert seen.recorded() == list(range(1000))
    assert seen.column() == [*range(100), *range(900, 1000)]
    assert seen.chunks[-1].first_index == 900
    assert {chunk.segment for chunk in seen.chunks} == {0}
    assert seen.states == [SourceState.RECOVERING, SourceState.STREAMING]
    backlog = next(notice for notice in seen.notices if notice.event == "backlog")
    assert backlog.details["n"] == 800
    assert seen.markers == ["while away"]


def test_a_short_cut_costs_nothing(server: FieldTripServer) -> None:
    with closing(Relay(server.port)) as relay, connected(server.port) as client:
        client.put_header(header())
        with source_of(relay.port, catch_up_s=5.0) as source:
            seen = Seen(source)
            client.put_samples(ramp(0, 100))
            seen.until(lambda: len(seen.column()) == 100)
            relay.cut()
            seen.until(lambda: SourceState.RECOVERING in seen.states)
            client.put_samples(ramp(100, 200))
            relay.mend()
            seen.until(lambda: len(seen.column()) == 200)
    assert seen.column() == list(range(200))
    assert all(one.stop_index == two.first_index for one, two in itertools.pairwise(seen.chunks))


def test_a_buffer_that_began_anew_while_away_is_told_by_its_samples(server: FieldTripServer) -> None:
    """Its counter has overtaken where the source was, so that it alone would tell nothing."""
    with closing(Relay(server.port)) as relay, connected(server.port) as client:
        client.put_header(header())
        with source_of(relay.port, catch_up_s=100.0) as source:
            seen = Seen(source)
            client.put_samples(ramp(0, 50))
            seen.until(lambda: len(seen.column()) == 50)
            relay.cut()
            seen.until(lambda: SourceState.RECOVERING in seen.states)
            client.put_header(header())
            client.put_samples(ramp(1000, 1090))
            relay.mend()
            seen.until(lambda: len(seen.column(1)) > 0)
    assert seen.column() == list(range(50))
    assert seen.column(1)[-1] == 1089


def test_a_buffer_that_is_killed_and_started_again_begins_a_segment() -> None:
    with Buffer() as first, closing(first.client()) as client:
        client.put_header(header())
        with source_of(first.port) as source:
            seen = Seen(source)
            client.put_samples(ramp(0, 100))
            seen.until(lambda: len(seen.column()) == 100)
            first.kill()
            seen.until(lambda: SourceState.RECOVERING in seen.states)
            with Buffer(first.port) as second, closing(second.client()) as client_again:
                client_again.put_header(header())
                client_again.put_samples(ramp(0, 10))
                seen.until(lambda: seen.column(1)[-1:] == [9.0])
    assert seen.states == [SourceState.RECOVERING, SourceState.STREAMING]


def test_a_buffer_that_is_stopped_and_goes_on_loses_nothing() -> None:
    with Buffer() as buffer, closing(buffer.client()) as client:
        client.put_header(header())
        with source_of(buffer.port) as source:
            seen = Seen(source)
            client.put_samples(ramp(0, 100))
            seen.until(lambda: len(seen.column()) == 100)
            buffer.pause()
            seen.until(lambda: SourceState.RECOVERING in seen.states)
            buffer.resume()
            client.put_samples(ramp(100, 150))
            seen.until(lambda: len(seen.column()) == 150)
    assert seen.column() == list(range(150))
    assert seen.chunks[-1].stop_index == 150


def test_the_end(server: FieldTripServer) -> None:
    with connected(server.port) as client:
        client.put_header(header())
        with source_of(server.port, end_when_lost=True) as source:
            client.put_samples(ramp(0, 10))
            seen = Seen(source)
            seen.until(lambda: len(seen.column()) == 10)
            server.close()
            while (batch := source.read(5.0)) is not None:
                seen.batches.append(batch)
            assert seen.batches[-1].watermark == math.inf
            assert source.read(0.0) is None


def test_no_buffer_and_no_header_are_told_apart(server: FieldTripServer) -> None:
    with pytest.raises(StreamNotFoundError, match="holds no header"):
        source_of(server.port, timeout_s=0.3).open()
    server.close()
    with pytest.raises(StreamNotFoundError, match=r"was not found within 0\.3 s"):
        source_of(server.port, timeout_s=0.3).open()


def test_close_ends_a_read_that_waits(server: FieldTripServer) -> None:
    with connected(server.port) as client:
        client.put_header(header())
        source = source_of(server.port)
        source.open()
        given: list[Batch | None] = []

        def read() -> None:
            while (batch := source.read(60.0)) is not None:
                given.append(batch)
            given.append(None)

        thread = threading.Thread(target=read)
        thread.start()
        source.close()
        thread.join(30)
        assert given[-1] is None


# --- malformed answers ------------------------------------------------------------------------------------------------


def test_answers_that_are_none_are_counted_and_the_connection_made_anew() -> None:
    """A buffer that gives a good header, and then whatever it likes."""
    rng = np.random.default_rng(0)
    stop = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)  # closing it does not wake who accepts

    def serve() -> None:
        while not stop.is_set():
            with suppress(OSError):
                peer, _ = listener.accept()
                peer.settimeout(None)
                with peer:
                    answered = 0
                    while peer.recv(64):
                        answered += 1
                        good = wire.message(Command.GET_OK, header().encode())
                        peer.sendall(good if answered == 1 else malformed(rng))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with source_of(listener.getsockname()[1], retry_s=0.0) as source:
            seen = Seen(source)
            seen.until(lambda: source.refused >= 300)
        assert set(seen.states) == {SourceState.RECOVERING, SourceState.STREAMING}
        assert not seen.chunks
    finally:
        stop.set()
        listener.close()
        thread.join(30)
    assert not thread.is_alive()


def malformed(rng: np.random.Generator) -> bytes:
    """An answer to WAIT_DAT that is none: another version, another command, or a size that it cannot have."""
    match int(rng.integers(4)):
        case 0:
            return struct.pack("<H", int(rng.integers(2, 256))) + rng.bytes(30)
        case 1:
            return wire.message(int(rng.integers(0x500, 2**16)), rng.bytes(8))
        case 2:
            return struct.pack("<HHI", 1, Command.WAIT_OK, int(rng.integers(9, 2**32)))
        case _:
            return wire.message(Command.WAIT_OK, rng.bytes(int(rng.integers(0, 8))))


# --- rtdecode stream --fieldtrip --------------------------------------------------------------------------------------


def test_what_is_served_is_what_is_read_back() -> None:
    channels = (Channel("A", "mag", "T"), Channel("B", "ref_meg", "T"), Channel("S", "stim", "1"))
    info = StreamInfo(channels, 250.0)
    values = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    with FieldTripSender(info) as sender, source_of(sender.port, declare=Declare(), lateness_s=60) as source:
        assert source.info.channels == channels
        assert source.info.sfreq == 250.0
        assert sender.wait_for_consumers(60)
        sender._mark("Stimulus/S  1", 10.02)
        for begin in (0, 20, 60, 90):  # the last one behind a hole
            stop = {0: 20, 20: 60, 60: 80, 90: 100}[begin]
            stamps = 10 + np.arange(begin, stop) / 250
            sender._push(Chunk(values[begin:stop], stamps, begin))
        seen = Seen(source)
        seen.until(lambda: sum(map(len, seen.chunks)) == 90)
        seen.until(lambda: bool(seen.markers))
    given = np.concatenate([chunk.samples for chunk in seen.chunks])
    np.testing.assert_array_equal(given, np.delete(values, range(80, 90), axis=0))
    assert [chunk.segment for chunk in seen.chunks][-1] == 1
    assert seen.markers == ["Stimulus/S  1"]


@pytest.mark.parametrize("text", ["go", "Stimulus/S  1", "a/b/c", "/x", "x/", "/", "ä"])
def test_markers_survive_as_events(text: str) -> None:
    event = event_of(text, 3)
    assert event.text == text
    assert wire.decode_events(wire.encode_events([event])) == (event,)


def test_a_header_says_all_that_the_source_knows() -> None:
    channels = (Channel("A", "eeg", "V"), Channel("B", "misc", ""), Channel("C", "stim", "1"))
    one = Header.decode(header_of(StreamInfo(channels, 998.4)).encode(">"), ">")
    found = describe_header(one, Declare(), "it")
    assert found.channels == channels
    assert not found.declared_by_user


# --- clock ------------------------------------------------------------------------------------------------------------


def test_the_counter_fitted_to_recorded_arrivals_loses_most_of_their_jitter(shared_data: Path) -> None:
    """Arrival times of the blocks of a real session (buffer_bci)."""
    lines = (shared_data / "fieldtrip_buffer" / DUMPS[0] / "timing").read_text().split("\n")
    blocks = [(int(n), float(t)) for kind, n, t in (line.split() for line in lines if line.startswith("S "))]
    clock, count, lasts, holes = StreamClock(100.0), 0, [], []
    for n, arrived in blocks:
        (piece,) = clock.counted(count, n, arrived)
        count += n
        lasts.append((count - 1, arrived, piece.stamps[-1]))
        holes += [(arrived, piece.missing)] if piece.missing else []
    # Three times it stood still and did not make up for it: 1.3 s at once, 0.13 s and 0.16 s later.
    assert [missing for _, missing in holes] == [pytest.approx(n, abs=2) for n in (131, 13, 16)]
    assert clock.segment == 0
    index, arrived, stamps = np.array(lasts).T
    calm = (index > 3000) & (arrived < holes[2][0] - 1.5)  # from half a minute on, up to the third
    raw, fitted = (np.diff(x[calm]) - np.diff(index[calm]) / 100 for x in (arrived, stamps))
    assert np.std(fitted) < np.std(raw) / 8


def test_samples_that_the_counter_does_not_count_are_found_and_events_stay_on_theirs(server: FieldTripServer) -> None:
    with connected(server.port) as client:
        client.put_header(header())
        with source_of(server.port) as source:
            seen = Seen(source)
            period = 1 / source.info.sfreq
            due, n = hostclock.now(), 0

            def put_until(done: Callable[[], bool]) -> None:
                nonlocal due, n
                deadline = hostclock.now() + 60
                while not done():
                    assert hostclock.now() < deadline
                    due += 10 * period
                    while hostclock.now() < due:
                        pass
                    client.put_samples(ramp(n, n + 10))
                    n += 10
                    seen.until(lambda: len(seen.column()) == n)  # noqa: B023 - it is asked at once

            put_until(lambda: n >= 300)
            due += 2.0  # of samples that nobody counted
            put_until(lambda: any(chunk.invalidates is not None for chunk in seen.chunks))
            client.put_events([Event(Value.of("here"), Value.of(""), n - 1)])
            seen.until(lambda: bool(seen.markers))
    found = next(chunk for chunk in seen.chunks if chunk.invalidates is not None)
    before = next(chunk for a, chunk in zip(seen.chunks[1:], seen.chunks, strict=False) if a is found)
    assert found.invalidates is not None
    assert found.invalidates <= 300
    assert found.first_index - before.stop_index == pytest.approx(2.0 / period, rel=0.2)
    assert {chunk.segment for chunk in seen.chunks} == {0}
    (marker,) = [one for batch in seen.batches for one in batch.markers]
    assert marker.stamp == pytest.approx(seen.chunks[-1].stamps[-1], abs=1e-9)
