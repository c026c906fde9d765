"""XDF as bytes: what pyxdf reads of what is written, and what a repair saves of a file that was cut at any byte."""

import io
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyxdf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rtdecode.errors import RecordingError
from rtdecode.record import xdf
from rtdecode.record.disk import claimed
from rtdecode.record.info import describe
from rtdecode.record.repair import examine, repair
from rtdecode.signal import Origin
from rtdecode.sources.xdf_chunks import DTYPES, MAGIC, Torn, read_head, read_samples, scan


def read(data: bytes) -> list[dict[str, Any]]:
    """What pyxdf makes of a file, which it must not complain about."""
    complaints: list[str] = []

    class Complaint(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complaints.append(record.getMessage())

    handler = Complaint(logging.ERROR)
    logging.getLogger("pyxdf").addHandler(handler)
    try:
        streams, _ = pyxdf.load_xdf(io.BytesIO(data), dejitter_timestamps=False)
    finally:
        logging.getLogger("pyxdf").removeHandler(handler)
    assert not complaints
    return list(streams)


def file_of(origin: Origin, *chunks: bytes) -> bytes:
    return MAGIC + xdf.file_header((("writer", "a & b <c>"),)) + xdf.stream_header(7, origin) + b"".join(chunks)


@pytest.mark.parametrize("form", list(DTYPES))
@given(data=st.data())
@settings(max_examples=25)
def test_pyxdf_and_we_read_numbers_of_every_type_as_they_were_written(form: str, data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(0, 300), st.integers(1, 5)))
    values = data.draw(hnp.arrays(DTYPES[form], shape))
    stamps = np.array(data.draw(st.lists(st.floats(-1e9, 1e9), min_size=shape[0], max_size=shape[0])), np.float64)
    origin = Origin("amp <1> \x02", "EEG", format=form, n_channels=shape[1])
    chunk = xdf.samples(7, form, stamps, values)
    (stream,) = read(file_of(origin, chunk, xdf.boundary(), xdf.stream_footer(7, xdf.Tally(shape[0]))))
    assert stream["info"]["name"] == ["amp <1> ?"]
    if shape[0]:
        assert stream["time_series"].tobytes() == values.tobytes()
        assert stream["time_series"].dtype == np.dtype(DTYPES[form])
        assert stream["time_stamps"].tobytes() == stamps.tobytes()
    head = read_head(stream_header_of(origin))
    ours_stamps, ours = read_samples(head, content_of(chunk))
    assert isinstance(ours, np.ndarray)
    assert (ours_stamps.tobytes(), ours.tobytes()) == (stamps.tobytes(), values.tobytes())


@given(
    rows=st.lists(st.tuples(st.text(max_size=400), st.text(max_size=8)), min_size=1, max_size=20),
    stamp=st.floats(-1e9, 1e9),
)
def test_text_comes_back_as_it_was(rows: list[tuple[str, str]], stamp: float) -> None:
    origin = Origin("m", "Markers", n_channels=2)
    chunk = xdf.text_samples(7, [stamp] * len(rows), rows)
    (stream,) = read(file_of(origin, chunk))
    assert [tuple(row) for row in stream["time_series"]] == rows
    assert set(stream["time_stamps"]) == {stamp}
    assert read_samples(read_head(stream_header_of(origin)), content_of(chunk))[1] == rows


def stream_header_of(origin: Origin) -> bytes:
    return content_of(xdf.stream_header(7, origin))


def content_of(chunk: bytes) -> bytes:
    (block,) = scan(MAGIC + chunk)
    assert not isinstance(block, Torn)
    return block.content


def test_bytes_that_were_no_utf8_come_back_as_the_same_bytes() -> None:
    broken = b"stim \xff\xfe".decode("utf-8", "surrogateescape")
    assert b"stim \xff\xfe" in xdf.text_samples(1, [0.0], [[broken]])


