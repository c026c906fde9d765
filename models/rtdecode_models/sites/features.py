"""Stimulus features as users have them: one row for each stimulus, or one for each moment."""

import csv
import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import ConfigError


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What is known of the stimuli.

    Parameters
    ----------
    values : ndarray of float64, shape (n, width)
        One row for each stimulus or moment.
    names : tuple of str
        The marker of each stimulus; empty where rows are moments.
    sfreq : float
        Rows in a second; 0 where rows are stimuli.
    sha256 : str
        Of the file.
    """

    values: NDArray[np.float64]
    names: tuple[str, ...]
    sfreq: float
    sha256: str


def read_features(path: Path) -> Features:
    """Read features of stimuli or of moments.

    Parameters
    ----------
    path : Path
        A table (``.tsv`` or ``.csv``, with a line of headings) whose first column is the marker and whose others are
        numbers; or ``.npz`` with an array ``features`` (n, width) and either ``names`` (n,), the markers, or ``sfreq``,
        the rows in a second from the start of the recording.

    Raises
    ------
    ConfigError
        It is missing, or not like that.
    """
    if not path.is_file():
        raise ConfigError(f"the features {path} do not exist; expected a .tsv, .csv or .npz file")
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if path.suffix == ".npz":
        values, names, sfreq = _npz(path)
    elif path.suffix in (".tsv", ".csv"):
        values, names, sfreq = _table(path)
    else:
        raise ConfigError(f"the features {path} are no .tsv, .csv or .npz file")
    if values.ndim != 2 or 0 in values.shape:
        raise ConfigError(f"the features in {path} have shape {values.shape}; expected (rows, width), none of them 0")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ConfigError(f"{path}: feature {column} of row {row} is {values[row, column]}; expected finite numbers")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"{path}: {twice[0]!r} has {names.count(twice[0])} rows; expected one for each marker")
    return Features(values, names, sfreq, sha256)


def read_regions(path: Path) -> Mapping[str, str]:
    """Contact -> region, from a table with the columns ``name`` and ``region``, as in a BIDS ``electrodes.tsv``.

    Raises
    ------
    ConfigError
        It is missing, or has no such columns.
    """
    rows = _rows(path)
    if not rows or "name" not in rows[0] or "region" not in rows[0]:
        raise ConfigError(f"{path} has no columns 'name' and 'region' in its first line")
    name, region = rows[0].index("name"), rows[0].index("region")
    for row in rows[1:]:
        if len(row) <= max(name, region):
            raise ConfigError(
                f"{path}: the row {row} has {len(row)} columns; expected {len(rows[0])} as in its first line"
            )
    return {row[name]: row[region] for row in rows[1:] if row[region] not in ("", "n/a")}


def _npz(path: Path) -> tuple[NDArray[np.float64], tuple[str, ...], float]:
    try:
        with zipfile.ZipFile(path):  # which a .npy file under this name is not
            pass
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(f"{path} cannot be read as .npz: {error}") from error
    if "features" not in found or ("names" in found) == ("sfreq" in found):
        held = ", ".join(sorted(found)) or "nothing"
        raise ConfigError(f"{path} holds {held}; expected 'features', and either 'names' or 'sfreq'")
    values = found["features"]
    if not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        raise ConfigError(f"{path}: 'features' are {values.dtype}; expected numbers")
    if values.ndim != 2:
        raise ConfigError(f"{path}: 'features' have shape {values.shape}; expected (rows, width)")
    if "names" in found:
        names = tuple(str(name) for name in found["names"].ravel())
        if len(names) != len(values):
            raise ConfigError(f"{path}: {len(names)} names for {len(values)} rows of features; expected one for each")
        return values.astype(np.float64), names, 0.0
    rate = found["sfreq"]
    if rate.size != 1 or not np.issubdtype(rate.dtype, np.number) or np.iscomplexobj(rate):
        raise ConfigError(f"{path}: 'sfreq' is {rate.dtype} of shape {rate.shape}; expected one number")
    sfreq = float(rate.item())
    if not 0 < sfreq < np.inf:
        raise ConfigError(f"{path}: sfreq is {sfreq}; expected rows in a second, more than 0")
    return values.astype(np.float64), (), sfreq


def _table(path: Path) -> tuple[NDArray[np.float64], tuple[str, ...], float]:
    rows = _rows(path)[1:]
    values = []
    for line, row in enumerate(rows, start=2):
        try:
            values.append([float(cell) for cell in row[1:]])
        except ValueError as error:
            raise ConfigError(f"{path}, line {line}: {error}; expected a marker and then numbers") from error
        if len(row) != len(rows[0]):
            raise ConfigError(f"{path}, line {line}: {len(row)} columns; expected {len(rows[0])} as in the line above")
    return np.array(values, dtype=np.float64), tuple(row[0] for row in rows), 0.0


def _rows(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a table: {error}") from error
    try:
        return [row for row in csv.reader(text.splitlines(), delimiter="," if path.suffix == ".csv" else "\t") if row]
    except csv.Error as error:
        raise ConfigError(f"{path} cannot be read as a table: {error}") from error
