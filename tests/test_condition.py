"""The laws of the conditioning chain: the cutting does not matter, counts are exact, nothing looks ahead."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtdecode.errors import BundleError, ConfigError, ContractError
from rtdecode.signal import Channel
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.steps import (
    Bipolar,
    Filter,
    Laplacian,
    Matrix,
    Notch,
    Pick,
    Reference,
    Resample,
    RunningAlignment,
    Scale,
    StreamStep,
)

Samples = NDArray[np.float32]

#: Every kind of step, made for the first `n` of the channels c0, c1... `arrays` holds what they name.
STEPS: dict[str, Callable[[int], StreamStep]] = {
    "pick": lambda n: Pick(channels=tuple(f"c{i}" for i in reversed(range(n)))),
    "average": lambda n: Reference(),
    "reference": lambda n: Reference(channels=("c0", f"c{n - 1}") if n > 1 else ("c0",)),
    "bipolar": lambda n: Bipolar(pairs=(("c0", "c1"), ("c2", "c0"))),
    "laplacian": lambda n: Laplacian(neighbours={"c0": ("c1", "c2"), "c2": ("c1",)}),
    "matrix": lambda n: Matrix(array="square", kind="ssp"),
    "narrow": lambda n: Matrix(array="narrow", kind="spatial", channels=("one", "two")),
    "scale": lambda n: Scale(center="center", scale="scale"),
    "notch": lambda n: Notch(freq=20.0, harmonics=2),
    "bandpass": lambda n: Filter(low=1.0, high=25.0),
    "highpass": lambda n: Filter(low=0.5, order=1),
    "lowpass": lambda n: Filter(high=30.0, order=3),
    "decimate": lambda n: Resample(sfreq=100.0, half_width=5.0),
    "rational": lambda n: Resample(sfreq=128.0, half_width=4.5),
    "odd rate": lambda n: Resample(sfreq=99.37, half_width=5.0),
    "upsample": lambda n: Resample(sfreq=256.0, half_width=3.0),
    "running": lambda n: RunningAlignment(start="covariance", block_s=0.15, half_life_s=0.5),
}
KEEP_CHANNELS = sorted(set(STEPS) - {"bipolar", "laplacian", "narrow", "pick"})


def channels(n: int, unit: str = "V") -> list[Channel]:
    return [Channel(f"c{i}", "eeg", unit, (0.01 * i, 0.0, 0.1)) for i in range(n)]


def arrays(n: int) -> dict[str, NDArray[np.float64]]:
    rng = np.random.default_rng(n)
    root = rng.standard_normal((n, n))
    return {
        "square": rng.standard_normal((n, n)),
        "narrow": rng.standard_normal((2, n)),
        "center": rng.standard_normal(n) * 1e-6,
        "scale": rng.uniform(1e-6, 1e-5, n),
        "covariance": 1e-10 * (root @ root.T + np.eye(n)),
    }


def signal(n: int, n_channels: int, seed: int = 0) -> Samples:
    """Noise on an offset, as amplifiers give it."""
    rng = np.random.default_rng(seed)
    return (1e-5 * rng.standard_normal((n, n_channels)) + 1e-3 * rng.standard_normal(n_channels)).astype(np.float32)


def push_all(conditioner: Conditioner, samples: Samples, cuts: list[int], start: int = 0) -> Samples:
    """Push the samples cut after each of `cuts`, from raw index `start`, and check the law of counts at every cut."""
    conditioner.restart(start)
    edges = [0, *sorted(min(cut, len(samples)) for cut in cuts), len(samples)]
    parts, given_out = [], 0
    for a, b in itertools.pairwise(edges):
        parts.append(conditioner.push(samples[a:b]))
        given_out += len(parts[-1])
        assert given_out == conditioner.outputs_before(start + b) - conditioner.outputs_before(start)
    out = np.concatenate(parts)
    assert out.dtype == np.float32
    assert out.shape[1] == len(conditioner.channels)
    return out


@pytest.mark.parametrize("kind", sorted(STEPS))
@pytest.mark.parametrize("n_channels", [3, 17, 64])
@pytest.mark.parametrize("start", [0, 1003])
def test_sample_by_sample_is_all_at_once(kind: str, n_channels: int, start: int) -> None:
    conditioner = Conditioner([STEPS[kind](n_channels)], channels(n_channels), 250.0, arrays(n_channels))
    samples = signal(301, n_channels)
    whole = push_all(conditioner, samples, [], start)
    single = push_all(conditioner, samples, list(range(302)), start)
    assert len(whole) > 90
    assert single.tobytes() == whole.tobytes()


@pytest.mark.parametrize("kind", sorted(STEPS))
@pytest.mark.parametrize("n_channels", [3, 64, 306])
def test_every_step_is_exact_before_the_cast(kind: str, n_channels: int) -> None:
    """The cast to float32 hides most differences in the last bits of float64; here they would show."""
    runner = Conditioner([STEPS[kind](n_channels)], channels(n_channels), 250.0, arrays(n_channels))._runners[0]
    samples = signal(90, n_channels).astype(np.float64)
    results = []
    for size in (90, 1, 3, 10, 37):
        runner.restart(1003)
        results.append(np.concatenate([runner.push(samples[at : at + size]) for at in range(0, 90, size)]))
    for result in results[1:]:
        assert result.tobytes() == results[0].tobytes()


@pytest.mark.parametrize("kind", KEEP_CHANNELS)
def test_one_channel_alone(kind: str) -> None:
    conditioner = Conditioner([STEPS[kind](1)], channels(1), 250.0, arrays(1))
    samples = signal(200, 1)
    assert push_all(conditioner, samples, list(range(200))).tobytes() == push_all(conditioner, samples, []).tobytes()


@st.composite
def chains(draw: st.DrawFn) -> tuple[list[StreamStep], int, float]:
    n_channels = draw(st.sampled_from([3, 5, 17]))
    sfreq = draw(st.sampled_from([250.0, 512.0, 999.4, 1000.0, 160.0]))
    kinds = draw(st.lists(st.sampled_from(KEEP_CHANNELS), min_size=1, max_size=5, unique=True))
    if draw(st.booleans()):
        kinds.append(draw(st.sampled_from(["bipolar", "laplacian", "narrow", "pick"])))
    return [STEPS[kind](n_channels) for kind in kinds], n_channels, sfreq


@settings(max_examples=60)
@given(
    chain=chains(),
    n=st.integers(0, 400),
    start=st.sampled_from([0, 1, 7, 1000, 123_457]),
    cuts=st.lists(st.integers(0, 400), max_size=20),
    seed=st.integers(0, 100),
)
def test_any_cutting_of_any_chain(
    chain: tuple[list[StreamStep], int, float], n: int, start: int, cuts: list[int], seed: int
) -> None:
    steps, n_channels, sfreq = chain
    conditioner = Conditioner(steps, channels(n_channels), sfreq, arrays(n_channels))
    samples = signal(n, n_channels, seed)
    whole = push_all(conditioner, samples, [], start)
    assert push_all(conditioner, samples, cuts, start).tobytes() == whole.tobytes()


@settings(max_examples=40)
@given(chain=chains(), n=st.integers(1, 300), start=st.sampled_from([0, 13, 4001]), data=st.data())
def test_later_samples_do_not_change_earlier_outputs(
    chain: tuple[list[StreamStep], int, float], n: int, start: int, data: st.DataObject
) -> None:
    steps, n_channels, sfreq = chain
    conditioner = Conditioner(steps, channels(n_channels), sfreq, arrays(n_channels))
    samples = signal(n, n_channels)
    at = data.draw(st.integers(1, n))
    changed = samples.copy()
    changed[at:] = -3.0
    known = conditioner.outputs_before(start + at) - conditioner.outputs_before(start)
    before, after = push_all(conditioner, samples, [], start), push_all(conditioner, changed, [], start)
    assert before[:known].tobytes() == after[:known].tobytes()


def test_chunks_longer_than_what_is_worked_on_at_once() -> None:
    """Long enough for several blocks of every kind, and for the filters' look at their state."""
    steps = [STEPS[kind](4) for kind in ("bandpass", "rational", "running", "matrix")]
    conditioner = Conditioner(steps, channels(4), 999.4, arrays(4))
    samples = signal(9000, 4)
    whole = push_all(conditioner, samples, [])
    assert push_all(conditioner, samples, list(range(0, 9000, 611))).tobytes() == whole.tobytes()


