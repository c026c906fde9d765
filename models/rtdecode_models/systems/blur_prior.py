"""UBP's uncertainty-aware blur prior: images are blurred before they are aligned with brain signals, as far as needed.

Wu et al., "Bridging the Vision-Brain Gap with an Uncertainty-Aware Blur Prior" (CVPR 2025, arXiv 2503.04207). The blur
imitates the fovea: sharp in the middle, blurred outside. How strong it is follows from how well each training window
fits its image: the less, the more blur. Tests and the gallery of a bundle use the medium level.
"""

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, normalize, pad, softplus

from rtdecode.errors import ConfigError
from rtdecode_models.data.batch import Batch, output_of, target_of
from rtdecode_models.data.trials import Trials

#: Samples of the Gaussian kernels for images of 224 pixels, as described: r0 - c, r0, r0 + c with r0 = 51 and c = 6.
KERNELS: Final = (45, 51, 57)
#: What the released code really uses: its configuration is changed while it is read.
RELEASED_KERNELS: Final = (45, 45, 51)
#: Places in `KERNELS` and in the levels of a gallery.
LOW, MEDIUM, HIGH = 0, 1, 2
#: ln(1 / 0.07): where a logit scale starts.
INITIAL_SCALE: Final = math.log(1 / 0.07)


def gaussian_kernel(size: int) -> Tensor:
    """A Gaussian of `size` samples and sum 1; its deviation is OpenCV's for that size, 0.3 ((size - 1) / 2 - 1) + 0.8.

    Raises
    ------
    ConfigError
        `size` is even or less than 3.
    """
    if size < 3 or size % 2 == 0:
        raise ConfigError(f"a kernel of {size} samples was asked for; expected an odd number of at least 3")
    deviation = 0.3 * ((size - 1) / 2 - 1) + 0.8
    offsets = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    kernel = (-(offsets**2) / (2 * deviation**2)).exp()
    return (kernel / kernel.sum()).float()


def foveal_weight(height: int, width: int) -> Tensor:
    """Share of the sharp image in each pixel, shape (height, width): 0.5 exp(-3 d / d_max), d from the middle."""
    y = torch.arange(height) - (height - 1) / 2
    x = torch.arange(width) - (width - 1) / 2
    distance = (y[:, None].square() + x.square()).sqrt()
    return 0.5 * (-3 * distance / distance.max()).exp()


def foveated_blur(images: Tensor, size: int) -> Tensor:
    """Blur images, less in the middle.

    ``m * sharp + (1 - m) * blurred`` with m of `foveal_weight` and a Gaussian blur of `size` samples; borders are
    mirrored without the edge itself, as OpenCV does.

    Parameters
    ----------
    images : Tensor of float32, shape (n, colours, height, width)
    size : int
        Samples of the kernel, odd: `KERNELS` for images of 224 pixels.

    Returns
    -------
    Tensor
        Of the same shape.

    Raises
    ------
    ConfigError
        The kernel is even, or larger than the images allow.
    """
    height, width = images.shape[2:]
    reach = size // 2
    if reach >= min(height, width):
        raise ConfigError(f"a kernel of {size} samples is too large for images of {height} by {width} pixels")
    kernel = gaussian_kernel(size).to(images)
    planes = pad(images.flatten(0, 1).unsqueeze(1), (reach, reach, reach, reach), mode="reflect")
    blurred = conv2d(conv2d(planes, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1)).view_as(images)
    weight = foveal_weight(height, width).to(images)
    return weight * images + (1 - weight) * blurred


def blur_levels(images: Tensor, image_encoder: nn.Module, kernels: Sequence[int] = KERNELS) -> Tensor:
    """Embeddings of every blur level, for a gallery's ``image_blurred``; its `MEDIUM` level is the gallery's ``image``.

    Parameters
    ----------
    images : Tensor of float32, shape (n, colours, height, width)
        As `image_encoder` takes them.
    image_encoder : Module
        Maps images to (n, width).
    kernels : sequence of int
        From low to high.

    Returns
    -------
    Tensor of float32, shape (n, levels, width)
    """
    with torch.no_grad():
        return torch.stack([image_encoder(foveated_blur(images, size)).float() for size in kernels], dim=1)


class Uncertainty(nn.Module):
    """How well each training window fits its image, and the blur level that follows from it.

    ``s_i <- gamma * l_ii + (1 - gamma) * s_i``, with l_ii the logit of window i and its own image and s_i = 1 at first.
    With mu and sigma the mean and the standard deviation (n - 1) of the batch's s: low where l_ii > mu + z sigma, high
    where l_ii < mu - z sigma, medium else. (The paper's equation 10 is printed with the opposite sign; its text and the
    authors' results say that what fits less is blurred more.)

    Parameters
    ----------
    n : int
        Training windows.
    gamma : float
        Share of the new.
    z : float
        1.96 for alpha = 0.05.
    """

    similarity: Tensor
    level: Tensor

    def __init__(self, n: int, gamma: float = 0.3, z: float = 1.96) -> None:
        super().__init__()
        self.gamma, self.z = gamma, z
        self.register_buffer("similarity", torch.ones(n))
        self.register_buffer("level", torch.full((n,), MEDIUM))

    @torch.no_grad()
    def update(self, index: Tensor, fit: Tensor) -> None:
        """Take in a batch: rows of the training set (batch,), and the logit of each with its own image (batch,)."""
        fit = fit.float()
        similarity = self.gamma * fit + (1 - self.gamma) * self.similarity[index]
        self.similarity[index] = similarity
        if len(index) < 2:
            return
        mean, reach = similarity.mean(), self.z * similarity.std()
        self.level[index] = MEDIUM + (fit < mean - reach).long() - (fit > mean + reach).long()


class BlurPriorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `UncertaintyBlur`.

    Parameters
    ----------
    output : str
        Of the encoder.
    target : str
        The gallery's embeddings of three blur levels, (stimuli, 3, width), from low to high; or, with an
        `image_encoder`, its images (stimuli, colours, height, width).
    image_encoder : str
        ``package.module:function`` that returns a module from images to (n, width), which is never trained; empty where
        levels are given.
    gamma, z : float
        See `Uncertainty`.
    released_kernels : bool
        Blur images as the released code does, `RELEASED_KERNELS`; given levels are what they are.
    """

    output: str = "embedding"
    target: str = "image_blurred"
    image_encoder: str = ""
    gamma: float = 0.3
    z: float = 1.96
    released_kernels: bool = False


class UncertaintyBlur(nn.Module):
    """Symmetric InfoNCE against images blurred by each window's own level; in a recipe ``blur_prior:UncertaintyBlur``.

    Images are of unit length, windows are not. Logits are scaled by what the encoder gives as ``logit_scale``; where it
    gives none, by softplus of a parameter of the loss.

    Parameters
    ----------
    options : mapping
        See `BlurPriorConfig`.
    trials : Trials
        What is trained on.

    Raises
    ------
    ConfigError
        The gallery has no such target, or not of such a shape.
    """

    def __init__(self, options: Mapping[str, Any], trials: Trials) -> None:
        super().__init__()
        self.config = msgspec.convert(dict(options), BlurPriorConfig)
        self.kernels = RELEASED_KERNELS if self.config.released_kernels else KERNELS
        _check(self.config, trials)
        self.uncertainty = Uncertainty(len(trials), self.config.gamma, self.config.z)
        self.logit_scale = nn.Parameter(torch.tensor(INITIAL_SCALE))
        self.image_encoder = _frozen(self.config.image_encoder) if self.config.image_encoder else None

    def forward(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Mean over the batch, in nats; while training, what is known of the batch's windows is renewed."""
        brain = output_of(outputs, self.config.output).float()
        # Levels are known of training windows alone.
        levels = self.uncertainty.level[batch.index] if self.training else torch.full_like(batch.index, MEDIUM)
        images = normalize(self.images(target_of(batch, self.config.target), levels), dim=1)
        logits = self._scale(outputs) * brain @ images.T
        if self.training:
            self.uncertainty.update(batch.index, logits.diagonal())
        truth = torch.arange(len(logits), device=logits.device)
        return (cross_entropy(logits, truth) + cross_entropy(logits.T, truth)) / 2

    def images(self, target: Tensor, levels: Tensor) -> Tensor:
        """Embeddings (batch, width) of the batch's images, each at its level (batch,)."""
        if self.image_encoder is None:
            return target[torch.arange(len(target), device=target.device), levels].float()
        blurred = target.float().clone()
        for level, size in enumerate(self.kernels):
            rows = levels == level
            if rows.any():
                blurred[rows] = foveated_blur(target[rows].float(), size)
        with torch.no_grad():
            embeddings: Tensor = self.image_encoder(blurred)
        return embeddings.float()

    def _scale(self, outputs: Mapping[str, Tensor]) -> Tensor:
        return outputs["logit_scale"] if "logit_scale" in outputs else softplus(self.logit_scale)

    def train(self, mode: bool = True) -> "UncertaintyBlur":
        """As every module; the image encoder stays in evaluation mode."""
        super().train(mode)
        if self.image_encoder is not None:
            self.image_encoder.eval()
        return self


def _check(config: BlurPriorConfig, trials: Trials) -> None:
    have = trials.gallery.embeddings if trials.gallery is not None else {}
    if config.target not in have:
        raise ConfigError(f"target is {config.target!r}; the data's gallery has {', '.join(have) or 'none'}")
    shape = have[config.target].shape
    if config.image_encoder and len(shape) != 4:
        raise ConfigError(f"target {config.target!r} is of shape {shape}; expected (stimuli, colours, height, width)")
    if not config.image_encoder and (len(shape) != 3 or shape[1] != len(KERNELS)):
        raise ConfigError(
            f"target {config.target!r} is of shape {shape}; expected three blur levels, (stimuli, 3, width): "
            "rtdecode_models.systems.blur_prior.blur_levels makes them"
        )


def _frozen(place: str) -> nn.Module:
    """The user's image encoder, without gradients."""
    module, _, function = place.partition(":")
    try:
        encoder = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"image_encoder is {place!r}, which cannot be had: {error}") from error
    if not isinstance(encoder, nn.Module):
        raise ConfigError(f"image_encoder {place!r} gave a {type(encoder).__name__}; expected a torch.nn.Module")
    return encoder.eval().requires_grad_(False)
