"""What the simulated subject is shown: everyday concepts, and an embedding for each.

Whatever a trained model depends on (embeddings here, the subject in `rtdecode.sources.forward`) is drawn from
SHAKE-256, which no release of a library will ever change.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Width of a concept's embedding.
WIDTH = 32
#: Share of an embedding's variance that it has in common with the other concepts of its category.
CATEGORY_SHARE = 0.35
#: How a marker names a concept.
MARKER = "concept/{}"


@dataclass(frozen=True, slots=True)
class Concept:
    """Something the subject may be shown."""

    name: str
    emoji: str
    caption: str
    category: str


@cache
def concepts() -> tuple[Concept, ...]:
    """The concepts of ``concepts.json``, in its order."""
    text = files("rtdecode.sources").joinpath("concepts.json").read_text(encoding="utf-8")
    return tuple(Concept(**item) for item in json.loads(text))


def gallery() -> tuple[Concept, ...]:
    """What the simulated subject is shown, and what the demo's model was trained on: all concepts but every ninth.

    The others (`unseen`) are kept to measure what a model makes of things that are not in its gallery.
    """
    return tuple(item for number, item in enumerate(concepts()) if number % 9 != 8)


def unseen() -> tuple[Concept, ...]:
    """Every ninth concept; see `gallery`."""
    return concepts()[8::9]


def normals(key: str, shape: tuple[int, ...]) -> Array:
    """Standard normal numbers that depend on `key` alone, whatever the platform and the library versions.

    SHAKE-256 of the key gives uniform numbers (53 bits each), the Box-Muller transform makes them normal.
    """
    n = math.prod(shape)
    pairs = (n + 1) // 2
    words = np.frombuffer(hashlib.shake_256(key.encode()).digest(16 * pairs), "<u8").reshape(2, pairs)
    uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    radius = np.sqrt(-2.0 * np.log(uniform[0]))
    angle = 2.0 * np.pi * uniform[1]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:n].reshape(shape)


def uniforms(key: str, low: float, high: float, n: int) -> Array:
    """Uniform numbers in [low, high) that depend on `key` alone; see `normals`."""
    words = np.frombuffer(hashlib.shake_256(key.encode()).digest(8 * n), "<u8")
    return low + (high - low) * ((words >> np.uint64(11)).astype(np.float64) / 2.0**53)


def embeddings(items: Sequence[Concept]) -> Array:
    """Unit vectors, shape (items, `WIDTH`): stand-ins for the image embeddings of a vision model.

    Each is a mixture of its category's vector and one of its own, so that a cat is nearer to a dog than to a violin.
    They are no model's embeddings and carry no meaning beyond that.
    """
    own = np.array([normals(f"rtdecode concept {item.name}", (WIDTH,)) for item in items])
    shared = np.array([normals(f"rtdecode category {item.category}", (WIDTH,)) for item in items])
    mixed = math.sqrt(CATEGORY_SHARE) * shared + math.sqrt(1.0 - CATEGORY_SHARE) * own
    return np.asarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True))
