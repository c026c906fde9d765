"""Linear discriminant analysis with a shrunk covariance, as the last layer of an encoder."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtdecode.errors import ConfigError
from rtdecode.stream.fit import ledoit_wolf
from rtdecode_models.data.trials import Trials

Array = NDArray[np.float64]


class Discriminant(nn.Module):
    """Standardised features to the classes' log-likelihoods, but for what all classes share.

    Parameters
    ----------
    n_features, n_classes : int
        Of the features and the logits.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.register_buffer("center", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.linear = nn.Linear(n_features, n_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (batch, classes) of features (batch, features)."""
        logits: Tensor = self.linear((features - self.center) / self.scale)
        return logits

    def fit(self, features: Array, labels: NDArray[np.int64]) -> None:
        """Fit to training trials.

        Features are standardised first, so that those of a large unit do not take all the shrinkage.

        Parameters
        ----------
        features : ndarray of float64, shape (n, features)
        labels : ndarray of int64, shape (n,)
            Each class has at least one trial.
        """
        center, scale = features.mean(axis=0), features.std(axis=0)
        scale[scale == 0] = 1.0
        weight, bias = linear_discriminant((features - center) / scale, labels, self.n_classes)
        with torch.no_grad():
            self.center.copy_(torch.from_numpy(center))
            self.scale.copy_(torch.from_numpy(scale))
            self.linear.weight.copy_(torch.from_numpy(weight))
            self.linear.bias.copy_(torch.from_numpy(bias))


def linear_discriminant(features: Array, labels: NDArray[np.int64], n_classes: int) -> tuple[Array, Array]:
    r"""Weights and offsets of the classes' log-likelihoods, all classes equally likely beforehand.

    .. math:: w_k = S^{-1} m_k, \qquad b_k = -\tfrac 1 2 m_k^\top S^{-1} m_k

    with the means :math:`m_k` of the classes and the covariance S within them, shrunk after Ledoit and Wolf. Blankertz,
    Lemm, Treder, Haufe and Mueller, "Single-trial analysis and classification of ERP components, a tutorial",
    NeuroImage 56, 2011.

    Parameters
    ----------
    features : ndarray of float64, shape (n, features)
        Of training trials.
    labels : ndarray of int64, shape (n,)
        Their classes.
    n_classes : int
        Classes; each has at least one trial.

    Returns
    -------
    weight : ndarray of float64, shape (classes, features)
    bias : ndarray of float64, shape (classes,)
    """
    means = np.stack([features[labels == k].mean(axis=0) for k in range(n_classes)])
    within, _ = ledoit_wolf(features - means[labels])
    weight = np.linalg.solve(within, means.T).T
    return weight, -0.5 * (weight * means).sum(axis=1)


def labels_of(trials: Trials, label: str, n_classes: int, system: str) -> NDArray[np.int64]:
    """Classes of training trials.

    Raises
    ------
    ConfigError
        They have no such label, or a class has no trial.
    """
    if label not in trials.labels:
        there = ", ".join(sorted(trials.labels)) or "none"
        raise ConfigError(f"{system} is fitted to label {label!r}, which the trials do not have; they have {there}")
    y = trials.labels[label]
    counts = np.bincount(y, minlength=n_classes)
    if len(counts) != n_classes:
        raise ConfigError(f"{system} has {n_classes} classes; label {label!r} of the trials has {len(counts)}")
    if (empty := np.flatnonzero(counts == 0)).size:
        raise ConfigError(f"{system} cannot be fitted: class {empty[0]} of label {label!r} has no training trial")
    return y
