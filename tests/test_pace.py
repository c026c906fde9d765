"""When samples are taken: never so late that a window would wait, and never put off on what is not known."""

import math

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from rtdecode.daemon.arrival import NextArrival
from rtdecode.daemon.pace import LOAD, QUIET_S, SOON_S, Pace
from rtdecode.signal import Chunk

PERIOD = 1e-3


def chunk(first: int, n: int, delay: float) -> Chunk:
    stamps = 100 + PERIOD * np.arange(first, first + n, dtype=np.float64)
    return Chunk(np.zeros((n, 2), np.float32), stamps, first, arrived=float(stamps[-1]) + delay)


@given(st.lists(st.tuples(st.integers(1, 20), st.floats(0, 0.05)), min_size=1, max_size=40), st.integers(1, 200))
def test_arrivals_are_foreseen_by_the_quickest(chunks: list[tuple[int, float]], missing: int) -> None:
    expected, first, delays = NextArrival(PERIOD), 0, []
    for n, delay in chunks:
        at = expected.earliest(newest := chunk(first, n, delay), missing)
        first += n
        delays.append(delay)
        stamp = float(newest.stamps[-1]) + missing * PERIOD
        assert stamp + min(delays) - 1e-9 <= at <= stamp + delay + 1e-9


def test_stamps_of_another_clock_foretell_nothing() -> None:
    expected = NextArrival(PERIOD)
    for delay in (-0.5, 2.0, math.nan):
        assert math.isnan(expected.earliest(chunk(0, 10, delay), 5))


@given(
    st.lists(
        st.tuples(
            st.integers(1, 50), st.floats(1e-4, 0.02), st.floats(-0.02, 0.3), st.integers(-5, 400), st.booleans()
        ),
        min_size=1,
        max_size=40,
    )
)
def test_what_can_be_done_before_is_wanted_before_the_last_samples_can_come(
    turns: list[tuple[int, float, float, int, bool]],
) -> None:
    pace, first = Pace(PERIOD), 0
    for n, delay, took, missing, rehearsed in turns:
        newest = chunk(first, n, delay)
        first += n
        pace.unknown()
        assert (pace.quiet_until, pace.rehearse_at) == (-math.inf, math.inf)
        patient = pace.took(max(0.0, took), n)
        if rehearsed:
            pace.rehearsed(abs(took) / 10)
        now = newest.arrived + max(0.0, took)
        pace.plan(newest, missing, now, patient=patient)
        earliest = float(newest.stamps[-1]) + missing * PERIOD + delay
        assert pace.quiet_until <= newest.arrived + QUIET_S
        if missing <= 0:
            assert (pace.quiet_until, pace.rehearse_at) == (-math.inf, math.inf)
        else:
            assert pace.quiet_until < earliest
            assert pace.rehearse_at == math.inf or now - SOON_S < pace.rehearse_at < now + SOON_S
        assert pace.lead > 0
        assert (pace.lead == math.inf) == (not patient)


def test_an_encoder_that_has_no_time_to_lose_gets_every_sample_at_once() -> None:
    pace = Pace(PERIOD)
    for _ in range(500):
        patient = pace.took(10 * PERIOD * LOAD * 1.5, 10)
    assert not patient
    pace.plan(chunk(0, 10, 0.001), 40, 100.0, patient=patient)
    assert pace.lead == math.inf
