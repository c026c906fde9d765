"""A denoiser of single channels: an autoencoder, and attention where the autoencoder says that it is needed.

The first stage of Choi, "Geometric Machine Learning on EEG Signals", arXiv 2502.05334, in the manner of AT-AT (Choi,
arXiv 2502.05332): a small convolutional autoencoder gives a first estimate; where that estimate correlates little with
what came in, the signal is taken for noisy, and a transformer corrects it. No width is known here; all are chosen. What
is selection of places there is a smooth gate here, so that the graph has no branch, and there is no adversary.

Trained on windows that count as clean: artifacts are added in `forward`, at a ratio drawn for each channel.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rtdecode.errors import ConfigError
from rtdecode_models.data.shape import Shape
from rtdecode_models.data.trials import Trials
from rtdecode_models.systems.artifacts import artifacts
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.systems.transformer import sinusoids

#: Samples of a token; the gate is opened token by token.
TOKEN = 16
#: Simulated artifacts that training draws from, and the seed that they are made from.
BANK, BANK_SEED = 1024, 0
#: Least power that is divided by: a channel of a picovolt, or of tesla, is above it, a flat one is not.
FLOOR = 1e-30


class DenoiserConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a `Denoiser`; all of them chosen here.

    Parameters
    ----------
    widths : tuple of int
        Features of the autoencoder's convolutions, each of which halves the time axis.
    kernel : int
        Samples in them; odd.
    token_width, n_heads, n_layers, forward_width : int
        Of the transformer.
    dropout : float
        In the transformer.
    snr_db : tuple of float
        Least and greatest signal-to-noise ratio in training, in dB of power.
    artifacts : str
        A ``.npy`` file of artifacts at the windows' rate, float, shape (n, samples), as long as a window or longer;
        empty for simulated ones.
    """

    widths: tuple[int, ...] = (16, 32, 64)
    kernel: int = 7
    token_width: int = 64
    n_heads: int = 4
    n_layers: int = 2
    forward_width: int = 128
    dropout: float = 0.0
    snr_db: tuple[float, float] = (-7.0, 4.0)
    artifacts: str = ""


