"""Late holes, filling, blanking, quality and interpolation: the decoder's two laws hold under all of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_decoder import (
    CHAINS,
    CHANNELS,
    SFREQ,
    Piece,
    Tape,
    TapEngine,
    payloads,
    play_cut,
    play_whole,
    tapes,
    window_sets,
)

from rtdecode.decoder import Decoder, Result, Status
from rtdecode.errors import ConfigError, ContractError
from rtdecode.signal import Channel, Chunk, Marker
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.fill import between
from rtdecode.stream.handling import Blank, Fill, Handling, Interpolation, Limits, Method
from rtdecode.stream.incidents import Incident, WindowRef
from rtdecode.stream.quality import Quality
from rtdecode.stream.steps import Filter, StreamStep
from rtdecode.stream.tools import tools
from rtdecode.stream.window import Locked, Sliding, WindowSpec
from rtdecode.wire.framing import decode, encode
from rtdecode.wire.messages import Event
from rtdecode.wire.results import wire_window

METHODS: st.SearchStrategy[Method] = st.sampled_from(["hold", "linear", "zero"])
MATRIX = np.array([[1.0, 0, 0], [0.25, 0, 0.75], [0, 0, 1.0]])


def make(
    windows: Sequence[WindowSpec], handling: Handling, steps: Sequence[StreamStep] = ()
) -> tuple[Decoder, TapEngine]:
    engine = TapEngine()
    decoder = Decoder(
        columns=[0, 1, 2],
        channels=CHANNELS,
        n_stream_channels=3,
        sfreq=SFREQ,
        conditioner=Conditioner(steps, CHANNELS, SFREQ, {}),
        window_steps=(),
        windows=windows,
        engine=engine,
        heads=(),
        history_s=1e3,
        handling=handling,
    )
    return decoder, engine


def chunk(samples: NDArray[np.float32], first: int, segment: int = 0, invalidates: int | None = None) -> Chunk:
    """Samples whose stamps are 10 s plus their index."""
    n = len(samples)
    return Chunk(samples, 10 + np.arange(first, first + n) / SFREQ, first, segment, invalidates=invalidates)


def ramp(first: int, n: int) -> NDArray[np.float32]:
    return np.arange(first * 3, (first + n) * 3, dtype=np.float32).reshape(n, 3)


@st.composite
def handlings(draw: st.DrawFn) -> Handling:
    fill = draw(st.sampled_from([None, 0.05, 0.2, 10.0]))
    blanks = []
    for _ in range(draw(st.integers(0, 2))):
        tmin = draw(st.sampled_from([-0.04, 0.0, 0.01]))
        blanks.append(
            Blank(
                draw(st.sampled_from([("*",), ("T1", "T2")])),
                tmin,
                tmin + draw(st.sampled_from([0.02, 0.05, 0.4, 1.0])),
                draw(METHODS),
                draw(st.sampled_from([(), ("Cz",), ("C4", "C3")])),
            )
        )
    limits = Limits(
        flat=draw(st.sampled_from([None, 1.0, 3.5])),
        clip=draw(st.sampled_from([None, 2, 3])),
        range=draw(st.sampled_from([None, 2.0, {"eeg": 3.0}])),
        max_bad=draw(st.integers(0, 3)),
    )
    interpolation = draw(st.sampled_from([None, Interpolation(("Cz",), MATRIX)]))
    return Handling(None if fill is None else Fill(fill, draw(METHODS)), tuple(blanks), limits, interpolation)


def told(incidents: Sequence[Incident]) -> Counter[str]:
    """What must not depend on the cutting; which window shows first that a gap is over may."""
    details = [{k: v for k, v in i.details.items() if not k.startswith("first_")} for i in incidents]
    return Counter(f"{i.event} {sorted(d.items())} {i.windows}" for i, d in zip(incidents, details, strict=True))


@pytest.mark.parametrize("chain", CHAINS)
@settings(max_examples=60)
@given(tape=tapes(), windows=window_sets(), handling=handlings(), data=st.data())
def test_cutting_changes_nothing_whatever_is_done_about_bad_samples(
    chain: str, tape: Tape, windows: list[WindowSpec], handling: Handling, data: st.DataObject
) -> None:
    whole, _ = make(windows, handling, CHAINS[chain])
    cut, _ = make(windows, handling, CHAINS[chain])
    expected, found = play_whole(whole, tape), play_cut(cut, tape, data)
    assert payloads(found) == payloads(expected)
    assert Counter(str(r.quality) for r in found) == Counter(str(r.quality) for r in expected)
    assert told(cut.incidents()) == told(whole.incidents())
    # As many windows as without, each once: filling and blanking change what they hold, not which are due.
    plain, _ = make(windows, Handling(), CHAINS[chain])
    due = Counter((r.window, r.segment, r.start, r.marker) for r in play_whole(plain, tape) if r.window == "slide")
    assert Counter((r.window, r.segment, r.start, r.marker) for r in found if r.window == "slide") == due
    assert sum(cut.counts.values()) == len(found)


# --- late holes -------------------------------------------------------------------------------------------------------


@st.composite
def late_holes(draw: st.DrawFn) -> tuple[Tape, int, int]:
    """Two pieces of one segment with a hole between them, and where it really was; markers anywhere."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, m = draw(st.integers(2, 120)), draw(st.integers(1, 150))
    missing = draw(st.integers(1, 30))
    true = draw(st.integers(1, n))
    stamps = 100 + np.arange(n) / SFREQ
    after = 100 + np.arange(n + missing, n + missing + m) / SFREQ
    samples = rng.standard_normal((n + m, 3)).astype(np.float32)
    pieces = (Piece(0, 0, stamps, samples[:n]), Piece(0, n + missing, after, samples[n:]))
    times = draw(st.lists(st.floats(99.9, float(after[-1]) + 0.1), max_size=6))
    markers = tuple(Marker(t, f"T{k}") for k, t in enumerate(times))
    return Tape(pieces, markers), true, missing


