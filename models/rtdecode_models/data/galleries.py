"""Galleries on disk: names, embeddings and captions of stimuli, in the layouts in which they are published."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import ConfigError
from rtdecode_models.data.files import read_array
from rtdecode_models.data.spec import Stimuli
from rtdecode_models.data.trials import Gallery

#: In a folder like ``things_clip``: CLIP ViT-L/14 of the 200 test images of THINGS, of each concept's centre over other
#: images, and captions by name of image, in one order.
_IMAGES, _CENTRES = "clip_feature_maps_test.npy", "center_clip.npy"
_CAPTIONS = "test200_captions_BrainFLORA.json"


def read_gallery(stimuli: Stimuli, folder: Path) -> Gallery:
    """The gallery that a recipe declares.

    Parameters
    ----------
    stimuli : Stimuli
        Files, relative to `folder`.
    folder : Path
        The data folder.

    Returns
    -------
    Gallery
        Embeddings as float32.

    Raises
    ------
    ConfigError
        A file is missing or not what it should be, names repeat, or an array has another number of rows.
    """
    embeddings = {target: _rows(folder, places, target) for target, places in stimuli.embeddings.items()}
    if stimuli.names:
        names = read_names(folder / stimuli.names)
    elif embeddings:
        names = tuple(f"{row + 1:05d}" for row in range(len(next(iter(embeddings.values())))))
    else:
        raise ConfigError("stimuli: neither `names` nor `embeddings` are given; expected at least one of them")
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise ConfigError(f"{folder / stimuli.names} names {repeated[0]!r} more than once; expected names that differ")
    for target, rows in embeddings.items():
        if len(rows) != len(names):
            raise ConfigError(
                f"stimuli.embeddings.{target} ({stimuli.embeddings[target]}) has {len(rows)} rows for {len(names)} "
                "names; expected one for each"
            )
    return Gallery(names, embeddings, read_captions(folder / stimuli.captions, names) if stimuli.captions else ())


def read_names(path: Path) -> tuple[str, ...]:
    """Names of stimuli: a JSON list or object (its keys), a TSV with a heading, or plain lines.

    Of a TSV the column ``name`` or ``uniqueID`` (as THINGS has it) is taken, else the first.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the names of stimuli {path} cannot be read: {error}; expected UTF-8 text") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if path.suffix == ".json":
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path} is not JSON: {error}") from error
        names = list(found) if isinstance(found, list | dict) else []
    elif path.suffix == ".tsv":
        heading, *rows = [line.split("\t") for line in lines] or [[]]
        column = next((heading.index(name) for name in ("name", "uniqueID") if name in heading), 0)
        names = [row[column] if column < len(row) else "" for row in rows]
    else:
        names = [line.strip() for line in lines]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(f"{path} holds no names; expected a JSON list or object, a TSV, or plain lines")
    return tuple(names)


def read_captions(path: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    """The caption of each name, out of a JSON object.

    Raises
    ------
    ConfigError
        The file cannot be read, or a name has none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the captions {path} cannot be read: {error}; expected a JSON object") from error
    missing = [name for name in names if not isinstance(found, dict) or not isinstance(found.get(name), str)]
    if missing:
        raise ConfigError(f"{path} has no caption for {missing[0]!r}; expected an object, name -> caption")
    return tuple(found[name] for name in names)


def things_clip(folder: Path) -> Gallery:
    """The gallery of the THINGS-EEG2 test images: targets ``image`` and ``centre``, both (200, 768).

    Parameters
    ----------
    folder : Path
        With CLIP ViT-L/14 features as NICE-EEG publishes them, and names as BrainFLORA publishes captions.
    """
    names = read_names(folder / _CAPTIONS)
    images, centres = read_array(folder, _IMAGES), read_array(folder, _CENTRES)
    images = images.reshape(len(images), -1)
    for place, rows in ((_IMAGES, images), (_CENTRES, centres)):
        if rows.shape != (len(names), 768):
            raise ConfigError(f"{folder / place} has the shape {rows.shape}; expected ({len(names)}, 768)")
    embeddings = {"image": images.astype(np.float32), "centre": centres.astype(np.float32)}
    return Gallery(names, embeddings, read_captions(folder / _CAPTIONS, names))


def stacked_levels(levels: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Embeddings of the same stimuli, blurred more and more, as one target (stimuli, levels, width).

    Parameters
    ----------
    levels : sequence of ndarray of float32, shape (stimuli, width)
        Sharpest first.

    Raises
    ------
    ConfigError
        Their shapes differ.
    """
    shapes = [rows.shape for rows in levels]
    if len(set(shapes)) != 1 or len(shapes[0]) != 2:
        raise ConfigError(f"levels of shapes {shapes}; expected all of one shape (stimuli, width)")
    return np.stack(levels, axis=1)


def _rows(folder: Path, places: str | tuple[str, ...], target: str) -> NDArray[np.float32]:
    """The rows of a target; several files are its levels."""
    where = f"stimuli.embeddings.{target}"
    read = []
    for place in (places,) if isinstance(places, str) else places:
        found = read_array(folder, place, target, where)
        if found.dtype.kind not in "fiu":
            raise ConfigError(f"{where} ({place}) is {found.dtype} of shape {found.shape}; expected real numbers")
        read.append(found.astype(np.float32))
    rows = read[0] if isinstance(places, str) else stacked_levels(read)
    if rows.ndim < 2 or rows.size == 0:
        raise ConfigError(f"{where} ({places}) has the shape {rows.shape}; expected (stimuli, ...)")
    if not np.isfinite(rows).all():
        raise ConfigError(f"{where} ({places}) holds numbers that are not finite")
    return rows
