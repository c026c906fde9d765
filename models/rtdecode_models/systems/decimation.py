"""Decimation inside a graph, for encoders with several rates: a fixed low-pass as a strided convolution."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import firwin
from torch import Tensor, nn
from torch.nn import functional

#: Half the filter's length, in samples of the rate that goes out.
HALF_WIDTH = 8
#: Edge of the pass band (-6 dB), as a share of half the rate that goes out.
EDGE = 0.8


class Decimation(nn.Module):
    """Every `factor`-th sample of a window, low-passed first; no delay, since the filter looks both ways in the window.

    The window's first and last samples stand in for what lies beyond its ends.

    Parameters
    ----------
    factor : int
        One or more; 1 passes windows on as they are.
    """

    taps: Tensor

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.register_buffer("taps", torch.from_numpy(low_pass(factor)).reshape(1, 1, 1, -1))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, time) to (batch, channels, time / factor)."""
        if self.factor == 1:
            return x
        reach = self.taps.shape[-1] // 2
        padded = functional.pad(x, (reach, reach), mode="replicate")
        return functional.conv2d(padded.unsqueeze(1), self.taps, stride=(1, self.factor)).squeeze(1)


def low_pass(factor: int) -> NDArray[np.float32]:
    """The filter of a decimation: a windowed sinc (Kaiser, 60 dB) whose taps add up to one.

    Returns
    -------
    ndarray of float32, shape (2 * HALF_WIDTH * factor + 1,)
    """
    if factor < 1:
        raise ValueError(f"factor is {factor}; expected 1 or more")
    if factor == 1:
        return np.ones(1, dtype=np.float32)
    taps = firwin(2 * HALF_WIDTH * factor + 1, EDGE / factor, window=("kaiser", 5.65))
    return np.asarray(taps / taps.sum(), dtype=np.float32)
