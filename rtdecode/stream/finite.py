"""Samples that are not finite, kept away from the filters."""

import numpy as np
from numpy.typing import NDArray


def hold_finite(
    samples: NDArray[np.float32], before: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Replace samples that are not finite by their channel's last finite one, so that no filter state is poisoned.

    Parameters
    ----------
    samples : ndarray of float32, shape (n, channels)
        At least one row.
    before : ndarray of float32, shape (channels,)
        The last finite sample of each channel before these.

    Returns
    -------
    held : ndarray of float32, shape (n, channels)
        All finite.
    bad : ndarray of bool, shape (n, channels)
        Where something was replaced.
    """
    bad = ~np.isfinite(samples)
    rows = np.where(bad, 0, np.arange(1, len(samples) + 1)[:, None])
    last = np.maximum.accumulate(rows, axis=0)
    held = np.take_along_axis(np.vstack([before, samples]), last, axis=0)
    return held, bad
