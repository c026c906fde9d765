"""The retrieval encoders: sizes, what the papers fix, what folding and exporting must not change."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from rtdecode.errors import ConfigError
from rtdecode_export.onnx import largest_errors, run_onnx, run_torch, to_onnx
from rtdecode_models.data.batch import Batch
from rtdecode_models.data.shape import Shape
from rtdecode_models.data.trials import Gallery, Trials
from rtdecode_models.systems import blur_prior
from rtdecode_models.systems.atm import Atm, _PaddedAttention
from rtdecode_models.systems.blur_prior import (
    HIGH,
    KERNELS,
    LOW,
    MEDIUM,
    RELEASED_KERNELS,
    Uncertainty,
    UncertaintyBlur,
    blur_levels,
    foveal_weight,
    foveated_blur,
    gaussian_kernel,
)
from rtdecode_models.systems.brain_module import BrainModule, DilatedConv, dilation
from rtdecode_models.systems.channel_merger import MISSING, ChannelMerger, fourier_embedding
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.systems.nice import Nice
from rtdecode_models.systems.registry import build
from rtdecode_models.training.losses_contrastive import InfoNCE, InfoNCESpec
from rtdecode_models.training.losses_regress import MSE, MSESpec

EEG = Shape(250, 63, 250.0, 10, targets={"image": (1024,)})
#: Options of a brain module that is small enough to be tried many times.
SMALL = {"virtual": 6, "frequencies": 4, "width": 8, "features": 16, "attention": 5}


def places(n: int) -> NDArray[np.float64]:
    return np.random.default_rng(0).random((n, 2))


def meg(n_times: int = 181, n_channels: int = 272, n_subjects: int = 4) -> Shape:
    return Shape(n_times, n_channels, 120.0, n_subjects, targets={"image": (768,)}, positions=places(n_channels))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def used(system: str, options: Mapping[str, Any], shape: Shape) -> Encoder:
    """An encoder that looks trained: batch norms have statistics and weights of their own."""
    torch.manual_seed(0)
    encoder = build(system, options, shape)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias)
    return encoder.eval()


def outputs_of(encoder: Encoder, window: NDArray[np.float32], subject: int | None) -> dict[str, NDArray[np.float32]]:
    whose = None if subject is None else torch.full((len(window),), subject)
    with torch.no_grad():
        given = encoder(torch.from_numpy(window), whose)
    return {name: given[name].numpy() for name in encoder.outputs}


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "options", "shape", "published"),
    [
        ("brain-module", {"latent": ""}, meg(), 6_424_472),
        ("brain-module", {}, meg(), 7_998_104),
        ("brain-module", {}, meg(n_times=30), 7_998_104 - 151),
        ("brain-module", {}, meg(n_times=12), 7_998_104 - 169),
        ("brain-module", {"aggregation": "mean"}, meg(), 7_998_104 - 182),
        ("atm", {"unused": True}, EEG, 3_202_413),
        ("atm", {}, EEG, 3_202_413 - 125_500 - 1_500),
        ("nice", {}, replace(EEG, targets={"image": (768,)}), 1_802_496),
        ("ubp", {}, replace(EEG, n_channels=17), 5_404_673),
    ],
)
def test_parameters_are_as_many_as_published(
    system: str, options: dict[str, Any], shape: Shape, published: int
) -> None:
    assert count(build(system, options, shape)) == published


def test_ubp_for_meg_has_as_many_parameters_as_published() -> None:
    with torch.device("meta"):  # a quarter of a gigabyte that nobody needs to hold
        encoder = build("ubp", {}, replace(EEG, n_times=201, n_channels=271))
    assert count(encoder) == 56_830_977


# --- folding and exporting --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "options", "shape", "subject"),
    [
        ("brain-module", {}, meg(), 3),
        ("atm", {}, EEG, 7),
        ("nice", {}, replace(EEG, targets={"image": (768,)}), None),
        ("ubp", {}, replace(EEG, n_channels=17), None),
    ],
)
def test_a_deployment_of_published_size_gives_the_same_numbers_and_exports(
    system: str, options: dict[str, Any], shape: Shape, subject: int | None
) -> None:
    encoder = used(system, options, shape)
    window = np.random.default_rng(1).standard_normal((3, shape.n_times, shape.n_channels)).astype(np.float32)
    expected = outputs_of(encoder, window, subject)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.train()

    deployed = encoder.deploy(subject)

    assert all(module.training for module in encoder.modules()), "the encoder stays as it was"
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert max(largest_errors(expected, run_torch(deployed, window, encoder.outputs)).values()) <= 1e-4
    graph = to_onnx(deployed, (shape.n_times, shape.n_channels), encoder.outputs)
    assert max(largest_errors(expected, run_onnx(graph, window, encoder.outputs)).values()) <= 1e-4
    plain = {"Einsum", "Loop", "If", "Scan", "STFT", "DFT", "ScatterND", "ScatterElements", "BatchNormalization"}
    assert not plain & graph.operators.keys()


@pytest.mark.parametrize("aggregation", ["affine", "mean", "bahdanau"])
def test_every_aggregation_folds_exactly(aggregation: str) -> None:
    encoder = used("brain-module", SMALL | {"aggregation": aggregation}, meg(20, 9, 2))
    window = np.random.default_rng(1).standard_normal((4, 20, 9)).astype(np.float32)
    for subject in (0, 1):
        expected = outputs_of(encoder, window, subject)
        given = run_torch(encoder.deploy(subject), window, encoder.outputs)
        assert max(largest_errors(expected, given).values()) <= 1e-5
    first, second = (outputs_of(encoder, window, subject)["embedding"] for subject in (0, 1))
    assert not np.allclose(first, second)


def test_what_lies_before_the_blocks_is_one_matrix_over_the_sensors() -> None:
    encoder = used("brain-module", SMALL, meg(20, 9, 2))
    assert isinstance(encoder, BrainModule)
    matrix, bias = encoder.spatial(1)
    assert matrix.shape == (6, 9)
    sensors = torch.randn(2, 9, 20)
    apart = encoder.subjects(encoder.mix(encoder.merger(sensors)), torch.tensor([1, 1]))
    torch.testing.assert_close(matrix.float() @ sensors + bias.float()[:, None], apart)
    shapes = [tuple(module.weight.shape) for module in encoder.deploy(1).modules() if isinstance(module, nn.Conv2d)]
    assert (6, 9, 1, 1) in shapes


# --- the brain module -------------------------------------------------------------------------------------------------


def test_dilations_double_and_start_again_after_five() -> None:
    assert [dilation(index, 5) for index in range(7)] == [1, 2, 4, 8, 16, 1, 2]
    encoder = build("brain-module", SMALL | {"blocks": 3}, meg(40, 9))
    convs = [module for module in encoder.modules() if isinstance(module, DilatedConv)]
    assert [conv.conv.dilation[1] for conv in convs] == [1, 2, 4, 8, 16, 1]
    assert [conv.conv.padding[1] for conv in convs] == [1, 2, 4, 8, 16, 1]
    assert [conv.skip for conv in convs] == [False, True, True, True, True, True]


def test_a_gate_is_the_sigmoid_of_the_other_half() -> None:
    encoder = used("brain-module", SMALL, meg(20, 9))
    assert isinstance(encoder, BrainModule)
    block = encoder.blocks[0]
    maps = torch.randn(2, 6, 1, 20)
    hidden = block.gated(block.second(block.first(maps)))  # type: ignore[operator]
    torch.testing.assert_close(block(maps), nn.functional.glu(hidden, dim=1))


def test_positions_become_cosines_and_sines_of_every_pair_of_frequencies() -> None:
    embedding = fourier_embedding(torch.tensor([[0.3, 0.8], [0.0, 1.0]], dtype=torch.float64), 32)
    assert embedding.shape == (2, 2048)
    i, j = 3, 17
    phase = 2 * math.pi * (i * (0.3 + 0.2) + j * (0.8 + 0.2)) / 1.4
    assert embedding[0, i * 32 + j].item() == pytest.approx(math.cos(phase), abs=1e-9)
    assert embedding[0, 1024 + i * 32 + j].item() == pytest.approx(math.sin(phase), abs=1e-9)


def test_missing_sensors_have_no_weight_and_the_others_a_distribution() -> None:
    where = places(9)
    where[2], where[5] = np.nan, MISSING
    merger = ChannelMerger(where, 6, 4).eval()
    weights = merger.weights()
    assert (weights[:, [2, 5]] == 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(6))
    assert (merger.positions[[2, 5]] == MISSING).all()


def test_only_training_bans_the_sensors_around_a_random_point() -> None:
    where = places(200)
    merger = ChannelMerger(where, 3, 4)
    merger.train()
    seen = set()
    for _ in range(20):
        banned = (merger.weights() == 0).all(dim=0).numpy()
        assert not banned.all()
        if banned.any():
            centre = where[banned].mean(axis=0)
            assert np.linalg.norm(where[banned] - centre, axis=1).max() <= 0.4, "they lie in a circle of radius 0.2"
        seen.add(banned.tobytes())
    assert len(seen) > 10
    assert not (merger.eval().weights() == 0).any()
    alone = ChannelMerger(np.array([[0.5, 0.5]]), 3, 4, ban_radius=2.0).train()
    assert torch.equal(alone.weights(), torch.ones(3, 1)), "what would leave no sensor is not banned"


def test_the_mean_over_time_weighs_all_samples_alike_and_attention_does_not() -> None:
    window = torch.randn(2, 20, 9)
    for aggregation, same in (("mean", True), ("bahdanau", True), ("affine", False)):
        encoder = used("brain-module", SMALL | {"aggregation": aggregation}, meg(20, 9, 1))
        assert isinstance(encoder, BrainModule)
        features = torch.randn(2, 16, 20)
        turned = encoder.aggregate(features.flip(2))
        assert torch.allclose(encoder.aggregate(features), turned, atol=1e-6) is same
        assert encoder(window)["embedding"].shape == encoder(window)["latent"].shape == (2, 768)


def test_both_heads_teach_every_part_of_the_brain_module() -> None:
    torch.manual_seed(0)
    encoder = build("brain-module", SMALL, meg(20, 9, 2)).train()
    window, subject, image = torch.randn(12, 20, 9), torch.tensor([0, 1] * 6), torch.randn(12, 768)
    batch = Batch(window, subject, torch.arange(12), {}, {"image": image}, torch.arange(12))
    latent = MSE(MSESpec(target="image", output="latent"), seen({"image": image.numpy()}))
    losses = [InfoNCE(InfoNCESpec(target="image")), latent]
    optimiser = torch.optim.Adam([*encoder.parameters(), *losses[0].parameters()], lr=3e-3)
    curve = []
    for _ in range(30):
        outputs = encoder(window, subject)
        value = 0.75 * losses[0](outputs, batch) + 0.25 * losses[1](outputs, batch)
        optimiser.zero_grad()
        value.backward()
        still = [name for name, parameter in encoder.named_parameters() if parameter.grad is None]
        assert not still
        optimiser.step()
        curve.append(value.item())
    assert np.mean(curve[-5:]) < 0.7 * curve[0]


# --- ATM-S and NICE ---------------------------------------------------------------------------------------------------


def image_seen(encoder: Atm, window: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All tokens behind the transformer layer, and those that the convolution was given."""
    seen: list[torch.Tensor] = []
    hooks = [
        encoder.layer.register_forward_hook(lambda _, __, tokens: seen.append(tokens)),
        encoder.conv.register_forward_pre_hook(lambda _, given: seen.append(given[0])),
    ]
    encoder(window, torch.tensor([0]))
    for hook in hooks:
        hook.remove()
    return seen[0], seen[1].squeeze(1)


