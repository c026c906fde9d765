"""Canonical correlation with sines and cosines: which flicker frequency is looked at; nothing is trained.

Lin, Zhang, Wu and Gao, "Frequency recognition based on canonical correlation analysis for SSVEP-based BCIs", IEEE TBME
53, 2006. The canonical correlation of a window with a reference is the largest singular value of the product of two
orthonormal bases (Bjoerck and Golub, Mathematics of Computation 27, 1973). The reference's basis is a constant; the
window's comes from Gram and Schmidt's procedure, channel by channel, and the singular value from a matrix squared again
and again: a fixed number of plain operations.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdecode_models.data.shape import Shape
from rtdecode_models.data.trials import Trials
from rtdecode_models.systems.closed import ClosedForm
from rtdecode_models.systems.labels import classes_of

#: The matrix is squared so often: its power 2^12 leaves the largest eigenvalue wrong by 1e-4 of it at most.
SQUARINGS = 12
#: A channel of which less than this share (of its power) is left after the others before it, is one of them again.
LEAST_POWER = 1e-9


class CCAConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The flicker frequencies.

    Parameters
    ----------
    frequencies : tuple of float
        Hz, one for each class, in the order of the classes.
    harmonics : int
        The fundamental and its multiples, each as a sine and a cosine.
    label : str
        Which label of the data is decoded.
    """

    frequencies: tuple[float, ...]
    harmonics: int = 2
    label: str = "label"


class CCA(ClosedForm):
    """Windows of shape (batch, time, channels) to ``logits`` of shape (batch, frequencies): canonical correlations.

    The correlations lie between 0 and 1, so that a head's temperature has to be small (0.05) for its probabilities to
    say anything.

    Parameters
    ----------
    config : CCAConfig
        The frequencies.
    shape : Shape
        That of the data.
    """

    outputs = ("logits",)
    reference: Tensor

    def __init__(self, config: CCAConfig, shape: Shape) -> None:
        super().__init__()
        if len(config.frequencies) != classes_of(shape, config.label):
            raise ValueError(
                f"frequencies are {len(config.frequencies)}; expected one for each of the "
                f"{shape.classes[config.label]} classes of label {config.label!r}"
            )
        highest = max(config.frequencies) * config.harmonics
        if config.harmonics < 1 or min(config.frequencies) <= 0 or highest >= shape.sfreq / 2:
            raise ValueError(
                f"frequencies {config.frequencies} with {config.harmonics} harmonics reach {highest:g} Hz; expected "
                f"something above 0 and below half the rate of {shape.sfreq:g} Hz"
            )
        if shape.n_times <= shape.n_channels + 2 * config.harmonics:
            raise ValueError(
                f"a window of {shape.n_times} samples; expected more than {shape.n_channels} channels and "
                f"{2 * config.harmonics} references together, or everything correlates with everything"
            )
        self.config = config
        bases = [references(f, config.harmonics, shape.n_times, shape.sfreq) for f in config.frequencies]
        self.register_buffer("reference", torch.from_numpy(np.stack(bases)).to(torch.float32))

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """Canonical correlations (batch, frequencies) of conditioned windows (batch, time, channels)."""
        basis = orthonormal(orthonormal(window - window.mean(dim=1, keepdim=True)))
        shared = basis.transpose(1, 2).unsqueeze(1) @ self.reference
        return {"logits": largest_eigenvalue(shared.transpose(2, 3) @ shared).sqrt()}

    def fit(self, trials: Trials) -> None:
        """Leave everything as it is: the rates of the lights are all that it has to know."""


def references(frequency: float, harmonics: int, n_times: int, sfreq: float) -> NDArray[np.float64]:
    """Orthonormal basis of the sines and cosines of a frequency and its multiples, without their means.

    Returns
    -------
    ndarray of float64, shape (time, 2 * harmonics)
    """
    phase = 2 * np.pi * frequency * np.arange(n_times)[:, np.newaxis] / sfreq * np.arange(1, harmonics + 1)
    waves = np.concatenate([np.sin(phase), np.cos(phase)], axis=1)
    basis: NDArray[np.float64] = np.linalg.qr(waves - waves.mean(axis=0))[0]
    return basis


def orthonormal(x: Tensor) -> Tensor:
    """Orthonormal columns that span those of `x`, (batch, time, channels); a dependent column becomes zero.

    Modified Gram-Schmidt. In float32 one pass leaves columns that are far from orthogonal where channels are much
    alike; a second pass over the result mends that ("twice is enough").
    """
    left = x / x.square().sum(dim=1, keepdim=True).clamp_min(1e-30).sqrt()
    columns: list[Tensor] = []
    for remaining in reversed(range(x.shape[2])):
        first = left[:, :, :1]
        power = first.square().sum(dim=1, keepdim=True)
        column = first * (power > LEAST_POWER).to(x.dtype) / power.clamp_min(LEAST_POWER).sqrt()
        columns.append(column)
        if remaining:
            rest = left[:, :, 1:]
            left = rest - column @ (column.transpose(1, 2) @ rest)
    return torch.cat(columns, dim=2)


def largest_eigenvalue(matrix: Tensor) -> Tensor:
    """That of symmetric positive semidefinite matrices (..., n, n); 0 where all is zero.

    The trace of ``matrix @ P`` over that of P, P a high power of the matrix: the other eigenvalues die out in P.
    """
    power = matrix
    for _ in range(SQUARINGS):
        power = power / _trace(power).clamp_min(1e-30).unsqueeze(-1).unsqueeze(-1)
        power = power @ power
    return _trace(matrix @ power) / _trace(power).clamp_min(1e-30)


def _trace(matrix: Tensor) -> Tensor:
    return (matrix * torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)).sum(dim=(-2, -1))


def build(options: Mapping[str, Any], shape: Shape) -> CCA:
    """CCA from a recipe's options."""
    return CCA(msgspec.convert(options, CCAConfig), shape)
