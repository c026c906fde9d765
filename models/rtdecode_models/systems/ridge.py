"""Ridge regression from a window to an embedding: what retrieval encoders are measured against.

Hoerl and Kennard, "Ridge regression", Technometrics 12, 1970. The penalty is chosen by the exact leave-one-out error
(Allen's PRESS, Technometrics 16, 1974). Benchetrit et al. (arXiv 2310.19812) compare their brain module with such a
regression, one for each subject.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtdecode.errors import ConfigError
from rtdecode_models.data.shape import Shape
from rtdecode_models.data.trials import Trials
from rtdecode_models.systems.closed import ClosedForm
from rtdecode_models.systems.options import left_out, read_options, target_width

Array = NDArray[np.float64]


class RidgeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a `Ridge`.

    Parameters
    ----------
    target : str
        The embeddings that it is fitted to.
    baseline : float
        Seconds at the start of a window that are there for its baseline alone: they are left out.
    per : str
        ``subject``: a regression for each; ``all``: one for all people.
    penalties : tuple of float
        Those to choose from, as multiples of the mean eigenvalue of the standardised features' Gram matrix, the number
        of features where there are fewer trials than those.
    choose : str
        One penalty for the whole embedding (``shared``) or for each of its dimensions (``each``).
    """

    target: str = "image"
    baseline: float = 0.0
    per: Literal["subject", "all"] = "subject"
    penalties: tuple[float, ...] = tuple(10.0 ** (step / 4) for step in range(-12, 17))
    choose: Literal["shared", "each"] = "shared"

    def __post_init__(self) -> None:
        """Refuse penalties that are none."""
        if not self.penalties or min(self.penalties) <= 0:
            raise ValueError(f"penalties are {self.penalties}; expected numbers above 0")


class Ridge(ClosedForm):
    """Every sample of every channel is a feature; one output ``embedding`` of shape (batch, width).

    Parameters
    ----------
    config : RidgeConfig
        Its options.
    shape : Shape
        Of the data.
    """

    outputs = ("embedding",)

    def __init__(self, config: RidgeConfig, shape: Shape) -> None:
        super().__init__()
        self.config = config
        self.skip = left_out(shape, config.baseline, "baseline")
        n_features = (shape.n_times - self.skip) * shape.n_channels
        self.n_maps = shape.n_subjects if config.per == "subject" else 1
        width = target_width(shape, config.target, "target")
        # at random until it is fitted, as all encoders are until they are trained
        self.weight = nn.Parameter(torch.randn(self.n_maps, width, n_features) / n_features**0.5)
        self.bias = nn.Parameter(torch.zeros(self.n_maps, width))
        #: What was chosen, for each regression and dimension.
        self.penalty: NDArray[np.float64] = np.full((self.n_maps, width), np.nan)

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """Encode windows (batch, time, channels), each by the regression of its subject."""
        features = window[:, self.skip :].flatten(1)
        if self.n_maps == 1 or subject is None:
            if self.n_maps > 1:
                raise ConfigError(
                    f"ridge has a regression for each of {self.n_maps} subjects; say whose the windows are"
                )
            return {"embedding": features @ self.weight[0].T + self.bias[0]}
        if int(subject.max()) >= self.n_maps:
            raise ConfigError(
                f"ridge has a regression for each of {self.n_maps} subjects and is given another's windows; "
                'set model.per = "all" to decode people who were not trained on'
            )
        every = torch.stack([features @ weight.T for weight in self.weight])
        mine = every[subject, torch.arange(len(window), device=window.device)]
        return {"embedding": mine + self.bias[subject]}

    def deploy(self, subject: int | None = None) -> nn.Module:
        """One linear layer: that of the subject, who may be left out where there is one for all."""
        if subject is None and self.n_maps > 1:
            raise ConfigError(f"ridge has a regression for each of {self.n_maps} subjects; name the one to deploy")
        at = 0 if subject is None or self.n_maps == 1 else subject
        return _Deployed(self.weight[at], self.bias[at], self.skip).eval()

    def fit(self, trials: Trials) -> None:
        """Fit each regression; nothing is random.

        Raises
        ------
        ConfigError
            The trials have no stimuli or no such target, or a subject has fewer than three.
        """
        target = self.config.target
        if trials.item is None or trials.gallery is None or target not in trials.gallery.embeddings:
            raise ConfigError(f"ridge is fitted to embeddings; these trials have no target {target!r}")
        rows = trials.gallery.embeddings[target]
        for number in range(self.n_maps):
            mine = np.flatnonzero(trials.subject == number) if self.n_maps > 1 else np.arange(len(trials))
            if len(mine) < 3:
                raise ConfigError(
                    f"ridge needs three training windows or more; {trials.subjects[number]} has {len(mine)}"
                )
            x = trials.x[mine][:, self.skip :].reshape(len(mine), -1)
            weight, bias, penalty = regress(x, rows[trials.item[mine]], self.config.penalties, self.config.choose)
            with torch.no_grad():
                self.weight[number] = torch.from_numpy(weight)
                self.bias[number] = torch.from_numpy(bias)
            self.penalty[number] = penalty