@pytest.mark.parametrize("chain", CHAINS)
@settings(max_examples=60)
@given(case=late_holes(), windows=window_sets(), data=st.data())
def test_no_window_with_samples_from_behind_a_late_hole_stays_unnamed(
    chain: str, case: tuple[Tape, int, int], windows: list[WindowSpec], data: st.DataObject
) -> None:
    tape, true, missing = case
    late, engine = make(windows, Handling(), CHAINS[chain])
    results = play_late(late, tape, true, data)
    told = late.incidents()
    wrong = {(w.window, w.start, w.marker) for i in told if i.event == "invalidated" for w in i.windows}
    given = {(r.window, r.start, r.marker) for r in results if r.status is Status.OK}
    assert wrong <= given
    # Had those samples never come, these windows would be sound, and no others.
    first, second = tape.pieces
    known = Tape((replace(first, stamps=first.stamps[:true], samples=first.samples[:true]), second), tape.markers)
    oracle, _ = make(windows, Handling(), CHAINS[chain])
    sound = {(r.window, r.start, r.marker): r for r in play_whole(oracle, known) if r.status is Status.OK}
    assert given - wrong <= set(sound)
    for r in results:
        if r.status is Status.OK and (key := (r.window, r.start, r.marker)) not in wrong:
            assert r.outputs["window"].tobytes() == sound[key].outputs["window"].tobytes()
    assert {k for k in given - wrong if k[2] is None} == {k for k in sound if k[2] is None}
    # Every due window exactly once, as if the hole had been known.
    per_marker = Counter((r.window, r.marker) for r in results if r.marker is not None)
    expected = Counter(
        (w.name, m) for w in windows if isinstance(w, Locked) for m in tape.markers if w.matches(m.value)
    )
    assert per_marker == expected
    assert max(Counter((r.window, r.start) for r in results if r.marker is None).values(), default=1) == 1
    (gap,) = [i for i in told if i.event == "gap"]
    assert (gap.details["index"], gap.details["n"]) == (true, missing)
    assert gap.details["seconds"] == pytest.approx(missing / SFREQ)
    assert engine.restarts == [0, late.conditioner.outputs_before(second.first_index)]


def play_late(decoder: Decoder, tape: Tape, true: int, data: st.DataObject) -> list[Result]:
    """Markers with the samples or long after; the second piece says where the hole was."""
    first, second = tape.pieces
    results: list[Result] = []
    early = data.draw(st.sets(st.sampled_from(tape.markers))) if tape.markers else set()
    results += decoder.push(None, sorted(early), -np.inf)
    at = data.draw(st.integers(0, len(first.stamps)))
    for a, b in ((0, at), (at, len(first.stamps))):
        others = [m.stamp for m in tape.markers if m not in early]
        mark = min([float(first.stamps[max(b - 1, 0)]), *others]) - 1e-6
        results += decoder.push(Chunk(first.samples[a:b], first.stamps[a:b], a), [], mark)
    results += decoder.push(Chunk(second.samples, second.stamps, second.first_index, invalidates=true))
    rest = list(tape.markers)
    for marker in early:
        rest.remove(marker)
    return results + decoder.push(None, rest, np.inf) + decoder.finish()


