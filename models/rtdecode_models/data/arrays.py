"""Windows as plain arrays on disk, with labels, items and embeddings beside them."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.manifest import Contract, ContractChannel
from rtdecode.errors import ConfigError
from rtdecode_models.data.files import read_array
from rtdecode_models.data.galleries import read_gallery
from rtdecode_models.data.spec import Arrays, ArraySession
from rtdecode_models.data.trials import Gallery
from rtdecode_models.data.windowed import Live, WindowedSource, Windows, WindowSession, locked


def open_arrays(spec: Arrays, folder: Path) -> WindowedSource:
    """The sessions that the recipe lists.

    Raises
    ------
    ConfigError
        A file is missing, or the sessions disagree on which labels there are.
    """
    if not spec.sessions:
        raise ConfigError("data.sessions is empty; expected at least one")
    gallery = read_gallery(spec.stimuli, folder) if spec.stimuli is not None else None
    for one in spec.sessions:
        for place in (one.windows, *one.labels.values(), *([one.items] if one.items else [])):
            if not (folder / place.partition(":")[0]).is_file():
                raise ConfigError(f"data.sessions {one.name!r}: {folder / place.partition(':')[0]} does not exist")
        if set(one.labels) != set(spec.classes):
            raise ConfigError(
                f"data.sessions {one.name!r} has the labels {sorted(one.labels)}; data.classes names the classes of "
                f"{sorted(spec.classes)}: expected the same"
            )
        if bool(one.items) != (gallery is not None):
            raise ConfigError(
                f"data.sessions {one.name!r}: `items` and data.stimuli go together; one of them is missing"
            )

    def session(one: ArraySession) -> WindowSession:
        return WindowSession(one.name, one.subject, lambda: _read(one, spec, gallery, folder), one.test)

    signal = spec.signal
    live = Live(
        contract=Contract(
            channels=tuple(ContractChannel(name=name, type=signal.type, unit=signal.unit) for name in signal.channels),
            sfreq=signal.sfreq,
        ),
        conditioning=spec.conditioning,
        window=locked(spec.tmin, spec.tmax, spec.markers),
        classes=spec.classes,
        markers=spec.markers,
    )
    return WindowedSource([session(one) for one in spec.sessions], live, spec.fit)


def _read(one: ArraySession, spec: Arrays, gallery: Gallery | None, folder: Path) -> Windows:
    where = f"data.sessions {one.name!r}"
    x = read_array(folder, one.windows, "windows", where)
    if x.ndim != 3 or x.dtype.kind not in "fiu":
        raise ConfigError(f"{where}: {one.windows} is {x.dtype} of shape {x.shape}; expected numbers, three axes")
    if spec.layout == "channels_first":
        x = x.transpose(0, 2, 1)
    labels = {
        label: classes_of(read_array(folder, place, label, where), spec.classes[label], f"{where}.labels.{label}")
        for label, place in one.labels.items()
    }
    item = None
    if gallery is not None:
        item = classes_of(read_array(folder, one.items, "items", where), gallery.names, f"{where}.items")
    for name, column in (*labels.items(), ("items", item)):
        if column is not None and len(column) != len(x):
            raise ConfigError(f"{where}: {len(column)} {name} for {len(x)} windows; expected one for each")
    places = {place.partition(":")[0] for place in (one.windows, *one.labels.values(), one.items) if place}
    return Windows(
        np.ascontiguousarray(x, np.float32), labels, item, gallery, {place: sha256(folder / place) for place in places}
    )


def classes_of(column: NDArray[Any], names: tuple[str, ...], where: str) -> NDArray[np.int64]:
    """Rows of `names`, given as numbers or as names.

    Raises
    ------
    ConfigError
        A number or a name is not among them, or there is another shape.
    """
    if column.ndim != 1 or column.dtype.kind not in "iuUS":
        raise ConfigError(
            f"{where} is {column.dtype} of shape {column.shape}; expected whole numbers or names, one axis"
        )
    if column.dtype.kind in "US":
        row_of = {name: row for row, name in enumerate(names)}
        given = [value.decode() if isinstance(value, bytes) else str(value) for value in column.tolist()]
        unknown = sorted(set(given) - set(row_of))
        if unknown:
            raise ConfigError(f"{where} names {unknown[0]!r}, which is none of the {len(names)} that are declared")
        return np.array([row_of[value] for value in given], np.int64)
    rows = column.astype(np.int64)
    if len(rows) and not (rows.min() >= 0 and rows.max() < len(names)):
        raise ConfigError(f"{where} goes from {rows.min()} to {rows.max()}; expected 0 to {len(names) - 1}")
    return rows


def sha256(path: Path) -> str:
    """Of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
