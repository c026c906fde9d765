"""What is shown: the test stimuli's embeddings, and a distribution like theirs that training stimuli are drawn from."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import RecordingError
from rtdecode.stream.fit import ledoit_wolf

Array = NDArray[np.float64]

#: Width of the stand-ins, as of CLIP ViT-L/14.
WIDTH = 768
#: Length of the stand-ins' mean, and the exponent by which the variance falls over their principal components: those
#: of CLIP ViT-L/14's embeddings of the 200 test images of THINGS-EEG2 (0.74; -0.65 over the first 60).
MEAN, DECAY = 0.74, 0.65
#: The files of a folder with real embeddings.
FEATURES, NAMES = "clip_feature_maps_test.npy", "things_item_names_1854.tsv"


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """A normal distribution of embeddings before they are scaled to length 1.

    Parameters
    ----------
    mean : ndarray of float64, shape (width,)
    basis : ndarray of float64, shape (width, width)
        Principal components, in rows, the largest first.
    deviation : ndarray of float64, shape (width,)
        Standard deviation along each.
    """

    mean: Array
    basis: Array
    deviation: Array

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        """`n` unit vectors, shape (n, width)."""
        return unit(self.mean + (rng.standard_normal((n, len(self.mean))) * self.deviation) @ self.basis)

    def scores(self, embeddings: Array) -> Array:
        """Along each principal component, in standard deviations; shape (n, width)."""
        return np.asarray((embeddings - self.mean) @ self.basis.T / self.deviation)


@dataclass(frozen=True, slots=True, eq=False)
class Stimuli:
    """Test stimuli and where training stimuli come from.

    Parameters
    ----------
    names : tuple of str
        Of the test stimuli.
    test : ndarray of float64, shape (stimuli, width)
        Unit vectors.
    distribution : Distribution
        Of training stimuli.
    origin : str
        What they are, for the record.
    """

    names: tuple[str, ...]
    test: Array
    distribution: Distribution
    origin: str


def unit(vectors: Array) -> Array:
    """Rows scaled to length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def real(folder: Path, n: int) -> Stimuli:
    """The first `n` of the real embeddings in a folder; the distribution is fitted to all of them.

    There are no embeddings of real training images here. Training stimuli are drawn from the normal distribution with
    the test embeddings' mean and covariance (shrunk after Ledoit and Wolf, as there are fewer of them than
    dimensions); no training stimulus is a test stimulus.

    Raises
    ------
    RecordingError
        The folder has no such file, or one of another shape.
    """
    path = folder / FEATURES
    try:
        content = path.read_bytes()
        features = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise RecordingError(f"the embeddings {path} cannot be read: {error}") from error
    if features.ndim < 2 or len(features) < n or features[0].size < 2:
        raise RecordingError(
            f"{path} holds an array of shape {features.shape}; expected {n} rows or more, one an image"
        )
    embeddings = unit(features.reshape(len(features), -1).astype(np.float64))
    covariance, _ = ledoit_wolf(embeddings)
    values, vectors = np.linalg.eigh(covariance)
    distribution = Distribution(embeddings.mean(axis=0), vectors.T[::-1], np.sqrt(np.maximum(values[::-1], 1e-12)))
    names = tuple(f"image{at + 1:03d}" for at in range(n))
    return Stimuli(names, embeddings[:n], distribution, f"{FEATURES}, SHA-256 {hashlib.sha256(content).hexdigest()}")


def stand_in(n: int, seed: int, width: int = WIDTH) -> Stimuli:
    """Seeded stand-ins with a mean and a spectrum as real embeddings have them."""
    rng = np.random.default_rng([seed, 10])
    basis = np.linalg.qr(rng.standard_normal((width, width)))[0]
    variance = np.arange(1, width + 1) ** -DECAY
    variance *= (1.0 - MEAN**2) / variance.sum()
    distribution = Distribution(MEAN * unit(rng.standard_normal(width)), basis, np.sqrt(variance))
    names = tuple(f"thing{at + 1:03d}" for at in range(n))
    return Stimuli(names, distribution.draw(rng, n), distribution, f"seeded stand-ins of width {width}")
