"""HiSTN, geometric ML, Neuro-3D and NeuroImagen: published sizes, what their specification fixes, and export."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from systems_kit import trials, windows

pytest.importorskip("torch")
pytest.importorskip("onnx")

import torch

from rtdecode.encode.manifest import ContractChannel
from rtdecode.errors import ConfigError
from rtdecode_export.onnx import largest_errors, run_onnx, run_torch, to_onnx
from rtdecode_export.tensorrt_check import check_tensorrt
from rtdecode_models.data.shape import Shape
from rtdecode_models.data.spec import Arrays
from rtdecode_models.data.windowed import locked
from rtdecode_models.systems import denoiser, geometric, histn
from rtdecode_models.systems.artifacts import artifacts, clean_eeg, contaminate, correlation
from rtdecode_models.systems.ordinal import gaussian_smoothing, seq2hr
from rtdecode_models.systems.registry import build
from rtdecode_models.training.losses import parse_loss
from rtdecode_models.training.losses_classify import smoothed
from rtdecode_models.training.recipe import read_recipe
from rtdecode_models.zoo import geometric as zoo_geometric
from rtdecode_models.zoo import histn as zoo_histn
from rtdecode_models.zoo import neuro3d as zoo_neuro3d
from rtdecode_models.zoo import neuroimagen as zoo_neuroimagen

ENTRIES = {
    entry.name: entry for module in (zoo_histn, zoo_geometric, zoo_neuro3d, zoo_neuroimagen) for entry in module.ENTRIES
}
RECIPES = Path(__file__).parents[1] / "models" / "recipes"
#: Operators that no deployed graph may hold.
HAZARDS = {"DFT", "STFT", "Einsum", "Loop", "If", "Scan", "ScatterND", "ScatterElements", "NonZero"}
EPOC = Shape(128, 14, 128.0, 1, histn.ELECTRODES, {"valence": 5})


@pytest.fixture(autouse=True)
def seeded():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


def weathered(module):
    """As training leaves it: batch norms with statistics, no parameter at its neutral start."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.uniform_(-0.5, 0.5)
                part.running_var.uniform_(0.5, 2)
        for parameter in module.parameters():
            parameter.add_(0.2 * parameter.abs().mean().clamp(min=0.01) * torch.randn_like(parameter))
    return module.eval()


# --- every system ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(ENTRIES) - {"histn-arousal"}))
def test_a_deployed_graph_gives_what_the_encoder_gives(name):
    """Published sizes, true channel counts and rates: the parameters, the fold, and onnxruntime."""
    entry = ENTRIES[name]
    encoder = weathered(entry.build())
    assert sum(p.numel() for p in encoder.parameters() if p.requires_grad) == entry.parameters
    shape = (entry.window.n_samples(entry.contract.sfreq), len(entry.contract.channels))
    given = windows(2, *shape, scale=2e-5 if name == "geometric-denoiser" else 1.0)
    deployed = encoder.deploy(entry.subject)
    with torch.no_grad():
        whole = encoder(torch.from_numpy(given))
        for output, value in zip(encoder.outputs, deployed(torch.from_numpy(given)), strict=True):
            assert value.shape == whole[output].shape
            torch.testing.assert_close(value, whole[output], rtol=1e-4, atol=1e-5 * float(whole[output].abs().max()))
    graph = to_onnx(deployed, shape, encoder.outputs)
    assert not HAZARDS & set(graph.operators), graph.operators
    assert not {name: each.problem for name, each in check_tensorrt(graph.data).operators.items() if each.problem}
    expected = run_torch(deployed, given, encoder.outputs)
    errors = largest_errors(expected, run_onnx(graph, given, encoder.outputs))
    assert all(error <= 1e-4 * min(1.0, np.abs(expected[output]).max()) for output, error in errors.items()), errors
    assert all(np.ptp(value) > 0 for value in expected.values()), "a constant output has parity with anything"


def test_published_counts():
    assert {name: entry.published for name, entry in ENTRIES.items()} == {
        "histn-valence": 1_181,
        "histn-arousal": 1_181,
        "geometric-denoiser": None,
        "geometric": None,
        "neuro3d": 3_707_309,
        "neuroimagen": None,
    }