def test_the_released_model_loses_its_last_channel_and_the_flag_keeps_it() -> None:
    shape = replace(EEG, n_channels=5)
    for drop, kept in ((True, slice(0, 5)), (False, slice(1, 6))):
        encoder = used("atm", {"drop_last_channel": drop}, shape)
        assert isinstance(encoder, Atm)
        tokens, image = image_seen(encoder, torch.randn(1, 250, 5))
        assert tokens.shape == (1, 6, 250)
        assert torch.equal(image, tokens[:, kept])


def test_unknown_subjects_share_a_token_and_known_ones_have_their_own() -> None:
    encoder = used("atm", {}, replace(EEG, n_channels=5))
    window = torch.randn(1, 250, 5)
    shared = encoder(window)["embedding"]
    for unknown in (-1, 10, 99):
        assert torch.equal(encoder(window, torch.tensor([unknown]))["embedding"], shared)
    assert not torch.allclose(encoder(window, torch.tensor([9]))["embedding"], shared)


def test_the_scale_of_the_logits_is_raw_as_released_or_an_exponential() -> None:
    shape = replace(EEG, n_channels=5)
    window = torch.randn(1, 250, 5)
    raw = build("atm", {}, shape)(window)["logit_scale"]
    assert raw.item() == pytest.approx(2.659, abs=1e-3)
    exponential = build("atm", {"raw_logit_scale": False}, shape)(window)["logit_scale"]
    assert exponential.item() == pytest.approx(1 / 0.07, rel=1e-5)
    softplus = build("ubp", {}, shape)(window)["logit_scale"]
    assert softplus.item() == pytest.approx(math.log1p(1 / 0.07), rel=1e-5)


