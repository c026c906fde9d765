"""The LSL source against real outlets in processes of their own: what goes wrong on a network, and what must not."""

import math
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import lsl_outlet
import numpy as np
import pytest
import source_files as files

from rtdecode import hostclock
from rtdecode.errors import SourceError, StampError, StreamNotFoundError
from rtdecode.record.xdf import text_samples
from rtdecode.signal import Batch, Chunk, Marker, Notice
from rtdecode.sources import lsl_markers
from rtdecode.sources.declare import Declare
from rtdecode.sources.lsl import LslSource, MarkerQuery
from rtdecode.sources.lsl_streams import channels_of
from rtdecode.sources.recording import RecordingSource


@pytest.fixture
def outlets(lsl_here: Path) -> Iterator[Callable[..., lsl_outlet.Outlet]]:
    """Starts senders, and ends them with the test."""
    started: list[lsl_outlet.Outlet] = []

    def start(**spec: object) -> lsl_outlet.Outlet:
        started.append(lsl_outlet.Outlet(lsl_here, **spec))
        return started[-1]

    yield start
    for outlet in started:
        outlet.close()


def read_until(source: LslSource, enough: Callable[[list[Batch]], bool], limit: float = 20.0) -> list[Batch]:
    batches: list[Batch] = []
    deadline = hostclock.now() + limit
    while not enough(batches):
        assert hostclock.now() < deadline, f"not within {limit} s; so far {batches}"
        batch = source.read(0.2)
        assert batch is not None, "the source has ended"
        batches.append(batch)
    return batches


def samples(n: int) -> Callable[[list[Batch]], bool]:
    return lambda batches: sum(len(b.chunk) for b in batches if b.chunk is not None) >= n


def markers(n: int) -> Callable[[list[Batch]], bool]:
    return lambda batches: sum(len(b.markers) for b in batches) >= n


def chunks_of(batches: list[Batch]) -> list[Chunk]:
    return [batch.chunk for batch in batches if batch.chunk is not None]


def ramp(n: int, columns: int = 2) -> np.ndarray:
    return np.arange(n * columns, dtype=np.float64).reshape(n, columns)


def test_stamps_of_this_host_are_the_senders(outlets: Callable[..., lsl_outlet.Outlet]) -> None:
    outlet = outlets(format="float32", channels=[["A", "EEG", "V"], ["B", "EEG", "V"]])
    values = np.random.default_rng(0).standard_normal((50, 2)).astype(np.float32)
    with LslSource(name=outlet.name, timeout_s=20) as source:
        stamps = hostclock.now() + np.arange(50) / 100
        outlet.push(values, stamps)
        chunks = chunks_of(read_until(source, samples(50)))
    np.testing.assert_allclose(np.concatenate([c.stamps for c in chunks]), stamps, rtol=0, atol=1e-8)
    assert np.concatenate([c.samples for c in chunks]).tobytes() == values.tobytes()
    assert all(chunk.arrived <= hostclock.now() for chunk in chunks)


def test_no_such_stream_lists_those_that_are(outlets: Callable[..., lsl_outlet.Outlet]) -> None:
    outlet = outlets()
    with pytest.raises(StreamNotFoundError) as caught:
        LslSource(name="nobody", timeout_s=0.3).open()
    message = str(caught.value)
    for part in ("nobody", outlet.name, "'EEG'", "2 channels", "100 Hz", "source_id", "[source]"):
        assert part in message


def test_a_search_ends_when_its_time_is_over(lsl_here: Path) -> None:
    """Against a search of 4 s that begins with it: liblsl takes 5.5 s for one of 0.5 s, and cannot be interrupted."""
    import pylsl

    longer = threading.Thread(target=pylsl.resolve_bypred, args=("name='nobody'", 1, 4.0))
    longer.start()
    with pytest.raises(StreamNotFoundError, match=r"within 0\.5 s"):
        LslSource(name="nobody", timeout_s=0.5).open()
    assert longer.is_alive()
    longer.join()