@pytest.mark.parametrize("name", ["histn-valence", "geometric", "neuro3d", "neuroimagen"])
def test_a_recipe_is_of_its_entry(name):
    """Channels, rate, conditioning and window are the entry's, and the system builds to as many parameters."""
    entry = ENTRIES[name]
    assert entry.recipe is not None
    recipe, _ = read_recipe(RECIPES / entry.recipe)
    data = recipe.data
    assert isinstance(data, Arrays)
    signal = data.signal
    channels = tuple(ContractChannel(name=channel, type=signal.type, unit=signal.unit) for channel in signal.channels)
    assert (channels, signal.sfreq) == (entry.contract.channels, entry.contract.sfreq)
    assert data.conditioning == entry.conditioning
    n_times = locked(data.tmin, data.tmax, data.markers).n_samples(signal.sfreq)
    assert n_times == entry.window.n_samples(signal.sfreq)
    classes = {label: len(names) for label, names in data.classes.items()}
    shape = Shape(n_times, len(channels), signal.sfreq, 1, signal.channels, classes)
    encoder = build(recipe.model.system, recipe.model.options, shape)
    assert sum(p.numel() for p in encoder.parameters()) == entry.parameters
    assert {task.output for task in recipe.tasks} <= set(encoder.outputs)


@pytest.mark.parametrize("name", ["histn-arousal", "neuroimagen"])
def test_heads_and_outputs_agree(name):
    entry = ENTRIES[name]
    heads, files = entry.heads()
    assert [head.output for head in heads] == list(entry.build().outputs)
    assert not files


@pytest.mark.parametrize(
    ("system", "options", "shape", "says"),
    [
        ("histn", {}, Shape(128, 13, 128.0, classes={"valence": 5}), "its graphs are of the electrodes AF3"),
        ("histn", {}, replace(EPOC, channels=histn.ELECTRODES[::-1]), "in this order"),
        ("histn", {"label": "mood"}, EPOC, "'mood', which the data do not have; they have valence"),
        ("histn", {"filters": 3}, EPOC, "unknown field `filters`"),
        ("geometric", {"high": 70.0}, replace(EPOC, classes={"label": 2}), "high are 1 and 70 Hz"),
        ("geometric", {}, Shape(256, 1, 128.0, classes={"label": 2}), "one channel"),
        ("denoiser", {}, Shape(250, 2, 128.0), "250 samples; expected a multiple of 16"),
        ("denoiser", {"token_width": 30}, Shape(256, 2, 128.0), "n_heads that divide"),
    ],
)
def test_what_a_system_cannot_be_built_for(system, options, shape, says):
    with pytest.raises(ConfigError, match=says):
        build(system, options, shape)


# --- HiSTN -----------------------------------------------------------------------------------------------------------


def test_histn_layer_by_layer():
    encoder = histn.HiSTN(histn.HiSTNConfig(), 5)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in encoder.named_children()}
    assert encoder.mix.numel() == 112
    assert count == {
        "temporal": 512,
        "mix_norm": 28,
        "short": 70,
        "short_norm": 28,
        "drop": 0,
        "nodes": 4 * 3 + 2 * (20 + 16) + 2 * (15 + 9),
        "node_norm": 28,
        "input_pools": 64,
        "node_pools": 64,
        "ring": 3,
        "global_input_pool": 20,
        "global_pool": 20,
        "classifier": 100,
    }


def test_histn_front_leaves_62_steps_and_never_mixes_electrodes():
    encoder = weathered(histn.HiSTN(histn.HiSTNConfig(), 5))
    given = torch.from_numpy(windows(1, 128, 14))
    changed = given.clone()
    changed[:, :, 3] += 1
    with torch.no_grad():
        before, after = encoder._front(given), encoder._front(changed)
    assert before.shape == (1, 14, 62)
    different = (before != after).any(dim=2)[0]
    assert different.tolist() == [electrode == 3 for electrode in range(14)]