def test_layout_of_the_input_does_not_matter() -> None:
    conditioner = Conditioner([STEPS["bandpass"](5), STEPS["matrix"](5)], channels(5), 250.0, arrays(5))
    samples = signal(100, 5)
    wide = np.zeros((100, 9), dtype=np.float32)
    wide[:, 2:7] = samples
    expected = push_all(conditioner, samples, [])
    for view in (np.asfortranarray(samples), wide[:, 2:7], samples[::-1].copy()[::-1]):
        assert push_all(conditioner, view, []).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("sfreq", "to", "ratio"),
    [
        (2048, 250, Fraction(125, 1024)),
        (512, 128, Fraction(1, 4)),
        (1200, 120, Fraction(1, 10)),
        (999.4, 250, Fraction(1250, 4997)),
        (1000, 250, Fraction(1, 4)),
        (160, 128, Fraction(4, 5)),
        (160, 200, Fraction(5, 4)),
        (250, 250, Fraction(1)),
    ],
)
def test_ratios_are_exact_and_restarts_keep_the_grid(sfreq: float, to: float, ratio: Fraction) -> None:
    """After a restart at b, the outputs are those at ceil(b r), ceil(b r) + 1...: the same grid as without it."""
    conditioner = Conditioner([Resample(sfreq=to)], channels(1), sfreq, {})
    assert conditioner.ratio == ratio
    assert conditioner.sfreq == to
    assert [conditioner.outputs_before(i) for i in range(40)] == [math.ceil(i * ratio) for i in range(40)]
    # A ramp shows at which raw position an output stands; a restart must not move it.
    ramp: Samples = (np.arange(3000) / 1024).astype(np.float32)[:, np.newaxis]
    whole = push_all(conditioner, ramp, [])
    for start in (1, 2, 3, 1001):
        settled = math.ceil(3 * conditioner.group_delay * to)
        part = push_all(conditioner, ramp[start:], [], start)
        first = conditioner.outputs_before(start)
        np.testing.assert_allclose(part[settled:], whole[first + settled :], rtol=1e-5)


