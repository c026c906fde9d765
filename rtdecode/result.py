"""What a decoder gives: one result for every due window."""

import math
from dataclasses import dataclass, field
from enum import StrEnum

from rtdecode.encode.engine import Outputs
from rtdecode.heads.outputs import HeadOutput
from rtdecode.signal import Marker


class Status(StrEnum):
    """What became of a due window."""

    OK = "ok"
    LATE = "late"
    SKIPPED = "skipped"
    GAP = "gap"
    ARTIFACT = "artifact"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Timing:
    """When things happened to a window, in host-clock seconds; NaN where they did not, or nobody looked."""

    stamp: float = math.nan
    arrived: float = math.nan
    due: float = math.nan
    encoded: float = math.nan


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The one result of one due window.

    Parameters
    ----------
    window : str
        Which of the pipeline's windows.
    segment, start : int
        Its id: segment, and first conditioned sample counted from the segment's start.
    length : int
        Conditioned samples in it.
    sfreq : float
        Conditioned rate in Hz.
    status : Status
        What became of it.
    reason : str
        Why it is not `ok`.
    marker : Marker or None
        The marker it hangs on.
    outputs : Outputs
        The encoder's outputs by name; empty unless it was encoded.
    heads : tuple of HeadOutput
        One for each head, in the bundle's order; empty unless it was encoded.
    timing : Timing
        Not part of the payload.
    """

    window: str
    segment: int
    start: int
    length: int
    sfreq: float
    status: Status
    reason: str = ""
    marker: Marker | None = None
    outputs: Outputs = field(default_factory=dict)
    heads: tuple[HeadOutput, ...] = ()
    timing: Timing = Timing()
