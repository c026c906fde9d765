"""Window steps, and the statistics that training fits."""

import json
import math
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtdecode.errors import ConfigError, ContractError
from rtdecode.signal import Channel
from rtdecode.stream.condition import Conditioner, WindowConditioner
from rtdecode.stream.fit import (
    euclidean_alignment,
    inverse_sqrt,
    ledoit_wolf,
    mean_covariance,
    mvnn,
    robust_statistics,
    standard_statistics,
)
from rtdecode.stream.steps import Baseline, Clamp, Conditioning, Matrix, Scale, StreamStep, WindowScale, WindowStep
from rtdecode.stream.window import Locked

Array = NDArray[np.float64]


def window(n: int = 175, n_channels: int = 4, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (1e-5 * rng.standard_normal((n, n_channels)) + 1e-3 * rng.standard_normal(n_channels)).astype(np.float32)


def test_window_steps_are_their_formulas() -> None:
    x = window()
    wide = x.astype(np.float64)
    first, median, third = np.percentile(wide, (25, 50, 75), axis=0)
    expected: list[tuple[WindowStep, Array]] = [
        (Baseline(tmin=-0.2, tmax=0.0), wide - wide[:50].mean(axis=0)),
        (Baseline(tmin=-0.1, tmax=0.1), wide - wide[25:75].mean(axis=0)),
        (WindowScale(method="zscore"), (wide - wide.mean(axis=0)) / wide.std(axis=0)),
        (WindowScale(method="robust"), (wide - median) / (third - first)),
        (WindowScale(method="maxabs"), wide / np.abs(wide).max(axis=0)),
        (Clamp(limit=1e-4), np.clip(wide, -1e-4, 1e-4)),
    ]
    for step, result in expected:
        out = WindowConditioner([step], 250.0, -0.2, 4, 175)(x)
        assert out.dtype == np.float32
        np.testing.assert_allclose(out, result, rtol=1e-6, atol=1e-7 * np.abs(result).max())
    chain: list[WindowStep] = [Baseline(tmin=-0.2, tmax=0.0), WindowScale(), Clamp(limit=2.0)]
    based = wide - wide[:50].mean(axis=0)
    scored = np.clip((based - based.mean(axis=0)) / based.std(axis=0), -2, 2)
    np.testing.assert_allclose(WindowConditioner(chain, 250.0, -0.2, 4)(x), scored, rtol=1e-6, atol=1e-6)


@settings(max_examples=60)
@given(
    tmin=st.floats(-1, 0.5),
    length=st.floats(0.2, 1.0),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted).filter(lambda ends: ends[1] - ends[0] > 0.1),
    sfreq=st.sampled_from([128.0, 250.0, 99.94]),
)
def test_a_baseline_takes_the_samples_of_its_interval(
    tmin: float, length: float, ends: list[float], sfreq: float
) -> None:
    """Shown by impulses, one per channel: which of them leave a mean behind. To half a sample, as windows are cut."""
    spec = Locked(tmin=tmin, tmax=tmin + length, markers=("*",))
    n = spec.n_samples(sfreq)
    begin, end = (tmin + share * length for share in ends)
    out = WindowConditioner([Baseline(tmin=begin, tmax=end)], sfreq, spec.tmin, n, n)(np.eye(n, dtype=np.float32))
    taken = np.eye(n, dtype=np.float32)[0] != out[0]
    t = (spec.offset(sfreq) + np.arange(n)) / sfreq
    half = 0.51 / sfreq
    assert taken[(t > begin + half) & (t < end - half)].all()
    assert not taken[(t < begin - half) | (t > end + half)].any()
    np.testing.assert_allclose(out[0, 1:][taken[1:]], -1 / taken.sum(), rtol=1e-6)