def test_histn_graphs():
    right = [(3 - i, 3 - j) for i, j in histn.EDGES[0]]
    assert {frozenset(edge) for edge in right} == {frozenset(edge) for edge in histn.EDGES[3]}
    for edges, n in (*zip(histn.EDGES, (4, 3, 3, 4), strict=True), (histn.RING, 4)):
        basis = histn.chebyshev_basis(n, edges, 3)
        np.testing.assert_array_equal(basis[0], np.eye(n))
        values = np.linalg.eigvalsh(basis[1].astype(float))
        assert values[0] == pytest.approx(-1, abs=1e-6)
        assert values[-1] == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(np.linalg.eigvalsh(basis[3])[[0, -1]], [-1, 1], atol=1e-5)
        angles = np.arccos(np.clip(values, -1, 1))
        np.testing.assert_allclose(np.sort(np.linalg.eigvalsh(basis[2])), np.sort(np.cos(2 * angles)), atol=1e-5)
        hops = np.linalg.matrix_power(np.eye(n) + (basis[1] != 0), 2) > 0
        assert not basis[2][~hops].any(), "two hops reach no further than two edges"


def test_gaussian_smoothing():
    answers = gaussian_smoothing(5)
    assert answers[2, 2] == pytest.approx(0.787, abs=5e-4)
    assert answers[2, [1, 3]] == pytest.approx([0.1065, 0.1065], abs=5e-5)
    assert answers[0, :2] == pytest.approx([0.8805, 0.119], abs=5e-4)
    assert answers[4, 4] == answers[0, 0]
    np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(smoothed(5, 0.0, 0.5).numpy(), answers)
    with pytest.raises(ValueError, match="sigma is 0"):
        gaussian_smoothing(5, 0)
    with pytest.raises(ConfigError, match="gaussian is 0"):
        parse_loss({"kind": "cross_entropy", "gaussian": 0.0})


def test_seq2hr_in_both_readings():
    scores = np.array(
        [
            [0.1, 0.5, 0.4, 0.0, 0.0],  # neighbours, the first is true
            [0.1, 0.5, 0.4, 0.0, 0.0],  # neighbours, the second is true
            [0.1, 0.5, 0.4, 0.0, 0.0],  # neighbours, neither is true
            [0.5, 0.1, 0.4, 0.0, 0.0],  # no neighbours, though the first is true
        ]
    )
    rate = seq2hr(scores, np.array([1, 2, 0, 0]))
    assert (rate.first, rate.either) == (0.25, 0.5)
    with pytest.raises(ValueError, match="expected"):
        seq2hr(scores, np.array([1, 2]))


# --- geometric ML ----------------------------------------------------------------------------------------------------


def test_fourier_features_are_those_of_the_fft():
    encoder = geometric.build({"low": 4.0, "high": 20.0}, Shape(64, 3, 64.0, classes={"label": 2}))
    given = windows(2, 64, 3)
    taper = np.hanning(65)[:64]
    spectrum = np.fft.rfft(given.astype(float) * taper[None, :, None], axis=1)[:, 4:21]
    expected = np.log(np.square(np.abs(spectrum) * 2 / taper.sum()) + geometric.FLOOR)
    np.testing.assert_allclose(encoder.spectra(torch.from_numpy(given)).numpy(), expected, atol=1e-4)


def test_a_sine_of_amplitude_one_has_power_one():
    encoder = geometric.build({"low": 1.0, "high": 30.0}, Shape(128, 2, 64.0, classes={"label": 2}))
    sine = np.cos(2 * np.pi * 10 * np.arange(128) / 64 + 0.3).astype(np.float32)
    power = encoder.spectra(torch.from_numpy(np.stack([sine, 0 * sine], axis=1)[None])).exp()[0]
    assert power[:, 0].argmax() == 2 * (10 - 1)
    assert power[18, 0] == pytest.approx(1, abs=1e-4)
    assert power[:, 1] == pytest.approx(geometric.FLOOR)


def test_contamination_has_the_ratio_that_was_asked_for():
    rng = np.random.default_rng(0)
    clean, dirt = clean_eeg(rng, 50, 256, 128.0), artifacts(rng, 50, 256, 128.0)
    for signals in (clean, dirt):
        np.testing.assert_allclose(signals.mean(axis=1), 0, atol=1e-5)
        np.testing.assert_allclose(signals.std(axis=1), 1, atol=1e-4)
    for ratio in (-7.0, 2.0):
        added = contaminate(3 * clean, dirt, ratio) - 3 * clean
        given = 10 * np.log10(np.square(3 * clean).mean(axis=1) / np.square(added).mean(axis=1))
        np.testing.assert_allclose(given, ratio, atol=1e-3)
    np.testing.assert_allclose(correlation(clean, 2 - 3 * clean), -1, atol=1e-6)
    assert abs(correlation(clean, dirt)).mean() < 0.3


