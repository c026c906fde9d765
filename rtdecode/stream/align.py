"""Euclidean alignment that follows the recording."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from rtdecode.errors import BundleError
from rtdecode.signal import Channel
from rtdecode.stream.fit import RCOND, inverse_sqrt
from rtdecode.stream.linear import BlockProduct
from rtdecode.stream.runner import Array, Runner, load, require
from rtdecode.stream.steps import RunningAlignment

#: Samples whose outer products are added up in one product; blocks end with a shorter run, padded with zeros.
_RUN = 32


class RunningAlignmentRunner(Runner):
    """Runs `RunningAlignment`.

    The samples of a block are multiplied by ``R^-1/2`` as it stood at the block's start; their own covariance ``C``
    enters at its end, ``R <- a R + (1 - a) C`` with ``a = 0.5 ** (block_s / half_life_s)``. Blocks are counted from the
    start of the segment; one that a restart cuts in two does not enter.
    """

    def __init__(
        self,
        where: str,
        step: RunningAlignment,
        channels: tuple[Channel, ...],
        sfreq: float,
        arrays: Mapping[str, Array],
    ) -> None:
        n = len(channels)
        require(step.half_life_s > 0, where, "half_life_s", step.half_life_s, "above 0 s")
        require(0 < step.block_s < np.inf, where, "block_s", step.block_s, "above 0 s")
        self._block = round(step.block_s * sfreq)
        require(self._block >= 1, where, "block_s", step.block_s, f"at least one sample ({1 / sfreq:g} s)")
        self._keep = 0.5 ** (step.block_s / step.half_life_s)
        start = load(where, arrays, step.start, (n, n))
        if not np.allclose(start, start.T, rtol=1e-6, atol=1e-9 * np.abs(start).max()):
            raise BundleError(f"{where}: array {step.start!r} is not symmetric; expected a covariance")
        values = np.linalg.eigvalsh(start)
        if not values[-1] > 0 or values[0] < -RCOND * values[-1]:
            raise BundleError(
                f"{where}: array {step.start!r} has eigenvalues from {values[0]:.3g} to {values[-1]:.3g}; "
                "expected a covariance: none below 0, one above"
            )
        self._start = start
        self._first = BlockProduct(inverse_sqrt(start))
        super().__init__(where, tuple(replace(channel, unit="1") for channel in channels), sfreq)
        self._run = np.zeros((_RUN, n))
        self.restart(0)

    def restart(self, index: int) -> None:
        """Go back to the covariance from training."""
        self._index = index
        self._covariance = self._start
        self._product = self._first
        self._sum = np.zeros_like(self._start)
        self._run[:] = 0
        self._whole = index % self._block == 0

    def push(self, x: Array) -> Array:
        """Align."""
        out = np.empty_like(x)
        done = 0
        while done < len(x):
            to = min(len(x), done + self._block - self._index % self._block)
            out[done:to] = self._product(x[done:to], self._index)
            if self._whole:
                self._add(x[done:to])
            self._index += to - done
            done = to
            if self._index % self._block == 0:
                self._end_block()
        return out

    def _add(self, x: Array) -> None:
        """Add outer products, run by run, so that they are summed in the same order whatever the cutting."""
        at = self._index % self._block
        done = 0
        while done < len(x):
            lead = (at + done) % _RUN
            to = min(len(x), done + _RUN - lead)
            self._run[lead : lead + to - done] = x[done:to]
            done = to
            if (at + done) % _RUN == 0 or at + done == self._block:
                self._sum += self._run.T @ self._run
                self._run[:] = 0

    def _end_block(self) -> None:
        if self._whole:
            self._covariance = self._keep * self._covariance + (1 - self._keep) * (self._sum / self._block)
            self._product = BlockProduct(inverse_sqrt(self._covariance))
            self._sum[:] = 0
        self._whole = True
