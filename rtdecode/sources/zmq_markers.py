"""Markers of the minimal format: each waits until the time of its sample is known."""

from collections.abc import Callable

import numpy as np

from rtdecode.signal import Marker, Raw
from rtdecode.sources.zmq_clock import SenderClock
from rtdecode.sources.zmq_format import Mark

#: Markers that may wait.
_WAITING = 10_000


class Marks:
    """Gives markers their host time.

    Parameters
    ----------
    clock : SenderClock
        Where samples are in time.
    refuse : callable
        Told why, for each marker that cannot be placed.
    stream : int
        Which of the source's `origins` markers are.
    """

    def __init__(self, clock: SenderClock, refuse: Callable[[str], None], stream: int) -> None:
        self._clock = clock
        self._refuse = refuse
        self._stream = stream
        self._early: list[Mark] = []  # of a run of which no samples have come yet
        self._waiting: list[Mark] = []
        self._ready: list[tuple[Marker, Raw]] = []

    def __bool__(self) -> bool:
        """Whether some are ready."""
        return bool(self._ready)

    def add(self, mark: Mark) -> None:
        """One that came."""
        if self._place(mark):
            return
        if len(self._waiting) >= _WAITING:
            self._refuse(f"the marker {mark.value!r}: {_WAITING} wait for their samples already")
        else:
            self._waiting.append(mark)

    def add_early(self, mark: Mark) -> None:
        """One whose run has not begun: a sender may mark its first sample before it sends it."""
        if len(self._early) >= _WAITING:
            self._refuse(f"the marker {mark.value!r}: {_WAITING} wait for their samples already")
        else:
            self._early.append(mark)

    def place(self, run: str | int) -> None:
        """Samples of this run have come: some may have waited for them."""
        early, self._early = self._early, []
        for mark in early:
            if mark.run == run:
                self.add(mark)
            else:
                self._refuse(f"the marker {mark.value!r} of run {mark.run!r}, of which no samples came")
        if self._waiting:
            self._waiting = [mark for mark in self._waiting if not self._place(mark)]

    def forsake(self) -> None:
        """The run is over: samples that were waited for will not come."""
        for mark in self._waiting:
            self._refuse(f"the marker {mark.value!r}, whose sample {mark.index} never came")
        self._waiting.clear()

    def take(self) -> tuple[list[Marker], list[Raw]]:
        """Those that are ready, and as they came."""
        ready, self._ready = self._ready, []
        return [marker for marker, _ in ready], [raw for _, raw in ready]

    def _place(self, mark: Mark) -> bool:
        """Give a marker its host time; False where that is not known yet."""
        try:
            if mark.index is not None:
                stamp = self._clock.at_index(mark.index)
            elif mark.stamp is not None and self._clock.stamps:
                stamp = self._clock.at_stamp(mark.stamp)
            else:
                self._refuse(f"the marker {mark.value!r}: its samples have no stamps, by which its own could be read")
                return True
        except LookupError:
            self._refuse(f"the marker {mark.value!r}: its sample {mark.index} came too long ago")
            return True
        if stamp is None:
            return False
        own = mark.stamp if mark.stamp is not None else self._clock.own_time(stamp)
        marker = Marker(stamp, mark.value, f"{mark.stream}-markers")
        self._ready.append((marker, Raw(self._stream, (mark.value,), np.array([own]))))
        return True
