"""Motor imagery and baselines: EEG-SimpleConv, ensembles, EEGNet, LDA, CSP, CCA."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="the encoders need torch: pip install rtdecode[train]")

import torch

from rtdecode.errors import ConfigError
from rtdecode_export.onnx import largest_errors, run_onnx, run_torch, to_onnx
from rtdecode_models.data.shape import Shape
from rtdecode_models.data.trials import Trials
from rtdecode_models.systems.closed import ClosedForm
from rtdecode_models.systems.csp_lda import common_spatial_patterns
from rtdecode_models.systems.discriminant import linear_discriminant
from rtdecode_models.systems.eegnet import EEGNet, EEGNetConfig
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.systems.ensemble import Ensemble
from rtdecode_models.systems.registry import build

#: BCI Competition IV 2a: 22 channels, 4 classes, 9 people; 4 s at 70 Hz.
BNCI = Shape(280, 22, 70.0, n_subjects=9, classes={"label": 4})


def _small(n_classes=3, n_times=40, n_channels=5):
    return Shape(n_times, n_channels, 100.0, classes={"label": n_classes})


def _count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def _normed(encoder, shape):
    """In evaluation mode, with statistics of batch norm that are not those of a new network."""
    encoder.train()(2 * torch.randn(16, shape.n_times, shape.n_channels) + 1)
    return encoder.eval()


def _check_export(encoder, windows):
    """`deploy` gives the numbers of `forward`, and onnxruntime those of `deploy`; returns the graph's operators."""
    outputs = encoder.outputs
    with torch.no_grad():
        deployed = encoder.deploy()
        expected = encoder(torch.from_numpy(windows))
        for name, value in zip(outputs, deployed(torch.from_numpy(windows)), strict=True):
            assert torch.allclose(value, expected[name], atol=1e-5), name
    graph = to_onnx(deployed, windows.shape[1:], outputs)
    errors = largest_errors(run_torch(deployed, windows, outputs), run_onnx(graph, windows, outputs))
    assert max(errors.values()) <= 1e-4
    assert not set(graph.operators) & {"Einsum", "STFT", "DFT", "Loop", "Scan", "If", "ScatterND", "NonZero"}
    return graph.operators


def _noise(n, shape, seed=0):
    return np.random.default_rng(seed).standard_normal((n, shape.n_times, shape.n_channels)).astype(np.float32)


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 2_462_246),
        ({"width": 160, "kernel": 5, "subject_head": True}, 3_326_225),
        ({"width": 85, "n_blocks": 1, "kernel": 15}, 245_654),
    ],
)
def test_simpleconv_has_the_published_parameter_counts(options, parameters):
    assert _count(build("simpleconv", options, BNCI)) == parameters


def test_simpleconv_mixes_channels_and_averages_time():
    """The last axis is channels: each has weights of its own, and a trial that repeats itself keeps its logits."""
    torch.manual_seed(0)
    module = build("simpleconv", {"width": 4, "n_blocks": 0, "kernel": 1}, _small(2, 50, 3)).eval()
    window = torch.randn(1, 50, 3)
    with torch.no_grad():
        once = module(window)["logits"]
        assert torch.allclose(module(torch.cat([window, window], dim=1))["logits"], once, atol=1e-6)
        assert not torch.allclose(module(window[:, :, [1, 0, 2]])["logits"], once, atol=1e-3)


def test_simpleconv_tells_subjects_apart_in_training_only():
    torch.manual_seed(0)
    shape = Shape(64, 3, 64.0, n_subjects=5, classes={"label": 2})
    module = _normed(build("simpleconv", {"width": 4, "n_blocks": 2, "subject_head": True}, shape), shape)
    assert module(torch.randn(7, 64, 3))["subject_logits"].shape == (7, 5)
    assert module.outputs == ("logits",)
    _check_export(module, _noise(2, shape))


