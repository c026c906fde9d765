"""Steps that mix or scale the channels of one sample: selection, references, matrices, fixed scaling."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from rtdecode.errors import BundleError
from rtdecode.signal import Channel
from rtdecode.stream.runner import Array, Runner, find, load, require, same_unit, unique
from rtdecode.stream.steps import Bipolar, Laplacian, Matrix, Pick, Reference, Scale

#: Rows of one product. Few, so that a chunk of ten samples is not padded to twice its size, and so that 306 channels
#: stay below the size at which BLAS starts its threads.
ROWS = 8


class BlockProduct:
    """``x @ matrix.T``, each row always at the same place of a product of the same shape.

    BLAS picks its kernels by shape, so the last bits of a row depend on how many rows go in together. Rows are
    therefore multiplied in blocks of `ROWS` counted from the start of the segment, padded with zeros.

    Parameters
    ----------
    matrix : ndarray of float64, shape (channels out, channels in)
    """

    def __init__(self, matrix: Array) -> None:
        self._right = np.ascontiguousarray(matrix.T)

    def __call__(self, x: Array, index: int) -> Array:
        """Multiply rows (n, channels in), the first of which is sample `index`; give (n, channels out)."""
        n, width = x.shape
        lead = index % ROWS
        blocks = -(-(lead + n) // ROWS)
        padded = np.zeros((blocks * ROWS, width))
        padded[lead : lead + n] = x
        product = np.matmul(padded.reshape(blocks, ROWS, width), self._right)
        rows: Array = product.reshape(blocks * ROWS, -1)[lead : lead + n]
        return rows


class PickRunner(Runner):
    """Runs `Pick`."""

    def __init__(self, where: str, step: Pick, channels: tuple[Channel, ...], sfreq: float) -> None:
        unique(where, "channels", step.channels)
        self._columns = np.array(find(where, channels, step.channels))
        super().__init__(where, tuple(channels[i] for i in self._columns), sfreq)

    def push(self, x: Array) -> Array:
        """Keep the columns."""
        return np.take(x, self._columns, axis=1)


class ReferenceRunner(Runner):
    """Runs `Reference`."""

    def __init__(self, where: str, step: Reference, channels: tuple[Channel, ...], sfreq: float) -> None:
        if step.channels:
            unique(where, "channels", step.channels)
        same_unit(where, channels)
        self._columns = np.array(find(where, channels, step.channels)) if step.channels else None
        super().__init__(where, channels, sfreq)

    def push(self, x: Array) -> Array:
        """Subtract each row's mean over the reference channels."""
        reference = x if self._columns is None else np.take(x, self._columns, axis=1)
        mean: Array = reference.mean(axis=1, keepdims=True)
        return x - mean


class BipolarRunner(Runner):
    """Runs `Bipolar`."""

    def __init__(self, where: str, step: Bipolar, channels: tuple[Channel, ...], sfreq: float) -> None:
        names = [f"{anode}-{cathode}" for anode, cathode in step.pairs]
        unique(where, "pairs", names)
        self._anodes = np.array(find(where, channels, [anode for anode, _ in step.pairs]))
        self._cathodes = np.array(find(where, channels, [cathode for _, cathode in step.pairs]))
        out = []
        for name, a, c in zip(names, self._anodes, self._cathodes, strict=True):
            require(a != c, where, "pairs", name, "two different channels")
            same_unit(where, (channels[a], channels[c]))
            out.append(replace(channels[a], name=name, position=_midpoint(channels[a], channels[c])))
        super().__init__(where, tuple(out), sfreq)

    def push(self, x: Array) -> Array:
        """Anode minus cathode."""
        return np.take(x, self._anodes, axis=1) - np.take(x, self._cathodes, axis=1)


def _midpoint(a: Channel, b: Channel) -> tuple[float, float, float] | None:
    if a.position is None or b.position is None:
        return None
    x, y, z = ((p + q) / 2 for p, q in zip(a.position, b.position, strict=True))
    return x, y, z


