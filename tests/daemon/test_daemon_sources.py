"""A recording that plays as a live stream: the file's own samples and markers, in its own time or the host's."""

import itertools
import signal
from pathlib import Path

import numpy as np
import pytest
from daemon_kit import Session, wait_for

from rtdecode import hostclock
from rtdecode.config import RecordingConfig
from rtdecode.daemon.sources import PacedRecording
from rtdecode.signal import Batch, Chunk, Marker
from rtdecode.sources.recording import RecordingSource


@pytest.fixture
def recording(shared_data: Path) -> Path:
    found = sorted(shared_data.rglob("S001R14.edf"))
    if not found:
        pytest.skip("S001R14.edf is not among the shared recordings")
    return found[0]


def played(path: Path, speed: float, until: int) -> list[Batch]:
    batches: list[Batch] = []
    with PacedRecording(RecordingConfig(kind="recording", path=path, speed=speed)) as source:
        while (batch := source.read(0.5)) is not None and len(batches) < until:
            if batch.chunk is not None:
                batches.append(batch)
    return batches


def joined(batches: list[Batch]) -> tuple[np.ndarray, np.ndarray, list[Marker]]:
    chunks: list[Chunk] = [batch.chunk for batch in batches if batch.chunk is not None]
    assert all(a.stop_index == b.first_index for a, b in itertools.pairwise(chunks))
    return (
        np.concatenate([chunk.samples for chunk in chunks]),
        np.concatenate([chunk.stamps for chunk in chunks]),
        [marker for batch in batches for marker in batch.markers],
    )


def test_another_speed_keeps_the_recording_s_own_time(recording: Path) -> None:
    samples, stamps, markers = joined(played(recording, 2000.0, 10**9))
    whole = []
    with RecordingSource(recording) as source:
        while (batch := source.read()) is not None:
            whole.append(batch)
    expected = joined(whole)
    np.testing.assert_array_equal(samples, expected[0])
    np.testing.assert_array_equal(stamps, expected[1])
    assert sorted(markers) == sorted(expected[2])
    assert len(markers) > 20


def test_at_its_own_speed_it_is_stamped_on_the_host_clock_and_never_early(recording: Path) -> None:
    before = hostclock.now()
    batches = played(recording, 1.0, 20)
    samples, stamps, _ = joined(batches)
    with RecordingSource(recording) as source:
        first = source.read()
    assert first is not None
    assert first.chunk is not None
    np.testing.assert_array_equal(samples[: len(first.chunk)], first.chunk.samples[: len(samples)])
    assert stamps[0] >= before
    np.testing.assert_allclose(np.diff(stamps), 1 / 160, atol=1e-9)
    for batch in batches:
        assert batch.chunk is not None
        assert batch.chunk.arrived >= batch.chunk.stamps[-1]
        assert batch.watermark <= batch.chunk.arrived or batch.watermark == np.inf


def test_stop_while_a_stream_is_looked_for_does_not_wait_for_it(session: Session, lsl_config: Path) -> None:
    session.bundle()
    config = session.config(source='kind = "lsl"\nname = "nobody"\ntimeout_s = 600')
    run = session.start("run", str(config), LSLAPICFG=str(lsl_config))
    wait_for(lambda: list((session.folder / "rtdecode").glob("*/control")), "acquire")
    run.send(signal.SIGTERM)
    assert run.end(15) == 0, run.text
