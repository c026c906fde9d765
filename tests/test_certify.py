"""The certificate's arithmetic, its plan, its stand-in and its advice; the processes are in ``test_certify_run.py``."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import parts
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rtdecode.certify import machine
from rtdecode.certify.advice import advise
from rtdecode.certify.analysis import MOMENTS, STAGES, bci2000, plain, series
from rtdecode.certify.certificate import certificate
from rtdecode.certify.figures import (
    SHARES,
    bursts,
    distribution,
    lower_bound,
    nearest_rank,
    upper_bound,
    upper_rank,
    windows_needed,
)
from rtdecode.certify.listener import Counted, Described, Seen, Told
from rtdecode.certify.load import Load, parse_load
from rtdecode.certify.plan import Wishes, make_plan, toml
from rtdecode.certify.session import Measured
from rtdecode.certify.standin import StandIn, StandInSource, Trigger, example
from rtdecode.certify.verdict import Rule, Verdict, accounts, judge, losses, more_windows, whole
from rtdecode.config import Config, parse
from rtdecode.encode.bundle import write_bundle
from rtdecode.errors import ConfigError
from rtdecode.sources.trigger import TriggerRule, Triggers
from rtdecode.stream.window import matches

RULE = Rule(0.99, 0.95)
TIMES = st.lists(st.floats(0.0, 1e4), min_size=1, max_size=300)
SHARE = st.sampled_from(SHARES)


# --- figures ----------------------------------------------------------------------------------------------------------


@given(TIMES)
def test_a_percentile_is_a_window_s_own_and_does_not_depend_on_order(times: list[float]) -> None:
    found = distribution(times)
    again = distribution(times[::-1])
    assert found is not None
    assert found == again
    for one in found.percentiles:
        assert one.ms in times
        # nearest rank: at least the share of the windows do not exceed it, and fewer do not exceed any smaller one
        assert sum(time <= one.ms for time in times) >= one.share * len(times) - 1e-6
        assert sum(time < one.ms for time in times) < one.share * len(times) + 1e-6
        assert one.beyond == len(times) - nearest_rank(len(times), one.share)
        assert one.upper_ms is None or one.upper_ms >= one.ms
    assert found.worst == max(times)
    assert [one.ms for one in found.percentiles] == sorted(one.ms for one in found.percentiles)


@given(st.integers(1, 5000), SHARE, st.sampled_from([0.9, 0.95, 0.99]))
def test_the_upper_rank_is_the_smallest_that_bounds_the_quantile(n: int, share: float, confidence: float) -> None:
    """By scipy's binomial: the r-th value bounds the quantile with P(fewer than r of n lie below it)."""
    rank = upper_rank(n, share, confidence)
    if rank is None:
        assert stats.binom.cdf(n - 1, n, share) < confidence
        return
    assert stats.binom.cdf(rank - 1, n, share) >= confidence
    assert rank == 1 or stats.binom.cdf(rank - 2, n, share) < confidence


@given(SHARE, st.sampled_from([0.9, 0.95, 0.99]))
def test_a_percentile_is_supported_from_the_windows_on_that_are_needed(share: float, confidence: float) -> None:
    needed = windows_needed(share, confidence)
    assert upper_rank(needed, share, confidence) is not None
    assert needed == 1 or upper_rank(needed - 1, share, confidence) is None
    assert windows_needed(0.999, 0.95) == 2995


@given(st.integers(1, 3000), st.data())
def test_the_bounds_are_clopper_s_and_pearson_s(windows: int, data: st.DataObject) -> None:
    """Against the equations that they solve, and scipy's own exact interval."""
    good = data.draw(st.integers(0, windows))
    lower, upper = lower_bound(good, windows), upper_bound(good, windows)
    assert 0.0 <= lower <= good / windows <= upper <= 1.0
    if good:
        assert stats.binom.sf(good - 1, windows, lower) == pytest.approx(0.05, rel=1e-6)
        expected = stats.binomtest(good, windows, alternative="greater").proportion_ci(0.95).low
        assert lower == pytest.approx(expected, rel=1e-6)
    if good < windows:
        assert stats.binom.cdf(good, windows, upper) == pytest.approx(0.05, rel=1e-6)


