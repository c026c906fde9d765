"""Latency beside the peers: one workload, every system, interleaved repeats, paced as in real use.

    python benchmarks/latency.py --size meg306 --repeats 3 --json latency-meg306.json

In each repeat every system runs once, one after the other, with a sender of its own. Latency is from the stamp of a
window's newest sample to its best 5 in hand: in the program itself for the peers, in a subscriber in another process
for rtdecode. Whether they are the right 5 is checked on some windows of each run. With `--add` the repeats are added to
those in the file, so that a long measurement can be made in pieces.
"""

import argparse
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import accounts
import environments
import figures
import numpy as np
from numpy.typing import NDArray
from systems import System, Taken, run, systems
from workload import SIZES, Expected, Size, make

#: Windows of a run whose results are checked.
CHECKED = 8
#: From one moment of a ledger to the next.
STAGES = ("to acquire", "to decode", "conditioned", "encoded", "published", "in hand")
#: Systems that are left out unless they are named: other settings of timeflux, slower or of a whole core.
EXTRA = ("timeflux, rate 0", "timeflux, rate 100")


def account(taken: Taken, size: Size, expected: Expected, warmup: float, seconds: float) -> dict[str, Any]:
    """What one run of one system on one stream comes to.

    `missed`: windows that became due in the measured time, less those that came.
    """
    records, zero = taken.records[0], taken.zero[0]
    newest, latency = placed(records, zero, size)
    began = round((size.length + warmup) * size.sfreq)
    ends = began + round(seconds * size.sfreq)
    inside = (newest >= began) & (newest < ends)
    due = len([n for n in range(size.n_times - 1, ends, round(size.hop * size.sfreq)) if n >= began])
    chosen = np.flatnonzero(inside)[:: max(1, int(inside.sum()) // CHECKED)][:CHECKED]
    checks = [expected.agrees(int(newest[k]), records["items"][k], records["scores"][k]) for k in chosen]
    return {
        "latency_ms": figures.quantiles(latency[inside]),
        "windows": int(inside.sum()),
        "missed": max(0, due - int(inside.sum())),
        "cpu_s": round(taken.cpu_s, 2),
        "subscriber_cpu_s": round(taken.listeners_cpu_s, 2),
        "peak_mib": round(taken.peak_mib),
        "subscriber_peak_mib": round(taken.listeners_peak_mib),
        "checked": len(checks),
        "right": sum(same for same, _ in checks),
        "score_error": max((off for _, off in checks), default=0.0),
        "sender_late_ms": taken.sender,
        **stages(taken, zero + began / size.sfreq, zero + ends / size.sfreq),
    }


def stages(taken: Taken, begin: float, end: float) -> dict[str, dict[str, float]]:
    """Where the time of windows stamped in between went, by their ledgers: medians in ms; nothing of a peer."""
    ledger = taken.ledgers[0]
    ledger = ledger[(ledger[:, 0] >= begin) & (ledger[:, 0] < end)]
    if not len(ledger):
        return {}
    return {"stages_p50_ms": dict(zip(STAGES, np.median(np.diff(ledger) * 1e3, axis=0).round(4).tolist(), strict=True))}


def placed(records: NDArray[Any], zero: float, size: Size) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Index of each record's newest sample, and its latency in milliseconds from when that sample was sent."""
    newest = np.rint((records["stamp"] - zero) * size.sfreq).astype(np.int64)
    return newest, (records["at"] - zero - newest / size.sfreq) * 1e3


def once(
    every: Sequence[System], size: Size, place: Path, expected: Expected, warmup: float, seconds: float
) -> dict[str, Any]:
    """One repeat: each system once."""
    done = {}
    for system in every:
        with tempfile.TemporaryDirectory(prefix="rtb") as folder:
            taken = run(system, size, place, Path(folder), warmup=warmup, seconds=seconds)
        done[system.name] = account(taken, size, expected, warmup, seconds)
    return done


def summary(repeats: Sequence[dict[str, Any]], baseline: str) -> dict[str, Any]:
    """Means over repeats with their intervals, and ratios to the baseline within each repeat."""
    table = {}
    for name in dict.fromkeys(itertools.chain.from_iterable(repeats)):
        rows = [repeat[name] for repeat in repeats if name in repeat]
        lines = {f"{q}_ms": [row["latency_ms"][q] for row in rows] for q in ("p50", "p95", "p99", "p99.9", "max")}
        lines["cpu_s"] = [row["cpu_s"] for row in rows]
        lines["cpu_with_subscriber_s"] = [row["cpu_s"] + row["subscriber_cpu_s"] for row in rows]
        pairs = [(repeat[baseline], repeat[name]) for repeat in repeats if name in repeat and baseline in repeat]
        for q in ("p50", "p99"):
            lines[f"{q}_of_{baseline}"] = [mine["latency_ms"][q] / theirs["latency_ms"][q] for theirs, mine in pairs]
        lines[f"cpu_of_{baseline}"] = [
            (mine["cpu_s"] + mine["subscriber_cpu_s"]) / theirs["cpu_s"] for theirs, mine in pairs if theirs["cpu_s"]
        ]
        table[name] = {
            **{
                key: {"mean": round(float(np.mean(values)), 4), "interval": figures.interval(values)}
                for key, values in lines.items()
                if values
            },
            "repeats": len(rows),
            "peak_mib": max(row["peak_mib"] + row["subscriber_peak_mib"] for row in rows),
            **{key: sum(row[key] for row in rows) for key in ("windows", "missed", "checked", "right")},
            "score_error": max(row["score_error"] for row in rows),
        }
    return table


def main() -> None:
    """Measure, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="eeg64")
    parser.add_argument("--systems", nargs="*", help="names, in quotes; all but the extra ones where not given")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warmup", type=float, default=3.0)
    parser.add_argument("--seconds", type=float, default=15.0, help="measured in each run")
    parser.add_argument("--quick", action="store_true", help="a smoke run: 2 s of rtdecode alone")
    parser.add_argument("--add", action="store_true", help="add the repeats to those in the file")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.warmup, options.seconds, options.systems = 1, 0.0, 2.0, ["rtdecode"]
    machine = accounts.machine()
    size = SIZES[options.size]
    place = make(size, environments.cache())
    expected = Expected(size, place)
    known = systems(options.systems)
    chosen = [known[name] for name in options.systems or [name for name in known if name not in EXTRA]]
    repeats = figures.load(options.json).get("repeats", []) if options.add else []
    for _ in range(options.repeats):
        repeats.append(once(chosen, size, place, expected, options.warmup, options.seconds))
        figures.save(
            options.json,
            {
                "benchmark": "latency",
                "size": {"name": size.name, "channels": size.channels, "sfreq": size.sfreq}
                | {
                    "length_s": size.length,
                    "hop_s": size.hop,
                    "chunk": size.chunk,
                    "items": size.items,
                    "form": size.form,
                },
                "warmup_s": options.warmup,
                "seconds": options.seconds,
                "machine": machine,
                "versions": {system.name: dict(system.versions) for system in chosen},
                "summary": summary(repeats, "loop"),
                "repeats": repeats,
            },
        )


if __name__ == "__main__":
    main()
