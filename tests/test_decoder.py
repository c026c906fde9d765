"""The laws of the decoder: cutting does not matter, and every due window gives exactly one result."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import bundles
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtdecode.decoder import Decoder, Result, Status
from rtdecode.encode.bundle import write_bundle
from rtdecode.encode.engine import EngineInfo, Outputs
from rtdecode.errors import ConfigError, EncodeError, StampError
from rtdecode.signal import Channel, Chunk, Marker, StreamInfo
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.finite import hold_finite
from rtdecode.stream.steps import Baseline, Filter, Reference, Resample, StreamStep, WindowStep
from rtdecode.stream.window import Locked, Sliding, WindowSpec

SFREQ = 100.0
CHANNELS = tuple(Channel(name, "eeg", "V") for name in ("C3", "Cz", "C4"))


class TapEngine:
    """An engine whose output is its input, and that remembers what it was told."""

    def __init__(self) -> None:
        self.advanced: list[tuple[int, NDArray[np.float32]]] = []
        self.restarts: list[int] = []
        self.fail_at: int | None = None

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("tap", "cpu", "fp32", 1, (0, 0))

    def restart(self, first_index: int) -> None:
        self.restarts.append(first_index)

    def advance(self, samples: NDArray[np.float32], first_index: int) -> None:
        self.advanced.append((first_index, samples.copy()))

    def catch_up(self) -> None: ...

    def rehearse(self) -> None: ...

    def begin(self, first_index: int, samples: NDArray[np.float32]) -> None: ...

    def apart(self, window: NDArray[np.float32], first_index: int) -> Outputs:
        return self.finish(window, first_index)

    def finish(self, window: NDArray[np.float32], first_index: int) -> Outputs:
        if first_index == self.fail_at:
            raise EncodeError("told to fail")
        return {"window": window.copy()}

    def close(self) -> None: ...


def make_decoder(
    windows: Sequence[WindowSpec],
    steps: Sequence[StreamStep] = (),
    window_steps: Sequence[WindowStep] = (),
    history_s: float = 1e3,
    clock: Callable[[], float] | None = None,
) -> tuple[Decoder, TapEngine]:
    engine = TapEngine()
    conditioner = Conditioner(steps, CHANNELS, SFREQ, {})
    decoder = Decoder(
        columns=[0, 1, 2],
        channels=CHANNELS,
        n_stream_channels=3,
        sfreq=SFREQ,
        conditioner=conditioner,
        window_steps=window_steps,
        windows=windows,
        engine=engine,
        heads=(),
        clock=clock,
        history_s=history_s,
    )
    return decoder, engine


@dataclass(frozen=True)
class Piece:
    """Consecutive samples of a tape."""

    segment: int
    first_index: int
    stamps: NDArray[np.float64]
    samples: NDArray[np.float32]

    @property
    def stop(self) -> int:
        return self.first_index + len(self.stamps)


@dataclass(frozen=True)
class Tape:
    """What a sender sent: pieces with holes between them, and markers."""

    pieces: tuple[Piece, ...]
    markers: tuple[Marker, ...]


@st.composite
def tapes(draw: st.DrawFn) -> Tape:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pieces: list[Piece] = []
    segment, index, now = 0, draw(st.sampled_from([0, 0, 7])), 100.0
    for _ in range(draw(st.integers(1, 4))):
        n = draw(st.integers(1, 150))
        stamps = now + np.arange(n) / SFREQ + rng.uniform(-1e-3, 1e-3, n)
        samples = rng.standard_normal((n, 3)).astype(np.float32)
        for _ in range(draw(st.integers(0, 2))):
            samples[rng.integers(n), rng.integers(3)] = rng.choice([np.nan, np.inf, -np.inf])
        pieces.append(Piece(segment, index, stamps, samples))
        now += n / SFREQ
        hole = draw(st.integers(1, 40))
        now += hole / SFREQ
        if draw(st.booleans()):
            index += n + hole
        else:
            segment, index = segment + draw(st.integers(1, 2)), draw(st.sampled_from([0, 3]))
    times = draw(st.lists(st.floats(99.7, now + 0.3), max_size=8))
    first = pieces[0].stamps[0]
    times += draw(st.sampled_from([[], [first + 0.5 / SFREQ], [first], [pieces[-1].stamps[-1]]]))
    values = draw(st.lists(st.sampled_from(["T1", "T2", "T0", "other"]), min_size=len(times), max_size=len(times)))
    return Tape(tuple(pieces), tuple(Marker(float(t), v) for t, v in zip(times, values, strict=True)))


@st.composite
def window_sets(draw: st.DrawFn) -> list[WindowSpec]:
    length = draw(st.sampled_from([0.05, 0.2, 0.31]))
    windows: list[WindowSpec] = [
        Sliding(name="slide", length=length, hop=draw(st.sampled_from([0.02, 0.05, 0.333, 0.5]))),
        Locked(name="cue", tmin=0.0, tmax=length, markers=("T1", "T2")),
        Locked(name="all", tmin=draw(st.sampled_from([-0.3, -0.1])), tmax=0.07, markers=("*",)),
    ]
    return windows


Key = tuple[str, int, int, Marker | None]


def payloads(results: Sequence[Result]) -> Counter[tuple[Key, str, str, bytes]]:
    """What must not depend on the cutting: ids, statuses, reasons and bytes; how often each came."""
    return Counter(
        (
            (r.window, r.segment, r.start, r.marker),
            r.status.value,
            r.reason,
            b"".join(np.ascontiguousarray(a).tobytes() for a in r.outputs.values()),
        )
        for r in results
    )


def play_whole(decoder: Decoder, tape: Tape) -> list[Result]:
    """Every piece in one chunk, every marker before the samples."""
    results = decoder.push(None, tape.markers, np.inf)
    for piece in tape.pieces:
        results += decoder.push(Chunk(piece.samples, piece.stamps, piece.first_index, piece.segment))
    return results + decoder.finish()


def play_cut(decoder: Decoder, tape: Tape, data: st.DataObject) -> list[Result]:
    """Random chunks; each marker at a random moment before the watermark passes it."""
    chunks: list[Chunk | None] = []
    for piece in tape.pieces:
        n = len(piece.stamps)
        cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=12)))
        for a, b in zip([0, *cuts], [*cuts, n], strict=True):
            samples, stamps = piece.samples[a:b].copy(), piece.stamps[a:b].copy()
            chunks.append(Chunk(samples, stamps, piece.first_index + a, piece.segment))
        if data.draw(st.booleans()):
            chunks.append(None)
    arrival = [data.draw(st.integers(0, len(chunks) - 1)) for _ in tape.markers]
    results: list[Result] = []
    watermark = -np.inf
    for at, chunk in enumerate(chunks):
        now = [m for m, a in zip(tape.markers, arrival, strict=True) if a == at]
        later = [m.stamp for m, a in zip(tape.markers, arrival, strict=True) if a > at]
        highest = np.nextafter(min(later), -np.inf) if later else np.inf
        watermark = max(watermark, data.draw(st.sampled_from([-np.inf, highest - 0.2, highest])))
        results += decoder.push(chunk, data.draw(st.permutations(now)), watermark)
    return results + decoder.finish()


CHAINS: dict[str, tuple[StreamStep, ...]] = {
    "nothing": (),
    "band-pass": (Reference(), Filter(low=1.0, high=30.0)),
    "decimated": (Filter(high=20.0), Resample(sfreq=50.0)),
    "resampled": (Resample(sfreq=64.0),),
}


@pytest.mark.parametrize("chain", CHAINS)
@settings(max_examples=40)
@given(tape=tapes(), windows=window_sets(), data=st.data())
def test_cutting_and_marker_arrival_change_nothing(
    chain: str, tape: Tape, windows: list[WindowSpec], data: st.DataObject
) -> None:
    baseline = (Baseline(tmin=-0.1, tmax=0.0),) if data.draw(st.booleans()) else ()
    windows = [w for w in windows if isinstance(w, Locked) and w.tmin <= -0.1] if baseline else windows
    whole, _ = make_decoder(windows, CHAINS[chain], baseline)
    cut, _ = make_decoder(windows, CHAINS[chain], baseline)
    assert payloads(play_cut(cut, tape, data)) == payloads(play_whole(whole, tape))
    assert cut.counts == whole.counts


@settings(max_examples=60)
@given(tape=tapes(), windows=window_sets(), data=st.data())
def test_every_due_window_gives_exactly_one_result(tape: Tape, windows: list[WindowSpec], data: st.DataObject) -> None:
    decoder, engine = make_decoder(windows)
    results = play_cut(decoder, tape, data)
    expected = Counter(reference(tape, windows))
    found = Counter((r.window, r.segment, r.start, r.status.value) for r in results if not _outside(tape, r))
    assert found == expected
    outside = [r for r in results if _outside(tape, r)]
    assert len(outside) == sum(
        w.matches(m.value) for w in windows if isinstance(w, Locked) for m in tape.markers if nearest(tape, m) is None
    )
    assert all(r.status is Status.GAP for r in outside)
    assert sum(decoder.counts.values()) == len(results)
    for result in results:
        if result.status is Status.OK:
            rows = _rows(tape, result.segment, result.start, result.length)
            np.testing.assert_array_equal(result.outputs["window"], rows)
    _check_engine_saw_everything(tape, engine)


def nearest(tape: Tape, marker: Marker) -> tuple[int, int] | None:
    """Segment and index of the sample within half a period of a marker, by looking at all; the earlier of two."""
    best: tuple[float, int, int] | None = None
    for piece in tape.pieces:
        for at, stamp in enumerate(piece.stamps):
            distance = abs(marker.stamp - stamp) * SFREQ
            if best is None or distance < best[0] - 1e-3:
                best = (distance, piece.segment, piece.first_index + at)
    assert best is not None
    inner = any(p.stamps[0] <= marker.stamp <= p.stamps[-1] for p in tape.pieces)
    return best[1:] if inner or best[0] <= 0.5 + 1e-3 else None


def reference(tape: Tape, windows: Sequence[WindowSpec]) -> list[tuple[str, int, int, str]]:
    """Which windows are due and what becomes of them, by brute force, without conditioning."""
    found = []
    for segment in sorted({p.segment for p in tape.pieces}):
        pieces = [p for p in tape.pieces if p.segment == segment]
        here = {i for p in pieces for i in range(p.first_index, p.stop)}
        bad = {int(i) for p in pieces for i in p.first_index + np.flatnonzero(~np.isfinite(p.samples).all(axis=1))}
        first, stop = min(here), max(here) + 1
        is_last = segment == tape.pieces[-1].segment

        def status(start: int, length: int, here: set[int] = here, bad: set[int] = bad) -> str:
            indices = set(range(start, start + length))
            if not indices <= here:
                return "gap"
            return "artifact" if indices & bad else "ok"

        for window in windows:
            length = window.n_samples(SFREQ)
            if isinstance(window, Sliding):
                n = 0
                while (start := int(np.floor(n * round(window.hop * SFREQ, 6) + 0.5))) < stop:
                    due = start + length <= stop or not is_last
                    if start >= first and due:
                        found.append((window.name, segment, start, status(start, length)))
                    n += 1
            else:
                for marker in tape.markers:
                    place = nearest(tape, marker)
                    if place is not None and place[0] == segment and window.matches(marker.value):
                        start = place[1] + window.offset(SFREQ)
                        found.append((window.name, segment, start, status(start, length)))
    return found


def _outside(tape: Tape, result: Result) -> bool:
    return result.marker is not None and nearest(tape, result.marker) is None


def _rows(tape: Tape, segment: int, start: int, length: int) -> NDArray[np.float32]:
    rows: Mapping[int, NDArray[np.float32]] = {
        p.first_index + at: row for p in tape.pieces if p.segment == segment for at, row in enumerate(p.samples)
    }
    return np.array([rows[i] for i in range(start, start + length)])


def _check_engine_saw_everything(tape: Tape, engine: TapEngine) -> None:
    """It heard every sample once, and began anew behind each hole and with each channel."""
    restarts = []
    for piece in tape.pieces:
        finite = np.isfinite(piece.samples)
        firsts = {int(column.argmax()) for column in finite.T if column.any()}
        restarts += [piece.first_index + row for row in sorted({0} | firsts)]
    assert engine.restarts == restarts
    at = 0
    for piece in tape.pieces:
        seen = 0
        while seen < len(piece.stamps):
            first, samples = engine.advanced[at]
            assert first == piece.first_index + seen
            seen += len(samples)
            at += 1
        assert seen == len(piece.stamps)
    assert at == len(engine.advanced)


# --- single cases -----------------------------------------------------------------------------------------------------


def chunk(first: int, n: int, segment: int = 0, arrived: float = np.nan) -> Chunk:
    samples = np.arange(first * 3, (first + n) * 3, dtype=np.float32).reshape(n, 3)
    return Chunk(samples, 10 + segment * 1000 + np.arange(first, first + n) / SFREQ, first, segment, arrived)


def test_a_locked_window_waits_for_the_watermark_and_a_late_marker_is_skipped() -> None:
    decoder, _ = make_decoder([Locked(tmin=0.0, tmax=0.1, markers=("*",))])
    assert decoder.push(chunk(0, 50), [Marker(10.1, "a")], 10.05) == []
    (result,) = decoder.push(None, [], 10.1)
    assert (result.status, result.start) == (Status.OK, 10)
    (late,) = decoder.push(None, [Marker(10.1, "b")], 10.2)
    assert (late.status, late.start, late.reason) == (Status.SKIPPED, 10, "late marker")
    assert decoder.counts == {Status.OK: 1, Status.SKIPPED: 1}


def test_a_marker_that_comes_after_its_samples_are_forgotten_is_skipped() -> None:
    decoder, _ = make_decoder([Locked(tmin=0.0, tmax=0.1, markers=("*",))], history_s=0.5)
    results = [r for first in range(0, 1000, 10) for r in decoder.push(chunk(first, 10))]
    assert results == []
    (result,) = decoder.push(None, [Marker(10.1, "a")], 11.0)
    assert result.status is Status.SKIPPED
    assert "no longer kept" in result.reason


def test_samples_lost_on_our_side_are_skipped_not_gap() -> None:
    decoder, _ = make_decoder([Sliding(length=0.1, hop=0.1)])
    decoder.push(chunk(0, 25))
    decoder.lost("gone from the log")
    statuses = [(r.start, r.status, r.reason) for r in decoder.push(chunk(41, 19))]
    assert statuses == [
        (20, Status.SKIPPED, "gone from the log"),
        (30, Status.SKIPPED, "gone from the log"),
        (40, Status.SKIPPED, "gone from the log"),
        (50, Status.OK, ""),
    ]


@pytest.mark.parametrize("missing", [1, 2, 37])
@pytest.mark.parametrize("size", [1, 5, 400])
def test_a_channel_that_begins_late_does_not_ring(missing: int, size: int) -> None:
    """An amplifier's offset is a thousand times its signal: no filter may see the step from nothing to it."""
    rng = np.random.default_rng(0)
    samples = (0.01 + 1e-5 * rng.standard_normal((400, 3))).astype(np.float32)
    samples[:missing, 0] = np.nan
    samples[: missing // 2, 2] = np.inf
    decoder, _ = make_decoder([Sliding(length=0.2, hop=0.1)], (Filter(low=1.0, high=30.0),))
    results: list[Result] = []
    for at in range(0, 400, size):
        piece = samples[at : at + size]
        results += decoder.push(Chunk(piece, 10 + np.arange(at, at + len(piece)) / SFREQ, at))
    assert {r.status for r in results if r.start < missing} == {Status.ARTIFACT}
    sound = [r for r in results if r.start >= missing]
    assert {r.status for r in sound} == {Status.OK}
    assert max(float(np.abs(r.outputs["window"]).max()) for r in sound) < 6e-5


def test_a_window_that_cannot_be_encoded_is_failed_and_the_next_is_not() -> None:
    decoder, engine = make_decoder([Sliding(length=0.1, hop=0.1)])
    engine.fail_at = 10
    results = decoder.push(chunk(0, 30))
    assert [(r.status, r.reason) for r in results] == [
        (Status.OK, ""),
        (Status.FAILED, "told to fail"),
        (Status.OK, ""),
    ]


def test_timing_comes_from_the_clock_that_was_handed_in() -> None:
    ticks = iter(range(100, 200))
    decoder, _ = make_decoder([Sliding(length=0.1, hop=0.1)], clock=lambda: float(next(ticks)))
    (result,) = decoder.push(chunk(0, 10, arrived=99.5))
    assert result.timing.stamp == pytest.approx(10.09)
    assert (result.timing.arrived, result.timing.due, result.timing.encoded) == (99.5, 100.0, 101.0)


@pytest.mark.parametrize(("periods", "start"), [(-2.5, -3), (-0.5, 0), (19.5, 19), (21.5, 21)])
def test_a_marker_half_way_between_samples_falls_on_the_earlier_one(periods: float, start: int) -> None:
    """Within the data and outside, whatever the last bits of a stamp that came by way of another clock."""
    for error in (-1e-9, 0.0, 1e-9):
        decoder, _ = make_decoder([Locked(tmin=0.0, tmax=0.1, markers=("*",))])
        marker = Marker(10 + periods / SFREQ + error, "a")
        (result,) = decoder.push(chunk(0, 20), [marker], np.inf) + decoder.finish()
        assert (result.start, result.status) == (start, Status.OK if start == 0 else Status.GAP)


def test_a_hop_of_less_than_a_sample_is_refused() -> None:
    make_decoder([Sliding(length=0.1, hop=0.01)])
    for hop in (0.009, 1e-9):
        with pytest.raises(ConfigError, match=r"hops by .*at least one sample, 0\.01 s"):
            make_decoder([Sliding(length=0.1, hop=hop)])


def test_windows_that_the_encoder_cannot_take_are_refused_at_once(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b.zip", *bundles.parts())
    channels = tuple(Channel(c.name, c.type, c.unit) for c in bundle.manifest.contract.channels)
    info = StreamInfo(channels, bundles.SFREQ)
    length = bundles.TIME / bundles.SFREQ
    Decoder.from_bundle(bundle, info, TapEngine(), windows=[Sliding(length=length, hop=1.0)])
    with pytest.raises(ConfigError, match=rf"window 'long' has {2 * bundles.TIME} samples.*takes {bundles.TIME}"):
        Decoder.from_bundle(bundle, info, TapEngine(), windows=[Sliding(name="long", length=2 * length, hop=1.0)])


def test_markers_without_any_samples_are_accounted_for() -> None:
    decoder, _ = make_decoder([Locked(tmin=0.0, tmax=0.1, markers=("T*",))])
    assert decoder.push(None, [Marker(1.0, "T1"), Marker(2.0, "x")], 5.0) == []
    (result,) = decoder.finish()
    assert (result.status, result.reason) == (Status.GAP, "no samples came")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (chunk(10, 5), "expected 20 or later"),
        (Chunk(chunk(20, 3).samples, np.array([10.2, 10.2, 10.3]), 20), "sample 21.*repeats"),
        (Chunk(chunk(20, 3).samples, np.array([10.2, 10.15, 10.3]), 20), "sample 21.*backwards by 50"),
        (Chunk(chunk(20, 3).samples, np.array([10.0, 10.1, 10.2]), 20), "sample 20.*backwards by 190"),
        (Chunk(chunk(20, 3).samples, np.array([10.2, np.nan, 10.3]), 20), "sample 21 is nan"),
        (Chunk(chunk(20, 3).samples[:2], np.array([10.2, 10.21, 10.22]), 20), r"shape \(2, 3\) and 3 stamps"),
        (Chunk(chunk(20, 3).samples[:, :2], chunk(20, 3).stamps, 20), r"expected \(3, 3\)"),
        (Chunk(chunk(20, 3).samples.astype(np.float64), chunk(20, 3).stamps, 20), "float64 samples"),
    ],
)
def test_stamps_and_indices_that_make_no_sense_are_refused(bad: Chunk, message: str) -> None:
    decoder, _ = make_decoder([Sliding(length=0.1, hop=0.1)])
    decoder.push(chunk(0, 20))
    with pytest.raises(StampError, match=message):
        decoder.push(bad)


