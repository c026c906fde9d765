"""What is different in every trial and nobody knows: drawn from a grid, so that it can be summed out exactly."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Values that one number of a trial may take.

    Parameters
    ----------
    values, probability : ndarray of float64, shape (steps,)
        The probabilities sum to 1.
    """

    values: Array
    probability: Array

    @classmethod
    def normal(cls, deviation: float, step: float, reach: float = 2.5) -> "Grid":
        """Zero mean, this standard deviation, cut at `reach` of them."""
        steps = int(reach * deviation / step + 1e-9)
        values = np.asarray(step * np.arange(-steps, steps + 1), np.float64)
        probability = np.exp(-0.5 * (values / deviation) ** 2)
        return cls(values, np.asarray(probability / probability.sum(), np.float64))

    def exp(self) -> "Grid":
        """Of the exponentials of these values."""
        return Grid(np.exp(self.values), self.probability)

    def places(self, rng: np.random.Generator, n: int) -> NDArray[np.int64]:
        """`n` draws, as places on the grid."""
        return rng.choice(len(self.values), n, p=self.probability)

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        """`n` draws."""
        return np.asarray(self.values[self.places(rng, n)])

    def weighted(self) -> "list[tuple[float, float]]":
        """Every value with the logarithm of its probability."""
        return [(float(value), float(log)) for value, log in zip(self.values, np.log(self.probability), strict=True)]
