"""What a recorded session becomes: FIF, BIDS, a copy without names and dates; and `rtdecode session` by hand."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pytest
import pyxdf
from test_record import ABOUT, INFO, ORIGINS, assert_same, batches, read_all, write

from rtdecode.errors import ConfigError, RecordingError
from rtdecode.record.convert import to_bids, to_fif, to_mne
from rtdecode.record.deidentify import deidentify
from rtdecode.record.names import Entities
from rtdecode.record.repair import examine
from rtdecode.record.session import About, SessionFile
from rtdecode.signal import Batch, Channel, Chunk, Marker, Offset, Raw


def rtdecode(*arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "rtdecode", "session", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def session(tmp_path: Path) -> Path:
    path = tmp_path / "sub-01_task-t_run-01_eeg.xdf"
    write(path, batches(30))
    return path


def test_fif_holds_the_samples_bit_for_bit_holes_as_holes_and_markers_at_their_samples(session: Path) -> None:
    out = session.with_name("s_raw.fif")
    to_fif(session, out)
    raw = mne.io.read_raw_fif(out, preload=True, verbose="error")
    assert raw.info["sfreq"] == 250.0
    assert raw.ch_names == ["A", "B"]
    given = batches(30)
    samples = np.concatenate([b.chunk.samples for b in given if b.chunk is not None])
    data = raw.get_data(verbose="error").T.astype(np.float32)
    assert len(data) == 150 + 70  # a hole of 70 samples, in its place
    np.testing.assert_array_equal(np.concatenate([data[:50], data[120:]]), samples)
    assert not data[50:120].any()
    notes = [(note["description"], note["onset"] * 250, note["duration"] * 250) for note in raw.annotations]
    assert [round(onset) for text, onset, _ in notes if text == "BAD_ACQ_SKIP"] == [50]
    assert [round(onset) for text, onset, _ in notes if text == "EDGE boundary"] == [170]
    stimuli = [round(onset) for text, onset, _ in notes if text.startswith("stimulus")]
    assert stimuli == [k * 5 + (70 if k >= 10 else 0) for k in range(0, 30, 3)]
    with pytest.raises(ConfigError, match="exists"):
        to_fif(session, out)
    with pytest.raises(ConfigError, match=r"_raw\.fif"):
        to_fif(session, session.with_name("s.edf"))


def test_the_date_comes_from_the_clocks_anchor_unless_it_is_left_out(session: Path) -> None:
    file = SessionFile(INFO, ORIGINS, About({}, {"utc_anchor": "110.0 1700000000.0"}), 1.0)
    session.write_bytes(file.begin() + file.batch(batches(1)[0], 1.0) + file.end({}))
    assert to_mne(session).info["meas_date"].timestamp() == pytest.approx(1_700_000_000.0)
    assert to_mne(session, anonymous=True).info["meas_date"] is None


def test_bids(session: Path, tmp_path: Path) -> None:
    pytest.importorskip("mne_bids", reason="the extra `bids` is not installed")
    with pytest.raises(ConfigError, match="--subject"):
        to_bids(session, tmp_path / "bids", Entities())
    written = to_bids(session, tmp_path / "bids", Entities("07", "02", "gaze", run=3))
    assert written.name == "sub-07_ses-02_task-gaze_run-03_eeg.vhdr"
    raw = mne.io.read_raw_brainvision(written, preload=True, verbose="error")
    samples = np.concatenate([b.chunk.samples for b in batches(30) if b.chunk is not None])
    data = raw.get_data(verbose="error").T
    np.testing.assert_allclose(np.concatenate([data[:50], data[120:]]), samples, rtol=1e-5, atol=1e-9)


PLANTED = (
    "Erika Musterfrau",
    "lab-pc-17",
    "2026-11-21",
    "boot-8c1f",
    "experimenter-x",
    "/home/erika",
    "sub-Musterfrau",
)


def planted(path: Path) -> list[Batch]:
    """A session with names and dates wherever one may be; its sender stamps by the time of day."""
    xml = (
        '<?xml version="1.0"?><info><name>amp (lab-pc-17)</name><type>EEG</type><channel_count>2</channel_count>'
        "<channel_format>int16</channel_format><nominal_srate>250</nominal_srate><hostname>lab-pc-17</hostname>"
        "<created_at>1763719200</created_at><desc><subject><name>Erika Musterfrau</name></subject>"
        "<experimenter><name>experimenter-x</name></experimenter><channels>"
        "<channel><label>A</label><unit>uV</unit><note>2026-11-21</note></channel>"
        "<channel><label>B</label><unit>mV</unit></channel></channels></desc></info>"
    )
    origins = (replace(ORIGINS[0], name="amp (lab-pc-17)", hostname="lab-pc-17", xml=xml), ORIGINS[1])
    info = replace(INFO, source="lsl:amp (lab-pc-17)", source_id="Erika Musterfrau")
    about = About(
        {"datetime": "2026-11-21T10:00:00", "subject": "Erika Musterfrau"},
        {**ABOUT.session, "clock_id": "lsl:lab-pc-17:boot-8c1f", "config": "# Erika Musterfrau\ndir = '/home/erika'"},
    )
    shift = 1_763_719_200.123
    given = [
        replace(
            b,
            raw=tuple(Raw(r.stream, r.values, r.stamps + shift) for r in b.raw),
            offsets=tuple(Offset(o.stream, o.time, o.value - shift, o.uncertainty) for o in b.offsets),
        )
        for b in batches(20)
    ]
    file = SessionFile(info, origins, about, 1.0)
    event = {"type": "description", "origin": "p", "clock_id": "lsl:lab-pc-17:boot-8c1f", "utc_anchor": [1.0, 2.0]}
    parts = [file.begin(), *(file.batch(b, 1.0 + k) for k, b in enumerate(given))]
    told: dict[str, object] = {"type": "event", "event": "recording"}
    told |= {"text": "recording to /home/erika/sub-Musterfrau_eeg.xdf"}
    told |= {"details": {"file": "/home/erika/sub-Musterfrau_eeg.xdf", "hours": 7.5, "state": "streaming"}}
    parts += [file.event(json.dumps(event), 5.0), file.event(json.dumps(told), 6.0), file.end({"note": "2026-11-21"})]
    path.write_bytes(b"".join(parts))
    return given


def test_a_deidentified_copy_tells_no_name_and_no_date_and_replays_the_same(tmp_path: Path) -> None:
    path, out = tmp_path / "a.xdf", tmp_path / "b.xdf"
    given = planted(path)
    for word in PLANTED:
        assert word.encode() in path.read_bytes()
    deidentify(path, out)
    copy = out.read_bytes()
    for word in PLANTED:
        assert word.encode() not in copy, word
    assert b'"hours": 7.5, "state": "streaming"' in copy  # what tells of nobody
    assert examine(out).whole
    assert_same(read_all(out), given)
    one, other = (
        {s["info"]["stream_id"]: s for s in pyxdf.load_xdf(p, dejitter_timestamps=False)[0]} for p in (path, out)
    )
    assert max(other[1]["clock_times"]) < 86_400 + 1e3  # no time of day, though the day's own seconds remain
    host = np.concatenate([b.chunk.stamps for b in given if b.chunk is not None])
    np.testing.assert_allclose(other[1]["time_stamps"], host, atol=1e-6)  # on this host's clock, as before
    np.testing.assert_array_equal(other[1]["time_series"], one[1]["time_series"])
    labels = other[1]["info"]["desc"][0]["channels"][0]["channel"]
    assert [(c["label"][0], c["unit"][0]) for c in labels] == [("A", "uV"), ("B", "mV")]
    with pytest.raises(RecordingError, match="exists"):
        deidentify(path, out)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RecordingError, match="repair"):
        deidentify(path, tmp_path / "c.xdf")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.xdf", "b.xdf"]


def test_the_verbs_by_hand(session: Path, tmp_path: Path) -> None:
    whole = session.read_bytes()
    assert "30 batches" not in rtdecode("info", str(session))
    told = json.loads(rtdecode("info", str(session), "--json"))
    assert told["whole"]
    assert told["session"]["samples"] == 150
    assert (told["session"]["segments"], told["session"]["holes"]) == (2, 1)
    empty = tmp_path / "empty.xdf"
    empty.write_bytes(whole[: whole.index(b"</info>") + 20])  # within the first stream's header
    for verb, code in (("info", 0), ("repair", 3)):
        assert "there is nothing to make whole" in " ".join(rtdecode(verb, str(empty), code=code).split())
    session.write_bytes(whole[:-500])
    assert "NOT WHOLE" in rtdecode("info", str(session))
    assert "session repair" in rtdecode("convert", str(session), str(tmp_path / "x_raw.fif"), "--to", "fif", code=3)
    assert json.loads(rtdecode("repair", str(session), "--json"))["kept"] == f"{session}.cut"
    assert "is whole" in rtdecode("repair", str(session))
    assert "wrote" in rtdecode("convert", str(session), str(tmp_path / "x_raw.fif"), "--to", "fif")
    assert "--deidentify" in rtdecode("convert", str(session), str(tmp_path / "y.xdf"), "--to", "xdf", code=2)
    said = rtdecode("convert", str(session), str(tmp_path / "y.xdf"), "--to", "xdf", "--deidentify")
    for stays in ("texts of markers", "names of streams", "of pipelines", "host names of one or two letters"):
        assert stays in said
    assert "check the path" in rtdecode("info", str(tmp_path / "none.xdf"), code=3)


def test_a_stream_of_one_marker_and_of_channels_that_mne_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "a.xdf"
    info = replace(INFO, channels=(Channel("A", "temperature"), Channel("B", "of its own kind")))
    chunk = Chunk(np.ones((4, 2), np.float32), 5 + np.arange(4) / 250, 0)
    write(path, [Batch(chunk, (Marker(4.0, "before", "m"), Marker(9.0, "after", "m")), 9.0)], info, ())
    raw = to_mne(path)
    assert raw.get_channel_types() == ["temperature", "misc"]
    assert [round(note["onset"] * 250) for note in raw.annotations] == [0, 4]
