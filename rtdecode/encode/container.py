"""The files of a bundle, in a folder or in one zip, read without trusting their names, kinds or sizes."""

import contextlib
import hashlib
import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Final, Protocol

from rtdecode.errors import BundleError

#: The list of hashes, in the format that ``sha256sum -c`` reads.
SUMS: Final = "SHA256SUMS"

#: A bundle's files together may hold this many bytes, unpacked.
MAX_BYTES: Final = 8 * 2**30
#: And there may be this many of them.
MAX_FILES: Final = 100_000
#: A packed file larger than `SMALL` may grow by this factor (float32 data grows by less than 10; a bomb by 1000).
MAX_RATIO: Final = 200
SMALL: Final = 16 * 2**20
#: Largest list of hashes.
MAX_SUMS: Final = 64 * 2**20

_BLOCK = 1 << 20
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")

#: What `zipfile` raises on damaged input, as read in its source: it has no one base class for them.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    UnicodeError,
    ValueError,
)


class Container(Protocol):
    """A set of named files."""

    path: Path

    def sizes(self) -> Mapping[str, int]:
        """Name of every file, with its size in bytes."""
        ...

    def open(self, name: str) -> contextlib.AbstractContextManager[IO[bytes]]:
        """One file, for reading. Damage found while reading is a `BundleError`."""
        ...


def open_container(path: Path) -> Container:
    """The files at `path`: a folder or a zip.

    Raises
    ------
    BundleError
        There is neither, a name leads out of it, or it holds links, duplicates or more than `MAX_BYTES`.
    """
    if path.is_dir():
        return Folder(path)
    if path.is_file():
        return Zip(path)
    raise BundleError(f"{path}: no such bundle; expected a folder or a .zip file with a {SUMS} in it")


def check_name(name: str, where: Path) -> None:
    """Raise `BundleError` unless `name` is a plain relative POSIX path that no system reads as something else."""
    parts = name.split("/")
    reason = ""
    if not name or name.startswith("/") or "" in parts:
        reason = "is absolute or has an empty part"
    elif ".." in parts or "." in parts:
        reason = "leads out of the bundle"
    elif "\\" in name or ":" in name or any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in name):
        reason = "holds a backslash, a colon or a control character"
    if reason:
        raise BundleError(
            f"{where}: the file name {name!r} {reason}; expected a relative path such as gallery/items.json"
        )


def check_sizes(sizes: Mapping[str, int], where: Path) -> None:
    """Raise `BundleError` where names are unsafe, clash without regard to case, or the whole is too large."""
    if len(sizes) > MAX_FILES:
        raise BundleError(f"{where}: holds {len(sizes)} files; expected at most {MAX_FILES}")
    folded: dict[str, str] = {}
    for name in sizes:
        check_name(name, where)
        key = unicodedata.normalize("NFC", name).casefold()
        if key in folded:
            raise BundleError(f"{where}: {folded[key]!r} and {name!r} are one file on some systems; rename one")
        folded[key] = name
    if (total := sum(sizes.values())) > MAX_BYTES:
        raise BundleError(f"{where}: holds {total} bytes unpacked; expected at most {MAX_BYTES}")


class Folder:
    """A bundle that lies in a folder. Links and devices in it are refused."""

    def __init__(self, path: Path) -> None:
        self.path = path
        sizes = dict(self._walk(path))
        check_sizes(sizes, path)
        self._sizes = sizes

    def _walk(self, folder: Path) -> Iterator[tuple[str, int]]:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                name = Path(entry.path).relative_to(self.path).as_posix()
                info = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    yield from self._walk(Path(entry.path))
                elif stat.S_ISREG(info.st_mode):
                    yield name, info.st_size
                else:
                    kind = "a link" if stat.S_ISLNK(info.st_mode) else "no plain file"
                    raise BundleError(f"{self.path}: {name!r} is {kind}; a bundle holds plain files only")

    def sizes(self) -> Mapping[str, int]:
        """Name of every file, with its size in bytes."""
        return self._sizes

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """One file, for reading."""
        try:
            with (self.path / PurePosixPath(name)).open("rb") as file:
                yield file
        except OSError as error:
            raise BundleError(f"{self.path}: {name!r} cannot be read: {error.strerror or error}") from error


