"""Du-IN and BrainBERT: published sizes, what their layers may see, their stages of training, and their ONNX graphs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the encoders need torch: pip install rtdecode[train]")

import torch
from scipy.signal import stft

from rtdecode.errors import ConfigError
from rtdecode_export.onnx import largest_errors, run_onnx, run_torch, to_onnx
from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.brainbert import BrainBert, ProbeConfig
from rtdecode_models.systems.brainbert_masked import BrainBertMasked, MaskedConfig, mask, stretches
from rtdecode_models.systems.du_in import DuIn, WordsConfig
from rtdecode_models.systems.du_in_masked import DuInMasked, random_mask
from rtdecode_models.systems.du_in_masked import MaskedConfig as DuInMaskedConfig
from rtdecode_models.systems.du_in_tokenizer import DuInTokenizer, Quantizer, TokenizerConfig
from rtdecode_models.systems.registry import build
from rtdecode_models.systems.spectrogram import Spectrogram, standardised
from rtdecode_models.systems.transformer import SelfAttention, sinusoids
from rtdecode_models.training.recipe import read_recipe

RECIPES = Path(__file__).resolve().parents[1] / "models" / "recipes"

#: Ten bipolar channels, 3 s at 1000 Hz, 61 words; and 5 s at 2048 Hz of three electrodes.
WORDS = Shape(3000, 10, 1000.0, classes={"label": 61})
FIVE_S = Shape(10240, 3, 2048.0, classes={"label": 2})
#: The same kinds, small: 0.6 s at 200 Hz, six segments of 0.1 s; 1 s at 256 Hz.
FEW_WORDS = Shape(120, 4, 200.0, classes={"label": 3})
ONE_S = Shape(256, 3, 256.0, classes={"label": 2})
SMALL: dict[str, Any] = {"filters": 8, "last_filters": 4, "depth": 1, "heads": 2, "head_width": 8, "hidden": 16}
TOKENS: dict[str, Any] = {**SMALL, "codes": 16, "code_width": 6, "decoder_depth": 1}
SHORT: dict[str, Any] = {
    "width": 24,
    "hidden": 32,
    "depth": 1,
    "heads": 2,
    "frame": 50,
    "hop": 10,
    "n_bins": 12,
    "dropped": 2,
}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def noise(n, shape, seed=0):
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.standard_normal((n, shape.n_times, shape.n_channels)).astype(np.float32))


def check_export(encoder, window):
    """`deploy` gives the numbers of `forward`, and onnxruntime those of `deploy`, in operators that TensorRT takes."""
    encoder.eval()
    outputs = encoder.outputs
    deployed = encoder.deploy()
    with torch.no_grad():
        expected = encoder(window)
        for name, value in zip(outputs, deployed(window), strict=True):
            assert torch.allclose(value, expected[name], atol=1e-5), name
    graph = to_onnx(deployed, tuple(window.shape[1:]), outputs)
    windows = window.numpy()
    errors = largest_errors(run_torch(deployed, windows, outputs), run_onnx(graph, windows, outputs))
    assert max(errors.values()) <= 1e-4
    forbidden = {"Einsum", "STFT", "DFT", "Loop", "Scan", "If", "NonZero", "RandomUniformLike", "ScatterND"}
    assert not set(graph.operators) & forbidden
    return graph


@pytest.fixture(autouse=True)
def one_thread():
    """These networks are too small for more, and tests run side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- Du-IN ------------------------------------------------------------------------------------------------------------


