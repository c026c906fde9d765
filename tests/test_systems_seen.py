"""Neuro-3D and NeuroImagen: what their specification fixes, the decimation inside a graph, and their losses."""

from dataclasses import replace

import numpy as np
import pytest
from systems_kit import trials, windows

pytest.importorskip("torch")

import torch

from rtdecode.errors import ConfigError
from rtdecode_models.data.batch import Batch
from rtdecode_models.data.shape import Shape
from rtdecode_models.systems import neuro3d, neuroimagen
from rtdecode_models.systems.decimation import Decimation, low_pass
from rtdecode_models.systems.neuroimagen_losses import Adversarial, Saliency, Triplet
from rtdecode_models.systems.registry import build
from rtdecode_models.systems.ssim import SSIM
from rtdecode_models.training.losses import make_loss, parse_loss

#: Small streams and widths for what does not depend on them.
TINY_3D = {
    "n_queries": 20,
    "forward_width": 16,
    "fusion_width": 8,
    "n_features": 12,
    "n_dims": 10,
    "dropout": 0.0,
    "head_dropout": 0.0,
}
SHAPE_3D = Shape(700, 8, 100.0, 1, (), {"label": 5, "colour": 3})
PUBLISHED_3D = Shape(3500, 64, 500.0, 1, (), {"label": 72, "colour": 6})
RATES_3D = {"static_sfreq": 50.0, "dynamic_sfreq": 20.0}
TINY_IMAGE = {"n_sources": 6, "widths": (8, 8), "kernel": 5, "n_features": 16, "n_dims": 12, "map_widths": (8, 4)}


@pytest.fixture(autouse=True)
def seeded():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


def batch_of(given):
    assert given.gallery is not None
    return Batch(
        window=torch.from_numpy(given.x),
        subject=torch.from_numpy(given.subject),
        index=torch.arange(len(given)),
        labels={name: torch.from_numpy(values) for name, values in given.labels.items()},
        targets={name: torch.from_numpy(rows[given.item]) for name, rows in given.gallery.embeddings.items()},
    )


@pytest.mark.parametrize(
    ("system", "options", "shape", "says"),
    [
        ("neuro3d", {}, replace(SHAPE_3D, sfreq=512.0), "512 Hz; expected a whole multiple of 250"),
        ("neuro3d", {"static_s": 7.0} | RATES_3D, SHAPE_3D, "some time for each"),
        ("neuro3d", RATES_3D, replace(SHAPE_3D, classes={"label": 5}), "'colour', which the data do not have"),
        ("neuroimagen", {}, Shape(20, 4, 100.0), "20 samples is too short for 3 blocks"),
        ("neuroimagen", {"kernel": 8}, Shape(440, 4, 1000.0), "odd kernel"),
    ],
)
def test_what_a_system_cannot_be_built_for(system, options, shape, says):
    with pytest.raises(ConfigError, match=says):
        build(system, options, shape)


# --- Neuro-3D --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 5])
def test_decimation_keeps_the_band_and_the_time(factor):
    """A slow sine comes out as it was, at its own times; a fast one that would fold is gone."""
    times = np.arange(400 * factor) / (100 * factor)
    slow, fast = np.sin(2 * np.pi * 20 * times), np.sin(2 * np.pi * 60 * times)
    given = torch.from_numpy(np.stack([slow, fast]).astype(np.float32))[None]
    out = Decimation(factor)(given)[0].numpy()
    assert out.shape == (2, 400)
    np.testing.assert_allclose(out[0, 20:-20], slow[::factor][20:-20], atol=0.02)
    assert np.abs(out[1, 20:-20]).max() < 0.01
    assert low_pass(factor).sum() == pytest.approx(1)