def regress(
    x: NDArray[np.float32], y: NDArray[np.float32], penalties: tuple[float, ...], choose: str
) -> tuple[NDArray[np.float32], NDArray[np.float32], Array]:
    """Ridge regression with an intercept, its penalty chosen by leaving out one trial at a time.

    With the standardised, centred features A = U S V', predictions are ``U d U' y`` with ``d = s^2 / (s^2 + a)``, and
    the error on a trial that was left out is its residual over ``1 - 1/n - sum_k d_k U_ik^2``, exactly.

    Parameters
    ----------
    x : ndarray of float32, shape (n, features)
    y : ndarray of float32, shape (n, width)
    penalties : tuple of float
        To choose from; see `RidgeConfig`.
    choose : str
        ``shared`` or ``each``.

    Returns
    -------
    weight : ndarray of float32, shape (width, features)
    bias : ndarray of float32, shape (width,)
    penalty : ndarray of float64, shape (width,)
        What was chosen.
    """
    centre, spread = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    scale = np.where(spread > 0, 1.0 / np.where(spread > 0, spread, 1.0), 0.0)
    a = ((x - centre) * scale).astype(np.float32)
    mean = y.mean(axis=0, dtype=np.float64)
    targets = y - mean
    values, u, back = _decompose(a)
    level = values.mean()
    along = u.T @ targets
    errors, shrinks = [], []
    for penalty in penalties:
        shrink = values / (values + penalty * level)
        left = 1.0 - 1.0 / len(x) - (u**2) @ shrink
        residual = (targets - u @ (shrink[:, None] * along)) / np.maximum(left, 1e-9)[:, None]
        errors.append((residual**2).mean(axis=0))
        shrinks.append(1.0 / (values + penalty * level))
    table = np.stack(errors)
    best = table.argmin(axis=0) if choose == "each" else np.full(y.shape[1], table.mean(axis=1).argmin())
    inverse = np.stack(shrinks)[best].T
    weight = (back(inverse * along) * scale[:, None]).T
    bias = mean - weight @ centre
    return weight.astype(np.float32), bias.astype(np.float32), np.asarray(penalties)[best]


def _decompose(a: NDArray[np.float32]) -> tuple[Array, Array, Any]:
    """Squared singular values, left vectors, and what takes ``u'``-coordinates ``c`` to ``A' u c``.

    From the smaller of the two Gram matrices.
    """
    n, features = a.shape
    if n <= features:
        values, u = np.linalg.eigh((a @ a.T).astype(np.float64))
        kept = values > 1e-6 * values[-1]
        values, u = values[kept], u[:, kept]
        return values, u, lambda c: a.T @ (u @ c)
    values, v = np.linalg.eigh((a.T @ a).astype(np.float64))
    kept = values > 1e-6 * values[-1]
    values, v = values[kept], v[:, kept]
    root = np.sqrt(values)
    return values, a @ v / root, lambda c: v @ (root[:, None] * c)


class _Deployed(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor, skip: int) -> None:
        super().__init__()
        self.skip = skip
        self.linear = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            self.linear.weight.copy_(weight)
            self.linear.bias.copy_(bias)

    def forward(self, window: Tensor) -> tuple[Tensor, ...]:
        return (self.linear(window[:, self.skip :].flatten(1)),)


def build(options: Mapping[str, Any], shape: Shape) -> Ridge:
    """A `Ridge` for this shape of data; see `RidgeConfig` for the options."""
    return Ridge(read_options(options, RidgeConfig), shape)
