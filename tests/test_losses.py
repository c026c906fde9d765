"""The losses, each against its formula in numpy, and what a recipe may say of them."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install rtdecode[train]")

import train_kit as kit  # noqa: E402
from scipy.special import log_softmax, softmax  # noqa: E402

from rtdecode.errors import ConfigError  # noqa: E402
from rtdecode_models.data.batch import Batch  # noqa: E402
from rtdecode_models.systems.blur_prior import UncertaintyBlur  # noqa: E402
from rtdecode_models.training.losses import Objective, make_loss, parse_loss  # noqa: E402
from rtdecode_models.training.losses_classify import CrossEntropy, smoothed  # noqa: E402

TRIALS = kit.trials(0, 9)
X = np.random.default_rng(3).standard_normal((9, kit.WIDTH))
Y = TRIALS.gallery.embeddings["image"][TRIALS.item].astype(np.float64)
LOGITS = np.random.default_rng(4).standard_normal((9, 3))


def batch(**changes):
    label = torch.from_numpy(TRIALS.labels["label"])
    targets = {name: torch.from_numpy(rows[TRIALS.item]) for name, rows in TRIALS.gallery.embeddings.items()}
    return Batch(
        torch.from_numpy(TRIALS.x),
        torch.zeros(9, dtype=torch.int64),
        torch.arange(9),
        **{"labels": {"label": label}, "targets": targets, "item": torch.from_numpy(TRIALS.item), **changes},
    )


def loss(outputs=None, given=None, **table):
    module = make_loss(parse_loss(table), TRIALS)
    outputs = {"embedding": torch.from_numpy(X).float(), "logits": torch.from_numpy(LOGITS).float()} | (outputs or {})
    return float(module(outputs, given or batch()).detach())


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def cross(logits, answers=None):
    answers = np.eye(len(logits)) if answers is None else answers
    return -(answers * log_softmax(logits, axis=1)).sum(1).mean()


def both(logits, answers=None):
    return (cross(logits, answers) + cross(logits.T, None if answers is None else answers)) / 2


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({}, both(unit(X) @ unit(Y).T / 0.07)),
        ({"scale": "raw", "normalise": "none"}, both(math.log(1 / 0.07) * X @ Y.T)),
        ({"scale": "softplus", "normalise": "target"}, both(math.log1p(1 / 0.07) * X @ unit(Y).T)),
        ({"scale": "raw", "init": 1.0, "normalise": "target", "directions": "window_to_target"}, cross(X @ unit(Y).T)),
        ({"init": 0.0, "directions": "target_to_window"}, cross(unit(Y) @ unit(X).T)),
    ],
    ids=["brain module, nice", "atm", "ubp", "brainmagick", "other direction"],
)
def test_infonce_in_its_published_scalings(table, expected):
    assert loss(kind="infonce", target="image", **table) == pytest.approx(expected, rel=1e-5)


def test_infonce_takes_the_encoders_own_factor_and_knows_its_own():
    outputs = {"logit_scale": torch.tensor(3.0)}
    given = loss(outputs, kind="infonce", target="image", scale="encoder", normalise="none")
    assert given == pytest.approx(both(3 * X @ Y.T), rel=1e-5)
    learnt = make_loss(parse_loss({"kind": "infonce", "target": "image"}), TRIALS)
    constant = make_loss(parse_loss({"kind": "infonce", "target": "image", "learnable": False}), TRIALS)
    assert learnt.logit_scale.requires_grad
    assert not constant.logit_scale.requires_grad


def test_infonce_without_repeats_among_the_wrong_answers():
    masked = loss(kind="infonce", target="image", mask_repeats=True)
    logits = unit(X) @ unit(Y).T / 0.07
    same = (TRIALS.item[:, None] == TRIALS.item[None]) & ~np.eye(9, dtype=bool)
    assert same.any()
    logits[same] = -1e9
    assert masked == pytest.approx((cross(logits) + cross(logits.T)) / 2, rel=1e-5)


def test_softclip_and_its_temperature():
    spec = {"kind": "softclip", "target": "image", "temperature": (0.1, 0.2), "start": 0.5}
    for progress, temperature in ((0.5, 0.1), (0.75, 0.15), (1.0, 0.2)):
        there = unit(X) @ unit(Y).T / temperature
        answers = softmax(unit(Y) @ unit(Y).T / temperature, axis=1)
        assert loss(given=batch(progress=progress), **spec) == pytest.approx(both(there, answers), rel=1e-4)


def test_bimixco_weighs_both_stimuli_of_a_blend_in_both_directions():
    partner, share = np.array([3, 0, 1, 2, 5, 4, 8, 6, 7]), np.linspace(0.1, 1, 9)
    given = batch(partner=torch.from_numpy(partner), share=torch.from_numpy(share).float())
    logits = unit(X) @ unit(Y).T / 0.05
    rows, columns = log_softmax(logits, axis=1), log_softmax(logits, axis=0)
    there = sum(share[i] * rows[i, i] + (1 - share[i]) * rows[i, partner[i]] for i in range(9))
    back = sum(
        share[j] * columns[j, j] + sum((1 - share[k]) * columns[k, j] for k in range(9) if partner[k] == j)
        for j in range(9)
    )
    assert loss(given=given, kind="bimixco", target="image", temperature=0.05) == pytest.approx(
        -(there + back) / 18, rel=1e-5
    )
    plain = loss(kind="bimixco", target="image", temperature=0.07)
    assert plain == pytest.approx(both(unit(X) @ unit(Y).T / 0.07), rel=1e-5)


def test_regressions():
    shown = np.unique(TRIALS.item)
    assert len(shown) < len(TRIALS.gallery.names), "the gallery has stimuli that are not trained on"
    table = TRIALS.gallery.embeddings["image"][shown].astype(np.float64)
    z = (Y - table.mean(0)) / table.std(0)
    assert loss(kind="mse", target="image") == pytest.approx(((X - z) ** 2).mean(), rel=1e-5)
    assert loss(kind="mse", target="image", standardise=False) == pytest.approx(((X - Y) ** 2).mean(), rel=1e-5)
    assert loss(kind="l2", target="image") == pytest.approx(((X - Y) ** 2).sum(1).mean(), rel=1e-5)
    assert loss(kind="cosine", target="image") == pytest.approx((1 - (unit(X) * unit(Y)).sum(1)).mean(), rel=1e-5)
    partner, share = np.roll(np.arange(9), 1), np.full(9, 0.25)
    given = batch(partner=torch.from_numpy(partner), share=torch.from_numpy(share).float())
    mixed = 0.25 * Y + 0.75 * Y[partner]
    assert loss(given=given, kind="l2", target="image") == pytest.approx(((X - mixed) ** 2).sum(1).mean(), rel=1e-5)


def test_cross_entropies():
    y = TRIALS.labels["label"]
    logs, hard = log_softmax(LOGITS, axis=1), np.eye(3)[y]
    assert loss(kind="cross_entropy") == pytest.approx(-logs[np.arange(9), y].mean(), rel=1e-5)
    even = 0.9 * hard + 0.1 / 3
    assert loss(kind="cross_entropy", smoothing=0.1) == pytest.approx(-(even * logs).sum(1).mean(), rel=1e-5)
    weights = np.array([1.0, 0.1, 2.0])
    torch_weighted = torch.nn.functional.cross_entropy(
        torch.from_numpy(LOGITS), torch.from_numpy(y), torch.from_numpy(weights)
    )
    assert loss(kind="cross_entropy", class_weights=[1.0, 0.1, 2.0]) == pytest.approx(float(torch_weighted), rel=1e-5)
    squashed = log_softmax(1 / (1 + np.exp(-LOGITS)), axis=1)
    assert loss(kind="cross_entropy", sigmoid=True) == pytest.approx(-(hard * squashed).sum(1).mean(), rel=1e-5)
    blended = 0.5 * hard + 0.5 * np.roll(hard, 1, axis=0)
    given = batch(labels={"label": torch.from_numpy(blended).float()})
    assert loss(given=given, kind="cross_entropy") == pytest.approx(-(blended * logs).sum(1).mean(), rel=1e-5)


def test_balanced_weights_count_each_class_alike():
    trials = kit.trials(0, 7)
    module = make_loss(parse_loss({"kind": "cross_entropy", "class_weights": "balanced"}), trials)
    assert isinstance(module, CrossEntropy)
    np.testing.assert_allclose(module.weights.numpy(), 7 / (3 * np.array([3, 2, 2])), rtol=1e-6)


def test_gaussian_smoothing_is_histns():
    """sigma 0.5 over five classes: .787 and .1065 inside, .8805 and .119 at the edge."""
    answers = smoothed(5, 0.0, 0.5).numpy()
    np.testing.assert_allclose(answers[2, 1:4], [0.1065, 0.787, 0.1065], atol=5e-4)
    np.testing.assert_allclose(answers[0, :2], [0.8805, 0.119], atol=5e-4)
    np.testing.assert_allclose(answers.sum(1), 1, rtol=1e-6)


def test_a_modules_own_losses_are_summed_by_weight():
    outputs = {"loss_a": torch.tensor(2.0), "loss_b": torch.tensor([1.0, 3.0])}
    assert loss(outputs, kind="own") == 4.0
    assert loss(outputs, kind="own", weights={"loss_b": 0.5}) == 1.0
    with pytest.raises(ConfigError, match="no output named loss_"):
        loss(kind="own")


def test_the_objective_weighs_and_switches_by_progress():
    tables = [
        {"kind": "infonce", "target": "image", "weight": 2.0, "stop": 0.4},
        {"kind": "cosine", "target": "image", "start": 0.4},
        {"kind": "mse", "target": "image", "weight": 0.5},
    ]
    objective = Objective([parse_loss(table) for table in tables], TRIALS)
    outputs = {"embedding": torch.from_numpy(X).float()}
    early, late, end = (objective(outputs, batch(progress=p)) for p in (0.1, 0.4, 1.0))
    assert set(early) == {"loss", "0 infonce", "2 mse"}
    assert set(late) == set(end) == {"loss", "1 cosine", "2 mse"}
    assert float(early["loss"].detach()) == pytest.approx(
        float((2 * early["0 infonce"] + 0.5 * early["2 mse"]).detach())
    )


def test_a_loss_of_a_systems_own_is_given_its_options_and_the_trials():
    module = make_loss(parse_loss({"kind": "blur_prior:UncertaintyBlur", "gamma": 0.5, "weight": 2.0}), TRIALS)
    assert isinstance(module, UncertaintyBlur)
    assert module.config.gamma == 0.5
    assert len(module.uncertainty.similarity) == len(TRIALS)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"kind": "infonse"}, r"'infonse' - at `\$.kind`"),
        ({"kind": "infonce"}, "missing required field `target`"),
        ({"kind": "infonce", "target": "image", "tmp": 1}, "unknown field `tmp`"),
        ({"kind": "infonce", "target": "image", "start": 0.5, "stop": 0.2}, "counts from 0.5 to 0.2"),
        ({"kind": "infonce", "target": "picture"}, "'picture'; the data's gallery has image, text"),
        ({"kind": "cross_entropy", "label": "colour"}, "'colour'; the data have label"),
        ({"kind": "cross_entropy", "class_weights": [1.0]}, "1 numbers for the 3 classes of 'label'"),
        ({"kind": "nowhere:Loss"}, "'nowhere:Loss' cannot be had"),
        ({"kind": "blur_prior:Nothing"}, "cannot be had"),
        ({"kind": "blur_prior:UncertaintyBlur", "gama": 1}, "unknown field `gama`"),
        ({"kind": "blur_prior:gaussian_kernel"}, "gaussian_kernel"),
    ],
)
def test_losses_that_cannot_be(table, says):
    with pytest.raises(ConfigError, match=says):
        make_loss(parse_loss(table), TRIALS)


def test_outputs_that_are_not_there_are_named():
    with pytest.raises(ConfigError, match=r"output 'words'; this encoder gives embedding, logits"):
        loss(kind="mse", target="image", output="words")
    with pytest.raises(ConfigError, match=r"has 2 classes, and the label 'label' 3"):
        loss({"logits": torch.zeros(9, 2)}, kind="cross_entropy")


@pytest.mark.parametrize("kind", ["infonce", "softclip", "bimixco", "mse", "l2", "cosine"])
@pytest.mark.parametrize("width", [1, kit.WIDTH + 1])
def test_an_output_of_another_width_than_its_target_is_named(kind, width):
    with pytest.raises(ConfigError, match=f"'embedding' is {width} numbers wide and the target 'image' {kit.WIDTH}"):
        loss({"embedding": torch.zeros(9, width)}, kind=kind, target="image")
