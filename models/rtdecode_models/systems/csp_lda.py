"""Common spatial patterns, log variances, and linear discriminant analysis: what motor imagery is measured against.

Blankertz, Tomioka, Lemm, Kawanabe and Mueller, "Optimizing spatial filters for robust EEG single-trial analysis", IEEE
Signal Processing Magazine 25, 2008. Covariances are shrunk after Ledoit and Wolf.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from torch import Tensor, nn

from rtdecode.errors import ConfigError
from rtdecode.stream.fit import ledoit_wolf
from rtdecode_models.data.shape import Shape
from rtdecode_models.data.trials import Trials
from rtdecode_models.systems.closed import ClosedForm
from rtdecode_models.systems.discriminant import Discriminant, labels_of
from rtdecode_models.systems.labels import classes_of
from rtdecode_models.systems.lda import log_variance


class CSPConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many filters.

    Parameters
    ----------
    filters : int
        Spatial filters: half of them from each end of the spectrum for two classes, as many for each class against the
        others for more.
    label : str
        Which label of the data is decoded.
    """

    filters: int = 6
    label: str = "label"


class CSPLDA(ClosedForm):
    """Band-passed windows to ``logits`` of shape (batch, classes).

    Parameters
    ----------
    config : CSPConfig
        How many filters.
    shape : Shape
        That of the data.
    """

    outputs = ("logits",)

    def __init__(self, config: CSPConfig, shape: Shape) -> None:
        super().__init__()
        self.n_classes = classes_of(shape, config.label)
        if config.filters < self.n_classes or config.filters % self.n_classes or config.filters > shape.n_channels:
            raise ValueError(
                f"filters is {config.filters}; expected a multiple of the {self.n_classes} classes, and no more than "
                f"the {shape.n_channels} channels"
            )
        self.config = config
        self.filters = nn.Linear(shape.n_channels, config.filters, bias=False)
        self.classifier = Discriminant(config.filters, self.n_classes)

    def features(self, window: Tensor) -> Tensor:
        """Log variances (batch, filters) of windows (batch, time, channels)."""
        seen = self.filters(window)
        return log_variance(seen - seen.mean(dim=1, keepdim=True), 1)

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """Logits (batch, classes) of conditioned windows (batch, time, channels); it knows no subjects."""
        return {"logits": self.classifier(self.features(window))}

    def fit(self, trials: Trials) -> None:
        """Fit filters and classifier; see `common_spatial_patterns` and `Discriminant.fit`."""
        y = labels_of(trials, self.config.label, self.n_classes, "CSP and LDA")
        x = trials.x.astype(np.float64)
        filters = common_spatial_patterns(x, y, self.n_classes, self.config.filters)
        with torch.no_grad():
            self.filters.weight.copy_(torch.from_numpy(filters))
        self.classifier.fit(np.log((x @ filters.T).var(axis=1)), y)


def common_spatial_patterns(
    x: NDArray[np.float64], y: NDArray[np.int64], n_classes: int, n_filters: int
) -> NDArray[np.float64]:
    """Filters whose output varies most in one class and least in the others.

    Parameters
    ----------
    x : ndarray of float64, shape (n, time, channels)
        Band-passed windows.
    y : ndarray of int64, shape (n,)
        Their classes.
    n_classes, n_filters : int
        Classes, and filters for all of them together.

    Returns
    -------
    ndarray of float64, shape (filters, channels)
        Class by class: those for which the class has the largest share of the variance, largest first. For two classes
        these are the two ends of one spectrum.

    Raises
    ------
    ConfigError
        The windows hold no signal.
    """
    covariances = np.stack([ledoit_wolf(x[y == k].reshape(-1, x.shape[2]))[0] for k in range(n_classes)])
    total = covariances.sum(axis=0)
    if not np.trace(total) > 0:
        raise ConfigError("CSP and LDA cannot be fitted: the training windows hold no signal")
    # Eigenvalues rise; in units of volts the covariances are tiny, and scipy is asked for relative numbers.
    level = np.trace(total) / len(total)
    each = n_filters // n_classes
    best = [eigh(one / level, total / level)[1][:, ::-1][:, :each].T for one in covariances]
    filters: NDArray[np.float64] = np.concatenate(best) / np.sqrt(level)
    return filters


def build(options: Mapping[str, Any], shape: Shape) -> CSPLDA:
    """CSP and LDA from a recipe's options."""
    return CSPLDA(msgspec.convert(options, CSPConfig), shape)
