"""Samples by which no window is due may wait for the next ones: nothing that is decoded depends on it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtdecode.clock.line import FEW, Line
from rtdecode.signal import Channel, Chunk, Marker, even_stamps
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.handling import AS_IT_COMES
from rtdecode.stream.intake import Intake
from rtdecode.stream.segment import Due
from rtdecode.stream.steps import Filter, Resample, StreamStep
from rtdecode.stream.window import Locked, Sliding, WindowSpec

SFREQ, N = 250.0, 1000
CHANNELS = tuple(Channel(name, "eeg", "V") for name in ("a", "b", "c"))


class Ear:
    """Hears what an encoder hears."""

    def __init__(self) -> None:
        self.heard: list[NDArray[np.float32]] = []

    def restart(self, first_index: int) -> None:
        self.heard.append(np.full((1, 3), first_index, np.float32))

    def advance(self, samples: NDArray[np.float32], first_index: int) -> None:
        self.heard.append(samples)

    def begin(self, first_index: int, samples: NDArray[np.float32]) -> None:
        pass


class Arrays(Line):
    """Takes few samples in as it takes many."""

    def _add_few(self, times: list[float]) -> list[float] | None:
        return None


def intake(steps: list[StreamStep], windows: list[WindowSpec]) -> tuple[Intake, Ear]:
    ear = Ear()
    made = Intake(
        columns=range(3),
        channels=CHANNELS,
        n_stream_channels=3,
        sfreq=SFREQ,
        conditioner=Conditioner(steps, CHANNELS, SFREQ, {}),
        windows=windows,
        listener=ear,
        history_s=10.0,
        handling=AS_IT_COMES,
    )
    return made, ear


def chunks(sizes: list[int], hole: tuple[int, int]) -> list[Chunk]:
    """N samples in chunks of these sizes over and over; those of the hole are missing."""
    samples = np.random.default_rng(0).standard_normal((N, 3)).astype(np.float32)
    stamps = 100 + np.arange(N) / SFREQ
    found, at, k = [], 0, 0
    while at < N:
        stop = min(N, at + sizes[k % len(sizes)])
        first, last = (max(at, hole[1]), stop) if hole[0] <= at < hole[1] else (at, stop)
        if first == at and at < hole[0] < stop:
            last = hole[0]
        if first < last:
            found.append(Chunk(samples[first:last], stamps[first:last], first, arrived=float(stamps[last - 1]) + 0.001))
        at, k = stop, k + 1
    return found


def flat(due: Due) -> tuple[object, ...]:
    samples = None if due.samples is None else due.samples.tobytes()
    return (due.spec.name, due.segment, due.start, samples, due.stamp, due.arrived, due.flaw, due.reason)


steps = st.sampled_from(
    [[], [Filter(low=1.0, high=40.0, order=2)], [Resample(sfreq=100.0)], [Resample(sfreq=60.0), Resample(sfreq=40.0)]]
)


@settings(max_examples=40, deadline=None)
@given(
    steps,
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.integers(100, 900),
    st.integers(0, 60),
    st.booleans(),
)
def test_windows_are_due_with_the_same_chunk_and_hold_the_same_bytes(
    chain: list[StreamStep], sizes: list[int], at: int, missing: int, locked: bool
) -> None:
    windows: list[WindowSpec] = [Sliding(length=0.4, hop=0.1)]
    if locked:
        windows.append(Locked(markers=("x",), tmin=-0.1, tmax=0.3))
    holding, heard = intake(chain, windows)
    plain, expected = intake(chain, windows)
    n_held = 0
    for chunk in chunks(sizes, (at, at + missing)):
        markers = [Marker(float(chunk.stamps[0]) + 0.002, "x")] if locked and chunk.first_index % 7 == 0 else []
        watermark = float(chunk.stamps[-1]) - 0.02
        waits = holding.hold(chunk, markers, watermark)
        n_held += waits
        found = [] if waits else [flat(due) for due in holding.push(chunk, markers, watermark)]
        assert found == [flat(due) for due in plain.push(chunk, markers, watermark)]
    assert [flat(due) for due in holding.finish()] == [flat(due) for due in plain.finish()]
    assert np.concatenate(heard.heard).tobytes() == np.concatenate(expected.heard).tobytes()
    if max(sizes) <= 3 and not chain and not locked:
        assert n_held > 100


def test_the_last_chunk_before_the_end_of_a_window_finds_nothing_left_to_do() -> None:
    holding, heard = intake([], [Sliding(length=0.4, hop=0.1)])
    left = []
    for chunk in chunks([5], (N, N)):
        if holding.hold(chunk, [], math.inf):
            continue
        before = sum(map(len, heard.heard))
        due = list(holding.push(chunk, [], math.inf))
        if due:
            left.append(sum(map(len, heard.heard)) - before)
    assert left
    assert set(left) == {5}


def test_what_waits_at_an_end_is_given() -> None:
    holding, heard = intake([], [Sliding(length=0.4, hop=0.4)])
    for chunk in chunks([5], (N, N))[:23]:
        if not holding.hold(chunk, [], math.inf):
            list(holding.push(chunk, [], math.inf))
    assert holding.wanting > 0
    list(holding.finish())
    assert sum(len(one) for one in heard.heard[1:]) == 23 * 5


@given(st.floats(-1e6, 1e6, allow_subnormal=False), st.floats(1e-9, 1e4, allow_subnormal=False), st.integers(0, 600))
def test_even_stamps_are_those_of_linspace_to_the_last_bit(first: float, span: float, n: int) -> None:
    assert even_stamps(first, first + span, n).tobytes() == np.linspace(first, first + span, n).tobytes()


@given(st.integers(0, 1000), st.integers(1, FEW))
def test_few_samples_move_a_line_as_many_do(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = Line(0.0, 0.004, 0.004), Arrays(0.0, 0.004, 0.004)
    for k in range(20):
        times = 0.00401 * np.arange(k * n, (k + 1) * n) + 1e-4 * rng.standard_normal(n)
        one.add(k * n, times)
        other.add(k * n, times)
    assert one.period == pytest.approx(other.period, rel=1e-9)
    assert one.at(20 * n) == pytest.approx(other.at(20 * n), abs=1e-9)