def test_heads_of_62_are_padded_to_64_without_a_trace() -> None:
    encoder = used("atm", {}, replace(EEG, n_channels=5))
    assert isinstance(encoder, Atm)
    attention = encoder.layer.attention
    assert attention.head == 62
    with torch.no_grad():
        padded = _PaddedAttention(attention)
        tokens = torch.randn(2, 6, 250)
        torch.testing.assert_close(padded(tokens), attention(tokens), atol=1e-5, rtol=1e-5)
    assert padded.projected.out_features == 3 * 4 * 64


def test_nices_first_weights_are_drawn_around_zero() -> None:
    torch.manual_seed(0)
    encoder = build("nice", {}, EEG)
    assert isinstance(encoder, Nice)
    assert encoder.projection.second.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert encoder.conv.spatial.weight.std().item() == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize("system", ["nice", "atm", "ubp"])
def test_what_is_there_for_the_baseline_alone_is_left_out(system: str) -> None:
    shape = Shape(125, 4, 100.0, targets={"image": (8,)})
    encoder = used(system, {"baseline": 0.25}, shape)
    assert count(encoder) == count(build(system, {}, replace(shape, n_times=100)))
    window = np.random.default_rng(0).standard_normal((2, 125, 4)).astype(np.float32)
    other = window.copy()
    other[:, :25] = 7.0
    for module in (encoder, encoder.deploy()):
        first, second = (run_torch(module, x, encoder.outputs)["embedding"] for x in (window, other))
        assert np.array_equal(first, second)


