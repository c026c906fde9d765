"""The conditioning chain at work: raw samples in, conditioned samples out, whatever the chunks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import ConfigError, ContractError
from rtdecode.signal import Channel
from rtdecode.stream.align import RunningAlignmentRunner
from rtdecode.stream.filters import FilterRunner, NotchRunner
from rtdecode.stream.linear import (
    BipolarRunner,
    LaplacianRunner,
    MatrixRunner,
    PickRunner,
    ReferenceRunner,
    ScaleRunner,
)
from rtdecode.stream.resample import ROWS, ResampleRunner
from rtdecode.stream.runner import Runner, rate, to_float32
from rtdecode.stream.steps import (
    Bipolar,
    Filter,
    Laplacian,
    Matrix,
    Notch,
    Pick,
    Reference,
    Resample,
    RunningAlignment,
    Scale,
    StreamStep,
    WindowStep,
)
from rtdecode.stream.window import Locked, WindowSpec
from rtdecode.stream.window_steps import WindowConditioner

__all__ = ["Conditioner", "Delay", "WindowConditioner", "window_conditioner"]

#: Values that go through the chain together: 2 MB in float64, which a core's own cache holds. Longer chunks are cut: it
#: changes nothing, and memory stays small. Never fewer samples than a chunk usually has.
_AT_ONCE, _LEAST_AT_ONCE, _MOST_AT_ONCE = 1 << 18, 64, 2048
#: Frequencies at which a pass band's delays are looked at.
_GRID = 512


@dataclass(frozen=True, slots=True)
class Delay:
    """How late a step's output is.

    Parameters
    ----------
    name : str
        The step, by its key in the manifest: ``filter``, ``resample``...
    seconds : float
        Group delay at `Conditioner.reference`, the centre of the chain's pass band. Exact at every frequency for
        linear-phase steps; zero for steps that mix or scale channels.
    least, most : float
        Smallest and largest group delay over the chain's pass band, outside notches.
    """

    name: str
    seconds: float
    least: float
    most: float


class Conditioner:
    """Runs the stream steps over a segment, whatever the chunks.

    Works in float64 and casts once, at the end. Output ``k`` stands at raw position ``k / ratio`` and depends on no raw
    sample after it. The bytes that come out do not depend on how the samples that go in are cut.

    Parameters
    ----------
    steps : sequence of StreamStep
        In the order in which they run.
    channels : sequence of Channel
        Raw channels, in column order.
    sfreq : float
        Raw rate, in Hz.
    arrays : mapping of str to ndarray of float64
        What the steps name; others may be there too.

    Attributes
    ----------
    channels : tuple of Channel
        Conditioned channels.
    sfreq : float
        Conditioned rate, in Hz.
    ratio : Fraction
        Conditioned samples per raw sample, exact.
    passband : tuple of float
        What the whole chain lets pass, in Hz: from the highest lower edge to the lowest upper edge.
    reference : float
        The pass band's centre in Hz, at which delays are declared: geometric, or half the upper edge where there is no
        lower one.
    delays : tuple of Delay
        One for each step.
    group_delay : float
        Their sum at `reference`, in seconds.

    Raises
    ------
    ContractError
        A step names a channel that is not there, or mixes channels of several units.
    BundleError
        An array is not there, of another shape, or not finite.
    ConfigError
        A step asks for something impossible; names the step, its key, the value and what was expected.
    """

    def __init__(
        self,
        steps: Sequence[StreamStep],
        channels: Sequence[Channel],
        sfreq: float,
        arrays: Mapping[str, NDArray[np.float64]],
    ) -> None:
        if not 0 < sfreq < math.inf or rate(sfreq) <= 0:
            raise ConfigError(f"conditioning: sfreq = {sfreq!r}; expected a rate above 0 Hz")
        if not channels:
            raise ContractError("conditioning: the stream has no channels; expected at least one")
        self._n_in = len(channels)
        self._names = [channel.name for channel in channels]
        self._runners: list[Runner] = []
        at, hz = tuple(channels), sfreq
        for number, step in enumerate(steps, start=1):
            runner = _runner(f"stream step {number} ({_tag(step)})", step, at, hz, arrays)
            self._runners.append(runner)
            at, hz = runner.channels, runner.sfreq
        self.channels = at
        self.sfreq = hz
        self.ratio = math.prod((runner.ratio for runner in self._runners), start=Fraction(1))
        self._ratios = [runner.ratio.as_integer_ratio() for runner in self._runners if runner.ratio != 1]
        self.passband = _passband(self._runners, sfreq)
        low, high = self.passband
        self.reference = math.sqrt(low * high) if low else high / 2
        self.delays = tuple(
            _delay(_tag(step), runner, self.passband, self.reference)
            for step, runner in zip(steps, self._runners, strict=True)
        )
        self.group_delay = math.fsum(delay.seconds for delay in self.delays)
        # Whole blocks of a resampler's outputs: one that is begun in one piece and ended in another is made twice.
        block = math.ceil(ROWS / self.ratio)
        self._at_once = max(block, min(max(_LEAST_AT_ONCE, _AT_ONCE // self._n_in), _MOST_AT_ONCE) // block * block)
        self._index = 0
        self.restart(0)

    def restart(self, index: int) -> None:
        """Forget all state: the next raw sample is `index`, counted from the segment's start, and follows a hole.

        Filters start from the steady state of the first sample, resamplers as if it had always been there, running
        alignment from its training covariance. The grids of resamplers and blocks stay where they are in the segment.
        """
        self._index = index
        for runner in self._runners:
            runner.restart(index)
            index = math.ceil(index * runner.ratio)

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take raw samples; give the conditioned ones that they determine.

        Parameters
        ----------
        samples : ndarray of float32, shape (n, channels in)
            Follows the samples of the last call; n may be 0. Finite: what is not must be replaced before.

        Returns
        -------
        ndarray of float32, shape (m, channels out)
            An array of its own.

        Raises
        ------
        ContractError
            The samples have another shape, or are not finite.
        """
        if samples.ndim != 2 or samples.shape[1] != self._n_in:
            raise ContractError(f"samples of shape {samples.shape} to condition; expected (n, {self._n_in})")
        if not np.isfinite(samples).all():
            row, column = np.argwhere(~np.isfinite(samples))[0]
            raise ContractError(
                f"channel {self._names[column]!r} is {samples[row, column]} at sample {self._index + row}; "
                "expected finite samples: replace what is not before conditioning"
            )
        parts, at = [], 0
        while at < len(samples):
            stop = at + self._at_once - self._index % self._at_once
            parts.append(self._push(samples[at:stop]))
            at = stop
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty((0, len(self.channels)), dtype=np.float32)

    def outputs_before(self, index: int) -> int:
        """Conditioned samples that raw samples [0, `index`) determine: ``ceil(index * ratio)``, step after step."""
        for up, down in self._ratios:
            index = -(-index * up // down)
        return index

    def keeps_step(self, n: int) -> bool:
        """Whether `n` raw samples are whole numbers of samples behind each step: `n` later, all is as before."""
        for up, down in self._ratios:
            if n * up % down:
                return False
            n = n * up // down
        return True

    def last_without(self, output: int) -> int:
        """The most raw samples that do not determine the conditioned sample before `output` yet."""
        index = math.ceil(output / self.ratio)
        while index > 0 and self.outputs_before(index) >= output:
            index -= 1
        return index

    def _push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        self._index += len(samples)
        x = samples.astype(np.float64, order="C")
        for runner in self._runners:
            x = runner.push(x)
            if not len(x):
                return np.empty((0, len(self.channels)), dtype=np.float32)
        return to_float32(x)


def window_conditioner(steps: Sequence[WindowStep], window: WindowSpec, conditioner: Conditioner) -> WindowConditioner:
    """The window steps for windows of one kind, cut from what `conditioner` gives; raises as `WindowConditioner`."""
    tmin = window.tmin if isinstance(window, Locked) else 0.0
    n_samples = window.n_samples(conditioner.sfreq)
    return WindowConditioner(steps, conditioner.sfreq, tmin, len(conditioner.channels), n_samples)


def _tag(step: StreamStep) -> str:
    return str(step.__struct_config__.tag)


def _runner(
    where: str,
    step: StreamStep,
    channels: tuple[Channel, ...],
    sfreq: float,
    arrays: Mapping[str, NDArray[np.float64]],
) -> Runner:
    match step:
        case Pick():
            return PickRunner(where, step, channels, sfreq)
        case Reference():
            return ReferenceRunner(where, step, channels, sfreq)
        case Bipolar():
            return BipolarRunner(where, step, channels, sfreq)
        case Laplacian():
            return LaplacianRunner(where, step, channels, sfreq)
        case Matrix():
            return MatrixRunner(where, step, channels, sfreq, arrays)
        case Scale():
            return ScaleRunner(where, step, channels, sfreq, arrays)
        case Notch():
            return NotchRunner(where, step, channels, sfreq)
        case Filter():
            return FilterRunner(where, step, channels, sfreq)
        case Resample():
            return ResampleRunner(where, step, channels, sfreq)
        case RunningAlignment():
            return RunningAlignmentRunner(where, step, channels, sfreq, arrays)


def _passband(runners: Sequence[Runner], sfreq: float) -> tuple[float, float]:
    low = max((runner.band[0] for runner in runners), default=0.0)
    high = min([sfreq / 2, *(runner.band[1] for runner in runners)])
    if low >= high:
        raise ConfigError(
            f"conditioning: the steps together let nothing pass: the highest lower edge is {low:g} Hz, "
            f"the lowest upper edge {high:g} Hz; expected a pass band (a resampler passes about 0.3 of its lower rate)"
        )
    return low, high


def _delay(name: str, runner: Runner, passband: tuple[float, float], reference: float) -> Delay:
    low, high = passband
    grid = low + (high - low) * (np.arange(_GRID) + 0.5) / _GRID
    over = runner.delay(grid)
    if np.isnan(over).all():
        raise ConfigError(f"{runner.where}: it takes away all that the chain lets pass, {low:g} to {high:g} Hz")
    seconds = float(runner.delay(np.array([reference]))[0])
    if math.isnan(seconds):  # a notch at the very centre
        seconds = float(np.nanmedian(over))
    return Delay(name, seconds, float(np.nanmin(over)), float(np.nanmax(over)))
