"""The spectrogram of a window as a convolution, so that the ONNX graph holds no Fourier transform."""

import math

import torch
from torch import Tensor, nn


class Spectrogram(nn.Module):
    """Magnitudes of the short-time Fourier transform, as ``scipy.signal.stft`` gives them by default.

    Hann windows, zeros before the first and after the last sample (``boundary="zeros"``, ``padded=True``), scaled by
    the window's sum. Every frame is one product with a bank of windowed cosines and sines.

    Parameters
    ----------
    n_times : int
        Samples in a window.
    length, hop : int
        Samples in a frame, and from one frame to the next.
    n_bins : int
        Frequencies that are kept, from 0 up, in steps of the rate divided by `length`.

    Attributes
    ----------
    n_frames : int
        Frames of a window.
    """

    bank: Tensor

    def __init__(self, n_times: int, length: int, hop: int, n_bins: int) -> None:
        super().__init__()
        if not 0 < n_bins <= length // 2 + 1:
            raise ValueError(f"{n_bins} frequencies of frames of {length} samples; expected 1 to {length // 2 + 1}")
        if not 0 < hop <= length:
            raise ValueError(f"frames of {length} samples every {hop}; expected a hop of 1 to {length} samples")
        self.hop = hop
        self.n_bins = n_bins
        padded = n_times + 2 * (length // 2)
        self.n_frames = -(-(padded - length) // hop) + 1
        self.padding = (length // 2, length // 2 + (self.n_frames - 1) * hop + length - padded)
        time = torch.arange(length, dtype=torch.float64)
        window = 0.5 - 0.5 * torch.cos(2 * math.pi * time / length)
        phase = 2 * math.pi / length * torch.arange(n_bins, dtype=torch.float64)[:, None] * time
        bank = torch.cat([phase.cos(), phase.sin()]) * (window / window.sum())
        self.register_buffer("bank", bank.float()[:, None, None, :], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Magnitudes (n, frames, bins), in the unit of the signals `x` (n, time)."""
        padded = nn.functional.pad(x, self.padding)[:, None, None, :]
        parts = nn.functional.conv2d(padded, self.bank, stride=(1, self.hop)).squeeze(2)
        cosine, sine = parts[:, : self.n_bins], parts[:, self.n_bins :]
        return (cosine.square() + sine.square()).sqrt().transpose(1, 2)


def standardised(spectrogram: Tensor) -> Tensor:
    """Each frequency of spectrograms (n, frames, bins) with mean 0 and standard deviation 1 over the frames.

    A frequency that never changes becomes 0.
    """
    centred = spectrogram - spectrogram.mean(dim=1, keepdim=True)
    deviation = centred.square().mean(dim=1, keepdim=True).sqrt()
    return centred / torch.where(deviation > 0, deviation, torch.ones_like(deviation))
