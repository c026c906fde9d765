"""Whether anything grows with the length of a session: CPU time of each minute's chunks and windows, and memory.

    python benchmarks/history.py --minutes 10 --json history.json

The decoder of the smaller workload is given ten minutes of chunks of 20 ms as fast as it takes them, in this process.
"""

import argparse
import resource
import time
from pathlib import Path
from typing import Any

import accounts
import environments
import figures
import numpy as np
from workload import SIZES, make

from rtdecode.decoder import Decoder
from rtdecode.encode.bundle import Bundle
from rtdecode.encode.engines import make_engine
from rtdecode.signal import Channel, Chunk, StreamInfo


def measure(minutes: int, seconds: float) -> list[dict[str, Any]]:
    """CPU of so many pieces of so many seconds of the stream, and the resident set after each."""
    size = SIZES["eeg64"]
    place = make(size, environments.cache())
    bundle = Bundle.open(place / "incremental")
    info = StreamInfo(tuple(Channel(label, size.kind, size.si) for label in size.labels), size.sfreq)
    decoder = Decoder.from_bundle(bundle, info, make_engine(bundle))
    period = (np.load(place / "signal.npy") * size.factor).astype(np.float32)
    chunk = round(0.02 * size.sfreq)
    rows, index = [], 0
    for minute in range(minutes):
        began, windows = time.process_time(), 0
        for _ in range(round(seconds * size.sfreq) // chunk):
            at = index % len(period)
            stamps = (index + np.arange(chunk)) / size.sfreq
            windows += len(decoder.push(Chunk(period[at : at + chunk], stamps, index)))
            index += chunk
        cpu = time.process_time() - began
        resident = Path("/proc/self/statm").read_text().split()[1]
        rows.append(
            {
                "minute": minute + 1,
                "seconds": seconds,
                "cpu_s": round(cpu, 4),
                "windows": windows,
                "resident_mib": round(int(resident) * resource.getpagesize() / 2**20, 1),
            }
        )
    return rows


def main() -> None:
    """Measure, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="a smoke run: two minutes of five seconds")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    machine = accounts.machine()
    rows = measure(2 if options.quick else options.minutes, 5.0 if options.quick else 60.0)
    first, last = rows[0]["cpu_s"], rows[-1]["cpu_s"]
    report = {"benchmark": "history", "machine": machine, "minutes": rows, "last_of_first": round(last / first, 3)}
    figures.save(options.json, report)


if __name__ == "__main__":
    main()
