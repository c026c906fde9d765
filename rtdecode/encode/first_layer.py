"""A first layer that is linear over a window's positions, summed up while they come."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.manifest import Boundary, FirstLayer
from rtdecode.encode.prefix import Floats
from rtdecode.errors import BundleError


class Positions(Protocol):
    """What has been made of a stream: a `PrefixStream`, or an engine's share of one."""

    def positions(self, start: int, first: int, stop: int) -> Floats | None:
        """Positions [first, stop) of the window that begins at `start`; None where they are not to be had."""
        ...

    def gone(self, start: int, first: int) -> bool:
        """Whether position `first` of the window that begins at `start` never will be there."""
        ...


class FirstSums:
    """Multiplies a window's positions by their rows of the weights, group by group.

    Groups are counted from the end of the positions that no padding touches, the first one being what is left over;
    they are added in order, then the positions at both edges. So the sum is the same to the byte, however much of it
    was done before the window was due.

    Parameters
    ----------
    layer : FirstLayer
    boundary : Boundary
        What it is a sum over.
    weights : ndarray of float32, shape (positions x features + 1, width)
        The last row is added.

    Raises
    ------
    BundleError
        The weights have another shape.
    """

    def __init__(self, layer: FirstLayer, boundary: Boundary, weights: NDArray[np.float32]) -> None:
        wanted = (boundary.positions * boundary.features + 1, layer.width)
        if weights.shape != wanted or weights.dtype != np.float32 or layer.group < 1:
            raise BundleError(
                f"{layer.weights} is {weights.dtype} of shape {weights.shape}; expected float32 of {wanted}"
            )
        self._weights, self._features = weights, boundary.features
        self.left, self.stop = boundary.left, boundary.positions - boundary.right
        self.width = layer.width
        clean = self.stop - self.left
        rest = clean % layer.group
        #: Where each group begins, and the end of the last.
        self.bounds = [self.left, *range(self.left + (rest or layer.group), self.stop + 1, layer.group)]
        self._product = np.empty(layer.width, np.float32)

    def start(self) -> Floats:
        """Sums of nothing."""
        return np.array(self._weights[-1])

    def add(self, sums: Floats, rows: Floats, first: int) -> None:
        """Add positions, shape (n, features), of which `first` is the first, to the sums."""
        if len(rows):
            at = first * self._features
            np.dot(rows.reshape(-1), self._weights[at : at + rows.size], out=self._product)
            sums += self._product

    def edges(self, sums: Floats, positions: Floats) -> None:
        """Add the positions that padding touches, of a window's, shape (positions, features)."""
        self.add(sums, positions[: self.left], 0)
        self.add(sums, positions[self.stop :], self.stop)


class Sum:
    """The sums of one window so far.

    Parameters
    ----------
    layer : FirstSums
    start : int
        The window's first sample.
    """

    def __init__(self, layer: FirstSums, start: int) -> None:
        self._layer, self.start = layer, start
        self.values = layer.start()
        self._done = 0
        self._ended = False

    def take(self, stream: Positions) -> bool:
        """Add the groups whose positions the stream holds; False where it does not hold the window's any more."""
        bounds = self._layer.bounds
        while self._done + 1 < len(bounds):
            rows = stream.positions(self.start, bounds[self._done], bounds[self._done + 1])
            if rows is None:
                return not stream.gone(self.start, bounds[self._done])
            self._layer.add(self.values, rows, bounds[self._done])
            self._done += 1
        return not stream.gone(self.start, bounds[0])

    def end(self, positions: Floats) -> Floats:
        """The sums of a window of which these are the positions; what was not added before is now, and once."""
        if self._ended:
            return self.values
        bounds = self._layer.bounds
        for at in range(self._done, len(bounds) - 1):
            self._layer.add(self.values, positions[bounds[at] : bounds[at + 1]], bounds[at])
        self._done = len(bounds) - 1
        self._layer.edges(self.values, positions)
        self._ended = True
        return self.values
