"""Arrays on disk: ``.npy``, ``.npz:NAME``, ``.safetensors:NAME``. Nothing that is read here can run code."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import ConfigError

_KINDS = (".npy", ".npz", ".safetensors")


def read_array(folder: Path, place: str, name: str = "", where: str = "") -> NDArray[Any]:
    """Read one array.

    Parameters
    ----------
    folder : Path
        What `place` is relative to.
    place : str
        A file; of several arrays one is named behind a colon.
    name : str
        The array that is taken where no colon names one.
    where : str
        The recipe's key, for messages.

    Raises
    ------
    ConfigError
        The file is missing, damaged, of another format, or holds no such array.
    """
    file, _, own = place.partition(":")
    path, wanted = folder / file, own or name
    prefix = f"{where}: " if where else ""
    if path.suffix not in _KINDS:
        raise ConfigError(f"{prefix}{path} ends in {path.suffix!r}; expected one of {', '.join(_KINDS)}")
    if not path.is_file():
        raise ConfigError(f"{prefix}{path} does not exist; is the data folder right?")
    try:
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                there = list(archive.files)
                return np.asarray(archive[_one_of(there, wanted)])
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as tensors:
            there = list(tensors.keys())
            return np.asarray(tensors.get_tensor(_one_of(there, wanted)))
    except KeyError as error:
        raise ConfigError(f"{prefix}{path} holds no array {wanted!r}; there are {', '.join(there)}") from error
    except Exception as error:  # damage shows as many errors: of zip, of numpy, of safetensors
        raise ConfigError(f"{prefix}{path} cannot be read ({error}); expected plain arrays, no pickles") from error


def _one_of(there: list[str], wanted: str) -> str:
    """The array of that name; the only one where there is one."""
    if wanted in there:
        return wanted
    if len(there) == 1:
        return there[0]
    raise KeyError(wanted)
