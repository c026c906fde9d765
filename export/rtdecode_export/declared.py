"""What a bundle needs besides a module: declared in a TOML file, or as another bundle has it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.arrays import read_array
from rtdecode.encode.bundle import Bundle
from rtdecode.encode.manifest import Contract, ContractChannel, GalleryItem, HeadSpec, RetrieveHead
from rtdecode.errors import ConfigError, RtdecodeError
from rtdecode.signal import Channel
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.steps import Conditioning, Matrix, RunningAlignment, Scale
from rtdecode.stream.window import WindowSpec

#: Windows of noise that stand in where no real ones are given.
NOISE_WINDOWS = 64


class Stream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[contract]``: channels by name, of one type and unit unless they say otherwise."""

    sfreq: float
    channels: tuple[str | ContractChannel, ...]
    type: str = "eeg"
    unit: str = "V"


class Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of ``--contract``; steps, windows and heads are spelt as in a bundle's manifest.

    Parameters
    ----------
    contract : Stream
        The stream that the network decodes.
    outputs : tuple of str
        Names of the module's outputs, in its order.
    windows : tuple of WindowSpec
        The windows that a decoder cuts.
    heads : tuple of HeadSpec
        What becomes of the outputs.
    conditioning : Conditioning
        The chain that training used.
    name : str
        The bundle's name; empty for that of the module.
    """

    contract: Stream
    outputs: tuple[str, ...]
    windows: tuple[WindowSpec, ...]
    heads: tuple[HeadSpec, ...]
    conditioning: Conditioning = Conditioning()
    name: str = ""


def read_declared(path: Path) -> dict[str, Any]:
    """Arguments of `export_bundle` from a TOML file; the files that it names lie beside it.

    Raises
    ------
    ConfigError
        The file is not there, is no TOML, has an unknown key or a wrong value, or names a file that cannot be read.
    """
    try:
        declared = msgspec.toml.decode(path.read_bytes(), type=Declared)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    stream = declared.contract
    channels = tuple(
        ContractChannel(name=channel, type=stream.type, unit=stream.unit) if isinstance(channel, str) else channel
        for channel in stream.channels
    )
    arguments: dict[str, Any] = {
        "contract": Contract(channels=channels, sfreq=stream.sfreq),
        "conditioning": declared.conditioning,
        "arrays": {name: _array(path, name) for name in _arrays_of(declared.conditioning)},
        "windows": declared.windows,
        "heads": declared.heads,
        "outputs": declared.outputs,
        "files": _gallery_files(path, declared.heads),
    }
    return arguments | ({"name": declared.name} if declared.name else {})


def like(path: Path) -> dict[str, Any]:
    """Arguments of `export_bundle` as another bundle has them; its golden windows are the real ones.

    Raises
    ------
    BundleError
        It is no bundle.
    """
    bundle = Bundle.open(path)
    manifest, golden = bundle.manifest, bundle.manifest.golden
    files: dict[str, bytes | NDArray[Any]] = {}
    for head in manifest.heads:
        if isinstance(head, RetrieveHead):
            files[head.embeddings] = bundle.array(head.embeddings)
            files[head.items] = bundle.read(head.items)
            files |= {item.picture: bundle.read(item.picture) for item in bundle.items(head) if item.picture}
    return {
        "name": manifest.name,
        "contract": manifest.contract,
        "conditioning": manifest.conditioning,
        "arrays": {name: bundle.array(name) for name in _arrays_of(manifest.conditioning)},
        "windows": manifest.windows,
        "heads": manifest.heads,
        "outputs": manifest.encoder.outputs,
        "files": files,
        "real_windows": bundle.array(golden.windows),
        "raw": None if golden.raw is None else bundle.array(golden.raw),
        "raw_starts": golden.raw_starts,
    }


def noise_windows(
    contract: Contract, conditioning: Conditioning, arrays: Mapping[str, NDArray[Any]], windows: Sequence[WindowSpec]
) -> NDArray[np.float32]:
    """Windows of seeded Gaussian noise, of the shape that the chain and the windows give: (n, time, channels).

    Raises
    ------
    ConfigError
        There is no window, or the chain cannot be built.
    """
    if not windows:
        raise ConfigError("no window is declared; expected [[windows]] with window = 'sliding' or 'locked'")
    channels = [Channel(channel.name, channel.type, channel.unit) for channel in contract.channels]
    try:
        chain = Conditioner(conditioning.stream, channels, contract.sfreq, arrays)
    except RtdecodeError as error:
        raise ConfigError(f"the declared conditioning cannot be built: {error}") from error
    shape = (NOISE_WINDOWS, windows[0].n_samples(chain.sfreq), len(chain.channels))
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def read_windows(path: Path) -> NDArray[np.float32]:
    """Real windows from a ``.npy`` file, float32 or float64 of shape (n, time, channels)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    return read_array(data, str(path)).astype(np.float32)


def read_labels(path: Path) -> NDArray[np.int64]:
    """The right choice of each real window, from a ``.npy`` file of whole numbers."""
    try:
        labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; expected a .npy file of whole numbers") from error
    if not np.issubdtype(labels.dtype, np.integer):
        raise ConfigError(f"{path} holds {labels.dtype}; expected whole numbers, -1 where a label is unknown")
    return labels.astype(np.int64)  # type: ignore[no-any-return]


def _arrays_of(conditioning: Conditioning) -> Iterable[str]:
    for step in conditioning.stream:
        if isinstance(step, Matrix):
            yield step.array
        elif isinstance(step, Scale):
            yield from (step.center, step.scale)
        elif isinstance(step, RunningAlignment):
            yield step.start


def _array(path: Path, name: str) -> NDArray[Any]:
    return read_array(_file(path, name), str(path.parent / name))


def _gallery_files(path: Path, heads: Sequence[HeadSpec]) -> dict[str, bytes | NDArray[Any]]:
    files: dict[str, bytes | NDArray[Any]] = {}
    for head in heads:
        if isinstance(head, RetrieveHead):
            files[head.embeddings] = _array(path, head.embeddings)
            items = _file(path, head.items)
            files[head.items] = items
            try:
                listed = msgspec.json.decode(items, type=tuple[GalleryItem, ...])
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ConfigError(f"{path.parent / head.items}: {error}") from error
            files |= {item.picture: _file(path, item.picture) for item in listed if item.picture}
    return files


def _file(path: Path, name: str) -> bytes:
    try:
        return (path.parent / name).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} names {name!r}, which cannot be read beside it: {error.strerror}") from error
