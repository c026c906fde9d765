"""The systems by the name that a recipe gives them."""

import importlib
from collections.abc import Mapping
from typing import Any, Protocol, cast

import msgspec

from rtdecode.errors import ConfigError
from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.systems.options import check_finite, check_layers

#: Name in a recipe -> module under ``rtdecode_models.systems`` and the function there that builds it.
SYSTEMS: dict[str, str] = {
    "atm": "atm:build",
    "brain-module": "brain_module:build",
    "cross-subject": "cross_subject:build",
    "mixer": "mixer:build",
    "nice": "nice:build",
    "ridge": "ridge:build",
    "ubp": "ubp:build",
    "brainbert": "brainbert:build",
    "brainbert-masked": "brainbert_masked:build",
    "du-in": "du_in:build",
    "du-in-masked": "du_in_masked:build",
    "du-in-tokenizer": "du_in_tokenizer:build",
    "simpleconv": "simpleconv:build",
    "eegnet": "eegnet:build",
    "lda": "lda:build",
    "csp-lda": "csp_lda:build",
    "cca": "cca:build",
    "histn": "histn:build",
    "geometric": "geometric:build",
    "neuro3d": "neuro3d:build",
    "neuroimagen": "neuroimagen:build",
    "denoiser": "denoiser:build",
}


class _Builder(Protocol):
    """A system's own builder: its options as the recipe's table has them, and the shape of the data."""

    def __call__(self, options: Mapping[str, Any], shape: Shape) -> Encoder: ...


def build(system: str, options: Mapping[str, Any], shape: Shape) -> Encoder:
    """An encoder with weights at random from torch's generator.

    Parameters
    ----------
    system : str
        One of `SYSTEMS`.
    options : mapping
        The rest of the recipe's table ``model``: fields of the system's own configuration.
    shape : Shape
        Of the data.

    Raises
    ------
    ConfigError
        There is no such system, an option is unknown or makes no sense, or the data lack what the system needs.
    """
    if system not in SYSTEMS:
        raise ConfigError(f"model.system is {system!r}; expected one of {', '.join(sorted(SYSTEMS))}")
    module, _, function = SYSTEMS[system].partition(":")
    builder = cast(_Builder, getattr(importlib.import_module(f"rtdecode_models.systems.{module}"), function))
    try:
        check_finite(options)
        check_layers(options)
        return builder(options, shape)
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigError(f"model (system {system!r}): {error}") from error
    except (RuntimeError, ArithmeticError, MemoryError) as error:  # torch's own, of a size that cannot be
        raise ConfigError(
            f"model (system {system!r}) cannot be built with these options, for windows of {shape.n_times} samples and "
            f"{shape.n_channels} channels: {error}"
        ) from error
