"""One network's fitting: the same every time, also when it was broken off; what early stopping and freezing keep."""

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install rtdecode[train]")

import train_kit as kit  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from rtdecode.errors import ConfigError  # noqa: E402
from rtdecode_models.data.batch import Batch  # noqa: E402
from rtdecode_models.training.augment import augment, mixup  # noqa: E402
from rtdecode_models.training.fit import Hooks, Interrupted, _Step, fit  # noqa: E402
from rtdecode_models.training.identity import identity  # noqa: E402
from rtdecode_models.training.losses import Objective  # noqa: E402
from rtdecode_models.training.network import make_network  # noqa: E402
from rtdecode_models.training.optimise import Lamb, make_optimiser  # noqa: E402
from rtdecode_models.training.parts import Workshop  # noqa: E402
from rtdecode_models.training.recipe import parse_recipe  # noqa: E402
from rtdecode_models.training.samples import Samples, batches  # noqa: E402
from rtdecode_models.training.schedule import Constant, Cosine, OneCycle, Steps  # noqa: E402
from rtdecode_models.training.state import read_state  # noqa: E402
from rtdecode_models.training.tasks import Classes, check_tasks  # noqa: E402
from rtdecode_models.training.training_spec import (  # noqa: E402
    ChannelDropout,
    Group,
    Mixup,
    Noise,
    Repetitions,
    Shift,
    Training,
)
from rtdecode_models.training.units import Unit, job_of  # noqa: E402
from rtdecode_models.training.world import World, enter, synchronised  # noqa: E402

#: Everything that draws numbers or remembers something.
BUSY = {
    "epochs": 4,
    "batch_size": 20,
    "learning_rate": 3e-3,
    "clip_norm": 1.0,
    "schedule": {"kind": "onecycle"},
    "augment": [
        {"kind": "mixup", "per": "window", "stop": 0.6},
        {"kind": "shift", "seconds": 0.04},
        {"kind": "noise", "share": 0.5},
        {"kind": "repetitions"},
        {"kind": "channel_dropout"},
    ],
    "early_stopping": {"monitor": "top1", "patience": 3},
}


def job(seed=0, **changes):
    split = {"test": {"by": "session", "names": ["c"]}, "validation": {"by": "trial", "share": 0.2}}
    recipe = parse_recipe(kit.table(**{"split": split, **changes}), "test")
    source = kit.Source()
    return job_of(Unit(name="net", recipe=recipe, split=recipe.split, seed=seed), Workshop(lambda _: source))


def same(first, second):
    return all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def stop_after(count):
    """A `Hooks.stop` that says so when it is asked for the `count`-th time."""
    asked = iter(range(1, 1 << 30))
    return lambda: next(asked) >= count


def test_same_seed_same_weights_and_no_trace_in_the_global_generator():
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    first = fit(job(3, training=BUSY))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(17)
    again, other = fit(job(3, training=BUSY)), fit(job(4, training=BUSY))
    assert again.curves == first.curves
    assert same(first.network, again.network)
    assert other.curves != first.curves
    assert not first.network.training


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "lamb"])
@settings(max_examples=3)
@given(at=st.integers(1, 19), again=st.integers(1, 5))
def test_a_training_that_was_broken_off_goes_on_to_the_same_weights(tmp_path_factory, optimiser, at, again):
    """Stopped after any batch, and once more: dropout, mixup, schedule, optimiser and early stopping all go on."""
    one = job(training={**BUSY, "optimiser": optimiser}, loss=LEARNT)
    whole = fit(one)
    folder = tmp_path_factory.mktemp("resume")
    for count in (at, again):
        with pytest.raises(Interrupted):
            fit(one, Hooks(stop=stop_after(min(count, 4)), folder=folder))
    resumed = fit(one, Hooks(folder=folder))
    assert same(whole.network, resumed.network)
    assert whole.curves == resumed.curves
    assert whole.best_epoch == resumed.best_epoch
    assert same(whole.network, fit(one, Hooks(folder=folder, stop=stop_after(1))).network), "it is finished"


#: A loss with a parameter of its own, one that changes with the training's progress, and the labels of mixup.
LEARNT = [
    {"kind": "bimixco", "target": "image", "stop": 0.5},
    {"kind": "infonce", "target": "text", "weight": 0.3, "start": 0.5},
]


def test_a_state_of_another_training_is_refused(tmp_path):
    with pytest.raises(Interrupted):
        fit(job(), Hooks(stop=stop_after(2), folder=tmp_path))
    with pytest.raises(ConfigError, match=r"net.safetensors belongs to another training.*Remove"):
        fit(job(training={"epochs": 5}), Hooks(folder=tmp_path))
    path = tmp_path / "net.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ConfigError, match=r"net.safetensors is damaged"):
        fit(job(), Hooks(folder=tmp_path))


