"""Stamp errors, side by side in one run: liblsl's dejitter, liblsl's clock correction alone, and rtdecode's clock.

A sender in a process of its own pushes 250 samples a second over LSL's loopback and numbers each in a channel, so
that its true time is known. After `--before` seconds one second of samples is lost upstream. All inlets listen at once;
the table gives the error of each one's stamps from the first sample behind the hole on. Two scenarios: stamps that are
true, and stamps with +/-4 ms of uniform jitter.

Without a sender: jitter of a simulated stream, and with `--xdf` a recording whose bursts of 40 samples are stamped on
arrival (EEGLAB's sample `test.xdf`) against the straight line fitted to all of it.

    python benchmarks/stamps.py --json
    python benchmarks/stamps.py --xdf test.xdf
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.clock.stream_clock import StreamClock

SFREQ, LOST_S, JITTER_S = 250.0, 1.0, 4e-3
AFTER_S = (0.0, 0.1, 1.0, 5.0, 10.0, 30.0)

SENDER = """
import sys, time
import numpy as np
import pylsl
name, sfreq, before, lost, jitter, seconds = sys.argv[1], *map(float, sys.argv[2:])
info = pylsl.StreamInfo(name, "EEG", 2, sfreq, "float32", name)
channels = info.desc().append_child("channels")
for label in ("number", "zero"):
    channel = channels.append_child("channel")
    for key, value in (("label", label), ("type", "EEG"), ("unit", "V")):
        channel.append_child_value(key, value)
outlet = pylsl.StreamOutlet(info)
while not outlet.have_consumers():
    time.sleep(0.05)
time.sleep(2.0)  # so that all three have subscribed
start = pylsl.local_clock() + 0.5
print(repr(start), flush=True)
rng = np.random.default_rng(0)
for n in range(int(seconds * sfreq)):
    true = start + n / sfreq
    stamp = true + jitter * rng.uniform(-1, 1)
    wait = true + jitter - pylsl.local_clock()
    if wait > 0:
        time.sleep(wait)
    if not before <= n / sfreq < before + lost:
        outlet.push_sample([float(n), 0.0], stamp)
time.sleep(2.0)
"""


class Inlet(threading.Thread):
    """One of liblsl's own inlets, with some of its processing."""

    def __init__(self, name: str, flags: int) -> None:
        super().__init__(daemon=True)
        import pylsl

        (info,) = pylsl.resolve_byprop("name", name, 1, 20)
        self.inlet = pylsl.StreamInlet(info, processing_flags=flags)
        self.inlet.open_stream(20)
        self.inlet.time_correction(5)
        self.done = threading.Event()
        self.got: list[tuple[float, float]] = []

    def run(self) -> None:
        """Pull until told to end."""
        while not self.done.is_set():
            rows, stamps = self.inlet.pull_chunk(timeout=0.1)
            self.got += [(row[0], stamp) for row, stamp in zip(rows, stamps, strict=True)]


def live(jitter: float, before: float, config: Path) -> dict[str, Any]:
    """One scenario: errors in seconds by method, and of the stamps as they were sent."""
    import pylsl

    from rtdecode.sources.lsl import LslSource

    name = f"stamps-{uuid.uuid4().hex[:8]}"
    seconds = before + LOST_S + AFTER_S[-1] + 1.0
    arguments = [name, *map(str, (SFREQ, before, LOST_S, jitter, seconds))]
    command = [sys.executable, "-c", SENDER, *arguments]
    ours: list[tuple[float, float]] = []
    uncertainty: list[tuple[float, float]] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "LSLAPICFG": str(config)}
    ) as sender:
        assert sender.stdout is not None
        source = LslSource(name=name, timeout_s=20, end_when_lost=True)
        inlets = {
            "liblsl dejitter": Inlet(name, pylsl.proc_ALL),
            "liblsl clock sync": Inlet(name, pylsl.proc_clocksync),
            "as sent": Inlet(name, 0),
        }
        with source:
            for inlet in inlets.values():
                inlet.start()
            start = float(sender.stdout.readline())
            while (batch := source.read(1.0)) is not None:
                if batch.chunk is not None:
                    numbers = batch.chunk.samples[:, 0].tolist()
                    ours += list(zip(numbers, batch.chunk.stamps.tolist(), strict=True))
                    uncertainty += [(number, batch.chunk.uncertainty) for number in numbers]
        for inlet in inlets.values():
            inlet.done.set()
            inlet.join()
    methods = {**{label: inlet.got for label, inlet in inlets.items()}, "rtdecode": ours}
    return {
        "jitter_ms": jitter * 1e3,
        "lost_s": LOST_S,
        "error_ms": {label: _errors(got, start, before) for label, got in methods.items()},
        "uncertainty_ms": _errors([(n, start + n / SFREQ + u) for n, u in uncertainty], start, before),
    }


