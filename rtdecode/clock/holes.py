"""Holes: samples that a sender lost, seen from the stamps of those that came.

LSL numbers no samples, so a loss shows only as a step between stamps. Senders that stamp on arrival make steps too, of
the size of their jitter; a hole is a step beyond both two periods and four times the jitter measured around it. What
lies below that is invisible.
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
#: Live, nothing is known of the blocks to come, so that one takes in more.
LIVE_BLOCK_S = 5.0

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


class HoleWatch:
    """The same, live: each step is judged by the jitter of the block of samples before it.

    Parameters
    ----------
    sfreq : float
        Nominal sampling rate in Hz.
    warm_up_s : float
        Before the jitter is known, only steps longer than this are holes, unless the stamps so far had no jitter.
    """

    def __init__(self, sfreq: float, warm_up_s: float = 0.5) -> None:
        self._sfreq = sfreq
        self._warm_up_s = warm_up_s
        self._block = np.empty(max(8, round(LIVE_BLOCK_S * sfreq)), np.float64)
        self._filled = 0
        self._jitter: float | None = None
        self._exact = True  # every step so far was one period, to a tenth
        self._last: float | None = None
        self._swallowed = 0.0  # seconds lost in holes, so that these do not count as jitter

    def missing(self, stamps: NDArray[np.float64]) -> list[tuple[int, int]]:
        """Where holes lie before samples of this chunk, and how many samples each swallowed.

        Parameters
        ----------
        stamps : ndarray of float64, shape (n,)
            Consecutive raw stamps in seconds.

        Returns
        -------
        list of (int, int)
            Position in the chunk of the sample behind the hole, and the number of samples missing before it.
        """
        if not len(stamps):
            return []
        steps = np.empty(len(stamps))  # by hand: np.diff with a first value takes four times as long on a short chunk
        steps[0] = 0.0 if self._last is None else stamps[0] - self._last
        np.subtract(stamps[1:], stamps[:-1], out=steps[1:])
        holes = []
        begin = 0
        while begin < len(stamps):
            # Whole blocks, counted in samples: where a chunk ends must not decide which jitter a step is judged by.
            stop = min(len(stamps), begin + len(self._block) - self._filled)
            holes += self._judge(stamps[begin:stop], steps[begin:stop], begin)
            begin = stop
        self._last = float(stamps[-1])
        return holes

    def _judge(self, stamps: NDArray[np.float64], steps: NDArray[np.float64], begin: int) -> list[tuple[int, int]]:
        holes: list[tuple[int, int]] = []
        lost = None
        if steps.max() > PERIODS / self._sfreq:
            for k in np.flatnonzero(steps > PERIODS / self._sfreq).tolist():
                if steps[k] > self._threshold(np.delete(steps[:k], [at - begin for at, _ in holes])):
                    holes.append((begin + k, max(1, round(float(steps[k]) * self._sfreq) - 1)))
            at = [k - begin for k, _ in holes]
            lost = np.zeros(len(steps))
            lost[at] = steps[at] - 1 / self._sfreq
            stamps = stamps - np.cumsum(lost)
            steps = np.delete(steps, at)
        self._exact = self._jitter is None and self._all_exact(steps)
        self._collect(stamps - self._swallowed)
        self._swallowed += 0.0 if lost is None else float(lost.sum())
        return holes

    def _all_exact(self, steps: NDArray[np.float64]) -> bool:
        # The very first sample has no step: it stands as 0.
        return self._exact and bool((np.abs(steps * self._sfreq - 1)[steps != 0] < 0.1).all())

    def _threshold(self, before: NDArray[np.float64]) -> float:
        if self._jitter is None:
            return PERIODS / self._sfreq if self._all_exact(before) else max(PERIODS / self._sfreq, self._warm_up_s)
        return max(PERIODS / self._sfreq, JITTERS * self._jitter)

    def _collect(self, stamps: NDArray[np.float64]) -> None:
        self._block[self._filled : self._filled + len(stamps)] = stamps
        self._filled += len(stamps)
        if self._filled == len(self._block):
            measured = jitter(self._block)
            # Once bitten: a calm stretch of a bursty sender does not make the next burst a hole.
            self._jitter = measured if self._jitter is None else max(measured, 0.8 * self._jitter)
            self._filled = 0
