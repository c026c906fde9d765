"""Raw rows become conditioned samples, and the encoder hears them."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtdecode.stream.condition import Conditioner
from rtdecode.stream.finite import hold_finite
from rtdecode.stream.interpolate import Interpolator
from rtdecode.stream.rows import Rows

Bad = NDArray[np.bool_]


class Listener(Protocol):
    """Who hears every conditioned sample: the encoder, which may work while it listens."""

    def restart(self, first_index: int) -> None:
        """Forget all state: the next conditioned sample is `first_index` and follows a gap (or nothing)."""
        ...

    def advance(self, samples: NDArray[np.float32], first_index: int) -> None:
        """Take conditioned samples, shape (n, channels), in order, as they come."""
        ...

    def begin(self, first_index: int, samples: NDArray[np.float32]) -> None:
        """A marker-locked window will be due that begins at `first_index`; `samples` of it were given already."""
        ...


class Front:
    """Holds what is not finite, interpolates bad channels, conditions.

    Parameters
    ----------
    conditioner : Conditioner
        The stream steps.
    listener : Listener
        Hears what comes out.
    n_channels : int
        Channels that the conditioning chain takes.
    interpolator : Interpolator, optional
        Makes the bad ones.
    known_bad : ndarray of int
        Their columns.
    """

    def __init__(
        self,
        conditioner: Conditioner,
        listener: Listener,
        n_channels: int,
        interpolator: Interpolator | None,
        known_bad: NDArray[np.intp],
    ) -> None:
        self._conditioner = conditioner
        self._listener = listener
        self._interpolator = interpolator
        self._known_bad = known_bad
        self._restarted = 0
        self._finite = np.zeros(n_channels, np.float32)
        self._begun = np.zeros(n_channels, np.bool_)  # channels that had a finite sample since the last hole

    def restart(self, index: int) -> None:
        """Nothing that was learnt from the samples before raw sample `index` may colour those from there on."""
        self._begin(index)
        self._restarted = index
        self._finite[:] = 0
        self._begun[:] = False
        self._begun[self._known_bad] = True

    def push(self, rows: Rows, index: int) -> tuple[NDArray[np.float32], Bad | None, list[int]]:
        """Condition rows, the first of which is raw sample `index`.

        Returns
        -------
        conditioned : ndarray of float32, shape (m, channels out)
        bad : ndarray of bool, shape (n, channels), or None
            Where the rows are not finite.
        seams : list of int
            Raw indices at which filters and encoder began anew.
        """
        samples, bad = rows.samples, None
        if not np.isfinite(samples).all():
            samples, bad = hold_finite(samples, self._finite)
        self._finite[:] = samples[-1]
        if self._interpolator is not None:
            samples = self._interpolator(samples, index)
        if self._begun.all():
            return self._condition(samples, index), bad, []
        # A channel has its first finite sample: all begins anew there. Zeros stood in its place, and the step from
        # there to an amplifier's offset would ring in the filters long after the last window that is an artifact.
        finite = np.ones(samples.shape, np.bool_) if bad is None else ~bad
        some = finite.any(axis=0)
        firsts = np.unique(finite.argmax(axis=0)[some & ~self._begun]).tolist()
        self._begun |= some
        parts, seams, begin = [], [], 0
        for row in firsts:
            parts.append(self._condition(samples[begin:row], index + begin))
            begin = row
            if index + row != self._restarted:
                self._begin(index + row)
                seams.append(index + row)
        parts.append(self._condition(samples[begin:], index + begin))
        return np.concatenate(parts), bad, seams

    def _begin(self, index: int) -> None:
        self._conditioner.restart(index)
        self._listener.restart(self._conditioner.outputs_before(index))

    def _condition(self, samples: NDArray[np.float32], index: int) -> NDArray[np.float32]:
        conditioned = self._conditioner.push(samples)
        if len(conditioned):
            self._listener.advance(conditioned, self._conditioner.outputs_before(index))
        return conditioned
