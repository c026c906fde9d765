"""The clock of live sources, without a source: jitter, rate, holes, steps."""

import math
from pathlib import Path

import numpy as np
import pytest
from clock_kit import Told, feed, increasing, lay_out
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rtdecode.clock.heard import HeardOffset
from rtdecode.clock.offset import ClockOffset
from rtdecode.clock.stream_clock import StreamClock
from rtdecode.errors import StampError

SFREQ = 250.0
JITTER_S = 4e-3
START = 1000.0


def jittered(index: np.ndarray, seed: int, jitter: float = JITTER_S, sfreq: float = SFREQ) -> np.ndarray:
    """Stamps of these samples, uniformly jittered."""
    return START + index / sfreq + jitter * np.random.default_rng(seed).uniform(-1, 1, len(index))


def without(n: int, at: int, lost: int) -> np.ndarray:
    """Indices of `n` samples, some of which are lost."""
    return np.delete(np.arange(n), np.arange(at, at + lost))


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def tries(n: int) -> settings:
    """The same cases in every run: what is found of a hole among jitter is so for nearly all cases, not for all.

    Failures are not made smaller, which takes minutes and shows little here.
    """
    phases = (Phase.explicit, Phase.generate)
    return settings(max_examples=n, deadline=None, phases=phases, derandomize=True)


cuts = st.lists(st.integers(1, 60), min_size=1, max_size=5)
seeds = st.integers(0, 2**31)


# --- jitter and rate --------------------------------------------------------------------------------------------------


@given(st.floats(0.97, 1.03), st.sampled_from([100.0, 250.0, 1000.0, 25000.0]), cuts)
@tries(13)
def test_stamps_without_jitter_stay_as_they_are(rate: float, sfreq: float, sizes: list[int]) -> None:
    """Whatever the sender's true rate, from the third sample on; the first two cannot show it."""
    true = START + np.arange(2000) / (rate * sfreq)
    told = feed(StreamClock(sfreq), true, sizes)
    assert not told.holes
    error = np.abs(told.stamps - true)
    assert error[2 + sizes[0] :].max() < 1e-8
    assert error.max() <= 0.03 * sizes[0] / sfreq + 1e-8


@pytest.mark.parametrize("seed", range(4))
def test_jitter_falls_five_fold_within_five_seconds(seed: int) -> None:
    index = np.arange(round(60 * SFREQ))
    stamps = jittered(index, seed)
    told = feed(StreamClock(SFREQ), stamps)
    true = START + index / SFREQ
    raw = rms(stamps - true)
    error = told.stamps - true
    second = [rms(error[round(t * SFREQ) : round((t + 1) * SFREQ)]) for t in range(60)]
    assert max(second[4:]) < raw / 5
    assert max(second[30:]) < raw / 15
    assert (np.abs(error) <= told.uncertainty).mean() > 0.95
    assert told.uncertainty[-1] < 0.1 * told.uncertainty[0]
    assert not told.holes
    assert told.segment.max() == 0


@given(seeds, cuts, st.floats(0, 4), st.integers(1, 12))
@tries(13)
def test_jitter_and_bursts_are_no_holes(seed: int, sizes: list[int], jitter: float, burst: int) -> None:
    """Jitter in periods; bursts of samples that are stamped together."""
    index = np.arange(3000)
    stamps = jittered(index, seed, jitter / SFREQ)
    stamps = np.repeat(stamps[burst - 1 :: burst], burst) + np.tile(np.arange(burst) * 1e-6, 3000 // burst)
    told = feed(StreamClock(SFREQ), stamps, sizes)
    assert not told.holes
    assert told.segment.max() == 0
    assert (told.index == np.arange(len(stamps))).all()
    assert increasing(told)


def test_a_slow_drift_is_followed() -> None:
    """50 ppm, and it changes by 1 ppm a minute."""
    index = np.arange(round(600 * SFREQ))
    t = index / SFREQ
    true = START + t * (1 + 50e-6) + 1e-6 / 60 * t * t / 2
    stamps = true + JITTER_S * np.random.default_rng(3).uniform(-1, 1, len(t))
    told = feed(StreamClock(SFREQ), stamps, (25,))
    assert not told.holes
    assert rms((told.stamps - true)[round(10 * SFREQ) :]) < 2.5e-4
    assert np.abs((told.stamps - true)[round(60 * SFREQ) :]).max() < 5e-4


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.sampled_from([1.0, 1e-3, 1e-6]), cuts)
@tries(33)
def test_whatever_the_stamps_those_given_increase(stamps: list[float], scale: float, sizes: list[int]) -> None:
    told = feed(StreamClock(SFREQ), np.array(stamps) * scale, sizes)
    assert increasing(told)
    assert np.isfinite(told.stamps).all()
    assert ((np.diff(told.index) > 0) | (np.diff(told.segment) > 0)).all()
    assert (told.uncertainty >= 0).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_stamp_that_is_no_number_is_named(bad: float) -> None:
    clock = StreamClock(SFREQ)
    clock.stamped(START + np.arange(5) / SFREQ)
    with pytest.raises(StampError, match="sample 7 is"):
        clock.stamped(np.array([START + 0.02, START + 0.024, bad]))


