"""One network's fitting."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch: pip install rtdecode[train]")

import torch
from hypothesis import given
from hypothesis import strategies as st

from rtdecode_models.training.fit import batches, fit, log_probabilities, mixup
from rtdecode_models.training.recipe import Model, Training


def _task(n=24, seed=0):
    """Two classes that differ in which channel swings."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 60, 4)).astype(np.float32)
    y = np.arange(n) % 2
    x[np.arange(n), :, y] += 2 * np.sin(np.arange(60) * 0.6, dtype=np.float32)
    return x, y.astype(np.int64)


SMALL, SHORT = Model(width=6, kernel=5), Training(epochs=20, batch_size=6, learning_rate=3e-3)


def test_same_seed_same_weights_and_no_trace_in_the_global_generator():
    x, y = _task()
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    first = fit(x, y, 2, SMALL, SHORT, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(17)
    again, other = fit(x, y, 2, SMALL, SHORT, seed=3), fit(x, y, 2, SMALL, SHORT, seed=4)
    assert again.loss == first.loss
    for name, value in first.module.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[name])
    assert other.loss != first.loss


def test_a_network_learns_what_can_be_learnt():
    x, y = _task()
    fitted = fit(x, y, 2, SMALL, SHORT, seed=0)
    assert len(fitted.loss) == SHORT.epochs
    assert fitted.loss[-1] < fitted.loss[0]
    unseen, truth = _task(seed=1)
    said = log_probabilities(fitted.module, unseen)
    assert np.allclose(np.exp(said).sum(1), 1)
    assert (said.argmax(1) == truth).mean() > 0.9


@given(st.integers(2, 200), st.integers(2, 40))
def test_batches_hold_everything_once_and_are_even(n, size):
    parts = batches(n, size)
    assert sorted(torch.cat(parts).tolist()) == list(range(n))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1
    assert min(lengths) >= 2


@given(st.integers(0, 1000))
def test_mixup_blends_windows_and_labels_alike(seed):
    torch.manual_seed(seed)
    targets = torch.eye(4)
    windows = targets[:, None, :].repeat(1, 7, 1)
    mixed, labels = mixup(windows, targets)
    assert torch.allclose(mixed, labels[:, None, :].expand_as(mixed))
    assert torch.allclose(labels.sum(1), torch.ones(4))