@pytest.mark.parametrize(("tmin", "sfreq"), [(-0.1, 125.0), (-0.3, 125.0), (-0.7, 250.0)])
def test_a_baseline_up_to_the_marker_ends_before_its_sample(tmin: float, sfreq: float) -> None:
    """-0.1 s are 12.5 samples at 125 Hz: baseline and window must round it to the same side."""
    spec = Locked(tmin=tmin, tmax=tmin + 10 / sfreq + 1, markers=("*",))
    n = spec.n_samples(sfreq)
    out = WindowConditioner([Baseline(tmin=tmin, tmax=0.0)], sfreq, tmin, n, n)(np.eye(n, dtype=np.float32))
    taken = out[-1] != np.eye(n, dtype=np.float32)[-1]
    assert taken.sum() == -spec.offset(sfreq)


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 50))
def test_a_view_gives_the_bytes_of_a_copy(n: int, n_channels: int, seed: int) -> None:
    big = window(2 * n + 3, n_channels + 2, seed)
    steps: list[WindowStep] = [
        Baseline(tmin=0.0, tmax=1.0),
        WindowScale(),
        WindowScale(method="robust"),
        Clamp(limit=3.0),
    ]
    conditioner = WindowConditioner(steps, 1.0, 0.0, n_channels)
    view = big[3 : 3 + n, 1 : 1 + n_channels]
    view.flags.writeable = False
    kept = big.copy()
    expected = conditioner(view.copy()).tobytes()
    assert conditioner(view).tobytes() == expected
    assert conditioner(np.asfortranarray(view)).tobytes() == expected
    np.testing.assert_array_equal(big, kept)


@pytest.mark.parametrize("method", ["zscore", "robust", "maxabs"])
def test_flat_and_extreme_channels_stay_finite(method: str) -> None:
    x = np.zeros((50, 4), dtype=np.float32)
    x[:, 1] = 0.1
    x[:, 2] = np.linspace(-3.4e38, 3.4e38, 50)
    x[:, 3] = 1e-45 * np.arange(50)
    out = WindowConditioner([WindowScale(method=method)], 250.0, 0.0, 4)(x)  # type: ignore[arg-type]
    assert np.isfinite(out).all()
    assert not out[:, 0].any()
    assert (out[:, 1] == (1.0 if method == "maxabs" else 0.0)).all()


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (Baseline(tmin=-0.3, tmax=0.0), ["(baseline)", "tmin = -0.3", "at least -0.2 s"]),
        (Baseline(tmin=-0.1, tmax=0.6), ["(baseline)", "tmax = 0.6", "at most 0.5 s"]),
        (Baseline(tmin=0.0, tmax=0.0), ["(baseline)", "tmax = 0.0", "one sample"]),
        (Baseline(tmin=math.nan, tmax=0.0), ["(baseline)", "tmin = nan", "seconds"]),
        (Clamp(limit=0.0), ["window step 2 (clamp)", "limit = 0.0", "above 0"]),
    ],
)
def test_a_wrong_window_step_is_named(step: WindowStep, words: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        WindowConditioner([WindowScale(), step], 250.0, -0.2, 4, 175)
    for word in words:
        assert word in str(raised.value)


def test_a_window_of_another_shape_is_refused() -> None:
    for conditioner in (
        WindowConditioner([Baseline(tmin=0.0, tmax=0.504)], 250.0, 0.0, 4),
        WindowConditioner([], 250.0, 0.0, 4, 125),
    ):
        with pytest.raises(ContractError, match=r"124 samples and 4 channels.*125 samples and 4"):
            conditioner(window(124))
        with pytest.raises(ContractError, match="125 samples and 3 channels"):
            conditioner(window(125, 3))


# --- statistics -------------------------------------------------------------------------------------------------------


def trials(n: int = 30, time: int = 80, n_channels: int = 5, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    x: Array = 1e-6 * rng.standard_normal((n, time, n_channels)) @ rng.standard_normal((n_channels, n_channels))
    return x


def condition(x: Array, matrix: Array) -> Array:
    """The stream step, in float64."""
    channels = [Channel(f"c{i}", "eeg", "V") for i in range(x.shape[-1])]
    step = Matrix(array="m", kind="euclidean_alignment")
    return Conditioner([step], channels, 250.0, {"m": matrix})._runners[0].push(x)


def test_euclidean_alignment_makes_the_mean_covariance_the_identity() -> None:
    x = trials()
    matrix = euclidean_alignment(x)
    np.testing.assert_allclose(matrix, matrix.T)
    aligned = np.stack([condition(window, matrix) for window in x])
    np.testing.assert_allclose(mean_covariance(aligned), np.eye(5), atol=1e-9)
    # Definition, written out.
    mean = sum(w.T @ w / len(w) for w in x) / len(x)
    np.testing.assert_allclose(mean_covariance(x), mean, rtol=1e-12)
    np.testing.assert_allclose(matrix @ mean @ matrix, np.eye(5), atol=1e-9)


def test_alignment_after_an_average_reference_leaves_out_what_is_not_there() -> None:
    x = trials()
    x -= x.mean(axis=2, keepdims=True)
    matrix = euclidean_alignment(x.astype(np.float32))
    assert np.linalg.matrix_rank(matrix, tol=1e-6 * np.abs(matrix).max()) == 4
    ones = np.ones(5)
    np.testing.assert_allclose(matrix @ ones, 0, atol=1e-6 * np.abs(matrix).max())


def _ledoit_wolf_by_the_paper(x: Array) -> Array:
    """Ledoit and Wolf 2004, section 3.2, sum by sum (their norm is divided by the dimension)."""
    n, p = x.shape
    x = x - x.mean(axis=0)
    s = sum(np.outer(row, row) for row in x) / n
    m = np.trace(s) / p
    d2 = np.sum((s - m * np.eye(p)) ** 2) / p
    b2_bar = sum(np.sum((np.outer(row, row) - s) ** 2) / p for row in x) / n**2
    b2 = min(b2_bar, d2)
    shrunk: Array = b2 / d2 * m * np.eye(p) + (d2 - b2) / d2 * s
    return shrunk


@settings(max_examples=30)
@given(st.integers(2, 60), st.integers(1, 12), st.integers(0, 100))
def test_ledoit_wolf_is_the_paper(n: int, p: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, p)) @ rng.standard_normal((p, p)) + 3
    covariance, shrinkage = ledoit_wolf(x)
    assert 0 <= shrinkage <= 1
    if p > 1:
        np.testing.assert_allclose(covariance, _ledoit_wolf_by_the_paper(x), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.trace(covariance), np.trace(np.cov(x.T, bias=True).reshape(p, p)), rtol=1e-9)


def test_ledoit_wolf_agrees_with_an_independent_implementation() -> None:
    covariance = pytest.importorskip("sklearn.covariance", reason="scikit-learn is not installed")
    x = trials(1, 60, 20)[0] * 1e6
    expected, shrinkage = covariance.ledoit_wolf(x)
    ours, amount = ledoit_wolf(x)
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)
    assert amount == pytest.approx(shrinkage)