@given(st.lists(st.booleans(), max_size=60))
def test_bursts_are_runs_of_misses(missed: list[bool]) -> None:
    runs = "".join("x" if one else " " for one in missed).split()
    assert bursts(missed) == len(runs)


def test_nothing_has_no_distribution() -> None:
    assert distribution([]) is None
    assert distribution([float("nan")]) is None
    assert plain(None) is None


# --- windows ----------------------------------------------------------------------------------------------------------


def seen(due: float, took: float = 0.010, /, **other: Any) -> Seen:
    """A window that was published `took` seconds after its samples arrived."""
    fields: dict[str, Any] = {
        "pipeline": "p",
        "seq": 0,
        "window": "sliding",
        "locked": False,
        "status": "ok",
        "reason": "",
        "variant": False,
        "met": True,
        "stamp": due - 0.005,
        "arrived": due - 0.003,
        "received": due - 0.002,
        "due": due,
        "encoded": due + took - 0.004,
        "published": due + took - 0.003,
        "taken": due + took,
    }
    return Seen(**(fields | other))


def undecoded(due: float, status: str, **other: Any) -> Seen:
    return seen(due, status=status, encoded=None, met=None, **other)


@given(st.lists(st.floats(0.005, 1.0), min_size=1, max_size=50))
def test_the_stages_of_a_window_follow_one_another_and_add_up(took: list[float]) -> None:
    (one,) = series([seen(n + 1.0, seconds) for n, seconds in enumerate(took)], 0.0, 1e9)
    together = sum(one.stage(name) for name in STAGES)
    np.testing.assert_allclose(together, one.stage("end_to_end"), atol=1e-6)
    np.testing.assert_allclose(one.stage("overhead") + one.stage("encode"), one.stage("processing"), atol=1e-6)
    assert [pair[1] for pair in STAGES.values()] == list(MOMENTS[1:])


def test_windows_count_where_they_became_due_and_only_those_in_the_span() -> None:
    windows = [seen(at) for at in (0.9, 1.0, 1.5, 2.0)] + [seen(1.2, window="locked", locked=True)]
    windows.append(seen(1.7, due=None))  # by its publication
    found = {one.window: one for one in series(windows, 1.0, 2.0)}
    assert len(found["sliding"].statuses) == 3
    assert len(found["locked"].statuses) == 1
    assert found["locked"].locked


def test_what_counts_and_what_was_in_time() -> None:
    windows = [
        seen(1.0),
        seen(2.0, met=False),  # on_late = "keep"
        seen(3.0, status="late", met=False),
        undecoded(4.0, "skipped"),
        undecoded(5.0, "failed"),
        undecoded(6.0, "gap"),
        seen(7.0, status="artifact", encoded=None),
        seen(8.0, met=None),  # without a budget
    ]
    (one,) = series(windows, 0.0, 10.0)
    assert one.counted.tolist() == [True, True, True, True, True, False, False, True]
    assert one.good.tolist() == [True, False, False, False, False, False, False, True]
    assert one.bursts == 1
    assert sum(one.counts.values()) == len(windows)
    assert np.isnan(one.stage("encode")).tolist() == [False, False, False, True, True, True, True, False]


def test_bci2000_s_terms() -> None:
    (one,) = series([seen(1.0 + n, 0.010) for n in range(5)], 0.0, 10.0)
    terms = bci2000(one, [(0.02 * n, 5) for n in range(50)])
    assert terms is not None
    assert terms.block_ms == pytest.approx(20.0)
    assert terms.block_jitter_ms == pytest.approx(0.0, abs=1e-9)
    assert terms.block_samples == 5
    assert terms.processing_ms == pytest.approx(10.0)
    assert terms.output_ms == pytest.approx(3.0)
    assert terms.system_ms == pytest.approx(15.0)
    assert bci2000(series([undecoded(1.0, "gap")], 0.0, 2.0)[0], []) is None


# --- the verdict ------------------------------------------------------------------------------------------------------


@given(st.integers(0, 700), st.integers(0, 40))
def test_the_verdict_is_the_rule(good: int, missed: int) -> None:
    windows = [seen(1.0 + n) for n in range(good)] + [seen(5000.0 + n, status="late", met=False) for n in range(missed)]
    judged = judge(series(windows, 0.0, 1e9), 50.0, RULE)
    counted = good + missed
    expected = Verdict.INCONCLUSIVE
    if counted and lower_bound(good, counted) >= RULE.require:
        expected = Verdict.PASS
    elif counted and upper_bound(good, counted) < RULE.require:
        expected = Verdict.FAIL
    assert judged.verdict is expected
    assert (judged.good, judged.counted) == (good, counted)
    assert bool(judged.reasons) == (expected is not Verdict.PASS)