def test_what_a_system_lacks_is_named() -> None:
    for system in ("nice", "atm", "ubp"):
        with pytest.raises(ConfigError, match=r"model\.target is 'text', but the data's targets are: image"):
            build(system, {"target": "text"}, EEG)
        with pytest.raises(ConfigError, match=r"model\.baseline is 1\.0 s; expected 0 to less than a window, 1 s"):
            build(system, {"baseline": 1.0}, EEG)
        with pytest.raises(ConfigError, match="unknown field `widht`"):
            build(system, {"widht": 3}, EEG)
    with pytest.raises(ConfigError, match="windows of 60 samples are too short: the convolution needs 75"):
        build("nice", {}, replace(EEG, n_times=60))
    with pytest.raises(ConfigError, match=r"rows of shape \(257, 768\); expected vectors"):
        build("ubp", {}, replace(EEG, targets={"image": (257, 768)}))
    with pytest.raises(ConfigError, match="no positions for their 63 channels"):
        build("brain-module", {}, EEG)
    with pytest.raises(ConfigError, match=r"sensor 1 is at \(0\.5, 3\); expected positions scaled"):
        ChannelMerger(np.array([[0.0, 1.0], [0.5, 3.0]]), 3)
    with pytest.raises(ConfigError, match="none of the 2 sensors has a known position"):
        ChannelMerger(np.full((2, 2), MISSING), 3)
    encoder = build("brain-module", SMALL, meg(20, 9, 2))
    with pytest.raises(ConfigError, match="knows 2 subjects; say whose"):
        encoder(torch.zeros(1, 20, 9))
    with pytest.raises(ConfigError, match="subject 2 is not one of the 2"):
        encoder.deploy(2)