def test_two_that_match_are_both_listed(outlets: Callable[..., lsl_outlet.Outlet]) -> None:
    first = outlets(type="Twins", source_id="left-one")
    outlets(name=first.name, type="Twins", source_id="right-one")
    with pytest.raises(SourceError, match="2 LSL streams") as caught:
        LslSource(name=first.name, timeout_s=20).open()
    assert "left-one" in str(caught.value)
    assert "right-one" in str(caught.value)
    with LslSource(name=first.name, source_id="right-one", timeout_s=20) as source:
        assert source.read(0.01) is not None


@pytest.mark.parametrize(
    ("spec", "message"),
    [({"sfreq": 0}, "irregular.*expected a regular rate"), ({"format": "string"}, "holds text.*expected numbers")],
)
def test_streams_that_cannot_be_decoded(
    outlets: Callable[..., lsl_outlet.Outlet], spec: dict[str, object], message: str
) -> None:
    outlet = outlets(**spec)
    with pytest.raises(SourceError, match=message):
        LslSource(name=outlet.name, timeout_s=20).open()


def test_what_is_not_declared_is_declared_by_the_user(outlets: Callable[..., lsl_outlet.Outlet]) -> None:
    outlet = outlets(described=False, format="double64")
    declare = Declare("uV", ["C3", "C4"])
    with LslSource(name=outlet.name, declare=declare, timeout_s=20) as source:
        outlet.push(ramp(3), [1.0, 1.01, 1.02])
        chunk = chunks_of(read_until(source, samples(3)))
        assert source.info.names == ("C3", "C4")
        assert source.info.declared_by_user == ("names of 2 channels", "unit of 2 channels: uV")
    np.testing.assert_array_equal(np.concatenate([c.samples for c in chunk]), (ramp(3) * 1e-6).astype(np.float32))


def test_stamps_that_are_no_numbers(outlets: Callable[..., lsl_outlet.Outlet]) -> None:
    outlet = outlets()
    with LslSource(name=outlet.name, timeout_s=20) as source:
        outlet.push(ramp(3), [5.0, 5.01, math.nan])
        with pytest.raises(StampError, match=r"LSL stream 's-.*sample 2 is nan"):
            read_until(source, samples(3))


def test_stamps_that_stand_still_or_run_backwards_are_made_even(outlets: Callable[..., lsl_outlet.Outlet]) -> None:
    outlet = outlets()
    stamps = 5 + np.arange(50) / 100
    stamps[7], stamps[20] = stamps[6], stamps[18]
    with LslSource(name=outlet.name, timeout_s=20) as source:
        outlet.push(ramp(50), stamps)
        chunks = chunks_of(read_until(source, samples(50)))
    found = np.concatenate([c.stamps for c in chunks])
    assert (np.diff(found) > 0).all()
    assert np.abs(found - (5 + np.arange(50) / 100)).max() < 0.005
    assert {c.segment for c in chunks} == {0}


def test_a_clock_that_is_set_begins_another_segment(outlets: Callable[..., lsl_outlet.Outlet]) -> None:
    """Else every window of the years between would be due."""
    outlet = outlets()
    stamps = [5.0, 5.01, 5.05, 3604.0, 1.7e9, 1.7e9 + 0.01]
    with LslSource(name=outlet.name, timeout_s=20) as source:
        outlet.push(ramp(6), stamps)
        chunks = chunks_of(read_until(source, samples(6)))
    found = [(c.segment, c.first_index + k, stamp) for c in chunks for k, stamp in enumerate(c.stamps.tolist())]
    places = [(0, 0), (0, 1), (0, 5), (0, 359900), (1, 0), (1, 1)]
    assert [place[:2] for place in found] == places
    np.testing.assert_allclose([place[2] for place in found], stamps, rtol=0, atol=1e-6)