def test_du_in_has_the_published_number_of_parameters_layer_by_layer():
    """4.18 M for ten channels; with the codebook and its projections 4.33 M, where the paper has 4.38 M."""
    encoder = build("du-in", {}, WORDS)
    assert isinstance(encoder, DuIn)
    shared = encoder.encoder
    assert (shared.n_tokens, shared.segment, shared.steps, shared.width) == (30, 100, 10, 160)
    assert count(shared.subjects) == 10 * 16 + 16
    convolutions = (16 * 19 + 1) * 128 + (128 * 3 + 1) * 128 + (128 * 3 + 1) * 16
    assert count(shared.patch) == convolutions + 2 * (128 + 128 + 16)
    attention = 3 * (160 + 1) * 512 + (512 + 1) * 160 + 2 * 2 * 64
    assert count(shared.blocks) == 8 * (attention + (160 + 1) * 320 + (320 + 1) * 160 + 2 * 2 * 160)
    assert count(encoder.classifier) == (4800 + 1) * 128 + (128 + 1) * 61
    assert count(encoder) == 4_182_813
    tokenizer = build("du-in-tokenizer", {}, WORDS)
    assert isinstance(tokenizer, DuInTokenizer)
    book = count(tokenizer.project) + count(tokenizer.restore) + tokenizer.quantizer.codebook.numel()
    assert count(encoder) + book == 4_334_717
    assert count(tokenizer) == 5_776_410


def test_du_in_exports_at_its_published_size():
    torch.manual_seed(0)
    encoder = build("du-in", {}, WORDS)
    encoder.train()(noise(4, WORDS))  # statistics of batch norm that are not those of a new network
    check_export(encoder, noise(3, WORDS, 1))


def test_a_token_sees_its_own_segment_only_and_the_transformer_all():
    torch.manual_seed(0)
    shared = DuIn(WordsConfig(**SMALL), FEW_WORDS).eval().encoder
    window = noise(1, FEW_WORDS)
    changed = window.clone()
    changed[:, 40:60] += 1.0
    with torch.no_grad():
        moved = (shared.patches(changed) - shared.patches(window)).abs().amax(dim=2)[0]
        assert moved[2] > 1e-3
        assert torch.equal(moved[[0, 1, 3, 4, 5]], torch.zeros(5))
        assert ((shared(changed) - shared(window)).abs().amax(dim=2)[0] > 1e-5).all()


def test_the_convolutions_have_no_activation_between_them():
    """As released: a patch is an affine function of its segment."""
    torch.manual_seed(0)
    shared = DuIn(WordsConfig(**SMALL), FEW_WORDS).eval().encoder
    a, b = noise(1, FEW_WORDS, 1), noise(1, FEW_WORDS, 2)
    with torch.no_grad():
        middle = (shared.patches(a) + shared.patches(b)) / 2
        assert torch.allclose(shared.patches((a + b) / 2), middle, atol=1e-5)


def test_queries_and_keys_are_normalised():
    """Their size has no say in where attention goes; without the norm it has."""
    tokens = torch.randn(1, 5, 12)
    for normed, same in ((True, True), (False, False)):
        torch.manual_seed(0)
        attention = SelfAttention(12, 2, 8, norm_queries=normed)
        with torch.no_grad():
            attention.queries.bias.zero_()
            before = attention(tokens)
            attention.queries.weight.mul_(30)
            assert torch.allclose(attention(tokens), before, atol=1e-3) is same


def test_positions_are_sines_and_cosines():
    codes = sinusoids(7, 6)
    assert torch.allclose(
        codes[3, 2:4], torch.tensor([np.sin(3 * 1e4 ** (-2 / 6)), np.cos(3 * 1e4 ** (-2 / 6))]).float()
    )
    assert codes[0].tolist() == [0, 1, 0, 1, 0, 1]


def test_each_subject_has_a_matrix_and_is_deployed_with_it_alone():
    torch.manual_seed(0)
    shape = Shape(120, 4, 200.0, n_subjects=3, classes={"label": 3})
    encoder = DuIn(WordsConfig(**SMALL), shape)
    window = noise(2, shape)
    with torch.no_grad():
        one, other = (encoder.eval()(window, torch.tensor([who, who]))["logits"] for who in (0, 2))
    assert not torch.allclose(one, other, atol=1e-3)
    alone = encoder.deploy(2)
    assert torch.allclose(alone(window)[0], other, atol=1e-6)
    assert count(alone) == count(encoder) - 2 * (4 * 16 + 16)
    with pytest.raises(ConfigError, match="3 subjects; say for which"):
        encoder.deploy()
    with pytest.raises(ConfigError, match="subject 3 of an encoder that knows 3"):
        encoder.deploy(3)
    with pytest.raises(ValueError, match="expected to be told which"):
        encoder(window)