# --- holes ------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 3000), st.integers(9, 3000), cuts, st.floats(0.98, 1.02))
@tries(20)
def test_without_jitter_a_hole_is_found_at_once_and_exactly(lost: int, at: int, sizes: list[int], rate: float) -> None:
    index = without(4000 + lost, at, lost)
    true = START + index / (SFREQ * rate)
    told = feed(StreamClock(SFREQ), true, sizes)
    assert [(where, piece.missing, piece.invalidates) for where, piece in told.holes] == [(at, lost, None)]
    assert (told.index == index).all()
    assert np.abs(told.stamps - true)[2 + sizes[0] :].max() < 1e-6
    assert told.segment.max() == 0


@given(seeds, st.integers(6, 500), st.integers(1000, 3000), cuts)
@tries(20)
def test_a_hole_above_the_jitter_is_found_at_once(seed: int, lost: int, at: int, sizes: list[int]) -> None:
    """The count is settled later where one sample cannot tell; stamps are right to one period from the first on."""
    index = without(4500 + lost, at, lost)
    told = feed(StreamClock(SFREQ), jittered(index, seed), sizes)
    where, piece = told.holes[0]
    assert where == at
    assert lost - 3 <= piece.missing <= lost
    assert np.abs(told.stamps - START - index / SFREQ)[at:].max() <= 1.05 / SFREQ  # the line's own error is in it
    assert_accounted(told, index, at)
    assert told.segment.max() == 0


@given(seeds, st.integers(1, 5), st.integers(1000, 3000), cuts)
@tries(20)
def test_a_hole_below_the_jitter_is_found_late(seed: int, lost: int, at: int, sizes: list[int]) -> None:
    index = without(4500, at, lost)
    told = feed(StreamClock(SFREQ), jittered(index, seed), sizes)
    assert sum(piece.missing for _, piece in told.holes) == lost
    assert told.holes[0][0] <= at + 0.5 * SFREQ
    assert_accounted(told, index, at)
    assert told.segment.max() == 0


def assert_accounted(told: Told, index: np.ndarray, at: int) -> None:
    """What is not declared invalid has its true index; little more than what is wrong is declared invalid."""
    corrected = told.corrected()
    valid = corrected >= 0
    assert (corrected[valid] == index[valid]).all()
    assert valid[: at - 50].all()
    assert valid[at + round(0.75 * SFREQ) :].all()


@given(seeds, st.integers(1, 400), cuts)
@tries(13)
def test_what_is_found_does_not_depend_on_the_pulls(seed: int, lost: int, sizes: list[int]) -> None:
    stamps = jittered(without(3000 + lost, 1500, lost), seed)
    one, other = feed(StreamClock(SFREQ), stamps, (1,)), feed(StreamClock(SFREQ), stamps, sizes)
    assert one.index[-1] == other.index[-1]
    assert one.segment[-1] == other.segment[-1] == 0
    assert sum(p.missing for _, p in one.holes) == sum(p.missing for _, p in other.holes)


@pytest.mark.parametrize("jitter", [0.0, JITTER_S])
def test_a_second_lost_costs_at_most_a_period_from_the_first_sample_on(jitter: float) -> None:
    for seed in range(10):
        index = without(8000, 5000, 250)
        told = feed(StreamClock(SFREQ), jittered(index, seed, jitter), (10,))
        error = np.abs(told.stamps - START - index / SFREQ)[5000:]
        assert error.max() <= 1 / SFREQ
        assert told.index[-1] == index[-1]


