"""How long until READY, and what importing costs: ours beside the peers, in turns, on the smaller workload.

    python benchmarks/startup.py --json startup.json

The stream is there already. Of a first start nothing is said: files are in the page cache from the first turn on.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import accounts
import environments
import figures
from systems import sending, systems
from workload import SIZES, make

NAMES = ("rtdecode", "loop", "ezmsg", "mne-lsl", "timeflux, rate 0, sleep 0.5 ms")
#: What is imported, in whose environment (ours where none).
IMPORTS = {
    "python alone": (None, "pass"),
    "rtdecode.daemon.decode": (None, "import rtdecode.daemon.decode"),
    "rtdecode.daemon.acquire": (None, "import rtdecode.daemon.acquire"),
    "pylsl, scipy.signal, onnxruntime": ("pylsl", "import pylsl, scipy.signal, onnxruntime"),
    "ezmsg": ("ezmsg", "import ezmsg.core, ezmsg.lsl.inlet, ezmsg.sigproc.butterworthfilter, ezmsg.sigproc.window"),
    "mne_lsl.stream": ("mne-lsl", "import mne_lsl.stream"),
    "timeflux": ("timeflux", "import timeflux.timeflux, timeflux_dsp.nodes.filters"),
}


def ready_s(name: str) -> float:
    """Seconds from starting a system to its READY (for ours: the session's and its subscriber's)."""
    size = SIZES["eeg64"]
    place = make(size, environments.cache())
    with tempfile.TemporaryDirectory(prefix="rtb") as folder, ExitStack() as stack:
        job, _ = sending(size, place, Path(folder), 1, stack)
        system = systems([name])[name]
        began = time.perf_counter()
        system.start(job, stack)
        return time.perf_counter() - began


def import_s(environment: str | None, code: str) -> float:
    """Seconds for a fresh interpreter to run this."""
    python = sys.executable if environment is None else str(environments.python_of(environment))
    env = {"PATH": "/usr/bin:/bin", "HOME": str(Path.home())}
    if environment == "timeflux":
        env["PYLSL_LIB"] = str(environments.liblsl())
    began = time.perf_counter()
    subprocess.run([python, "-c", code], check=True, env=env)
    return time.perf_counter() - began


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    table = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {key: round(value, 3) for key, value in table.items()}


def main() -> None:
    """Measure, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a smoke run: rtdecode once")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names, imports = list(NAMES), dict(IMPORTS)
    if options.quick:
        options.repeats, names = 1, names[:1]
        imports = {key: value for key, value in imports.items() if value[0] is None}
    machine = accounts.machine()
    ready: dict[str, list[float]] = {name: [] for name in names}
    imported: dict[str, list[float]] = {name: [] for name in imports}
    for _ in range(options.repeats):
        for name in names:
            ready[name].append(ready_s(name))
        for name, (environment, code) in imports.items():
            imported[name].append(import_s(environment, code))
    report: dict[str, Any] = {
        "benchmark": "startup",
        "machine": machine,
        "repeats": options.repeats,
        "ready_s": {name: spread(values) for name, values in ready.items()},
        "import_s": {name: spread(values) for name, values in imported.items()},
    }
    figures.save(options.json, report)


if __name__ == "__main__":
    main()
