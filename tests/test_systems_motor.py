"""Motor imagery and baselines: EEG-SimpleConv, ensembles, EEGNet, LDA, CSP, CCA."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="the encoders need torch: pip install rtdecode[train]")

import torch

from rtdecode.errors import ConfigError
from rtdecode_export.onnx import largest_errors, run_onnx, run_torch, to_onnx
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.systems.ensemble import Ensemble
from rtdecode_models.systems.registry import build
from rtdecode_models.systems.shape import Shape

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
