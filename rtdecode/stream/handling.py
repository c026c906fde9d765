"""What a pipeline does about samples that are missing, disturbed or bad: declarations only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

#: How samples are replaced: by the last one before, by a straight line between the neighbours, or by zeros.
Method = Literal["hold", "linear", "zero"]

#: A limit for all channels, or for each channel type.
Limit = float | Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Fill:
    """Holes that are filled rather than refused.

    Parameters
    ----------
    seconds : float
        The longest.
    method : {"hold", "linear", "zero"}
        With what.
    """

    seconds: float
    method: Method = "linear"


@dataclass(frozen=True, slots=True)
class Blank:
    """Samples around markers that are replaced before anything else looks at them.

    Parameters
    ----------
    markers : tuple of str
        Patterns of marker values, with shell wildcards.
    tmin, tmax : float
        Seconds from the marker; both ends are blanked.
    method : {"hold", "linear", "zero"}
        With what.
    channels : tuple of str
        Which channels; all where empty.
    """

    markers: tuple[str, ...]
    tmin: float
    tmax: float
    method: Method = "linear"
    channels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """When a channel is bad within a window, and how many bad channels a window may hold.

    Parameters
    ----------
    flat : float or mapping of str to float, optional
        Flat below this peak-to-peak value, in the channel's SI unit; by channel type where it is a mapping.
    clip : int, optional
        Clipped where so many samples in a row stand at the window's own highest or lowest value.
    range : float or mapping of str to float, optional
        Out of range beyond this absolute value.
    max_bad : int
        Windows with more bad channels are artifacts. Samples that are not finite make a channel bad, whatever else is
        looked for.
    """

    flat: Limit | None = None
    clip: int | None = None
    range: Limit | None = None
    max_bad: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Interpolation:
    """Channels known to be bad, and what they are made of.

    Parameters
    ----------
    bad : tuple of str
        Their names.
    matrix : ndarray of float64, shape (channels, channels)
        Over the channels that the conditioning chain takes, in its order. The row of a bad channel holds weights on
        good channels, the row of a good one is that of the identity.
    source : str
        Where the matrix comes from, for messages.
    """

    bad: tuple[str, ...]
    matrix: NDArray[np.float64]
    source: str = "the interpolation matrix"


@dataclass(frozen=True, slots=True)
class Handling:
    """All of it; by default that is nothing.

    Parameters
    ----------
    fill : Fill, optional
    blanks : tuple of Blank
        Applied one after the other.
    limits : Limits
    interpolation : Interpolation, optional
    """

    fill: Fill | None = None
    blanks: tuple[Blank, ...] = ()
    limits: Limits = Limits()
    interpolation: Interpolation | None = None


#: Holes are refused, nothing is replaced, and one sample that is not finite is an artifact.
AS_IT_COMES = Handling()