def test_no_budget_and_no_window_show_nothing() -> None:
    assert judge(series([seen(1.0)], 0.0, 2.0), None, RULE).verdict is Verdict.INCONCLUSIVE
    assert judge([], 50.0, RULE).verdict is Verdict.INCONCLUSIVE


@given(st.integers(0, 3), st.integers(1, 2000))
def test_more_windows_would_do_as_is_said(missed: int, windows: int) -> None:
    text = more_windows(missed, windows, RULE)
    if not missed:
        assert str(windows_needed(RULE.require)) in text
    elif missed / windows >= 1 - RULE.require:
        assert "below what is required" in text
    elif lower_bound(windows - missed, windows) < RULE.require:
        told = int(text.split()[1])
        assert lower_bound(round((1 - missed / windows) * told), told) >= RULE.require


def counted(**other: Any) -> Counted:
    fields: dict[str, Any] = {
        "pipeline": "p",
        "due": 2,
        "pending": 0,
        "counts": {"ok": 1, "gap": 1},
        "dropped": 0,
        "lost": 0,
        "malformed": 0,
        "p50_ms": {"encode": 1.0},
    }
    return Counted(**(fields | other))


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({}, ""),
        ({"due": 3}, "counted 3 due windows and 2"),
        ({"pending": 1}, "1 windows were due and not published"),
        ({"counts": {"ok": 2}}, "2 windows were published as ok, and 1 came"),
        ({"lost": 1}, "1 messages were lost"),
        ({"malformed": 2}, "2 not readable"),
    ],
)
def test_windows_are_held_against_the_pipeline_s_own_count(said: dict[str, Any], problem: str) -> None:
    found = accounts([seen(1.0), undecoded(2.0, "gap")], counted(**said))
    assert any(problem in one for one in found.problems) if problem else not found.problems
    assert accounts([], None).problems


def test_windows_that_were_out_before_the_subscriber_are_counted_by_number() -> None:
    windows = [seen(1.0, seq=3), undecoded(2.0, "gap", seq=4)]
    early = counted(due=5, counts={"ok": 4, "gap": 1})
    assert not accounts(windows, early).problems
    assert accounts(windows, early).before == 3
    assert "came" in accounts(windows, counted(due=6, counts={"ok": 5, "gap": 1})).problems[0]
    assert "came" in accounts(windows, counted(due=5, counts={"ok": 5})).problems[0]


def told(event: str, stamp: float = 5.0) -> Told:
    return Told(pipeline="p", origin="p", event=event, text="it is so", stamp=stamp, details={})


def test_losses_fail_crashes_fail_and_a_recording_s_own_holes_do_not() -> None:
    assert losses([told("gap"), told("gap"), told("joined")], 0.0, 10.0, played=False) == ["gap: it is so"]
    assert losses([told("gap", 20.0)], 0.0, 10.0, played=False) == []
    assert losses([told("gap"), told("lost")], 0.0, 10.0, played=True) == ["lost: it is so"]
    assert losses([told("crashed", 20.0)], 0.0, 10.0, played=True) == ["crashed: it is so"]
    good = {"p": judge(series([seen(1.0 + n) for n in range(500)], 0.0, 1e9), 50.0, RULE)}
    fine = {"p": accounts([seen(1.0)], counted(due=1, counts={"ok": 1}))}
    assert whole(good, fine, [], [], "").verdict is Verdict.PASS
    assert whole(good, fine, ["the daemon died"], [], "").verdict is Verdict.FAIL
    assert whole(good, fine, [], ["gap"], "").verdict is Verdict.FAIL
    assert whole(good, {"p": accounts([], None)}, [], [], "").verdict is Verdict.FAIL
    partial = whole(good, fine, [], [], "somebody ended it")
    assert partial.verdict is Verdict.INCONCLUSIVE
    assert partial.reasons == ["not all was measured: somebody ended it"]


