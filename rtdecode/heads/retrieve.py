"""Retrieval: which of the things in a gallery an embedding is most like."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.engine import Outputs
from rtdecode.heads.base import embedding_of
from rtdecode.heads.outputs import HeadOutput, Retrieval

#: Unit roundoff of float32.
_UNIT = 2.0**-24
#: Rows that are scored again together.
_BLOCK = 1024


class Retrieve:
    """Exact top-k over a gallery, by cosine or dot product.

    Every row is scored in float32 by one matrix-vector product; the rows that rounding could have put into or out of
    the best k are scored again in float64, each by the same sum, whatever its place. So the order is that of the
    float64 scores, equal rows tie whatever library multiplies, and ties go to the lower index.

    The rounding error of a product of two vectors of length n and norm at most one is at most n u / (1 - n u), with u
    the unit roundoff, in any order of summation (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., eq.
    3.5); rows within twice that of the k-th are scored again. Cost: one pass over the gallery, and more only where very
    many rows score alike.

    Parameters
    ----------
    embeddings : ndarray of float32, shape (items, width)
        One row an item, finite. Kept, not copied.
    names : sequence of str
        Of the items.
    output : str
        The encoder's output that is the embedding.
    metric : {"cosine", "dot"}
        The cosine with a row or an embedding of zeros is 0.
    k : int
        How many are given; all where the gallery has fewer.
    threshold : float, optional
        A best score below it reads "none of these"; see `rtdecode.heads.calibrate.calibrate_threshold`.

    Raises
    ------
    ValueError
        The gallery is empty, not finite, has not one name a row, or `k` is below 1.
    """

    kind: Literal["retrieval"] = "retrieval"

    def __init__(
        self,
        embeddings: NDArray[np.float32],
        names: Sequence[str],
        *,
        output: str = "embedding",
        metric: Literal["cosine", "dot"] = "cosine",
        k: int = 5,
        threshold: float | None = None,
    ) -> None:
        if embeddings.ndim != 2 or embeddings.dtype != np.float32 or 0 in embeddings.shape:
            raise ValueError(
                f"the gallery is {embeddings.dtype} of shape {embeddings.shape}; expected float32 (items, width)"
            )
        if len(names) != len(embeddings):
            raise ValueError(f"the gallery has {len(embeddings)} rows and {len(names)} names")
        if k < 1:
            raise ValueError(f"k = {k}; expected 1 or more")
        self.names = tuple(names)
        self.metric = metric
        self.k = min(k, len(embeddings))
        self.threshold = None if threshold is None else float(threshold)
        self._output = output
        self._rows = embeddings
        self._norms = _norms(embeddings)
        if not np.isfinite(self._norms).all():
            raise ValueError(f"row {int(np.flatnonzero(~np.isfinite(self._norms))[0])} of the gallery is not finite")
        # Rows of norm at most one, so that one error bound holds and nothing overflows.
        scale = self._norms if metric == "cosine" else np.full(len(embeddings), self._norms.max())
        self._scan = _divide_rows(embeddings, scale)
        self._rough = np.empty(len(embeddings), np.float32)
        width = embeddings.shape[1]
        # Two more roundings for the scaled row and two for the scaled embedding.
        self._slack = 2 * (width + 4) * _UNIT / (1 - (width + 4) * _UNIT)
        self._wanted = min(max(self.k, 2), len(embeddings))

    def __call__(self, outputs: Outputs) -> HeadOutput:
        """The best items for one window's outputs; `EncodeError` where the embedding is missing or of another width."""
        return HeadOutput(retrieval=self.search(embedding_of(outputs, self._output, self._rows.shape[1])))

    def search(self, embedding: NDArray[np.float32]) -> Retrieval:
        """The best items for one embedding, best first.

        Parameters
        ----------
        embedding : ndarray of float32, shape (width,)
            Finite.

        Returns
        -------
        Retrieval
            `margin` is 0 where the gallery has one item, which has no second.
        """
        exact = embedding.astype(np.float64)
        norm = float(np.sqrt(np.square(exact).sum()))
        candidates = self._candidates(exact, norm)
        scores = self._score(candidates, exact, norm)
        # Candidates are in ascending order, so a stable sort leaves the lower index first among equals.
        order = np.argsort(-scores, kind="stable")[: self._wanted]
        best = scores[order].tolist()
        indices = candidates[order[: self.k]].tolist()
        return Retrieval(
            indices=tuple(indices),
            names=tuple(self.names[i] for i in indices),
            scores=tuple(best[: self.k]),
            margin=best[0] - best[1] if len(best) > 1 else 0.0,
            none_of_these=None if self.threshold is None else best[0] < self.threshold,
        )

    def _candidates(self, exact: NDArray[np.float64], norm: float) -> NDArray[np.intp]:
        """Rows that may be among the best, ascending."""
        n = len(self._rows)
        if norm == 0 or n == self._wanted:
            return np.arange(self._wanted)
        np.dot(self._scan, (exact / norm).astype(np.float32), out=self._rough)
        kth = np.partition(self._rough, n - self._wanted)[n - self._wanted]
        return np.flatnonzero(self._rough >= kth - self._slack)

    def _score(self, rows: NDArray[np.intp], exact: NDArray[np.float64], norm: float) -> NDArray[np.float64]:
        """Scores in float64. A row's sum runs along it alone, so that it does not depend on the rows beside it."""
        scores = np.empty(len(rows))
        for at in range(0, len(rows), _BLOCK):
            block = rows[at : at + _BLOCK]
            scores[at : at + _BLOCK] = np.multiply(self._rows[block], exact).sum(axis=1)
        if self.metric == "cosine":
            scores = np.divide(scores, self._norms[rows] * norm, out=np.zeros_like(scores), where=scores != 0)
        return scores


def _norms(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    norms = np.empty(len(rows))
    for at in range(0, len(rows), _BLOCK):
        norms[at : at + _BLOCK] = np.sqrt(np.square(rows[at : at + _BLOCK], dtype=np.float64).sum(axis=1))
    return norms


def _divide_rows(rows: NDArray[np.float32], scale: NDArray[np.float64]) -> NDArray[np.float32]:
    scaled = np.zeros_like(rows, order="C")
    for at in range(0, len(rows), _BLOCK):
        block = scale[at : at + _BLOCK, np.newaxis]
        np.divide(rows[at : at + _BLOCK], block, out=scaled[at : at + _BLOCK], where=block > 0, casting="same_kind")
    return scaled
