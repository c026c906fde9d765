"""Fronts before a shared trunk: joint training, a new subject by its front alone, averaging over sites."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from rtdecode.errors import ConfigError
from rtdecode_export.onnx import largest_errors, run_onnx, run_torch, to_onnx
from rtdecode_models.data.shape import Shape
from rtdecode_models.data.trials import Gallery, Trials
from rtdecode_models.systems.adaptation import Tuning, batch_of, start_front, templates, tune_front
from rtdecode_models.systems.cross_subject import CrossSubject
from rtdecode_models.systems.federated import fedavg
from rtdecode_models.systems.fronts import AdaptiveMaxPool
from rtdecode_models.systems.registry import build
from rtdecode_models.training.losses_contrastive import InfoNCE, InfoNCESpec

TIMES, WIDTH, SOURCES, ITEMS = 20, 12, 6, 24


def shape(n_channels: int, n_subjects: int, **changes: object) -> Shape:
    made = Shape(TIMES, n_channels, 100.0, n_subjects, targets={"image": (WIDTH,)}, classes={"label": 2})
    return replace(made, **changes)  # type: ignore[arg-type]


def cross(options: dict[str, object], made: Shape) -> CrossSubject:
    torch.manual_seed(0)
    encoder = build("cross-subject", options, made)
    assert isinstance(encoder, CrossSubject)
    return encoder


def people(seed: int, channels: list[int], repeats: int, names: tuple[str, ...]) -> Trials:
    """Trials of people who hear the same sources, each through a mixing of their own, with noise at the sensors."""
    shared, rng = np.random.default_rng(1), np.random.default_rng(seed)
    embeddings = shared.standard_normal((ITEMS, WIDTH)).astype(np.float32)
    sources = np.tensordot(embeddings, shared.standard_normal((WIDTH, SOURCES, TIMES)) / 3, axes=1)
    windows, subjects, items = [], [], []
    for subject, n in enumerate(channels):
        mixing = rng.standard_normal((SOURCES, n))
        for _ in range(repeats):
            clean = np.einsum("ist,sc->itc", sources, mixing)
            window = np.zeros((ITEMS, TIMES, max(channels)))
            window[..., :n] = clean + 1.0 * rng.standard_normal(clean.shape)
            windows.append(window)
            subjects.append(np.full(ITEMS, subject))
            items.append(np.arange(ITEMS))
    item = np.concatenate(items)
    return Trials(
        np.concatenate(windows).astype(np.float32),
        100.0,
        np.concatenate(subjects),
        np.concatenate(subjects),
        names,
        names,
        labels={"label": item % 2},
        classes={"label": ("even", "odd")},
        item=item,
        gallery=Gallery(tuple(f"item {k}" for k in range(ITEMS)), {"image": embeddings}),
    )


def top1(encoder: CrossSubject, trials: Trials, subject: NDArray[np.int64]) -> float:
    """Share of windows whose nearest image, by cosine, is the right one."""
    assert trials.item is not None
    assert trials.gallery is not None
    with torch.no_grad():
        given = encoder(torch.from_numpy(trials.x), torch.from_numpy(subject))["embedding"]
    gallery = nn.functional.normalize(torch.from_numpy(trials.gallery.embeddings["image"]), dim=1)
    return float(((given @ gallery.T).argmax(dim=1).numpy() == trials.item).mean())


def train(encoder: CrossSubject, trials: Trials, loss: nn.Module, epochs: int) -> None:
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=3e-3, weight_decay=1e-2)
    generator = torch.Generator().manual_seed(0)
    encoder.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(trials), generator=generator).split(48):
            batch = replace(batch_of(trials, rows.numpy(), 0), subject=torch.from_numpy(trials.subject[rows.numpy()]))
            value = loss(encoder(batch.window, batch.subject), batch)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
    encoder.eval()


@pytest.fixture(scope="module")
def trained() -> tuple[CrossSubject, Trials]:
    """A model of three subjects with different channels, trained jointly."""
    trials = people(2, [10, 8, 9], 12, ("a", "b", "c"))
    encoder = cross({"trunk": "ubp", "width": 8, "channels": [10, 8, 9]}, shape(10, 3))
    train(encoder, trials, InfoNCE(InfoNCESpec(target="image")), 12)
    return encoder, trials


def test_every_window_goes_through_its_own_subjects_front() -> None:
    encoder = cross({"trunk": "ubp", "channels": [7, 5]}, shape(7, 2)).eval()
    nn.init.normal_(encoder.front(1).linear.weight)
    window, subject = torch.randn(5, TIMES, 7), torch.tensor([1, 0, 1, 1, 0])
    together = encoder(window, subject)["embedding"]
    for row in range(5):
        alone = encoder(window[row : row + 1], subject[row : row + 1])["embedding"]
        torch.testing.assert_close(together[row], alone[0])
    changed = window.clone()
    changed[..., 5:] += 1.0
    after = encoder(changed, subject)["embedding"]
    assert torch.equal(after[subject == 1], together[subject == 1]), "the second subject has five channels"
    assert not torch.allclose(after[subject == 0], together[subject == 0])


def test_a_front_of_as_many_channels_changes_nothing_at_first() -> None:
    encoder = cross({"trunk": "ubp"}, shape(7, 2)).eval()
    window = torch.randn(3, TIMES, 7)
    given = encoder(window, torch.tensor([0, 1, 1]))["embedding"]
    torch.testing.assert_close(given, encoder.trunk(window)["embedding"])


@pytest.mark.parametrize(
    "options",
    [
        {"trunk": "ubp", "width": 4},
        {"trunk": "ubp", "front": "bottleneck", "bottleneck": 3, "channels": [7, 5]},
        {"trunk": "mixer", "flat": True, "width": 16, "front": "bottleneck", "pooled": 50, "bottleneck": 3},
        {"trunk": "mixer", "flat": True, "width": 16, "channels": [7, 5]},
    ],
)
def test_a_subjects_deployment_gives_its_numbers(options: dict[str, object]) -> None:
    encoder = cross(options, shape(7, 2))
    encoder.train()
    window = torch.randn(4, TIMES, 7)
    deployed = encoder.deploy(1)
    assert all(module.training for module in encoder.modules()), "deploying leaves the encoder as it was"
    encoder.eval()
    n = encoder.front(1).n_channels
    own = window[..., :n].contiguous().numpy()
    with torch.no_grad():
        given = encoder(window, torch.ones(4, dtype=torch.long))
    expected = {name: given[name].numpy() for name in encoder.outputs}
    assert max(largest_errors(expected, run_torch(deployed, own, encoder.outputs)).values()) <= 1e-5
    graph = to_onnx(deployed, (TIMES, n), encoder.outputs)
    assert not {"GatherND", "Einsum", "Loop", "If"} & graph.operators.keys()
    assert max(largest_errors(expected, run_onnx(graph, own, encoder.outputs)).values()) <= 1e-4


@pytest.mark.parametrize(("n_in", "n_out"), [(7, 7), (10, 3), (5, 8), (4250, 8192)])
def test_the_adaptive_maximum_is_that_of_torch(n_in: int, n_out: int) -> None:
    x = torch.randn(2, 3, n_in)
    assert torch.equal(AdaptiveMaxPool(n_in, n_out)(x), nn.functional.adaptive_max_pool1d(x, n_out))


def test_mindeye2s_front_takes_the_whole_window_and_its_trunk_mixes_one_sample() -> None:
    encoder = cross({"trunk": "mixer", "flat": True, "width": 16}, shape(7, 2))
    assert encoder.front(0).linear.in_features == 7 * TIMES
    assert encoder.virtual(torch.randn(3, TIMES, 7), torch.tensor([0, 1, 0])).shape == (3, 1, 16)
    # Four blocks of a norm and two layers, the layer to the latent, and three of norm and layer.
    blocks = 4 * (2 * 16 + 2 * (16 * 16 + 16))
    rest = 16 * WIDTH + WIDTH + 3 * (2 * WIDTH + WIDTH * WIDTH + WIDTH)
    assert sum(parameter.numel() for parameter in encoder.trunk.parameters()) == blocks + rest


def test_the_trunk_prepares_from_windows_without_dropout() -> None:
    options = {"trunk": "mixer", "flat": True, "width": 16, "front": "bottleneck", "pooled": 50, "bottleneck": 3}
    encoder = cross(options, shape(7, 2)).train()
    before = torch.get_rng_state()
    encoder.prepare(people(3, [7, 7], 1, ("a", "b")))
    assert torch.equal(torch.get_rng_state(), before), "dropout drew numbers"
    assert encoder.training


def test_subjects_learn_one_trunk_jointly(trained: tuple[CrossSubject, Trials]) -> None:
    encoder, trials = trained
    assert [encoder.front(subject).n_channels for subject in range(3)] == [10, 8, 9]
    assert top1(encoder, trials, trials.subject) > 0.9


def test_a_new_subject_is_reached_by_the_front_alone(trained: tuple[CrossSubject, Trials]) -> None:
    encoder, trials = trained
    trunk = {name: value.clone() for name, value in encoder.trunk.state_dict().items()}
    others = [value.clone() for k in range(3) for value in encoder.front(k).state_dict().values()]
    whole = people(7, [11], 9, ("new",))
    rows = np.arange(len(whole))
    few, test = whole.take(rows[: 3 * ITEMS]), whole.take(rows[3 * ITEMS :])

    torch.manual_seed(0)  # what it begins with is drawn: now and then that is right more often than by chance
    subject = encoder.add_subject(11)
    whose = np.full(len(test), subject)
    assert subject == 3
    before = top1(encoder, test, whose)
    start_front(encoder, subject, few, templates(encoder, trials))
    started = top1(encoder, test, whose)
    curve = tune_front(encoder, subject, few, InfoNCE(InfoNCESpec(target="image")), Tuning(epochs=10, batch_size=36))
    tuned = top1(encoder, test, whose)

    assert before < 3 / ITEMS, "a front that was never fitted knows nothing"
    assert started > 0.5, "least squares align the subject with the others"
    assert curve[-1] < curve[0]
    assert tuned > started - 0.05
    assert all(torch.equal(value, trunk[name]) for name, value in encoder.trunk.state_dict().items())
    now = [value for k in range(3) for value in encoder.front(k).state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(others, now, strict=True))
    assert all(parameter.requires_grad for parameter in encoder.trunk.parameters())
    del encoder.fronts[subject]


def test_classes_align_subjects_where_there_are_no_stimuli(trained: tuple[CrossSubject, Trials]) -> None:
    encoder, trials = trained
    common = templates(encoder, trials, "label")
    assert sorted(common) == ["even", "odd"]
    # By hand: each subject counts once, whatever the number of its trials.
    of_subject = [
        encoder.front(k).linear(
            torch.from_numpy(trials.x[(trials.subject == k) & (trials.labels["label"] == 1)])[
                ..., : encoder.front(k).n_channels
            ]
        )
        for k in range(3)
    ]
    torch.testing.assert_close(
        common["odd"], torch.stack([x.mean(0) for x in of_subject]).mean(0).detach(), atol=1e-4, rtol=1e-4
    )


def test_least_squares_find_a_map_that_is_there() -> None:
    rng = np.random.default_rng(3)
    encoder = cross({"trunk": "ubp", "width": 4}, shape(6, 1))
    trials = replace(people(4, [6], 1, ("a",)), x=rng.standard_normal((ITEMS, TIMES, 6)).astype(np.float32))
    weight, bias = rng.standard_normal((4, 6)), rng.standard_normal(4)
    common = {f"item {k}": torch.from_numpy(trials.x[k] @ weight.T + bias).float() for k in range(ITEMS)}
    start_front(encoder, 0, trials, common, ridge=1e-9)
    np.testing.assert_allclose(encoder.front(0).linear.weight.detach(), weight, atol=1e-4)
    np.testing.assert_allclose(encoder.front(0).linear.bias.detach(), bias, atol=1e-4)
    # More numbers than rows: the other form of the same equation.
    flat = cross({"trunk": "ubp", "width": 4, "flat": True}, shape(6, 1))
    wanted = {name: value[:1] for name, value in common.items()}
    start_front(flat, 0, trials, wanted, ridge=1e-9)
    given = flat.front(0)(torch.from_numpy(trials.x)).detach()
    torch.testing.assert_close(given, torch.stack([wanted[f"item {k}"] for k in range(ITEMS)]), atol=1e-3, rtol=1e-3)


def test_reset_tuning_takes_the_trunk_and_begins_fronts_anew(trained: tuple[CrossSubject, Trials]) -> None:
    weights = trained[0].state_dict()
    tuned = cross({"trunk": "ubp", "width": 8}, shape(11, 1))
    front = tuned.front(None).linear.weight.clone()
    taken = tuned.start_from(weights)
    assert all(name.startswith("trunk.") for name in taken)
    assert torch.equal(tuned.front(None).linear.weight, front)
    assert torch.equal(tuned.trunk.state_dict()["projection.first.weight"], weights["trunk.projection.first.weight"])
    assert all(parameter.requires_grad for parameter in tuned.trunk.parameters())

    frozen = cross({"trunk": "nice", "width": 8, "train": "front"}, shape(11, 1, n_times=90))
    frozen.train()
    assert not frozen.trunk.training
    assert frozen.front(None).training
    assert {name.split(".")[0] for name, p in frozen.named_parameters() if p.requires_grad} == {"fronts"}
    with pytest.raises(ConfigError, match=r"no trunk\..*same trunk, nice"):
        frozen.start_from(weights)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ConfigError, match="2 entries; the data are of 3 subjects"):
        cross({"trunk": "ubp", "channels": [7, 5]}, shape(7, 3))
    with pytest.raises(ConfigError, match="channels has 9; expected 1 to 7"):
        cross({"trunk": "ubp", "channels": [7, 9]}, shape(7, 2))
    with pytest.raises(ConfigError, match=r"model\.system is 'other'"):
        cross({"trunk": "other"}, shape(7, 2))
    encoder = cross({"trunk": "ubp"}, shape(7, 2))
    with pytest.raises(ConfigError, match="knows 2 subjects; say whose"):
        encoder(torch.zeros(1, TIMES, 7))
    with pytest.raises(ConfigError, match="subject 2 is not one of the 2"):
        encoder.deploy(2)
    trials = people(4, [7], 1, ("a",))
    with pytest.raises(ConfigError, match="no item in common"):
        start_front(encoder, 0, trials, {"something else": torch.zeros(TIMES, 7)})
    with pytest.raises(ConfigError, match="no label 'colour'; they have label"):
        templates(encoder, trials, "colour")


def test_sites_average_what_they_share_and_nothing_else() -> None:
    first, second = ({"trunk.w": torch.full((2,), v), "trunk.n": torch.tensor(k), "fronts.w": torch.ones(k)}
                     for v, k in ((1.0, 1), (4.0, 3)))  # fmt: skip
    mean = fedavg([first, second], [10, 20], ["trunk.*"])
    assert sorted(mean) == ["trunk.n", "trunk.w"]
    assert torch.equal(mean["trunk.w"], torch.full((2,), 3.0))
    assert torch.equal(mean["trunk.n"], torch.tensor(2))
    with pytest.raises(ConfigError, match=r"site 1 has no fronts\.w"):
        fedavg([first, second], [10, 20], ["fronts.*"])
    with pytest.raises(ConfigError, match="no parameter matches head"):
        fedavg([first, second], [10, 20], ["head.*"])
    with pytest.raises(ConfigError, match="one positive number for each site"):
        fedavg([first, second], [10], ["trunk.*"])
