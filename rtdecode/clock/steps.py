"""Lasting steps: samples lost, or a clock set, by less than the jitter shows at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.clock.line import Line

#: A lasting step is one of so many standard errors; looked for 50 times a second, noise alone makes one in years.
ERRORS = 6.0
#: The step must be so much of a period: half would be as near to none.
LEAST = 0.7
#: The step must be so much of the jitter: clocks that wander with it are no holes.
OF_JITTER = 0.5
#: A step has left nothing but noise and this part of the deviation when it is taken off; a change of rate leaves more.
_LEFT = 0.15
#: Twice the log likelihood by which the place of a step may miss the likeliest one (probability of 1 in 1000).
_DOUBT = 14.0


@dataclass(slots=True, eq=False)
class Block:
    """Consecutive samples as they went into the fit.

    Parameters
    ----------
    first : int
        Index of the first one.
    times : ndarray of float64, shape (n,)
        Stamps as they came, in seconds.
    total : float
        Their sum.
    before : Line
        The line without them.
    """

    first: int
    times: NDArray[np.float64]
    total: float
    before: Line

    def __len__(self) -> int:
        return len(self.times)


def first_behind(residuals: NDArray[np.float64], step: float, noise: float) -> int:
    """The first of these samples that may lie behind a step that the next sample shows.

    Parameters
    ----------
    residuals : ndarray of float64, shape (n,)
        Of the samples before that one, against the line before the step, in seconds.
    step, noise : float
        Size of the step and standard deviation of one residual, in seconds.
    """
    gain = np.append(np.cumsum((2 * residuals * step - step * step)[::-1])[::-1], 0.0)
    return int(np.flatnonzero(gain >= gain.max() - _DOUBT * noise * noise)[0])


@dataclass(frozen=True, slots=True)
class Step:
    """A lasting step of the stamps against the line.

    Parameters
    ----------
    size : float
        Seconds.
    block : int
        The first block behind it, most likely.
    low : int
        Index from which on samples may lie behind it.
    """

    size: float
    block: int
    low: int


def find_step(blocks: Sequence[Block], jitter: float, lasting: int) -> Step | None:
    """The largest lasting step within these blocks, if there is one (a generalized likelihood ratio test).

    The line before the first block is drawn on; a step of size d before block b is likelier than none by
    ``exp(sum of (2 r d - d^2) / (2 s^2))`` over the residuals r from there on (Basseville & Nikiforov 1993,
    *Detection of Abrupt Changes*, ch. 2.4).

    Parameters
    ----------
    blocks : sequence of Block
        Consecutive, the newest last.
    jitter : float
        Seconds.
    lasting : int
        So many samples at least must lie behind it.
    """
    base = blocks[0].before
    if abs(_newest(blocks, lasting, base)) < max(LEAST * base.period, OF_JITTER * jitter) / 2:
        return None  # the usual case, cheaply
    noise = base.noise(base.period)
    count = np.array([len(b) for b in blocks], np.float64)
    first = np.array([b.first for b in blocks], np.float64)
    middle = first - base.origin + (count - 1) / 2
    mean = np.array([b.total for b in blocks]) / count - (base.phase + base.period * middle)
    total = np.cumsum((count * mean)[::-1])[::-1]
    behind = np.cumsum(count[::-1])[::-1]
    step = total / behind
    # How well the line itself is known there counts too.
    error = np.sqrt(noise**2 / behind + (base.uncertainty(blocks[-1].first + count[-1]) / 2) ** 2)
    least = np.maximum(np.maximum(LEAST * base.period, OF_JITTER * jitter), ERRORS * error)
    likely = np.where(
        (np.abs(step) > least) & (behind >= lasting), total * step, 0.0
    )  # twice the log of the ratio, times the variance
    at = int(np.argmax(likely))
    if likely[at] <= 0:
        return None
    size = float(step[at])
    variance = noise**2
    left = mean - np.where(np.arange(len(blocks)) >= at, size, 0.0)
    if float(count @ (left * left)) > _LEFT * float(count @ (mean * mean)) + 4 * len(blocks) * variance:
        return None
    gain = np.cumsum((count * (2 * mean * size - size * size))[::-1])[::-1]
    earliest = int(np.flatnonzero(gain >= gain[at] - _DOUBT * variance)[0])
    return Step(size, at, blocks[max(0, earliest - 1)].first)


def _newest(blocks: Sequence[Block], n: int, line: Line) -> float:
    """How far the newest `n` samples, or a few more, lie above the line, in seconds, on average."""
    count, total = 0, 0.0
    for block in reversed(blocks):
        count += len(block.times)
        total += block.total
        if count >= n:
            break
    return total / count - line.at(blocks[-1].first + len(blocks[-1].times) - (count + 1) / 2)