def test_no_artifact_is_empty_and_an_empty_one_is_refused():
    # So short that many blinks would begin with the last sample, where they add nothing.
    dirt = artifacts(np.random.default_rng(0), 2000, 12, 128.0)
    np.testing.assert_allclose(dirt.std(axis=1), 1, atol=1e-4)
    with pytest.raises(ValueError, match="artifact 1 is zero throughout"):
        contaminate(dirt[:2], np.stack([dirt[0], 0 * dirt[0]]), 2.0)


def small_denoiser(tmp_path, n_times=64):
    """One with artifacts from a file, of which there are few."""
    path = tmp_path / "artifacts.npy"
    np.save(path, artifacts(np.random.default_rng(0), 32, n_times + 10, 128.0))
    options = {"artifacts": str(path), "widths": (8, 8), "token_width": 16, "n_heads": 2, "n_layers": 1}
    return denoiser.build(options, Shape(n_times, 2, 128.0))


def clean_trials(n=4, n_times=64):
    clean = clean_eeg(np.random.default_rng(1), 2 * n, n_times, 128.0).reshape(n, 2, n_times).transpose(0, 2, 1)
    return replace(trials(n), x=clean.copy(), sfreq=128.0)


def test_a_denoiser_knows_neither_unit_nor_neighbour(tmp_path):
    encoder = weathered(small_denoiser(tmp_path))
    given = torch.from_numpy(windows(3, 64, 2))
    with torch.no_grad():
        whole = encoder(given)["denoised"]
        torch.testing.assert_close(encoder(1e-6 * given)["denoised"], 1e-6 * whole, rtol=1e-3, atol=1e-9)
        torch.testing.assert_close(encoder(given[:, :, :1])["denoised"], whole[:, :, :1])
        assert torch.isfinite(encoder(torch.zeros(1, 64, 2))["denoised"]).all()


def test_a_denoiser_learns_to(tmp_path):
    encoder = small_denoiser(tmp_path)
    given = clean_trials(64)
    encoder.prepare(given)
    assert encoder.bank.shape == (32, 74)
    assert "bank" not in encoder.state_dict()
    rng = np.random.default_rng(2)
    clean = torch.from_numpy(given.x)
    optimiser = torch.optim.Adam(encoder.parameters(), lr=3e-3)
    losses = []
    for _ in range(120):
        loss = encoder(clean)["loss_denoising"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:5])
    unseen, dirt = clean_eeg(rng, 100, 64, 128.0), artifacts(rng, 100, 64, 128.0)
    dirty = contaminate(unseen, dirt, -4.0)
    with torch.no_grad():
        denoised = encoder.eval()(torch.from_numpy(dirty[:, :, None]))["denoised"][:, :, 0].numpy()
    assert correlation(denoised, unseen).mean() > correlation(dirty, unseen).mean() + 0.05


def test_a_denoiser_trains_on_simulated_artifacts_and_runs_without_any():
    encoder = denoiser.build({}, Shape(64, 2, 128.0))
    given = clean_trials()
    with pytest.raises(ConfigError, match=r"before prepare\(trials\)"):
        encoder(torch.from_numpy(given.x))
    assert set(encoder.eval()(torch.from_numpy(given.x))) == {"denoised"}
    encoder.prepare(given)
    assert encoder.bank.shape == (denoiser.BANK, 64)


@pytest.mark.parametrize("kind", ["short", "flat", "text", "missing"])
def test_artifacts_that_are_none(kind, tmp_path):
    path = tmp_path / "artifacts.npy"
    wrong = {"short": np.zeros((3, 63)), "flat": np.zeros(64), "text": np.array([["a"] * 64])}
    if kind in wrong:
        np.save(path, wrong[kind])
    expected = (
        r"expected floats of shape \(n, samples\), with 64 samples or more" if kind in wrong else "cannot be read"
    )
    with pytest.raises(ConfigError, match=expected):
        denoiser.build({"artifacts": str(path)}, Shape(64, 2, 128.0)).prepare(clean_trials())
