"""`kill -9` of *acquire* while it records, at random moments: what each file has lost.

A sender of 64 channels at 500 Hz streams over LSL on this machine. Again and again `rtdecode acquire` records it and is
killed at a random moment. Each file is repaired and opened with pyxdf. What is missing is counted from the kill to the
last recorded sample, so that it includes what was on its way from the sender (chunks of 20 ms).

    python benchmarks/kills.py --kills 200 --at-once 4
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SENDER = """
import sys, time
import numpy as np, pylsl
name, n, sfreq = sys.argv[1], 64, 500
info = pylsl.StreamInfo(name, "EEG", n, sfreq, "float32", name)
channels = info.desc().append_child("channels")
for k in range(n):
    one = channels.append_child("channel")
    for key, value in (("label", f"E{k}"), ("type", "EEG"), ("unit", "uV")):
        one.append_child_value(key, value)
outlet, chunk, sent, began = pylsl.StreamOutlet(info), sfreq // 50, 0, pylsl.local_clock()
print("up", flush=True)
while True:
    time.sleep(max(0.0, began + (sent + chunk) / sfreq - pylsl.local_clock()))
    index = np.arange(sent, sent + chunk)
    outlet.push_chunk(np.repeat(index[:, None] % 65536, n, axis=1).astype(np.float32), (began + index / sfreq).tolist())
    sent += chunk
"""


@dataclass(frozen=True)
class Outcome:
    """One kill."""

    missing_s: float
    recorded_s: float
    torn_bytes: int
    consecutive: bool


def one_kill(folder: Path, name: str, after_s: float, env: dict[str, str]) -> Outcome:
    import pylsl

    from rtdecode.record.repair import repair

    folder.mkdir()
    config = folder / "s.toml"
    config.write_text(
        f'[source]\nkind = "lsl"\nname = "{name}"\ntimeout_s = 60\n[bus]\ndir = "."\n[recording]\ndir = "rec"\n'
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "rtdecode", "acquire", str(config)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        ready = process.stdout.readline()
        if not ready.startswith("READY"):
            raise RuntimeError(f"acquire did not start: {ready!r}")
        time.sleep(after_s)
        killed = pylsl.local_clock()
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    (path,) = (folder / "rec").glob("*.xdf")
    findings = repair(path).findings
    stamps, values = samples_of(path, name)
    steps = values[1:, 0].astype(int) - values[:-1, 0].astype(int)
    recorded = float(stamps[-1] - stamps[0])
    return Outcome(killed - float(stamps[-1]), recorded, findings.lost_bytes, bool((steps % 65536 == 1).all()))


def samples_of(path: Path, name: str) -> tuple[Any, Any]:
    """Stamps (on this host's clock) and values of the sender's stream, as pyxdf reads them."""
    import logging

    import pyxdf

    logging.getLogger("pyxdf").setLevel(logging.ERROR)
    streams, _ = pyxdf.load_xdf(path, dejitter_timestamps=False, verbose=False)
    stream = next(one for one in streams if one["info"]["name"][0] == name)
    if not len(stream["time_stamps"]):
        raise RuntimeError(f"{path} holds no sample")
    return stream["time_stamps"], stream["time_series"]


def run(kills: int, at_once: int, seed: int, longest_s: float) -> list[Outcome]:
    rng = random.Random(seed)
    name = f"kills-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="rtk") as text:
        folder = Path(text)
        settings = folder / "lsl_api.cfg"
        settings.write_text(
            "[ports]\nIPv6 = disable\n[multicast]\nResolveScope = machine\nListenAddress = 127.0.0.1\n"
            f"[lab]\nKnownPeers = {{127.0.0.1}}\nSessionID = {name}\n[log]\nlevel = -2\n"
        )
        env = {**os.environ, "LSLAPICFG": str(settings), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        sender = subprocess.Popen([sys.executable, "-c", SENDER, name], env=env, stdout=subprocess.PIPE, text=True)
        try:
            assert sender.stdout is not None
            assert sender.stdout.readline() == "up\n"
            # The first samples come a little after READY; sooner there is nothing to lose.
            waits = [rng.uniform(0.8, longest_s) for _ in range(kills)]
            with ThreadPoolExecutor(at_once) as pool:
                done = pool.map(lambda k: one_kill(folder / str(k), name, waits[k], env), range(kills))
                return list(done)
        finally:
            sender.kill()
            sender.wait()
            if sender.stdout is not None:
                sender.stdout.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=4.0, help="seconds of recording at most")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    outcomes = run(given.kills, given.at_once, given.seed, given.longest)
    missing = sorted(one.missing_s for one in outcomes)
    told = {
        "kills": len(outcomes),
        "opened_in_pyxdf": len(outcomes),
        "missing_s_max": missing[-1],
        "missing_s_median": statistics.median(missing),
        "over_half_a_second": sum(one > 0.5 for one in missing),
        "files_with_a_hole": sum(not one.consecutive for one in outcomes),
        "files_with_torn_bytes": sum(one.torn_bytes > 0 for one in outcomes),
        "recorded_s": sum(one.recorded_s for one in outcomes),
    }
    if given.json:
        print(json.dumps(told))
        return
    print(f"{told['kills']} kills; every file opened in pyxdf after repair")
    print(f"missing before the kill: median {told['missing_s_median']:.3f} s, most {told['missing_s_max']:.3f} s")
    print(f"more than 0.5 s: {told['over_half_a_second']}; with a hole: {told['files_with_a_hole']}")
    print(f"cut inside a chunk: {told['files_with_torn_bytes']}; recorded in all: {told['recorded_s']:.0f} s")


if __name__ == "__main__":
    main()
