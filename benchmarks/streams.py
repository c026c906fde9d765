"""How many streams one machine decodes in time, by one session of many sources, and by the peers.

    python benchmarks/streams.py --system rtdecode --streams 16 32 64

Each stream is the workload `eeg64`: 64 channels at 250 Hz in chunks of 20 ms, a window of 1 s every 100 ms, the same
encoder and gallery. Senders and subscriber are processes of their own on the same cores: their load is part of what the
machine has to bear, and told apart. The streams' windows fall due evenly over the hop, as those of amplifiers that know
nothing of each other do. A number of streams is sustained where 99.9 % of the windows that are due, of all streams
together, are in hand within 50 ms of the stamp of their newest sample.
"""

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import accounts
import environments
import numpy as np
import systems
from workload import SIZES, Expected, Size, make

BUDGET_S = 0.050
SHARE = 0.999


def together(bundle: str, acquire: int, decode: int, more: str) -> systems.System:
    """rtdecode: one session that owns all streams, and one subscriber."""

    def start(job: systems.Job, stack: ExitStack) -> systems.Started:
        sources = "".join(
            f'[sources.{stream}]\nkind = "lsl"\nname = "{stream}"\ntimeout_s = 60\n' for stream in job.streams
        )
        (job.folder / "many.toml").write_text(
            f'{sources}[processes]\nacquire = {acquire}\ndecode = {decode}\nadmission = "off"\n'
            f'[pipelines.p]\nbundle = "{job.place / bundle}"\npublish = "ipc://{job.folder}/p.out"\n'
            f'source = "*"\n{more}\n'
        )
        command = [sys.executable, "-m", "rtdecode", "run", str(job.folder / "many.toml")]
        session = stack.enter_context(systems.process(command, job.env, job.folder / "many.log"))
        ready = systems.await_line(session, "READY", 180)
        endpoints = sorted({pair.partition("=")[2] for pair in ready.split() if "=ipc" in pair} - {_control(ready)})
        listen = [sys.executable, str(systems.HERE / "many_subscriber.py"), str(job.folder), "p", *endpoints]
        listener = stack.enter_context(systems.process(listen, job.env, job.folder / "listen.log"))
        systems.await_line(listener, "READY", 30)
        out = tuple(job.folder / f"{stream}.results" for stream in job.streams)
        return systems.Started((session.pid,), (listener.pid,), out)

    return systems.System("rtdecode", {"rtdecode": version("rtdecode")}, start)


def _control(ready: str) -> str:
    return dict(pair.partition("=")[::2] for pair in ready.split())["control"]


def measure(system: systems.System, size: Size, place: Path, n: int, seconds: float, warmup: float) -> dict[str, Any]:
    """One run with `n` streams: how many windows were in time, and what it cost."""
    with tempfile.TemporaryDirectory(prefix="rts") as folder:
        taken = systems.run(system, size, place, Path(folder), warmup=warmup, seconds=seconds, streams=n)
        if not any(len(one) for one in taken.records):
            print((Path(folder) / "many.log").read_text()[-2000:], file=sys.stderr)
    expected = Expected(size, place)
    ages: list[float] = []
    due = wrong = 0
    for zero, records in zip(taken.zero, taken.records, strict=True):
        begin = zero + size.length + warmup
        due += round(seconds / size.hop)
        inside = records[(records["stamp"] >= begin) & (records["stamp"] < begin + seconds)]
        ages += (inside["at"] - inside["stamp"]).tolist()
        for one in inside[:2]:
            newest = round((float(one["stamp"]) - zero) * size.sfreq)
            wrong += not expected.agrees(newest, one["items"].tolist(), one["scores"].tolist())[0]
    table = np.array(ages)
    in_time = int((table <= BUDGET_S).sum())
    return {
        "streams": n,
        "due": due,
        "in_time": in_time,
        "share": round(in_time / due, 5),
        "sustained": in_time / due >= SHARE,
        "wrong": wrong,
        "ms": {f"p{q:g}": round(float(np.percentile(table, q)) * 1e3, 3) for q in (50, 90, 99, 99.9)} if ages else {},
        "cores": round(taken.cpu_s / seconds, 3),
        "subscriber_cores": round(taken.listeners_cpu_s / seconds, 3),
        "peak_mib": round(taken.peak_mib),
        "sender_late_ms": taken.sender,
    }


def main() -> None:
    """Measure each number of streams, and say which is the largest that was sustained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", default="rtdecode")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--warmup", type=float, default=3.0)
    parser.add_argument("--bundle", default="bundle", help="in the workload's folder")
    parser.add_argument("--acquire", type=int, default=1)
    parser.add_argument("--decode", type=int, default=1)
    parser.add_argument("--pipeline", default="", help="more of the pipeline's configuration")
    parser.add_argument("--cache", type=Path, default=environments.cache(), help="where the workload is kept")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    size = SIZES["eeg64"]
    place = make(size, options.cache)
    if options.system == "rtdecode":
        system = together(options.bundle, options.acquire, options.decode, options.pipeline)
    else:
        system = systems.systems()[options.system]
    runs = []
    for n in options.streams:
        runs.append(measure(system, size, place, n, options.seconds, options.warmup))
        print(json.dumps(runs[-1]), flush=True)
    sustained = max((run["streams"] for run in runs if run["sustained"]), default=0)
    found = {
        "system": system.name,
        "versions": dict(system.versions),
        "machine": accounts.machine(),
        "budget_ms": BUDGET_S * 1e3,
        "share": SHARE,
        "processes": {"acquire": options.acquire, "decode": options.decode} if system.name == "rtdecode" else {},
        "sustained": sustained,
        "runs": runs,
    }
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=2) + "\n")
    print(f"{system.name}: {sustained} streams sustained, of {options.streams}")


if __name__ == "__main__":
    main()
