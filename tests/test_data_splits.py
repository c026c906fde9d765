"""Splits: nothing in two parts, nothing lost, nothing that depends on the order of the sessions."""

from dataclasses import replace
from functools import partial

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdecode.encode.manifest import Contract, ContractChannel
from rtdecode.errors import ConfigError
from rtdecode.stream.steps import Conditioning
from rtdecode.stream.window import Locked
from rtdecode_models.data.spec import Fit
from rtdecode_models.data.splits import (
    Held,
    Split,
    check_unseen,
    draw_trials,
    each_tested,
    folds,
    items_of,
    split_data,
    split_sessions,
)
from rtdecode_models.data.trials import Gallery
from rtdecode_models.data.windowed import Live, WindowedSource, Windows, WindowSession

LIVE = Live(
    Contract(channels=tuple(ContractChannel(name=n, type="eeg", unit="V") for n in ("C3", "C4")), sfreq=100.0),
    Conditioning(),
    Locked(tmin=0.0, tmax=0.05, markers=("*",)),
    {"label": ("left", "right", "rest")},
)
GALLERY = Gallery(tuple(f"thing{n}" for n in range(6)), {"image": np.eye(6, dtype=np.float32)})
PLAN = {"a1": "A", "a2": "A", "b1": "B", "b2": "B", "c1": "C"}


def windows_of(name, n=12):
    """Windows that say where they come from: the name of the session and the number of the trial."""
    seed = list(PLAN).index(name) if name in PLAN else 0
    x = np.random.default_rng(seed).standard_normal((n, 5, 2)).astype(np.float32)
    x[:, 0, 0] = np.arange(n) + n * seed
    return Windows(x, {"label": np.arange(n) % 3}, np.arange(n) % 6, GALLERY)


NOTHING = Fit(whitening="none", scaling="none")


def source_of(plan=PLAN, test=(), fit=NOTHING):
    def session(name):
        return WindowSession(name, plan[name], lambda: windows_of(name), name in test)

    return WindowedSource([session(name) for name in plan], LIVE, fit)


def marks(trials):
    """Which trials these are, whatever was done to their second channel."""
    return set() if trials is None else set(trials.x[:, 0, 0].tolist())


def parse(table):
    return msgspec.convert(table, Split)


SPLITS = st.builds(
    Split,
    test=st.sampled_from(
        [
            None,
            Held(names=("a1",)),
            Held(by="subject", names=("B",)),
            Held(share=0.3),
            Held(by="subject", share=0.3),
            Held(by="trial", share=0.2),
            Held(by="item", share=0.4),
        ]
    ),
    validation=st.sampled_from(
        [None, Held(names=("b2", "c1")), Held(share=0.4), Held(by="trial", share=0.25), Held(by="item", share=0.3)]
    ),
    left_out=st.sampled_from([(), ("a2",)]),
    seed=st.integers(0, 20),
)


@settings(max_examples=50)
@given(SPLITS, st.permutations(list(PLAN)), st.booleans())
def test_parts_are_disjoint_complete_and_the_same_in_any_order(split, order, declared):
    test = ("a1", "b1") if declared and split.test is None else ()
    given_parts: list[object] = []
    for plan in (PLAN, {name: PLAN[name] for name in order}):
        source = source_of(plan, test)
        try:
            parts = split_data(split, source)
        except ConfigError as error:
            assert "[split] leaves no session" in str(error) or "holds out already" in str(error)  # noqa: PT017
            given_parts.append(str(error).split(",")[0])
            continue
        sessions = parts.sessions
        everything = [*sessions.train, *sessions.validation, *sessions.test, *sessions.unused]
        assert sorted(everything) == sorted(PLAN)
        used = [marks(part) for part in (parts.dataset.train, parts.validation, parts.dataset.test)]
        assert sum(map(len, used)) == len(set().union(*used)) == 12 * (5 - len(sessions.unused))
        assert used[0]
        given_parts.append([sorted(part) for part in used])
    assert given_parts[0] == given_parts[1]


@pytest.mark.parametrize("by", ["trial", "item"])
def test_a_bundle_of_anyone_gets_windows_that_were_trained_on(by):
    source = source_of()
    split = Split(test=Held(by=by, share=0.3), validation=Held(by=by, share=0.3))
    dataset = split_data(split, source).dataset
    train = dataset.train
    for subject in (None, "A", "B", "C"):
        deployed = source.deployed(dataset, subject)
        mine = train.session == train.sessions.index({None: "a1", "A": "a1", "B": "b1", "C": "c1"}[subject])
        np.testing.assert_array_equal(deployed.windows, train.x[mine])
        np.testing.assert_array_equal(deployed.labels["label"], train.labels["label"][mine])


