"""How latency and CPU grow with the window, the hop, the channels and the rate; ours and the loop by hand, in turns.

    python benchmarks/scaling.py --what window --json scaling-window.json

`channels` also holds rates: up to 512 channels at 1 kHz are decoded whole here; what acquisition alone does, up to
1,024 channels at 30 kHz, is `wide.py`'s.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import accounts
import environments
import figures
from latency import account
from systems import run, systems
from workload import SIZES, Expected, Size, make

MEG = SIZES["meg306"]
#: What grows, and the sizes.
AXES: dict[str, list[Size]] = {
    "window": [dataclasses.replace(MEG, name=f"window{s:g}", length=s) for s in (0.25, 0.5, 1.0, 2.0)],
    "hop": [dataclasses.replace(MEG, name=f"hop{s:g}", hop=s) for s in (0.02, 0.05, 0.1, 0.2)],
    "channels": [
        dataclasses.replace(MEG, name=f"channels{n}x{rate}", channels=n, sfreq=float(rate), hop=0.1, chunk=rate // 100)
        for n, rate in ((32, 500), (64, 1000), (128, 1000), (306, 1000), (512, 1000))
    ],
}
SYSTEMS = ["rtdecode", "loop"]


def cell(size: Size, name: str, warmup: float, seconds: float) -> dict[str, Any]:
    """One system at one size."""
    place = make(size, environments.cache())
    with tempfile.TemporaryDirectory(prefix="rtb") as folder:
        taken = run(systems([name])[name], size, place, Path(folder), warmup=warmup, seconds=seconds)
    found: dict[str, Any] = account(taken, size, Expected(size, place), warmup, seconds)
    return found


def main() -> None:
    """Measure, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=AXES, default="window")
    parser.add_argument("--warmup", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=8.0, help="measured at each size")
    parser.add_argument("--prepare", action="store_true", help="make the workloads, and measure nothing")
    parser.add_argument("--quick", action="store_true", help="a smoke run: the first size, 2 s of rtdecode alone")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sizes, names = AXES[options.what], SYSTEMS
    if options.quick:
        sizes, names, options.warmup, options.seconds = sizes[:1], SYSTEMS[:1], 0.0, 2.0
    for size in sizes:
        make(size, environments.cache())
    if options.prepare:
        return
    machine = accounts.machine()
    rows = [
        {
            "size": {key: getattr(size, key) for key in ("name", "channels", "sfreq", "length", "hop", "chunk")},
            **{name: cell(size, name, options.warmup, options.seconds) for name in names},
        }
        for size in sizes
    ]
    report = {"benchmark": "scaling", "what": options.what, "seconds": options.seconds, "machine": machine}
    figures.save(options.json, {**report, "rows": rows})


if __name__ == "__main__":
    main()