def test_du_in_learns_words_that_are_there():
    torch.manual_seed(0)
    shape = Shape(120, 4, 200.0, classes={"label": 2})
    encoder = DuIn(WordsConfig(**SMALL, dropout=0.0), shape)
    label = torch.arange(24) % 2
    window = noise(24, shape)
    window[:, 40:80, 1] += (2.0 * label[:, None] - 1) * 1.5
    optimiser = torch.optim.AdamW(encoder.parameters(), 3e-3)
    for _ in range(25):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(encoder(window)["logits"], label).backward()
        optimiser.step()
    fresh = noise(24, shape, 9)
    fresh[:, 40:80, 1] += (2.0 * label[:, None] - 1) * 1.5
    assert (encoder.eval()(fresh)["logits"].argmax(1) == label).float().mean() >= 0.9


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({}, Shape(3001, 10, 1000.0, classes={"label": 61}), "whole number of segments"),
        ({"kernel": 18}, WORDS, "odd number"),
        ({"depth": 0}, WORDS, "depth is 0"),
        ({"width": 160}, WORDS, "width"),
        ({"label": "colour"}, WORDS, "colour"),
    ],
)
def test_what_du_in_cannot_be_built_from_is_named(options, shape, message):
    with pytest.raises(ConfigError, match=message):
        build("du-in", options, shape)


# --- the stages before the words --------------------------------------------------------------------------------------


def tokenizer(seed=0, **options):
    torch.manual_seed(seed)
    return DuInTokenizer(TokenizerConfig(**(TOKENS | options)), FEW_WORDS)


def test_the_tokenizer_gives_back_the_signal_and_follows_it_with_its_codes():
    """Losses fall; codes stay of length 1, more than one is used, and none has a gradient."""
    stage = tokenizer(dropout=0.0)
    time = torch.arange(120) / 200.0
    frequency = torch.rand(16, 1) * 10 + 5
    window = torch.sin(2 * np.pi * frequency * time)[:, :, None] * torch.tensor([1.0, -1.0, 0.5, 0.2])
    optimiser = torch.optim.AdamW(stage.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        outputs = stage(window)
        (outputs["loss_reconstruction"] + outputs["loss_commitment"]).backward()
        optimiser.step()
        losses.append(float(outputs["loss_reconstruction"].detach()))
    assert outputs["reconstruction"].shape == window.shape
    assert np.mean(losses[-3:]) < 0.75 * np.mean(losses[:3])
    assert torch.allclose(stage.quantizer.codebook.norm(dim=1), torch.ones(16), atol=1e-5)
    assert len(outputs["codes"].unique()) > 1
    assert "quantizer.codebook" not in dict(stage.named_parameters())


def test_the_gradient_goes_straight_through_the_codes_to_the_encoder():
    stage = tokenizer(dropout=0.0)
    stage(noise(4, FEW_WORDS))["loss_reconstruction"].backward()
    gradient = stage.encoder.subjects.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_codes_move_by_the_published_average_and_only_where_they_are_used():
    quantizer = Quantizer(4, 3, decay=0.99)
    quantizer.codebook.copy_(torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [-1.0, 0, 0]]))
    quantizer.started.fill_(1)
    vectors = torch.nn.functional.normalize(torch.tensor([[[1.0, 0.5, 0], [1.0, 0.3, 0]]]), dim=2)
    codes, quantized = quantizer.train()(vectors)
    assert codes.tolist() == [[0, 0]]
    assert torch.equal(quantized, torch.tensor([[[1.0, 0, 0], [1.0, 0, 0]]]))
    mean = torch.nn.functional.normalize(vectors[0].sum(0), dim=0)
    moved = torch.nn.functional.normalize(0.99 * torch.tensor([1.0, 0, 0]) + 0.01 * mean, dim=0)
    assert torch.allclose(quantizer.codebook[0], moved)
    assert quantizer.codebook[1:].tolist() == [[0, 1, 0], [0, 0, 1], [-1, 0, 0]]
    before = quantizer.codebook.clone()
    quantizer.eval()(vectors)
    assert torch.equal(quantizer.codebook, before)