def test_markers_of_several_streams_numbers_and_text(outlets: Callable[..., lsl_outlet.Outlet]) -> None:
    amp = outlets(markers="words")
    keys = outlets(markers="codes", marker_format="int32")
    queries = [MarkerQuery("words"), MarkerQuery("codes")]
    with LslSource(name=amp.name, markers=queries, timeout_s=20, lateness_s=0.3) as source:
        now = hostclock.now()
        amp.mark(("look, left", now), ("é", now + 0.01))
        keys.mark((7, now + 0.005))
        batches = read_until(source, markers(3))
        found = sorted(m for b in batches for m in b.markers)
        assert found == [
            Marker(now, "look, left", "words"),
            Marker(now + 0.005, "7", "codes"),
            Marker(now + 0.01, "é", "words"),
        ]
        amp.push(ramp(2), [now + 0.4, now + 0.41])
        passed = read_until(source, lambda b: bool(b) and b[-1].watermark > now)
        # It never runs ahead of the time it was said at, nor of the samples, less the lateness.
        assert passed[-1].watermark <= min(hostclock.now(), now + 0.4101) - 0.3


def test_a_sender_whose_stamps_lie_behind_has_its_markers_in_time(
    outlets: Callable[..., lsl_outlet.Outlet],
) -> None:
    """By a minute: markers are complete by the samples' stamps, not by when they came."""
    amp = outlets(markers="cues")
    with LslSource(name=amp.name, markers=[MarkerQuery("cues")], timeout_s=20, lateness_s=0.2) as source:
        zero = hostclock.now() - 60.0
        amp.push(ramp(60), zero + np.arange(60) / 100)
        before = read_until(source, samples(60))
        amp.mark(("x", zero + 0.55))
        marked = read_until(source, markers(1))
        assert max(b.watermark for b in [*before, *marked]) < zero + 0.55
        amp.push(ramp(60), zero + (60 + np.arange(60)) / 100)
        after = read_until(source, samples(60))
        assert after[-1].watermark == pytest.approx(zero + 1.19 - 0.2, abs=1e-3)


def test_text_that_is_not_utf8_loses_no_marker(outlets: Callable[..., lsl_outlet.Outlet]) -> None:
    amp = outlets(markers="words")
    with LslSource(name=amp.name, markers=[MarkerQuery("words")], timeout_s=20) as source:
        now = hostclock.now()
        amp.mark(("M\udcfcnchen", now), ("next", now + 0.01))  # the outlet sends the byte 0xfc: Latin-1
        found = sorted(m for b in read_until(source, markers(2)) for m in b.markers)
    assert [m.value for m in found] == ["M\ufffdnchen", "next"]


def test_the_watermark_goes_on_while_markers_come_without_a_pause(outlets: Callable[..., lsl_outlet.Outlet]) -> None:
    amp = outlets(markers="codes", marker_format="int32")
    with LslSource(name=amp.name, markers=[MarkerQuery("codes")], timeout_s=20, lateness_s=0.0) as source:
        began = hostclock.now()
        passed = -math.inf
        n = 0
        while passed <= began:
            assert hostclock.now() < began + 20, f"{n} markers came and the watermark stands at {passed - began} s"
            n += 1
            amp.push(ramp(1), [hostclock.now()])
            amp.mark((n, hostclock.now()))
            batch = source.read(0.0)
            assert batch is not None
            passed = batch.watermark


def test_a_thread_that_fails_ends_the_source(
    outlets: Callable[..., lsl_outlet.Outlet], monkeypatch: pytest.MonkeyPatch
) -> None:
    amp = outlets(markers="words")

    def broken(row: object) -> str:
        raise ValueError(f"cannot read {row}")

    monkeypatch.setattr(lsl_markers, "marker_value", broken)
    with LslSource(name=amp.name, markers=[MarkerQuery("words")], timeout_s=20) as source:
        amp.mark(("go", hostclock.now()))
        with pytest.raises(ValueError, match="cannot read"):
            read_until(source, lambda _: False)
        assert source.read(0.0) is None