# --- the plan ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    manifest, files = parts()
    path = tmp_path / "bundle.zip"
    write_bundle(path, manifest, files)
    return path


SOURCES = {
    "lsl": 'kind = "lsl"\ntype = "EEG"\nmarkers = [{ name = "cues" }]\nlateness_s = 0.2\ndeclare = { unit = "uV" }',
    "zmq": 'kind = "zmq"\nendpoint = "tcp://10.0.0.1:5600"\nstream = "eeg"\nbind = true\npattern = "pull"',
    "fieldtrip": 'kind = "fieldtrip"\nhost = "megpc"\nstall_s = 2.0',
    "simulated": 'kind = "simulated"\nspeed = 2.0\nseconds = 5.0',
}


def configured(folder: Path, source: str, more: str = "") -> Config:
    text = (
        f'[source]\n{source}\n{more}\n[pipelines.p]\nbundle = "bundle.zip"\npublish = "tcp://127.0.0.1:5555"\n'
        'windows = [{ tmin = 0.0, tmax = 0.2, markers = ["T1", "5", "x/*"] }]\n'
    )
    return parse(text, folder / "session.toml")


@pytest.mark.parametrize("kind", SOURCES)
def test_the_plan_is_the_user_s_configuration_but_for_source_and_places(
    kind: str, bundle: Path, tmp_path: Path
) -> None:
    config = configured(tmp_path, SOURCES[kind], "[realtime]\npolicy = 'off'\n")
    plan = make_plan(config, Wishes(budget_ms=7.5), tmp_path)
    written = parse(toml(plan.table), tmp_path / "certified.toml")
    pipeline = written.pipelines["p"]
    assert pipeline.bundle == bundle
    assert pipeline.windows == config.pipelines["p"].windows
    assert pipeline.budget_ms == 7.5
    assert pipeline.publish != "tcp://127.0.0.1:5555"
    assert written.realtime == config.realtime
    source = written.inputs[""]
    assert source.kind == kind
    if kind == "simulated":
        assert (source.speed, source.seconds) == (1.0, None)  # type: ignore[union-attr]
        assert not plan.standins
        return
    standin = plan.standins[""]
    assert [name for name, _, _ in standin.channels] == ["E0", "E1", "E2"]
    assert (standin.sfreq, standin.chunk, standin.transport) == (100.0, 2, kind)
    assert standin.markers == ("T1", "5", "x/1")
    kept = {"lsl": ("lateness_s", 0.2), "zmq": ("bind", True), "fieldtrip": ("stall_s", 2.0)}[kind]
    assert getattr(source, kept[0]) == kept[1]
    assert standin.bind == (kind != "zmq")


def test_a_live_source_stays_as_it_is(bundle: Path, tmp_path: Path) -> None:
    config = configured(tmp_path, SOURCES["lsl"])
    plan = make_plan(config, Wishes(live=True), tmp_path)
    assert not plan.standins
    assert parse(toml(plan.table), tmp_path / "certified.toml").inputs == config.inputs


@pytest.mark.usefixtures("bundle")
def test_codes_go_to_the_trigger_channel_and_the_rest_to_the_markers(tmp_path: Path) -> None:
    config = configured(tmp_path, SOURCES["lsl"] + '\ntriggers = [{ channel = "STI", debounce_s = 0.05 }]')
    standin = make_plan(config, Wishes(), tmp_path).standins[""]
    assert standin.channels[-1] == ("STI", "stim", "1")
    assert standin.codes == (5,)
    assert standin.markers == ("T1", "x/1")


@pytest.mark.usefixtures("bundle")
def test_what_cannot_be_done_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--chunk and --live"):
        make_plan(configured(tmp_path, SOURCES["lsl"]), Wishes(live=True, chunk=5), tmp_path)
    with pytest.raises(ConfigError, match="--chunk is for senders"):
        make_plan(configured(tmp_path, SOURCES["simulated"]), Wishes(chunk=5), tmp_path)
    remote = 'kind = "zmq"\nformat = "rtdecode"\nendpoint = "tcp://10.0.0.1:5600"'
    with pytest.raises(ConfigError, match="use --live"):
        make_plan(configured(tmp_path, remote), Wishes(), tmp_path)


