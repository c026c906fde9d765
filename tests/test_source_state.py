"""The state machine of sources: a day of trouble in a millisecond; and the naming of what changed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtdecode.signal import Channel, Chunk, Notice, SourceState
from rtdecode.sources.change import ChangedError, Declared, changes
from rtdecode.sources.state import FLOOR_S, LEGAL, UNKNOWN_S, ChunkPeriod, SourceWatch

CONNECTING, STREAMING, STALLED = SourceState.CONNECTING, SourceState.STREAMING, SourceState.STALLED
RECOVERING, CHANGED, ENDED = SourceState.RECOVERING, SourceState.CHANGED, SourceState.ENDED


def chunk(first: int, n: int = 5, segment: int = 0, stamp: float = 0.0) -> Chunk:
    stamps = stamp + np.arange(n) / 100
    return Chunk(np.zeros((n, 2), np.float32), stamps, first, segment, float(stamps[-1]) + 0.25)


def say(state: SourceState, text: str = "so", **details: str) -> Notice:
    return Notice("state", text, state, details)


def streaming(every: float = 0.05, until: int = 40, **watch: float) -> tuple[SourceWatch, float]:
    """A source of 100 Hz that has given `until` chunks of 5 samples, `every` so many seconds; and the time."""
    one = SourceWatch(0.0, 100.0, **watch)
    for k in range(until):
        one.arrived(chunk(5 * k), k * every)
    return one, (until - 1) * every


def test_every_state_but_the_end_can_be_left_and_only_a_change_may_repeat() -> None:
    assert set(LEGAL) == set(SourceState)
    assert not LEGAL[ENDED]
    assert all(CONNECTING not in after for after in LEGAL.values())
    assert [state for state in SourceState if state in LEGAL[state]] == [CHANGED]
    for state in (CONNECTING, STREAMING, STALLED, RECOVERING, CHANGED):
        assert LEGAL[state] >= {STREAMING, STALLED, RECOVERING, CHANGED, ENDED} - {state}


inputs = st.one_of(
    st.tuples(st.just("chunk"), st.integers(0, 3), st.integers(-3, 30)),
    st.tuples(st.just("look"), st.just(0), st.just(0)),
    st.tuples(st.just("say"), st.sampled_from([None, *SourceState]), st.sampled_from(["a", "b"])),
)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.001, 0.05, 0.3, 5.0, 500.0]), inputs), max_size=60))
def test_whatever_happens_only_legal_changes_come_of_it_and_each_is_told_once(
    story: list[tuple[float, tuple[str, object, object]]],
) -> None:
    watch, now, index, told = SourceWatch(0.0, 100.0), 0.0, 0, CONNECTING
    for wait, (what, first, second) in story:
        now += wait
        before, since = watch.state, watch.since
        if what == "chunk":
            assert isinstance(first, int)
            assert isinstance(second, int)
            change = watch.arrived(chunk(max(0, index + second), segment=first), now)
            index = max(0, index + second) + 5
            assert watch.state is (ENDED if before is ENDED else STREAMING)
        elif what == "look":
            due = now >= watch.look_at
            change = watch.looked(now)
            assert (change is not None) == due
            assert watch.look_at > now
        else:
            change = watch.told(Notice("state", str(second), first), now)  # type: ignore[arg-type]
        if change is None:
            assert watch.state is before
            continue
        assert change.state is watch.state
        assert watch.state in LEGAL[before]
        assert change.details["previous"] == told == before
        assert change.details["state"] == watch.state
        assert change.details["since_s"] == pytest.approx(now - since)
        told = watch.state
    assert told is watch.state


def test_three_chunk_periods_without_samples_are_a_stall() -> None:
    watch, now = streaming()
    assert watch.stall_after == pytest.approx(0.15)
    assert watch.look_at == pytest.approx(now + 0.15)
    assert watch.looked(now + 0.14) is None
    change = watch.looked(now + 0.16)
    assert change is not None
    assert (change.state, change.details["previous"]) == (STALLED, STREAMING)
    assert change.details["silent_s"] == pytest.approx(0.16)
    assert watch.looked(now + 100) is None
    assert watch.look_at == math.inf


def test_a_period_of_a_few_milliseconds_is_no_reason_to_be_nervous() -> None:
    watch, now = streaming(every=0.002)
    assert watch.stall_after == FLOOR_S
    assert watch.looked(now + 0.9 * FLOOR_S) is None


def test_what_the_user_says_is_not_learned_over() -> None:
    watch, now = streaming(stall_s=1.5)
    assert watch.looked(now + 1.4) is None
    assert watch.looked(now + 1.6) is not None


def test_before_anything_is_learned_silence_is_given_more_time() -> None:
    watch = SourceWatch(10.0, 100.0)
    assert watch.looked(10.0 + 0.9 * UNKNOWN_S) is None
    change = watch.looked(10.0 + UNKNOWN_S)
    assert change is not None
    assert change.details["previous"] == CONNECTING


@given(st.integers(1, 12), st.floats(0.02, 1.0))
def test_the_period_of_chunks_that_come_in_pieces_is_that_of_the_chunks(pieces: int, period: float) -> None:
    learned = ChunkPeriod()
    for _ in range(40):
        for _ in range(pieces - 1):
            learned.learn(0.0005, math.inf)
        learned.learn(period - 0.0005 * (pieces - 1), math.inf)
    assert learned.seconds == pytest.approx(period, abs=0.0005 * pieces)


def test_one_long_silence_teaches_nothing_and_a_new_rhythm_is_learned_within_a_few_chunks() -> None:
    watch, now = streaming()
    watch.arrived(chunk(200), now + 60)
    now += 60
    for k in range(40):
        now += 0.05
        assert watch.arrived(chunk(205 + 5 * k), now) is None
    assert watch.stall_after == pytest.approx(0.15)
    stalls = 0
    for k in range(60):  # from now on half a second at once
        stalls += watch.looked(now + 0.499) is not None
        now += 0.5
        watch.arrived(chunk(405 + 50 * k, 50), now)
    assert watch.stall_after == pytest.approx(1.5)
    assert stalls < 30


def test_samples_that_come_late_cost_none_and_those_that_were_lost_are_counted() -> None:
    for first, missing in ((200, 0), (237, 37)):
        watch, now = streaming()
        watch.looked(now + 1)
        change = watch.arrived(chunk(first), now + 3)
        assert change is not None
        assert (change.state, change.details["previous"]) == (STREAMING, STALLED)
        assert change.details["missing"] == missing
        assert change.details["silent_s"] == pytest.approx(3.0)
        assert change.details["since_s"] == pytest.approx(2.0)
        assert change.details["behind_s"] == pytest.approx(0.25)


def test_a_source_that_is_back_streams_when_samples_come() -> None:
    watch, now = streaming()
    lost = watch.told(say(RECOVERING, "lost"), now + 0.1)
    assert lost is not None
    assert watch.look_at == math.inf  # silent for a reason that is known
    assert watch.told(say(RECOVERING, "still lost"), now + 0.2) is None
    assert watch.told(say(STREAMING, "found", how="by name"), now + 4) is None
    assert watch.state is RECOVERING
    assert watch.looked(now + 4.1) is None
    change = watch.arrived(chunk(0, segment=1), now + 4.12)
    assert change is not None
    assert change.text == "found; about 407 samples are missing"
    assert (change.details["previous"], change.details["how"]) == (RECOVERING, "by name")


def test_a_source_that_is_back_and_silent_is_stalled() -> None:
    watch, now = streaming()
    watch.told(say(RECOVERING), now + 0.1)
    watch.told(say(STREAMING), now + 4)
    change = watch.looked(now + 4.2)
    assert change is not None
    assert change.details["previous"] == RECOVERING
    assert change.details["silent_s"] == pytest.approx(4.2)


def test_another_change_is_told_and_the_same_one_is_not() -> None:
    watch, now = streaming()
    watch.told(say(RECOVERING), now)
    assert watch.told(say(CHANGED, "other rate"), now + 1) is not None
    assert watch.told(say(CHANGED, "other rate"), now + 2) is None
    again = watch.told(say(CHANGED, "other names", changed="names"), now + 3)
    assert again is not None
    assert (again.details["previous"], again.details["changed"]) == (CHANGED, "names")


def test_after_the_end_there_is_nothing() -> None:
    watch, now = streaming()
    assert watch.told(say(ENDED), now) is not None
    assert watch.told(say(RECOVERING), now + 1) is None
    assert watch.arrived(chunk(200), now + 1) is None
    assert watch.looked(now + 1000) is None
    assert watch.state is ENDED


# --- what changed ----------------------------------------------------------------------------------------------------

NAMES = ("Fz", "Cz", "Pz")


def declared(names: tuple[str, ...] = NAMES, units: tuple[str, ...] = ("uV", "uV", "uV"), **more: object) -> Declared:
    scales = [{"uV": 1e-6, "µV": 1e-6, "mV": 1e-3, "T": 1.0}[unit] for unit in units]
    channels = [Channel(name, "eeg", "T" if unit == "T" else "V") for name, unit in zip(names, units, strict=True)]
    what: dict[str, object] = {"sfreq": 250.0, "format": "float32", "identity": {"source_id": "amp"}} | more
    return Declared(channels=channels, units=units, scales=scales, **what)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (declared(sfreq=500.0), "rate: 500 Hz instead of 250 Hz"),
        (declared(format="int16"), "format: int16 instead of float32"),
        (declared(("Fz", "Cz"), ("uV", "uV")), "number of channels: 2 instead of 3"),
        (declared(("Fz", "Pz", "Cz")), "order of channels: 'Pz' at place 2 instead of 'Cz'"),
        (declared(("Fz", "Cz", "Oz")), "names of channels: 'Oz' at place 3 instead of 'Pz'"),
        (declared(units=("uV", "mV", "uV")), "unit of channel 'Cz': mV instead of uV"),
        (declared(units=("uV", "uV", "T")), "unit of channel 'Pz': T instead of uV"),
        (declared(identity={"source_id": "another"}), "source_id: 'another' instead of 'amp'"),
    ],
)
def test_each_difference_is_named(now: Declared, message: str) -> None:
    (found,) = changes(declared(), now)
    assert str(found) == message
    error = ChangedError("the stream", [found])
    assert f"the stream came back with other {message}; " in str(error)
    assert error.details["changed"] == found.what
    assert (error.details["was"], error.details["is"]) == (found.was, found.now)


def test_several_differences_are_all_named_and_no_difference_is_none() -> None:
    found = changes(declared(), declared(("A", "B", "C"), ("mV", "uV", "uV"), sfreq=100.0))
    assert [one.what for one in found] == ["rate", "names of channels", "unit of channel 'Fz'"]
    assert changes(declared(), declared(units=("µV", "uV", "uV"))) == []  # another spelling of the same
    moved = [Channel(name, "eeg", "V", (0.0, 0.0, 0.1)) for name in NAMES]
    was = declared()
    assert changes(was, Declared(250.0, moved, was.units, was.scales, "float32", was.identity)) == []