def test_a_marker_stream_that_is_none(outlets: Callable[..., lsl_outlet.Outlet]) -> None:
    amp = outlets()
    with pytest.raises(SourceError, match=r"regular rate.*expected a marker stream"):
        LslSource(name=amp.name, markers=[MarkerQuery(amp.name)], timeout_s=20).open()


def test_what_came_is_given_as_it_came(outlets: Callable[..., lsl_outlet.Outlet]) -> None:
    amp = outlets(format="int16", markers="words")
    keys = outlets(markers="codes", marker_format="int32")
    values = np.arange(-20, 20).reshape(20, 2)
    queries = [MarkerQuery("words"), MarkerQuery("codes")]
    with LslSource(name=amp.name, markers=queries, timeout_s=20) as source:
        now = hostclock.now()
        stamps = now + np.arange(20) / 100
        amp.push(values, stamps)
        amp.mark(("look, left", now), ("é", now + 0.01))
        keys.mark((7, now + 0.005))
        batches = read_until(source, lambda batches: samples(20)(batches) and markers(3)(batches))
        origins = source.origins
    assert [(o.name, o.format, o.sfreq, o.n_channels) for o in origins] == [
        (amp.name, "int16", 100.0, 2),
        ("words", "string", 0.0, 1),
        ("codes", "int32", 0.0, 1),
    ]
    assert all(f"<name>{o.name}</name>" in o.xml for o in origins)
    assert "<label>A</label>" in origins[0].xml
    raw = [[one for batch in batches for one in batch.raw if one.stream == k] for k in range(3)]
    assert np.concatenate([one.values for one in raw[0]]).dtype == np.int16
    np.testing.assert_array_equal(np.concatenate([one.values for one in raw[0]]), values)
    assert np.concatenate([one.stamps for one in raw[0]]).tobytes() == stamps.tobytes()
    assert [text for one in raw[1] for text in one.values] == ["look, left", "é"]
    assert np.concatenate([one.stamps for one in raw[1]]).tolist() == [now, now + 0.01]
    assert np.concatenate([one.values for one in raw[2]]).dtype == np.int32
    assert np.concatenate([one.values for one in raw[2]]).tolist() == [[7]]
    offsets = [offset for batch in batches for offset in batch.offsets]
    assert {offset.stream for offset in offsets} == {0, 1, 2}  # one each at the start
    assert all(abs(offset.value) < 0.1 and offset.uncertainty > 0 for offset in offsets)


def test_a_marker_stream_that_is_lost_is_told_and_holds_nothing_back(
    outlets: Callable[..., lsl_outlet.Outlet],
) -> None:
    amp = outlets()
    keys = outlets(markers="codes", marker_format="int32")
    with LslSource(name=amp.name, markers=[MarkerQuery("codes")], timeout_s=30, lateness_s=0.0) as source:
        keys.kill()
        batches = read_until(source, lambda so_far: any(b.notices for b in so_far))
        lost = hostclock.now()
        amp.push(ramp(1), [lost + 1.0])
        read_until(source, lambda so_far: bool(so_far) and so_far[-1].watermark > lost + 0.5)
        keys.restart()
        batches += read_until(source, lambda so_far: any(b.notices for b in so_far))
        again = hostclock.now()
        keys.mark((8, again))
        found = [m for b in read_until(source, markers(1)) for m in b.markers]
    said = [notice for batch in batches for notice in batch.notices]
    assert [(one.event, one.state, one.details["lost"]) for one in said] == [
        ("markers", None, True),
        ("markers", None, False),
    ]
    assert found == [Marker(again, "8", "codes")]


