"""One file that grows, and the disk that it grows on. What does not fit leaves no part of a chunk."""

import bisect
import contextlib
import errno
import itertools
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from rtdecode.signal import Origin, StreamInfo
from rtdecode.sources.xdf_chunks import DTYPES, sample_dtype

if sys.platform != "win32":
    import fcntl

_sync = getattr(os, "fdatasync", os.fsync)


class GrowingFile:
    """An open file, written straight to the operating system; what was handed over survives the death of the process.

    Parameters
    ----------
    path : Path
        The file.
    descriptor : int
        Open for appending.
    sync_s : float
        Seconds between requests to put what was written on the medium, so that it survives a power cut; 0 for none.
        They are made in a thread of their own: a slow disk must not hold up what is written next.
    """

    def __init__(self, path: Path, descriptor: int, sync_s: float) -> None:
        self.path = path
        self.size = 0
        self._descriptor = descriptor
        _claim(descriptor)
        self._sync_s = sync_s
        self._failed: OSError | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        if sync_s > 0:
            self._thread = threading.Thread(target=self._keep_syncing, name="sync", daemon=True)
            self._thread.start()

    def append(self, parts: Sequence[bytes]) -> tuple[int, OSError | None]:
        """Write so many of `parts` as there is room for, each of them whole; how many, and what stopped the next."""
        if self._failed is not None:
            return 0, self._failed
        data, done = memoryview(b"".join(parts)), 0
        try:
            self._must_be_there()
            while done < len(data):
                done += os.write(self._descriptor, data[done:])
        except OSError as error:
            ends = list(itertools.accumulate(map(len, parts)))
            n = bisect.bisect_right(ends, done)
            self.size += ends[n - 1] if n else 0
            with contextlib.suppress(OSError):  # a medium that takes nothing back either leaves it to `repair`
                os.ftruncate(self._descriptor, self.size)
            return n, error
        self.size += len(data)
        return len(parts), None

    def _must_be_there(self) -> None:
        """What is written to a file that was deleted or moved is written where nobody finds it."""
        if not self.path.exists() or not os.path.samestat(os.stat(self.path), os.fstat(self._descriptor)):
            raise OSError(errno.ENOENT, "the file is no longer there: it was deleted, moved or replaced")

    def sync(self) -> None:
        """Put it on the medium; returns when it is there."""
        _sync(self._descriptor)

    def _keep_syncing(self) -> None:
        while not self._closing.wait(self._sync_s):
            try:
                self.sync()
            except OSError as error:  # the medium has failed: tell whoever writes next
                self._failed = error
                return

    def close(self) -> None:
        """Close it. Safe to call twice."""
        if self._closing.is_set():
            return
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        os.close(self._descriptor)


def _claim(descriptor: int) -> bool:
    """Be the one who writes a file, until it is closed; False where another is. True where nobody can tell."""
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return True
    return True


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Keep other repairs off a file; gives False where one of them, or a recorder, has it. Raises `OSError`."""
    if sys.platform == "win32":  # which replaces no file that is open
        yield True
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield _claim(descriptor)
    finally:
        os.close(descriptor)


def is_written(path: Path) -> bool:
    """Whether a recorder or a repair has this file now; raises `OSError`."""
    with claimed(path) as free:
        return not free


def free_bytes(folder: Path) -> int:
    """Room on the disk of a folder, which need not exist yet; raises `OSError`."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def nominal_rate(info: StreamInfo, origins: Sequence[Origin]) -> float:
    """Bytes a second of the samples, by the rates that the streams declare."""
    own = Origin("", "", sfreq=info.sfreq, format="float32", n_channels=len(info.channels))
    streams = [one for one in origins or (own,) if one.format in DTYPES]
    return sum(one.sfreq * sample_dtype(one.format, one.n_channels).itemsize for one in streams)


def sync_folder(folder: Path) -> None:
    """Put a folder's entries on the medium, where the system can: a new file's name must survive a power cut too."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def why(error: OSError) -> str:
    """What the system says."""
    return error.strerror or str(error)