def test_a_hole_keeps_the_rate_and_the_phase() -> None:
    """Ten minutes later, of a sender 1 % off."""
    index = without(400_000, 5000, 150_000)
    true = START + index / (SFREQ * 1.01)
    told = feed(StreamClock(SFREQ), true, (250,))
    assert [(where, p.missing) for where, p in told.holes] == [(5000, 150_000)]
    assert np.abs(told.stamps - true)[1000:].max() < 1e-6


def test_a_sender_that_begins_off_its_beat_keeps_its_rate() -> None:
    """After the hole its samples fall between the old ones: counted to the nearest, and stamped where they are."""
    index = without(6000, 3000, 100)
    true = START + (index + 0.3 * (index >= 3000)) / SFREQ
    told = feed(StreamClock(SFREQ), true, (10,))
    assert [p.missing for _, p in told.holes] == [100]
    assert np.abs(told.stamps - true)[3100:].max() < 0.05 / SFREQ


# --- clocks that are set ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jitter", [0.0, JITTER_S])
@pytest.mark.parametrize("step", [-0.04, -0.4, -30.0, -1e6])
def test_a_clock_that_is_set_back_begins_a_segment(step: float, jitter: float) -> None:
    index = np.arange(6000)
    stamps = jittered(index, 5, jitter) + step * (index >= 3000)
    told = feed(StreamClock(SFREQ), stamps)
    assert told.segment[-1] == 1
    assert not told.holes
    begun = int(np.flatnonzero(told.segment)[0])
    assert 2990 <= begun <= 3000 + SFREQ  # at once or, within the jitter, soon
    assert told.index[begun] == 0
    assert (np.diff(told.index[begun:]) == 1).all()
    assert told.uncertainty[begun] > 2 * told.uncertainty[2900]
    assert told.uncertainty[-1] < told.uncertainty[begun]
    assert rms((told.stamps - START - index / SFREQ - step)[begun + 1250 :]) <= jitter / 5 + 1e-6


def test_more_than_an_hour_begins_a_segment() -> None:
    index = np.arange(3000)
    stamps = START + index / SFREQ + 3601.0 * (index >= 1000)
    told = feed(StreamClock(SFREQ), stamps)
    assert told.segment.tolist() == [0] * 1000 + [1] * 2000
    assert told.index[1000] == 0
    assert np.abs(told.stamps - stamps).max() < 1e-6


def test_a_restart_begins_a_segment_with_a_wider_uncertainty() -> None:
    clock = StreamClock(SFREQ)
    before = feed(clock, START + np.arange(2500) / SFREQ)
    clock.restart()
    after = feed(clock, 5.0 + np.arange(2500) / SFREQ)
    assert (before.segment == 0).all()
    assert (after.segment == 1).all()
    assert after.index[0] == 0
    assert after.pieces[0][1].why
    assert after.uncertainty[0] > 10 * before.uncertainty[-1] > 10 * after.uncertainty[-1] * 0.99
    np.testing.assert_allclose(after.stamps, 5.0 + np.arange(2500) / SFREQ, rtol=0, atol=1e-8)


def test_a_stall_that_is_made_up_for_ends_in_a_segment_that_counts_right() -> None:
    """Stamped on arrival: nothing is missing, though it seemed so."""
    index = np.arange(6000)
    true = START + index / SFREQ
    stamps = jittered(index, 2, 1e-3)
    late = (index >= 3000) & (stamps < START + 3100 / SFREQ)
    stamps[late] = START + 3100 / SFREQ + 1e-6 * np.arange(late.sum())
    told = feed(StreamClock(SFREQ), stamps)
    assert told.segment[-1] == 1
    begun = int(np.flatnonzero(told.segment)[0])
    assert begun < 3000 + 2.5 * SFREQ
    assert np.abs(told.stamps - true)[begun:].max() < 1 / SFREQ


# --- senders that count -----------------------------------------------------------------------------------------------


