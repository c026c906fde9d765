"""The folder that a checkpoint goes to: writable, one training's alone, and not that of another recipe."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from rtdecode.errors import ConfigError

#: Beside a checkpoint, for what a broken-off training goes on from; gone when the training is done.
RESUME = "resume"


def plain(name: str) -> str:
    """A name that can be a folder's, inside its parent."""
    return re.sub(r"[^\w.-]", "_", name).lstrip(".") or "_"


def folders_of(names: Sequence[str], folder: Path, what: str) -> list[Path]:
    """A folder for each name.

    Raises
    ------
    ConfigError
        Two would be the same, or one would be that of the states.
    """
    found = [folder / plain(name) for name in names]
    places = [*found, folder / RESUME]
    for name, place in zip(names, found, strict=True):
        if places.count(place) > 1:
            raise ConfigError(f"the {what} {name!r} would be written to {place}, which is taken; rename it")
    return found


@contextlib.contextmanager
def claimed(folder: Path, name: str) -> Iterator[None]:
    """Make the folder and have it alone until the training is over; the kernel lets go with the process.

    Raises
    ------
    ConfigError
        It cannot be written, another training has it, or it holds the checkpoint of another recipe.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.part"
        probe.touch()
        probe.unlink()
        handle = os.open(folder, os.O_RDONLY) if sys.platform != "win32" else -1
    except OSError as error:
        raise ConfigError(f"--out {folder} cannot be written: {error.strerror}; choose another folder") from error
    try:
        if not _alone(handle):
            raise ConfigError(f"another training is writing to {folder}; wait for it, or choose another folder")
        there = _name_in(folder)
        if there not in (None, name):
            raise ConfigError(
                f"{folder} holds the checkpoint of another recipe, {there!r}; this one is {name!r}. Choose another "
                "folder, or remove that one"
            )
        yield
    finally:
        if handle >= 0:
            os.close(handle)


def _alone(handle: int) -> bool:
    """Whether nobody else has the folder; True where nobody can tell."""
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return True
    return True


class _Name(msgspec.Struct):
    name: str


def _name_in(folder: Path) -> str | None:
    """The recipe whose checkpoint lies there; None where there is none, or none that is whole."""
    try:
        return msgspec.json.decode((folder / "checkpoint.json").read_bytes(), type=_Name).name
    except (OSError, msgspec.MsgspecError):
        return None


def write_whole(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files that belong together; the last of them is there only when all of them are.

    They are written beside their places and renamed when all are on the disk. The last one, by which the others are
    found, is taken away before that: a folder never holds files of two trainings that could be taken for one.

    Raises
    ------
    OSError
        There is no room, or the folder cannot be written; what was there is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scratch = {name: folder / f"{name}.{os.getpid()}.part" for name in files}
    try:
        for name, content in files.items():
            with scratch[name].open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        (folder / [*files][-1]).unlink(missing_ok=True)
        for name, path in scratch.items():
            path.replace(folder / name)
    except OSError as error:  # of a write, which does not know its file
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(folder / name)) from error
    finally:
        for path in scratch.values():
            path.unlink(missing_ok=True)
