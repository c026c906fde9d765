"""Du-IN's first stage: each 100 ms of speech as one of 2048 codes, learnt by giving the signal back.

Zheng and others (NeurIPS 2024, arXiv 2405.11459), the "Du-IN VQ-VAE": the shared encoder, a codebook of unit vectors
that follows the tokens by a moving average (van den Oord and others, arXiv 1711.00937, appendix A.1), and a decoder of
four transformer blocks and five transposed convolutions.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import msgspec
import torch
from torch import Tensor, distributed, nn

from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.du_in import DuInConfig, DuInEncoder, SubjectLayer, block
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.systems.transformer import sinusoids

#: Rounds of k-means on the first batch of training.
KMEANS_ROUNDS = 10


class TokenizerConfig(DuInConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of the tokenizer; the defaults are the published one.

    Parameters
    ----------
    codes, code_width : int
        Vectors of the codebook, and their width.
    decay : float
        Share of its old place that a code keeps at each step.
    commitment : float
        Weight of the loss that keeps tokens near their codes.
    decoder_depth : int
        Transformer blocks of the decoder.
    """

    codes: int = 2048
    code_width: int = 64
    decay: float = 0.99
    commitment: float = 1.0
    decoder_depth: int = 4

    def __post_init__(self) -> None:
        """Refuse what no tokenizer can be built from."""
        super().__post_init__()
        if self.codes < 2 or self.code_width < 1 or self.decoder_depth < 1:
            raise ValueError(
                f"codes is {self.codes}, code_width {self.code_width} and decoder_depth {self.decoder_depth}; "
                "expected at least 2, 1 and 1"
            )
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay is {self.decay}; expected 0 or more, below 1")


