"""The bundle: a trained decoder and everything it needs, checked before anything in it is used."""

import contextlib
import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec
from numpy.typing import NDArray

from rtdecode.encode.arrays import array_bytes, read_array
from rtdecode.encode.consistency import array_files, check_arrays, check_manifest, plain_files
from rtdecode.encode.container import (
    SUMS,
    Container,
    check_name,
    check_sums,
    format_sums,
    open_container,
    read_checked,
    read_sums,
)
from rtdecode.encode.manifest import FORMAT, VERSION, GalleryItem, Manifest, RetrieveHead
from rtdecode.errors import BundleError, RtdecodeError
from rtdecode.signal import Channel
from rtdecode.stream.condition import Conditioner, WindowConditioner, window_conditioner
from rtdecode.stream.window import WindowSpec

MANIFEST: Final = "manifest.json"

#: Largest manifest, and largest list of gallery items.
MAX_JSON: Final = 64 * 2**20

#: The date that every file in a zip carries, so that one content gives the same bytes: the earliest a zip can name.
_DATE: Final = (1980, 1, 1, 0, 0, 0)


class Bundle:
    """A bundle that was read, hashed and found consistent. Made by `Bundle.open`.

    The arrays (conditioning, gallery, golden windows) are in memory and read-only; other files are read and hashed
    again when they are asked for.
    """

    def __init__(self, container: Container, sums_bytes: bytes, sums: Mapping[str, str]) -> None:
        self._container = container
        self._sums = dict(sums)
        self.id = hashlib.sha256(sums_bytes).hexdigest()
        self.manifest = self._read_manifest()
        check_manifest(self.manifest, self.source)
        self._require_files()
        self._arrays = {name: read_array(self.read(name), self._place(name)) for name in array_files(self.manifest)}
        self._items = {
            head.items: self._read_items(head.items) for head in self.manifest.heads if isinstance(head, RetrieveHead)
        }
        check_arrays(self.manifest, self._arrays, self._items, self.conditioner(), self.source)
        for window in self.manifest.windows:
            self.window_conditioner(window)

    @classmethod
    def open(cls, path: Path | str) -> "Bundle":
        """Read the bundle at `path`, a folder or one zip file.

        Checked in this order: names, kinds and sizes of the files; the SHA-256 of each, none missing and none extra;
        the manifest, key by key; whether the parts fit each other. What needs the inference runtime (the ONNX shapes,
        the golden windows) is checked by `rtdecode.encode.engines.make_engine` and
        `rtdecode.encode.golden.check_golden`.

        Raises
        ------
        BundleError
            Any of that fails; the message names the file and the place in it.
        """
        container = open_container(Path(path))
        sums_bytes, sums = read_sums(container)
        check_sums(container, sums)
        return cls(container, sums_bytes, sums)

    @property
    def source(self) -> str:
        """Where it was opened, for people."""
        return str(self._container.path)

    @property
    def files(self) -> Mapping[str, str]:
        """Name of every file but ``SHA256SUMS``, with its SHA-256."""
        return MappingProxyType(self._sums)

    @property
    def sizes(self) -> Mapping[str, int]:
        """Name of every file, with its size in bytes."""
        return MappingProxyType(dict(self._container.sizes()))

    @property
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Every array that the manifest names, by file name; read-only."""
        return MappingProxyType(self._arrays)

    def array(self, name: str) -> NDArray[Any]:
        """One of `arrays`."""
        try:
            return self._arrays[name]
        except KeyError:
            known = ", ".join(sorted(self._arrays))
            raise BundleError(f"{self.source}: the manifest names no array {name!r}; it names {known}") from None

    def items(self, head: RetrieveHead) -> tuple[GalleryItem, ...]:
        """The gallery of a head, in the order of its rows."""
        return self._items[head.items]

    def read(self, name: str) -> bytes:
        """One file, hashed again as it is read."""
        if name not in self._sums:
            raise BundleError(f"{self.source}: has no file {name!r}")
        return read_checked(self._container, name, self._sums[name])

    def onnx_bytes(self) -> bytes:
        """The encoder."""
        return self.read(self.manifest.encoder.file)

    def conditioner(self) -> Conditioner:
        """A new conditioner of the declared chain, at the start of a segment."""
        contract = self.manifest.contract
        channels = tuple(Channel(channel.name, channel.type, channel.unit) for channel in contract.channels)
        try:
            return Conditioner(self.manifest.conditioning.stream, channels, contract.sfreq, self._arrays)
        except RtdecodeError as error:
            raise BundleError(f"{self._place(MANIFEST)}: $.conditioning: {error}") from error

    def window_conditioner(self, window: WindowSpec) -> WindowConditioner:
        """A conditioner for the declared window steps, for windows of one kind."""
        try:
            return window_conditioner(self.manifest.conditioning.window, window, self.conditioner())
        except RtdecodeError as error:
            raise BundleError(f"{self._place(MANIFEST)}: $.conditioning, window {window.name!r}: {error}") from error

    def _place(self, name: str) -> str:
        return f"{self.source}: {name}"

    def _read_manifest(self) -> Manifest:
        if MANIFEST not in self._sums:
            raise BundleError(f"{self.source}: has no {MANIFEST}")
        return decode_manifest(self._read_json(MANIFEST), self._place(MANIFEST))

    def _read_json(self, name: str) -> bytes:
        if (size := self._container.sizes()[name]) > MAX_JSON:
            raise BundleError(f"{self._place(name)} has {size} bytes; expected at most {MAX_JSON}")
        return self.read(name)

    def _read_items(self, name: str) -> tuple[GalleryItem, ...]:
        try:
            items = msgspec.json.decode(self._read_json(name), type=tuple[GalleryItem, ...])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BundleError(f"{self._place(name)}: {error}") from error
        for index, item in enumerate(items):
            if item.picture is not None and item.picture not in self._sums:
                raise BundleError(
                    f"{self._place(name)}: $[{index}].picture names {item.picture!r}, which is not in the bundle"
                )
        return items

    def _require_files(self) -> None:
        for place, name in plain_files(self.manifest):
            if name not in self._sums:
                raise BundleError(f"{self._place(MANIFEST)}: {place} names {name!r}, which is not in the bundle")


def decode_manifest(data: bytes, where: str = MANIFEST) -> Manifest:
    """Read a manifest.

    Raises
    ------
    BundleError
        It is no JSON, of another format or version, or has an unknown key or a wrong value; the message names the place
        (``$.conditioning.stream[2].order``).
    """
    try:
        head = msgspec.json.decode(data, type=_Head)
        if head.format != FORMAT:
            raise BundleError(f"{where}: $.format is {head.format!r}; expected {FORMAT!r}")
        if head.version != VERSION:
            raise BundleError(
                f"{where}: $.version is {head.version}; this rtdecode reads version {VERSION}: "
                "install the version that made the bundle, or export it again"
            )
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{where}: {error}") from error


class _Head(msgspec.Struct):
    """What every version of a manifest has."""

    format: str
    version: int


def encode_manifest(manifest: Manifest) -> bytes:
    """Write a manifest: one spelling for one content, indented for people."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=2) + b"\n"


