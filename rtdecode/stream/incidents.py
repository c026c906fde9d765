"""What happens to a stream, as a decoder tells it: holes and their cost, windows that turn out to be wrong."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from rtdecode.signal import Marker


@dataclass(frozen=True, slots=True)
class WindowRef:
    """A window that was given before.

    Parameters
    ----------
    window : str
        Which of the pipeline's windows.
    segment, start : int
        Its id.
    marker : Marker or None
        The marker it hangs on.
    """

    window: str
    segment: int
    start: int
    marker: Marker | None = None


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that subscribers should hear of beside the results.

    Parameters
    ----------
    event : str
        ``gap``, ``gap over``, ``reconnect``, ``filled``, ``invalidated``, ``not blanked``: the name of the published
        event.
    text : str
        For people.
    details : mapping
        For programs.
    windows : tuple of WindowRef
        ``invalidated``: the windows concerned.
    """

    event: str
    text: str
    details: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    windows: tuple[WindowRef, ...] = ()


def filled(segment: int, index: int, n: int, seconds: float, stamps: tuple[float, float], method: str) -> Incident:
    """`n` samples from `index` on were missing and are filled; `stamps` of the samples before and after."""
    text = f"{n} missing samples before index {index + n} were filled ({method})"
    details: dict[str, str | int | float | bool | None] = {
        "segment": segment,
        "index": index,
        "n": n,
        "seconds": seconds,
        "before": stamps[0],
        "after": stamps[1],
        "method": method,
    }
    return Incident("filled", text, details)


@dataclass(slots=True, eq=False)
class Gap:
    """A hole, or the end of a segment, while its cost is being added up.

    Parameters
    ----------
    segment : int
        Segment in which decoding goes on.
    index : int
        Raw index of the first sample that is missing; of the new segment's first one where a segment ended.
    missing : int or None
        Samples that are missing; None where a segment ended.
    before, after : float
        Stamps of the last sample before it and of the first one after it, in seconds.
    seconds : float
        How long it was.
    stop : int
        First conditioned sample after it.
    lost : Counter of str
        Windows that it took, by name, so far.
    first : WindowRef or None
        The first sound window after it.
    """

    segment: int
    index: int
    missing: int | None
    before: float
    after: float
    seconds: float
    stop: int
    lost: Counter[str] = field(default_factory=Counter)
    first: WindowRef | None = None

    def note(self, window: str, segment: int, start: int, sound: bool) -> None:
        """A window is out: the first sound one after it shows that decoding goes on."""
        if sound and self.first is None and (segment, start) >= (self.segment, self.stop):
            self.first = WindowRef(window, segment, start)

    def begin(self, event: str, text: str, expected: Mapping[str, int]) -> Incident:
        """As it is told at once; `expected`: sliding windows that touch it, by name."""
        cost = _cost(expected)
        return Incident(event, f"{text}; {cost}" if expected else text, {**self._details(), **_by_name(expected)})

    def over(self) -> Incident:
        """As it is told when decoding goes on, or when the stream has ended without."""
        what = "a gap" if self.missing is not None else "a restart"
        if math.isfinite(self.seconds) and self.seconds >= 0.0005:
            what = f"a gap of {self.seconds:.3f} s"
        text = f"{what} is over" if self.first else f"the stream ended before {what} was over"
        details = {**self._details(), **_by_name(self.lost)}
        if self.first is not None:
            details |= {"first_window": self.first.window, "first_start": self.first.start}
        return Incident("gap over", f"{text}; {_cost(self.lost)}", details)

    def _details(self) -> dict[str, str | int | float | bool | None]:
        return {
            "segment": self.segment,
            "index": self.index,
            "n": self.missing,
            "seconds": _known(self.seconds),
            "before": _known(self.before),
            "after": self.after,
        }


def _known(seconds: float) -> float | None:
    """None where what came before is not known here: another process had it."""
    return seconds if math.isfinite(seconds) else None


def _cost(lost: Mapping[str, int]) -> str:
    names = ", ".join(f"{n} {name}" for name, n in sorted(lost.items()) if n)
    return f"windows lost: {names or 'none'}"


def _by_name(lost: Mapping[str, int]) -> dict[str, int]:
    return {"windows": sum(lost.values()), **{f"windows.{name}": n for name, n in sorted(lost.items()) if n}}
