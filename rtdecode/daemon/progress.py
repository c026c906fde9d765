"""What has been published: on disk, for the process that takes over after a crash; in memory, for a swap of bundles."""

import os
import struct
import zlib
from collections import deque
from pathlib import Path

import msgspec

from rtdecode.decoder import Result

#: Length and CRC-32 before the payload: a record that was cut short is none.
_HEAD = struct.Struct("<II")


class Progress(msgspec.Struct, kw_only=True):
    """How far a pipeline has got.

    `run`: which start of *acquire*. `done`: every result that entries before this one gave is out; `part`: so many
    results of this entry are out. `base`: offset of segment numbers. `bundle`: the one in use, which may have been
    swapped. `counts`: windows by published status.
    """

    run: int
    done: int = 0
    part: int = 0
    base: int = 0
    bundle: str = ""
    counts: dict[str, int] = {}

    @property
    def due(self) -> int:
        """All windows."""
        return sum(self.counts.values())


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
        """Replace the record, with one write."""
        payload = self._encoder.encode(progress)
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, _HEAD.pack(len(payload), zlib.crc32(payload)) + payload)

    def close(self) -> None:
        """Close the file; it stays."""
        os.close(self._file)


Key = tuple[object, ...]


class Published:
    """Which windows are out, as far as a swap of bundles needs to know.

    Two bundles may cut other windows, or give the same ones a little earlier or later.
    """

    def __init__(self, remembered: int = 8192) -> None:
        self._keys: set[Key] = set()
        self._order: deque[Key] = deque()
        self._remembered = remembered
        self._newest: dict[str, tuple[int, float]] = {}

    def note(self, result: Result) -> None:
        """`result` is out."""
        key = _key(result)
        if key not in self._keys:
            self._keys.add(key)
            self._order.append(key)
            if len(self._order) > self._remembered:
                self._keys.discard(self._order.popleft())
        self._newest[result.window] = max(self._newest.get(result.window, (-1, 0.0)), _end(result))

    def __contains__(self, result: Result) -> bool:
        return _key(result) in self._keys

    def follows(self, result: Result) -> bool:
        """Whether a result that another decoder gave from samples that are decoded already is nevertheless owed.

        One that hangs on a marker is, where its marker's window is not out. A sliding one is, where it ends after the
        last that is out.
        """
        if result in self:
            return False
        if result.marker is not None:
            return True
        newest = self._newest.get(result.window, max(self._newest.values(), default=(-1, 0.0)))
        return _end(result) > newest


def _key(result: Result) -> Key:
    marker = result.marker
    if marker is not None:
        return (result.segment, result.window, marker.stamp, marker.value, marker.stream)
    return (result.segment, result.window, round(result.start / result.sfreq, 6))


def _end(result: Result) -> tuple[int, float]:
    return (result.segment, round((result.start + result.length) / result.sfreq, 6))
