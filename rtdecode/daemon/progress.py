"""What is due and what has been published: on disk, for the process that takes over after a crash.

Windows are counted in two places: when they become due, and when their one message is out. What lies between is owed,
by name. The two counts never come from each other, so that a window which is forgotten or doubled shows.
"""

import contextlib
import math
import os
import struct
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

from rtdecode.daemon.published import Key as PublishedKey
from rtdecode.result import Result, Status, Task
from rtdecode.signal import Marker

#: Marker-locked windows that are remembered as having been due.
LOCKED = 256

#: Bytes that the record has from the start, so that a disk that fills up later has room for it.
RESERVED = 65_536

#: Length and CRC-32 before the payload: a record that was cut short is none.
_HEAD = struct.Struct("<II")

#: What tells a marker-locked window apart (by its marker), and a sliding one.
Key = tuple[str, float, str, str] | tuple[str, int, int]

Item = TypeVar("Item", bound=Result | Task)


class Owed(msgspec.Struct, frozen=True, array_like=True):
    """A window that is due and not out: its id, and what its message needs if its samples are gone."""

    window: str
    segment: int
    start: int
    length: int
    sfreq: float
    marker: tuple[float, str, str] | None = None

    @classmethod
    def of(cls, item: Result | Task) -> "Owed":
        """The id of a window."""
        marker = item.marker
        return cls(
            item.window,
            item.segment,
            item.start,
            item.length,
            item.sfreq,
            None if marker is None else (marker.stamp, marker.value, marker.stream),
        )

    @property
    def key(self) -> Key:
        """What tells it apart. A marker's window is known by the marker: its start may be unknown for a while."""
        if self.marker is not None:
            return (self.window, *self.marker)
        return (self.window, self.segment, self.start)

    def result(self, status: Status, reason: str) -> Result:
        """Its result, now that it cannot be decoded."""
        marker = None if self.marker is None else Marker(*self.marker)
        return Result(self.window, self.segment, self.start, self.length, self.sfreq, status, reason, marker)


class Progress(msgspec.Struct, kw_only=True):
    """How far a pipeline has got.

    `run`: which start of *acquire*. `taken`: the entries of its log before this one are decoded. `owed`: windows that
    they made due and that are not out. `due`: all windows that they made due; `counts`: those that are out, by
    published status. `missed`: those out of budget; `variants`: those that the variant made. `base`: offset of segment
    numbers. `bundle`: the one in use, which may have been swapped. `segment`: the newest one, decoded from its index
    `first` up to `index`; -1 before there is one. `left`: the same of those before it whose last windows are not due
    yet, since a blank holds their samples. `frontier`: of each sliding window, the last one that was due; `locked`: the
    newest marker-locked ones that were, by `Owed.key`. After a swap of bundles, until samples have the stamp
    `compare_until`: `out`, the windows of the bundle before it, by `Published`.
    """

    run: int
    taken: int = 0
    owed: list[Owed] = []
    due: int = 0
    counts: dict[str, int] = {}
    missed: int = 0
    variants: int = 0
    base: int = 0
    bundle: str = ""
    segment: int = -1
    first: int = 0
    index: int = 0
    left: list[tuple[int, int, int]] = []
    frontier: dict[str, tuple[int, int]] = {}
    locked: list[tuple[str, float, str, str]] = []
    compare_until: float = -math.inf
    out: list[tuple[str | int | float, ...]] = []


