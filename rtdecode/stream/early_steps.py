"""Window steps on the samples of a window as they come, where a step does not need the whole window first."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.stream.runner import to_float32
from rtdecode.stream.steps import Baseline, Clamp, WindowScale, WindowStep
from rtdecode.stream.window import sample_at


def why_late(steps: Sequence[WindowStep]) -> str:
    """Why window steps cannot run on a part of a window; empty where they can."""
    for step in steps:
        if isinstance(step, WindowScale):
            return f"the window step window_scale ({step.method}) needs the whole window"
    return ""


def is_pointwise(steps: Sequence[WindowStep]) -> bool:
    """Whether each sample comes out the same in whatever window it lies."""
    return all(isinstance(step, Clamp) for step in steps)


class EarlySteps:
    """Runs a window's steps over its samples as they come; gives the bytes that `WindowConditioner` gives.

    A clamp works on each sample by itself. A baseline is a mean over given samples of the window, each channel's: it is
    known when they are in, and samples before wait for it. Everything is in float64, sums over time in the same order.

    Parameters
    ----------
    steps : sequence of WindowStep
        None of which needs the whole window (`why_late`).
    sfreq : float
        Rate of the windows, in Hz.
    tmin : float
        Time of a window's first sample relative to its anchor, in seconds.
    n_samples : int
        Samples of a window.
    """

    def __init__(self, steps: Sequence[WindowStep], sfreq: float, tmin: float, n_samples: int) -> None:
        self._steps = tuple(steps)
        first = sample_at(tmin, sfreq)
        self._spans = [
            (sample_at(step.tmin, sfreq) - first, sample_at(step.tmax, sfreq) - first)
            if isinstance(step, Baseline)
            else (0, 0)
            for step in self._steps
        ]
        #: Samples from a window's start that must be in before any comes out.
        self.needed = min(n_samples, max((stop for _, stop in self._spans), default=0))

    def begin(self, rows: NDArray[np.float32]) -> list[NDArray[np.float64]]:
        """The baselines of a window whose first `needed` samples these are, one for each step that is one."""
        x = np.array(rows, dtype=np.float64, order="C")
        found: list[NDArray[np.float64]] = []
        for step, (start, stop) in zip(self._steps, self._spans, strict=True):
            if isinstance(step, Baseline):
                found.append(x[start:stop].mean(axis=0))
                x = x - found[-1]
            elif isinstance(step, Clamp):
                x = np.clip(x, -step.limit, step.limit)
        return found

    def __call__(self, rows: NDArray[np.float32], baselines: Sequence[NDArray[np.float64]] = ()) -> NDArray[np.float32]:
        """Samples of a window, shape (n, channels), with its baselines; without steps, the rows themselves."""
        if not self._steps:
            return rows
        x = np.array(rows, dtype=np.float64, order="C")
        known = iter(baselines)
        for step in self._steps:
            if isinstance(step, Baseline):
                x = x - next(known)
            elif isinstance(step, Clamp):
                x = np.clip(x, -step.limit, step.limit)
        return to_float32(x)
