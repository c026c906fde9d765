"""A marker-locked window whose samples are still coming."""

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.first_layer import FirstSums, Sum
from rtdecode.encode.manifest import Split
from rtdecode.encode.prefix import Bound, Floats, PrefixStream
from rtdecode.stream.early_steps import EarlySteps


class OpenWindow:
    """Encodes a window's samples as they come, after its own window steps.

    Parameters
    ----------
    stream : PrefixStream
        Of its own.
    steps : EarlySteps
        The window steps; a baseline makes samples wait until it is known.
    length : int
        Samples of a window.
    edge : Bound or None
        Makes the positions at the window's beginning that padding touches.
    split : Split
        How the encoder was cut.
    layer : FirstSums or None
        A layer behind the prefix that is summed up as positions come.
    """

    def __init__(
        self,
        stream: PrefixStream,
        steps: EarlySteps,
        length: int,
        edge: Bound | None,
        split: Split,
        layer: FirstSums | None,
    ) -> None:
        self.stream = stream
        #: Those positions, once they are made.
        self.left: dict[str, Floats] | None = None
        #: The sums of that layer, until they are used.
        self.sum: Sum | None = None
        self._steps, self._length = steps, length
        self._edge, self._split, self._layer = edge, split, layer
        self._baselines: list[NDArray[np.float64]] | None = None
        self._waiting: list[Floats] = []  # for the baseline
        self._head: list[Floats] = []  # its first samples, for the edge
        self.start = self._next = 0

    @property
    def stop(self) -> int:
        """One past its last sample."""
        return self.start + self._length

    @property
    def complete(self) -> bool:
        """Whether all its samples were heard."""
        return self._next == self.stop

    def begin(self, start: int) -> None:
        """It begins at sample `start`, of which none was heard yet."""
        self.start = self._next = start
        self.stream.restart(start, start % self._split.block)
        self.sum = None if self._layer is None else Sum(self._layer, start)
        self._baselines = None
        self._waiting, self._head = [], []
        self.left = None

    def push(self, samples: Floats, first_index: int) -> None:
        """Take samples, some of which may lie before or behind it."""
        rows = samples[max(0, self._next - first_index) : max(0, self.stop - first_index)]
        if not len(rows):
            return
        self._next += len(rows)
        if self._baselines is None:
            self._waiting.append(np.array(rows))
            if self._next - self.start < self._steps.needed:
                return
            rows = np.concatenate(self._waiting)
            self._waiting = []
            self._baselines = self._steps.begin(rows[: self._steps.needed])
        ready = self._steps(rows, self._baselines)
        if self._edge is not None and self.left is None:
            self._make_left(ready, self._edge)
        self.stream.push(ready, self.stream.next)
        if self.sum is not None:
            self.sum.take(self.stream)

    def _make_left(self, ready: Floats, edge: Bound) -> None:
        self._head.append(np.array(ready))
        n = self._split.left_samples
        if sum(map(len, self._head)) < n:
            return
        edge.arrays["samples"][0] = np.concatenate(self._head)[:n]
        edge.run()
        self.left = {name: array.copy() for name, array in edge.arrays.items() if name != "samples"}
        self._head = []