def test_a_gap_says_when_how_long_and_what_it_cost() -> None:
    decoder, _ = make([Sliding(name="s", length=0.1, hop=0.05)], Handling())
    decoder.push(chunk(ramp(0, 20), 0))
    assert decoder.incidents() == []
    decoder.push(chunk(ramp(23, 4), 23))
    (gap,) = decoder.incidents()
    assert gap.event == "gap"
    assert gap.details == {
        "segment": 0,
        "index": 20,
        "n": 3,
        "seconds": pytest.approx(0.03),
        "before": pytest.approx(10.19),
        "after": pytest.approx(10.23),
        "windows": 2,  # those from 15 and from 20 on; the one from 25 on is sound
        "windows.s": 2,
    }
    results = decoder.push(chunk(ramp(27, 20), 27))
    assert [(r.start, r.status) for r in results] == [(20, "gap"), (25, "ok"), (30, "ok"), (35, "ok")]
    (over,) = decoder.incidents()
    assert (over.event, over.details["windows.s"], over.details["first_start"]) == ("gap over", 2, 25)


def test_a_late_hole_names_the_windows_that_are_out() -> None:
    decoder, _ = make([Sliding(name="s", length=0.1, hop=0.1)], Handling())
    results = decoder.push(chunk(ramp(0, 35), 0))
    assert [r.status for r in results] == [Status.OK] * 3
    results = decoder.push(chunk(ramp(40, 20), 40, invalidates=12))
    assert [(r.start, r.status) for r in results] == [(30, Status.GAP), (40, Status.OK), (50, Status.OK)]
    gap, invalidated = decoder.incidents()[:2]
    assert (gap.event, gap.details["index"], gap.details["n"]) == ("gap", 12, 5)
    assert invalidated.event == "invalidated"
    assert [(w.window, w.start) for w in invalidated.windows] == [("s", 10), ("s", 20)]


def test_an_interrupted_stream_says_what_it_cost() -> None:
    decoder, _ = make([Sliding(name="s", length=0.1, hop=0.05)], Handling())
    decoder.push(chunk(ramp(0, 22), 0))
    later = replace(chunk(ramp(0, 30), 0, segment=1), stamps=20 + np.arange(30) / SFREQ)
    decoder.push(later)
    begins, over = decoder.incidents()
    assert (begins.event, begins.details["windows.s"]) == ("reconnect", 2)
    assert begins.details["seconds"] == pytest.approx(20 - 10.22)
    assert (over.event, over.details["segment"], over.details["first_start"]) == ("gap over", 1, 0)


def test_a_restart_that_took_no_time_is_no_gap_of_so_many_seconds() -> None:
    decoder, _ = make([Sliding(name="s", length=0.1, hop=0.05)], Handling())
    decoder.push(chunk(ramp(0, 22), 0))
    decoder.push(replace(chunk(ramp(0, 30), 0, segment=1), stamps=0.22 + np.arange(30) / SFREQ))
    _, over = decoder.incidents()
    assert over.text.startswith("a restart is over")


# --- filling ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "expected"), [("hold", [57.0, 57, 57]), ("linear", [60.0, 63, 66]), ("zero", [0.0, 0, 0])]
)
def test_a_short_hole_is_filled_and_flagged_and_a_longer_one_refused(method: str, expected: list[float]) -> None:
    windows = [Sliding(name="s", length=0.1, hop=0.1)]
    decoder, engine = make(windows, Handling(fill=Fill(0.03, method)))  # type: ignore[arg-type]
    decoder.push(chunk(ramp(0, 20), 0))
    (filled,) = decoder.push(chunk(ramp(23, 10), 23))
    assert (filled.status, filled.quality) == (Status.OK, Quality(filled=3))
    assert filled.outputs["window"][:3, 0].tolist() == expected
    (incident,) = decoder.incidents()
    assert (incident.event, incident.details["n"], incident.details["method"]) == ("filled", 3, method)
    assert engine.restarts == [0]
    assert [r.status for r in decoder.push(chunk(ramp(37, 30), 37))] == [Status.GAP, Status.OK, Status.OK]
    assert engine.restarts == [0, 37]


