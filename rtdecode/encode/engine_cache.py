"""Where compiled TensorRT engines are kept: under the user's own cache folder, for one machine, and for nobody else.

An engine is a program for one GPU, driver and library version, and TensorRT does not check it when it is loaded. So a
folder is used only where nobody but this user could have put anything into it, and each combination of everything that
an engine depends on has a folder of its own (`rtdecode.encode.providers.engine_cache_key`).
"""

import ctypes
import importlib.util
import os
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rtdecode.encode.providers import engine_cache_key
from rtdecode.errors import ProviderError

#: onnxruntime's provider is built against this major version, and asks the loader for it by name.
TENSORRT_MAJOR: Final = 10

#: Options that say where and whether engines are kept, and do not change them.
_ABOUT_CACHES: Final = frozenset(
    {
        "trt_engine_cache_enable",
        "trt_engine_cache_path",
        "trt_engine_cache_prefix",
        "trt_timing_cache_enable",
        "trt_timing_cache_path",
        "trt_dump_ep_context_model",
        "trt_ep_context_file_path",
        "trt_ep_context_embed_mode",
    }
)

#: An engine with the graph around it, as onnxruntime reads it in place of the ONNX file.
_CONTEXT: Final = "context.onnx"

#: What decides which GPU a device's number means.
_CHOOSING: Final = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")


@dataclass(frozen=True, slots=True)
class Platform:
    """What an engine is compiled for, besides the model.

    Parameters
    ----------
    onnxruntime, tensorrt : str
        Library versions.
    gpu : str
        Name and compute capability of every GPU of the machine, in the driver's order, and what picks one of them. The
        number of a device alone does not say which it is.
    driver : str
        Driver version.
    """

    onnxruntime: str
    tensorrt: str
    gpu: str
    driver: str


def cache_options(
    onnx: bytes, options: Mapping[str, str], precision: str, platform: Platform | None, environ: Mapping[str, str]
) -> dict[str, str]:
    """Options of the TensorRT provider that make it keep engines and timings in a folder of this model's own.

    Parameters
    ----------
    onnx : bytes
        The encoder.
    options : mapping of str to str
        Checked options. ``trt_engine_cache_path`` names another folder than the user's cache folder;
        ``trt_engine_cache_enable = False`` keeps nothing.
    precision : str
        ``fp32``, ``fp16``...
    platform : Platform or None
        None where it is not known: nothing is kept then.
    environ : mapping of str to str
        The environment, for the user's cache folder.

    Returns
    -------
    dict of str to str
        `options` with the cache's; without them where nothing is kept.

    Raises
    ------
    ProviderError
        Somebody else can write to the folder.
    """
    own = {name: value for name, value in options.items() if name not in _ABOUT_CACHES}
    if platform is None or options.get("trt_engine_cache_enable", "True") != "True":
        return own
    named = options.get("trt_engine_cache_path")
    root = Path(named).absolute() if named else cache_root(environ)
    key = engine_cache_key(
        onnx,
        onnxruntime=platform.onnxruntime,
        tensorrt=platform.tensorrt,
        gpu=platform.gpu,
        driver=platform.driver,
        precision=precision,
        options=own,
    )
    folder = str(private_folder(private_folder(root) / key))
    return own | {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": folder,
        "trt_dump_ep_context_model": "True",
        "trt_ep_context_file_path": f"{folder}/{_CONTEXT}",
        "trt_ep_context_embed_mode": "1",  # the engine inside the one file
    }


def native_folder(
    onnx: bytes, options: Mapping[str, str], precision: str, tensorrt: str, environ: Mapping[str, str]
) -> Path | None:
    """The folder for an engine of TensorRT's own, without onnxruntime; None where the GPU or driver is not known.

    Parameters
    ----------
    onnx : bytes
        The encoder.
    options : mapping of str to str
        Checked options of ``tensorrt-native``; ``cache_path`` names another folder than the user's cache folder.
    precision : str
        ``fp32``, ``fp16``...
    tensorrt : str
        TensorRT's version.
    environ : mapping of str to str
        The environment.

    Raises
    ------
    ProviderError
        Somebody else can write to the folder.
    """
    listed = _ask_driver()
    if listed is None:
        return None
    gpus, driver = listed
    key = engine_cache_key(
        onnx,
        onnxruntime="",
        tensorrt=tensorrt,
        gpu=_which(gpus, environ),
        driver=driver,
        precision=precision,
        options={name: value for name, value in options.items() if name not in {"cache", "cache_path", "cuda_graph"}},
    )
    named = options.get("cache_path")
    root = Path(named).absolute() if named else cache_root(environ)
    return private_folder(private_folder(root) / key)


