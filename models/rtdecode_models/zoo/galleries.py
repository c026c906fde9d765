"""A gallery where none is given: as many items as a test has, each a vector at random, and saying so."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.manifest import EmbeddingHead, GalleryItem, HeadSpec, RetrieveHead

#: Heads of a bundle, and files that they name.
Heads = tuple[tuple[HeadSpec, ...], Mapping[str, bytes | NDArray[Any]]]

#: Items of the test sets of THINGS-EEG2 and THINGS-MEG, and the seed of what stands in for their embeddings.
ITEMS, SEED = 200, 0
#: Said of each item.
CAPTION = "A stand-in: a vector at random, not the embedding of an image."


def stand_in(width: int, metric: Literal["cosine", "dot"] = "cosine", also: tuple[str, ...] = ()) -> Heads:
    """Retrieval by the output ``embedding`` over `ITEMS` stand-ins, and further outputs as they are.

    Parameters
    ----------
    width : int
        Of an embedding.
    metric : str
        How the published system compares.
    also : tuple of str
        Outputs that are published without a gallery.
    """
    vectors = np.random.default_rng(SEED).standard_normal((ITEMS, width))
    embeddings = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    items = [GalleryItem(name=f"stand-in {n + 1:03d}", caption=CAPTION) for n in range(ITEMS)]
    files: dict[str, bytes | NDArray[Any]] = {
        "items.json": msgspec.json.format(msgspec.json.encode(items), indent=2) + b"\n",
        "gallery.npy": embeddings,
    }
    retrieve = RetrieveHead(output="embedding", items="items.json", embeddings="gallery.npy", metric=metric)
    return (retrieve, *(EmbeddingHead(output=output) for output in also)), files
