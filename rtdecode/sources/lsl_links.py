"""The streams behind an LSL source: each with a thread that watches it, and finds it again when it is lost.

liblsl's own recovery is off: it reattaches to a stream with another rate or other channels without a word.
"""

import math
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode import hostclock
from rtdecode.clock.offset import ClockOffset
from rtdecode.errors import StreamNotFoundError
from rtdecode.signal import Notice, Offset
from rtdecode.sources.lsl_directory import Directory
from rtdecode.sources.lsl_streams import (
    SETTLE_S,
    StreamQuery,
    measure_offset,
    open_inlet,
    reachable,
    resolve,
    same_host,
)

_OFFSET_EVERY_S = 5.0
#: How often is looked whether a clock is to be measured: every so often, and at once after a reconnect.
_MEASURE_S, _MEASURE_MANY_S = 0.25, 1.0
#: ... and for so long after a step of the stamps: liblsl asks the sender anew every two seconds.
_HURRY_S = 5.0


@dataclass(frozen=True, slots=True)
class Samples:
    """One pull: raw values, raw stamps, and the host time at which they were in our hands."""

    values: NDArray[np.generic]
    stamps: NDArray[np.float64]
    arrived: float


@dataclass(frozen=True, slots=True)
class Reopened:
    """The data stream was lost and found again; what follows is another segment."""

    info: Any
    offset: ClockOffset


@dataclass(frozen=True, slots=True)
class Ended:
    """No more data samples will come; with an error where a thread failed."""

    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Awake:
    """A marker waits to be taken from its link."""


Event = Samples | Awake | Reopened | Ended | Notice


class Link(ABC):
    """One inlet, its clock offset, and its threads.

    Parameters
    ----------
    query : StreamQuery
        Which stream.
    events : SimpleQueue
        Where everything that comes is put.
    timeout_s : float
        How long to look for the stream.
    number : int
        Which of the source's `origins` it is.
    directory : Directory, optional
        Finds the streams of all sources of the process, where it has many.
    """

    def __init__(
        self,
        query: StreamQuery,
        events: "SimpleQueue[Event]",
        timeout_s: float,
        number: int = 0,
        directory: Directory | None = None,
    ) -> None:
        self.number = number
        self.directory = directory
        self.measured: deque[Offset] = deque(maxlen=1000)
        self.query = query
        self.events = events
        self.timeout_s = timeout_s
        self.stop = threading.Event()
        self.reconnects = 0
        self.inlet: Any = None
        self.info: Any = None
        self.offset = ClockOffset()
        self._hurry_until = -math.inf
        self._threads: list[threading.Thread] = []

    def connect(self, query: StreamQuery, timeout: float, settle: float = SETTLE_S) -> None:
        """Find the stream, read its description, and measure its clock; raises `SourceError` where that fails."""
        deadline = hostclock.now() + timeout
        found = resolve(query, timeout, settle) if self.directory is None else self.directory.resolve(query, timeout)
        with reachable(found):
            inlet, info = open_inlet(found, max(0.5, deadline - hostclock.now()))
            offset = self._first_offset(inlet, info, max(0.5, deadline - hostclock.now()))
        self.inlet, self.info, self.offset = inlet, info, offset

    def subscribe(self, timeout: float) -> None:
        """Have the sender send. Last of all, since a sender may begin as soon as somebody listens."""
        with reachable(self.info):
            self.inlet.open_stream(timeout)

    def attach(self, found: Any, validate: Callable[[Any], None], timeout: float) -> None:
        """Go on with a stream that was found again. Subscribed at once: its clock is measured while samples come.

        That takes liblsl two thirds of a second. Where the clock was this host's own before, nobody waits for it.

        Raises
        ------
        SourceError
            What `validate` says of its description, or it cannot be reached.
        """
        with reachable(found):
            inlet, info = open_inlet(found, timeout)
            validate(info)
            inlet.open_stream(timeout)
            ours = same_host(info) and same_host(self.info) and self.offset.known and self.offset.offset == 0.0
            offset = ClockOffset(same_host=True) if ours else self._first_offset(inlet, info, timeout)
        self.inlet, self.info, self.offset = inlet, info, offset
        self.reconnects += 1

    def _first_offset(self, inlet: Any, info: Any, timeout: float) -> ClockOffset:
        offset = ClockOffset(same_host(info))
        measured = measure_offset(inlet, timeout)
        if measured is not None:
            self._measured(offset, measured)
        elif not offset.known:
            raise StreamNotFoundError(
                f"the clock of the LSL stream with {self.query} on {info.hostname()} cannot be measured; check that "
                "the firewall lets its UDP port through"
            )
        return offset

    def _measured(self, offset: ClockOffset, measured: tuple[float, float]) -> None:
        now = hostclock.now()
        offset.measured(now, *measured)
        self.measured.append(Offset(self.number, now, *measured))

    def start(self) -> None:
        """Begin to watch the stream, in a thread of its own, and to measure the clock, in another."""
        for target in self._targets():
            thread = threading.Thread(target=self._or_end, args=(target,), name=f"lsl-{self.query}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _targets(self) -> list[Callable[[], None]]:
        return [self._run, self._measure]

    def _or_end(self, target: Callable[[], None]) -> None:
        """Run a thread; whatever it dies of ends the source, or the reader would wait for ever."""
        try:
            target()
        except Exception as error:
            self.events.put(Ended(error))

    @property
    def alive(self) -> bool:
        """Whether its threads still run."""
        return any(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        """Stop the threads and let go of the inlet. Safe to call twice."""
        self.stop.set()
        for thread in self._threads:
            thread.join(timeout=5.0)
        self._threads.clear()
        self.inlet = None

    def _measure(self) -> None:
        last, due, newest = self.inlet, hostclock.now() + _OFFSET_EVERY_S, (math.nan, math.nan)
        while not self.stop.wait(_MEASURE_S if self.directory is None else _MEASURE_MANY_S):
            inlet, offset = self.inlet, self.offset
            if inlet is None:
                return
            if inlet is last and self._hurry_until < hostclock.now() < due:
                continue
            last, due = inlet, hostclock.now() + _OFFSET_EVERY_S
            try:
                measured = measure_offset(inlet, 1.0)
            except RuntimeError:
                continue  # who pulls sees the loss too, and acts on it
            if measured is not None and measured != newest and inlet is self.inlet:
                newest = measured
                self._measured(offset, measured)

    def suspect(self, step: float) -> None:
        """The stamps went on by `step` seconds at once: measure soon whether the sender's clock was set."""
        self.offset.suspect(step)
        self._hurry_until = hostclock.now() + _HURRY_S

    @abstractmethod
    def _run(self) -> None:
        """What the watching thread does until `stop` is set."""