def test_codes_begin_with_k_means_on_the_first_batch():
    """Three bunches of vectors, three codes: one in the middle of each."""
    torch.manual_seed(0)
    middles = torch.eye(3)
    vectors = torch.nn.functional.normalize(middles.repeat(20, 1) + 0.05 * torch.randn(60, 3), dim=1)[None]
    # Random starts may take two vectors of one bunch; that is k-means, and the seed is one where they do not.
    quantizer = Quantizer(3, 3, decay=0.99).train()
    quantizer(vectors)
    assert quantizer.started
    assert (quantizer.codebook @ middles.T).amax(dim=0).min() > 0.99


def test_half_of_the_tokens_is_masked_and_then_the_other_half():
    torch.manual_seed(0)
    masked = random_mask(500, 30, 15, torch.device("cpu"))
    assert (masked.sum(dim=1) == 15).all()
    assert (masked.float().mean(dim=0) - 0.5).abs().max() < 0.12
    stage = DuInMasked(DuInMaskedConfig(**TOKENS, dropout=0.0), FEW_WORDS)
    stage.start_from(tokenizer().state_dict())
    window = noise(3, FEW_WORDS)
    stage.eval()
    torch.manual_seed(5)
    loss = stage(window)["loss_masked"]
    torch.manual_seed(5)
    which = random_mask(3, 6, 3, window.device)
    patches, codes = stage.encoder.patches(window), stage.tokenizer(window)[0].long()
    per_token = []
    for seen in (which, ~which):
        tokens = torch.where(seen[:, :, None], stage.mask, patches)
        logits = stage.predict(stage.encoder.transform(tokens))
        per_token.append(torch.nn.functional.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none"))
    each_once = torch.where(which.flatten(), per_token[0], per_token[1])
    assert torch.allclose(loss, each_once.mean(), atol=1e-6)


def test_the_masked_stage_trains_all_but_the_tokenizer_and_hands_on_to_the_words():
    first = tokenizer()
    first(noise(4, FEW_WORDS))
    stage = DuInMasked(DuInMaskedConfig(**TOKENS), FEW_WORDS)
    with pytest.raises(ConfigError, match="has no tokenizer"):
        stage.train()(noise(2, FEW_WORDS))
    taken = stage.start_from(first.state_dict())
    assert "tokenizer.quantizer.codebook" in taken
    assert not any(name.startswith("encoder.") for name in taken)
    frozen = {name: value.clone() for name, value in stage.tokenizer.state_dict().items()}
    optimiser = torch.optim.AdamW(stage.parameters(), 1e-2)
    stage.train()(noise(4, FEW_WORDS))["loss_masked"].backward()
    optimiser.step()
    assert all(torch.equal(value, frozen[name]) for name, value in stage.tokenizer.state_dict().items())
    moved = [p.grad is not None for name, p in stage.named_parameters() if not name.startswith("tokenizer.")]
    assert all(moved)

    words = DuIn(WordsConfig(**SMALL), FEW_WORDS)
    taken = words.start_from(stage.state_dict())
    own = stage.encoder.state_dict()
    assert {name for name in taken if not name.startswith("tokenizer.")} == {f"encoder.{name}" for name in own}
    assert all(torch.equal(value, own[name]) for name, value in words.encoder.state_dict().items())
    with pytest.raises(ConfigError, match="expected a former stage"):
        words.start_from({"something.weight": torch.zeros(3)})


def test_tokenizer_and_masked_stage_export():
    first = tokenizer()
    first.train()(noise(6, FEW_WORDS))
    graph = check_export(first, noise(3, FEW_WORDS, 1))
    assert graph.operators["ArgMax"] == 1
    assert "ConvTranspose" not in graph.operators
    stage = DuInMasked(DuInMaskedConfig(**TOKENS), FEW_WORDS)
    stage.start_from(first.state_dict())
    check_export(stage, noise(3, FEW_WORDS, 1))


# --- BrainBERT --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "pretraining", "encoder"),
    [("large", 43_183_144, 42_560_256), ("base", 21_919_528, 21_296_640), ("small", 4_728_760, 4_564_752)],
)
def test_brainbert_has_the_published_number_of_parameters(size, pretraining, encoder):
    """43.18 M, 21.9 M and 4.7 M with the head of the pre-training; 186 frames of 40 frequencies."""
    with torch.device("meta"):
        stage = BrainBertMasked(MaskedConfig(size=size), FIVE_S)
    assert count(stage) == pretraining
    assert count(stage.encoder) == encoder
    assert (stage.encoder.n_frames, stage.encoder.spectrogram.n_bins) == (186, 40)