def test_samples_without_a_stamp_of_their_own_count_from_the_one_before() -> None:
    head = read_head(stream_header_of(Origin("a", "EEG", sfreq=100.0, format="int16", n_channels=1)))
    first = b"\x08" + np.float64(5.0).tobytes() + np.int16(1).tobytes()
    stamps, values = read_samples(head, b"\x01\x03" + first + b"\x00" + np.int16(2).tobytes() * 1 + b"\x00\x03\x00")
    assert stamps.tolist() == [5.0, 5.01, 5.02]
    assert np.asarray(values).ravel().tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x02\x01",
        b"\x01\x05\x08",
        b"\x01\x01\x07" + bytes(12),
        b"\x01\x01\x08" + bytes(20),
        b"\x04\xff\xff\xff\x7f",
    ],
    ids=["empty", "no varlen", "short", "stamp size", "too long", "two thousand million samples"],
)
def test_a_samples_chunk_that_is_none_is_refused(content: bytes) -> None:
    for form in ("int16", "string"):
        head = read_head(stream_header_of(Origin("a", "EEG", sfreq=100.0, format=form, n_channels=2)))
        with pytest.raises(ValueError, match="chunk"):
            read_samples(head, content)


def test_the_offsets_take_stamps_to_host_time_in_pyxdf() -> None:
    """The sender's clock is 1000 s behind ours and loses 50 us a second."""
    host = 5000.0 + np.arange(0, 600, 0.1)
    own = (host - 5000.0) * (1 - 50e-6) + 4000.0
    origin = Origin("a", "EEG", sfreq=10.0, format="float32", n_channels=1)
    offsets = [xdf.clock_offset(7, own[k], host[k] - own[k]) for k in range(0, len(host), 50)]
    (stream,) = read(file_of(origin, xdf.samples(7, "float32", own, np.zeros((len(own), 1), np.float32)), *offsets))
    np.testing.assert_allclose(stream["time_stamps"], host, atol=1e-6)


def test_a_senders_own_description_stands_in_the_header_as_it_is() -> None:
    own = (
        '<?xml version="1.0"?><info><name>Amp</name><type>EEG</type><channel_count>2</channel_count>'
        "<channel_format>int16</channel_format><nominal_srate>500</nominal_srate>"
        "<desc><maker>Ümlaut</maker></desc></info>"
    )
    origin = Origin("Amp", "EEG", sfreq=500, format="int16", n_channels=2, xml=own)
    assert own.encode() in xdf.stream_header(1, origin)
    other = Origin("Amp", "EEG", sfreq=500, format="float32", n_channels=2, xml=own)  # of another format: not as it is
    head = read_head(stream_header_of(other))
    assert (head.format, head.text("desc/maker")) == ("float32", "Ümlaut")


# --- cut short --------------------------------------------------------------------------------------------------------


def small_file() -> tuple[bytes, list[tuple[int, int, int]]]:
    """A file of two streams; and for each chunk of samples where it ends, its stream, and how many samples it has."""
    parts = [MAGIC, xdf.file_header()]
    parts.append(xdf.stream_header(1, Origin("a", "EEG", sfreq=100.0, format="int16", n_channels=2)))
    parts.append(xdf.stream_header(2, Origin("m", "Markers")))
    ends = []
    for k in range(6):
        stamps = k + np.arange(3) / 100
        parts.append(xdf.samples(1, "int16", stamps, np.full((3, 2), k, np.int16)))
        ends.append((sum(map(len, parts)), 1, 3))
        parts.append(xdf.text_samples(2, [float(k)], [[f"marker {k}"]]))
        ends.append((sum(map(len, parts)), 2, 1))
        parts += [xdf.clock_offset(1, float(k), 0.5)] + ([xdf.boundary()] if k % 2 else [])
    parts += [xdf.stream_footer(1, xdf.Tally(18)), xdf.stream_footer(2, xdf.Tally(6))]
    return b"".join(parts), ends


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: every repair waits until the disk has it."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