class Zip:
    """A bundle in one zip file, stored or deflated. Encrypted files, links and duplicates are refused."""

    def __init__(self, path: Path) -> None:
        self.path = path
        sizes: dict[str, int] = {}
        with self._zip() as file:
            for info in file.infolist():
                if info.is_dir() and info.file_size == 0:
                    continue
                self._check(info)
                if info.filename in sizes:
                    raise BundleError(f"{path}: {info.filename!r} is in the zip twice")
                sizes[info.filename] = info.file_size
        check_sizes(sizes, path)
        self._sizes = sizes

    def _check(self, info: zipfile.ZipInfo) -> None:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in {0, stat.S_IFREG}:
            raise BundleError(f"{self.path}: {info.filename!r} is a link or device; a bundle holds plain files only")
        if info.flag_bits & 0x1:
            raise BundleError(f"{self.path}: {info.filename!r} is encrypted; a bundle is not")
        if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise BundleError(
                f"{self.path}: {info.filename!r} is packed by method {info.compress_type}; expected deflate"
            )
        if info.file_size > SMALL and info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise BundleError(
                f"{self.path}: {info.filename!r} would grow from {info.compress_size} to {info.file_size} bytes; "
                f"expected a factor of {MAX_RATIO} at most"
            )

    @contextlib.contextmanager
    def _zip(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self.path) as file:
                yield file
        except BundleError:
            raise
        except (OSError, *_ZIP_ERRORS) as error:
            raise BundleError(f"{self.path}: is no readable zip file: {error}") from error

    def sizes(self) -> Mapping[str, int]:
        """Name of every file, with its size in bytes."""
        return self._sizes

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """One file, for reading."""
        with self._zip() as file:
            if name not in self._sizes:
                raise BundleError(f"{self.path}: {name!r} is not in the zip")
            with file.open(name) as member:
                yield member


def read_sums(container: Container) -> tuple[bytes, dict[str, str]]:
    """The list of hashes, as bytes and as name -> SHA-256 in hexadecimal digits.

    Only one spelling is accepted (lower-case digits, two spaces, one newline, names in order), so that one content has
    one list, and one list one id.
    """
    where = container.path
    sizes = container.sizes()
    if SUMS not in sizes:
        inside = sorted(name for name in sizes if name.endswith("/" + SUMS))
        hint = f" (there is a {inside[0]}: pack the files, not the folder around them)" if inside else ""
        raise BundleError(f"{where}: has no {SUMS}, so it is no bundle{hint}")
    if sizes[SUMS] > MAX_SUMS:
        raise BundleError(f"{where}: {SUMS} has {sizes[SUMS]} bytes; expected at most {MAX_SUMS}")
    with container.open(SUMS) as file:
        data = file.read(MAX_SUMS + 1)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise BundleError(f"{where}: {SUMS} is not UTF-8 text (byte {error.start})") from error
    if not text.endswith("\n"):
        raise BundleError(f"{where}: {SUMS} is cut short: its last line has no end")
    sums: dict[str, str] = {}
    for number, line in enumerate(text[:-1].split("\n"), start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise BundleError(
                f"{where}: {SUMS} line {number} reads {line!r}; expected a SHA-256, two spaces and a name"
            )
        digest, name = match.groups()
        check_name(name, where)
        if name == SUMS or (sums and name <= next(reversed(sums))):
            raise BundleError(f"{where}: {SUMS} line {number} lists {name!r}, which is a repetition or out of order")
        sums[name] = digest
    return data, sums


def format_sums(digests: Mapping[str, str]) -> bytes:
    """The list of hashes as it is written: one line a file, by name."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()


def check_sums(container: Container, sums: Mapping[str, str]) -> None:
    """Hash every file.

    Raises
    ------
    BundleError
        A file is missing, not listed, or not what it was; the message names it.
    """
    where = container.path
    present = set(container.sizes()) - {SUMS}
    if missing := sorted(set(sums) - present):
        raise BundleError(f"{where}: {', '.join(missing)} listed in {SUMS} but missing; copy the whole bundle again")
    if extra := sorted(present - set(sums)):
        raise BundleError(
            f"{where}: {', '.join(extra)} not listed in {SUMS}; a bundle holds nothing else, so remove it"
        )
    for name, expected in sums.items():
        with container.open(name) as file:
            found = _digest(file)
        if found != expected:
            raise BundleError(
                f"{where}: {name} was changed: its SHA-256 is {found}, {SUMS} says {expected}; copy the bundle again"
            )


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def read_checked(container: Container, name: str, expected: str) -> bytes:
    """One file's content, hashed again: nothing that was swapped since the bundle was opened is used."""
    with container.open(name) as file:
        data = file.read()
    if hashlib.sha256(data).hexdigest() != expected:
        raise BundleError(f"{container.path}: {name} was changed since the bundle was opened; open it again")
    return data