def kept_context(options: Mapping[str, str]) -> Path | None:
    """The engine that an earlier start has left for the same model and machine; None where there is none.

    Parameters
    ----------
    options : mapping of str to str
        As `cache_options` gave them, which has checked whose folder it is.
    """
    path = options.get("trt_ep_context_file_path")
    return Path(path) if path is not None and Path(path).is_file() else None


def cache_root(environ: Mapping[str, str]) -> Path:
    """``rtdecode/engines`` in the user's cache folder (XDG Base Directory Specification)."""
    named = environ.get("XDG_CACHE_HOME", "")
    base = Path(named) if named.startswith("/") else Path.home() / ".cache"
    return base / "rtdecode" / "engines"


def private_folder(folder: Path) -> Path:
    """The folder, made where it is not there, after a look at who else could change what is in it.

    Raises
    ------
    ProviderError
        The folder, or something in it, belongs to another user or is a link; others may enter it; or others may replace
        it, since they can write to a folder above.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_own(folder)
        for above in folder.resolve(strict=True).parents:
            _check_above(above, folder)
        with os.scandir(folder) as entries:
            for entry in entries:
                _check_content(entry, folder)
    except OSError as error:
        raise ProviderError(f"the engine cache {folder} cannot be used: {error.strerror}{_INSTEAD}") from error
    return folder


_INSTEAD: Final = (
    "; compiled engines are programs, so they are kept only in a folder of mode 0700 that nobody else could have "
    "written to: remove it, or name another (trt_engine_cache_path, or OpenVINO's cache_dir)"
)


def _check_own(folder: Path) -> None:
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode):
        raise ProviderError(f"the engine cache {folder} is no folder or a link to one{_INSTEAD}")
    if found.st_uid != os.geteuid():
        raise ProviderError(f"the engine cache {folder} belongs to user {found.st_uid}{_INSTEAD}")
    if found.st_mode & 0o077:
        raise ProviderError(f"the engine cache {folder} has mode {stat.S_IMODE(found.st_mode):04o}{_INSTEAD}")


def _check_above(above: Path, folder: Path) -> None:
    found = os.lstat(above)
    trusted = found.st_uid in {0, os.geteuid()}
    shared = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX  # in a sticky folder only owners replace
    if not trusted or shared:
        raise ProviderError(f"the engine cache {folder} can be replaced by others, who may write to {above}{_INSTEAD}")


def _check_content(entry: os.DirEntry[str], folder: Path) -> None:
    found = entry.stat(follow_symlinks=False)
    plain = stat.S_ISDIR(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink == 1)
    if not plain or found.st_uid != os.geteuid():
        raise ProviderError(f"{entry.name!r} in the engine cache {folder} is a link or another user's{_INSTEAD}")


def find_platform(onnxruntime: str, environ: Mapping[str, str]) -> Platform | None:
    """What engines are compiled for on this machine; None where there is no GPU, no TensorRT or no way to tell."""
    listed = _ask_driver()
    tensorrt = load_tensorrt()
    if listed is None or tensorrt is None:
        return None
    gpus, driver = listed
    return Platform(onnxruntime=onnxruntime, tensorrt=tensorrt, gpu=_which(gpus, environ), driver=driver)


def _which(gpus: list[str], environ: Mapping[str, str]) -> str:
    """The machine's GPUs, and what picks one of them."""
    return "; ".join([*gpus, " ".join(f"{name}={environ[name]}" for name in _CHOOSING if name in environ)])


def _ask_driver() -> tuple[list[str], str] | None:
    """Name and compute capability of each GPU, and the driver's version, as the driver's own tool says."""
    command = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_gpus(said.stdout) if said.returncode == 0 else None


def parse_gpus(said: str) -> tuple[list[str], str] | None:
    """``nvidia-smi``'s lines ``name, compute capability, driver``; None where they are not such."""
    rows = [[cell.strip() for cell in line.rsplit(",", 2)] for line in said.splitlines() if line.strip()]
    if not rows or any(len(row) != 3 or not all(row) for row in rows):
        return None
    return [f"{name} ({capability})" for name, capability, _ in rows], rows[0][2]


def load_tensorrt() -> str | None:
    """Load the TensorRT that onnxruntime's provider will ask for, and return its version; None where it is not there.

    pip's packages put it where the loader does not look. Once it is loaded, the loader finds it by its name.
    """
    places = [""]
    spec = importlib.util.find_spec("tensorrt_libs")
    if spec is not None and spec.submodule_search_locations:
        places = [f"{place}/" for place in spec.submodule_search_locations] + places
    for place in places:
        try:
            library = ctypes.CDLL(f"{place}libnvinfer.so.{TENSORRT_MAJOR}", mode=ctypes.RTLD_GLOBAL)
            ctypes.CDLL(f"{place}libnvonnxparser.so.{TENSORRT_MAJOR}", mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue  # not there: the loader's own places are next
        return str(library.getInferLibVersion())
    return None
