"""How far a sender's stamps stray from the line through them."""

import numpy as np
from numpy.typing import NDArray

#: Residuals of this many seconds are looked at together: long against a burst, short against an experiment.
WINDOW_S = 5.0
#: What is remembered of a stormy window in the next calm one: a calm stretch does not make the next burst a hole.
REMEMBERED = 0.8
#: Residuals kept; of faster senders, every so manyth.
_KEPT = 5000
#: The part of the stamps that lies closer to the line than the jitter.
_PART = 0.95


class Jitter:
    """The distance from the line within which 95 of 100 stamps lie, in seconds.

    A percentile and not a standard deviation, since senders that stamp on arrival deliver in bursts, whose steps are
    no outliers of a normal distribution.

    Parameters
    ----------
    sfreq : float
        Rate of the samples in Hz.
    """

    def __init__(self, sfreq: float) -> None:
        self._window = max(8, round(WINDOW_S * sfreq))
        self._stride = -(-self._window // _KEPT)
        self._ring = np.empty(-(-self._window // self._stride))
        self._seen = 0
        self._kept = 0
        self._due = 8
        self.value = 0.0

    def add(self, residuals: NDArray[np.float64] | list[float]) -> None:
        """Take residuals in, in seconds."""
        size = len(self._ring)
        some = residuals[-self._seen % self._stride :: self._stride]
        kept = ([abs(one) for one in some] if isinstance(some, list) else np.abs(some))[-size:]
        self._seen += len(residuals)
        if len(kept):
            at = self._kept % size
            tail = min(len(kept), size - at)
            self._ring[at : at + tail] = kept[:tail]
            if tail < len(kept):
                self._ring[: len(kept) - tail] = kept[tail:]
            self._kept += len(kept)
        if self._seen >= self._due:
            self._measure()

    def _measure(self) -> None:
        apart = min(self._seen, self._window // 5 + 1)
        self._due = self._seen + apart
        ring = self._ring[: self._kept]
        rank = int(_PART * (len(ring) - 1))
        measured = float(np.partition(ring, rank)[rank])
        self.value = max(measured, self.value * REMEMBERED ** (apart / self._window))
