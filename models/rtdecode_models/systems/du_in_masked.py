"""Du-IN's second stage: the codes of masked segments, told from the segments around them.

Zheng and others (NeurIPS 2024, arXiv 2405.11459), the "Du-IN MAE": half of a window's tokens are replaced by one learnt
vector, then the other half, and both times the shared encoder predicts which of the tokenizer's codes stood there.
"""

from collections.abc import Mapping
from typing import Any, Self

import msgspec
import torch
from torch import Tensor, nn

from rtdecode.errors import ConfigError
from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.du_in import DuInEncoder
from rtdecode_models.systems.du_in_tokenizer import Codes, Quantizer, TokenizerConfig
from rtdecode_models.systems.encoder import Encoder


class MaskedConfig(TokenizerConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of the masked stage; all of a tokenizer's, since one is in it.

    Parameters
    ----------
    masked : float
        Share of the tokens that the first pass masks; the second masks the others.
    """

    masked: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a mask of none or of all."""
        super().__post_init__()
        if not 0 < self.masked < 1:
            raise ValueError(f"masked is {self.masked}; expected a share between 0 and 1")


class DuInMasked(Encoder):
    """The masked stage.

    The output is ``embedding`` (batch, token width), the mean of the tokens of the whole window; with it comes
    ``loss_masked``, the cross-entropy over the codes of masked tokens, averaged over both passes. While it trains there
    is this alone.

    It holds a tokenizer that is never trained here: `start_from` must be given one's weights before the first step.

    Parameters
    ----------
    config : MaskedConfig
        Its shape.
    shape : Shape
        Of the data.
    """

    outputs = ("embedding",)

    def __init__(self, config: MaskedConfig, shape: Shape) -> None:
        super().__init__()
        self.config = config
        self.encoder = DuInEncoder(config, shape)
        self.n_masked = round(config.masked * self.encoder.n_tokens)
        if not 0 < self.n_masked < self.encoder.n_tokens:
            raise ValueError(
                f"masked is {config.masked}, which is {self.n_masked} of {self.encoder.n_tokens} tokens; "
                "expected at least one, and one left"
            )
        self.mask = nn.Parameter(0.02 * torch.randn(self.encoder.width))
        self.predict = nn.Linear(self.encoder.width, config.codes)
        tokenizer = Codes(
            DuInEncoder(config, shape),
            nn.Linear(self.encoder.width, config.code_width),
            Quantizer(config.codes, config.code_width, config.decay),
        )
        self.tokenizer = tokenizer.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """As usual; the tokenizer stays in evaluation mode."""
        super().train(mode)
        self.tokenizer.eval()
        return self

    def start_from(self, weights: Mapping[str, Tensor]) -> tuple[str, ...]:
        """As `Encoder.start_from`; a tokenizer's weights become those of the frozen tokenizer, and nothing else."""
        if "quantizer.codebook" in weights:
            weights = {f"tokenizer.{name}": value for name, value in weights.items()}
        return super().start_from(weights)

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """``embedding`` and ``loss_masked`` of conditioned windows (batch, time, channels)."""
        if self.training and not self.tokenizer.quantizer.started:
            raise ConfigError(
                "the masked stage of Du-IN predicts a tokenizer's codes, and has no tokenizer; "
                "start from a checkpoint of one"
            )
        patches = self.encoder.patches(window, subject)
        codes = self.tokenizer(window, subject)[0].long()
        masked = random_mask(len(window), self.encoder.n_tokens, self.n_masked, window.device)
        passes = [self._lost(patches, codes, which) for which in (masked, ~masked)]
        losses = {"loss_masked": torch.stack(passes).mean()}
        if self.training:  # nothing is trained on the embedding, which takes a pass of its own
            return losses
        return losses | {"embedding": self.encoder.transform(patches).mean(dim=1)}

    def _lost(self, patches: Tensor, codes: Tensor, masked: Tensor) -> Tensor:
        """Cross-entropy over the codes of the tokens that are masked."""
        seen = torch.where(masked[:, :, None], self.mask, patches)
        logits = self.predict(self.encoder.transform(seen))
        return nn.functional.cross_entropy(logits[masked], codes[masked])

    def deploy(self, subject: int | None = None) -> nn.Module:
        """Windows of one subject to the embedding; the tokenizer is left out."""
        return _Mean(self.encoder.of(subject)).eval()


class _Mean(nn.Module):
    """The shared encoder of one subject, and the mean of its tokens."""

    def __init__(self, encoder: DuInEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, window: Tensor) -> tuple[Tensor]:
        """The embedding (batch, token width); exported for a batch of one."""
        return (self.encoder(window).mean(dim=1),)


def random_mask(batch: int, n: int, masked: int, device: torch.device) -> Tensor:
    """Which tokens are masked, bool of shape (batch, n): `masked` of each row, at random."""
    order = torch.rand(batch, n, device=device).argsort(dim=1)
    return order < masked


def build(options: Mapping[str, Any], shape: Shape) -> DuInMasked:
    """Du-IN's masked stage for this shape of data."""
    return DuInMasked(msgspec.convert(dict(options), MaskedConfig), shape)