def test_how_often_the_state_is_written_does_not_matter_to_it(tmp_path):
    one = job()
    with pytest.raises(Interrupted):
        fit(one, Hooks(stop=stop_after(3), folder=tmp_path))
    often = msgspec.structs.replace(one.recipe.training, save_minutes=0.0)
    from dataclasses import replace

    two = replace(one, recipe=msgspec.structs.replace(one.recipe, training=often))
    assert same(fit(two, Hooks(folder=tmp_path)).network, fit(one).network)


def test_a_network_learns_what_can_be_learnt():
    fitted = fit(job(training={"epochs": 10, "batch_size": 20, "learning_rate": 3e-3}))
    assert len(fitted.curves["loss"]) == 10
    losses = [loss or 0.0 for loss in fitted.curves["loss"]]
    assert 0 < losses[-1] < 0.5 * losses[0]
    assert (fitted.curves["validation_top1"][-1] or 0.0) > 0.6, "chance is 1/12"


def test_early_stopping_keeps_the_best_epoch_and_ends():
    training = {
        "epochs": 40,
        "batch_size": 20,
        "learning_rate": 0.02,
        "early_stopping": {"monitor": "loss", "patience": 2},
    }
    fitted = fit(job(training=training))
    losses = [loss or 0.0 for loss in fitted.curves["validation_loss"]]
    assert losses[fitted.best_epoch] == min(losses)
    assert len(losses) == fitted.best_epoch + 3 < 40


def test_early_stopping_on_what_is_not_measured_is_refused():
    training = {"epochs": 1, "early_stopping": {"monitor": "accuracy"}}
    with pytest.raises(ConfigError, match=r"watches 'accuracy', which is not measured here; there is loss, top1"):
        fit(job(training=training))


def test_one_class_alone_is_nothing_to_tell_apart():
    for labels, only in ((np.full(12, 1), "'right'"), (np.full(12, -1), "none")):
        with pytest.raises(ConfigError, match=f"the 12 trials that are trained on have only {only}"):
            check_tasks([Classes()], kit.trials(0, 12, label=labels))
    check_tasks([Classes()], kit.trials(0, 12, label=np.arange(12) % 2))


def test_losses_that_a_system_has_only_while_it_trains_are_watched_too():
    """It contaminates windows in training alone; what is watched is the same for the same weights."""
    training = {"epochs": 2, "batch_size": 20, "learning_rate": 1e-12, "early_stopping": {"monitor": "loss"}}
    own = {"model": {"system": "train_kit:denoising"}, "loss": [{"kind": "own"}]}
    fitted = fit(job(**own, training=training))
    first, second = fitted.curves["validation_loss"]
    assert first == pytest.approx(second, rel=1e-4)
    assert (first or 0.0) > 0
    with pytest.raises(ConfigError, match=r"system 'train_kit:denoising'\): it has no options, not \['depth'\]"):
        fit(job(model={"system": "train_kit:denoising", "depth": 1}))
    with pytest.raises(ConfigError, match=r"'train_kit:nothing' cannot be had"):
        fit(job(model={"system": "train_kit:nothing"}))


def test_frozen_parameters_and_their_dropout_stay_still():
    training = {"epochs": 1, "batch_size": 20}
    begun = fit(job(training={**training, "learning_rate": 1e-12})).network.state_dict()
    frozen = fit(job(model={"system": "ubp", "freeze": ["projection.first.*"]}, training=training))
    for name, value in frozen.network.state_dict().items():
        if name == "logit_scale":
            continue  # not part of this loss
        held = name.startswith("projection.first")
        assert torch.allclose(value, begun[name], atol=1e-6) == held, name
    with pytest.raises(ConfigError, match=r"'nothing.\*', which matches no parameter; they begin with"):
        fit(job(model={"system": "ubp", "freeze": ["nothing.*"]}))
    with pytest.raises(ConfigError, match="leaves no parameter to train"):
        fit(job(model={"system": "ubp", "freeze": ["*"]}, loss=[{"kind": "mse", "target": "image"}]))


def test_groups_have_rates_and_decay_of_their_own_and_vectors_may_be_spared():
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3), torch.nn.Linear(3, 2))
    training = Training(
        weight_decay=0.1,
        decay_vectors=False,
        groups=(Group(parameters=("0.*",), learning_rate=1e-5), Group(parameters=("2.weight",), weight_decay=0.5)),
    )
    found = {
        (group["lr"], group["weight_decay"]): sum(parameter.numel() for parameter in group["params"])
        for group in make_optimiser(module, training).param_groups
    }
    assert found == {(1e-5, 0.1): 9, (1e-5, 0.0): 3, (1e-3, 0.0): 6 + 2, (1e-3, 0.5): 6}
    with pytest.raises(ConfigError, match=r"'3.weight', which matches no trained parameter"):
        make_optimiser(module, Training(groups=(Group(parameters=("3.weight",)),)))