@pytest.mark.usefixtures("bundle")
def test_a_certified_session_records_beside_the_user_s_recordings_and_not_among_them(tmp_path: Path) -> None:
    config = configured(tmp_path, SOURCES["lsl"], '[recording]\ndir = "recordings"\n')
    plan = make_plan(config, Wishes(), tmp_path)
    (made,) = plan.made
    assert made.parent == tmp_path  # `recordings` is not there yet, and is not made
    assert plan.table["recording"]["dir"] == str(made)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    st.dictionaries(
        st.text("abc_-", min_size=1, max_size=5),
        st.recursive(
            st.one_of(TEXTS, st.booleans(), st.integers(-(2**53), 2**53), st.floats(-1e9, 1e9)),
            lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
            max_leaves=8,
        ),
        max_size=4,
    )
)
def test_what_is_written_as_toml_is_read_again(table: dict[str, Any]) -> None:
    assert tomllib.loads(toml({"section": table, "pipelines": {"p": table}})) == {
        "section": table,
        "pipelines": {"p": table},
    }


# --- the stand-in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["T1", "*", "concept/*", "S  ?", "[abc]x", "[!0-9]*", "odd[", "5"])
def test_an_example_is_taken_by_its_pattern(pattern: str) -> None:
    assert matches(example(pattern), [pattern])


def batches(what: StandIn, n: int) -> tuple[np.ndarray, np.ndarray, list[Any], Sequence[int]]:
    source = StandInSource(what)
    found = [source.read(0.0) for _ in range(n)]
    chunks = [one.chunk for one in found if one is not None]
    assert all(chunk is not None for chunk in chunks)
    return (
        np.concatenate([chunk.samples for chunk in chunks if chunk is not None]),
        np.concatenate([chunk.stamps for chunk in chunks if chunk is not None]),
        [marker for one in found if one is not None for marker in one.markers],
        [len(chunk) for chunk in chunks if chunk is not None],
    )


def test_the_stand_in_sends_whole_chunks_without_a_hole_and_markers_at_its_pace() -> None:
    what = StandIn(
        transport="lsl",
        name="s",
        channels=(("E0", "eeg", "V"), ("M0", "mag", "T")),
        sfreq=250.0,
        chunk=7,
        markers=("a", "b"),
        every_s=0.5,
    )
    samples, stamps, markers, sizes = batches(what, 200)
    np.testing.assert_allclose(stamps, np.arange(len(stamps)) / 250.0)
    assert all(size % 7 == 0 for size in sizes)
    assert samples.std(axis=0) == pytest.approx([1e-5, 1e-12], rel=0.1)
    gaps = np.diff([marker.stamp for marker in markers])
    assert (gaps >= 0.5).all()
    assert (gaps < 0.56).all()
    assert {marker.value for marker in markers} == {"a", "b"}


def test_codes_on_the_trigger_channel_become_the_markers_that_they_stand_for() -> None:
    what = StandIn(
        transport="lsl",
        name="s",
        channels=(("E0", "eeg", "V"), ("STI", "stim", "1")),
        sfreq=250.0,
        chunk=5,
        codes=(5, 6),
        triggers=(Trigger("STI", 0xFFFF, 0.04),),
        every_s=0.3,
    )
    source = StandInSource(what)
    triggers = Triggers((TriggerRule("STI", debounce_s=0.04),), source.info)
    values: list[str] = []
    for _ in range(300):
        batch = source.read(0.0)
        assert batch is not None
        assert batch.chunk is not None
        assert not batch.markers
        values += [marker.value for marker in triggers.feed(batch.chunk)]
    assert len(values) > 100
    assert values[:4] == ["5", "6", "5", "6"]
    source.close()
    assert source.read(0.0) is None


# --- the load ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Load()),
        ("cpu", Load(cpu=8)),
        ("cpu=2,memory=1.5,disk", Load(2, 1.5, True)),
        ("disk, cpu=1", Load(cpu=1, disk=True)),
    ],
)
def test_loads_are_read(text: str, expected: Load, tmp_path: Path) -> None:
    load = parse_load(text, 8, 16.0)
    assert load == expected
    assert len(load.commands(tmp_path)) == load.cpu + bool(load.memory_gb) + load.disk
    assert parse_load("" if str(load) == "none" else str(load), 8, 16.0) == load