def items_json(items: Sequence[GalleryItem]) -> bytes:
    """Write a gallery's items as the file that `RetrieveHead.items` names."""
    return msgspec.json.format(msgspec.json.encode(list(items)), indent=1) + b"\n"


def write_bundle(
    path: Path | str, manifest: Manifest, files: Mapping[str, bytes | NDArray[Any]], *, overwrite: bool = False
) -> Bundle:
    """Write a bundle: a folder, or one zip file where `path` ends in ``.zip``.

    The bundle is written beside `path` under another name, opened as any reader would open it, and only then put in
    place. One content always gives one id, and one zip file, to the byte.

    Parameters
    ----------
    path : Path
        Where it goes.
    manifest : Manifest
        Written as ``manifest.json``.
    files : mapping of str to bytes or ndarray
        The other files. Arrays are written in the ``.npy`` format, little-endian and C-contiguous.
    overwrite : bool
        Whether a bundle that lies there is replaced. Anything else is never replaced.

    Returns
    -------
    Bundle
        Opened at `path`.

    Raises
    ------
    BundleError
        Something lies there, a name is unsafe, or what was written is not a consistent bundle.
    """
    path = Path(path)
    if os.path.lexists(path) and not (overwrite and _is_bundle(path)):
        what = (
            "is no bundle, so it is not replaced" if overwrite else "is there already; say so where it may be replaced"
        )
        raise BundleError(f"{path} {what}")
    if clash := {MANIFEST, SUMS} & set(files):
        raise BundleError(f"{path}: {', '.join(sorted(clash))} is written by write_bundle itself")
    contents = {MANIFEST: encode_manifest(manifest)}
    for name, content in files.items():
        check_name(name, path)
        contents[name] = content if isinstance(content, bytes) else array_bytes(content, f"{path}: {name}")
    sums = format_sums({name: hashlib.sha256(data).hexdigest() for name, data in contents.items()})
    contents = {SUMS: sums, **dict(sorted(contents.items()))}
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(path) as temporary:
        if path.suffix == ".zip":
            _write_zip(temporary, contents)
        else:
            _write_folder(temporary, contents)
        Bundle.open(temporary)
        _put_in_place(temporary, path)
    return Bundle.open(path)


def _is_bundle(path: Path) -> bool:
    if path.is_symlink():
        return False
    if path.is_dir():
        return (path / SUMS).is_file() and (path / MANIFEST).is_file()
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return {SUMS, MANIFEST} <= set(file.namelist())


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield folder / path.name
    except BundleError as error:  # of what is not in its place yet
        raise type(error)(str(error).replace(str(folder / path.name), str(path))) from error
    except OSError as error:  # of a write, which does not know its file
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    for name, data in contents.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())


def _write_zip(path: Path, contents: Mapping[str, bytes]) -> None:
    """Stored, not deflated: weights hardly shrink, and what deflate gives depends on the library's version."""
    with path.open("xb") as out:
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
            for name, data in contents.items():
                info = zipfile.ZipInfo(name, _DATE)
                info.create_system = 3
                info.external_attr = 0o100644 << 16
                file.writestr(info, data)
        out.flush()
        os.fsync(out.fileno())


def _put_in_place(temporary: Path, path: Path) -> None:
    """Rename. A folder that is in the way is first moved into the temporary one, and goes with it."""
    if path.is_dir():
        path.rename(temporary.parent / "replaced")
    temporary.replace(path)