def test_between_holds_what_is_finite() -> None:
    before = np.array([1, np.nan, 3, np.nan], np.float32)
    after = np.array([5, 6, np.inf, np.nan], np.float32)
    assert between("linear", before, after, 1)[0, :3].tolist() == [3, 6, 3]
    assert between("hold", before, after, 1)[0, [0, 2]].tolist() == [1, 3]
    assert np.isnan(between("hold", before, after, 1)[0, [1, 3]]).all()
    assert between("zero", before, after, 2).tolist() == [[0.0] * 4] * 2


# --- blanking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "expected"), [("hold", [9.0, 9, 9, 9]), ("linear", [10.0, 11, 12, 13]), ("zero", [0.0, 0, 0, 0])]
)
def test_an_artefact_is_replaced_before_the_filters(method: str, expected: list[float]) -> None:
    samples = np.repeat(np.arange(40, dtype=np.float32)[:, None], 3, axis=1)
    samples[10:14] = 1e6
    blank = Blank(("stim*",), -0.005, 0.03, method, ("C3", "Cz"))  # type: ignore[arg-type]
    decoder, _ = make([Sliding(name="s", length=0.4, hop=0.4)], Handling(blanks=(blank,)))
    assert decoder.push(chunk(samples, 0), [], 10.1) == []  # the watermark says nothing yet of a marker at 10.12
    (result,) = decoder.push(None, [Marker(10.1005, "stim 5 mA"), Marker(10.2, "word")], np.inf)
    window = result.outputs["window"]
    assert window[10:14, 0].tolist() == expected
    assert window[10:14, 2].tolist() == [1e6] * 4
    assert window[:10, 0].tolist() + window[14:, 0].tolist() == [*range(10), *range(14, 40)]
    assert result.quality == Quality(blanked=4)


def test_samples_wait_no_longer_than_their_markers_may() -> None:
    blank = Blank(("*",), -0.02, 0.03, "hold")
    decoder, engine = make([Sliding(name="s", length=0.1, hop=0.1)], Handling(blanks=(blank,)))
    assert decoder.push(chunk(ramp(0, 20), 0), [], 10.095) == []
    assert sum(len(samples) for _, samples in engine.advanced) == 8  # stamps up to 10.075
    (result,) = decoder.push(None, [], 10.1101)
    assert (result.start, result.status) == (0, Status.OK)


def test_a_stretch_too_long_for_a_line_is_held() -> None:
    samples = np.repeat(np.arange(200, dtype=np.float32)[:, None], 3, axis=1)
    decoder, engine = make(
        [Sliding(name="s", length=0.1, hop=0.1)], Handling(blanks=(Blank(("*",), 0, 0.8, "linear"),))
    )
    decoder.push(chunk(samples[:80], 0), [Marker(10.1, "a")], np.inf)
    assert sum(len(heard) for _, heard in engine.advanced) == 80  # nobody waits for its end
    decoder.push(chunk(samples[80:], 80))
    heard = np.concatenate([s for _, s in engine.advanced])[:, 0]
    assert set(heard[10:91]) == {9.0}
    assert heard[91] == 91


def test_a_marker_that_comes_too_late_to_be_blanked_is_told() -> None:
    decoder, _ = make([Sliding(name="s", length=0.1, hop=0.1)], Handling(blanks=(Blank(("stim",), -0.01, 0.03),)))
    decoder.push(chunk(ramp(0, 30), 0), [], 10.3)
    decoder.push(None, [Marker(10.1, "stim"), Marker(10.1, "word")], 10.3)
    (incident,) = decoder.incidents()
    assert (incident.event, incident.details["stamp"]) == ("not blanked", 10.1)


def test_what_is_blanked_may_be_nan() -> None:
    samples = ramp(0, 40)
    samples[12, 1] = np.nan
    decoder, _ = make([Sliding(name="s", length=0.4, hop=0.4)], Handling(blanks=(Blank(("*",), -0.015, 0.025),)))
    (result,) = decoder.push(chunk(samples, 0), [Marker(10.1, "a")], np.inf)
    assert (result.status, result.quality) == (Status.OK, Quality(blanked=4))


# --- quality ----------------------------------------------------------------------------------------------------------