def test_simpleconv_at_the_published_size_exports_with_parity():
    torch.manual_seed(0)
    operators = _check_export(_normed(build("simpleconv", {}, BNCI), BNCI), _noise(3, BNCI))
    assert operators["Conv"] == 9  # batch norm is folded into them
    assert operators["MaxPool"] == 4


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"width": 0}, BNCI, "at least 1"),
        ({"depth": 3}, BNCI, "depth"),
        ({"dropout": 1.0}, BNCI, "dropout"),
        ({"n_blocks": 9}, BNCI, "at least 512 samples"),
        ({"label": "word"}, BNCI, "they have label"),
        ({}, Shape(280, 22, 70.0, classes={"label": 1}), "two or more"),
    ],
)
def test_simpleconv_refuses_what_cannot_be(options, shape, message):
    with pytest.raises(ConfigError, match=message):
        build("simpleconv", options, shape)


def _members(n):
    torch.manual_seed(1)
    return [build("simpleconv", {"width": 4, "n_blocks": 1, "kernel": 3}, _small()).eval() for _ in range(n)]


def test_ensemble_is_the_mean_of_its_members_probabilities():
    members = _members(4)
    windows = 5 * torch.randn(6, 40, 5)
    with torch.no_grad():
        mean = torch.stack([torch.softmax(member(windows)["logits"], -1) for member in members]).mean(0)
        logits = Ensemble(members)(windows)["logits"]
        assert torch.allclose(torch.softmax(logits, -1), mean, atol=1e-6)
        assert torch.allclose(logits.exp(), mean, atol=1e-6)
    _check_export(Ensemble(members), windows.numpy())


def test_ensemble_survives_logits_whose_exponential_does_not():
    class Sure(Encoder):
        outputs = ("logits",)

        def forward(self, window, subject=None):
            return {"logits": window.mean(1) * torch.tensor([1.0, -1.0]) * 500}

    logits = Ensemble([Sure(), Sure()])(torch.ones(1, 4, 2))["logits"]
    assert torch.allclose(logits, torch.tensor([[0.0, -1000.0]]))


def test_an_ensemble_of_none_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        Ensemble([])


# --- EEGNet -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "shape", "parameters"),
    [
        # Table 2 of Lawhern et al. 2018, summed up: 64 F1 + 2 F1 + C D F1 + 2 D F1 + 16 D F1 + F2 D F1 + 2 F2 +
        # N (F2 T/32) + N; here for 64 channels and 1 s, two classes.
        ({}, Shape(128, 64, 128.0, classes={"label": 2}), 512 + 16 + 1024 + 32 + 256 + 256 + 32 + 2 * 64 + 2),
        # Sensorimotor rhythms: 22 channels, 2 s, four classes, a kernel of a quarter second.
        (
            {"kernel": 32},
            Shape(256, 22, 128.0, classes={"label": 4}),
            256 + 16 + 352 + 32 + 256 + 256 + 32 + 4 * 128 + 4,
        ),
    ],
)
def test_eegnet_has_the_parameters_of_its_table(options, shape, parameters):
    assert _count(build("eegnet", options, shape)) == parameters


def test_eegnet_keeps_its_weights_within_the_published_norms():
    torch.manual_seed(0)
    shape = _small(3, 64, 5)
    module = EEGNet(EEGNetConfig(kernel=8), shape)
    optimizer = torch.optim.SGD(module.parameters(), lr=100.0)
    module.train()
    module(torch.randn(8, 64, 5))["logits"].square().sum().backward()
    optimizer.step()
    assert module.spatial.weight.flatten(1).norm(dim=1).max() > 1.5, "the step does not try the constraint"
    direction = module.spatial.weight.detach().flatten(1).clone()
    module.eval()
    spatial, classes = module.spatial.weight.flatten(1), module.classifier.weight
    assert spatial.norm(dim=1).max() <= 1 + 1e-5
    assert classes.norm(dim=1).max() <= 0.25 + 1e-5
    assert torch.allclose(torch.cosine_similarity(spatial, direction), torch.ones(16), atol=1e-5)


def test_eegnet_exports_with_parity():
    torch.manual_seed(0)
    shape = Shape(384, 64, 128.0, classes={"label": 2})
    _check_export(_normed(build("eegnet", {}, shape), shape), _noise(3, shape))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"kernel": 0}, "kernel"), ({"pools": (8, 8)}, "64 samples"), ({"dropout": -0.1}, "dropout")],
)
def test_eegnet_refuses_what_cannot_be(options, message):
    with pytest.raises(ConfigError, match=message):
        build("eegnet", options, _small())