@pytest.mark.parametrize("text", ["cpus=2", "cpu=two", "disk=5", "cpu=1,cpu=2", "cpu=1.5", "memory=15", "cpu=-1"])
def test_what_is_no_load_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--load"):
        parse_load(text, 8, 16.0)


# --- advice -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def measured(bundle: Path, tmp_path: Path) -> Measured:
    """An idle machine on which nothing is to be changed."""
    assert bundle.is_file()
    text = (
        '[source]\nkind = "lsl"\ntype = "EEG"\nmarkers = [{ name = "cues" }]\n'
        '[pipelines.p]\nbundle = "bundle.zip"\npublish = "ipc://p"\nbudget_ms = 50\n'
    )
    config = parse(text, tmp_path / "session.toml")
    found = Measured(make_plan(config, Wishes(), tmp_path), Load(), 60.0, begin=0.0, end=60.0)
    found.windows = [quick(1.0 + 0.05 * n) for n in range(1000)]
    found.counted = {"p": counted(due=1000, counts={"ok": 1000}, p50_ms={"encode": 0.4})}
    found.blocks = [(0.01 * n, 1) for n in range(100)]
    engine: dict[str, Any] = {"runtime": "onnxruntime 1", "provider": "cpu", "threads": 1, "asked": "cpu"}
    found.described = {
        "p": Described(
            pipeline="p",
            source="lsl:x",
            channels=3,
            sfreq=100.0,
            conditioned_sfreq=100.0,
            group_delay=0.0,
            bundle="0" * 12,
            engine=engine | {"fell_back": 0},
            clock="lsl",
        )
    }
    found.machine = {"usable_cores": 4, "packages": {}, "limits": {}}
    found.kernel = {"seconds": 60.0, "cpu_s": 10.0, "others_cores": 0.05, "processes": {}}
    found.before = {"others_cores": 0.05}
    return found


def quick(due: float) -> Seen:
    """A window of which every stage was short."""
    return Seen(
        **{
            name: getattr(seen(due), name)
            for name in ("pipeline", "seq", "window", "locked", "status", "reason", "variant")
        },
        met=True,
        stamp=due - 0.0005,
        arrived=due - 0.0003,
        received=due - 0.0002,
        due=due,
        encoded=due + 0.0004,
        published=due + 0.0005,
        taken=due + 0.0006,
    )


def rules(measured: Measured) -> dict[str, Any]:
    windows = series(measured.windows, measured.begin, measured.end)
    judged = {"p": judge(windows, measured.plan.budgets["p"], RULE)}
    return {one.rule: one for one in advise(measured, windows, judged)}


def test_where_nothing_is_to_be_changed_nothing_is_said(measured: Measured) -> None:
    assert rules(measured) == {}


def slow(measured: Measured, encode_ms: float) -> None:
    """The encoder takes so long."""
    measured.windows = [
        seen(1.0 + 0.05 * n, encode_ms / 1e3 + 0.004, encoded=1.0 + 0.05 * n + encode_ms / 1e3) for n in range(1000)
    ]
    measured.counted = {"p": counted(due=1000, counts={"ok": 1000}, p50_ms={"encode": encode_ms})}


def test_each_rule_applies_where_its_figure_says_so(measured: Measured) -> None:
    measured.kernel |= {"swapped_pages": 12, "throttled_s": 0.5, "steal_s": 3.0, "others_cores": 1.5, "mhz": 1200.0}
    measured.kernel["processes"] = {"p": {"waited_s": 5.0}, "acquire": {"waited_s": 0.1}}
    measured.machine |= {"governor": "powersave", "max_mhz": 3600.0, "idle_exit_us": 250.0}
    measured.events = [told("realtime refused"), told("realtime refused")]
    measured.described["p"].engine["fell_back"] = 1
    measured.described["p"].engine["asked"] = "cuda"
    slow(measured, 20.0)
    found = rules(measured)
    assert {"swap", "quota", "steal", "nearby", "governor", "sleep", "cores", "fallback", "threads"} <= set(found)
    assert "12 pages" in found["swap"].figure
    assert "67 %" in found["governor"].gain
    assert found["threads"].gain_ms == pytest.approx(20.0 * (1 - 1 / 4))
    assert found["cores"].gain_ms == pytest.approx(5.0)
    assert "hop" not in found
    gains = [one.gain_ms or 0.0 for one in found.values()]
    assert gains == sorted(gains, reverse=True)


