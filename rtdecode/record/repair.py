"""What is wrong with an XDF file, and a whole file made of the sound part of it."""

import contextlib
import glob
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtdecode.errors import RecordingError
from rtdecode.record.disk import claimed, sync_folder, why
from rtdecode.record.xdf import Tally, boundary, file_header, stream_footer
from rtdecode.sources.session_reader import open_bytes
from rtdecode.sources.xdf_chunks import (
    CLOCK_OFFSET,
    FILE_HEADER,
    MAGIC,
    SAMPLES,
    STREAM_FOOTER,
    STREAM_HEADER,
    Block,
    StreamHead,
    Torn,
    read_head,
    read_offset,
    read_samples,
    read_xml,
    scan,
)

#: Of a file that a repair can do nothing for.
NO_STREAM = "holds no stream: it ends before the first header; there is nothing to make whole"

#: Told of how many bytes have been read, and of how many there are.
Progress = Callable[[int, int], object]


@dataclass(slots=True)
class Stream:
    """A stream of the file: its header, what was counted, and whether it has a footer."""

    head: StreamHead
    tally: Tally = field(default_factory=Tally)
    closed: bool = False


@dataclass(slots=True)
class Findings:
    """What a file holds, chunk by chunk.

    Parameters
    ----------
    size : int
        Bytes.
    streams : dict
        By number.
    torn : list of Torn
        Bytes that are no sound chunk.
    has_header : bool
        The file's own header is there.
    """

    size: int
    streams: dict[int, Stream] = field(default_factory=dict)
    torn: list[Torn] = field(default_factory=list)
    has_header: bool = False

    @property
    def lost_bytes(self) -> int:
        """Bytes that no reader can make sense of."""
        return sum(torn.stop - torn.start for torn in self.torn)

    @property
    def unclosed(self) -> list[int]:
        """Streams without a footer."""
        return [number for number, stream in self.streams.items() if not stream.closed]

    @property
    def whole(self) -> bool:
        """Nothing is torn, and every stream has its end."""
        return self.has_header and not self.torn and not self.unclosed


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair came to: the whole file, where the one before is kept (None where it was left alone), and why."""

    path: Path
    kept: Path | None
    findings: Findings


def examine(path: Path, progress: Progress | None = None) -> Findings:
    """Read every chunk of a file.

    Raises
    ------
    RecordingError
        It cannot be read, or is no XDF file at all.
    """
    with open_bytes(path) as data:
        findings = Findings(len(data))
        for _ in _sound(data, findings, progress):
            pass
    return findings


def _sound(data: Any, findings: Findings, progress: Progress | None = None) -> Iterator[Block]:
    """The sound chunks in order; `findings` is kept meanwhile."""
    for block in scan(data):
        if progress is not None:
            progress(block.stop, findings.size)
        if isinstance(block, Torn):
            findings.torn.append(block)
            continue
        try:
            _count(block, findings)
        except (ValueError, KeyError):
            findings.torn.append(Torn(block.start, block.stop))
            continue
        yield block


def _count(block: Block, findings: Findings) -> None:
    """Take note of a chunk; raises `ValueError` or `KeyError` where its content is unsound."""
    if block.tag == FILE_HEADER:
        read_xml(block.content)
        findings.has_header = True
    elif block.tag == STREAM_HEADER:
        head = read_head(block.content)
        findings.streams.setdefault(block.stream, Stream(head))
    elif block.tag == SAMPLES:
        stream = findings.streams[block.stream]
        stream.tally.count(read_samples(stream.head, block.content, stream.tally.last)[0])
    elif block.tag == CLOCK_OFFSET:
        findings.streams[block.stream].tally.offsets.append(read_offset(block.content))
    elif block.tag == STREAM_FOOTER:
        read_xml(block.content)
        findings.streams[block.stream].closed = True


def repair(path: Path, out: Path | None = None, progress: Progress | None = None) -> Repaired:
    """Make a file whole: its sound chunks as they are, and the footers that it lacks.

    The whole file is written beside it first. Then the one before becomes ``NAME.xdf.cut`` and the whole one takes its
    name, so that at every moment there is one under that name. With `out` the file itself is left alone.

    Parameters
    ----------
    path : Path
        The file that was cut short, or damaged.
    out : Path, optional
        Where the whole one goes instead.
    progress : callable, optional
        Told of the bytes done.

    Raises
    ------
    RecordingError
        The file cannot be read, holds no stream, or the whole one cannot be written; or somebody has it now.
    """
    if out is not None:
        return _repair(path, out, progress)
    with contextlib.ExitStack() as stack:
        try:
            free = stack.enter_context(claimed(path))
        except OSError:  # `examine` says what is wrong with it
            free = True
        if not free:
            raise RecordingError(
                f"{path} is being recorded now, or repaired; let that end first, or look at a copy with --out"
            )
        return _repair(path, None, progress)


def _repair(path: Path, out: Path | None, progress: Progress | None) -> Repaired:
    findings = examine(path, progress)
    if findings.whole and out is None:
        return Repaired(path, None, findings)
    if not findings.streams:
        raise RecordingError(f"{path} {NO_STREAM}")
    target, kept = out or path, None
    fresh = target.with_name(f"{target.name}.{secrets.token_hex(4)}.repairing")
    if out is not None and out.exists():
        raise RecordingError(f"{out} exists; expected a new file")
    try:
        _write(path, fresh, findings.has_header)
        if out is None:
            _sweep(path, fresh)
            kept = _keep(path)
        os.replace(fresh, target)
        sync_folder(target.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise RecordingError(f"{target} cannot be written: {why(error)}; name another place with --out") from error
    return Repaired(target, kept, findings)


def _sweep(path: Path, fresh: Path) -> None:
    """Remove what repairs of this file left that were broken off; none but ours runs, for the file is claimed."""
    name = glob.escape(path.name)
    for left in {*path.parent.glob(f"{name}.repairing"), *path.parent.glob(f"{name}.*.repairing")} - {fresh}:
        with contextlib.suppress(OSError):
            left.unlink()


def _write(path: Path, fresh: Path, has_header: bool) -> None:
    with open_bytes(path) as data, fresh.open("xb") as file:
        findings = Findings(len(data))
        file.write(MAGIC if has_header else MAGIC + file_header())
        for block in _sound(data, findings):
            file.write(data[block.start : block.stop])
        if findings.unclosed:
            file.write(boundary())
        for number in findings.unclosed:
            file.write(stream_footer(number, findings.streams[number].tally, {"repaired": "yes"}))
        file.flush()
        os.fsync(file.fileno())


def _keep(path: Path) -> Path:
    """A second name for the file as it is; it stays when the first one is given to another."""
    number = 1
    while True:
        kept = path.with_name(path.name + ".cut" + (f"-{number}" if number > 1 else ""))
        try:
            os.link(path, kept)
        except FileExistsError:
            number += 1
        except OSError:  # a file system without links
            os.rename(path, kept)
            return kept
        else:
            return kept