# --- LDA, CSP ---------------------------------------------------------------------------------------------------------


def _trials(x, y, n_classes, sfreq=100.0):
    zeros = np.zeros(len(x), np.int64)
    names = tuple(f"class {k}" for k in range(n_classes))
    return Trials(x.astype(np.float32), sfreq, zeros, zeros, ("S",), ("R",), {"label": y}, {"label": names})


def _fitted(system, options, trials, n_classes=None):
    classes = {"label": n_classes or len(trials.classes["label"])}
    encoder = build(system, options, Shape(trials.x.shape[1], trials.x.shape[2], trials.sfreq, classes=classes))
    assert isinstance(encoder, ClosedForm)
    encoder.fit(trials)
    return encoder


def _rhythms(n, n_classes, seed, n_times=120, n_channels=6):
    """Noise mixed over channels, in volts; each class has its own source that is stronger."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).standard_normal((n_channels, n_channels))
    y = np.arange(n) % n_classes
    sources = rng.standard_normal((n, n_times, n_channels))
    sources[np.arange(n), :, y] *= 2.5
    return (1e-5 * sources @ mixing).astype(np.float32), y


def test_linear_discriminant_is_scikit_learns():
    """With as many trials as make the shrinkage small, the decision is that of the textbook's formula."""
    discriminant = pytest.importorskip("sklearn.discriminant_analysis")
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=600)
    y[:3] = range(3)
    x = rng.standard_normal((600, 4)) @ rng.standard_normal((4, 4)) + np.eye(3, 4)[y]
    x = (x - x.mean(0)) / x.std(0)
    model = discriminant.LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=np.full(3, 1 / 3))
    weight, bias = linear_discriminant(x, y, 3)
    said = x @ weight.T + bias
    expected = model.fit(x, y).decision_function(x)
    assert (said.argmax(1) == expected.argmax(1)).mean() > 0.98


@pytest.mark.parametrize(("system", "options"), [("lda", {"features": "log_power", "stretches": 2}), ("csp-lda", {})])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_power_classifiers_find_the_stronger_source(system, options, n_classes):
    x, y = _rhythms(90, n_classes, 0)
    encoder = _fitted(system, options, _trials(x, y, n_classes))
    x, y = _rhythms(60, n_classes, 1)
    with torch.no_grad():
        right = (encoder(torch.from_numpy(x))["logits"].argmax(1).numpy() == y).mean()
    assert right > (0.95 if system == "csp-lda" else 0.6)
    _check_export(encoder.eval(), x[:5])


def test_lda_on_means_finds_evoked_responses():
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    x = 1e-5 * rng.standard_normal((80, 50, 4))
    x[y == 1, 20:30, 2] += 2e-5
    encoder = _fitted("lda", {"stretches": 5}, _trials(x[:40], y[:40], 2))
    with torch.no_grad():
        said = encoder(torch.from_numpy(x[40:].astype(np.float32)))["logits"].argmax(1).numpy()
    assert (said == y[40:]).mean() > 0.9


def test_two_class_csp_has_both_ends_of_one_spectrum():
    x, y = _rhythms(40, 2, 0)
    filters = common_spatial_patterns(x.astype(np.float64), y, 2, 4)
    first, second = (np.cov((x[y == k] @ filters.T).reshape(-1, 4).T) for k in (0, 1))
    share = np.diag(first) / np.diag(first + second)
    assert share[0] > share[1] > share[3] > share[2]
    assert np.allclose(first + second, np.diag(np.diag(first + second)), atol=0.05), "filters of one spectrum"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"word": np.zeros(40, np.int64)}}, "they have word"),
        ({"labels": {"label": np.zeros(40, np.int64)}}, "class 1 of label 'label' has no training trial"),
        ({"labels": {"label": np.arange(40) % 3}}, "has 3"),
        ({"x": np.zeros((40, 120, 6), np.float32)}, "no signal"),
    ],
)
def test_csp_refuses_trials_that_it_cannot_be_fitted_to(change, message):
    x, y = _rhythms(40, 2, 0)
    trials = replace(_trials(x, y, 2), **change)
    with pytest.raises(ConfigError, match=message):
        _fitted("csp-lda", {}, trials, n_classes=2)


