"""What a chaos run's sender sends, and what its witness says of a window: together they tell right from wrong.

The samples are no brain signal. Each holds its own number and the number of the sender's life, so that one look at a
window tells which samples are in it, whether they are neighbours, and whether any value was changed on the way. All
are whole numbers below 2^24, which float32 holds exactly; the witness is a bundle whose encoder picks and sums them, so
that every fault shows in what is published, end to end.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NAMES = ("count", "life", "p2", "p3", "p5", "p7", "p11", "p13")
UNIT = "V"
SFREQ = 250.0
#: Seconds, and samples, of a window.
LENGTH_S, LENGTH = 0.5, 125
HOP_S = 0.1
#: Samples between two markers; a marker's value is ``n`` and the number of its sample.
MARK_EVERY = 100
#: The pattern channels repeat after so many samples, each at its own pace.
CYCLE = 251
_PACES = np.array([2, 3, 5, 7, 11, 13])

#: What the witness says, in order: of `count` the first and last value, its smallest and largest step; of `life` the
#: smallest and largest value; then the sum over time of each pattern channel.
WITNESS = ("first", "last", "min step", "max step", "min life", "max life", *(f"sum {name}" for name in NAMES[2:]))


def samples(first: int, n: int, life: int) -> NDArray[np.float32]:
    """Samples number `first` to `first` + `n` of a life of the sender, shape (n, channels)."""
    count = np.arange(first, first + n)
    rows = np.empty((n, len(NAMES)), np.float32)
    rows[:, 0] = count
    rows[:, 1] = life
    rows[:, 2:] = (count[:, None] * _PACES) % CYCLE
    return rows


@dataclass(frozen=True, slots=True)
class Witness:
    """A window as its message tells it."""

    first: int
    last: int
    life: int
    fault: str
    """Why it is no window of this sender's; empty where it is one."""


def read_witness(output: NDArray[np.generic], length: int = LENGTH) -> Witness:
    """What the encoder's output says about its window.

    Parameters
    ----------
    output : ndarray, shape (1, 12) or (12,)
        In the order of `WITNESS`.
    length : int
        Samples in a window.
    """
    said = np.asarray(output, np.float64).reshape(-1)
    if not np.isfinite(said).all():
        return Witness(-1, -1, -1, "values that are not finite")
    first, last, life = (int(said[at]) for at in (0, 1, 4))
    fault = ""
    if said[4] != said[5]:
        fault = f"samples of lives {said[4]:g} and {said[5]:g} of the sender in one window"
    elif (said[2], said[3]) != (1, 1) or said[1] - said[0] != length - 1:
        fault = f"samples {said[0]:g} to {said[1]:g} with steps of {said[2]:g} to {said[3]:g}"
    elif not np.array_equal(said[6:], samples(first, length, life)[:, 2:].sum(axis=0, dtype=np.float64)):
        fault = f"values of samples {first} to {last} were changed"
    return Witness(first, last, life, fault)