def brute(samples: NDArray[np.float32], limits: Limits) -> Quality | None:
    """By the words of `Limits`, one channel after the other."""
    not_finite: dict[str, int] = {}
    flat, clipped, beyond = [], [], []
    for channel, x in zip(CHANNELS, samples.T, strict=True):
        finite = x[np.isfinite(x)]
        if len(finite) < len(x):
            not_finite[channel.name] = len(x) - len(finite)
        if not len(finite):
            continue
        is_flat = limits.flat is not None and float(finite.max() - finite.min()) < limits.flat  # type: ignore[operator]
        if is_flat:
            flat.append(channel.name)
        if limits.range is not None and float(np.abs(finite).max()) > limits.range:  # type: ignore[operator]
            beyond.append(channel.name)
        n = limits.clip
        runs = [x[k : k + n] for k in range(len(x) - n + 1)] if n is not None else []
        if not is_flat and any((run == finite.max()).all() or (run == finite.min()).all() for run in runs):
            clipped.append(channel.name)
    found = Quality(not_finite=not_finite, flat=tuple(flat), clipped=tuple(clipped), out_of_range=tuple(beyond))
    return None if found == Quality() else found


@settings(max_examples=80)
@given(data=st.data())
def test_quality_is_what_a_look_at_each_window_finds(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n, first = data.draw(st.integers(1, 400)), data.draw(st.sampled_from([0, 5, 40]))
    samples = rng.integers(-3, 4, (n, 3)).astype(np.float32)
    if data.draw(st.booleans()):
        samples[rng.random((n, 3)) < data.draw(st.sampled_from([0.01, 0.9]))] = np.nan
    if data.draw(st.booleans()):
        samples[:, 1] = 2.0
    limits = Limits(
        flat=data.draw(st.sampled_from([None, 1.0, 5.5])),
        clip=data.draw(st.sampled_from([None, 2, 3, 7])),
        range=data.draw(st.sampled_from([None, 2.0, 2.5])),
        max_bad=3,
    )
    length = data.draw(st.sampled_from([0.03, 0.2, 0.97]))
    decoder, _ = make([Sliding(name="s", length=length, hop=0.07)], Handling(limits=limits))
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, n), max_size=6))), n]
    results = [r for a, b in pairwise(cuts) for r in decoder.push(chunk(samples[a:b], first + a))]
    for r in results:
        expected = brute(samples[r.start - first : r.start - first + r.length], limits)
        assert r.quality == expected
        assert r.status is Status.OK or "anew" in r.reason


def test_more_bad_channels_than_allowed_make_an_artifact() -> None:
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((30, 3)).astype(np.float32)
    samples[10:20, 0] = np.nan
    samples[12:30, 1] = 7.0
    limits = Limits(flat=0.5, range=5.0, max_bad=1)
    decoder, _ = make([Sliding(name="s", length=0.1, hop=0.1)], Handling(limits=limits))
    ok, bad, also_ok = decoder.push(chunk(samples, 0))
    assert (ok.status, ok.quality) == (Status.OK, None)
    assert bad.status is Status.ARTIFACT
    assert bad.reason == "2 bad channels, 1 allowed: samples that are not finite: C3 (10); out of range: Cz"
    assert (also_ok.status, also_ok.quality) == (Status.OK, Quality(flat=("Cz",), out_of_range=("Cz",)))


def test_a_tolerated_channel_that_begins_inside_a_window_makes_it_an_artifact() -> None:
    """Filters and encoder begin anew there: such a window's two ends have nothing to do with each other."""
    samples = ramp(0, 40)
    samples[:15, 1] = np.nan
    decoder, engine = make(
        [Sliding(name="s", length=0.1, hop=0.1)], Handling(limits=Limits(max_bad=1)), [Filter(low=1.0, high=30.0)]
    )
    results = decoder.push(chunk(samples, 0))
    assert [r.status for r in results] == [Status.OK, Status.ARTIFACT, Status.OK, Status.OK]
    assert "index 15" in results[1].reason
    assert engine.restarts == [0, 15]