class LaplacianRunner(Runner):
    """Runs `Laplacian`."""

    def __init__(self, where: str, step: Laplacian, channels: tuple[Channel, ...], sfreq: float) -> None:
        unique(where, "neighbours", tuple(step.neighbours))
        # In the order in which the channels come in: that of an object's keys does not outlive JSON.
        self._columns = np.sort(find(where, channels, tuple(step.neighbours)))
        most = max(len(names) for names in step.neighbours.values())
        # Neighbours in `most` rounds; where a channel has fewer, the round adds any column with weight 0.
        self._rounds = np.zeros((most, len(self._columns)), dtype=np.intp)
        self._weights = np.zeros((most, len(self._columns)))
        for at, name in enumerate(channels[i].name for i in self._columns):
            neighbours = step.neighbours[name]
            unique(where, f"neighbours[{name!r}]", neighbours)
            require(name not in neighbours, where, f"neighbours[{name!r}]", neighbours, f"channels other than {name!r}")
            columns = find(where, channels, neighbours)
            same_unit(where, [channels[self._columns[at]], *(channels[i] for i in columns)])
            self._rounds[: len(columns), at] = columns
            self._weights[: len(columns), at] = 1 / len(columns)
        super().__init__(where, tuple(channels[i] for i in self._columns), sfreq)

    def push(self, x: Array) -> Array:
        """Subtract the mean of the neighbours."""
        out = np.take(x, self._columns, axis=1)
        for columns, weights in zip(self._rounds, self._weights, strict=True):
            out -= np.take(x, columns, axis=1) * weights
        return out


class MatrixRunner(Runner):
    """Runs `Matrix`."""

    def __init__(
        self, where: str, step: Matrix, channels: tuple[Channel, ...], sfreq: float, arrays: Mapping[str, Array]
    ) -> None:
        if step.channels:
            unique(where, "channels", step.channels)
        out = len(step.channels) or len(channels)
        self._product = BlockProduct(load(where, arrays, step.array, (out, len(channels))))
        self._index = 0
        super().__init__(where, _matrix_outputs(step, channels), sfreq)

    def restart(self, index: int) -> None:
        """Go on at sample `index`."""
        self._index = index

    def push(self, x: Array) -> Array:
        """Multiply each row."""
        out = self._product(x, self._index)
        self._index += len(x)
        return out


def _matrix_outputs(step: Matrix, channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
    """Channels that leave a matrix: known names keep what is known of them, new ones take what all inputs share."""
    known = {channel.name: channel for channel in channels}
    types = {channel.type for channel in channels}
    units = {channel.unit for channel in channels}
    type_ = types.pop() if len(types) == 1 else "misc"
    unit = units.pop() if len(units) == 1 else ""
    out = channels
    if step.channels:
        out = tuple(known.get(name, Channel(name, type_, unit)) for name in step.channels)
    if step.kind in ("mvnn", "euclidean_alignment"):
        out = tuple(replace(channel, unit="1") for channel in out)
    return out


class ScaleRunner(Runner):
    """Runs `Scale`."""

    def __init__(
        self, where: str, step: Scale, channels: tuple[Channel, ...], sfreq: float, arrays: Mapping[str, Array]
    ) -> None:
        self._center = load(where, arrays, step.center, (len(channels),))
        self._scale = load(where, arrays, step.scale, (len(channels),))
        for channel, value in zip(channels, self._scale, strict=True):
            if not value > 0:
                raise BundleError(
                    f"{where}: array {step.scale!r} holds {value} for channel {channel.name!r}; expected scales above 0"
                )
        super().__init__(where, tuple(replace(channel, unit="1") for channel in channels), sfreq)

    def push(self, x: Array) -> Array:
        """Centre and scale."""
        out = x - self._center
        out /= self._scale
        return out
