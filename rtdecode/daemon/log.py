"""The bounded, replayable log that lies between *acquire* and *decode*."""

from collections.abc import Sequence
from dataclasses import dataclass

#: One message as it goes over a socket: topic, header, arrays.
Frames = Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of the log.

    Parameters
    ----------
    seq : int
        Its number; numbers have no holes.
    time : float
        When it came, in seconds; what the bound in seconds is measured by.
    frames : sequence of bytes
        The message.
    """

    seq: int
    time: float
    frames: Frames

    @property
    def n_bytes(self) -> int:
        """Bytes of all frames."""
        return sum(len(frame) for frame in self.frames)


class ReplayLog:
    """The newest entries, by number, bounded by age and by size.

    An entry leaves when it is more than `max_seconds` older than the newest one, or when all together exceed
    `max_bytes`; the newest one always stays. One thread may append while others read.

    Parameters
    ----------
    max_seconds : float
        Largest age, relative to the newest entry.
    max_bytes : int
        Largest size of all entries together.
    """

    def __init__(self, max_seconds: float, max_bytes: int) -> None:
        self._max_seconds = max_seconds
        self._max_bytes = max_bytes
        self._entries: dict[int, Entry] = {}
        self._oldest = 0
        self._next = 0
        self._bytes = 0

    @property
    def oldest(self) -> int:
        """Number of the oldest entry that is still here; `next` where there is none."""
        return self._oldest

    @property
    def next(self) -> int:
        """Number that the next entry will get."""
        return self._next

    @property
    def n_bytes(self) -> int:
        """Bytes of all entries."""
        return self._bytes

    def append(self, frames: Frames, time: float) -> Entry:
        """Add a message as the entry `next`, and let go of what is out of bounds."""
        entry = Entry(self._next, time, frames)
        self._entries[entry.seq] = entry
        self._bytes += entry.n_bytes
        self._next += 1
        while self._oldest < entry.seq and (
            self._bytes > self._max_bytes or time - self._entries[self._oldest].time > self._max_seconds
        ):
            self._bytes -= self._entries.pop(self._oldest).n_bytes
            self._oldest += 1
        return entry

    def since(self, seq: int, max_bytes: int | None = None) -> list[Entry]:
        """The entries from `seq` on (or from the oldest on, where that is newer), oldest first, without a hole.

        Parameters
        ----------
        seq : int
            First number that is wanted.
        max_bytes : int, optional
            Stop before more than this many bytes; at least one entry is given where there is one.
        """
        # No lock: a reader must never make the one who appends wait, for that one holds fresh samples.
        entries: list[Entry] = []
        size = 0
        for number in range(max(seq, self._oldest), self._next):
            entry = self._entries.get(number)
            if entry is None:  # it left while we read, and so did all before it
                entries, size = [], 0
                continue
            size += entry.n_bytes
            if max_bytes is not None and entries and size > max_bytes:
                break
            entries.append(entry)
        return entries