def test_a_hop_that_is_shorter_than_the_encoder_is_named(measured: Measured) -> None:
    slow(measured, 60.0)
    assert "60.00 ms to encode, and one comes every 50 ms" in rules(measured)["hop"].figure


def test_whole_windows_of_an_encoder_that_nobody_has_split_are_named(measured: Measured) -> None:
    slow(measured, 20.0)
    measured.described["p"].engine["incremental"] = "no: the bundle has no split"
    found = rules(measured)["compile"]
    assert "bundle compile" in found.change
    assert found.gain_ms == pytest.approx(20.0 * (1 - 0.05 / 0.2))
    measured.described["p"].engine["incremental"] = "prefix on 10 samples"
    assert "compile" not in rules(measured)


def test_chunks_that_take_long_to_fill_are_named(measured: Measured) -> None:
    measured.windows = [seen(1.0 + 0.05 * n, 0.004, stamp=1.0 + 0.05 * n - 0.043) for n in range(1000)]
    measured.blocks = [(0.08 * n, 8) for n in range(50)]
    found = rules(measured)["chunk"]
    assert "chunks hold 8" in found.figure
    assert found.gain_ms == pytest.approx(40.0 * 0.75)


def test_markers_that_may_come_late_are_named_where_windows_wait_for_them(measured: Measured, tmp_path: Path) -> None:
    config = configured(tmp_path, 'kind = "lsl"\nname = "x"\nmarkers = [{ name = "m" }]\nlateness_s = 0.5')
    measured.plan = make_plan(config, Wishes(budget_ms=50.0), tmp_path)
    measured.windows = [
        seen(1.0 + 0.05 * n, 0.004, window="locked", locked=True, arrived=0.7 + 0.05 * n) for n in range(1000)
    ]
    found = rules(measured)["lateness"]
    assert found.gain_ms == pytest.approx(300.0)
    assert "lateness_s = 0.1" in found.change


def test_misses_without_a_variant_are_named(measured: Measured) -> None:
    measured.windows[10:13] = [seen(1.5 + 0.05 * n, status="late", met=False) for n in range(3)]
    assert "3 of 1000 windows missed 50 ms, in 1 runs" in rules(measured)["variant"].figure


# --- the certificate --------------------------------------------------------------------------------------------------


def test_the_certificate_holds_it_all_and_can_be_written_down(measured: Measured, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from rtdecode.certify.page import write_report

    measured.windows[500] = seen(26.0, 0.2, status="late", met=False)
    measured.counted = {"p": counted(due=1000, counts={"ok": 999, "late": 1}, p50_ms={"encode": 0.5})}
    found, windows = certificate(measured, RULE)
    assert found["verdict"] == "PASS"
    one = found["pipelines"]["p"]
    assert one["missed"] == 1
    assert sum(one["windows"].values()) == 1000
    marks = one["kinds"]["sliding"]["stages"]["end_to_end"]["percentiles"]
    assert [name for name, mark in marks.items() if not mark["supported"]] == ["p99.9", "p99.99"]
    write_report(tmp_path, found, windows)
    page = (tmp_path / "certificate.html").read_text()
    for word in ("PASS", "block duration", "What to change", "certificate.json", "data:image/png"):
        assert word in page
    assert "http" not in page.replace("https://", "http://").split("<pre>")[0]
    assert {path.name for path in tmp_path.glob("*.png")} == {"histogram.png", "timeline.png"}


def test_a_sender_that_does_not_keep_pace_shows_nothing(measured: Measured) -> None:
    measured.counted = {"p": counted(due=1000, counts={"ok": 1000})}
    measured.sender = {"p50_ms": 30.0}
    found, _ = certificate(measured, RULE)
    assert found["verdict"] == "INCONCLUSIVE"
    assert "did not keep pace" in found["reasons"][0]


def test_this_machine_can_be_described() -> None:
    import json
    import os

    described = machine.describe()
    assert described["usable_cores"] >= 1
    json.dumps(described)
    before = machine.counters({"me": os.getpid()})
    sum(range(10**6))
    after = machine.difference(before, machine.counters({"me": os.getpid()}), 0.1)
    assert after["cpu_s"] >= after["processes"]["me"]["cpu_s"] * 0.5 >= 0.0
