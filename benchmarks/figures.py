"""Quantiles, bootstrap intervals, and results kept as JSON that later runs add to."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = (50.0, 95.0, 99.0, 99.9)
RESULTS = Path(__file__).resolve().parent / "results"


def quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    """p50, p95, p99, p99.9 and the largest; NaN of nothing."""
    if not len(values):
        return {**{f"p{q:g}": float("nan") for q in QUANTILES}, "max": float("nan")}
    return {**{f"p{q:g}": round(float(np.percentile(values, q)), 4) for q in QUANTILES}, "max": round(values.max(), 4)}


def interval(repeats: Sequence[float]) -> tuple[float, float]:
    """Where 95 of 100 means of as many repeats, drawn with replacement, lie (percentile bootstrap, Efron 1979)."""
    values = np.asarray(repeats, np.float64)
    drawn = np.random.default_rng(0).choice(values, (4000, len(values))).mean(axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return round(float(low), 4), round(float(high), 4)


def save(path: Path | None, report: Mapping[str, Any]) -> None:
    """Print a report, and write it to a file where one is given."""
    text = json.dumps(report, indent=1)
    print(text)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def load(path: Path | None) -> dict[str, Any]:
    """A report that was saved; nothing where there is none."""
    if path is None or not path.exists():
        return {}
    report: dict[str, Any] = json.loads(path.read_text())
    return report
