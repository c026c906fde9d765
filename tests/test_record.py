"""The recorder: what it writes is what was given, whatever the disk does; names; notices."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyxdf
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdecode.errors import ConfigError, RecordingError
from rtdecode.record.info import describe
from rtdecode.record.names import Entities, suffix_of
from rtdecode.record.recorder import RESULT_BYTES, Recorder
from rtdecode.record.recorder import RESULTS as QUEUED_RESULTS
from rtdecode.record.repair import examine, repair
from rtdecode.record.session import About, SessionFile
from rtdecode.record.settings import Settings
from rtdecode.signal import Batch, Channel, Chunk, Marker, Notice, Offset, Origin, Raw, StreamInfo, even_stamps
from rtdecode.sources.recording import RecordingSource
from rtdecode.sources.session_reader import CLOCK, RESULTS, SAMPLES, SessionReader, load_session
from rtdecode.sources.units import to_si

INFO = StreamInfo((Channel("A", "eeg", "V"), Channel("B", "eeg", "V", (0.01, 0.02, 0.03))), 250.0, "lsl:amp", "amp-1")
SCALES = (1e-6, 1e-3)
ORIGINS = (
    Origin("amp", "EEG", sfreq=250.0, format="int16", n_channels=2, scales=SCALES),
    Origin("keys", "Markers"),
)
ABOUT = About({"writer": "test"}, {"clock_id": "lsl:host:boot"})


def batches(n: int, size: int = 5, seed: int = 0) -> list[Batch]:
    """Live batches: raw int16 samples, host stamps 100 s ahead of the sender's, a hole and a restart, markers."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(n):
        raw = rng.integers(-3000, 3000, (size, 2)).astype(np.int16)
        segment = int(k >= 2 * n // 3)
        first = k * size + (70 if k >= n // 3 else 0) - segment * 1000
        own = 10.0 + first / 250.0 + np.arange(size) / 250.0 + segment * 5
        stamps = even_stamps(own[0] + 100.0, own[-1] + 100.0, size)
        chunk = Chunk(
            to_si(raw, np.array(SCALES)), stamps, first, segment, stamps[-1] + 0.01, 0.001, 3 if k == n // 3 else None
        )
        markers = (Marker(float(stamps[0]), f"stimulus {k} \u00e9\n", "keys"),) if k % 3 == 0 else ()
        texts = (Raw(1, tuple(m.value for m in markers), own[: len(markers)]),) if markers else ()
        made.append(
            Batch(
                chunk, markers, float(stamps[-1]) - 0.5, (Raw(0, raw, own), *texts), (Offset(0, own[0], 100.0, 1e-4),)
            )
        )
    return made


def write(path: Path, given: Sequence[Batch], info: StreamInfo = INFO, origins: Sequence[Origin] = ORIGINS) -> None:
    file = SessionFile(info, origins, ABOUT, 1.0)
    data = [file.begin(), *(file.batch(batch, 1000.0 + k) for k, batch in enumerate(given)), file.end({})]
    path.write_bytes(b"".join(data))


def read_all(path: Path) -> list[Batch]:
    found = []
    with RecordingSource(path) as source:
        while (batch := source.read()) is not None:
            found.append(batch)
    return found


def assert_same(one: Sequence[Batch], other: Sequence[Batch]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert list(a.markers) == list(b.markers)
        assert a.watermark == b.watermark
        assert (a.chunk is None) == (b.chunk is None)
        if a.chunk is not None and b.chunk is not None:
            assert a.chunk.samples.tobytes() == b.chunk.samples.tobytes()
            assert a.chunk.stamps.tobytes() == b.chunk.stamps.tobytes()
            for what in ("first_index", "segment", "uncertainty", "invalidates"):
                assert getattr(a.chunk, what) == getattr(b.chunk, what)
            np.testing.assert_equal(a.chunk.arrived, b.chunk.arrived)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_batches_come_back_to_the_last_bit_and_others_read_the_raw_samples(tmp_path: Path) -> None:
    given, path = batches(30), tmp_path / "a.xdf"
    write(path, given)
    assert_same(read_all(path), given)
    with RecordingSource(path) as source:
        assert source.info == replace(INFO, source="recording:a.xdf")
        assert source.n_samples == 150
        assert source.n_holes == 1
        assert source.zero == given[0].chunk.stamps[0]  # type: ignore[union-attr]
    streams = {s["info"]["name"][0]: s for s in pyxdf.load_xdf(path, dejitter_timestamps=False)[0]}
    amp = streams["amp"]
    assert amp["time_series"].dtype == np.int16
    np.testing.assert_array_equal(amp["time_series"], np.concatenate([b.raw[0].values for b in given]))
    host = np.concatenate([b.chunk.stamps for b in given if b.chunk is not None])
    np.testing.assert_allclose(amp["time_stamps"], host, atol=1e-6)
    assert [row[0] for row in streams["keys"]["time_series"]] == [m.value for b in given for m in b.markers]
    assert SAMPLES not in streams


@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    backlog=st.integers(0, 7),
    jitter=st.booleans(),
    scaled=st.booleans(),
)
@settings(max_examples=40)
def test_however_raw_samples_and_chunks_are_cut(
    tmp_path_factory: pytest.TempPathFactory, seed: int, cuts: list[int], backlog: int, jitter: bool, scaled: bool
) -> None:
    """Raw samples in one batch, their chunks in the next ones; samples that are no chunk; chunks that are not raw."""
    rng = np.random.default_rng(seed)
    n = sum(cuts)
    raw = rng.integers(-2, 2, (backlog + n, 2)).astype(np.int16)  # many alike
    own = np.arange(len(raw)) / 250.0
    samples = to_si(raw[backlog:], np.array(SCALES))
    if seed % 3 == 0:
        samples[n // 2] += 1  # not what came
    stamps = 50.0 + np.arange(n) / 250.0 + (np.sort(rng.uniform(0, 1e-3, n)) if jitter else 0)
    given, at = [], 0
    for cut in cuts:
        chunk = Chunk(samples[at : at + cut].copy(), stamps[at : at + cut].copy(), at, 0, 99.0)
        given.append(Batch(chunk, (), float(stamps[at]), (Raw(0, raw, own),) if at == 0 else ()))
        at += cut
    origins = ORIGINS if scaled else (replace(ORIGINS[0], scales=()), ORIGINS[1])
    path = tmp_path_factory.mktemp("cut") / "a.xdf"
    write(path, given, origins=origins)
    assert_same(read_all(path), given)
    if scaled and seed % 3:
        assert load_session(path).named(SAMPLES) is None  # held once
    (amp,) = pyxdf.load_xdf(path, [{"name": "amp"}], dejitter_timestamps=False)[0]
    np.testing.assert_array_equal(amp["time_series"], raw)


def test_a_source_with_nothing_rawer_is_recorded_as_it_is(tmp_path: Path) -> None:
    given = [Batch(b.chunk, b.markers, b.watermark) for b in batches(12)]
    given.insert(3, Batch(None, (), given[3].watermark - 0.001))
    given.insert(5, Batch(None, (Marker(111.0, "late", "keys"),), given[4].watermark))
    path = tmp_path / "a.xdf"
    write(path, given, origins=())
    assert_same(read_all(path), given)
    streams = {s["info"]["name"][0]: s for s in pyxdf.load_xdf(path, dejitter_timestamps=False)[0]}
    assert streams["amp"]["time_series"].dtype == np.float32
    labels = streams["amp"]["info"]["desc"][0]["channels"][0]["channel"]
    assert [one["label"][0] for one in labels] == ["A", "B"]
    assert [row[0] for row in streams["keys"]["time_series"]] == [m.value for b in given for m in b.markers]


def test_the_stream_can_be_read_as_any_other_xdf_file(tmp_path: Path) -> None:
    path = tmp_path / "a.xdf"
    write(path, [Batch(b.chunk, b.markers, b.watermark) for b in batches(40)][:12], origins=())
    with RecordingSource(path, stream="amp") as source:
        batch = source.read()
        assert batch is not None
        assert {m.stream for m in batch.markers} == {"keys"}
        assert batch.chunk is not None
        assert batch.chunk.stamps[0] == 0


def test_a_session_that_lost_chunks_in_the_middle_gives_what_is_there(tmp_path: Path) -> None:
    given, path = batches(30), tmp_path / "a.xdf"
    file = SessionFile(INFO, ORIGINS, ABOUT, 1.0)
    parts = [file.begin()]
    from rtdecode.record.xdf import boundary

    for k, batch in enumerate(given):
        parts.append(file.batch(batch, float(k)) + boundary())
    parts.append(file.end({}))
    parts[11] = b"\x00" * 20 + parts[11][20:]  # the raw samples of batch 10, and all before the next boundary
    path.write_bytes(b"".join(parts))
    with pytest.raises(RecordingError, match="session repair"):
        RecordingSource(path).open()
    repair(path)
    assert_same(read_all(path), given[:10] + given[11:])
    reader = SessionReader(path)
    while reader.read() is not None:
        continue
    assert describe(path)["session"]["samples"] == 29 * 5


def test_cut_anywhere_the_rows_never_speak_of_samples_that_are_not_there(tmp_path: Path) -> None:
    given, path, whole = batches(6), tmp_path / "a.xdf", tmp_path / "whole.xdf"
    write(whole, given)
    data = whole.read_bytes()
    start = len(SessionFile(INFO, ORIGINS, ABOUT, 1.0).begin())
    for cut in range(start, len(data), 41):
        path.write_bytes(data[:cut])
        repair(path)
        found = read_all(path)
        assert_same(found, given[: len(found)])
        (tmp_path / "a.xdf.cut").unlink(missing_ok=True)


# --- the recorder -----------------------------------------------------------------------------------------------------


def wait_for(condition: Callable[[], Any], timeout: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("waited in vain")


class Heard(list[Notice]):
    """Notices of a recorder, all of them."""

    def of(self, recorder: Recorder, event: str) -> Notice | None:
        self += recorder.notices()
        return next((one for one in self if one.event == event), None)


def recorder(folder: Path, **more: Any) -> Recorder:
    given: dict[str, Any] = {"flush_s": 0.01, "min_free": 0, "entities": Entities("01", task="t")} | more
    return Recorder(INFO, ORIGINS, Settings(folder, **given), ABOUT)


def test_names_and_that_nothing_is_overwritten(tmp_path: Path) -> None:
    names = []
    for k in range(2):
        one = recorder(tmp_path, entities=Entities("01", "02", "gaze", "x"))
        one.put(batches(3)[k])
        one.close()
        names.append(one.notices()[0].details["file"])
    assert [Path(str(name)).name for name in names] == [
        "sub-01_ses-02_task-gaze_acq-x_run-01_eeg.xdf",
        "sub-01_ses-02_task-gaze_acq-x_run-02_eeg.xdf",
    ]
    mine = tmp_path / Entities("01", task="t", run=3).name("eeg", 3)
    mine.write_bytes(b"mine")
    one = recorder(tmp_path, entities=Entities("01", task="t", run=3))
    one.put(batches(1)[0])
    one.close()
    assert mine.read_bytes() == b"mine"
    assert examine(tmp_path / "sub-01_task-t_run-03_split-02_eeg.xdf").whole
    with pytest.raises(ConfigError, match="letters and digits"):
        Entities("../../01")


@pytest.mark.parametrize(
    ("types", "suffix"),
    [(["eeg", "stim"], "eeg"), (["mag", "grad", "eeg"], "meg"), (["seeg", "eog"], "ieeg"), (["stim"], "eeg")],
)
def test_the_suffix_is_that_of_most_channels(types: list[str], suffix: str) -> None:
    assert suffix_of(StreamInfo(tuple(Channel(str(k), one) for k, one in enumerate(types)), 1.0)) == suffix


def test_free_space_and_time_left_are_told_and_what_was_published_is_there(tmp_path: Path) -> None:
    one = recorder(tmp_path)
    heard = Heard()
    started = wait_for(lambda: heard.of(one, "recording"))
    assert started.details["free_bytes"] > 0
    assert started.details["hours"] > 0
    one.put(batches(1)[0])
    one.result("p", '{"status": "ok"}', 5.0, {"z": np.arange(6, dtype=np.float32).reshape(2, 3)})
    one.result("p", '{"status": "gap"}', 6.0, {})
    one.published('{"type": "event", "origin": "p", "event": "swapped"}', 6.5)
    one.event('{"type": "event", "origin": "acquire", "event": "gap"}', 7.0)
    one.close()
    one.close()
    assert heard.of(one, "recording ended")
    path = next(tmp_path.iterdir())
    session = describe(path)["session"]
    assert session["results"] == {"p": {"ok": 1, "gap": 1}}
    assert session["events"] == {"p: swapped": 1, "acquire: gap": 1}
    z = load_session(path).named(f"{RESULTS}.p.z")
    assert z is not None
    assert z.numbers.tolist() == [[0, 1, 2, 3, 4, 5]]


def test_stopped_and_started_again_it_goes_on_in_a_new_file(tmp_path: Path) -> None:
    given = batches(9)
    one, heard = recorder(tmp_path), Heard()
    for batch in given[:3]:
        one.put(batch)
    one.stop()
    wait_for(lambda: heard.of(one, "recording ended"))
    one.put(given[3])
    one.start()
    for batch in given[4:]:
        one.put(batch)
    one.close()
    first, second = sorted(tmp_path.iterdir(), key=lambda path: "split" in path.name)
    with RecordingSource(second) as source:
        assert source.n_samples == 25
    assert_same(read_all(second), given[4:])
    assert_same(read_all(first), given[:3] + given[4:])  # and what went on from it
    assert one.status()["samples_not_recorded"] == 0


def test_what_cannot_be_recorded_costs_itself_alone_and_is_told(tmp_path: Path) -> None:
    given = batches(9)
    broken = replace(given[4], raw=(Raw(0, np.zeros((4, 7), np.int16), np.zeros(5)),))
    one, heard = recorder(tmp_path), Heard()
    for batch in [*given[:4], broken, *given[5:]]:
        one.put(batch)
    assert "ValueError" in wait_for(lambda: heard.of(one, "recording failed")).text
    wait_for(lambda: heard.of(one, "recording resumed"))
    one.close()
    files = sorted(tmp_path.iterdir(), key=lambda path: "split" in path.name)
    for path in files:
        if not examine(path).whole:
            repair(path)
    found = read_all(files[0])
    assert [b.chunk.first_index for b in found if b.chunk] == [
        b.chunk.first_index for b in given if b.chunk and b is not given[4]
    ]
    assert one.status()["samples_not_recorded"] == 5


# --- disks in trouble -------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of half a megabyte; needs the right to mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "rtdecode-test", str(disk)], capture_output=True, check=False
    ) if sys.platform == "linux" and os.getuid() == 0 else None  # fmt: skip
    if mounted is None or mounted.returncode:
        pytest.skip("no right to mount a small file system here; the limit on file size is tested instead")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_a_full_disk_is_told_at_once_and_recording_goes_on_when_there_is_room(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(b"x" * 380_000)
    given = batches(2000, size=20)
    one, heard = recorder(small_disk), Heard()
    for batch in given[:1500]:
        one.put(batch)
    failed = wait_for(lambda: heard.of(one, "recording failed"))
    assert "NOT RECORDING" in failed.text
    assert failed.details["errno"] == 28  # ENOSPC
    assert one.status()["state"] == "waiting for the disk"
    for batch in given[1500:]:
        one.put(batch)
    (full,) = small_disk.glob("*.xdf")
    assert not examine(full).torn  # whole chunks alone, though without an end
    assert 0 < len(read_all(full)) < 1500
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    wait_for(lambda: heard.of(one, "recording resumed"))
    one.close()
    files = sorted(small_disk.glob("*.xdf"), key=lambda path: "split-02" in path.name)
    assert len(files) == 2
    assert_same(read_all(files[0]), given)  # nothing lost: it waited in the queue
    assert one.status()["samples_not_recorded"] == 0


def test_a_read_only_disk_is_told_and_used_once_it_is_writable(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    given = batches(6)
    one, heard = recorder(small_disk), Heard()
    one.put(given[0])
    assert wait_for(lambda: heard.of(one, "recording failed")).details["errno"] == 30  # EROFS
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    wait_for(lambda: heard.of(one, "recording resumed"))
    for batch in given[1:]:
        one.put(batch)
    one.close()
    assert_same(read_all(next(small_disk.iterdir())), given)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows deletes and moves no file that is open")
@pytest.mark.parametrize("how", ["deleted", "moved", "replaced", "folder deleted"])
def test_a_file_that_is_taken_away_is_told_and_recording_goes_on_in_the_next(tmp_path: Path, how: str) -> None:
    folder, given = tmp_path / "rec", batches(20)
    one, heard = recorder(folder), Heard()
    one.put(given[0])
    path = Path(str(wait_for(lambda: heard.of(one, "recording")).details["file"]))
    wait_for(lambda: one.status()["samples"] == 5)
    if how == "deleted":
        path.unlink()
    elif how == "folder deleted":
        shutil.rmtree(folder)
    else:
        path.rename(tmp_path / "elsewhere.xdf")
        if how == "replaced":
            path.write_bytes(b"another's")
    for batch in given[1:]:
        one.put(batch)
    assert "no longer there" in wait_for(lambda: heard.of(one, "recording failed")).text
    wait_for(lambda: heard.of(one, "recording resumed"))
    one.close()
    second = Path(str(one.status()["file"] or max(folder.glob("*split-02*"))))
    assert_same(read_all(second), given[1:])
    if how == "replaced":
        assert path.read_bytes() == b"another's"


def test_what_the_queue_cannot_hold_is_counted_and_told(tmp_path: Path) -> None:
    """No folder can be made where a file is: the disk takes nothing for as long as it is there."""
    blocked = tmp_path / "rec"
    blocked.write_text("in the way")
    given = batches(100)
    one, heard = recorder(blocked, queue=3000), Heard()
    for batch in given:
        one.put(batch)
    assert wait_for(lambda: heard.of(one, "recording failed")).details["path"] == str(blocked)
    lost = wait_for(lambda: heard.of(one, "samples not recorded"))
    assert lost.details["n"] == one.status()["samples_not_recorded"]
    blocked.unlink()
    wait_for(lambda: heard.of(one, "recording resumed"))
    one.close()
    found = read_all(next(blocked.iterdir()))
    n_lost = one.status()["samples_not_recorded"]
    assert isinstance(n_lost, int)
    assert 0 < n_lost == 500 - sum(len(b.chunk) for b in found if b.chunk is not None)
    clock = load_session(next(blocked.iterdir())).named(CLOCK)
    assert clock is not None


LIMITED = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_record import batches, recorder, wait_for, Heard
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
one, heard = recorder(Path(sys.argv[1])), Heard()
for batch in batches(600):
    one.put(batch)
wait_for(lambda: one.status()["waiting_bytes"] == 0)
one.close()
heard.of(one, "")
print(json.dumps([[n.event for n in heard], one.status()["samples_not_recorded"]]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_limit_on_the_size_of_files_begins_the_next_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    events, lost = json.loads(done.stdout)
    assert events.count("recording failed") >= 1
    assert "recording resumed" in events
    assert lost == 0
    files = sorted(tmp_path.iterdir(), key=lambda path: path.name.replace("run-01_eeg", "run-01_split-01_eeg"))
    assert len(files) > 1
    for path in files:
        with contextlib.suppress(RecordingError):
            repair(path)
    assert_same(read_all(files[0]), batches(600))


def test_results_that_find_no_room_are_counted(tmp_path: Path) -> None:
    blocked = tmp_path / "rec"
    blocked.write_text("in the way")
    one, heard = recorder(blocked), Heard()
    wait_for(lambda: heard.of(one, "recording failed"))
    for n in range(QUEUED_RESULTS + 5):
        one.published(f'{{"n":{n}}}', float(n))
    assert one.status()["results_not_recorded"] == 5
    blocked.unlink()
    wait_for(lambda: heard.of(one, "recording resumed"))
    one.close()
    assert wait_for(lambda: heard.of(one, "recording ended")).details["results_not_recorded"] == 5


def test_results_that_wait_are_bounded_in_bytes_too(tmp_path: Path) -> None:
    blocked = tmp_path / "rec"
    blocked.write_text("in the way")
    one, heard = recorder(blocked), Heard()
    wait_for(lambda: heard.of(one, "recording failed"))
    wide = np.zeros(65_536, np.float64)
    n = RESULT_BYTES // wide.nbytes + 5
    for k in range(n):
        one.result("gaze", "", float(k), {"embedding": wide})
    assert one.status()["results_not_recorded"] == 5
    blocked.unlink()
    wait_for(lambda: heard.of(one, "recording resumed"))
    one.close()
    stored = load_session(next(blocked.iterdir())).named(f"{RESULTS}.gaze.embedding")
    assert stored is not None
    assert stored.all_stamps.tolist() == [float(k) for k in range(5, n)]


def test_a_result_that_cannot_be_recorded_costs_no_sample(tmp_path: Path) -> None:
    blocked = tmp_path / "rec"
    blocked.write_text("in the way")
    given = batches(9)
    one, heard = recorder(blocked), Heard()
    wait_for(lambda: heard.of(one, "recording failed"))
    one.result("gaze", "", 1.0, {"half": np.zeros(3, np.float16)})  # XDF has none; written together with what follows
    for batch in given:
        one.put(batch)
    blocked.unlink()
    wait_for(lambda: one.status()["waiting_bytes"] == 0)
    one.close()
    files = sorted(blocked.iterdir(), key=lambda path: "split" in path.name)
    for path in files:
        if not examine(path).whole:
            repair(path)
    assert_same(read_all(files[0]), given)
    assert one.status()["samples_not_recorded"] == 0
    assert one.status()["results_not_recorded"] == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows replaces no file that is open")
def test_a_file_that_is_being_recorded_is_not_repaired(tmp_path: Path) -> None:
    given = batches(9)
    one, heard = recorder(tmp_path / "rec"), Heard()
    one.put(given[0])
    path = Path(str(wait_for(lambda: heard.of(one, "recording")).details["file"]))
    wait_for(lambda: one.status()["samples"] == 5)
    with pytest.raises(RecordingError, match="is being recorded now"):
        repair(path)
    copy = repair(path, tmp_path / "copy.xdf").path
    assert_same(read_all(copy), given[:1])
    for batch in given[1:]:
        one.put(batch)
    one.close()
    assert repair(path).kept is None
    assert_same(read_all(path), given)
