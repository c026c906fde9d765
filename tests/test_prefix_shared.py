"""Engines that share a prefix give what each gives alone, whoever is ahead, behind, restarted, swapped or gone."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from incremental_kit import Net, engine_of, prefix_of
from numpy.typing import NDArray
from test_decoder import CHANNELS, SFREQ, Tape, payloads, tapes

from rtdecode.decoder import Decoder
from rtdecode.encode.incremental import IncrementalEngine
from rtdecode.encode.prefix_pool import HISTORY_S, Prefix, PrefixPool
from rtdecode.result import Result
from rtdecode.signal import Chunk
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.early_steps import EarlySteps
from rtdecode.stream.steps import Clamp, Filter
from rtdecode.stream.window import Locked, Sliding, WindowSpec
from rtdecode_export.incremental.compile import Compiled, choices, write_choice

TIME = 24
STEPS = (Clamp(limit=2.5),)
WINDOWS: list[WindowSpec] = [
    Sliding(name="slide", length=TIME / SFREQ, hop=0.04),
    Locked(name="cue", tmin=-0.1, tmax=TIME / SFREQ - 0.1, markers=("T1", "T2")),
]
EARLY = EarlySteps(STEPS, SFREQ, 0.0, TIME)
HISTORY = round(HISTORY_S * SFREQ)


@cache
def encoder(kind: str) -> bytes:
    """A first layer that is summed up; padding at both ends; strides."""
    net = Net(TIME, 3, 5)
    match kind:
        case "sums":
            net.conv(3, 1, 1, (0, 0), 4)
        case "padded":
            net.conv(5, 1, 1, (2, 2), 4)
            net.x = net.add("Elu", [net.x])
            net.conv(3, 1, 2, (2, 2), 3)
        case _:
            net.spatial(4, 2)
            net.gelu()
    onnx: bytes = net.end("mean" if kind == "padded" else "flat")
    return onnx


@cache
def compiled(kind: str, blocks: int) -> Compiled:
    choice = choices(encoder(kind), WINDOWS, STEPS, SFREQ)[0]
    return write_choice(choice.with_block(choice.cut.stride * blocks), None)


def shared_prefix(kind: str, blocks: int) -> Prefix:
    prefix: Prefix = prefix_of(compiled(kind, blocks), (TIME, 3), SFREQ)
    return prefix


def engine(kind: str, blocks: int, prefix: Prefix | None = None) -> IncrementalEngine:
    one: IncrementalEngine = engine_of(compiled(kind, blocks), encoder(kind), WINDOWS, STEPS, SFREQ, prefix)
    return one


def noise(segment: int) -> NDArray[np.float32]:
    """What every engine hears of a segment."""
    return np.random.default_rng(segment).standard_normal((4000, 3)).astype(np.float32)


@dataclass
class Listening:
    """An engine, what it has heard, and one of its own kind that shares with nobody."""

    engine: IncrementalEngine
    alone: IncrementalEngine
    segment: int = 0
    first: int = 0
    at: int = 0
    samples: NDArray[np.float32] = field(default_factory=lambda: noise(0))
    closed: bool = False

    def restart(self, segment: int, at: int) -> None:
        if segment != self.segment:
            self.segment, self.samples = segment, noise(segment)
        self.first = self.at = at
        self.engine.restart(at)
        self.alone.restart(at)

    def hear_otherwise(self, at: int) -> None:
        """From here on its samples differ from what others hear, though by one bit only."""
        self.samples = self.samples.copy()
        self.samples[self.at + at :, 0].view(np.uint32)[:] ^= 1 << 16

    def push(self, n: int) -> None:
        before, self.at = self.at, min(self.at + n, len(self.samples))
        for one in (self.engine, self.alone):
            one.advance(self.samples[before : self.at], before)
            if n % 2:
                one.catch_up()
        first = max(self.first, before - TIME - 40)
        for start in range(first, self.at - TIME + 1):
            if start % 4 == 0 and (start + TIME > before or start % 3 == 0):  # now due, and some that waited
                assert self.finish(self.engine, start) == self.finish(self.alone, start)

    def finish(self, one: IncrementalEngine, start: int) -> bytes:
        return one.finish(EARLY(self.samples[start : start + TIME]), start)["y"].tobytes()


ACTIONS = st.tuples(
    st.integers(0, 2),
    st.sampled_from(
        ["push", "push", "push", "far", "follow", "follow", "gap", "segment", "otherwise", "join", "close"]
    ),
    st.integers(1, 30),
)


@settings(max_examples=60)
@given(
    kind=st.sampled_from(["sums", "padded", "strides"]),
    blocks=st.integers(1, 4),
    actions=st.lists(ACTIONS, max_size=25),
)
def test_whatever_engines_of_one_prefix_do_each_gives_what_it_gives_alone(
    kind: str, blocks: int, actions: list[tuple[int, str, int]]
) -> None:
    pool = PrefixPool()
    prefix = pool.put(shared_prefix(kind, blocks))
    swapped = engine(kind, blocks, shared_prefix(kind, blocks))
    each = [
        Listening(one, engine(kind, blocks)) for one in (*(engine(kind, blocks, prefix) for _ in range(2)), swapped)
    ]
    for who, what, n in actions:
        one = each[who]
        match what:
            case _ if one.closed:
                pass
            case "push":
                one.push(n)
            case "far":
                one.push(HISTORY + TIME + n)
            case "follow":
                while (ahead := each[who - 1]).segment == one.segment and ahead.at > one.at:
                    one.push(min(30, ahead.at - one.at))
            case "gap":
                one.restart(one.segment, min(one.at + n, 3900))
            case "segment":
                one.restart(one.segment + 1, n % 5)
            case "otherwise":
                one.hear_otherwise(n)
            case "join":
                one.engine.join(pool)
            case "close":
                one.engine.close()
                one.closed = True


# --- who runs it ------------------------------------------------------------------------------------------------------


def run_by(one: Listening) -> tuple[int, int]:
    told = one.engine.sharing()
    return int(told["prefix_samples_run"]), int(told["prefix_samples_found"])


def pair(prefix: Prefix) -> list[Listening]:
    return [Listening(engine("padded", 2, prefix), engine("padded", 2)) for _ in range(2)]


def test_what_two_hear_is_run_once_whoever_is_ahead() -> None:
    one, other = pair(shared_prefix("padded", 2))
    for n in (40, 60, 7, 1, HISTORY - 30):
        one.push(n)
        other.push(n + 3)
        one.push(3)
        one, other = other, one
    assert run_by(one)[0] + run_by(other)[0] == one.at == other.at
    assert run_by(one)[0] > 50
    assert run_by(other)[0] > 50
    assert same_run(one, other)


def test_who_falls_far_behind_runs_it_alone_and_goes_back_when_it_hears_the_same_again() -> None:
    one, other = pair(shared_prefix("padded", 2))
    for both in (one, other):
        both.push(50)
    one.push(2 * HISTORY)
    other.push(20)
    assert other.engine.sharing()["prefix_shared_with"] == ""
    other.push(2 * HISTORY - 20)
    before = run_by(one)[0] + run_by(other)[0]
    for _ in range(20):
        for both in (one, other):
            both.push(10)
    assert one.at == other.at
    assert run_by(one)[0] + run_by(other)[0] - before < 200 + 3 * TIME


def test_one_that_was_swapped_in_shares_once_it_has_heard_a_window_beside_the_others() -> None:
    pool = PrefixPool()
    one, _ = pair(pool.put(shared_prefix("padded", 2)))
    new = Listening(engine("padded", 2, shared_prefix("padded", 2)), engine("padded", 2))
    for both in (one, new):
        both.push(100)
    new.engine.join(pool)
    for _ in range(10):
        for both in (one, new):
            both.push(TIME // 2)
    assert same_run(one, new)


def test_one_bit_keeps_two_apart_until_the_next_gap() -> None:
    one, other = pair(shared_prefix("padded", 2))
    for both in (one, other):
        both.push(50)
    other.hear_otherwise(5)
    for _ in range(20):
        for both in (one, other):
            both.push(10)
    assert run_by(one)[1] + run_by(other)[1] <= 60
    for both in (one, other):
        both.restart(1, 3)
        both.push(40)
    assert run_by(one) == (40, 0)
    assert run_by(other) == (0, 40)


def test_samples_that_do_not_follow_are_refused() -> None:
    one, other = (engine("sums", 2, shared_prefix("sums", 2)) for _ in range(2))
    one.advance(noise(0)[:20], 0)
    with pytest.raises(ValueError, match="restart first"):
        one.advance(noise(0)[30:40], 30)
    with pytest.raises(ValueError, match="restart first"):
        other.advance(noise(0)[5:20], 5)


def test_nothing_is_made_of_samples_that_one_has_not_heard_itself() -> None:
    prefix = shared_prefix("sums", 1)
    one, other = (Listening(engine("sums", 1, prefix), engine("sums", 1)) for _ in range(2))
    one.push(60)
    for _ in range(4):
        other.push(5)
    other.engine.catch_up()
    other.hear_otherwise(1)
    for _ in range(6):
        other.push(5)
    assert other.at == 50


def test_sums_that_another_is_further_with_end_where_two_differ() -> None:
    prefix = shared_prefix("sums", 1)
    one, other = (Listening(engine("sums", 1, prefix), engine("sums", 1)) for _ in range(2))
    for n in (30, 11):
        one.push(n)
    for n in (20, 11):
        other.push(n)
    one.engine.catch_up()
    other.hear_otherwise(1)
    other.push(9)
    other.push(20)
    assert other.engine.sharing()["prefix_shared_with"] == ""


def test_a_window_from_before_a_gap_is_none_of_those_that_share() -> None:
    one, other = pair(shared_prefix("padded", 2))
    one.push(100)
    other.hear_otherwise(10)
    other.push(60)
    expected = other.finish(other.alone, 20)
    before = other.samples
    other.samples = noise(0)
    other.restart(0, 70)
    other.push(30)
    assert run_by(other) == (0, 30)
    other.samples = before
    assert other.finish(other.engine, 20) == expected


def test_one_that_goes_over_takes_nothing_from_before_it_heard_the_same() -> None:
    pool = PrefixPool()
    (one, _), new = (
        pair(pool.put(shared_prefix("padded", 2))),
        Listening(engine("padded", 2, shared_prefix("padded", 2)), engine("padded", 2)),
    )
    new.hear_otherwise(0)
    new.samples[80:] = noise(0)[80:]
    for both in (one, new):
        both.push(100)
    new.engine.join(pool)
    for _ in range(12):
        for both in (one, new):
            both.push(5)
    assert same_run(one, new)
    assert new.finish(new.engine, 60) == new.finish(new.alone, 60)


def same_run(one: Listening, other: Listening) -> bool:
    here, there = one.engine._shared, other.engine._shared
    return here is not None and there is not None and here.run is there.run


def test_one_encoder_is_run_once_for_all_that_hear_a_window() -> None:
    for kind in ("sums", "strides"):
        prefix = shared_prefix(kind, 2)
        one, other = (Listening(engine(kind, 2, prefix), engine(kind, 2)) for _ in range(2))
        for at in range(0, 100, 10):
            for both in (one, other):
                for each in (both.engine, both.alone):
                    each.advance(both.samples[at : at + 10], at)
                for start in range(-(-max(0, at - TIME + 1) // 4) * 4, at + 10 - TIME + 1, 4):
                    found = both.engine.finish(EARLY(both.samples[start : start + TIME]), start)["y"]
                    assert found.tobytes() == both.finish(both.alone, start)
                    found[:] = 0  # what somebody was given is his
        assert [both.engine.sharing()["windows_found"] for both in (one, other)] == [0, 20]


# --- in decoders ------------------------------------------------------------------------------------------------------


def decoder_of(one: IncrementalEngine) -> Decoder:
    return Decoder(
        columns=[0, 1, 2],
        channels=CHANNELS,
        n_stream_channels=3,
        sfreq=SFREQ,
        conditioner=Conditioner((Filter(low=1.0, high=30.0),), CHANNELS, SFREQ, {}),
        window_steps=STEPS,
        windows=WINDOWS,
        engine=one,
        heads=(),
        history_s=1e3,
    )


def chunks_of(tape: Tape, cuts: list[int], begin: int) -> Iterator[Chunk]:
    """A tape in chunks of these lengths, in turns; the first chunks are not heard."""
    n = 0
    for piece in tape.pieces:
        at = 0
        while at < len(piece.stamps):
            stop = at + cuts[n % len(cuts)]
            if n >= begin:
                rows = slice(at, stop)
                yield Chunk(piece.samples[rows], piece.stamps[rows], piece.first_index + at, piece.segment)
            at, n = stop, n + 1


@settings(max_examples=40)
@given(tape=tapes(), data=st.data())
def test_decoders_that_share_a_prefix_give_what_each_gives_alone(tape: Tape, data: st.DataObject) -> None:
    prefix = shared_prefix("sums", 3)
    found: list[list[Result]] = [[], []]
    decoders = [decoder_of(engine("sums", 3, prefix)) for _ in range(2)]
    plans = [(data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=6)), data.draw(st.integers(0, 3)))]
    plans.append(data.draw(st.sampled_from([plans[0], ([7, 20], 0), ([13], 2)])))
    playing = [chunks_of(tape, *plan) for plan in plans]
    turns = data.draw(st.lists(st.integers(0, 1), max_size=40))
    for who in (*turns, *([0, 1] * 700)):
        for chunk in (next(playing[who], None),):
            if chunk is not None:
                found[who] += decoders[who].push(chunk)
    for who, plan in enumerate(plans):
        for markers in (tape.markers,):
            found[who] += decoders[who].push(None, markers, np.inf)
        found[who] += decoders[who].finish()
        alone = decoder_of(engine("sums", 3))
        expected = [result for chunk in chunks_of(tape, *plan) for result in alone.push(chunk)]
        expected += alone.push(None, tape.markers, np.inf) + alone.finish()
        assert payloads(found[who]) == payloads(expected)