def test_brainbert_exports_at_its_published_size():
    """The small one: three electrodes in one batch."""
    torch.manual_seed(0)
    encoder = build("brainbert", {"size": "small"}, FIVE_S)
    assert encoder.outputs == ("logits", "embedding")
    graph = check_export(encoder, 5e-5 * noise(2, FIVE_S))
    assert graph.operators["Conv"] == 1


@pytest.mark.parametrize(("n_times", "length", "hop"), [(10240, 400, 50), (1001, 64, 24), (999, 51, 17)])
def test_the_spectrogram_is_scipys(n_times, length, hop):
    x = np.random.default_rng(0).standard_normal((3, n_times))
    front = Spectrogram(n_times, length, hop, 25)
    _, _, expected = stft(x, nperseg=length, noverlap=length - hop)
    given = front(torch.from_numpy(x.astype(np.float32))).numpy()
    assert given.shape == (3, front.n_frames, 25)
    assert np.abs(given - np.abs(expected[:, :25]).transpose(0, 2, 1)).max() <= 1e-5


def test_each_frequency_is_standardised_over_the_whole_window_before_frames_are_dropped():
    x = 3e-5 * np.random.default_rng(1).standard_normal(10240)
    encoder = BrainBert(ProbeConfig(size="small", label=""), FIVE_S).encoder
    given = encoder.spectrograms(torch.from_numpy(x.astype(np.float32))[None, :, None]).numpy()
    _, _, transform = stft(x, 2048, nperseg=400, noverlap=350)
    magnitude = np.abs(transform[:40])
    expected = (magnitude - magnitude.mean(1, keepdims=True)) / magnitude.std(1, keepdims=True)
    assert given.shape == (1, 186, 40)
    assert np.allclose(given[0], expected[:, 10:-10].T, atol=1e-3)


def test_a_frequency_that_never_changes_is_zero():
    assert torch.equal(standardised(torch.full((1, 5, 2), 0.7)), torch.zeros(1, 5, 2))


def test_electrodes_are_encoded_one_by_one():
    torch.manual_seed(0)
    encoder = BrainBert(ProbeConfig(**SHORT), ONE_S).eval()
    window = noise(2, ONE_S)
    with torch.no_grad():
        every = encoder(window)["embedding"]
        assert every.shape == (2, 3, 24)
        turned = encoder(window[:, :, [2, 0, 1]])["embedding"]
        assert torch.allclose(turned, every[:, [2, 0, 1]], atol=1e-5)
        alone = encoder(window[:, :, 1:2])["embedding"]
        assert torch.allclose(alone[:, 0], every[:, 1], atol=1e-5)


