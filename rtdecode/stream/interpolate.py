"""Bad channels made of good ones by a declared matrix."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import ConfigError
from rtdecode.signal import Channel
from rtdecode.stream.handling import Interpolation
from rtdecode.stream.linear import BlockProduct
from rtdecode.stream.runner import find, unique


class Interpolator:
    """Runs `Interpolation`; good channels pass bit for bit.

    Parameters
    ----------
    interpolation : Interpolation
    channels : sequence of Channel
        Those that the conditioning chain takes, in its order.

    Raises
    ------
    ContractError
        A bad channel is not there.
    ConfigError
        The matrix has another shape, is not finite, leans on a bad channel, changes a good one, or gives a bad one
        nothing.

    Attributes
    ----------
    columns : ndarray of int
        Columns of the bad channels.
    """

    def __init__(self, interpolation: Interpolation, channels: Sequence[Channel]) -> None:
        where, n = interpolation.source, len(channels)
        matrix = interpolation.matrix
        names = [channel.name for channel in channels]
        unique("bad channels", "bad", interpolation.bad)
        self.columns = np.array(find("bad channels", channels, interpolation.bad), np.intp)
        if matrix.shape != (n, n):
            raise ConfigError(
                f"{where} has shape {matrix.shape}; expected {(n, n)}: one row and one column for each of the "
                f"{n} channels of the bundle's contract, in its order"
            )
        if not np.isfinite(matrix).all():
            row, column = np.argwhere(~np.isfinite(matrix))[0]
            raise ConfigError(
                f"{where} holds {matrix[row, column]} in the row of {names[row]!r}, column of {names[column]!r}; "
                "expected finite numbers"
            )
        for row in self.columns:
            leans = [names[column] for column in self.columns if matrix[row, column] != 0]
            if leans:
                raise ConfigError(
                    f"{where} makes bad channel {names[row]!r} of bad channel {leans[0]!r}; expected weight 0 on "
                    "every bad channel"
                )
            if not matrix[row].any():
                raise ConfigError(f"{where} has no weight in the row of bad channel {names[row]!r}; expected some")
        good = np.setdiff1d(np.arange(n), self.columns)
        changed = (matrix[good] != np.eye(n)[good]).any(axis=1)
        if changed.any():
            raise ConfigError(
                f"{where} changes channel {names[good[changed.argmax()]]!r}, which is not declared bad; expected its "
                "row to be that of the identity (1 at its own column, 0 elsewhere)"
            )
        self._product = BlockProduct(np.asarray(matrix[self.columns], np.float64))

    def __call__(self, samples: NDArray[np.float32], index: int) -> NDArray[np.float32]:
        """Replace the bad channels of finite samples (n, channels), the first of which is sample `index`."""
        out = samples.copy()
        out[:, self.columns] = self._product(samples.astype(np.float64), index)
        return out