def counted(
    lost: float = 0.0, at: float = 30.0, seconds: float = 60.0, seed: int = 0, slow: float = 0.0, back: float = math.inf
) -> tuple[Told, np.ndarray, np.ndarray]:
    """Blocks of ten that take 2 ms and more to come; told, true times, and arrivals of the blocks.

    From `at` on, `lost` seconds are lost and not counted; or blocks come that late until `back`, or less and less so.
    """
    rng = np.random.default_rng(seed)
    clock = StreamClock(SFREQ)
    pieces, true, arrivals = [], [], []
    arrived = 0.0
    for first in range(0, round(seconds * SFREQ), 10):
        times = START + (first + np.arange(10)) / (SFREQ * 0.995)
        since = float(times[-1]) - START - at
        late = max(0.0, lost - slow * since) if 0 <= since < back - at else 0.0
        hole = late if not slow and math.isinf(back) else 0.0
        delay = 0.002 + late - hole + rng.exponential(0.004) + (rng.random() < 0.01) * rng.exponential(0.05)
        arrived = max(arrived + 1e-5, float(times[-1]) + hole + delay)
        pieces += [(first, piece) for piece in clock.counted(first, 10, arrived)]
        true.append(times + hole)
        arrivals.append(arrived)
    return lay_out(pieces), np.concatenate(true), np.array(arrivals)


@pytest.mark.parametrize("seed", range(3))
def test_a_count_is_fitted_to_arrival_and_never_given_later(seed: int) -> None:
    told, true, arrivals = counted(seed=seed)
    error = told.stamps - true
    assert (told.stamps[9::10] <= arrivals).all()
    assert (np.abs(error) <= told.uncertainty).all()
    assert error[3000:].std() < 4e-4  # of 6 ms
    assert 0.001 < error[3000:].mean() < 0.006  # the least delay, and part of the rest, stay
    assert 1 / SFREQ < told.uncertainty[-1] < told.uncertainty[0] / 2
    assert (told.index == np.arange(len(true))).all()
    assert increasing(told)


@pytest.mark.parametrize("lost", [0.1, 1.0, 30.0])
def test_samples_lost_and_not_counted_are_found_soon(lost: float) -> None:
    told, true, _ = counted(lost)
    ((where, piece),) = told.holes
    assert piece.missing == pytest.approx(lost * SFREQ * 0.995, abs=2)
    assert 0 < (where - round(30 * SFREQ)) / SFREQ < 1.5
    assert piece.invalidates == pytest.approx(30 * SFREQ, abs=50)
    assert piece.invalidates <= np.flatnonzero(true >= START + 30)[0]  # whatever lies behind it
    assert (np.abs(told.stamps - true) <= told.uncertainty).all()  # also before it is found
    assert told.segment.max() == 0
    assert np.abs(told.stamps - true)[where:].max() < 0.01


def test_a_stall_that_is_made_up_for_slowly_is_no_hole() -> None:
    told, true, _ = counted(1.0, slow=0.2, seconds=50.0)
    assert not told.holes
    assert told.segment.max() == 0
    assert (np.abs(told.stamps - true) <= told.uncertainty).all()


def test_a_delay_that_was_taken_for_a_hole_ends_in_a_segment_that_counts_right() -> None:
    told, true, _ = counted(1.0, back=40.0)
    assert len(told.holes) == 1
    assert told.segment[-1] == 1
    begun = int(np.flatnonzero(told.segment)[0])
    assert 40 <= true[begun] - START < 40.5
    drained = true > START + 41.2  # what was held back came all at once
    assert (np.abs(told.stamps - true) <= told.uncertainty)[drained].all()


def test_what_a_count_leaves_out_is_missing_and_going_back_is_a_restart() -> None:
    clock = StreamClock(SFREQ)
    pieces = [
        clock.counted(first, 10, START + (first + 10) / SFREQ)[0] for first in (500, 510, 545, 555)
    ] + clock.counted(3, 10, START + 3)
    assert [(p.segment, p.first_index, p.missing) for p in pieces] == [
        (0, 0, 0), (0, 10, 0), (0, 45, 25), (0, 55, 0), (1, 0, 0),
    ]  # fmt: skip
    assert pieces[-1].uncertainty > pieces[-2].uncertainty
    assert not clock.counted(13, 0, START + 4)
    with pytest.raises(StampError, match="arrived at nan"):
        clock.counted(13, 10, math.nan)


