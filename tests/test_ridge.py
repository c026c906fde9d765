"""Ridge regression: the textbook's numbers, the exact leave-one-out error, one for each subject, the same exported."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="training needs torch: pip install rtdecode[train]")

from sklearn.linear_model import Ridge as Reference  # noqa: E402

from rtdecode.errors import ConfigError  # noqa: E402
from rtdecode_export.onnx import largest_errors, run_onnx, run_torch, to_onnx  # noqa: E402
from rtdecode_models.data.shape import Shape  # noqa: E402
from rtdecode_models.data.trials import Gallery, Trials  # noqa: E402
from rtdecode_models.systems.registry import build  # noqa: E402
from rtdecode_models.systems.ridge import Ridge, regress  # noqa: E402


def trials(n: int, times: int = 6, channels: int = 4, width: int = 5, subjects: int = 2, noise: float = 1.0) -> Trials:
    """Windows that are linear in the embeddings of their stimuli, by another matrix for each subject."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n, width)).astype(np.float32)
    subject = rng.integers(subjects, size=n)
    maps = rng.standard_normal((subjects, width, times * channels))
    x = np.einsum("nw,nwf->nf", rows, maps[subject]) + noise * rng.standard_normal((n, times * channels)) + 3.0
    return Trials(
        x=x.reshape(n, times, channels).astype(np.float32),
        sfreq=100.0,
        subject=subject,
        session=subject,
        subjects=tuple(f"s{at}" for at in range(subjects)),
        sessions=tuple(f"s{at}" for at in range(subjects)),
        item=np.arange(n),
        gallery=Gallery(tuple(f"{at}" for at in range(n)), {"image": rows}),
    )


def rows_of(given: Trials) -> NDArray[np.float32]:
    assert given.gallery is not None
    return given.gallery.embeddings["image"]


def fitted(given: Trials, **options: Any) -> Ridge:
    _, times, channels = given.x.shape
    width = rows_of(given).shape[1]
    shape = Shape(times, channels, given.sfreq, len(given.subjects), targets={"image": (width,)})
    encoder = build("ridge", options, shape)
    assert isinstance(encoder, Ridge)
    encoder.fit(given)
    return encoder


@pytest.mark.parametrize("n", [12, 60], ids=["more features than trials", "more trials than features"])
def test_weights_are_those_of_the_textbook(n: int) -> None:
    given = trials(n)
    x, y = given.x.reshape(n, -1), rows_of(given)
    weight, bias, penalty = regress(x, y, (0.1,), "shared")
    scale = x.std(axis=0)
    gram = np.linalg.eigvalsh(np.cov((x / scale).T, bias=True) * n)
    level = gram[gram > 1e-6 * gram[-1]].mean()
    reference = Reference(alpha=0.1 * level).fit((x - x.mean(axis=0)) / scale, y)
    expected = reference.predict((x - x.mean(axis=0)) / scale)
    assert np.abs(x @ weight.T + bias - expected).max() < 1e-4
    assert (penalty == 0.1).all()


@pytest.mark.parametrize("n", [12, 60])
def test_the_penalty_has_the_least_error_on_trials_that_were_left_out(n: int) -> None:
    """Against regressions that are really fitted without each trial, on the features as all trials standardise them."""
    given = trials(n, noise=4.0)
    x, y = given.x.reshape(n, -1).astype(np.float64), rows_of(given).astype(np.float64)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    values = np.linalg.eigvalsh(x @ x.T)
    level = values[values > 1e-6 * values[-1]].mean() if n <= x.shape[1] else np.linalg.eigvalsh(x.T @ x).mean()
    penalties = (0.01, 0.1, 1.0, 10.0, 100.0)
    errors = []
    for penalty in penalties:
        left = [Reference(alpha=penalty * level).fit(np.delete(x, at, 0), np.delete(y, at, 0)) for at in range(n)]
        errors.append([(one.predict(x[at : at + 1])[0] - y[at]) ** 2 for at, one in enumerate(left)])
    table = np.array(errors).mean(axis=1)
    chosen = regress(given.x.reshape(n, -1), y.astype(np.float32), penalties, "each")[2]
    assert chosen.tolist() == [penalties[at] for at in table.argmin(axis=0)]
    shared = regress(given.x.reshape(n, -1), y.astype(np.float32), penalties, "shared")[2]
    assert (shared == penalties[int(table.mean(axis=1).argmin())]).all()


def test_each_subject_has_a_regression_and_the_deployed_one_is_the_same() -> None:
    given = trials(200, noise=0.1)
    encoder = fitted(given)
    windows, subject = torch.from_numpy(given.x), torch.from_numpy(given.subject)
    with torch.no_grad():
        said = encoder(windows, subject)["embedding"].numpy()
        swapped = encoder(windows, 1 - subject)["embedding"].numpy()
    truth = rows_of(given)
    assert np.abs(said - truth).mean() < 0.1
    assert np.abs(swapped - truth).mean() > 0.5
    mine = given.x[given.subject == 1]
    deployed = encoder.deploy(1)
    graph = to_onnx(deployed, mine.shape[1:], encoder.outputs)
    expected = run_torch(deployed, mine, encoder.outputs)
    assert max(largest_errors(expected, run_onnx(graph, mine, encoder.outputs)).values()) <= 1e-4
    assert np.abs(expected["embedding"] - said[given.subject == 1]).max() < 1e-5


def test_one_regression_for_all_and_a_baseline_that_is_left_out() -> None:
    given = trials(100, subjects=1, noise=0.1)
    encoder = fitted(given, per="all", baseline=0.02)
    assert encoder.weight.shape == (1, 5, 4 * 4)
    changed = given.x.copy()
    changed[:, :2] = 1e3
    with torch.no_grad():
        outputs = [encoder(torch.from_numpy(x))["embedding"] for x in (given.x, changed)]
    assert torch.equal(*outputs)


def test_what_cannot_be_fitted_is_refused() -> None:
    given = trials(40)
    with pytest.raises(ConfigError, match="three training windows or more; s1 has 0"):
        fitted(given.take(np.flatnonzero(given.subject == 0)))
    with pytest.raises(ConfigError, match="say whose the windows are"):
        fitted(given)(torch.from_numpy(given.x))
    with pytest.raises(ConfigError, match=r'another\'s windows; set model.per = "all"'):
        fitted(given)(torch.from_numpy(given.x), torch.full((len(given),), 2))
    with pytest.raises(ConfigError, match="name the one to deploy"):
        fitted(given).deploy()
    with pytest.raises(ConfigError, match="penalties are"):
        fitted(given, penalties=(0.0,))