def test_the_probe_sees_the_mean_of_the_frames_in_the_middle():
    torch.manual_seed(0)
    encoder = BrainBert(ProbeConfig(**SHORT, centre=4), ONE_S).eval()
    window = noise(2, ONE_S)
    with torch.no_grad():
        features = encoder.encoder(encoder.encoder.spectrograms(window)).reshape(2, 3, -1, 24)
        n_frames = features.shape[2]
        middle = features[:, :, (n_frames - 4) // 2 : (n_frames + 4) // 2].mean(2)
        outputs = encoder(window)
        assert torch.allclose(outputs["embedding"], middle, atol=1e-6)
        assert encoder.probe is not None
        assert torch.allclose(outputs["logits"][:, 1:], encoder.probe(middle.mean(1)), atol=1e-5)
    assert torch.equal(outputs["logits"][:, 0], torch.zeros(2))
    assert count(encoder.probe) == 25


def test_electrodes_side_by_side_or_no_probe_at_all():
    wide = BrainBert(ProbeConfig(**SHORT, electrodes="concatenate"), Shape(256, 3, 256.0, classes={"label": 4}))
    assert wide.probe is not None
    assert wide.probe.weight.shape == (4, 3 * 24)
    assert wide(noise(2, ONE_S))["logits"].shape == (2, 4)
    none = BrainBert(ProbeConfig(**SHORT, label=""), Shape(256, 3, 256.0))
    assert none.outputs == ("embedding",)
    check_export(none, noise(2, ONE_S))


def test_a_frozen_encoder_is_not_trained_and_not_dropped_out_of():
    torch.manual_seed(0)
    window = noise(3, ONE_S)
    frozen = BrainBert(ProbeConfig(**SHORT), ONE_S).train()
    assert torch.equal(frozen(window)["embedding"], frozen(window)["embedding"])
    frozen(window)["logits"].sum().backward()
    assert {name for name, p in frozen.named_parameters() if p.grad is not None} == {"probe.weight", "probe.bias"}
    tuned = BrainBert(ProbeConfig(**SHORT, frozen=False), ONE_S).train()
    assert not torch.equal(tuned(window)["embedding"], tuned(window)["embedding"])
    tuned(window)["logits"].square().sum().backward()
    assert all(p.grad is not None for p in tuned.parameters())


def test_a_probe_starts_from_the_pretraining():
    torch.manual_seed(0)
    before = BrainBertMasked(MaskedConfig(**SHORT), ONE_S)
    probe = BrainBert(ProbeConfig(**SHORT), ONE_S)
    taken = probe.start_from(before.state_dict())
    assert set(taken) == {f"encoder.{name}" for name in before.encoder.state_dict()}
    window = noise(2, ONE_S)
    with torch.no_grad():
        assert torch.allclose(probe.eval()(window)["embedding"], before.eval()(window)["embedding"], atol=1e-6)


@pytest.mark.parametrize(("chance", "longest"), [(0.1, 5), (0.05, 5), (0.1, 2)])
def test_as_much_is_masked_as_the_published_rates_make(chance, longest):
    """A stretch of mean length m begins at an uncovered position with chance p: p m / (1 - p + p m) is covered."""
    torch.manual_seed(0)
    where, age, start = stretches(300, 400, chance, longest, torch.device("cpu"))
    mean = (longest + 1) / 2
    expected = chance * mean / (1 - chance + chance * mean)
    assert abs(float(where.float().mean()) - expected) < 0.05 * expected
    assert int(age[where].max()) == longest - 1
    begun = where & (age == 0)
    free = ~where | begun
    assert abs(float(begun.sum() / free.sum()) - chance) < 0.05 * chance
    inner = begun[:, :-longest].nonzero()
    lengths = torch.stack([(start[row] == position).sum() for row, position in inner[:3000].tolist()])
    shares = torch.bincount(lengths, minlength=longest + 1)[1:] / len(lengths)
    assert (shares - 1 / longest).abs().max() < 0.04


def test_of_ten_stretches_eight_are_zeroed_one_is_replaced_and_one_stays():
    torch.manual_seed(0)
    whole = torch.randn(200, 186, 40)
    config = MaskedConfig(masked=0.05, most_bins=1)
    hidden, masked = mask(whole, config)
    assert torch.equal(hidden[~masked], whole[~masked])
    # Frames that are masked in all bins; bins of one width then tell a frame's fate by the bins that none masked.
    frames = masked.all(dim=2)
    bins = masked.float().mean(dim=1) == 1
    free = ~bins[:, None, :].expand_as(whole)
    zeroed = ((hidden == 0) | ~free).all(dim=2) & frames
    stays = ((hidden == whole) | ~free).all(dim=2) & frames
    total = frames.sum()
    assert abs(float(zeroed.sum() / total) - 0.8) < 0.02
    assert abs(float(stays.sum() / total) - 0.1) < 0.02
    replaced = frames & ~zeroed & ~stays
    row, frame = replaced.nonzero()[0].tolist()
    kept = free[row, frame]
    elsewhere = (whole[row][:, kept] == hidden[row, frame, kept]).all(dim=1)
    assert elsewhere.any()


def test_the_loss_counts_bins_that_stand_out_once_more_and_doubly():
    torch.manual_seed(0)
    stage = BrainBertMasked(MaskedConfig(**SHORT), ONE_S).eval()
    window = noise(2, ONE_S)
    with torch.no_grad():
        torch.manual_seed(3)
        outputs = stage(window)
        torch.manual_seed(3)
        whole = stage.encoder.spectrograms(window)
        hidden, masked = mask(whole, stage.config)
        error = (stage.head(stage.encoder(hidden)) - whole).abs()
    out = masked & (whole.abs() > 1)
    assert 0 < int(out.sum()) < int(masked.sum())
    assert torch.allclose(outputs["loss_masked"], error[masked].mean(), atol=1e-6)
    assert torch.allclose(outputs["loss_content"], 2 * error[out].mean(), atol=1e-5)
    deployed = stage.train().deploy()
    assert stage.training, "what is deployed is a copy"
    assert torch.allclose(deployed(window)[0], outputs["embedding"], atol=1e-6)


def test_pretraining_learns_what_surrounds_a_mask():
    """Slow rhythms whose size comes and goes in all frequencies at once."""
    torch.manual_seed(0)
    stage = BrainBertMasked(MaskedConfig(**SHORT, dropout=0.0), ONE_S)
    window = noise(8, ONE_S) * (1.2 + torch.sin(torch.linspace(0, 12, 256)))[None, :, None]
    optimiser = torch.optim.AdamW(stage.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        outputs = stage(window)
        (outputs["loss_masked"] + outputs["loss_content"]).backward()
        optimiser.step()
        losses.append(float(outputs["loss_masked"].detach()))
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 100}, "multiple of 12 heads"),
        ({"size": "huge"}, "huge"),
        ({"frame": 9000, "hop": 5000}, "2 frames|4 frames|3 frames|expected more"),
        ({"n_bins": 300}, "expected 1 to 201"),
    ],
)
def test_what_brainbert_cannot_be_built_from_is_named(options, message):
    with pytest.raises(ConfigError, match=message):
        build("brainbert", options, FIVE_S)


# --- recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("du_in_tokenizer", WORDS),
        ("du_in_masked", WORDS),
        ("du_in_words", WORDS),
        ("brainbert_pretraining", FIVE_S),
        ("brainbert_probe", FIVE_S),
    ],
)
def test_recipes_are_valid_and_name_options_that_their_system_has(name, shape):
    recipe, _ = read_recipe(RECIPES / f"{name}.toml")
    with torch.device("meta"):
        encoder = build(recipe.model.system, recipe.model.options, shape)
    assert count(encoder) > 1_000_000
    if recipe.model.init is not None:
        former = Path(recipe.model.init.checkpoint).name
        assert read_recipe(RECIPES / f"{former.replace('-', '_')}.toml")[0].name == former
