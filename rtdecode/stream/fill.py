"""Samples that stand in for missing ones."""

import numpy as np
from numpy.typing import NDArray

from rtdecode.stream.finite import hold_finite
from rtdecode.stream.handling import Method
from rtdecode.stream.rows import ARRIVED, STAMP, UNCERTAINTY, Rows


def between(method: Method, before: NDArray[np.float32], after: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """`n` samples between two.

    Where one of the two is not finite the other is held; where both are not, neither are the samples between.

    Parameters
    ----------
    method : {"hold", "linear", "zero"}
    before, after : ndarray of float32, shape (channels,)
        The last sample before and the first one after.
    n : int

    Returns
    -------
    ndarray of float32, shape (n, channels)
    """
    if method == "zero":
        return np.zeros((n, len(before)), np.float32)
    first = before.astype(np.float64)
    last = after.astype(np.float64) if method == "linear" else first
    first = np.where(np.isfinite(first), first, after if method == "linear" else np.nan)
    last = np.where(np.isfinite(last), last, first)
    share = (np.arange(1, n + 1) / (n + 1))[:, None]
    # Written so that no line between two finite samples overflows, and a line between equals is that value itself.
    line: NDArray[np.float32] = np.where(first == last, first, first * (1 - share) + last * share).astype(np.float32)
    return line


def fill(
    method: Method,
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    n: int,
    times: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> Rows:
    """`n` rows in place of missing ones.

    Parameters
    ----------
    method, before, after, n
        As for `between`.
    times : tuple of ndarray, each of shape (3,)
        `Rows.times` of the sample before and of the one after: stamps are spaced evenly, arrivals are the later one's.
    """
    filled = np.empty((n, 3))
    filled[:, STAMP] = np.linspace(times[0][STAMP], times[1][STAMP], n + 2)[1:-1]
    filled[:, ARRIVED] = times[1][ARRIVED]
    filled[:, UNCERTAINTY] = max(times[0][UNCERTAINTY], times[1][UNCERTAINTY])
    return Rows(between(method, before, after, n), filled, filled=np.ones(n, np.bool_))


def last_of(rows: Rows, before: Rows | None) -> Rows:
    """The last row, with the last finite value of each channel; `before` is the same of the rows before these."""
    last = rows.samples[-1:]
    if not np.isfinite(last).all():
        start = np.full(last.shape[1], np.nan, np.float32) if before is None else before.samples[0]
        last = hold_finite(rows.samples, start)[0][-1:]
    return Rows(last, rows.times[-1:])