def test_groups_name_parameters_as_freezing_does():
    slow = {"parameters": ["projection.first.*"], "learning_rate": 1e-12}
    begun = fit(job(training={"epochs": 1, "batch_size": 20, "learning_rate": 1e-12})).network.state_dict()
    fitted = fit(job(training={"epochs": 1, "batch_size": 20, "groups": [slow]}))
    for name, value in fitted.network.state_dict().items():
        if name != "logit_scale":  # not part of this loss
            held = name.startswith("projection.first")
            assert torch.allclose(value, begun[name], atol=1e-6) == held, name


def test_losses_are_in_float32_whatever_the_network_computes_in():
    given = job(model={"system": "ubp"}, loss=[{"kind": "softclip", "target": "image"}])
    network, objective = (
        make_network(given.recipe, given.shape, 0)[0].eval(),
        Objective(given.recipe.losses, given.train),
    )
    batch = Samples(given.train).batch(torch.arange(24))
    step = _Step(network, objective, World())
    with torch.autocast("cpu", torch.bfloat16):
        loss = step(batch)["loss"]
        outputs = network(batch.window, batch.subject)
    assert torch.equal(loss, objective({name: value.float() for name, value in outputs.items()}, batch)["loss"])
    assert not torch.equal(loss, step(batch)["loss"]), "the network is not in float32"


def test_batch_statistics_are_shared_by_a_copy_whose_weights_the_network_takes():
    model = {"system": "simpleconv", "width": 8, "n_blocks": 1, "kernel": 5}
    given = job(model=model, loss=[{"kind": "cross_entropy"}])
    network = make_network(given.recipe, given.shape, 0)[0].eval()
    shared = synchronised(network)
    kinds = {type(module) for module in shared.modules()}
    assert torch.nn.SyncBatchNorm in kinds
    assert torch.nn.BatchNorm2d not in kinds
    assert torch.nn.SyncBatchNorm not in {type(module) for module in network.modules()}
    window = torch.from_numpy(given.train.x[:3])
    assert torch.equal(shared(window)["logits"], network(window)["logits"])
    assert list(shared.state_dict()) == list(network.state_dict())


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert enter("cpu").device.type == "cpu"
    with pytest.raises(ConfigError, match="the device is 'gpu'; expected cpu, cuda"):
        enter("gpu")
    with pytest.raises(ConfigError, match=r"'cuda:99', and torch finds \d+ GPUs here; expected cpu or auto"):
        enter("cuda:99")


def test_a_loss_that_becomes_nan_is_an_error_with_its_epoch():
    with pytest.raises(ConfigError, match=r"the loss became (nan|inf) in epoch .*lower training.learning_rate"):
        fit(job(training={"epochs": 30, "batch_size": 20, "learning_rate": 1e30}))


def test_lamb_scales_each_layers_step_to_its_weights():
    """The first step of one layer, by hand: the gradient's sign, as long as the learning rate times the weights."""
    weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
    weight.grad = torch.tensor([[0.1, -7.0]])
    Lamb([weight], lr=0.01, eps=0.0).step()
    expected = torch.tensor([[3.0, 4.0]]) - 0.01 * 5 / 2**0.5 * torch.tensor([[1.0, -1.0]])
    assert torch.allclose(weight, expected)


def test_schedules():
    assert Constant(warmup=0.5).factor(0.25) == 0.5
    step = Steps(at=(0.8,), factor_at=0.1)
    assert [step.factor(k / 50) for k in (0, 39, 40, 49)] == [1.0, 1.0, 0.1, 0.1]
    cosine = Cosine(final=0.1, warmup=0.1)
    assert cosine.factor(0.1) == 1.0
    assert cosine.factor(0.55) == pytest.approx(0.55)
    assert cosine.factor(1.0) == pytest.approx(0.1)
    cycle = OneCycle()
    torch_cycle = torch.optim.lr_scheduler.OneCycleLR(
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), max_lr=1.0, total_steps=1001
    )
    given = []
    for _ in range(1001):
        given.append(torch_cycle.get_last_lr()[0])
        torch_cycle.optimizer.step()
        if len(given) < 1001:
            torch_cycle.step()
    ours = [cycle.factor(k / 1000) for k in range(1001)]
    np.testing.assert_allclose(ours, given, atol=0.01)
    assert ours[-1] == pytest.approx(1 / 25e4)