def test_ratio_of_two_resamplers_counts_step_after_step() -> None:
    conditioner = Conditioner([Resample(sfreq=300), Resample(sfreq=128)], channels(1), 1000.0, {})
    assert conditioner.ratio == Fraction(128, 1000)
    expected = [math.ceil(math.ceil(i * Fraction(3, 10)) * Fraction(128, 300)) for i in range(500)]
    assert [conditioner.outputs_before(i) for i in range(500)] == expected


def test_restart_forgets_everything() -> None:
    steps = [STEPS[kind](4) for kind in ("bandpass", "notch", "rational", "running", "matrix")]
    used = Conditioner(steps, channels(4), 250.0, arrays(4))
    used.push(signal(700, 4, seed=1))
    fresh = Conditioner(steps, channels(4), 250.0, arrays(4))
    samples = signal(300, 4, seed=2)
    assert push_all(used, samples, [], 7321).tobytes() == push_all(fresh, samples, [], 7321).tobytes()


def test_empty_chunks_and_empty_chains() -> None:
    conditioner = Conditioner([STEPS["decimate"](3)], channels(3), 1000.0, {})
    conditioner.push(signal(1, 3))
    for empty in (conditioner.push(signal(0, 3)), conditioner.push(signal(2, 3))):
        assert empty.shape == (0, 3)
        assert empty.dtype == np.float32
    bare = Conditioner([], channels(3), 1000.0, {})
    samples = signal(10, 3)
    out = bare.push(samples)
    np.testing.assert_array_equal(out, samples)
    assert not np.shares_memory(out, samples)
    assert bare.ratio == 1
    assert bare.group_delay == 0.0
    assert not bare.delays