def _errors(got: list[tuple[float, float]], start: float, before: float) -> dict[str, float]:
    numbers, stamps = np.array(got, np.float64).T
    error = (stamps - start - numbers / SFREQ) * 1e3
    first = (before + LOST_S) * SFREQ
    at = {f"+{s:g} s": float(error[np.flatnonzero(numbers >= first + s * SFREQ)[0]]) for s in AFTER_S}
    behind = error[numbers >= first]
    return {**at, "worst": float(np.abs(behind).max()), "r.m.s.": float(np.sqrt(np.mean(behind**2)))}


def fed(clock: StreamClock, stamps: NDArray[np.float64], pull: int) -> NDArray[np.float64]:
    """What the clock makes of these stamps, pull by pull."""
    parts = [clock.stamped(stamps[k : k + pull]) for k in range(0, len(stamps), pull)]
    return np.concatenate([piece.stamps for pieces in parts for piece in pieces])


def simulated(pull: int = 10, seconds: int = 60) -> dict[str, Any]:
    """A simulated stream with jitter: r.m.s. error of single seconds, and what a pull costs."""
    index = np.arange(round(seconds * SFREQ))
    true = 1000 + index / SFREQ
    ratio = []
    for seed in range(20):
        stamps = true + JITTER_S * np.random.default_rng(seed).uniform(-1, 1, len(index))
        error = (fed(StreamClock(SFREQ), stamps, pull) - true).reshape(seconds, -1)
        ratio.append((stamps - true).std() / np.sqrt((error**2).mean(axis=1)))
    table = np.array(ratio)
    began = time.process_time()
    fed(StreamClock(1000.0), 1000 + np.arange(60_000) / 1000, 10)
    spent = time.process_time() - began
    falls = {
        f"second {k}": {"median": float(np.median(table[:, k])), "least": float(table[:, k].min())}
        for k in (0, 4, 9, 59)
    }
    return {"r.m.s. falls by the factor": falls, "cpu_us_per_pull_of_10": spent / 6000 * 1e6}


def recorded(path: Path, pull: int) -> dict[str, Any]:
    """The first regular stream of a recording, against the straight line through all of it."""
    import pyxdf

    streams = pyxdf.load_xdf(str(path), synchronize_clocks=False, dejitter_timestamps=False, verbose=False)[0]
    stream = next(one for one in streams if float(one["info"]["nominal_srate"][0]) > 0)
    stamps = np.asarray(stream["time_stamps"], np.float64)
    clock = StreamClock(float(stream["info"]["nominal_srate"][0]))
    given = fed(clock, stamps, pull)
    index = np.arange(len(stamps))
    line = np.polyval(np.polyfit(index, stamps - stamps[0], 1), index) + stamps[0]
    before, after = np.diff(stamps).std(), np.diff(given).std()
    error = (given - line) * 1e3
    return {
        "pull": pull,
        "segments": clock.segment + 1,
        "sd_of_differences_ms": {"sent": before * 1e3, "given": after * 1e3, "factor": before / after},
        "against_the_offline_fit_ms": {
            "r.m.s. sent": float((stamps - line).std() * 1e3),
            "r.m.s.": float(np.sqrt((error**2).mean())),
            "bias": float(error.mean()),
            "r.m.s. behind 5 s": float(np.sqrt((error[5 * len(error) // 10 :] ** 2).mean())),
        },
        "rate_hz": 1 / clock.period,
    }


def _print(results: dict[str, Any]) -> None:
    for one in results["live"]:
        print(f"\none second lost, jitter +/-{one['jitter_ms']:g} ms: stamp error (ms) at the time after the hole")
        columns = list(next(iter(one["error_ms"].values())))
        print(f"{'':20}" + "".join(f"{column:>10}" for column in columns))
        for label, row in [*one["error_ms"].items(), ("rtdecode's +/-", one["uncertainty_ms"])]:
            print(f"{label:20}" + "".join(f"{row[column]:10.3f}" for column in columns))
    print("\nwithout a sender:", json.dumps({k: v for k, v in results.items() if k != "live"}, indent=1))


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=float, default=20.0, help="seconds before the hole")
    parser.add_argument("--xdf", type=Path, help="a recording to try the clock on")
    parser.add_argument("--offline", action="store_true", help="only what needs no sender")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results: dict[str, Any] = {"live": []}
    if not options.offline:
        from rtdecode.sources.lsl import configure_lsl

        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "lsl_api.cfg"
            text = (
                "[ports]\nIPv6 = disable\n[multicast]\nResolveScope = machine\nListenAddress = 127.0.0.1\n"
                f"[lab]\nKnownPeers = {{127.0.0.1}}\nSessionID = stamps-{uuid.uuid4().hex}\n[log]\nlevel = -2\n"
            )
            config.write_text(text)
            configure_lsl(text)
            results["live"] = [live(jitter, options.before, config) for jitter in (0.0, JITTER_S)]
    results["simulated"] = simulated()
    if options.xdf is not None:
        results["recorded"] = [recorded(options.xdf, pull) for pull in (1, 10, 40)]
    if options.json:
        print(json.dumps(results, indent=1))
    else:
        _print(results)


if __name__ == "__main__":
    main()
