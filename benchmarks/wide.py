"""1,024 channels at 30 kHz in blocks of 1 ms: acquired, recorded and conditioned, and whether anything was lost.

A sender in a process of its own pushes numbered samples over LSL, as float32 or int16. *acquire* takes them, records
them raw and hands them to *decode*, which decimates them to 1 kHz (causal, with its anti-alias filter), filters them,
and runs a small encoder on windows of 0.25 s. After so many seconds the sender falls silent. What it sent, what
*acquire* counted, what the file holds (the number of every sample is looked at) and what *decode* made of it are then
compared.

What stage costs what is measured as in `hot_path.py`: milliseconds of CPU time for each second of data.

    python benchmarks/wide.py --seconds 20
    python benchmarks/wide.py --seconds 20 --format int16 --folder /dev/shm
"""

import argparse
import contextlib
import json
import mmap
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hot_path import costs, end, mark, wait_for, watched_processes
from overhead import environment

from rtdecode.encode.bundle import write_bundle
from rtdecode.encode.manifest import Contract, ContractChannel, EmbeddingHead, Encoder, Golden, Manifest
from rtdecode.sources.xdf_chunks import SAMPLES, STREAM_FOOTER, Torn, read_xml, sample_dtype, scan
from rtdecode.stream.steps import Conditioning, Filter, Resample
from rtdecode.stream.window import Sliding
from rtdecode.wire.messages import Window
from rtdecode.wire.subscriber import Subscriber

CONDITIONED, LENGTH_S, HOP_S, WIDTH = 1000.0, 0.25, 0.1, 16

SENDER = """
import resource, sys, time
import numpy as np
import pylsl
n_channels, sfreq, block, seconds = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
form = sys.argv[5]
info = pylsl.StreamInfo("wide", "EEG", n_channels, sfreq, form, "wide-sender")
channels = info.desc().append_child("channels")
for n in range(n_channels):
    channel = channels.append_child("channel")
    channel.append_child_value("label", f"CH{n:04d}")
    channel.append_child_value("type", "EEG")
    channel.append_child_value("unit", "V" if form == "float32" else "uV")
outlet = pylsl.StreamOutlet(info, block)
ready = [np.random.default_rng(k).integers(-1000, 1000, (block, n_channels)).astype(
    np.float32 if form == "float32" else np.int16) for k in range(16)]
while not outlet.have_consumers():
    time.sleep(0.05)
time.sleep(4.0)  # all are ready
n_blocks = round(seconds * sfreq / block)
before, start, latest = resource.getrusage(resource.RUSAGE_SELF), pylsl.local_clock(), 0.0
for n in range(n_blocks):
    data = ready[n % 16]
    data[:, 0] = (np.arange(n * block, (n + 1) * block) % 30000).astype(data.dtype)
    newest = start + (n + 1) * block / sfreq
    wait = newest - pylsl.local_clock()
    if wait > 0:
        time.sleep(wait)
    latest = max(latest, -wait)
    outlet.push_chunk(data, newest)
after = resource.getrusage(resource.RUSAGE_SELF)
used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(n_blocks * block, used, latest, flush=True)
time.sleep(600)
"""


@dataclass(frozen=True)
class Wide:
    """What is sent."""

    channels: int = 1024
    sfreq: float = 30_000.0
    block: int = 30
    form: str = "float32"

    @property
    def names(self) -> list[str]:
        """Of the channels."""
        return [f"CH{n:04d}" for n in range(self.channels)]