class Quantizer(nn.Module):
    """A codebook of unit vectors; what is quantised takes the code that it points to most.

    Codes are no trained parameters: while training, each moves towards the mean of the vectors that took it, and is
    brought back to length 1. They start from k-means on the first batch, with its vectors repeated where they are fewer
    than the codes.

    Parameters
    ----------
    codes, width : int
        How many, and how wide.
    decay : float
        Share of its old place that a code keeps at each step.
    """

    codebook: Tensor
    started: Tensor

    def __init__(self, codes: int, width: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("codebook", nn.functional.normalize(torch.randn(codes, width), dim=1))
        self.register_buffer("started", torch.zeros(()))

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Codes for unit vectors.

        Parameters
        ----------
        vectors : Tensor, shape (n, tokens, width)
            Of length 1.

        Returns
        -------
        codes : Tensor of int64, shape (n, tokens)
            Which code each is given.
        quantized : Tensor, shape (n, tokens, width)
            The codes themselves; without a gradient.
        """
        flat = vectors.detach().flatten(0, 1)
        if self.training and not self.started:
            self._start(flat)
        codes = self.nearest(vectors)
        quantized = self.codebook[codes]
        if self.training:
            self._follow(flat)
        return codes, quantized

    def nearest(self, vectors: Tensor) -> Tensor:
        """Index of the code with the largest inner product, for vectors (..., width)."""
        return (vectors @ self.codebook.T).argmax(dim=-1)

    def _start(self, vectors: Tensor) -> None:
        """K-means on the sphere, the same on every process of a distributed training: the first one's."""
        n = len(self.codebook)
        order = torch.randperm(len(vectors), device=vectors.device).repeat(-(-n // len(vectors)))[:n]
        jitter = 1e-3 * torch.randn(n, vectors.shape[1], device=vectors.device)
        self.codebook.copy_(nn.functional.normalize(vectors[order] + jitter, dim=1))
        for _ in range(KMEANS_ROUNDS):
            sums, counts = self._assigned(vectors)
            self._replace(sums, counts)
        if distributed.is_initialized():
            distributed.broadcast(self.codebook, 0)
        self.started.fill_(1)

    def _follow(self, vectors: Tensor) -> None:
        sums, counts = self._assigned(vectors)
        if distributed.is_initialized():
            distributed.all_reduce(sums)
            distributed.all_reduce(counts)
        means = nn.functional.normalize(sums, dim=1)
        self._replace(self.decay * self.codebook + (1 - self.decay) * means, counts)

    def _assigned(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Sum (codes, width) and number (codes,) of the vectors that take each code."""
        taken = self.nearest(vectors)
        sums = torch.zeros_like(self.codebook).index_add_(0, taken, vectors)
        return sums, torch.bincount(taken, minlength=len(self.codebook)).to(vectors.dtype)

    def _replace(self, places: Tensor, counts: Tensor) -> None:
        """New places for the codes that were taken; the others stay."""
        self.codebook.copy_(torch.where(counts[:, None] > 0, nn.functional.normalize(places, dim=1), self.codebook))


class Codes(nn.Module):
    """Windows to codes: what is needed of a tokenizer once it is trained, under the names that it has there.

    Parameters
    ----------
    encoder : DuInEncoder
        Windows to tokens.
    project : Linear
        Tokens to the codes' width.
    quantizer : Quantizer
        The codebook.
    """

    def __init__(self, encoder: DuInEncoder, project: nn.Linear, quantizer: Quantizer) -> None:
        super().__init__()
        self.encoder = encoder
        self.project = project
        self.quantizer = quantizer

    def forward(self, window: Tensor, subject: Tensor | None = None) -> tuple[Tensor]:
        """Codes (batch, tokens), whole numbers as float32, of conditioned windows (batch, time, channels)."""
        # Only the direction counts, so that the vectors need not be brought to length 1.
        codes = self.quantizer.nearest(self.project(self.encoder(window, subject)))
        return (codes.to(window.dtype),)


class DuInTokenizer(Encoder):
    """The tokenizer stage.

    Outputs are ``codes`` (batch, tokens), whole numbers as float32, one for each 100 ms; with them come
    ``reconstruction`` (batch, time, channels) and the losses ``loss_reconstruction`` (mean squared error) and
    ``loss_commitment``.

    Parameters
    ----------
    config : TokenizerConfig
        Its shape.
    shape : Shape
        Of the data.
    """

    outputs = ("codes",)
    time: Tensor

    def __init__(self, config: TokenizerConfig, shape: Shape) -> None:
        super().__init__()
        self.config = config
        self.encoder = DuInEncoder(config, shape)
        width, steps = self.encoder.width, self.encoder.steps
        if steps * config.stride != self.encoder.segment:
            raise ValueError(
                f"segments of {self.encoder.segment} samples by a stride of {config.stride}; "
                f"expected a whole number of strides, or they cannot be given back"
            )
        self.project = nn.Linear(width, config.code_width)
        self.quantizer = Quantizer(config.codes, config.code_width, config.decay)
        self.restore = nn.Sequential(nn.LayerNorm(config.code_width), nn.Linear(config.code_width, width))
        self.register_buffer("time", sinusoids(self.encoder.n_tokens, width), persistent=False)
        self.blocks = nn.Sequential(*(block(config, width) for _ in range(config.decoder_depth)))
        filters = config.filters
        self.deconvolutions = nn.Sequential(
            *_deconvolution(width, filters, 3, 1),
            *_deconvolution(filters, filters, 3, 1),
            nn.ConvTranspose2d(filters, filters, (1, steps), (1, steps)),
            nn.BatchNorm2d(filters),
            *_deconvolution(filters, filters, 9, 1),
            *_deconvolution(filters, config.mixed, config.kernel, config.stride),
        )
        self.unmix = SubjectLayer(shape.n_subjects, config.mixed, shape.n_channels)

    def decode(self, quantized: Tensor, subject: Tensor | None = None) -> Tensor:
        """Windows (batch, time, channels) from codes' vectors (batch, tokens, code width)."""
        tokens = self.blocks(self.restore(quantized) + self.time)
        mixed = self.deconvolutions(tokens.transpose(1, 2).unsqueeze(2)).squeeze(2)
        window: Tensor = self.unmix(mixed.transpose(1, 2), subject)
        return window

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """Codes, the windows that they give back, and the losses, of conditioned windows (batch, time, channels)."""
        vectors = nn.functional.normalize(self.project(self.encoder(window, subject)), dim=2)
        codes, quantized = self.quantizer(vectors)
        # Straight-through: forwards the code, backwards as if nothing had been done to the vector.
        reconstruction = self.decode(vectors + (quantized - vectors).detach(), subject)
        return {
            "codes": codes.to(window.dtype),
            "reconstruction": reconstruction,
            "loss_reconstruction": nn.functional.mse_loss(reconstruction, window),
            "loss_commitment": self.config.commitment * nn.functional.mse_loss(vectors, quantized),
        }

    def deploy(self, subject: int | None = None) -> nn.Module:
        """Windows of one subject to codes, without the decoder."""
        return Codes(self.encoder.of(subject), deepcopy(self.project), deepcopy(self.quantizer)).eval()


def _deconvolution(width: int, out: int, kernel: int, stride: int) -> tuple[nn.Module, nn.Module]:
    """A transposed convolution that makes a signal `stride` times as long, and its normalisation."""
    return (
        nn.ConvTranspose2d(
            width, out, (1, kernel), (1, stride), padding=(0, kernel // 2), output_padding=(0, stride - 1)
        ),
        nn.BatchNorm2d(out),
    )


def build(options: Mapping[str, Any], shape: Shape) -> DuInTokenizer:
    """Du-IN's tokenizer for this shape of data."""
    return DuInTokenizer(msgspec.convert(dict(options), TokenizerConfig), shape)
