"""What a running stream step is, and the checks that every step makes of its declaration."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import BundleError, ConfigError, ContractError
from rtdecode.signal import Channel

Array = NDArray[np.float64]

_FLOAT32_MAX = float(np.finfo(np.float32).max)

#: Rates are exact fractions with at most this denominator: 999.4 Hz is 4997/5 Hz, not the nearest binary number.
RATE_DENOMINATOR = 10_000


class Runner(ABC):
    """One stream step at work. Works in float64; the bytes of an output do not depend on how the input is cut.

    Parameters
    ----------
    where : str
        The step's place in the chain, for messages: ``stream step 2 (notch)``.
    channels : tuple of Channel
        What comes out.
    sfreq : float
        Rate of what comes out, in Hz.
    """

    #: Outputs per input, exact.
    ratio: Fraction = Fraction(1)
    #: Lowest and highest frequency (Hz) that pass unharmed.
    band: tuple[float, float] = (0.0, math.inf)

    def __init__(self, where: str, channels: tuple[Channel, ...], sfreq: float) -> None:
        self.where = where
        self.channels = channels
        self.sfreq = sfreq

    def restart(self, index: int) -> None:  # noqa: B027  most steps have nothing to forget
        """Forget everything; the next input is sample `index`, counted on this step's own input grid."""

    @abstractmethod
    def push(self, x: Array) -> Array:
        """Take samples (n, channels in), n > 0; give those that they determine, (m, channels out)."""

    def delay(self, hz: Array) -> Array:
        """Group delay in seconds at these frequencies; NaN where the step passes next to nothing."""
        return np.zeros(len(hz))


def to_float32(x: Array) -> NDArray[np.float32]:
    """The one cast at the end of a chain. Beyond float32 means garbage came in; it stays finite.

    Adding zero makes -0 and 0 one and the same.
    """
    return np.clip(x, -_FLOAT32_MAX, _FLOAT32_MAX).astype(np.float32) + np.float32(0)


def rate(sfreq: float) -> Fraction:
    """A sampling rate in Hz as the exact fraction that was meant."""
    return Fraction(sfreq).limit_denominator(RATE_DENOMINATOR)


def require(ok: bool, where: str, key: str, value: object, expected: str) -> None:
    """Raise `ConfigError` naming the step, its key, the value and what was expected, unless `ok`."""
    if not ok:
        raise ConfigError(f"{where}: {key} = {value!r}; expected {expected}")


def find(where: str, channels: Sequence[Channel], names: Sequence[str]) -> list[int]:
    """Columns of the named channels; raise `ContractError` naming the step and the channel that is not there."""
    columns = {channel.name: column for column, channel in enumerate(channels)}
    missing = [name for name in names if name not in columns]
    if missing:
        have = ", ".join(list(columns)[:8]) + (", ..." if len(columns) > 8 else "")
        raise ContractError(
            f"{where}: there is no channel {', '.join(map(repr, missing))} at this place of the chain; "
            f"there are {len(columns)}: {have}"
        )
    return [columns[name] for name in names]


def unique(where: str, key: str, names: Sequence[str]) -> None:
    """Raise `ConfigError` unless there are names and no name comes twice."""
    require(len(names) > 0, where, key, names, "at least one channel")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    require(not twice, where, key, twice, "each channel once")


def same_unit(where: str, channels: Sequence[Channel]) -> None:
    """Raise `ContractError` unless all these channels have one unit."""
    for channel in channels:
        if channel.unit != channels[0].unit:
            raise ContractError(
                f"{where}: channel {channel.name!r} is in {channel.unit or 'no declared unit'} and channel "
                f"{channels[0].name!r} in {channels[0].unit or 'no declared unit'}; expected one unit: "
                "pick channels of one type before this step"
            )


def load(where: str, arrays: Mapping[str, Array], name: str, shape: tuple[int, ...]) -> Array:
    """Array `name`, which must have this shape and be finite; raise `BundleError` naming it otherwise."""
    if name not in arrays:
        raise BundleError(f"{where}: array {name!r} is not in the bundle; expected float64 of shape {shape}")
    array = np.ascontiguousarray(arrays[name], dtype=np.float64)
    if array.shape != shape:
        raise BundleError(f"{where}: array {name!r} has shape {array.shape}; expected {shape}")
    if not np.isfinite(array).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise BundleError(f"{where}: array {name!r} holds {array[at]} at {at}; expected finite numbers")
    return array