# --- the blur prior ---------------------------------------------------------------------------------------------------


def test_the_blur_is_gaussian_outside_and_half_sharp_in_the_middle() -> None:
    kernel = gaussian_kernel(51).double()
    offsets = np.arange(51) - 25
    by_hand = np.exp(-(offsets**2) / (2 * 8.0**2))
    np.testing.assert_allclose(kernel, by_hand / by_hand.sum(), rtol=1e-5)

    image = np.random.default_rng(0).random((3, 80, 70)).astype(np.float32)
    blurred = image.astype(np.float64)
    for axis in (1, 2):
        blurred = ndimage.correlate1d(blurred, kernel.numpy(), axis=axis, mode="mirror")
    y, x = np.mgrid[:80, :70]
    distance = np.hypot(y - 39.5, x - 34.5)
    weight = 0.5 * np.exp(-3 * distance / distance.max())
    given = foveated_blur(torch.from_numpy(image)[None], 51)[0]
    np.testing.assert_allclose(given, weight * image + (1 - weight) * blurred, atol=1e-5)
    assert foveal_weight(81, 81)[40, 40] == 0.5
    assert foveal_weight(81, 81)[0, 0].item() == pytest.approx(0.5 * math.exp(-3))
    with pytest.raises(ConfigError, match="kernel of 51 samples is too large for images of 20 by 80"):
        foveated_blur(torch.zeros(1, 3, 20, 80), 51)
    with pytest.raises(ConfigError, match="kernel of 50 samples"):
        gaussian_kernel(50)


def test_what_fits_less_is_blurred_more() -> None:
    uncertainty = Uncertainty(6)
    assert uncertainty.level.tolist() == [MEDIUM] * 6
    index, fit = torch.tensor([4, 0, 2, 1]), torch.tensor([9.0, 1.0, 1.2, -8.0])
    uncertainty.update(index, fit)
    similarity = 0.3 * fit + 0.7
    torch.testing.assert_close(uncertainty.similarity[index], similarity)
    reach = 1.96 * float(np.std(similarity.numpy(), ddof=1))
    middle = float(similarity.mean())
    assert middle - reach > -8.0
    assert middle + reach < 9.0
    assert uncertainty.level.tolist() == [MEDIUM, HIGH, MEDIUM, MEDIUM, LOW, MEDIUM]
    uncertainty.update(index, fit)
    torch.testing.assert_close(uncertainty.similarity[index], 0.3 * fit + 0.7 * similarity)
    assert uncertainty.similarity[[3, 5]].tolist() == [1.0, 1.0]