@pytest.mark.parametrize(
    ("system", "options", "message"),
    [
        ("csp-lda", {"filters": 5}, "multiple of the 2"),
        ("csp-lda", {"filters": 8}, "no more than the 5 channels"),
        ("lda", {"stretches": 41}, "at least one"),
        ("lda", {"features": "phase"}, "features"),
        ("cca", {"frequencies": (13.0, 17.0, 21.0)}, "one for each of the 2"),
        ("cca", {"frequencies": (13.0, 26.0)}, "half the rate"),
    ],
)
def test_baselines_refuse_options_that_make_no_sense(system, options, message):
    with pytest.raises(ConfigError, match=message):
        build(system, options, _small(2))


# --- CCA --------------------------------------------------------------------------------------------------------------

FREQUENCIES = (13.0, 17.0, 21.0)
FLICKER = {"frequencies": FREQUENCIES, "harmonics": 2}
SSVEP = Shape(768, 8, 256.0, classes={"label": 3})


def _exact(x):
    """Canonical correlations of a window with each frequency, by LAPACK in float64 (QR, then singular values)."""
    x = x.astype(np.float64) - x.mean(0, dtype=np.float64)
    t = np.arange(len(x))[:, None] / SSVEP.sfreq
    found = []
    for frequency in FREQUENCIES:
        phase = 2 * np.pi * frequency * t * [1, 2]
        y = np.concatenate([np.sin(phase), np.cos(phase)], 1)
        left, values, _ = np.linalg.svd(x, full_matrices=False)
        left = left[:, values > 1e-5 * values[0]]
        found.append(np.linalg.svd(left.T @ np.linalg.qr(y - y.mean(0))[0])[1][0])
    return np.array(found)


def _said(windows):
    with torch.no_grad():
        return build("cca", FLICKER, SSVEP)(torch.from_numpy(windows))["logits"].numpy()


def test_cca_is_that_of_linear_algebra_on_noise_of_any_unit():
    windows = _noise(20, SSVEP)
    expected = np.stack([_exact(window) for window in windows])
    np.testing.assert_allclose(_said(windows), expected, atol=1e-3)
    np.testing.assert_allclose(_said(windows * np.float32(1e-6)), expected, atol=1e-3)


def test_cca_is_that_of_scikit_learn():
    decomposition = pytest.importorskip("sklearn.cross_decomposition")
    window = _noise(1, SSVEP, seed=5)[0]
    t = np.arange(768)[:, None] / 256.0
    phase = 2 * np.pi * 17.0 * t * [1, 2]
    waves = np.concatenate([np.sin(phase), np.cos(phase)], 1)
    a, b = decomposition.CCA(n_components=1, max_iter=5000, tol=1e-9).fit_transform(window, waves)
    assert _said(window[None])[0, 1] == pytest.approx(abs(np.corrcoef(a[:, 0], b[:, 0])[0, 1]), abs=1e-3)


def test_cca_takes_channels_that_depend_on_one_another():
    """Much alike, as occipital channels are; average-referenced; one that is flat."""
    windows = _noise(6, SSVEP, seed=1)
    alike = windows[:, :, :1] + np.float32(0.01) * windows
    referenced = windows - windows.mean(2, keepdims=True)
    flat = windows * (np.arange(8) != 3).astype(np.float32)
    for changed in (alike, referenced, flat):
        np.testing.assert_allclose(_said(changed), np.stack([_exact(window) for window in changed]), atol=1e-3)
    assert _said(np.zeros((1, 768, 8), np.float32)).tolist() == [[0.0, 0.0, 0.0]]


def test_cca_exports_to_plain_operators():
    operators = _check_export(build("cca", FLICKER, SSVEP).eval(), _noise(3, SSVEP))
    assert "MatMul" in operators
