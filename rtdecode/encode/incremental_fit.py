"""Whether a pipeline's windows can be encoded while they come."""

from collections.abc import Sequence

from rtdecode.stream.early_steps import is_pointwise, why_late
from rtdecode.stream.steps import WindowStep
from rtdecode.stream.window import Locked, Sliding, WindowSpec


def why_not(windows: Sequence[WindowSpec], steps: Sequence[WindowStep], sfreq: float, stride: int) -> str:
    """Why windows cannot share a prefix whose positions lie `stride` samples apart; empty where they can.

    Parameters
    ----------
    windows : sequence of WindowSpec
        What is cut.
    steps : sequence of WindowStep
        That each window goes through.
    sfreq : float
        Rate of the windows, in Hz.
    stride : int
        Samples from one position of the prefix to the next.
    """
    if reason := why_late(steps):
        return reason
    pointwise = is_pointwise(steps)
    if not pointwise and len({one.tmin for one in windows if isinstance(one, Locked)}) > 1:
        return "windows whose baselines lie at different places"
    for window in windows:
        if not isinstance(window, Sliding):
            continue
        if not pointwise:
            return f"the baseline of window {window.name!r} is another one for each window: nothing is shared"
        step = window.step(sfreq)
        if stride > 1 and step % stride:
            return (
                f"window {window.name!r} begins every {float(step):g} samples, and a position lies every {stride}: "
                "a hop of a whole number of positions would do"
            )
    return ""


def hopping(window: WindowSpec, hop: float) -> Sliding:
    """A sliding window as long as another, every `hop` seconds."""
    return Sliding(length=window.duration, hop=hop)