class Pixels(nn.Module):
    """An image encoder: a fixed projection of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3 * 60 * 60, 8, generator=generator) / 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ self.weight


def seen(gallery: dict[str, NDArray[np.float32]], n: int = 12) -> Trials:
    """Trials of as many stimuli."""
    rows = np.arange(n)
    names = tuple(f"image {row}" for row in rows)
    x = np.zeros((n, 4, 2), np.float32)
    return Trials(x, 100.0, 0 * rows, 0 * rows, ("a",), ("a",), item=rows, gallery=Gallery(names, gallery))


def batch_of(trials: Trials) -> Batch:
    assert trials.gallery is not None
    rows = torch.arange(len(trials))
    targets = {name: torch.from_numpy(value) for name, value in trials.gallery.embeddings.items()}
    return Batch(torch.from_numpy(trials.x), torch.zeros_like(rows), rows, {}, targets, rows)


def test_the_loss_takes_each_windows_level_and_tests_take_the_medium_one() -> None:
    generator = torch.Generator().manual_seed(1)
    levels = torch.randn(12, 3, 8, generator=generator)
    trials = seen({"image_blurred": levels.numpy()})
    loss = UncertaintyBlur({}, trials)
    brain = torch.randn(12, 8, generator=generator)
    scale = torch.tensor(2.0)
    loss.uncertainty.level[:] = torch.tensor([LOW, MEDIUM, HIGH] * 4)
    remembered = loss.uncertainty.level.clone()

    def by_hand(level: torch.Tensor) -> torch.Tensor:
        images = levels[torch.arange(12), level]
        logits = 2.0 * brain @ (images / images.norm(dim=1, keepdim=True)).T
        truth = torch.arange(12)
        return (nn.functional.cross_entropy(logits, truth) + nn.functional.cross_entropy(logits.T, truth)) / 2

    outputs = {"embedding": brain, "logit_scale": scale}
    loss.eval()
    torch.testing.assert_close(loss(outputs, batch_of(trials)), by_hand(torch.full((12,), MEDIUM)))
    assert torch.equal(loss.uncertainty.level, remembered), "a test changes nothing"
    later = replace(batch_of(trials), index=torch.arange(12) + 100)
    torch.testing.assert_close(loss(outputs, later), by_hand(torch.full((12,), MEDIUM)))
    loss.train()
    torch.testing.assert_close(loss(outputs, batch_of(trials)), by_hand(remembered))
    assert not torch.equal(loss.uncertainty.similarity, torch.ones(12))
    alone = loss({"embedding": brain}, batch_of(trials))
    alone.backward()
    assert loss.logit_scale.grad is not None, "an encoder without a scale has the loss's own"


def test_images_are_blurred_as_the_levels_that_were_computed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(12, 3, 60, 60, generator=torch.Generator().manual_seed(0))
    brain = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(blur_prior, "Pixels", Pixels, raising=False)
    for released, kernels in ((False, KERNELS), (True, RELEASED_KERNELS)):
        levels = blur_levels(images, Pixels(), kernels)
        assert levels.shape == (12, 3, 8)
        before = seen({"image_blurred": levels.numpy()})
        live = seen({"pixels": images.numpy()})
        options = {"target": "pixels", "image_encoder": "rtdecode_models.systems.blur_prior:Pixels"}
        losses = [
            UncertaintyBlur({}, before),
            UncertaintyBlur(options | {"released_kernels": released}, live),
        ]
        for loss in losses:
            loss.uncertainty.level[:] = torch.tensor([LOW, MEDIUM, HIGH] * 4)
        values = [
            loss({"embedding": brain}, batch_of(trials)) for loss, trials in zip(losses, (before, live), strict=True)
        ]
        torch.testing.assert_close(values[0], values[1], atol=1e-5, rtol=1e-5)
        assert torch.equal(levels[:, LOW], levels[:, MEDIUM]) is released, "the released code blurs two levels alike"
        assert not any(parameter.requires_grad for name, parameter in losses[1].named_parameters() if "image" in name)


def test_a_gallery_without_blur_levels_is_named() -> None:
    flat = seen({"image": np.zeros((12, 8), np.float32)})
    with pytest.raises(ConfigError, match="target is 'image_blurred'; the data's gallery has image"):
        UncertaintyBlur({}, flat)
    with pytest.raises(ConfigError, match=r"shape \(12, 8\); expected three blur levels"):
        UncertaintyBlur({"target": "image"}, flat)
    with pytest.raises(ConfigError, match=r"expected \(stimuli, colours, height, width\)"):
        UncertaintyBlur({"target": "image", "image_encoder": "os:getcwd"}, flat)
    pixels = seen({"pixels": np.zeros((12, 3, 60, 60), np.float32)})
    with pytest.raises(ConfigError, match=r"gave a str; expected a torch\.nn\.Module"):
        UncertaintyBlur({"target": "pixels", "image_encoder": "os:getcwd"}, pixels)