def test_neuro3d_streams_are_the_first_second_and_the_rest():
    """Far from where they meet, each part of the window reaches one stream alone."""
    encoder = neuro3d.build(TINY_3D | RATES_3D, SHAPE_3D).eval()
    seen: dict[str, torch.Tensor] = {}
    encoder.static.register_forward_pre_hook(lambda _, given: seen.update(static=given[0]))
    encoder.dynamic.register_forward_pre_hook(lambda _, given: seen.update(dynamic=given[0]))
    given = torch.zeros(1, 700, 8)
    given[:, 50, 0] = 1
    given[:, 600, 1] = 1
    with torch.no_grad():
        encoder(given)
    assert seen["static"].shape == (1, 8, 50)
    assert seen["dynamic"].shape == (1, 8, 120)
    assert int(seen["static"][0, 0].argmax()) == 25
    assert int(seen["dynamic"][0, 1].argmax()) == 100
    assert not seen["static"][0, 1].any()
    assert not seen["dynamic"][0, 0].any()


def test_neuro3d_quirk_of_the_axes():
    """As released, `widen` runs over time and `gather` over features; the other way round is an option."""
    shape = replace(SHAPE_3D, n_times=700)
    released = neuro3d.build(TINY_3D | RATES_3D, shape)
    named = neuro3d.build(TINY_3D | RATES_3D | {"released_axes": False}, shape)
    assert (released.widen.in_features, released.gather.in_features) == (20, 12)
    assert (named.widen.in_features, named.gather.in_features) == (12, 20)
    published, other = ({"released_axes": axes} for axes in (True, False))
    counts = [
        sum(p.numel() for p in neuro3d.build(options, PUBLISHED_3D).parameters()) for options in (published, other)
    ]
    assert counts == [3_707_309, 3_707_309]
    for encoder in (released, named):
        outputs = encoder(torch.from_numpy(windows(2, 700, 8)))
        assert {name: tuple(value.shape) for name, value in outputs.items()} == {
            "logits": (2, 5),
            "colour": (2, 3),
            "geometry": (2, 10),
            "appearance": (2, 10),
        }


def test_neuro3d_heads_stand_on_their_embeddings():
    encoder = neuro3d.build(TINY_3D | RATES_3D, SHAPE_3D).eval()
    with torch.no_grad():
        outputs = encoder(torch.from_numpy(windows(2, 700, 8)))
        torch.testing.assert_close(outputs["logits"], encoder.classifier(outputs["geometry"]))
        torch.testing.assert_close(outputs["colour"], encoder.colours(outputs["appearance"]))


# --- NeuroImagen -----------------------------------------------------------------------------------------------------


def test_ssim_of_known_pairs():
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.uniform(0, 1, (2, 24, 24)).astype(np.float32))
    ssim = SSIM()
    torch.testing.assert_close(ssim(image, image), torch.ones(2))
    # Constant images differ in luminance alone: (2 a b + c) / (a^2 + b^2 + c).
    bright, dark = torch.full((1, 16, 16), 0.8), torch.full((1, 16, 16), 0.4)
    expected = (2 * 0.8 * 0.4 + 1e-4) / (0.8**2 + 0.4**2 + 1e-4)
    assert float(ssim(bright, dark)) == pytest.approx(expected, abs=1e-4)
    assert float(ssim(image, 1 - image)[0]) < 0
    with pytest.raises(ValueError, match="side of 11"):
        ssim(image[:, :8, :8], image[:, :8, :8])


def test_ssim_agrees_with_its_formula():
    """One window of eleven by eleven: weighted means, variances and covariance written out."""
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, 1, (2, 11, 11))
    bell = np.exp(-np.square(np.arange(11) - 5) / (2 * 1.5**2))
    weight = np.outer(bell, bell) / bell.sum() ** 2
    mean_x, mean_y = (weight * x).sum(), (weight * y).sum()
    var_x, var_y = (weight * (x - mean_x) ** 2).sum(), (weight * (y - mean_y) ** 2).sum()
    cov = (weight * (x - mean_x) * (y - mean_y)).sum()
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    given = SSIM()(*(torch.from_numpy(image[None].astype(np.float32)) for image in (x, y)))
    assert float(given) == pytest.approx(expected, abs=1e-5)


