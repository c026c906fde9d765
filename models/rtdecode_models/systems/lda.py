"""Linear discriminant analysis on means or log powers of stretches of the window; fitted by a formula."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np
import torch
from torch import Tensor

from rtdecode_models.data.shape import Shape
from rtdecode_models.data.trials import Trials
from rtdecode_models.systems.closed import ClosedForm
from rtdecode_models.systems.discriminant import Discriminant, labels_of
from rtdecode_models.systems.labels import classes_of


class LDAConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The features of an `LDA`.

    Parameters
    ----------
    features : str
        ``means`` of each channel, for evoked responses (Blankertz et al., NeuroImage 2011); or ``log_power``, the
        logarithm of its variance, for rhythms in the band that the conditioning chain passes.
    stretches : int
        The window is cut into so many, each with its own features; samples that do not fill the last one are left out.
    label : str
        Which label of the data is decoded.
    """

    features: Literal["means", "log_power"] = "means"
    stretches: int = 8
    label: str = "label"


class LDA(ClosedForm):
    """Features of stretches, and a linear map to ``logits`` of shape (batch, classes).

    Parameters
    ----------
    config : LDAConfig
        Which features.
    shape : Shape
        That of the data.
    """

    outputs = ("logits",)

    def __init__(self, config: LDAConfig, shape: Shape) -> None:
        super().__init__()
        shortest = 1 if config.features == "means" else 2
        if config.stretches < 1 or shape.n_times // config.stretches < shortest:
            raise ValueError(
                f"{config.stretches} stretches of a window of {shape.n_times} samples; expected at least one, each of "
                f"{shortest} samples or more"
            )
        self.config = config
        self.samples = shape.n_times // config.stretches
        self.classifier = Discriminant(config.stretches * shape.n_channels, classes_of(shape, config.label))

    def features(self, window: Tensor) -> Tensor:
        """Features (batch, stretches * channels) of windows (batch, time, channels)."""
        count = self.config.stretches
        cut = window[:, : count * self.samples].reshape(len(window), count, self.samples, window.shape[2])
        means = cut.mean(dim=2)
        if self.config.features == "means":
            return means.flatten(1)
        return log_variance(cut - means.unsqueeze(2), 2).flatten(1)

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """Logits (batch, classes) of conditioned windows (batch, time, channels); it knows no subjects."""
        return {"logits": self.classifier(self.features(window))}

    def fit(self, trials: Trials) -> None:
        """Fit the classifier; see `Discriminant.fit`."""
        y = labels_of(trials, self.config.label, self.classifier.n_classes, "LDA")
        with torch.no_grad():
            features = self.features(torch.from_numpy(np.ascontiguousarray(trials.x)).to(torch.float64)).numpy()
        self.classifier.fit(features, y)


def log_variance(centred: Tensor, dim: int) -> Tensor:
    """Logarithm of the mean square along one axis, of what has no mean along it; finite for a flat channel too."""
    return centred.square().mean(dim=dim).clamp_min(1e-30).log()


def build(options: Mapping[str, Any], shape: Shape) -> LDA:
    """An LDA from a recipe's options."""
    return LDA(msgspec.convert(options, LDAConfig), shape)
