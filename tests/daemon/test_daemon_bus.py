"""Log entries: what comes out of the frames is what went in, and what is no entry is refused."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from rtdecode.daemon.bus import read_samples, samples_frames
from rtdecode.errors import WireError
from rtdecode.signal import Batch, Chunk, Marker
from rtdecode.wire.framing import decode, encode
from rtdecode.wire.messages import Health

times = st.floats(allow_nan=False)


@given(
    st.integers(0, 30),
    st.integers(1, 8),
    st.integers(0, 2**40),
    st.integers(0, 5),
    st.lists(st.builds(Marker, times, st.text(max_size=8), st.text(max_size=8)), max_size=4),
    times,
    st.booleans(),
    st.floats(0, 1),
    st.none() | st.integers(0, 2**40),
)
def test_there_and_back(
    n: int,
    n_channels: int,
    index: int,
    segment: int,
    markers: list[Marker],
    watermark: float,
    end: bool,
    uncertainty: float,
    invalidates: int | None,
) -> None:
    rng = np.random.default_rng(n)
    samples = rng.standard_normal((n, n_channels)).astype(np.float32)
    if n:
        samples[0, 0] = np.nan
    chunk = Chunk(samples, np.arange(n) / 7.0, index, segment, math.nan, uncertainty, invalidates)
    frames = samples_frames(Batch(chunk, markers, watermark), 5, 9, (0, 0), 1.5, end=end)
    message, batch = read_samples(frames)
    assert (message.seq, message.publisher, message.end) == (9, 5, end)
    assert batch.chunk is not None
    assert batch.chunk.samples.tobytes() == samples.tobytes()
    assert batch.chunk.samples.shape == samples.shape
    assert batch.chunk.stamps.tolist() == chunk.stamps.tolist()
    assert (batch.chunk.first_index, batch.chunk.segment) == (index, segment)
    assert math.isnan(batch.chunk.arrived)
    assert (batch.chunk.uncertainty, batch.chunk.invalidates) == (uncertainty, invalidates)
    assert list(batch.markers) == markers
    assert batch.watermark == watermark
    topic, same, arrays = decode(frames)  # any subscriber reads it too
    assert topic == "acquire.samples"
    assert same == message or math.isnan(message.arrived)
    assert set(arrays) == {"samples", "stamps"}


def test_without_samples() -> None:
    message, batch = read_samples(samples_frames(Batch(None, (), 3.0), 1, 0, (2, 70), 1.5))
    assert batch.chunk is None
    assert (message.segment, message.first_index, message.arrived, batch.watermark) == (2, 70, 1.5, 3.0)


@given(st.lists(st.binary(max_size=60), max_size=5), st.integers(0, 3), st.binary(max_size=200))
def test_what_is_no_entry_is_refused(junk: list[bytes], at: int, frame: bytes) -> None:
    with pytest.raises(WireError):
        read_samples(junk)
    chunk = Chunk(np.ones((3, 2), np.float32), np.arange(3.0), 0)
    good = samples_frames(Batch(chunk), 1, 0, (0, 0), 0.0)
    bad = [*good[:at], frame, *good[at + 1 :]]
    if len(frame) != len(good[at]):
        with pytest.raises(WireError):
            read_samples(bad)


def test_another_message_is_no_entry() -> None:
    health = Health(seq=0, pipeline="p", due=0, counts={}, dropped=0, uptime_s=1.0)
    with pytest.raises(WireError, match="expected samples"):
        read_samples([bytes(one) for one in encode("p.health", health)])