def test_a_killed_sender_comes_back_as_another_segment(outlets: Callable[..., lsl_outlet.Outlet]) -> None:
    outlet = outlets(markers="cues")
    with LslSource(name=outlet.name, markers=[MarkerQuery("cues")], timeout_s=30) as source:
        outlet.push(ramp(30), 100 + np.arange(30) / 100)
        before = chunks_of(read_until(source, samples(30)))
        outlet.kill()
        outlet.restart()
        # It may be asked to send before it has been found again: a sender keeps nothing for those who come later.
        pushed = 0
        batches: list[Batch] = []
        while not (chunks_of(batches) and any(b.markers for b in batches)):
            assert pushed < 300, "the stream was not found again"
            outlet.push(ramp(10), 50 + (pushed + np.arange(10)) / 100)  # another clock: earlier stamps
            outlet.mark(("again", 50 + pushed / 100))
            pushed += 10
            batches += [batch for _ in range(3) if (batch := source.read(0.1)) is not None]
        behind = chunks_of(batches)
        assert {chunk.segment for chunk in before} == {0}
        assert {chunk.segment for chunk in behind} == {1}
        assert behind[0].first_index == 0
        assert source.reconnects == 1


def test_no_more_is_gathered_than_is_wanted(outlets: Callable[..., lsl_outlet.Outlet]) -> None:
    outlet = outlets()
    with LslSource(name=outlet.name, timeout_s=30) as source:
        outlet.push(ramp(10), 100 + np.arange(10) / 100)
        read_until(source, samples(10))
        until = hostclock.now() + 60
        source.gather(until, 30)
        for k in range(2):
            outlet.push(ramp(15), 100.1 + (15 * k + np.arange(15)) / 100)
        read_until(source, samples(30))
        assert hostclock.now() < until, "what was wanted waited for more"


def test_what_is_gathered_comes_in_one_piece_also_where_its_sender_dies(
    outlets: Callable[..., lsl_outlet.Outlet],
) -> None:
    outlet = outlets()
    with LslSource(name=outlet.name, timeout_s=30) as source:
        outlet.push(ramp(10), 100 + np.arange(10) / 100)
        read_until(source, samples(10))
        puller = source._data._puller
        assert puller is not None
        source.gather(hostclock.now() + 60, 1000)

        def die() -> None:
            for k in range(2):
                before = puller.arrived
                outlet.push(ramp(15), 100.1 + (15 * k + np.arange(15)) / 100)
                while puller.arrived == before:
                    threading.Event().wait(0.01)
            outlet.kill()

        killed = threading.Thread(target=die)
        killed.start()
        assert [(chunk.first_index, len(chunk)) for chunk in chunks_of(read_until(source, samples(30)))] == [(10, 30)]
        killed.join()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sfreq": 250.0}, "other rate: 250 Hz instead of 100 Hz"),
        ({"channels": [["A", "EEG", "uV"], ["B", "EEG", "mV"]], "format": "int16"}, "other format: int16 .*other unit"),
    ],
)
def test_a_sender_that_stays_another_ends_the_source_with_the_difference(
    outlets: Callable[..., lsl_outlet.Outlet], changes: dict[str, object], message: str
) -> None:
    outlet = outlets()
    with LslSource(name=outlet.name, timeout_s=20) as source:
        source._data.timeout_s = 2.0  # from when it was refused
        outlet.kill()
        outlet.restart(**changes)
        said: list[Notice] = []

        def never(batches: list[Batch]) -> bool:
            said.extend(batches[-1].notices if batches else ())
            return False

        with pytest.raises(SourceError, match=message):
            read_until(source, never)
        assert source.read(0.0) is None
    assert [notice.state for notice in said] == ["recovering", "changed"]
    assert re.search(message, said[1].text)


def test_a_sender_that_stays_away_ends_the_source(outlets: Callable[..., lsl_outlet.Outlet]) -> None:
    outlet = outlets(markers="cues")
    with LslSource(name=outlet.name, markers=[MarkerQuery("cues")], timeout_s=10, end_when_lost=False) as source:
        source._data.timeout_s = 1.0  # the start may need longer on a busy machine
        outlet.push(ramp(5), 100 + np.arange(5) / 100)
        read_until(source, samples(5))
        outlet.close()
        batches = []
        while (batch := source.read(5.0)) is not None:
            batches.append(batch)
    assert batches[-1].watermark == math.inf


