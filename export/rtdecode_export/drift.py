"""How far an exported graph is from the network: each output, and what the heads make of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.consistency import MAX_TOLERANCE
from rtdecode.encode.manifest import ClassifyHead, HeadSpec, RetrieveHead

Floats = NDArray[np.float32]


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """One output against PyTorch's in float32, on the same windows.

    Parameters
    ----------
    output : str
        Its name.
    how : str
        What computed it.
    windows : int
        How many were compared.
    max_abs : float
        Largest absolute difference.
    share : float
        The same as a share of the largest magnitude that PyTorch gives: the unit of golden tolerances.
    worst_window : int
        Where it is, among the windows that were given.
    cosine_min, cosine_mean : float
        Cosine between the two outputs of a window.
    top1, top5 : float or None
        Share of windows whose first choice is the same, and of those whose first choice in float32 is among the first
        five. None for outputs that choose nothing, top5 also for those that choose among five or fewer.
    accuracy, accuracy_fp32 : float or None
        Share of windows whose first choice is right, here and in float32; None where no labels are known.
    """

    output: str
    how: str
    windows: int
    max_abs: float
    share: float
    worst_window: int
    cosine_min: float
    cosine_mean: float
    top1: float | None = None
    top5: float | None = None
    accuracy: float | None = None
    accuracy_fp32: float | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a precision may cost: a share of the largest value, a cosine, and a share of equal first choices."""

    share: float
    cosine: float
    top1: float


#: A variant beyond these is refused unless it is asked for all the same. The share caps golden tolerances too.
LIMITS: Final[Mapping[str, Limits]] = {
    "fp16": Limits(share=0.01, cosine=0.9999, top1=0.99),
    "bf16": Limits(share=0.05, cosine=0.998, top1=0.97),
    "int8": Limits(share=0.25, cosine=0.97, top1=0.9),
}

#: Golden tolerances are never tighter than this: other kernels accumulate in another order and width.
FLOORS: Final[Mapping[str, float]] = {"fp16": 2e-3, "bf16": 1e-2, "int8": 2e-2}

#: What was measured on all windows, times this, is allowed on the golden ones on another machine.
MARGIN: Final = 2.0


def measure(
    expected: Mapping[str, Floats],
    given: Mapping[str, Floats],
    rows: NDArray[np.int64],
    how: str,
    heads: Sequence[HeadSpec],
    galleries: Mapping[str, NDArray[Any]],
    labels: Mapping[str, NDArray[np.int64]],
) -> tuple[Drift, ...]:
    """Compare outputs with PyTorch's.

    Parameters
    ----------
    expected : mapping of str to ndarray, shape (n, ...)
        Output name -> PyTorch's, of all windows.
    given : mapping of str to ndarray, shape (len(rows), ...)
        Output name -> the graph's, of the windows at `rows`.
    rows : ndarray of int64
        Which windows were run.
    how : str
        What ran them, for the report.
    heads : sequence of HeadSpec
        What outputs are for.
    galleries : mapping of str to ndarray, shape (items, width)
        File name -> embeddings, for retrieval heads.
    labels : mapping of str to ndarray of int64, shape (n,)
        Output name -> right choice of each window: a row of the gallery or a place among a classifier's labels; -1
        where it is unknown.
    """
    chosen = {head.output: head for head in heads}
    drifts = []
    for name, value in given.items():
        one, other = (a.astype(np.float64).reshape(len(rows), -1) for a in (expected[name][rows], value))
        errors = np.abs(one - other).max(axis=1)
        scale = float(np.abs(one).max()) or 1.0
        cosines = _cosines(one, other)
        drifts.append(
            Drift(
                output=name,
                how=how,
                windows=len(rows),
                max_abs=float(errors.max()),
                share=float(errors.max()) / scale,
                worst_window=int(rows[errors.argmax()]),
                cosine_min=float(cosines.min()),
                cosine_mean=float(cosines.mean()),
                **_choices(one, other, chosen.get(name), galleries, labels[name][rows] if name in labels else None),
            )
        )
    return tuple(drifts)


def crossed(drift: Drift, limits: Limits) -> list[str]:
    """What of a drift is beyond the limits, in words. One window may always choose otherwise: there are ties."""
    said = []
    if not drift.share <= limits.share:
        said.append(f"off by {drift.share:.3g} of the largest value (at most {limits.share:g})")
    if not drift.cosine_min >= limits.cosine:
        said.append(f"cosine {drift.cosine_min:.5f} on the worst window (at least {limits.cosine:g})")
    if drift.top1 is not None and (1 - drift.top1) * drift.windows > max(1.0, (1 - limits.top1) * drift.windows) + 1e-9:
        said.append(f"the same first choice in {drift.top1:.3f} of the windows (at least {limits.top1:g})")
    return [f"{drift.output}: {words}" for words in said]


def golden_tolerance(precision: str, drifts: Sequence[Drift], at_least: float) -> float:
    """The tolerance of a bundle's golden windows, as a share of the largest value.

    Parameters
    ----------
    precision : str
        Of the encoder.
    drifts : sequence of Drift
        All that was measured.
    at_least : float
        The tolerance that was asked for in fp32, which is used as it is there.
    """
    if precision == "fp32":
        return at_least
    worst = max(drift.share for drift in drifts)
    wanted = max(MARGIN * worst, FLOORS[precision], at_least)
    cap = LIMITS[precision].share
    return min(wanted, MAX_TOLERANCE if worst > cap else cap)


def _choices(
    one: NDArray[np.float64],
    other: NDArray[np.float64],
    head: HeadSpec | None,
    galleries: Mapping[str, NDArray[Any]],
    labels: NDArray[np.int64] | None,
) -> dict[str, float]:
    if isinstance(head, RetrieveHead):
        gallery = galleries[head.embeddings].astype(np.float64)
        if head.metric == "cosine":
            gallery, one, other = _unit(gallery), _unit(one), _unit(other)
        one, other = one @ gallery.T, other @ gallery.T
    elif not isinstance(head, ClassifyHead):
        return {}
    first, first_here = one.argmax(axis=1), other.argmax(axis=1)
    found = {"top1": float((first == first_here).mean())}
    if one.shape[1] > 5:
        five = np.argpartition(-other, 5, axis=1)[:, :5]
        found["top5"] = float((five == first[:, None]).any(axis=1).mean())
    if labels is not None and (known := labels >= 0).any():
        found["accuracy"] = float((first_here == labels)[known].mean())
        found["accuracy_fp32"] = float((first == labels)[known].mean())
    return found


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(float).tiny)
    return unit


def _cosines(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    same = (one == other).all(axis=1)  # also where both are zero
    cosines: NDArray[np.float64] = np.where(same, 1.0, np.vecdot(_unit(one), _unit(other)))
    return cosines
