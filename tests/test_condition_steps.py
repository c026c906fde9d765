"""Each stream step against its formula."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import signal

from rtdecode.signal import Channel
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.runner import Runner
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

Array = NDArray[np.float64]
N = 5
SFREQ = 250.0


def channels(n: int) -> list[Channel]:
    return [Channel(f"c{i}", "eeg", "V") for i in range(n)]


def in_float64(
    step: StreamStep, x: Array, sfreq: float = SFREQ, arrays: dict[str, Array] | None = None, start: int = 0
) -> Array:
    """What a single step gives before the cast to float32."""
    runner: Runner = Conditioner([step], channels(x.shape[1]), sfreq, arrays or {})._runners[0]
    runner.restart(start)
    return runner.push(x)


def noise(n: int = 400, n_channels: int = N, seed: int = 0) -> Array:
    return 1e-5 * np.random.default_rng(seed).standard_normal((n, n_channels)) + 1e-3


def assert_same(actual: Array, expected: Array) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_linear_steps_are_their_formulas() -> None:
    x, rng = noise(), np.random.default_rng(1)
    m, c, s = rng.standard_normal((3, N)), rng.standard_normal(N), rng.uniform(1, 2, N)
    assert_same(in_float64(Pick(channels=("c3", "c0")), x), x[:, [3, 0]])
    assert_same(in_float64(Reference(), x), x - x.mean(axis=1, keepdims=True))
    assert_same(in_float64(Reference(channels=("c1", "c4")), x), x - x[:, [1, 4]].mean(axis=1, keepdims=True))
    assert_same(in_float64(Bipolar(pairs=(("c0", "c1"), ("c4", "c2"))), x), x[:, [0, 4]] - x[:, [1, 2]])
    laplacian = Laplacian(neighbours={"c2": ("c0", "c1", "c3"), "c0": ("c4",)})
    expected = np.stack([x[:, 0] - x[:, 4], x[:, 2] - x[:, [0, 1, 3]].mean(axis=1)], axis=1)
    assert_same(in_float64(laplacian, x), expected)  # in the channels' order: a manifest sorts an object's keys
    matrix = Matrix(array="m", kind="spatial", channels=("a", "b", "c"))
    assert_same(in_float64(matrix, x, arrays={"m": m}, start=3), x @ m.T)
    assert_same(in_float64(Scale(center="c", scale="s"), x, arrays={"c": c, "s": s}), (x - c) / s)


@pytest.mark.parametrize(
    ("step", "sos"),
    [
        (Filter(low=8.0, high=30.0), signal.butter(4, (8, 30), "bandpass", fs=SFREQ, output="sos")),
        (Filter(low=0.1, order=2), signal.butter(2, 0.1, "highpass", fs=SFREQ, output="sos")),
        (Filter(high=40.0, order=5), signal.butter(5, 40, "lowpass", fs=SFREQ, output="sos")),
        (Notch(freq=50.0), np.concatenate(signal.iirnotch(50, 30, fs=SFREQ))[np.newaxis]),
        (
            Notch(freq=50.0, quality=10.0, harmonics=2),
            np.array([np.concatenate(signal.iirnotch(f, 10, fs=SFREQ)) for f in (50, 100)]),
        ),
    ],
)
def test_filters_are_sosfilt_from_the_steady_state(step: StreamStep, sos: Array) -> None:
    x = noise(3000)
    zi = signal.sosfilt_zi(sos)[:, :, np.newaxis] * x[0]
    expected, _ = signal.sosfilt(sos, x, axis=0, zi=zi)
    np.testing.assert_array_equal(in_float64(step, x, start=77), expected)


@pytest.mark.parametrize("step", [Filter(low=1.0, high=40.0), Notch(freq=50.0), Resample(sfreq=128.0)])
def test_an_offset_makes_no_transient(step: StreamStep) -> None:
    x = np.full((500, 2), 0.3)
    passes = 0.0 if isinstance(step, Filter) else 0.3
    np.testing.assert_allclose(in_float64(step, x, start=11), passes, atol=1e-12)


@pytest.mark.parametrize(
    ("step", "hz"), [(Filter(low=1.0, high=40.0), 10.0), (Filter(low=0.5), 5.0), (Filter(high=30.0, order=2), 12.0)]
)
def test_group_delay_of_a_filter_is_that_of_an_envelope(step: StreamStep, hz: float) -> None:
    """A slow envelope on a carrier comes out as late as the declared delay says."""
    conditioner = Conditioner([step], channels(1), 1000.0, {})
    seconds = float(conditioner._runners[0].delay(np.array([hz]))[0])
    t = np.arange(20_000) / 1000.0
    out = []
    for quadrature in (0.0, -math.pi / 2):
        conditioner.restart(0)
        envelope = np.exp(-0.5 * ((t - 10) / 1.0) ** 2)
        out.append(conditioner._runners[0].push((envelope * np.cos(2 * np.pi * hz * t + quadrature))[:, np.newaxis]))
    power = (out[0] ** 2 + out[1] ** 2)[:, 0]
    centre = float((power * t).sum() / power.sum())
    assert centre - 10 == pytest.approx(seconds, abs=1e-4)


def test_delays_are_declared_at_the_centre_of_what_the_chain_passes() -> None:
    steps: list[StreamStep] = [Filter(low=0.5), Notch(freq=50.0), Resample(sfreq=250.0), Filter(high=40.0), Reference()]
    conditioner = Conditioner(steps, channels(2), 1000.0, {})
    assert conditioner.passband == (0.5, 40.0)
    assert conditioner.reference == pytest.approx(math.sqrt(0.5 * 40))
    assert [delay.name for delay in conditioner.delays] == ["filter", "notch", "resample", "filter", "reference"]
    high, _, resample, low, reference = conditioner.delays
    sos = signal.butter(4, 40.0, "lowpass", fs=250.0, output="sos")
    _, expected = signal.group_delay(signal.sos2tf(sos), w=[conditioner.reference], fs=250.0)
    assert low.seconds == pytest.approx(expected[0] / 250.0, rel=1e-6)
    assert (resample.seconds, resample.least, resample.most) == (0.02, 0.02, 0.02)
    assert (reference.seconds, reference.least, reference.most) == (0.0, 0.0, 0.0)
    assert 0 < low.least < low.seconds < low.most
    assert high.most > 10 * abs(high.seconds)
    assert conditioner.group_delay == pytest.approx(sum(delay.seconds for delay in conditioner.delays))


def tone(
    sfreq: float, to: float, hz: float, half_width: float = 5.0
) -> tuple[Array, NDArray[np.complex128], Conditioner]:
    """A complex tone through a resampler: seconds, settled output, and the conditioner."""
    conditioner = Conditioner([Resample(sfreq=to, half_width=half_width)], channels(2), sfreq, {})
    n = np.arange(int(3 * sfreq))
    phase = 2 * np.pi * hz * n / sfreq
    out = conditioner._runners[0].push(np.stack([np.cos(phase), np.sin(phase)], axis=1))
    t = np.arange(len(out)) / to
    settled = t > 2.1 * conditioner.group_delay
    return t[settled], (out[:, 0] + 1j * out[:, 1])[settled], conditioner


RATES = [(2048, 250), (512, 128), (1200, 120), (999.4, 250), (1000, 250), (160, 128), (1000, 999.4), (160, 200)]


@pytest.mark.parametrize(("sfreq", "to"), RATES)
@pytest.mark.parametrize("half_width", [3.0, 5.0, 10.0])
def test_resampler_passes_its_band_by_exactly_its_delay(sfreq: float, to: float, half_width: float) -> None:
    edge = Conditioner([Resample(sfreq=to, half_width=half_width)], channels(1), sfreq, {}).passband[1]
    for hz in np.linspace(0.05, 1.0, 7) * edge:
        t, out, conditioner = tone(sfreq, to, hz, half_width)
        assert conditioner.group_delay == pytest.approx(half_width / min(sfreq, to), rel=1e-12)
        gain = out * np.exp(-2j * np.pi * hz * (t - conditioner.group_delay))
        # The tone itself has neither a change in amplitude nor in phase left; images are 1e-3 and less.
        assert np.abs(np.abs(gain) - 1).max() < 0.01
        assert abs(np.angle(gain.mean())) / (2 * np.pi * hz) < 1e-6


@pytest.mark.parametrize(("sfreq", "to"), [(2048, 250), (512, 128), (1200, 120), (999.4, 250), (160, 80), (250, 100)])
@pytest.mark.parametrize("half_width", [3.0, 5.0, 10.0])
def test_what_would_fold_into_the_pass_band_is_60_db_down(sfreq: float, to: float, half_width: float) -> None:
    edge = Conditioner([Resample(sfreq=to, half_width=half_width)], channels(1), sfreq, {}).passband[1]
    first = to - edge
    assert first < sfreq / 2
    for hz in np.linspace(first, sfreq / 2, 13):
        _, out, _ = tone(sfreq, to, hz, half_width)
        assert np.abs(out).max() < 1e-3


def test_running_alignment_is_its_recursion() -> None:
    """Against the recursion written out, with a block length that is no multiple of anything inside."""
    n, block, sfreq = 4, 37, 100.0
    rng = np.random.default_rng(5)
    x = rng.standard_normal((400, n)) @ rng.standard_normal((n, n))
    start = np.diag([1.0, 2.0, 3.0, 4.0])
    step = RunningAlignment(start="start", half_life_s=2.0, block_s=block / sfreq)
    for first in (0, 20, 37):
        covariance, keep = start, 0.5 ** (block / sfreq / 2.0)
        expected, at = [], first
        while at < 400:
            stop = min(400, (at // block + 1) * block)
            values, vectors = np.linalg.eigh(covariance)
            rows = x[at - first : stop - first]
            expected.append(rows @ (vectors / np.sqrt(values)) @ vectors.T)
            if len(rows) == block:
                covariance = keep * covariance + (1 - keep) * rows.T @ rows / block
            at = stop
        actual = in_float64(step, x[: 400 - first], sfreq, {"start": start}, first)
        np.testing.assert_allclose(actual, np.concatenate(expected), rtol=1e-9, atol=1e-9)


def test_running_alignment_comes_to_identity_and_survives_silence() -> None:
    rng = np.random.default_rng(6)
    mixing = rng.standard_normal((3, 3))
    x = rng.standard_normal((30_000, 3)) @ mixing.T
    step = RunningAlignment(start="start", half_life_s=5.0)
    out = in_float64(step, x, 100.0, {"start": np.eye(3)})
    np.testing.assert_allclose(np.cov(out[-10_000:].T), np.eye(3), atol=0.1)
    silent = np.concatenate([x[:1000], np.zeros((2000, 3)), x[:1000]])
    assert np.isfinite(in_float64(step, silent, 100.0, {"start": np.eye(3)})).all()
    dead = x.copy()
    dead[:, 1] = 0
    assert np.isfinite(in_float64(step, dead, 100.0, {"start": np.eye(3)})).all()