def test_a_read_that_waits_ends_when_the_source_is_closed(outlets: Callable[..., lsl_outlet.Outlet]) -> None:
    outlet = outlets()
    source = LslSource(name=outlet.name, timeout_s=20)
    source.open()
    found: list[Batch | None] = []
    reader = threading.Thread(target=lambda: found.append(source.read(60.0)))
    reader.start()
    source.close()
    reader.join(timeout=20)
    assert found == [None]
    source.close()


def test_rtdecode_stream_serves_a_recording_as_it_is(lsl_here: Path, tmp_path: Path) -> None:
    """The command in a process of its own, one second of EDF with markers, against the file read directly."""
    path = tmp_path / "short.edf"
    path.write_bytes(files.edf_bytes(files.counts(200), annotations=[(0.5, "go"), (1.255, "left")]))
    command = [sys.executable, "-m", "rtdecode", "stream", str(path), "--markers", "cues", "--wait", "60"]
    env = {**os.environ, "LSLAPICFG": str(lsl_here)}
    served = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    with LslSource(name="short", markers=[MarkerQuery("cues")], timeout_s=60, end_when_lost=True) as source:
        assert {(c.type, c.unit) for c in source.info.channels} == {("eeg", "V")}
        batches = []
        while (batch := source.read(5.0)) is not None:
            batches.append(batch)
    said = served.communicate(timeout=60)[1]
    assert served.returncode == 0, said
    assert "served 200 samples and 2 markers" in said
    with RecordingSource(path) as recording:
        whole = recording.read()
        rest = recording.read()
    assert whole is not None
    assert whole.chunk is not None
    assert rest is not None
    assert rest.chunk is not None
    chunks = chunks_of(batches)
    expected = np.concatenate([whole.chunk.samples, rest.chunk.samples])
    assert np.concatenate([c.samples for c in chunks]).tobytes() == expected.tobytes()
    zero = chunks[0].stamps[0]
    stamps = np.concatenate([c.stamps for c in chunks])
    np.testing.assert_allclose(stamps - zero, np.arange(200) / 100, atol=1e-9)
    found = sorted(m for b in batches for m in b.markers)
    assert [m.value for m in found] == ["go", "left"]
    np.testing.assert_allclose([m.stamp - zero for m in found], [0.5, 1.255], atol=1e-9)


def test_rtdecode_stream_says_what_is_wrong(lsl_here: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.edf"
    path.write_bytes(files.edf_bytes(files.counts(200)))
    env = {**os.environ, "LSLAPICFG": str(lsl_here)}
    for arguments, code, message in [
        ([str(tmp_path / "none.edf")], 3, "does not exist"),
        ([str(path), "--speed", "0"], 2, "--speed is 0.0"),
        ([str(path), "--wait", "0.2"], 3, "nobody took the stream"),
    ]:
        command = [sys.executable, "-m", "rtdecode", "stream", *arguments]
        done = subprocess.run(command, env=env, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_rtdecode_stream_on_a_port_that_is_taken_says_so_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "short.edf"
    path.write_bytes(files.edf_bytes(files.counts(200)))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "rtdecode", "stream", str(path), "--fieldtrip", where]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 7, done.stderr
    assert where in done.stderr
    assert "channels (" not in done.stderr


def test_text_that_is_not_utf8_is_recorded_byte_for_byte() -> None:
    marked = [lsl_markers.Marked(np.array([b"caf\xe9"], object), 1.0, None)]
    raw = lsl_markers.raw_markers(1, marked)
    assert isinstance(raw.values, tuple)
    assert b"caf\xe9" in text_samples(2, raw.stamps.tolist(), [[value] for value in raw.values])


def test_a_description_that_is_no_xml_is_refused_by_name() -> None:
    import pylsl

    info = pylsl.StreamInfo("amp", "EEG", 1, 100.0, "float32", "amp-1")
    channel = info.desc().append_child("channels").append_child("channel")
    channel.append_child_value("label", "a\x01b")
    with pytest.raises(SourceError, match=r"name 'amp'.* has a description that is no XML"):
        channels_of(info)
