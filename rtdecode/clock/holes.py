"""Holes in a whole recording: samples that a sender lost, seen from the stamps of those that came.

LSL numbers no samples, so a loss shows only as a step between stamps. Senders that stamp on arrival make steps too, of
the size of their jitter; a hole is a step beyond both two periods and four times the jitter measured around it. What
lies below that is invisible here; live, `rtdecode.clock.stream_clock` sees more.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

#: Steps of this many periods are holes where there is no jitter; a little under 2, so that one lost sample shows.
PERIODS = 1.9
#: Steps of this many times the jitter are holes.
JITTERS = 4.0
#: Seconds over which jitter is measured: short against the drift of a clock, long against a burst of samples.
BLOCK_S = 1.0

#: What comes after a hole of more seconds is another segment, which begins at index 0. Windows in a hole are due, one
#: by one; nobody waits for those of a lunch break, and a clock that was set by a year would make thousands of millions.
APART_S = 3600.0


def jitter(stamps: NDArray[np.float64]) -> float:
    """How far stamps stray from a straight line through them, in seconds: 95 of 100 lie closer.

    A percentile and not a standard deviation, since senders that stamp on arrival deliver in bursts, whose steps are
    no outliers of a normal distribution.
    """
    if len(stamps) < 8:
        return 0.0
    index = np.arange(len(stamps), dtype=np.float64)
    index -= index.mean()
    centred = stamps - stamps.mean()
    residual = centred - index * (index @ centred) / (index @ index)
    return float(np.percentile(np.abs(residual), 95))


def find_holes(stamps: NDArray[np.float64], sfreq: float) -> NDArray[np.intp]:
    """Indices of the samples that stand behind a hole, in a whole recording.

    The jitter is the median over blocks of `BLOCK_S` seconds, so that a hole does not count as jitter itself.

    Parameters
    ----------
    stamps : ndarray of float64, shape (n,)
        Raw stamps in seconds, clock offsets applied, not smoothed.
    sfreq : float
        Nominal sampling rate in Hz.
    """
    block = max(8, round(BLOCK_S * sfreq))
    blocks = [stamps[k : k + block] for k in range(0, len(stamps), block)]
    whole = [b for b in blocks if len(b) == block] or blocks
    measured = float(np.median([jitter(b) for b in whole])) if len(stamps) else 0.0
    steps = np.diff(stamps)
    return np.flatnonzero(steps > max(PERIODS / sfreq, JITTERS * measured)) + 1


def smooth(
    stamps: NDArray[np.float64], starts: NDArray[np.intp], sfreq: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """De-jitter the stamps of a whole recording, piece by piece, and say how many samples each hole swallowed.

    All pieces share one period (the sender's clock keeps its rate) and each has its own phase, so that a hole stays
    as long as it was. For recordings only: the fit looks ahead.

    Parameters
    ----------
    stamps : ndarray of float64, shape (n,)
        Raw stamps in seconds; they may repeat or run backwards by their jitter.
    starts : ndarray of int, shape (holes,)
        Indices of the samples behind a hole, as `find_holes` gives them.
    sfreq : float
        Nominal sampling rate in Hz, used where the recording is too short to measure it.

    Returns
    -------
    smoothed : ndarray of float64, shape (n,)
        Strictly increasing stamps, equally spaced within a piece.
    missing : ndarray of int64, shape (holes,)
        Samples that fit into each hole, at least one.
    """
    edges = [0, *starts.tolist(), len(stamps)]
    pieces = list(itertools.pairwise(edges))
    period = _common_period(stamps, pieces, 1.0 / sfreq)
    smoothed = np.empty(len(stamps), np.float64)
    missing = np.empty(len(starts), np.int64)
    for k, (begin, stop) in enumerate(pieces):
        line = np.arange(stop - begin) * period
        first = float(np.median(stamps[begin:stop] - line))  # the median: a burst after a stall must not bend it
        if k:
            after = float(smoothed[begin - 1]) + period
            first = max(first, after)
            missing[k - 1] = max(1, round((first - after) / period))
        smoothed[begin:stop] = first + line
    return smoothed, missing


def _common_period(stamps: NDArray[np.float64], pieces: list[tuple[int, int]], nominal: float) -> float:
    """Least squares over all pieces at once; the nominal period where the result is not within 5 % of it."""
    above = below = 0.0
    for begin, stop in pieces:
        index = np.arange(stop - begin, dtype=np.float64)
        index -= index.mean()
        above += float(index @ (stamps[begin:stop] - stamps[begin:stop].mean()))
        below += float(index @ index)
    period = above / below if below else nominal
    return period if abs(period / nominal - 1) < 0.05 else nominal
