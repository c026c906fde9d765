"""What heads give: plain values that travel in a message as they are."""

import msgspec
import numpy as np
from numpy.typing import NDArray


class Retrieval(msgspec.Struct, frozen=True, kw_only=True):
    """The k best items of a gallery, best first.

    `margin` is the best score minus the second best. `none_of_these` is true when the best score is below the head's
    calibrated threshold, and null where it has none.
    """

    indices: tuple[int, ...]
    names: tuple[str, ...]
    scores: tuple[float, ...]
    margin: float
    none_of_these: bool | None = None


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """Class probabilities, in the order of `names`; `best` is the most probable name."""

    names: tuple[str, ...]
    probabilities: tuple[float, ...]
    best: str


class HeadOutput(msgspec.Struct, frozen=True, kw_only=True):
    """One head's result: exactly one of `retrieval` and `label`, or neither where the embedding itself is the result.

    `arrays` are published as raw frames beside the header.
    """

    retrieval: Retrieval | None = None
    label: Label | None = None
    arrays: dict[str, NDArray[np.float32]] = {}
