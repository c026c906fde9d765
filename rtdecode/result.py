"""What a decoder gives: one result for every due window."""

import dataclasses
import math
from dataclasses import dataclass, field
from enum import StrEnum

from rtdecode.encode.engine import Outputs
from rtdecode.heads.outputs import HeadOutput
from rtdecode.signal import Marker
from rtdecode.stream.incidents import WindowRef
from rtdecode.stream.quality import Quality
from rtdecode.stream.segment import Due


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
    uncertainty: float = math.nan
    """Half-width of the stamp's error."""


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
    variant : bool
        Whether the cheaper variant of the encoder made it.
    fell_back : bool
        Whether it was encoded by another provider than was asked for. Not part of the payload.
    quality : Quality or None
        What is wrong with its samples; None where nothing is. Not part of the payload.
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
    variant: bool = False
    fell_back: bool = False
    quality: Quality | None = None


@dataclass(slots=True, eq=False)
class Task:
    """A due window that is fit to be encoded, and is not yet.

    Parameters
    ----------
    due : Due
        What was cut. Its samples are a view into the ring: they last until more samples are taken, unless held.
    length : int
        Conditioned samples in it.
    sfreq : float
        Conditioned rate in Hz.
    at : float
        Host time at which it became due; NaN where nobody looked.
    received : float
        Host time at which the samples that made it due were in the decoder's hands; NaN where nobody says.
    """

    due: Due
    length: int
    sfreq: float
    at: float = math.nan
    received: float = math.nan

    @property
    def window(self) -> str:
        """Which of the pipeline's windows."""
        return self.due.spec.name

    @property
    def segment(self) -> int:
        """Its segment."""
        return self.due.segment

    @property
    def start(self) -> int:
        """Its first conditioned sample, counted from the segment's start."""
        return self.due.start

    @property
    def marker(self) -> Marker | None:
        """The marker it hangs on."""
        return self.due.marker

    @property
    def ref(self) -> WindowRef:
        """Its id."""
        return WindowRef(self.window, self.segment, self.start, self.marker)

    @property
    def arrived(self) -> float:
        """Host time at which its last sample was in our hands; NaN where nobody knows."""
        return self.due.arrived

    def hold(self) -> None:
        """Copy the samples, so that they outlast the next ones."""
        if self.due.samples is not None:
            self.due = dataclasses.replace(self.due, samples=self.due.samples.copy())