@given(seeds, st.integers(1, 400), st.integers(0, 290))
@tries(10)
def test_numbers_and_stamps_agree_on_a_hole(seed: int, lost: int, at: int) -> None:
    index = without(3000 + lost, 10 * at, lost)
    stamps = jittered(index, seed)
    clock = StreamClock(SFREQ)
    pieces = [p for k in range(0, 3000, 10) for p in clock.stamped(stamps[k : k + 10], number=int(index[k]))]
    first = int(index[0])
    assert [p.first_index for p in pieces] == [int(n) - first for n in index[::10]]
    assert sum(p.missing for p in pieces) == (lost if at else 0)
    assert {p.segment for p in pieces} == {0}


def test_a_step_that_the_numbers_do_not_explain_is_a_clock_that_was_set() -> None:
    stamps = START + np.arange(1000) / SFREQ
    stamps[500:] += 7.0
    clock = StreamClock(SFREQ)
    pieces = [p for k in range(0, 1000, 10) for p in clock.stamped(stamps[k : k + 10], number=k)]
    assert [p.segment for p in pieces] == [0] * 50 + [1] * 50
    assert not any(p.missing for p in pieces)


# --- the offset between two clocks ------------------------------------------------------------------------------------


def test_an_offset_that_drifts_is_followed_through_outliers() -> None:
    """50 ppm; one measurement in seven took 50 ms longer one way, so that it is 25 ms wrong and may not know it."""
    rng = np.random.default_rng(1)
    offset = ClockOffset()
    error = []
    for k in range(240):
        host = 5.0 * k
        true = 1000 + 5e-5 * host
        wrong = 0.025 if k % 7 == 3 else 0.0
        offset.measured(host, true + wrong + rng.uniform(-2e-4, 2e-4), 0.0255 if k % 14 == 3 else 3e-4)
        for later in (0.0, 2.5, 4.9):
            sender = host + later - (1000 + 5e-5 * (host + later))
            error.append((offset.to_host(sender) - host - later, offset.uncertainty))
    assert max(abs(e) for e, _ in error[12:]) < 1e-3
    assert max(abs(e) for e, _ in error[120:]) < 3e-4
    assert all(abs(e) <= u for e, u in error[120:])
    assert offset.steps == 0


@given(
    st.lists(st.tuples(st.floats(-0.004, 0.004), st.floats(1e-5, 1e-3)), min_size=1, max_size=20), st.integers(1, 50)
)
@tries(16)
def test_a_new_offset_is_approached_slowly(measured: list[tuple[float, float]], step: int) -> None:
    """Stamps mapped while measurements come increase, by their own steps give or take the slew and the drift."""
    offset = ClockOffset()
    mapped = []
    t = 100.0
    for error, uncertainty in measured:
        offset.measured(t + 12.5, 12.5 + error, uncertainty)
        stamps = t + np.arange(step) / 1000
        mapped.append(offset.to_host(stamps))
        t += step / 1000
    steps = np.diff(np.concatenate(mapped)) if offset.steps == 0 else np.array([1e-3])
    assert (np.abs(steps - 1e-3) < 2e-5).all()


def test_a_clock_set_by_a_second_is_believed_after_three_measurements() -> None:
    offset = ClockOffset()
    clock = StreamClock(SFREQ, offset)
    for k in range(10):
        offset.measured(5.0 * k, -100.0, 1e-4)
    assert clock.stamped(150.0 + np.arange(10) / SFREQ)[0].segment == 0
    for k in range(10, 13):
        offset.measured(5.0 * k, -101.0, 1e-4)
    assert offset.steps == 1
    (piece,) = clock.stamped(150.04 + np.arange(10) / SFREQ)
    assert piece.segment == 1
    assert piece.stamps[0] == pytest.approx(49.04, abs=1e-6)


@pytest.mark.parametrize("same_host", [True, False])
def test_a_step_of_the_stamps_is_borne_out_by_one_measurement(same_host: bool) -> None:
    """Stamps went on by a second; so did the clock, or samples are missing."""
    for k, (measured, steps) in enumerate([(-1.0003, 1), (2e-4, 0), (-0.5, 0)]):
        offset = ClockOffset(same_host)
        for j in range(4):
            offset.measured(5.0 * j, 0.0, 1e-4)
        offset.suspect(1.0)
        offset.measured(16.0, measured, 1e-4)
        assert offset.steps == steps, k
        if steps:
            assert offset.to_host(18.0) == pytest.approx(17.0, abs=1e-3)
    for _ in range(3):
        offset.measured(17.0, 0.0, 1e-4)
    offset.measured(18.0, -1.0, 1e-4)  # long after, it is one stray among others
    assert offset.steps == 0