# --- interpolation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[40], [7, 1, 32]])
def test_a_bad_channel_is_made_of_good_ones(sizes: list[int]) -> None:
    samples = np.random.default_rng(1).standard_normal((40, 3)).astype(np.float32)
    dead = samples.copy()
    dead[:, 1] = np.nan
    decoder, engine = make(
        [Sliding(name="s", length=0.2, hop=0.2)], Handling(interpolation=Interpolation(("Cz",), MATRIX))
    )
    assert decoder.interpolated == ("Cz",)
    results, at = [], 0
    for n in sizes:
        results += decoder.push(chunk(dead[at : at + n], at))
        at += n
    assert [(r.status, r.quality) for r in results] == [(Status.OK, None)] * 2
    window = results[1].outputs["window"]
    assert window[:, [0, 2]].tobytes() == samples[20:, [0, 2]].tobytes()
    np.testing.assert_allclose(window[:, 1], 0.25 * samples[20:, 0] + 0.75 * samples[20:, 2], rtol=1e-6)
    assert engine.restarts == [0]


def change(row: int, column: int, value: float) -> NDArray[np.float64]:
    matrix = MATRIX.copy()
    matrix[row, column] = value
    return matrix


@pytest.mark.parametrize(
    ("bad", "matrix", "error", "message"),
    [
        (("Cz",), np.eye(2), ConfigError, r"m\.npy has shape \(2, 2\); expected \(3, 3\)"),
        (("Cz",), change(1, 0, np.nan), ConfigError, "holds nan in the row of 'Cz', column of 'C3'"),
        (("Cz",), change(1, 1, 0.5), ConfigError, "makes bad channel 'Cz' of bad channel 'Cz'"),
        (("Cz", "C4"), MATRIX, ConfigError, "makes bad channel 'Cz' of bad channel 'C4'"),
        (("Cz",), np.diag([1.0, 0, 1]), ConfigError, "no weight in the row of bad channel 'Cz'"),
        (("Cz",), change(0, 2, 0.1), ConfigError, "changes channel 'C3', which is not declared bad"),
        (("Fz",), MATRIX, ContractError, "no channel 'Fz'"),
        (("Cz", "Cz"), MATRIX, ConfigError, "each channel once"),
    ],
)
def test_a_matrix_that_makes_no_sense_is_refused(
    bad: tuple[str, ...], matrix: NDArray[np.float64], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tools(Handling(interpolation=Interpolation(bad, matrix, "m.npy")), CHANNELS, SFREQ)


@pytest.mark.parametrize(
    ("handling", "error", "message"),
    [
        (Handling(blanks=(Blank(("*",), 0.1, 0.1),)), ConfigError, r"blank\[0\]: tmax = 0.1 s; expected more than"),
        (Handling(blanks=(Blank(("*",), 0, 0.1, "hold", ("Fz",)),)), ContractError, r"blank\[0\].*no channel 'Fz'"),
        (Handling(limits=Limits(flat={"mag": 1e-15})), ConfigError, "flat names channel type 'mag'.*decodes eeg"),
    ],
)
def test_handling_that_does_not_fit_the_channels_is_refused(
    handling: Handling, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tools(handling, CHANNELS, SFREQ)


def test_limits_by_channel_type() -> None:
    channels = (Channel("M", "mag", "T"), Channel("G", "grad", "T/m"), Channel("E", "eeg", "V"))
    handling = Handling(limits=Limits(range={"mag": 1e-12, "grad": 1e-10}, max_bad=3))
    decoder = Decoder(
        columns=[0, 1, 2],
        channels=channels,
        n_stream_channels=3,
        sfreq=SFREQ,
        conditioner=Conditioner((), channels, SFREQ, {}),
        window_steps=(),
        windows=[Sliding(name="s", length=0.1, hop=0.1)],
        engine=TapEngine(),
        heads=(),
        handling=handling,
    )
    (result,) = decoder.push(chunk(np.full((10, 3), 5e-12, np.float32), 0))
    assert result.quality == Quality(out_of_range=("M",))


# --- on the wire ------------------------------------------------------------------------------------------------------


def test_quality_and_invalidated_windows_travel() -> None:
    marker = Marker(10.5, "T1", "keys")
    refs = (wire_window(WindowRef("s", 1, 20)), wire_window(WindowRef("cue", 1, 22, marker)))
    event = Event(seq=0, origin="p", event="invalidated", text="", stamp=1.0, windows=refs)
    _, received, _ = decode(encode("p.event", event))
    assert received == event
    quality = Quality(not_finite={"C3": 2}, clipped=("Cz",), filled=3)
    message = msgspec.msgpack.decode(msgspec.msgpack.encode(quality))
    assert message == {"not_finite": {"C3": 2}, "clipped": ["Cz"], "filled": 3}