def test_noise_makes_maps_differ_in_training_alone():
    encoder = neuroimagen.build(TINY_IMAGE | {"n_noise": 4, "dropout": 0.0}, Shape(40, 4, 100.0))
    given = torch.from_numpy(windows(3, 40, 4))
    one, other = encoder(given)["saliency"], encoder(given)["saliency"]
    assert one.shape == (3, 16, 16)
    assert (one - other).abs().max() > 0
    assert float(encoder(given)["loss_mode_seeking"].detach()) > 0
    encoder.eval()
    assert set(encoder(given)) == {"embedding", "saliency", "features"}, "what the losses are given is watched too"
    torch.testing.assert_close(encoder(given)["saliency"], encoder(given)["saliency"])


def test_mode_seeking_is_dear_where_noise_is_ignored():
    one, other, far = torch.zeros(2, 4, 4), torch.full((2, 4, 4), 0.5), torch.ones(2, 4, 4)
    noise, other_noise = torch.zeros(2, 3), torch.ones(2, 3)
    half, full, none = (neuroimagen.mode_seeking(one, to, noise, other_noise) for to in (other, far, one))
    assert float(half) == pytest.approx(2, rel=1e-3)
    assert float(full) == pytest.approx(1, rel=1e-3)
    assert float(none) == pytest.approx(1e5, rel=1e-3)


def test_saliency_loss_is_zero_for_the_true_map_alone():
    given = trials()
    loss, batch = Saliency({}, given), batch_of(given)
    true = batch.targets["saliency"]
    assert float(loss({"saliency": true}, batch)) == pytest.approx(0, abs=1e-6)
    assert float(loss({"saliency": 1 - true}, batch)) > 0.5
    mse = Saliency({"ssim": 0.0, "mse": 2.0}, given)({"saliency": true + 0.1}, batch)
    assert float(mse) == pytest.approx(0.02, rel=1e-4)


def test_an_adversary_and_its_victim_pull_opposite_ways():
    given = trials()
    loss = make_loss(parse_loss({"kind": "neuroimagen_losses:Adversarial", "width": 4}), given)
    assert isinstance(loss, Adversarial)
    batch = batch_of(given)
    drawn = (batch.targets["saliency"] * 0.1).requires_grad_()
    value = loss({"saliency": drawn}, batch)
    value.backward()
    with torch.no_grad():
        assert drawn.grad is not None
        worse = loss({"saliency": drawn - 0.5 * drawn.grad / drawn.grad.norm()}, batch)
        assert worse > value, "along its descent the encoder raises the discriminator's loss"
        for parameter in loss.parameters():
            assert parameter.grad is not None
            parameter.sub_(1e-3 * parameter.grad)
        assert loss({"saliency": drawn}, batch) < value


def test_triplets_want_classes_apart():
    given = trials(n=6, classes=2)
    loss, batch = Triplet({"margin": 0.2}, given), batch_of(given)
    corners = torch.eye(2)[batch.labels["label"]]
    assert float(loss({"features": corners}, batch)) == 0
    mixed = torch.eye(2)[torch.tensor([0, 0, 1, 1, 0, 1])]
    assert float(loss({"features": mixed}, batch)) == pytest.approx(0.2 + 2**0.5, abs=1e-2)
    alone = replace(batch, labels={"label": torch.zeros(6, dtype=torch.int64)})
    assert float(loss({"features": mixed}, alone)) == 0


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("Saliency", {"target": "depth"}, "no target 'depth'; the gallery has saliency"),
        ("Adversarial", {"widht": 3}, "unknown field `widht`"),
        ("Triplet", {"label": "animal"}, "no label 'animal'; the data have label"),
    ],
)
def test_losses_that_the_data_cannot_have(kind, change, says):
    with pytest.raises(ConfigError, match=says):
        make_loss(parse_loss({"kind": f"neuroimagen_losses:{kind}"} | change), trials())