def test_cut_at_any_byte_a_repaired_file_opens_and_has_lost_the_tail_alone(in_memory: Path) -> None:
    whole, ends = small_file()
    first = whole.index(b"marker 0")
    for cut in range(first, len(whole)):
        path = in_memory / "cut.xdf"
        path.write_bytes(whole[:cut])
        done = repair(path)
        assert done.kept is not None
        assert done.kept.read_bytes() == whole[:cut]
        streams = {s["info"]["name"][0]: s for s in read(path.read_bytes())}
        for number, name in ((1, "a"), (2, "m")):
            n = sum(count for end, stream, count in ends if stream == number and end <= cut)
            assert len(streams[name]["time_stamps"]) == n if name in streams else n == 0
            if n:
                assert streams[name]["footer"]["info"]["sample_count"] in ([str(n)], ["18"], ["6"])
        assert examine(path).whole
        done.kept.unlink()
        path.unlink()


def test_before_the_first_header_there_is_nothing_to_make_whole(tmp_path: Path) -> None:
    whole, _ = small_file()
    header = len(MAGIC) + len(xdf.file_header())
    for cut in [*range(len(MAGIC), header, 7), *range(header + 1, whole.index(b"<info><name>a"), 7)]:
        path = tmp_path / "cut.xdf"
        path.write_bytes(whole[:cut])
        with pytest.raises(RecordingError, match="nothing to make whole"):
            repair(path)
        assert path.read_bytes() == whole[:cut]


@pytest.mark.parametrize("seed", range(40))
def test_damage_costs_what_lies_before_the_next_boundary(tmp_path: Path, seed: int) -> None:
    whole, _ = small_file()
    rng = np.random.default_rng(seed)
    at = int(rng.integers(whole.index(b"marker 0"), len(whole) - 40))
    damaged = bytearray(whole)
    damaged[at : at + 9] = rng.bytes(9)
    path = tmp_path / "damaged.xdf"
    path.write_bytes(bytes(damaged))
    repair(path)
    assert examine(path).whole
    streams = {s["info"]["name"][0]: s for s in read(path.read_bytes())}
    assert len(streams["a"]["time_stamps"]) >= 18 - 9


def test_a_repair_that_was_broken_off_is_in_nobodys_way(tmp_path: Path) -> None:
    whole, _ = small_file()
    path = tmp_path / "a[1].xdf"
    path.write_bytes(whole[:-30])
    for left in ("a[1].xdf.repairing", "a[1].xdf.0badcafe.repairing", "b.xdf.0badcafe.repairing"):
        (tmp_path / left).write_bytes(b"a part of it")
    assert repair(path).kept is not None
    assert examine(path).whole
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "a[1].xdf",
        "a[1].xdf.cut",
        "b.xdf.0badcafe.repairing",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows replaces no file that is open")
def test_two_do_not_repair_one_file_at_once(tmp_path: Path) -> None:
    whole, _ = small_file()
    path = tmp_path / "a.xdf"
    path.write_bytes(whole[:-30])
    with claimed(path) as free:
        assert free
        with pytest.raises(RecordingError, match="or repaired"):
            repair(path)
        assert describe(path)["written"]
    assert not describe(path)["written"]
    assert repair(path).kept is not None


def test_a_whole_file_is_left_alone_and_an_existing_one_never_overwritten(tmp_path: Path) -> None:
    whole, _ = small_file()
    path, other = tmp_path / "a.xdf", tmp_path / "b.xdf"
    path.write_bytes(whole)
    assert repair(path).kept is None
    assert [one.name for one in tmp_path.iterdir()] == ["a.xdf"]
    other.write_bytes(b"mine")
    with pytest.raises(RecordingError, match="exists"):
        repair(path, other)
    assert other.read_bytes() == b"mine"
    path.write_bytes(whole[:-30])
    (tmp_path / "a.xdf.cut").write_bytes(b"an earlier one")
    kept = repair(path).kept
    assert kept is not None
    assert kept.name == "a.xdf.cut-2"


@pytest.mark.parametrize(("content", "match"), [(b"", "no XDF"), (b"XDG:...", "no XDF"), (None, "check the path")])
def test_what_is_no_xdf_file_is_refused(tmp_path: Path, content: bytes | None, match: str) -> None:
    path = tmp_path / "a.xdf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordingError, match=match):
        repair(path)