def test_a_sender_may_come_back_with_an_earlier_clock() -> None:
    decoder, _ = make_decoder([Sliding(name="s", length=0.1, hop=0.1), Locked(tmin=0.0, tmax=0.1, markers=("*",))])
    decoder.push(chunk(0, 25, segment=1))
    earlier = Chunk(chunk(0, 25).samples, chunk(0, 25).stamps - 5.0, 0, 2)
    results = decoder.push(earlier, [Marker(5.05, "a")], np.inf)
    assert [(r.window, r.segment, r.start, r.status) for r in results] == [
        ("s", 1, 20, Status.GAP),
        ("s", 2, 0, Status.OK),
        ("locked", 2, 5, Status.OK),
        ("s", 2, 10, Status.OK),
    ]


def test_a_bad_sample_marks_all_that_it_becomes_when_the_rate_is_raised() -> None:
    decoder, _ = make_decoder([Sliding(length=0.005, hop=0.005)], [Resample(sfreq=200.0)])
    samples = chunk(0, 20).samples.copy()
    samples[7, 1] = np.nan
    results = decoder.push(Chunk(samples, chunk(0, 20).stamps, 0))
    assert [r.start for r in results if r.status is Status.ARTIFACT] == [14, 15]


def test_a_segment_never_goes_back() -> None:
    decoder, _ = make_decoder([Sliding(length=0.1, hop=0.1)])
    decoder.push(chunk(0, 20, segment=2))
    with pytest.raises(StampError, match="segment 1 came after segment 2"):
        decoder.push(chunk(0, 20, segment=1))


@given(data=st.data(), n=st.integers(1, 12))
def test_hold_finite_holds_the_last_finite_sample(data: st.DataObject, n: int) -> None:
    values = st.sampled_from([1.0, 2.0, 3.0, np.nan, np.inf, -np.inf])
    samples = np.array(data.draw(st.lists(values, min_size=2 * n, max_size=2 * n)), np.float32).reshape(n, 2)
    before = np.array([7, 8], np.float32)
    held, bad = hold_finite(samples, before)
    last = before.copy()
    for row in range(n):
        for column in range(2):
            if np.isfinite(samples[row, column]):
                last[column] = samples[row, column]
            assert held[row, column] == last[column]
            assert bad[row, column] == (not np.isfinite(samples[row, column]))