@pytest.mark.parametrize("amplitude", [1e-15, 1e-38, 1e38])
def test_extreme_amplitudes_stay_finite(amplitude: float) -> None:
    """MEG in tesla, the least float32, and garbage near the largest: no overflow, no NaN, no warning."""
    n = 4
    small = arrays(n)
    small["covariance"] = np.eye(n) * 1e-30
    small["scale"], small["center"] = np.full(n, 1e-15), np.zeros(n)
    steps = [STEPS[kind](n) for kind in ("notch", "bandpass", "average", "matrix", "rational", "running", "scale")]
    conditioner = Conditioner(steps, channels(n, "T"), 250.0, small)
    samples = np.clip(signal(600, n).astype(np.float64) * 1e5 * amplitude, -3.4e38, 3.4e38).astype(np.float32)
    assert np.isfinite(conditioner.push(samples)).all()


def test_silence_after_a_signal_ends_in_zeros() -> None:
    """No step keeps subnormal numbers going round, which would make silence slower to compute than signal."""
    conditioner = Conditioner([Filter(low=1.0, high=40.0)], channels(2), 250.0, {})
    conditioner.push(signal(500, 2))
    for _ in range(40):
        out = conditioner.push(np.zeros((2048, 2), dtype=np.float32))
    assert not out.any()
    state = conditioner._runners[0]._state  # type: ignore[attr-defined]
    assert not state.any()


def test_channels_follow_the_steps() -> None:
    names = ("c0", "c1", "c2")
    n = 3

    def out(step: StreamStep) -> tuple[Channel, ...]:
        return Conditioner([step], channels(n), 250.0, arrays(n)).channels

    assert [c.name for c in out(STEPS["pick"](n))] == ["c2", "c1", "c0"]
    assert [c.name for c in out(STEPS["laplacian"](n))] == ["c0", "c2"]
    bipolar = out(STEPS["bipolar"](n))
    assert [c.name for c in bipolar] == ["c0-c1", "c2-c0"]
    assert bipolar[1].position == pytest.approx((0.01, 0.0, 0.1))
    assert {(c.type, c.unit) for c in bipolar} == {("eeg", "V")}
    assert [c.name for c in out(STEPS["narrow"](n))] == ["one", "two"]
    for kind in ("average", "matrix", "bandpass", "decimate"):
        assert out(STEPS[kind](n)) == tuple(channels(n))
    for kind in ("scale", "running"):
        assert [(c.name, c.unit) for c in out(STEPS[kind](n))] == [(name, "1") for name in names]
    whitened = out(Matrix(array="square", kind="mvnn"))
    assert {c.unit for c in whitened} == {"1"}


BAD_STEPS: list[tuple[StreamStep, type[Exception], list[str]]] = [
    (Pick(channels=("c0", "Cz")), ContractError, ["stream step 2 (pick)", "'Cz'", "c0, c1, c2"]),
    (Pick(channels=("c0", "c0")), ConfigError, ["(pick)", "channels", "c0", "once"]),
    (Pick(channels=()), ConfigError, ["(pick)", "channels", "at least one"]),
    (Reference(channels=("M1",)), ContractError, ["(reference)", "'M1'"]),
    (Bipolar(pairs=(("c0", "x"),)), ContractError, ["(bipolar)", "'x'"]),
    (Bipolar(pairs=(("c0", "c0"),)), ConfigError, ["(bipolar)", "c0-c0", "different"]),
    (Laplacian(neighbours={"c0": ("c9",)}), ContractError, ["(laplacian)", "'c9'"]),
    (Laplacian(neighbours={"c0": ()}), ConfigError, ["(laplacian)", "neighbours['c0']", "at least one"]),
    (Laplacian(neighbours={"c0": ("c0",)}), ConfigError, ["(laplacian)", "other than 'c0'"]),
    (Matrix(array="gone", kind="ssp"), BundleError, ["(matrix)", "'gone'", "(3, 3)"]),
    (Matrix(array="narrow", kind="ssp"), BundleError, ["(matrix)", "'narrow'", "(2, 3)", "(3, 3)"]),
    (Matrix(array="nan", kind="ssp"), BundleError, ["(matrix)", "'nan'", "(1, 2)", "finite"]),
    (Scale(center="center", scale="zero"), BundleError, ["(scale)", "'zero'", "'c1'", "above 0"]),
    (Scale(center="square", scale="scale"), BundleError, ["(scale)", "'square'", "(3,)"]),
    (Notch(freq=125.0), ConfigError, ["(notch)", "freq = 125.0", "below 125 Hz"]),
    (Notch(freq=50.0, harmonics=3), ConfigError, ["(notch)", "harmonics = 3", "at most 2"]),
    (Notch(freq=50.0, quality=0.0), ConfigError, ["(notch)", "quality = 0.0", "above 0"]),
    (Filter(), ConfigError, ["(filter)", "low", "high"]),
    (Filter(low=0.0), ConfigError, ["(filter)", "low = 0.0", "above 0"]),
    (Filter(high=130.0), ConfigError, ["(filter)", "high = 130.0", "below 125 Hz"]),
    (Filter(high=math.nan), ConfigError, ["(filter)", "high = nan"]),
    (Filter(low=30.0, high=8.0), ConfigError, ["(filter)", "low = 30.0", "below high = 8 Hz"]),
    (Filter(low=1.0, order=0), ConfigError, ["(filter)", "order = 0", "1 to 12"]),
    (Resample(sfreq=1001.0), ConfigError, ["(resample)", "sfreq = 1001.0", "at most 1000 Hz"]),
    (Resample(sfreq=-1.0), ConfigError, ["(resample)", "sfreq = -1.0", "above 0"]),
    (Resample(sfreq=100.0, half_width=1.0), ConfigError, ["(resample)", "half_width = 1.0", "3 to 64"]),
    (RunningAlignment(start="gone"), BundleError, ["(running_alignment)", "'gone'", "(3, 3)"]),
    (RunningAlignment(start="square"), BundleError, ["'square'", "not symmetric"]),
    (RunningAlignment(start="negative"), BundleError, ["'negative'", "eigenvalues"]),
    (RunningAlignment(start="covariance", block_s=0.001), ConfigError, ["block_s = 0.001", "one sample"]),
    (RunningAlignment(start="covariance", half_life_s=0.0), ConfigError, ["half_life_s = 0.0", "above 0"]),
]


