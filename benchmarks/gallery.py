"""What a search in the gallery costs, from 200 items to a million, paced: ours, and numpy's product with argpartition.

    python benchmarks/gallery.py --json gallery.json

Ours gives the order of float64 scores, whatever library multiplies (docs/engines.md); the line of numpy that a loop by
hand would have gives that of float32. Both on one thread. A million items of 768 numbers take 6 GB here.
"""

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accounts
import figures
import numpy as np
from numpy.typing import NDArray
from workload import TOP, WIDTH, gallery

from rtdecode.heads.retrieve import Retrieve

Search = Callable[[NDArray[np.float32]], object]
ITEMS = (200, 2_000, 20_000, 200_000, 1_000_000)


def timed(search: Search, queries: NDArray[np.float32], pause: float) -> dict[str, float]:
    """Milliseconds of each search, a pause before each, as between two windows."""
    times = []
    for query in queries:
        time.sleep(pause)
        began = time.perf_counter()
        search(query)
        times.append((time.perf_counter() - began) * 1e3)
    found: dict[str, float] = figures.quantiles(np.array(times))
    return found


def measure(items: int, searches: int, pause: float) -> dict[str, Any]:
    """Both ways on one gallery."""
    rows = gallery(items)
    ours = Retrieve(rows, [str(n) for n in range(items)], k=TOP)
    queries = np.random.default_rng(1).standard_normal((searches + 3, WIDTH), dtype=np.float32)

    def plain(query: NDArray[np.float32]) -> list[int]:
        scores = rows @ (query / np.linalg.norm(query))
        best = np.argpartition(scores, -TOP)[-TOP:]
        found: list[int] = best[np.argsort(-scores[best])].tolist()
        return found

    same = sum(list(ours.search(query).indices) == plain(query) for query in queries[:3])
    return {
        "items": items,
        "same_of_3": same,
        "ours_ms": timed(ours.search, queries[3:], pause),
        "numpy_ms": timed(plain, queries[3:], pause),
    }


def main() -> None:
    """Measure, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run: 200 items, 3 searches")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    machine = accounts.machine()
    sizes = ITEMS[:1] if options.quick else ITEMS
    rows = [measure(n, 3 if options.quick else 200 if n < 200_000 else 30, 0.02) for n in sizes]
    figures.save(options.json, {"benchmark": "gallery", "width": WIDTH, "top": TOP, "machine": machine, "rows": rows})


if __name__ == "__main__":
    main()
