"""Steps that run once per window: baseline, scaling by the window's own statistics, clamp."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import ContractError
from rtdecode.stream.runner import Array, require, to_float32
from rtdecode.stream.steps import Baseline, Clamp, WindowScale, WindowStep
from rtdecode.stream.window import sample_at


class WindowConditioner:
    """Runs the window steps over one window after another; keeps nothing in between.

    Parameters
    ----------
    steps : sequence of WindowStep
        In the order in which they run.
    sfreq : float
        Rate of the windows, in Hz.
    tmin : float
        Time of a window's first sample relative to its anchor, in seconds.
    n_channels : int
        Channels of a window.
    n_samples : int, optional
        Samples of a window; where given, a baseline that does not fit is refused here and not at the first window.

    Raises
    ------
    ConfigError
        A step asks for something impossible; names the step, its key, the value and what was expected.
    """

    def __init__(
        self,
        steps: Sequence[WindowStep],
        sfreq: float,
        tmin: float,
        n_channels: int,
        n_samples: int | None = None,
    ) -> None:
        self._n_channels = n_channels
        self._n_samples = n_samples
        self._least = 1
        self._runs: list[Callable[[Array], Array]] = []
        for number, step in enumerate(steps, start=1):
            where = f"window step {number} ({step.__struct_config__.tag})"
            match step:
                case Baseline():
                    self._runs.append(self._baseline(where, step, sfreq, tmin))
                case WindowScale():
                    self._runs.append({"zscore": _zscore, "robust": _robust, "maxabs": _maxabs}[step.method])
                case Clamp():
                    require(step.limit > 0, where, "limit", step.limit, "above 0")
                    self._runs.append(partial(np.clip, a_min=-step.limit, a_max=step.limit))

    def __call__(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """Condition one window.

        Parameters
        ----------
        window : ndarray of float32, shape (time, channels)
            Not changed. May be a view with any strides.

        Returns
        -------
        ndarray of float32, shape (time, channels)
            The window itself where there are no steps; else an array of its own. Computed in float64 throughout.

        Raises
        ------
        ContractError
            The window has another shape.
        """
        n, channels = window.shape
        if channels != self._n_channels or n < self._least or (self._n_samples is not None and n != self._n_samples):
            expected = self._n_samples or f"at least {self._least}"
            raise ContractError(
                f"a window of {n} samples and {channels} channels to condition; "
                f"expected {expected} samples and {self._n_channels} channels"
            )
        if not self._runs:
            return window
        # One layout whatever the view: sums over time then always run in the same order.
        x = np.array(window, dtype=np.float64, order="C")
        for run in self._runs:
            x = run(x)
        return to_float32(x)

    def _baseline(self, where: str, step: Baseline, sfreq: float, tmin: float) -> Callable[[Array], Array]:
        for key, value in (("tmin", step.tmin), ("tmax", step.tmax)):
            require(math.isfinite(value), where, key, value, "seconds")
        first = sample_at(tmin, sfreq)
        start, stop = sample_at(step.tmin, sfreq) - first, sample_at(step.tmax, sfreq) - first
        require(start >= 0, where, "tmin", step.tmin, f"at least {tmin:g} s, where the window begins")
        require(
            stop > start,
            where,
            "tmax",
            step.tmax,
            f"at least one sample ({1 / sfreq:g} s) after tmin = {step.tmin:g} s",
        )
        # A window's length is rounded by itself: one that ends where the baseline does may be a sample shorter.
        least = max(stop - 1, start + 1)
        if self._n_samples is not None:
            end = tmin + self._n_samples / sfreq
            require(least <= self._n_samples, where, "tmax", step.tmax, f"at most {end:g} s, where the window ends")
        self._least = max(self._least, least)
        return lambda x: x - x[start:stop].mean(axis=0)


def _zscore(x: Array) -> Array:
    x = x - x.mean(axis=0)
    return x / _or_one(x.std(axis=0))


def _robust(x: Array) -> Array:
    first, median, third = np.percentile(x, (25, 50, 75), axis=0)
    scaled: Array = (x - median) / _or_one(third - first)
    return scaled


def _maxabs(x: Array) -> Array:
    largest: Array = np.abs(x).max(axis=0)
    return x / _or_one(largest)


def _or_one(scale: Array) -> Array:
    """A channel without spread is left as it is: zero, once its centre is off."""
    return np.where(scale > 0, scale, 1.0)
