"""Each encoder of the zoo, on whole windows and while its samples come: latency, CPU time, arithmetic.

    python benchmarks/incremental.py --folder BUNDLES [--runs 15] [--out incremental.json] [NAME ...]

Bundles that are not in the folder yet are made first, with weights at random (`--make` does that alone, which takes
minutes). Sliding windows follow each other at their own hop; each marker-locked window is announced at its start.
Samples come in chunks of 10 ms, not paced: what is timed is the last chunk and the window's end, after a pause, in
which a live decoder's caches would cool down as well. The two engines take turns. CPU time is the process's, for all
that a window costs, its samples' share of the prefix among it.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.bundle import Bundle
from rtdecode.encode.engine import Engine
from rtdecode.encode.engines import make_engine
from rtdecode.encode.manifest import Split, Unsplit
from rtdecode.stream.window import Sliding
from rtdecode_models.zoo.bundle import untrained
from rtdecode_models.zoo.entry import Entry
from rtdecode_models.zoo.registry import entries

CHUNK_S, PAUSE_S = 0.01, 0.01


class Feed:
    """An engine with a stream of noise in front of it.

    Parameters
    ----------
    engine : Engine
        What is fed.
    bundle : Bundle
        Whose windows are cut.
    """

    def __init__(self, engine: Engine, bundle: Bundle) -> None:
        conditioner = bundle.conditioner()
        window = bundle.manifest.windows[0]
        self.length = window.n_samples(conditioner.sfreq)
        self.sliding = isinstance(window, Sliding)
        self.hop = round(window.step(conditioner.sfreq)) if isinstance(window, Sliding) else self.length
        self.chunk = max(1, round(CHUNK_S * conditioner.sfreq))
        self._engine = engine
        windows = bundle.array(bundle.manifest.golden.windows)
        self._samples: NDArray[np.float32] = np.concatenate([*windows, *windows])
        self._at = 0
        engine.restart(0)

    def window(self) -> tuple[float, float]:
        """Seconds of the last chunk and the window's end, and CPU seconds of the whole window."""
        start = self._at if not self.sliding else max(0, self._at - self.length + self.hop)
        stop = start + self.length
        if stop > len(self._samples):
            self._at = 0
            self._engine.restart(0)
            return self.window()
        cpu = time.process_time()
        if not self.sliding:
            self._engine.begin(start, self._samples[:0])
        while self._at + self.chunk < stop:
            self._push(self._at + self.chunk)
        cpu = time.process_time() - cpu
        time.sleep(PAUSE_S)
        began, more = time.perf_counter(), time.process_time()
        self._push(stop)
        self._engine.finish(self._samples[start:stop], start)
        return time.perf_counter() - began, cpu + time.process_time() - more

    def _push(self, stop: int) -> None:
        self._engine.advance(self._samples[self._at : stop], self._at)
        self._at = stop


def timed(bundle: Bundle, threads: int, runs: int) -> dict[str, Any]:
    """Both engines, in turns."""
    whole = Feed(make_engine(bundle, threads=threads, incremental="off"), bundle)
    split = bundle.manifest.encoder.incremental
    feeds = {"whole": whole}
    if isinstance(split, Split):
        feeds["incremental"] = Feed(make_engine(bundle, threads=threads), bundle)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in feeds}
    for run in range(runs + 2):
        for name, feed in feeds.items():
            taken = feed.window()
            if run >= 2:
                found[name].append(taken)
    return {name: figures(taken) for name, taken in found.items()}


def figures(taken: list[tuple[float, float]]) -> dict[str, float]:
    latency, cpu = (1000 * np.array(values) for values in zip(*taken, strict=True))
    return {
        "p50_ms": round(float(np.median(latency)), 4),
        "p90_ms": round(float(np.quantile(latency, 0.9)), 4),
        "cpu_ms_per_window": round(float(np.mean(cpu)), 4),
    }


def row(entry: Entry, path: Path, runs: int) -> dict[str, Any]:
    bundle = Bundle.open(path)
    split = bundle.manifest.encoder.incremental
    found: dict[str, Any] = {"name": entry.name, "window": type(entry.window).__name__.lower()}
    if isinstance(split, Split):
        found |= {"share": split.share, "at_finish": split.at_finish, "per_window": split.per_window}
        found |= {"block": split.block, "stride": split.stride}
    elif isinstance(split, Unsplit):
        found |= {"reason": split.reason}
    return found | timed(bundle, entry.threads, runs if isinstance(split, Split) else 3)


def make(entry: Entry, folder: Path, say: Callable[[str], None]) -> Path:
    path = folder / f"{entry.name}.zip"
    if not path.exists():
        say(f"making {entry.name}")
        untrained(entry, path)
    return path


def machine() -> dict[str, str | int | None]:
    import onnxruntime

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {"cpu": cpu, "cores": os.cpu_count(), "system": platform.system(), "onnxruntime": onnxruntime.__version__}


def show(one: dict[str, Any]) -> str:
    whole = one["whole"]
    text = f"{one['name']:24} whole {whole['p50_ms']:9.3f} ms, CPU {whole['cpu_ms_per_window']:9.3f} ms"
    if "incremental" not in one:
        return f"{text}   {one.get('reason', '')}"
    split = one["incremental"]
    gain = whole["p50_ms"] / split["p50_ms"]
    return f"{text}   incremental {split['p50_ms']:8.3f} ms ({gain:5.1f} x), CPU {split['cpu_ms_per_window']:9.3f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="systems of the zoo; all of them if none is named")
    parser.add_argument("--folder", type=Path, required=True, help="where the bundles are, or go")
    parser.add_argument("--runs", type=int, default=15, help="windows that are timed")
    parser.add_argument("--make", action="store_true", help="make the bundles, and time nothing")
    parser.add_argument("--out", type=Path, help="JSON")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    chosen = [entry for entry in entries() if not given.names or entry.name in given.names]
    places = {entry.name: make(entry, given.folder, print) for entry in chosen}
    if given.make:
        return
    rows = []
    for entry in chosen:
        rows.append(row(entry, places[entry.name], given.runs))
        print(show(rows[-1]), flush=True)
    if given.out is not None:
        given.out.write_text(
            json.dumps(
                {"benchmark": "incremental", "machine": machine(), "runs": given.runs, "encoders": rows}, indent=1
            )
            + "\n"
        )


if __name__ == "__main__":
    main()
