"""What a FieldTrip buffer holds: one header, the newest samples, the newest events."""

import threading
from collections import deque

import numpy as np

from rtdecode.sources.fieldtrip_wire import Block, Event, Header

#: Events that are kept.
EVENTS = 10_000
#: Largest ring of samples in bytes, whatever the header asks for.
RING_BYTES = 256 << 20


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """What was asked cannot be done; the text says why."""


class Store:
    """A ring of samples and a ring of events, with somebody to wake when they grow. Safe to use from any thread.

    Parameters
    ----------
    n_samples : int
        Samples that are kept; fewer where they would exceed `RING_BYTES`.
    """

    def __init__(self, n_samples: int) -> None:
        self._wanted = n_samples
        self._grown = threading.Condition()
        self._header: Header | None = None
        self._ring = memoryview(b"")
        self._length = 0
        self._samples = self._events_put = 0
        self._events: deque[Event] = deque(maxlen=EVENTS)

    def put_header(self, header: Header) -> None:
        """Begin anew: another header, no samples, no events."""
        length = min(self._wanted, RING_BYTES // header.frame)
        if length < 1:
            raise Refused(f"a sample of {header.frame} bytes does not fit into {RING_BYTES} bytes")
        with self._grown:
            self._header = header
            # Zeros that NumPy asks the system for take memory only as samples come.
            self._length, self._ring = length, np.zeros(length * header.frame, np.uint8).data
            self._samples = self._events_put = 0
            self._events.clear()
            self._grown.notify_all()

    def put_samples(self, block: Block) -> None:
        """Append samples."""
        with self._grown:
            header = self._there()
            if (block.n_channels, block.data_type) != (header.n_channels, header.data_type):
                raise Refused(
                    f"samples of {block.n_channels} channels in {block.data_type.name}; the header says "
                    f"{header.n_channels} in {header.data_type.name}"
                )
            frame, data = header.frame, memoryview(block.data)
            kept = min(block.n_samples, self._length)
            begin = (self._samples + block.n_samples - kept) % self._length
            first = min(kept, self._length - begin)
            data = data[len(data) - kept * frame :]
            self._ring[begin * frame : (begin + first) * frame] = data[: first * frame]
            self._ring[: (kept - first) * frame] = data[first * frame :]
            self._samples += block.n_samples
            self._grown.notify_all()

    def put_events(self, events: tuple[Event, ...]) -> None:
        """Append events."""
        with self._grown:
            self._there()
            self._events.extend(events)
            self._events_put += len(events)
            self._grown.notify_all()

    def header(self) -> Header:
        """The header, with the counts as they are."""
        with self._grown:
            header = self._there()
            return Header(
                header.n_channels, self._samples, self._events_put, header.sfreq, header.data_type, header.chunks
            )

    def samples(self, wanted: tuple[int, int] | None) -> Block:
        """Samples from the first index to one before the second; all that are kept for None."""
        with self._grown:
            header = self._there()
            oldest = max(0, self._samples - self._length)
            begin, stop = wanted or (oldest, self._samples)
            if not oldest <= begin < stop <= self._samples:
                raise Refused(
                    f"samples {begin} to {stop - 1} were asked for; there are {oldest} to {self._samples - 1}"
                )
            frame, at, n = header.frame, begin % self._length, stop - begin
            first = min(n, self._length - at)
            data = bytes(self._ring[at * frame : (at + first) * frame]) + bytes(self._ring[: (n - first) * frame])
            return Block(header.n_channels, n, header.data_type, data)

    def events(self, wanted: tuple[int, int] | None) -> tuple[Event, ...]:
        """Events from the first index to one before the second; all that are kept for None."""
        with self._grown:
            self._there()
            oldest = self._events_put - len(self._events)
            begin, stop = wanted or (oldest, self._events_put)
            if not oldest <= begin < stop <= self._events_put:
                raise Refused(
                    f"events {begin} to {stop - 1} were asked for; there are {oldest} to {self._events_put - 1}"
                )
            return tuple(self._events)[begin - oldest : stop - oldest]

    def flush_all(self) -> None:
        """Forget everything, the header too."""
        with self._grown:
            self._there()
            self._header = None
            self._samples = self._events_put = 0
            self._events.clear()
            self._grown.notify_all()

    def flush_samples(self) -> None:
        """Forget the samples; their count begins at 0 again."""
        with self._grown:
            self._there()
            self._samples = 0

    def flush_events(self) -> None:
        """Forget the events; their count begins at 0 again."""
        with self._grown:
            self._there()
            self._events_put = 0
            self._events.clear()

    def wait(self, n_samples: int, n_events: int, seconds: float) -> tuple[int, int]:
        """Return the counts once there are more samples or events than these, or after so many seconds."""
        with self._grown:
            self._there()
            self._grown.wait_for(
                lambda: self._header is None or self._samples > n_samples or self._events_put > n_events, seconds
            )
            self._there()
            return self._samples, self._events_put

    def _there(self) -> Header:
        if self._header is None:
            raise Refused("there is no header")
        return self._header
