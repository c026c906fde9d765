"""What carries out a `Handling`, checked against the channels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal import Channel
from rtdecode.stream.blank import Blanker
from rtdecode.stream.handling import Handling
from rtdecode.stream.interpolate import Interpolator
from rtdecode.stream.quality import Watch


def tools(
    handling: Handling, channels: Sequence[Channel], sfreq: float
) -> tuple[list[Blanker], Interpolator | None, NDArray[np.intp]]:
    """What carries out a `Handling`: blankers, the interpolator, and the columns of channels known to be bad.

    Parameters
    ----------
    handling : Handling
    channels : sequence of Channel
        Those that the conditioning chain takes.
    sfreq : float
        Raw rate in Hz.

    Raises
    ------
    ConfigError, ContractError
        It does not fit the channels: names what is at fault.
    """
    blankers = [Blanker(f"blank[{n}]", blank, channels, sfreq) for n, blank in enumerate(handling.blanks)]
    interpolator = None
    known_bad = np.zeros(0, np.intp)
    if handling.interpolation is not None:
        interpolator = Interpolator(handling.interpolation, channels)
        known_bad = interpolator.columns
    Watch(handling.limits, channels, known_bad)
    return blankers, interpolator, known_bad
