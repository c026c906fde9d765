"""The budget's laws: a bounded queue, every window once, the newest first when behind, none skipped for nothing."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdecode.budget import KEPT, MEMORY_S, PROBE_S, RECENT, Action, Budget, Decision, Stages, StageTimes
from rtdecode.result import Task
from rtdecode.stream.segment import Due
from rtdecode.stream.window import Sliding

WINDOW = Sliding(length=0.2, hop=0.1)


def task(n: int, arrived: float) -> Task:
    samples = np.zeros((4, 2), np.float32)
    due = Due(WINDOW, 0, n, None, samples, stamp=arrived, arrived=arrived, uncertainty=0.0)
    return Task(due, 4, 20.0, arrived)


def stages(encode: float = 0.0, variant: float = 0.0, publish: float = 0.0, at: float = 0.0) -> Stages:
    made = Stages()
    for times, seconds in ((made.encode, encode), (made.variant, variant), (made.publish, publish)):
        for _ in range(RECENT):
            times.note(seconds, at)
    return made


def put(budget: Budget, one: Task, now: float) -> list[Decision]:
    made = []
    while (decision := budget.room(now)) is not None:
        made.append(decision)
    budget.put(one)
    return made


def drained(budget: Budget, now: float) -> list[Decision]:
    made = []
    while (decision := budget.next(now)) is not None:
        made.append(decision)
    return made


# --- what a stage took ------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 10), min_size=1, max_size=600), st.floats(0.01, 1))
def test_a_quantile_is_numpy_s_of_the_newest_measurements(taken: list[float], q: float) -> None:
    times = StageTimes()
    for seconds in taken:
        times.note(seconds, 0.0)
    assert times.quantile(q) == np.quantile(taken[-RECENT:], q, method="inverted_cdf")


def test_old_measurements_are_forgotten_but_for_the_newest_few() -> None:
    times = StageTimes()
    for n in range(100):
        times.note(1.0, n * 0.01)
    times.note(0.1, 1.0 + MEMORY_S)
    assert len(times) == KEPT
    for n in range(KEPT):
        times.note(0.1, 2.0 + MEMORY_S + n)
    assert times.quantile(1.0) == 0.1


def test_without_measurements_nothing_is_predicted() -> None:
    assert StageTimes().quantile(0.9) == 0.0


# --- single decisions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_late", ["mark", "keep", "skip", "variant"])
def test_not_behind_windows_are_encoded_oldest_first(on_late: str) -> None:
    budget = Budget(stages(encode=0.01), 0.1, on_late=on_late)  # type: ignore[arg-type]
    for n in range(3):
        put(budget, task(n, 0.0), 0.0)
    made = drained(budget, 0.0)
    assert [(d.task.start, d.action) for d in made] == [(n, Action.ENCODE) for n in range(3)]


@pytest.mark.parametrize(
    ("on_late", "variant", "expected"),
    [
        ("mark", 0.0, Action.ENCODE_LATE),
        ("keep", 0.0, Action.ENCODE_LATE),
        ("skip", 0.0, Action.SKIP),
        ("variant", 0.02, Action.VARIANT),
        ("variant", 0.15, Action.SKIP),
    ],
)
def test_what_becomes_of_a_window_that_cannot_make_it(on_late: str, variant: float, expected: Action) -> None:
    budget = Budget(stages(encode=0.2, variant=variant), 0.1, on_late=on_late)  # type: ignore[arg-type]
    put(budget, task(0, 0.0), 0.0)
    (decision,) = drained(budget, 0.01)
    assert decision.action is expected
    if expected is Action.SKIP:
        cost = 200.0 if on_late == "skip" else 150.0
        assert decision.reason == f"predicted to take {cost:.1f} ms, with 90.0 ms left"


def test_publishing_counts_too() -> None:
    budget = Budget(stages(encode=0.06, publish=0.06), 0.1, on_late="skip")
    put(budget, task(0, 0.0), 0.0)
    assert drained(budget, 0.0)[0].action is Action.SKIP


def test_behind_the_newest_goes_first_and_what_is_hopeless_is_said_at_once() -> None:
    budget = Budget(stages(encode=0.06), 0.1, on_late="skip")
    for n in range(4):
        put(budget, task(n, n * 0.03), n * 0.03)
    assert budget.behind(0.09)
    first = [budget.next(0.09) for _ in range(3)]
    assert [(d.task.start, d.action) for d in first if d is not None] == [
        (0, Action.SKIP),
        (1, Action.SKIP),
        (3, Action.ENCODE),
    ]


def test_behind_the_variant_saves_those_that_wait() -> None:
    """Always the slow encoder for the newest, and every other window would miss its budget."""
    made = stages(encode=0.06, variant=0.01)
    budget = Budget(made, 0.1, on_late="variant", queue=100)
    now, n, actions = 0.0, 0, []
    while n < 200:
        while n * 0.03 <= now:
            put(budget, task(n, n * 0.03), now)
            n += 1
        decision = budget.next(now)
        if decision is None:
            now = n * 0.03
            continue
        actions.append(decision.action)
        now += {Action.ENCODE: 0.06, Action.VARIANT: 0.01, Action.SKIP: 0.0}[decision.action]
        if decision.action is not Action.SKIP:
            assert now <= decision.task.arrived + 0.1 + 1e-9
            made.variant.note(0.01, now)
    assert actions.count(Action.ENCODE) > 40
    assert actions.count(Action.VARIANT) > 50
    assert actions.count(Action.SKIP) < 40  # what came while the slow encoder ran goes before them


def test_the_slow_encoder_is_used_as_often_as_the_variant_leaves_it_time() -> None:
    """One that cannot hold its hop, of a budget for two of its runs: both encode, in turns, and nothing is given up."""
    hop, slow, quick = 0.02, 0.1, 0.002
    budget = Budget(stages(encode=slow, variant=quick), 2 * slow, on_late="variant", queue=1000, quantile=0.5)
    now, n = 0.0, 0
    out: list[Decision] = []
    while len(out) < 1000:
        while n * hop <= now:
            put(budget, task(n, n * hop), n * hop)
            n += 1
        decision = budget.next(now)
        if decision is None:
            now = n * hop
            continue
        now += {Action.ENCODE: slow, Action.VARIANT: quick}[decision.action]
        assert now <= decision.task.arrived + 2 * slow + 1e-9
        out.append(decision)
    by_slow = [place for place, decision in enumerate(out) if decision.action is Action.ENCODE]
    # While it runs once, five become due; they and the budget's slack are the variant's until it has its next turn.
    assert len(by_slow) > len(out) / 12
    assert max(np.diff(by_slow)) < 12


def test_a_window_whose_arrival_nobody_knows_is_in_no_hurry() -> None:
    budget = Budget(stages(encode=5.0), 0.1, on_late="skip")
    put(budget, task(0, math.nan), 0.0)
    assert drained(budget, 1e6)[0].action is Action.ENCODE


def test_a_prediction_that_skips_everything_is_put_to_the_test() -> None:
    """The machine was busy, and is free again: without a probe nothing would be measured any more."""
    made = stages(encode=1.0)
    budget = Budget(made, 0.1, on_late="skip")
    actions = []
    for n in range(1000):
        now = n * 0.05
        put(budget, task(n, now), now)
        (decision,) = drained(budget, now)
        actions.append(decision.action)
        if decision.action is not Action.SKIP:
            made.encode.note(0.01, now)
    assert actions[0] is Action.SKIP
    assert actions.index(Action.ENCODE_LATE) == math.floor(PROBE_S / 0.05) + 1
    recovered = actions.index(Action.ENCODE)
    assert recovered * 0.05 < 2 * MEMORY_S
    assert set(actions[recovered:]) == {Action.ENCODE}


def test_what_waits_is_held_once_before_more_samples_come() -> None:
    budget = Budget(stages(encode=0.01), 1.0)
    first = task(0, 0.0)
    view = first.due.samples
    put(budget, first, 0.0)
    budget.hold()
    held = first.due.samples
    assert held is not view
    put(budget, task(1, 0.0), 0.0)
    budget.hold()
    assert first.due.samples is held


# --- properties -------------------------------------------------------------------------------------------------------

ARRIVALS = st.lists(st.tuples(st.floats(0, 0.2), st.integers(0, 3)), max_size=60)


@settings(max_examples=200)
@given(
    ARRIVALS,
    st.sampled_from(["mark", "keep", "skip", "variant"]),
    st.integers(1, 5),
    st.floats(0, 0.3),
    st.floats(0, 0.3),
)
def test_every_window_comes_out_exactly_once_and_the_queue_stays_bounded(
    arrivals: Sequence[tuple[float, int]], on_late: str, queue: int, encode: float, variant: float
) -> None:
    budget_s = 0.15
    made = stages(encode=encode, variant=variant)
    budget = Budget(made, budget_s, on_late=on_late, queue=queue)  # type: ignore[arg-type]
    now, n = 0.0, 0
    waiting: list[Task] = []
    out: list[Decision] = []

    def settle(decision: Decision, behind: bool, full: bool) -> None:
        nonlocal now
        out.append(decision)
        left = decision.task.arrived + budget_s - now
        if decision.action is Action.SKIP:
            assert on_late in ("skip", "variant") or full
            assert encode > left or (full and behind), "skipped, though it was predicted to make it"
            assert decision.reason
        elif decision.action is Action.ENCODE:
            assert encode <= left
            assert decision.task is (waiting[-1] if behind else waiting[0])
        elif decision.action is Action.ENCODE_LATE:
            assert encode > left
        else:
            assert on_late == "variant"
        waiting.remove(decision.task)
        now += {Action.ENCODE: encode, Action.ENCODE_LATE: encode, Action.VARIANT: variant, Action.SKIP: 0.0}[
            decision.action
        ]

    for wait, turns in arrivals:
        now += wait
        new = task(n, now - 0.01)
        n += 1
        while True:
            behind, full = budget.behind(now), len(budget) == queue
            if (decision := budget.room(now)) is None:
                break
            settle(decision, behind, full)
        budget.put(new)
        waiting.append(new)
        assert len(budget) == len(waiting) <= queue
        for _ in range(turns):
            behind = budget.behind(now)
            if (decision := budget.next(now)) is not None:
                settle(decision, behind, full=False)
    while (decision := budget.next(now)) is not None:
        out.append(decision)
    assert sorted(decision.task.start for decision in out) == list(range(n))
