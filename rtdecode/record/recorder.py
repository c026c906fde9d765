"""The recorder: a thread that writes what *acquire* receives, and never holds it up.

`put` appends to a bounded queue and returns. A few times a second the thread takes what waits there, makes chunks of it
and hands them to the operating system in one write; from then on they survive the death of this process. Where the
disk takes no more, what waits stays in the queue as long as it has room, and goes into a new file when there is room.
"""

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdecode import hostclock
from rtdecode.record.disk import GrowingFile, free_bytes, nominal_rate, sync_folder, why
from rtdecode.record.items import Line, Result, ResultQueue, samples_of, size_of
from rtdecode.record.names import create, first_run, suffix_of
from rtdecode.record.session import About, SessionFile
from rtdecode.record.settings import Settings
from rtdecode.record.xdf import boundary
from rtdecode.signal import Batch, Notice, Origin, StreamInfo

Details = dict[str, str | int | float | bool | None]
_Taken = tuple[Batch | Line, float, int]  # what was put, when, and its bytes

#: Seconds between boundary chunks, by which a reader finds its way again after damage.
BOUNDARY_S = 1.0

#: Seconds between two tries to go on in a new file.
RETRY_S = 1.0

#: Seconds between looks at the free space.
LOOK_S = 5.0

#: Room for so many seconds is little, and is said once.
LITTLE_S = 600.0

#: Messages of the pipelines that wait for the disk. They can be had again, by a replay; samples cannot.
RESULTS, RESULT_BYTES = 20_000, 64_000_000

#: Bytes made into chunks before they are written, at most: the rest waits for the next write.
_AT_ONCE = 8_000_000

#: Estimated bytes a second of everything beside the samples.
_OVERHEAD = 8_000


class _UnfitError(Exception):
    """Something was put that no chunk can be made of: a fault of the source, or of ours."""