def test_one_host_is_one_clock_unless_measured_otherwise() -> None:
    stamps = np.array([1.1, 2.2, 3.3])
    same = ClockOffset(same_host=True)
    assert same.known
    same.measured(0.0, 2e-5, 1e-4)
    assert same.to_host(stamps).tobytes() == stamps.tobytes()
    assert same.uncertainty == 0.0
    other = ClockOffset(same_host=True)  # one host name, two machines (containers, virtual machines)
    other.measured(0.0, 250.0, 1e-4)
    np.testing.assert_allclose(other.to_host(stamps), stamps + 250.0)
    assert not ClockOffset().known


# --- a clock that can only be heard -----------------------------------------------------------------------------------


def heard(delays: np.ndarray, every: float = 0.01, ahead: float = 1234.5) -> np.ndarray:
    """Error and uncertainty of the offset after each message, in seconds."""
    offset = HeardOffset()
    found = []
    for k, delay in enumerate(delays):
        sent = START + every * k
        offset.heard(sent + ahead, sent + float(delay))
        found.append((offset.to_host(sent + ahead) - sent, offset.uncertainty, offset.steps))
    return np.array(found)


@pytest.mark.parametrize("backlog", [0.0, 0.05, 0.3])
def test_a_clock_that_is_heard_goes_by_its_quickest_messages(backlog: float) -> None:
    """At first the messages that waited; then some take longer."""
    rng = np.random.default_rng(0)
    delays = 1e-4 + rng.exponential(0.005, 6000) * (rng.random(6000) < 0.3)
    delays[:50] = np.maximum(delays[:50], backlog - 0.009 * np.arange(50))
    error, uncertainty, steps = heard(delays).T
    assert error.min() >= 0  # nothing before it was sampled
    assert error[50:].max() < 2e-4
    assert (np.abs(error) <= uncertainty)[50:].all()
    assert uncertainty[-1] < 2e-3
    assert steps[-1] == 0


@pytest.mark.parametrize("step", [-5.0, -0.2, 0.2, 5.0])
def test_a_clock_that_is_heard_and_set_is_followed_within_seconds(step: float) -> None:
    delays = 1e-4 + np.random.default_rng(1).exponential(0.003, 2000)
    delays[1000:] += step
    error, _, steps = heard(delays).T
    assert steps[-1] == 1
    assert np.abs(error[1300:] - step).max() < 2e-3


def test_a_drift_of_a_clock_that_is_heard_is_followed() -> None:
    k = np.arange(30_000)
    error, uncertainty, steps = heard(5e-5 * 0.01 * k + np.random.default_rng(2).exponential(0.002, len(k))).T
    late = error - 5e-5 * 0.01 * k
    assert (np.abs(late) <= uncertainty + 1.5e-3)[100:].all()
    assert steps[-1] == 0


# --- recordings -------------------------------------------------------------------------------------------------------


def recorded(path: Path, name: str) -> np.ndarray:
    pyxdf = pytest.importorskip("pyxdf")
    streams = pyxdf.load_xdf(str(path), synchronize_clocks=False, dejitter_timestamps=False, verbose=False)[0]
    (found,) = [one["time_stamps"] for one in streams if one["info"]["name"][0] == name]
    return np.asarray(found, np.float64)


@pytest.mark.parametrize("sizes", [(1,), (10,), (40,), (33, 7)])
def test_bursts_of_forty_with_stamps_that_run_backwards(shared_data: Path, sizes: tuple[int, ...]) -> None:
    stamps = recorded(shared_data / "xdf/eeglab/test.xdf", "obci_neeg1")
    told = feed(StreamClock(1000.0), stamps, sizes)
    assert told.segment.max() == 0
    assert not told.holes
    assert increasing(told)
    assert np.diff(told.stamps).std() < np.diff(stamps).std() / 5
    index = np.arange(len(stamps))
    truth = np.polyval(np.polyfit(index, stamps - stamps[0], 1), index) + stamps[0]
    assert rms(told.stamps - truth) < rms(stamps - truth) / 2
    assert rms((told.stamps - truth)[5000:]) < rms(stamps - truth) / 4
    assert abs((told.stamps - truth).mean()) < 2e-3