class Denoiser(Encoder):
    """Windows (batch, time, channels) to ``denoised`` of the same shape and scale, each channel by itself.

    While training the window counts as clean and is contaminated first; there is ``loss_denoising`` then, the mean
    squared error in units of the clean signal's variance.

    Parameters
    ----------
    config : DenoiserConfig
    n_times : int
        Samples in a window, a multiple of `TOKEN`.
    """

    outputs = ("denoised",)
    bank: Tensor
    positions: Tensor

    def __init__(self, config: DenoiserConfig, n_times: int) -> None:
        super().__init__()
        self.config = config
        # Only training needs artifacts, so checkpoints have none: `prepare` fetches them.
        self.register_buffer("bank", torch.zeros(0, n_times), persistent=False)
        widths = (1, *config.widths)
        last = len(config.widths)
        down = [_convolution(widths[i], widths[i + 1], config.kernel) for i in range(last)]
        up = [_expansion(widths[i], widths[i - 1], last=i == 1) for i in range(last, 0, -1)]
        self.autoencoder = nn.Sequential(*down, *up)
        self.embed = nn.Linear(2 * TOKEN, config.token_width)
        self.register_buffer("positions", sinusoids(n_times // TOKEN, config.token_width))
        self.layers = nn.ModuleList(SelfAttention(config) for _ in range(config.n_layers))
        self.correct = nn.Linear(config.token_width, TOKEN)
        # Correlations below a half open the gate; both numbers are trained.
        self.slope = nn.Parameter(torch.tensor(5.0))
        self.threshold = nn.Parameter(torch.tensor(0.5))

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """Denoised windows (batch, time, channels)."""
        given = self._contaminated(window) if self.training else window
        denoised = self.denoise(given)
        outputs = {"denoised": denoised}
        if self.training:
            error = (denoised - window).square().mean(dim=1)
            outputs["loss_denoising"] = (error / window.var(dim=1, correction=0).clamp(min=FLOOR)).mean()
        return outputs

    def prepare(self, trials: Trials) -> None:
        """Fetch the artifacts to train with, from their file or simulated at the trials' rate.

        Raises
        ------
        ConfigError
            The file of artifacts is none.
        """
        n_times = trials.x.shape[1]
        if self.config.artifacts:
            bank = read_bank(self.config.artifacts, n_times)
        else:
            bank = artifacts(np.random.default_rng(BANK_SEED), BANK, n_times, trials.sfreq)
        self.bank = torch.from_numpy(bank).to(self.bank.device)

    def denoise(self, window: Tensor) -> Tensor:
        """Windows (batch, time, channels) as they come to denoised ones."""
        batch, n_times, n_channels = window.shape
        mean = window.mean(dim=1, keepdim=True)
        scale = (window - mean).square().mean(dim=1, keepdim=True).clamp(min=FLOOR).sqrt()
        x = ((window - mean) / scale).transpose(1, 2).reshape(batch * n_channels, n_times)
        # What comes out of the autoencoder is taken away, so that a clean signal passes whole.
        first = x - self.autoencoder(x[:, None, None]).reshape(batch * n_channels, n_times)
        noisy, estimate = x.reshape(len(x), -1, TOKEN), first.reshape(len(x), -1, TOKEN)
        tokens = self.embed(torch.cat([noisy, estimate], dim=-1)) + self.positions
        for layer in self.layers:
            tokens = layer(tokens)
        gate = torch.sigmoid(self.slope * (self.threshold - _correlation(noisy, estimate)))
        corrected: Tensor = estimate + gate * self.correct(tokens)
        return corrected.reshape(batch, n_channels, n_times).transpose(1, 2) * scale + mean

    def _contaminated(self, window: Tensor) -> Tensor:
        """Each channel of clean windows with an artifact from the bank."""
        if len(self.bank) == 0:
            raise ConfigError("a denoiser has no artifacts to train with before prepare(trials)")
        batch, n_times, n_channels = window.shape
        low, high = self.config.snr_db
        snr = low + (high - low) * torch.rand(batch, 1, n_channels, device=window.device)
        rows = torch.randint(len(self.bank), (batch * n_channels,), device=window.device)
        start = int(torch.randint(self.bank.shape[1] - n_times + 1, ()))
        chosen = self.bank[rows, start : start + n_times].reshape(batch, n_channels, n_times).transpose(1, 2)
        sign = torch.randint(0, 2, (batch, 1, n_channels), device=window.device) * 2 - 1
        power = window.square().mean(dim=1, keepdim=True) / chosen.square().mean(dim=1, keepdim=True).clamp(min=FLOOR)
        contaminated: Tensor = window + sign * power.sqrt() * 10 ** (-snr / 20) * chosen
        return contaminated


class SelfAttention(nn.Module):
    """A transformer layer of several heads, normalised before each part.

    Parameters
    ----------
    config : DenoiserConfig
    """

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        width = config.token_width
        self.n_heads = config.n_heads
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.after = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, config.forward_width),
            nn.GELU(),
            nn.Linear(config.forward_width, width),
        )
        self.drop = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, width) to the same shape."""
        n, length, width = tokens.shape
        asked = self.queries(self.norm(tokens)).reshape(n, length, 3, self.n_heads, width // self.n_heads)
        query, key, value = asked.permute(2, 0, 3, 1, 4).unbind(0)
        weights = functional.softmax(query @ key.transpose(2, 3) * (width // self.n_heads) ** -0.5, dim=-1)
        heads = (weights @ value).transpose(1, 2).reshape(n, length, width)
        tokens = tokens + self.drop(self.out(heads))
        passed: Tensor = tokens + self.drop(self.after(tokens))
        return passed


def _convolution(width: int, wider: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, wider, (1, kernel), padding=(0, kernel // 2)), nn.GELU(), nn.MaxPool2d((1, 2))
    )


def _expansion(width: int, narrower: int, *, last: bool) -> nn.Module:
    layer = nn.ConvTranspose2d(width, narrower, (1, 4), stride=(1, 2), padding=(0, 1))
    return layer if last else nn.Sequential(layer, nn.GELU())


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    """Of each token, (n, tokens, samples) twice to (n, tokens, 1); near 0 where one of them is flat."""
    x, y = x - x.mean(dim=-1, keepdim=True), y - y.mean(dim=-1, keepdim=True)
    product = (x * y).mean(dim=-1, keepdim=True)
    return product / (x.square().mean(dim=-1, keepdim=True) * y.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()


def read_bank(path: str, n_times: int) -> NDArray[np.float32]:
    """Artifacts from a file.

    Raises
    ------
    ConfigError
        It cannot be read, or holds something else.
    """
    try:
        bank = np.load(Path(path), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"artifacts: {path} cannot be read as a .npy file: {error}") from error
    if bank.ndim != 2 or not np.issubdtype(bank.dtype, np.floating) or len(bank) == 0 or bank.shape[1] < n_times:
        raise ConfigError(
            f"artifacts: {path} holds {bank.dtype} of shape {bank.shape}; expected floats of shape (n, samples), with "
            f"{n_times} samples or more"
        )
    if not np.isfinite(bank).all():
        raise ConfigError(f"artifacts: {path} holds values that are not finite")
    return np.asarray(bank, dtype=np.float32)


def build(options: Mapping[str, Any], shape: Shape) -> Denoiser:
    """A `Denoiser` for windows of this shape, whatever their channels.

    Raises
    ------
    ValueError
        A size makes no sense, or does not divide the window.
    """
    config = msgspec.convert(options, DenoiserConfig)
    if not config.widths or min(*config.widths, config.token_width, config.n_layers, config.forward_width) < 1:
        raise ValueError("expected one convolution or more, and sizes of 1 or more")
    step = max(TOKEN, 2 ** len(config.widths))
    if shape.n_times % step:
        raise ValueError(f"a window has {shape.n_times} samples; expected a multiple of {step}")
    if config.n_heads < 1 or config.token_width % config.n_heads or config.kernel % 2 == 0:
        raise ValueError("expected n_heads that divide token_width, and an odd kernel")
    if not 0 <= config.dropout < 1 or config.snr_db[0] > config.snr_db[1]:
        raise ValueError("expected dropout from 0 to below 1, and snr_db from the least to the greatest")
    return Denoiser(config, shape.n_times)