class Recorder:
    """Writes a session's files in a thread of its own.

    Parameters
    ----------
    info : StreamInfo
        What the source declares.
    origins : sequence of Origin
        The streams behind it.
    settings : Settings
        Where and how.
    header : About
        What each file says about itself.
    """

    def __init__(self, info: StreamInfo, origins: Sequence[Origin], settings: Settings, header: About) -> None:
        self._info = info
        self._origins = tuple(origins)
        self._settings = settings
        self._header = header
        self._suffix = suffix_of(info)
        self._run: int | None = None
        self._split = 0
        self._queue: deque[_Taken] = deque()
        self._put = self._taken = 0  # bytes; one is written by who puts, the other by the thread
        self._results = ResultQueue(RESULTS, RESULT_BYTES)
        self._said: deque[Notice] = deque()
        self._wanted = settings.start
        self._file: GrowingFile | None = None
        self._session: SessionFile | None = None
        self._began_file = 0.0
        self._in_trouble = False
        self._little = False
        self._retry_at = self._look_at = self._boundary_at = 0.0
        self._files: list[Path] = []
        self._n_written = 0
        self._n_bytes = 0
        self._lost = self._told_lost = 0
        self._trouble = ""
        self._tried = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    # --- for acquire's thread -----------------------------------------------------------------------------------------

    def put(self, batch: Batch) -> None:
        """Record a batch. Returns at once; where the queue is full the batch is not recorded, and counted."""
        if not self._wanted:
            return
        size = size_of(batch)
        if self._put - self._taken + size > self._settings.queue:
            self._lost += samples_of(batch)
            return
        self._put += size
        self._queue.append((batch, hostclock.now(), size))

    def event(self, line: str, stamp: float) -> None:
        """Record an event of *acquire*, as a line of JSON."""
        if self._wanted and self._put - self._taken + len(line) <= self._settings.queue:
            self._put += len(line)
            self._queue.append((Line(line, stamp), stamp, len(line)))

    def notices(self) -> list[Notice]:
        """What there is to say since the last call."""
        said = []
        while self._said:
            said.append(self._said.popleft())
        return said

    # --- for any thread -----------------------------------------------------------------------------------------------

    def result(self, pipeline: str, line: str, stamp: float, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Record a published window; the oldest of too many is dropped, and counted."""
        self._keep(Result(pipeline, line, stamp, arrays))

    def published(self, line: str, stamp: float) -> None:
        """Record another message of a pipeline, as a line of JSON."""
        self._keep(Line(line, stamp))

    def _keep(self, item: Result | Line) -> None:
        if self._wanted:
            self._results.put(item)

    def start(self) -> None:
        """Record (again), in a new file."""
        self._wanted = True

    def stop(self) -> None:
        """Close the file, with what has been put so far, and record no more until `start`."""
        self._wanted = False

    def refusal(self, timeout: float) -> str:
        """Why the first file could not be begun; empty where it was, or is not after `timeout` seconds."""
        self._tried.wait(timeout)
        return self._trouble if self._file is None else ""

    @property
    def lost(self) -> int:
        """Samples that were not recorded; final after `close`."""
        return self._lost

    def status(self) -> dict[str, str | int | float | bool | None]:
        """For the control socket."""
        file = self._file
        return {
            "state": "recording" if file else "waiting for the disk" if self._wanted else "stopped",
            "file": str(file.path) if file else None,
            "files": len(self._files),
            "bytes": self._n_bytes,
            "samples": self._n_written,
            "samples_not_recorded": self._lost,
            "results_not_recorded": self._results.lost,
            "waiting_bytes": self._put - self._taken,
        }

    def close(self) -> None:
        """Write what waits, close the file with its footers, and end the thread. Safe to call twice."""
        self._ending.set()
        self._thread.join()

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        self._turn()
        self._tried.set()
        while not self._ending.wait(self._settings.flush_s):
            self._turn()
        self._retry_at = 0.0
        self._turn()
        if self._file is None:
            self._lost += sum(samples_of(item) for item, _, _ in self._queue)
            self._tell_losses()
        self._finish("the session has ended")

    def _turn(self) -> None:
        """Write what waits."""
        now = hostclock.now()
        try:
            if self._file is None and (self._wanted or self._queue) and now >= self._retry_at:
                self._open(now)
            if self._file is not None:
                self._look(now)
                while self._write(now) == _AT_ONCE:
                    continue
        except OSError as error:
            self._fail(why(error), now, error.errno)
        except _UnfitError as error:
            self._fail(str(error), now)
        except Exception as error:  # a fault of ours must not end the recording without a word
            self._fail(f"{type(error).__name__}: {error}", now)
        self._tell_losses()
        if not self._wanted and not self._queue:
            self._finish("recording was stopped")

    def _open(self, now: float) -> None:
        """Begin a file: its name, its headers."""
        settings = self._settings
        free = free_bytes(settings.folder)
        if free < settings.min_free:
            raise OSError(
                0, f"{free / 1e6:.0f} MB are free, and {settings.min_free / 1e6:.0f} MB are to stay so (min_free_mb)"
            )
        if self._run is None:
            self._run = first_run(settings.folder, settings.entities, self._suffix)
        split, path, descriptor = create(settings.folder, settings.entities, self._suffix, self._run, self._split + 1)
        file = GrowingFile(path, descriptor, settings.sync_s)
        header = replace(self._header, file={**self._header.file, "split": str(split)})
        session = SessionFile(self._info, self._origins, header, now)
        _, error = file.append([session.begin()])
        if error is not None:
            file.close()
            path.unlink(missing_ok=True)
            raise error
        sync_folder(settings.folder)
        self._split, self._file, self._session = split, file, session
        self._files.append(path)
        self._boundary_at = now + BOUNDARY_S
        self._began_file, self._look_at = now, now + LOOK_S
        self._announce(path, free)

    def _announce(self, path: Path, free: int) -> None:
        hours = self._seconds_left(free, hostclock.now()) / 3600
        text = f"recording to {path}: {free / 1e9:.1f} GB free, room for {hours:.1f} h"
        event = "recording"
        if self._in_trouble:
            event, text = "recording resumed", f"{text}; {self._lost} samples so far were not recorded"
        self._in_trouble = False
        details: Details = {"file": str(path), "free_bytes": free, "hours": round(hours, 2), "not_recorded": self._lost}
        self._said.append(Notice(event, text, details=details))

    def _write(self, now: float) -> int:
        """One write of what waits, `_AT_ONCE` bytes or little more; how many bytes that was, up to it."""
        assert self._file is not None
        assert self._session is not None
        taken: list[_Taken] = []
        results: list[Result | Line] = []
        parts: list[bytes] = []
        n = 0
        while self._queue and n < _AT_ONCE:
            item, at, size = self._queue.popleft()
            try:
                parts.append(self._chunks(item, at))
            except Exception as error:
                self._taken += size
                self._lost += samples_of(item)
                raise self._unfit(error, taken, results) from error
            taken.append((item, at, size))
            n += len(parts[-1])
        while n < _AT_ONCE and (result := self._results.take()) is not None:
            try:
                parts.append(self._published(result))
            except Exception as error:
                self._results.drop()
                raise self._unfit(error, taken, results) from error
            results.append(result)
            n += len(parts[-1])
        if n and now >= self._boundary_at:
            parts.append(boundary())
            self._boundary_at = now + BOUNDARY_S
        size = self._file.size
        done, failed = self._file.append(parts)
        self._n_bytes += self._file.size - size
        self._n_written += sum(samples_of(item) for item, _, _ in taken[:done])
        self._taken += sum(size for _, _, size in taken[:done])
        if failed is not None:
            self._give_back(taken[done:], results[max(0, done - len(taken)) :])
            raise failed
        return min(n, _AT_ONCE)

    def _unfit(self, error: Exception, taken: list[_Taken], results: list[Result | Line]) -> _UnfitError:
        """What this file has counted is wrong now. The others go into a file of their own, this one item is lost."""
        self._give_back(taken, results)
        return _UnfitError(f"this cannot be recorded ({type(error).__name__}: {error})")

    def _give_back(self, taken: list[_Taken], results: list[Result | Line]) -> None:
        self._queue.extendleft(reversed(taken))
        self._results.give_back(results)

    def _chunks(self, item: Batch | Line, at: float) -> bytes:
        assert self._session is not None
        return self._session.batch(item, at) if isinstance(item, Batch) else self._published(item)

    def _published(self, item: Result | Line) -> bytes:
        assert self._session is not None
        if isinstance(item, Line):
            return self._session.event(item.line, item.stamp)
        return self._session.result(item.pipeline, item.line, item.stamp, item.arrays)

    def _look(self, now: float) -> None:
        """Look at the free space now and then."""
        if now < self._look_at:
            return
        assert self._file is not None
        self._look_at = now + LOOK_S
        free = free_bytes(self._settings.folder)
        if free < self._settings.min_free:
            raise OSError(0, f"{free / 1e6:.0f} MB are free; {self._settings.min_free / 1e6:.0f} MB are to stay so")
        left = self._seconds_left(free, now)
        if left < LITTLE_S and not self._little:
            text = (
                f"the disk has room for {left / 60:.0f} more minutes ({free / 1e6:.0f} MB) of {self._file.path.parent}"
            )
            self._said.append(Notice("disk space low", text, details={"free_bytes": free, "seconds": round(left)}))
        self._little = left < LITTLE_S

    def _seconds_left(self, free: int, now: float) -> float:
        """How long the room lasts, by what was written so far, or by the declared rate where that is too little."""
        seconds = now - self._began_file
        if self._file is not None and seconds > LOOK_S:
            rate = self._file.size / seconds
        else:
            rate = _OVERHEAD + nominal_rate(self._info, self._origins)
        return max(0, free - self._settings.min_free) / max(rate, 1.0)

    # --- trouble, and the end -----------------------------------------------------------------------------------------

    def _fail(self, reason: str, now: float, number: int | None = None) -> None:
        """The disk takes no more: say so, and try again in a new file."""
        path = self._file.path if self._file is not None else self._settings.folder
        if self._file is not None:
            self._file.close()
            self._file = self._session = None
        self._retry_at = now + RETRY_S
        self._trouble = f"{path}: {reason}"
        if not self._in_trouble:
            text = (
                f"NOT RECORDING: {path}: {reason}; decoding goes on, what comes is kept up to "
                f"{self._settings.queue / 1e6:.0f} MB, and recording goes on in a new file when there is room"
            )
            details: Details = {"path": str(path), "errno": number, "error": reason, "not_recorded": self._lost}
            self._said.append(Notice("recording failed", text, details=details))
        self._in_trouble = True

    def _tell_losses(self) -> None:
        """The first sample that is not recorded is worth a word, and then each tenfold."""
        if self._lost >= max(1, 10 * self._told_lost):
            self._told_lost = self._lost
            text = f"{self._lost} samples were not recorded: the disk is too slow or has no room, and the queue is full"
            self._said.append(Notice("samples not recorded", text, details={"n": self._lost}))

    def _finish(self, reason: str) -> None:
        """Close the file with its footers."""
        file, session = self._file, self._session
        if file is None or session is None:
            return
        self._file = self._session = None
        try:
            _, failed = file.append([session.end({"samples": str(session.n_samples), "not_recorded": str(self._lost)})])
            if failed is not None:
                raise failed
            file.sync()
        except OSError as error:
            text = f"{file.path} has no end: {why(error)}; `rtdecode session repair` makes it whole"
            self._said.append(Notice("recording failed", text, details={"path": str(file.path), "error": why(error)}))
        finally:
            file.close()
        text = f"{reason}: {session.n_samples} samples in {file.path} ({file.size} bytes)"
        if self._lost:
            text += f"; {self._lost} were not recorded"
        if self._results.lost:
            text += f"; {self._results.lost} results were not recorded"
        details: Details = {
            "file": str(file.path),
            "samples": session.n_samples,
            "bytes": file.size,
            "not_recorded": self._lost,
            "results_not_recorded": self._results.lost,
        }
        self._said.append(Notice("recording ended", text, details=details))
