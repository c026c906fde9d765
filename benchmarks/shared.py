"""Several pipelines on one stream in one process: what a window costs with one prefix for all, and with one for each.

    python benchmarks/shared.py [--size meg306] [--pipelines 1 2 4] [--seconds 5] [--repeats 5] [--json FILE]

The decoders of the daemon, without its processes, fed the workload's chunks in turns, not paced. Both ways take turns
as well. What is given is CPU time of the process for each window of a pipeline: the median over the repeats, and of
that what conditioning takes, which each does by itself.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np
from accounts import machine
from environments import cache
from numpy.typing import NDArray
from workload import SIZES, make, signal

from rtdecode.decoder import Decoder
from rtdecode.encode.bundle import Bundle
from rtdecode.encode.engines import make_engine
from rtdecode.encode.incremental import IncrementalEngine
from rtdecode.encode.prefix_pool import Company, PrefixPool
from rtdecode.signal import Channel, Chunk, StreamInfo


class Pipelines:
    """Decoders of one bundle on one stream.

    Parameters
    ----------
    bundle : Bundle
        What they decode with.
    n : int
        How many.
    shared : bool
        Whether they look for each other.
    """

    def __init__(self, bundle: Bundle, n: int, *, shared: bool) -> None:
        pool, contract = PrefixPool(), bundle.manifest.contract
        company = [Company(pool, "the stream" if shared else str(k), str(k)) for k in range(n)]
        self.engines = [make_engine(bundle, company=one) for one in company]
        channels = tuple(Channel(one.name, one.type, one.unit) for one in contract.channels)
        info = StreamInfo(channels, contract.sfreq, "the workload")
        self._decoders = [Decoder.from_bundle(bundle, info, engine) for engine in self.engines]
        self._conditioning = 0.0
        for decoder in self._decoders:
            self._clock(decoder)
        self._at = 0

    def _clock(self, decoder: Decoder) -> None:
        push = decoder.conditioner.push

        def timed(samples: NDArray[np.float32]) -> NDArray[np.float32]:
            began = time.process_time()
            out = push(samples)
            self._conditioning += time.process_time() - began
            return out

        setattr(decoder.conditioner, "push", timed)  # noqa: B010  a method is replaced

    def play(self, samples: NDArray[np.float32], chunk: int, sfreq: float) -> tuple[float, float]:
        """CPU seconds for each window of a pipeline, and of those for conditioning."""
        windows, self._conditioning, began = 0, 0.0, time.process_time()
        for at in range(0, len(samples), chunk):
            rows = samples[at : at + chunk]
            stamps = (self._at + np.arange(len(rows))) / sfreq
            for decoder in self._decoders:
                windows += len(decoder.push(Chunk(rows, stamps, self._at), (), np.inf))
            self._at += len(rows)
        return (time.process_time() - began) / windows, self._conditioning / windows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="meg306")
    parser.add_argument("--pipelines", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=cache() / "workload")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    size = SIZES[given.size]
    bundle = Bundle.open(make(size, given.folder) / "incremental")
    samples = (signal(size)[: round(given.seconds * size.sfreq)] * size.factor).astype(np.float32)
    ways = {(n, shared): Pipelines(bundle, n, shared=shared) for n in given.pipelines for shared in (False, True)}
    found: dict[tuple[int, bool], list[tuple[float, float]]] = {way: [] for way in ways}
    for repeat in range(given.repeats + 1):
        for way, pipelines in ways.items():
            taken = pipelines.play(samples, size.chunk, size.sfreq)
            if repeat:
                found[way].append(taken)
    rows: list[dict[str, Any]] = []
    for (n, shared), repeats in found.items():
        engines = [one for one in ways[n, shared].engines if isinstance(one, IncrementalEngine)]
        cpu, conditioning = (1e3 * float(np.median(values)) for values in zip(*repeats, strict=True))
        share = sum(int(one.sharing()["prefix_samples_run"]) for one in engines) / (n * ways[n, shared]._at)
        rows.append({"pipelines": n, "shared": shared, "cpu_ms": cpu, "conditioning_ms": conditioning, "run": share})
        print(f"{n} {'shared' if shared else 'each   '} {cpu:7.3f} ms a window, {conditioning:.3f} of it conditioning")
    if given.json:
        report = {"benchmark": "shared", "size": size.name, "machine": machine(), "rows": rows}
        given.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