class ProgressFile:
    """One record, overwritten in place.

    It lies in the runtime folder and is never synced: it has to outlive this process, not the machine.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        self._encoder = msgspec.msgpack.Encoder()
        self._failing = False
        self._news = ""
        if hasattr(os, "posix_fallocate"):
            with contextlib.suppress(OSError):  # there is no room now: `save` will say so
                os.posix_fallocate(self._file, 0, RESERVED)

    def load(self) -> Progress | None:
        """The record; None where there is none, or it is not whole."""
        os.lseek(self._file, 0, os.SEEK_SET)
        data = os.read(self._file, 1_000_000)
        if len(data) < _HEAD.size:
            return None
        length, crc = _HEAD.unpack_from(data)
        payload = data[_HEAD.size : _HEAD.size + length]
        if len(payload) != length or zlib.crc32(payload) != crc:
            return None
        try:
            return msgspec.msgpack.decode(payload, type=Progress)
        except msgspec.DecodeError:  # another release wrote it
            return None

    def save(self, progress: Progress) -> None:
        """Replace the record, with one write. Where there is no room decoding goes on, and `news` says it."""
        payload = self._encoder.encode(progress)
        record = _HEAD.pack(len(payload), zlib.crc32(payload)) + payload
        try:
            os.lseek(self._file, 0, os.SEEK_SET)
            fault = "" if os.write(self._file, record) == len(record) else "the disk is full"
        except OSError as error:
            fault = error.strerror or str(error)
        if fault and not self._failing:
            self._news = (
                f"{self._path} cannot be written ({fault}): decoding goes on, but a process that takes over after a "
                "crash will not know what is out"
            )
        self._failing = bool(fault)

    def news(self) -> str:
        """What there is to say about it since the last call."""
        news, self._news = self._news, ""
        return news

    def close(self) -> None:
        """Close the file; it stays."""
        os.close(self._file)


class Account:
    """Keeps a pipeline's `Progress`.

    Parameters
    ----------
    progress : Progress
        As a process before this one left it, or a new one.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        #: Owed by a process before this one, and not seen again yet.
        self._inherited = Counter(owed.key for owed in progress.owed)
        #: Due before this process, wherever it begins to read.
        self._frontier = dict(progress.frontier)
        self._locked: set[Key] = set(progress.locked)

    def take(self, items: Iterable[Result | Task], seq: int) -> list[Result | Task]:
        """Entry `seq` of the log made these windows due; give those that want a message from us.

        Entries that a process before this one had decoded give what it owed. Later ones give what was not due before:
        where entries between were lost, their windows come now.
        """
        progress = self.progress
        if seq < progress.taken:
            return [item for item in items if self._inherits(item)]
        found = self.resume(items)
        progress.taken = seq + 1
        return found

    def add(self, items: Iterable[Result | Task]) -> None:
        """These windows are due, and want a message."""
        owed = [Owed.of(item) for item in items]
        self.progress.owed += owed
        self.progress.due += len(owed)
        for one in owed:
            if one.marker is None:
                self.progress.frontier[one.window] = (one.segment, one.start)
            else:
                self.progress.locked.append((one.window, *one.marker))
        del self.progress.locked[:-LOCKED]

    def resume(self, items: Iterable[Item]) -> list[Item]:
        """Windows that may have been due in a process before this one; give those that want a message from us.

        Of sliding windows, those up to the last one that was. Of those that were due it may owe some.
        """
        found = []
        for item in items:
            if not self._was_due(item):
                self.add([item])
                found.append(item)
            elif self._inherits(item):
                found.append(item)
        return found

    def follow(self, run: int, base: int) -> None:
        """*acquire* was started again: its log begins anew, and segments are numbered from `base`."""
        progress = self.progress
        progress.run, progress.base, progress.taken = run, base, 0
        progress.locked = []
        self._locked = set()

    def restart(self, run: int, base: int) -> None:
        """As `follow`, and nothing of the segments before is left to be settled."""
        self.follow(run, base)
        self.progress.segment, self.progress.first, self.progress.index = -1, 0, 0
        self.progress.left = []

    def swapped(self, bundle: str, results: Iterable[Result], out: Iterable[PublishedKey], until: float) -> None:
        """Another bundle decodes from here on, which has given these results; windows are its own now.

        What is `out` by the bundle before it may come again, by samples up to the stamp `until`.
        """
        self.progress.bundle = bundle
        self.progress.out, self.progress.compare_until = list(out), until
        self._frontier, self._locked = {}, set()
        self.progress.frontier = {one.window: (one.segment, one.start) for one in results if one.marker is None}

    def compared(self) -> None:
        """Nothing comes any more that was out before the swap."""
        self.progress.out, self.progress.compare_until = [], -math.inf

    def moved(self, segment: int, first_index: int, stop_index: int) -> None:
        """Samples of a segment were handed to the decoder."""
        progress = self.progress
        if segment != progress.segment:
            if progress.segment >= 0:
                progress.left.append((progress.segment, progress.first, progress.index))
            progress.segment, progress.first = segment, first_index
        progress.index = stop_index

    def ended(self, segment: int) -> None:
        """All windows of the segments before this one are due."""
        if self.progress.left:
            self.progress.left = [one for one in self.progress.left if one[0] >= segment]

    @property
    def begun(self) -> list[tuple[int, int, int]]:
        """Segments whose windows may not all be due: number, first index, and index up to which it was handed on."""
        progress = self.progress
        newest = [(progress.segment, progress.first, progress.index)] if progress.segment >= 0 else []
        return [*progress.left, *newest]

    def forsaken(self, status: Status, reason: str) -> list[Result]:
        """What was owed by a process before this one and will not be seen again."""
        left, found = self._inherited, []
        self._inherited = Counter()
        for owed in self.progress.owed:
            if left[owed.key]:
                left[owed.key] -= 1
                found.append(owed.result(status, reason))
        return found

    def settle(self, item: Result, status: str, *, met: bool | None) -> None:
        """Its message is out, with this status."""
        progress = self.progress
        key = Owed.of(item).key
        at = next(n for n, owed in enumerate(progress.owed) if owed.key == key)
        del progress.owed[at]
        progress.counts[status] = progress.counts.get(status, 0) + 1
        progress.missed += met is False
        progress.variants += item.variant

    def _was_due(self, item: Result | Task) -> bool:
        if item.marker is not None:
            return Owed.of(item).key in self._locked
        return (item.segment, item.start) <= self._frontier.get(item.window, (-1, -1))

    def inherits(self, item: Result | Task) -> bool:
        """Whether a process before this one owed it, and it has not been seen since."""
        return self._inherited[Owed.of(item).key] > 0

    def _inherits(self, item: Result | Task) -> bool:
        key = Owed.of(item).key
        if not self._inherited[key]:
            return False
        self._inherited[key] -= 1
        return True
