"""A recipe's table ``model`` as a system's own configuration, and what systems ask of the shape of the data."""

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from rtdecode.errors import ConfigError
from rtdecode_models.data.shape import Shape

Config = TypeVar("Config", bound=msgspec.Struct)

#: More of them than this is a slip of the keyboard, which would be built one by one for hours before memory runs out.
MOST_LAYERS = 1000
#: What systems call the number of layers that are built one after the other.
_LAYERS = frozenset({"blocks", "n_blocks", "depth", "decoder_depth", "n_layers"})


def read_options(options: Mapping[str, Any], config: type[Config]) -> Config:
    """The options as `config`.

    Raises
    ------
    msgspec.ValidationError
        A key is unknown, or of a wrong type.
    ValueError
        A count is negative.
    """
    read = msgspec.convert(dict(options), config)
    for name in options:
        value = getattr(read, name)
        if isinstance(value, int) and value < 0:
            raise ValueError(f"{name} is {value}; expected 0 or more")
    return read


def check_finite(options: Mapping[str, Any]) -> None:
    """Raise `ValueError` where a number among the options is NaN or Inf, which no system has a use for."""
    for name, value in options.items():
        for number in value if isinstance(value, list | tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{name} is {value}; expected finite numbers")


def check_layers(options: Mapping[str, Any]) -> None:
    """Raise `ValueError` where there are to be more than `MOST_LAYERS` layers of a kind."""
    for name in _LAYERS & options.keys():
        if isinstance(options[name], int) and options[name] > MOST_LAYERS:
            raise ValueError(f"{name} is {options[name]}; expected at most {MOST_LAYERS}")


def left_out(shape: Shape, seconds: float, key: str) -> int:
    """Samples at the start of a window that are there for its baseline alone.

    Parameters
    ----------
    shape : Shape
        Of the data.
    seconds : float
        How long that is.
    key : str
        The option that says so, for the error.

    Raises
    ------
    ConfigError
        It is negative, or the whole window.
    """
    samples = round(seconds * shape.sfreq)
    if not 0 <= samples < shape.n_times:
        whole = shape.n_times / shape.sfreq
        raise ConfigError(f"model.{key} is {seconds} s; expected 0 to less than a window, {whole:g} s")
    return samples


def target_width(shape: Shape, target: str, key: str) -> int:
    """How many numbers one row of a target holds.

    Parameters
    ----------
    shape : Shape
        Of the data.
    target : str
        The name of one of its targets.
    key : str
        The option that names the target, for the error.

    Raises
    ------
    ConfigError
        The data have no such target, or its rows are not vectors.
    """
    if target not in shape.targets:
        given = ", ".join(sorted(shape.targets)) or "none"
        raise ConfigError(f"model.{key} is {target!r}, but the data's targets are: {given}")
    rows = shape.targets[target]
    if len(rows) != 1:
        raise ConfigError(f"model.{key} is {target!r} with rows of shape {rows}; expected vectors, such as (768,)")
    return rows[0]