@given(st.permutations(list(PLAN)), st.floats(0.05, 0.9), st.integers(0, 5))
def test_trials_are_drawn_alike_from_each_class(order, share, seed):
    trials = source_of({name: PLAN[name] for name in order}).dataset(list(PLAN)).train
    rows = draw_trials(trials, np.arange(60), Held(by="trial", share=share), "", seed, "split.test")
    counts = np.bincount(trials.labels["label"][rows], minlength=3)
    assert counts.tolist() == [max(1, round(share * 20))] * 3


@pytest.mark.parametrize("whitening", ["euclidean_alignment", "mvnn"])
@pytest.mark.parametrize("by", ["trial", "item", "session", "subject"])
def test_fitted_steps_see_training_trials_alone(by, whitening):
    """What is held out may be a thousand times larger: no fitted number changes by a bit."""
    fit = Fit(whitening=whitening, shrinkage=0.0)
    split = Split(test=Held(by=by, share=0.3), validation=Held(by=by, share=0.3))
    parts = split_data(split, source_of(fit=fit))
    plain = split_data(split, source_of())
    held = marks(plain.dataset.test) | marks(plain.validation)
    assert held

    def spoiled(name):
        given_windows = windows_of(name)
        rows = np.isin(given_windows.x[:, 0, 0], list(held))
        x = given_windows.x.copy()
        x[rows, 1:] *= 1000
        return replace(given_windows, x=x)

    sessions = [WindowSession(name, PLAN[name], partial(spoiled, name)) for name in PLAN]
    other = split_data(split, WindowedSource(sessions, LIVE, fit))
    assert parts.dataset.arrays.keys() == other.dataset.arrays.keys()
    assert len(parts.dataset.arrays) == 3
    for name, array in parts.dataset.arrays.items():
        assert array.tobytes() == other.dataset.arrays[name].tobytes()
    assert parts.dataset.train.x.tobytes() == other.dataset.train.x.tobytes()


def test_sessions_that_the_data_declare_for_testing_are_never_trained_on():
    plan = {f"{who}/{part}": who for who in ("s1", "s2", "s3") for part in ("training", "test")}
    source = source_of(plan, test=[name for name in plan if name.endswith("test")])
    within = split_sessions(Split(), source)
    assert within.train == ("s1/training", "s2/training", "s3/training")
    assert within.test == ("s1/test", "s2/test", "s3/test")
    without_one = split_sessions(parse({"test": {"by": "subject", "names": ["s2"]}}), source)
    assert without_one.train == ("s1/training", "s3/training")
    assert without_one.test == ("s2/test",)
    assert without_one.unused == ("s1/test", "s2/training", "s3/test")
    with pytest.raises(ConfigError, match=r"holds out no session that the data declare for testing.*'s1/test'"):
        split_sessions(parse({"test": {"names": ["s1/training"]}}), source)
    drawn = split_sessions(parse({"test": {"by": "trial", "share": 0.1}}), source)
    assert drawn.test == ()
    assert drawn.unused == within.test


def test_folds_leave_each_training_session_out_and_never_touch_the_test():
    source = source_of()
    split = Split(test=Held(names=("c*",)), validation=Held(by="trial", share=0.2))
    given_folds = dict(folds(split, source, "session"))
    assert list(given_folds) == ["a1", "a2", "b1", "b2"]
    for name, fold in given_folds.items():
        sessions = split_sessions(fold, source)
        assert sessions.test == (name,)
        assert sessions.unused == ("c1",)
        assert len(sessions.train) == 3
        assert fold.validation == split.validation
    by_subject = {name: split_sessions(fold, source) for name, fold in folds(split, source, "subject")}
    assert by_subject["B"].test == ("b1", "b2")
    assert by_subject["B"].train == ("a1", "a2")
    named = Split(test=Held(names=("c1",)), validation=Held(names=("b2",)))
    kept = {name: split_sessions(fold, source) for name, fold in folds(named, source, "session")}
    assert list(kept) == ["a1", "a2", "b1"]
    assert all(sessions.validation == ("b2",) for sessions in kept.values())


def test_folds_of_data_with_a_test_of_their_own_are_of_their_training_sessions():
    plan = {f"{who}/{part}": who for who in ("s1", "s2", "s3") for part in ("training", "test")}
    source = source_of(plan, test=[name for name in plan if name.endswith("test")])
    inner = {name: split_sessions(split, source) for name, split in folds(Split(), source, "subject")}
    assert inner["s2"].test == ("s2/training",)
    assert inner["s2"].train == ("s1/training", "s3/training")
    assert set(inner["s2"].unused) == set(source.test_sessions)
    outer = {name: split_sessions(split, source) for name, split in each_tested(Split(), source, "subject")}
    assert list(outer) == ["s1", "s2", "s3"]
    assert outer["s2"].test == ("s2/test",)
    assert outer["s2"].train == ("s1/training", "s3/training")