def test_mvnn_whitens_the_noise_and_weighs_conditions_alike() -> None:
    x = trials(40, 4000)
    matrix = mvnn(x)
    whitened = np.concatenate([condition(window, matrix) for window in x])
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(5), atol=0.02)
    # Nine windows of one condition and one of another count as one each.
    few = np.concatenate([x[:9], 5 * x[9:10]])
    both = mvnn(few, ["face"] * 9 + ["house"])
    expected = (
        np.linalg.inv(mvnn(few[:9])) @ np.linalg.inv(mvnn(few[:9])) + np.linalg.inv(mvnn(few[9:]) @ mvnn(few[9:]))
    ) / 2
    np.testing.assert_allclose(np.linalg.inv(both @ both), expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max())


def test_mvnn_does_not_depend_on_units() -> None:
    """Shrinking is done at unit variance: in microvolts or volts, what is left after whitening is the same."""
    x = trials(10, 60)
    units = np.array([1.0, 1e3, 1.0, 1e-2, 7.0])
    covariance, scaled = (np.linalg.inv(m @ m) for m in (mvnn(x), mvnn(x * units)))
    np.testing.assert_allclose(scaled, covariance * np.outer(units, units), rtol=1e-6)


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(0, 11), st.integers(0, 100), st.sampled_from([1e-30, 1.0, 1e12]))
def test_inverse_sqrt_is_one_where_there_is_variance(n: int, lost: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(rng.standard_normal((n, n)))
    values = rng.uniform(0.1, 10, n)
    values[: min(lost, n)] = 0
    root = inverse_sqrt(scale * (vectors * values) @ vectors.T)
    kept = vectors[:, values > 0]
    np.testing.assert_allclose(root @ (scale * (vectors * values) @ vectors.T) @ root, kept @ kept.T, atol=1e-6)


@pytest.mark.parametrize("kind", ["standard", "robust"])
def test_statistics_bring_training_data_to_zero_and_one(kind: str) -> None:
    x = trials() + 1e-4
    center, scale = standard_statistics(x) if kind == "standard" else robust_statistics(x)
    channels = [Channel(f"c{i}", "eeg", "V") for i in range(5)]
    step = Scale(center="c", scale="s", kind=kind)  # type: ignore[arg-type]
    rows = Conditioner([step], channels, 250.0, {"c": center, "s": scale})._runners[0].push(x.reshape(-1, 5))
    if kind == "standard":
        np.testing.assert_allclose((rows.mean(axis=0), rows.std(axis=0)), (np.zeros(5), np.ones(5)), atol=1e-9)
    else:
        first, median, third = np.percentile(rows, (25, 50, 75), axis=0)
        np.testing.assert_allclose((median, third - first), (np.zeros(5), np.ones(5)), atol=1e-9)


def _with(value: float) -> Array:
    x = trials()
    x[3, 7, 2] = value
    return x


def _flat() -> Array:
    x = trials()
    x[..., 2] = 3e-6
    return x


@pytest.mark.parametrize(
    ("fit", "data", "words"),
    [
        (euclidean_alignment, _with(np.nan), "nan in channel 2"),
        (robust_statistics, _with(np.inf), "inf in channel 2"),
        (euclidean_alignment, trials()[0], r"\(80, 5\).*\(n, time, channels\)"),
        (mvnn, trials()[:0], r"\(0, 80, 5\)"),
        (standard_statistics, np.zeros(4), r"\(4,\).*\(\.\.\., channels\)"),
        (standard_statistics, _flat(), "channel 2 .*flat.*pick"),
        (robust_statistics, _flat(), "channel 2 .*flat.*pick"),
        (mvnn, np.zeros((3, 10, 2)), "no signal"),
        (euclidean_alignment, trials() * [1, 1, 1, 1, 1e-7], "channel 4 .*scale"),
        (lambda x: mvnn(x, [1, 2]), trials(), "2 conditions for 30 windows"),
    ],
)
def test_data_that_cannot_be_fitted_are_refused(fit: Callable[[Array], object], data: Array, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        fit(data)


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_documented_example_is_a_chain_that_runs() -> None:
    page = (Path(__file__).parents[1] / "docs" / "conditioning.md").read_text(encoding="utf-8")
    (in_json,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    (in_toml,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    manifest = msgspec.convert(json.loads(in_json)["conditioning"], Conditioning)
    recipe = msgspec.convert(tomllib.loads(in_toml)["conditioning"], Conditioning)
    assert (*recipe.stream, manifest.stream[-1]) == manifest.stream
    assert recipe.window == manifest.window
    names = manifest.stream[0].channels  # type: ignore[union-attr]
    conditioner = Conditioner(
        manifest.stream, [Channel(n, "eeg", "V") for n in names], 1000.0, {"alignment.npy": np.eye(7)}
    )
    assert conditioner.passband == (8.0, 30.0)
    assert f"{conditioner.group_delay:.3f} s, of which" in page


def test_every_step_has_its_place_on_the_page() -> None:
    page = (Path(__file__).parents[1] / "docs" / "conditioning.md").read_text(encoding="utf-8")
    tags = [step.__struct_config__.tag for step in (*get_args(StreamStep), *get_args(WindowStep))]
    assert re.findall(r"^### `(\w+)`$", page, re.MULTILINE) == tags
    for step in (*get_args(StreamStep), *get_args(WindowStep)):
        section = page.split(f"### `{step.__struct_config__.tag}`\n")[1].split("\n#")[0]
        assert [key for key in step.__struct_fields__ if f"`{key}`" not in section] == []