def make_bundle(path: Path, work: Wide) -> None:
    """Decimation to 1 kHz, a band-pass there, and an encoder that is next to nothing: mean over time, and linear."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    time_samples = round(LENGTH_S * CONDITIONED)
    rng = np.random.default_rng(1)
    weights = (rng.standard_normal((work.channels, WIDTH)) / np.sqrt(work.channels)).astype(np.float32)
    windows = rng.standard_normal((2, time_samples, work.channels)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "weights"], ["embedding"]),
        ],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, time_samples, work.channels])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, WIDTH])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([1], np.int64), "axes")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(proto)
    manifest = Manifest(
        format="rtdecode-bundle",
        version=1,
        name="wide",
        created="2026-01-01T00:00:00Z",
        contract=Contract(
            channels=tuple(ContractChannel(name=name, type="eeg", unit="V") for name in work.names), sfreq=work.sfreq
        ),
        conditioning=Conditioning(stream=(Resample(sfreq=CONDITIONED), Filter(low=0.5, high=100.0, order=2))),
        windows=(Sliding(length=LENGTH_S, hop=HOP_S),),
        encoder=Encoder(file="encoder.onnx", input="x", outputs=("embedding",)),
        heads=(EmbeddingHead(output="embedding"),),
        golden=Golden(windows="windows.npy", outputs={"embedding": "embedding.npy"}, tolerance=1e-3),
    )
    expected = (windows.mean(axis=1) @ weights).astype(np.float32)
    write_bundle(
        path, manifest, {"encoder.onnx": proto.SerializeToString(), "windows.npy": windows, "embedding.npy": expected}
    )


def measure(work: Wide, seconds: float, folder: Path) -> dict[str, Any]:
    """Run it, and compare what was sent with what arrived, was recorded and was decoded."""
    make_bundle(folder / "bundle", work)
    env = environment(folder)
    config = folder / "session.toml"
    config.write_text(
        '[source]\nkind = "lsl"\nname = "wide"\n[recording]\ndir = "recorded"\nqueue_mb = 256\n'
        '[pipelines.p]\nbundle = "bundle"\npublish = "ipc://p.out"\n'
    )
    numbers = [str(one) for one in (work.channels, work.sfreq, work.block, seconds, work.form)]
    sender = subprocess.Popen([sys.executable, "-c", SENDER, *numbers], env=env, stdout=subprocess.PIPE, text=True)
    children = watched_processes(config, folder, env)
    statuses: dict[str, int] = {}
    ages: list[float] = []
    try:
        wait_for(children)
        with Subscriber(f"ipc://{folder / 'p.out'}") as subscriber:
            first = take(subscriber, 30.0, statuses, ages, until_first=True)
            if not first:
                raise SystemExit("no window came")
            mark(children)
            began = time.monotonic()
            take(subscriber, 0.8 * seconds, statuses, ages)
            mark(children)
            span = time.monotonic() - began
            take(subscriber, 0.2 * seconds + 3.0, statuses, ages)
        status = ask(config, env)
    finally:
        end(children)
        assert sender.stdout is not None
        sender.kill()
        said = sender.stdout.read().split()
        sender.wait()
    sent, used, latest = int(said[0]), float(said[1]), float(said[2])
    found = in_file(folder / "recorded", work)
    decimated = sent * CONDITIONED / work.sfreq
    due = int((decimated - round(LENGTH_S * CONDITIONED)) // round(HOP_S * CONDITIONED)) + 1
    stages = {process: costs(folder / f"{process}.json", span * 1e3) for process in children}  # us per ms: ms per s
    return {
        "channels": work.channels,
        "sfreq": work.sfreq,
        "block": work.block,
        "format": work.form,
        "seconds": seconds,
        "samples": {
            "sent": sent,
            "acquired": status["samples"],
            "not_recorded": status["recording"]["samples_not_recorded"],
            **found,
        },
        "windows": {"due": due, **statuses},
        "lost_nothing": sent == status["samples"] == found["in_file"]
        and not found["out_of_order"]
        and not found["torn"]
        and statuses == {"ok": due},
        "sender": {"ms_per_s": round(1e3 * used / seconds, 1), "latest_block_ms": round(1e3 * latest, 2)},
        "newest_sample_to_published_ms": {
            "p50": round(1e3 * float(np.median(ages)), 2),
            "p99": round(1e3 * float(np.quantile(ages, 0.99)), 2),
        },
        "ms_per_second_of_data": {
            process: {
                **{stage: round(max(0.0, cost["us"]), 1) for stage, cost in one["stages"].items()},
                "the thread of the loop": round(one["loop_thread_us"], 1),
                **{f"thread {name}": round(us, 1) for name, us in one["other_threads_us"].items()},
                "all, in percent of a core": round(
                    (one["loop_thread_us"] + sum(one["other_threads_us"].values())) / 10, 1
                ),
            }
            for process, one in stages.items()
        },
        "host": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
    }


def take(
    subscriber: Subscriber, seconds: float, statuses: dict[str, int], ages: list[float], *, until_first: bool = False
) -> bool:
    """Count the windows that come; whether one did."""
    until, came = time.monotonic() + seconds, False
    while (left := until - time.monotonic()) > 0 and not (came and until_first):
        received = subscriber.receive(timeout=left)
        if received is None or not isinstance(received.message, Window) or received.message.retained:
            continue
        came = True
        ledger = received.message.ledger
        statuses[received.message.status] = statuses.get(received.message.status, 0) + 1
        if ledger.published is not None and ledger.stamp is not None:
            ages.append(ledger.published - ledger.stamp)
    return came


def ask(config: Path, env: dict[str, str]) -> dict[str, Any]:
    """What *acquire* says of itself."""
    command = [sys.executable, "-m", "rtdecode", "control", str(config), "status", "acquire", "--json"]
    said: dict[str, Any] = json.loads(
        subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    )
    acquire: dict[str, Any] = said.get("acquire", said)
    return acquire


def in_file(folder: Path, work: Wide) -> dict[str, int]:
    """Samples of the data stream in the recording, and how many do not follow the one before."""
    (path,) = folder.rglob("*.xdf")
    dtype = sample_dtype(work.form, work.channels)
    n = out_of_order = torn = 0
    last = -1
    not_recorded = 0
    with path.open("rb") as file, contextlib.closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as data:
        for block in scan(data):
            if isinstance(block, Torn):
                torn += 1
            elif block.tag == SAMPLES and block.stream == 1:
                rows = np.frombuffer(block.content[1 + block.content[0] :], dtype)
                numbers = rows["values"][:, 0].astype(np.int64)
                out_of_order += int((np.diff(numbers, prepend=last) % 30000 != 1).sum())
                n, last = n + len(rows), int(numbers[-1])
            elif block.tag == STREAM_FOOTER:
                not_recorded += int(read_xml(block.content).findtext("not_recorded") or 0)
    return {"in_file": n, "out_of_order": out_of_order, "torn": torn, "not_recorded_says_the_file": not_recorded}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of data")
    parser.add_argument("--format", choices=("float32", "int16"), default="float32")
    parser.add_argument("--channels", type=int, default=Wide.channels)
    parser.add_argument("--sfreq", type=float, default=Wide.sfreq, help="Hz")
    parser.add_argument("--block", type=int, default=Wide.block, help="samples")
    parser.add_argument("--folder", type=Path, help="where to record, for the time of the run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rtd", dir=arguments.folder) as name:
        given = Wide(arguments.channels, arguments.sfreq, arguments.block, arguments.format)
        print(json.dumps(measure(given, arguments.seconds, Path(name)), indent=2))