def test_everyone_is_tested_once():
    given_splits = {
        name: split_sessions(split, source_of()) for name, split in each_tested(Split(), source_of(), "subject")
    }
    assert {name: sessions.test for name, sessions in given_splits.items()} == {
        "A": ("a1", "a2"),
        "B": ("b1", "b2"),
        "C": ("c1",),
    }
    assert given_splits["C"].train == ("a1", "a2", "b1", "b2")
    sessions = [name for name, _ in each_tested(Split(left_out=("c1",)), source_of(), "session")]
    assert sessions == ["a1", "a2", "b1", "b2"]
    with pytest.raises(ConfigError, match="leaving one subject out takes two at least; there is 'A'"):
        next(each_tested(Split(), source_of({"a1": "A", "a2": "A"}), "subject"))


def test_names_with_brackets_mean_themselves():
    plan = {"run[1]": "A", "run1": "B", "run2": "C"}
    for name, fold in each_tested(Split(), source_of(plan), "session"):
        assert split_sessions(fold, source_of(plan)).test == (name,)


def test_a_stimulus_of_the_test_that_was_trained_on_is_refused():
    zero_shot = parse({"test": {"by": "item", "share": 0.5}, "unseen_items": True})
    parts = split_data(zero_shot, source_of())
    assert parts.dataset.test is not None
    assert not items_of(parts.dataset.train) & items_of(parts.dataset.test)
    assert len(items_of(parts.dataset.train) | items_of(parts.dataset.test)) == 6
    by_session = parse({"test": {"names": ["a1"]}, "unseen_items": True})
    with pytest.raises(ConfigError, match=r"the test holds 6 stimuli that are trained on: 'thing0'.*by = \"item\""):
        split_data(by_session, source_of())
    with pytest.raises(ConfigError, match="nothing is held out to test on"):
        split_data(Split(unseen_items=True), source_of())
    no_items = replace(parts.dataset.train, item=None)
    with pytest.raises(ConfigError, match="the trials have no stimuli"):
        check_unseen(no_items, parts.dataset.test)


def test_the_same_stimulus_in_two_galleries_is_the_same_by_name():
    """The training's gallery and the test's are different files: rows differ, names do not."""
    parts = split_data(Split(test=Held(names=("a1",))), source_of())
    test = parts.dataset.test
    assert test is not None
    rows = np.zeros(len(test), np.int64)
    other = replace(test, item=rows, gallery=Gallery(("thing5", "new"), {}))
    with pytest.raises(ConfigError, match="1 stimuli that are trained on: 'thing5'"):
        check_unseen(parts.dataset.train, other)
    check_unseen(parts.dataset.train, replace(other, item=rows + 1))


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"test": {"names": ["z*"]}}, r"split.test.names: 'z\*' matches no session; there are 'a1'"),
        ({"test": {"by": "subject", "names": ["D"]}}, r"'D' matches no subject; there are 'A', 'B', 'C'"),
        ({"test": {"by": "item", "names": ["cat"]}}, r"'cat' matches no stimulus"),
        ({"test": {"by": "item", "names": ["*"]}}, r"split.test holds out 6 of 6 stimuli"),
        ({"test": {"names": ["*"]}}, r"\[split\] leaves no session to train on"),
        ({"left_out": ["q"]}, r"split.left_out: 'q' matches no session"),
        (
            {"test": {"names": ["a1"]}, "validation": {"names": ["a*"]}},
            r"split.validation names 'a1', which split.test holds out already",
        ),
        ({"test": {"by": "trial", "share": 0.1}, "stratify": "colour"}, r"the label 'colour'; there are 'label'"),
    ],
)
def test_what_cannot_be_split_says_why(table, says):
    with pytest.raises(ConfigError, match=says):
        split_data(parse(table), source_of())


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"test": {}}, r"give names or a share of the sessions, and not both - at `\$.test`"),
        ({"test": {"names": ["a"], "share": 0.1}}, "and not both"),
        ({"test": {"by": "trial", "names": ["a"]}}, "trials have no names"),
        ({"test": {"share": 1.0}}, r"share is 1.0; expected more than 0 and less than 1"),
        ({"test": {"by": "week", "share": 0.1}}, r"week"),
        ({"folds": 3}, "unknown field `folds`"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(table, says):
    with pytest.raises(msgspec.ValidationError, match=says):
        parse(table)