@given(st.integers(2, 200), st.integers(2, 40), st.integers(0, 9))
def test_batches_hold_everything_once_and_are_even(n, size, seed):
    parts = batches(n, size, torch.Generator().manual_seed(seed))
    assert sorted(torch.cat(parts).tolist()) == list(range(n))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1
    assert min(lengths) >= 2
    shared = batches(n, size, torch.Generator().manual_seed(seed), divisor=2)
    assert all(len(part) % 2 == 0 and len(whole) - len(part) < 2 for part, whole in zip(shared, parts, strict=True))


def batch_of(n=6, **changes):
    windows = torch.eye(n)[:, None, :].repeat(1, 7, 1)
    return Batch(windows, torch.zeros(n, dtype=torch.int64), torch.arange(n), {"label": torch.eye(n)}, **changes)


@pytest.mark.parametrize("per", ["batch", "window"])
@given(st.integers(0, 1000))
def test_mixup_blends_windows_and_labels_alike_and_says_with_what(per, seed):
    batch = batch_of()
    mixed = mixup(batch, Mixup(per=per, alpha=0.15), torch.Generator().manual_seed(seed))
    label = mixed.labels["label"]
    assert mixed.share is not None
    assert mixed.partner is not None
    assert torch.allclose(mixed.window, label[:, None, :].expand_as(mixed.window))
    assert torch.allclose(label.sum(1), torch.ones(6))
    expected = mixed.share[:, None] * torch.eye(6) + (1 - mixed.share[:, None]) * torch.eye(6)[mixed.partner]
    assert torch.allclose(label, expected)
    assert (len(mixed.share.unique()) == 1) == (per == "batch")


def test_mixup_leaves_a_share_alone_and_ends():
    generator = torch.Generator().manual_seed(0)
    mixed = mixup(batch_of(600), Mixup(per="window", share=0.5), generator)
    assert mixed.share is not None
    assert 200 < int((mixed.share < 1).sum()) < 400
    assert augment(batch_of(progress=0.5), Mixup(stop=0.3), 100.0, torch.zeros, generator).share is None


@given(st.integers(0, 1000))
def test_shifted_windows_are_the_window_with_zeros_at_one_end(seed):
    window = torch.arange(1.0, 11.0)[None, :, None].repeat(5, 1, 2)
    what = Shift(seconds=0.03)
    moved = augment(
        Batch(window, torch.zeros(5, dtype=torch.int64), torch.arange(5)),
        what,
        100.0,
        torch.zeros,
        torch.Generator().manual_seed(seed),
    ).window
    ours = [torch.roll(window[0], by, dims=0) for by in range(-3, 4)]
    for by, each in zip(range(-3, 4), ours, strict=True):
        each[:by] = 0 if by > 0 else each[:by]
        if by < 0:
            each[by:] = 0
    assert all(any(torch.equal(row, each) for each in ours) for row in moved)


def test_noise_is_as_large_as_asked_and_dropped_channels_are_zero():
    generator = torch.Generator().manual_seed(0)
    window = torch.randn(50, 200, 3, generator=generator) * torch.tensor([1.0, 10.0, 0.0])
    batch = Batch(window, torch.zeros(50, dtype=torch.int64), torch.arange(50))
    added = augment(batch, Noise(sd=0.2, share=0.5), 100.0, torch.zeros, generator).window - window
    touched = added.abs().sum((1, 2)) > 0
    assert 15 < int(touched.sum()) < 35
    assert torch.allclose(added[touched].std((0, 1)), torch.tensor([0.2, 2.0, 0.0]), rtol=0.05)
    dropped = augment(batch, ChannelDropout(share=0.3), 100.0, torch.zeros, generator).window
    gone = (dropped == 0).all(dim=1)[:, :2]
    assert 0.2 < float(gone.float().mean()) < 0.4
    assert torch.equal(dropped[:, :, 0][~gone[:, 0]], window[:, :, 0][~gone[:, 0]])


def test_repetitions_are_averaged_within_subject_and_stimulus():
    trials = kit.trials(0, 40, subjects=("s1", "s2"))
    samples = Samples(trials)
    rows = torch.arange(40)
    averaged = augment(
        samples.batch(rows), Repetitions(share=1.0), 50.0, samples.means, torch.Generator().manual_seed(0)
    ).window
    for row in range(40):
        alike = (trials.item == trials.item[row]) & (trials.subject == trials.subject[row])
        np.testing.assert_allclose(averaged[row].numpy(), trials.x[alike].mean(0), atol=1e-5)


def test_a_finished_state_holds_weights_alone(tmp_path):
    one = job()
    fit(one, Hooks(folder=tmp_path))
    state = read_state(tmp_path / "net.safetensors", identity(one))
    assert state is not None
    assert state.position.finished
    assert state.module
    assert not state.optimiser