@pytest.mark.parametrize(("step", "error", "words"), BAD_STEPS, ids=lambda value: type(value).__name__)
def test_a_wrong_step_is_named(step: StreamStep, error: type[Exception], words: list[str]) -> None:
    bad = arrays(3) | {
        "nan": np.where(np.arange(9).reshape(3, 3) == 5, np.nan, 1.0),
        "zero": np.array([1.0, 0.0, 1.0]),
        "negative": -np.eye(3),
    }
    with pytest.raises(error) as raised:
        Conditioner([Reference(), step], channels(3), 250.0, bad)
    for word in words:
        assert word in str(raised.value)


def test_units_are_not_mixed() -> None:
    mixed = [Channel("EEG1", "eeg", "V"), Channel("MEG1", "mag", "T")]
    for step in (
        Reference(),
        Bipolar(pairs=(("EEG1", "MEG1"),)),
        Laplacian(neighbours={"EEG1": ("MEG1",)}),
    ):
        with pytest.raises(ContractError, match=r"'MEG1'.*T.*'EEG1'.*V|'EEG1'.*V.*'MEG1'.*T"):
            Conditioner([step], mixed, 250.0, {})


def test_steps_that_let_nothing_pass_together() -> None:
    with pytest.raises(ConfigError, match=r"let nothing pass.*60 Hz.*29"):
        Conditioner([Filter(low=60.0), Resample(sfreq=100.0)], channels(2), 250.0, {})
    with pytest.raises(ConfigError, match=r"step 2 \(notch\).*9 to 11 Hz"):
        Conditioner([Filter(low=9.0, high=11.0), Notch(freq=10.0, quality=1.0)], channels(2), 250.0, {})


def test_wrong_samples_are_refused() -> None:
    conditioner = Conditioner([], channels(3), 250.0, {})
    conditioner.push(signal(5, 3))
    with pytest.raises(ContractError, match=r"\(4, 2\).*\(n, 3\)"):
        conditioner.push(signal(4, 2))
    bad = signal(4, 3)
    bad[2, 1] = np.inf
    with pytest.raises(ContractError, match=r"'c1' is inf at sample 7"):
        conditioner.push(bad)
    for sfreq in (0.0, -250.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="sfreq"):
            Conditioner([], channels(3), sfreq, {})
    with pytest.raises(ContractError, match="no channels"):
        Conditioner([], [], 250.0, {})
