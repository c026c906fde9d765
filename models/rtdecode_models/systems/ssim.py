"""Structural similarity of images, as a loss and as a score."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

#: Samples across the window and standard deviation of its Gaussian (Wang et al. 2004, section III.B).
WINDOW, SIGMA = 11, 1.5
#: Constants of the same section, in shares of the range of values.
K1, K2 = 0.01, 0.03


class SSIM(nn.Module):
    """Mean structural similarity over 11 x 11 Gaussian windows that lie in the image, for values in [0, 1].

    Wang, Bovik, Sheikh and Simoncelli, IEEE Transactions on Image Processing 13(4), 2004, eq. 13.
    """

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        bell = np.exp(-np.square(np.arange(WINDOW) - WINDOW // 2) / (2 * SIGMA**2))
        window = np.outer(bell, bell) / bell.sum() ** 2
        self.register_buffer("window", torch.from_numpy(window.astype(np.float32))[None, None])

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Of images (batch, height, width), both at least 11 across: one value each, (batch,), at most 1."""
        if x.shape != y.shape or x.ndim != 3 or min(x.shape[1:]) < WINDOW:
            raise ValueError(
                f"images are {tuple(x.shape)} and {tuple(y.shape)}; expected two equal (batch, height, width), each "
                f"side of {WINDOW} or more"
            )
        mean_x, mean_y = self._blur(x), self._blur(y)
        variance_x = self._blur(x * x) - mean_x.square()
        variance_y = self._blur(y * y) - mean_y.square()
        covariance = self._blur(x * y) - mean_x * mean_y
        luminance = (2 * mean_x * mean_y + K1**2) / (mean_x.square() + mean_y.square() + K1**2)
        structure = (2 * covariance + K2**2) / (variance_x + variance_y + K2**2)
        return (luminance * structure).mean(dim=(1, 2))

    def _blur(self, x: Tensor) -> Tensor:
        return functional.conv2d(x.unsqueeze(1), self.window).squeeze(1)
