"""What acquire -> decode adds to the encoder's own time, on 306 channels at 1 kHz over real LSL.

A sender process -> *acquire* -> *decode* -> a subscriber, each a process of its own; every figure comes from the
messages' own ledgers, and CPU time from the kernel's account of each process. Prints JSON:

- `added_ms`: from the last sample's arrival to the publication of its window, less the encoder's time (due to encoded);
- `stages_ms`: arrived -> received -> due -> encoded -> published, and published -> in the subscriber's hands;
- `cpu`: of each process, as a share of one core and per chunk.

With `--history SECONDS` the sender begins with so much of a backlog, faster than real time and with true stamps, which
is decoded, and kept in *acquire*'s log; what is measured is what comes live after it.

    python benchmarks/overhead.py --seconds 30
    python benchmarks/overhead.py --seconds 30 --budget-ms 50
    python benchmarks/overhead.py --seconds 30 --history 600
    python benchmarks/overhead.py --seconds 30 --channels 64 --sfreq 250 --chunk 5 --length 1 --hop 0.1
"""

import argparse
import dataclasses
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rtdecode import hostclock
from rtdecode.encode.bundle import write_bundle
from rtdecode.encode.manifest import Contract, ContractChannel, EmbeddingHead, Encoder, Golden, Manifest
from rtdecode.stream.steps import Conditioning, Filter
from rtdecode.stream.window import Sliding
from rtdecode.wire.messages import Ledger, Window
from rtdecode.wire.subscriber import Subscriber

STRIDE, FILTERS, WIDTH = 5, 32, 64

#: How many times faster than real time a backlog is sent.
FASTER = 20.0


@dataclass(frozen=True)
class Workload:
    """What is sent, and what is decoded of it."""

    channels: int = 306
    sfreq: float = 1000.0
    chunk: int = 10
    length_s: float = 0.25
    hop_s: float = 0.05

    @property
    def names(self) -> list[str]:
        """Of the channels."""
        return [f"MEG{n:04d}" for n in range(self.channels)]

    @property
    def samples(self) -> int:
        """Of a window."""
        return round(self.length_s * self.sfreq)


SENDER = """
import sys, time
import numpy as np
import pylsl
names = sys.argv[1].split(",")
sfreq, chunk = float(sys.argv[2]), int(sys.argv[3])
backlog, faster = float(sys.argv[4]), float(sys.argv[5])
info = pylsl.StreamInfo("overhead", "MEG", len(names), sfreq, "float32", "overhead-sender")
channels = info.desc().append_child("channels")
for name in names:
    channel = channels.append_child("channel")
    channel.append_child_value("label", name)
    channel.append_child_value("type", "mag")
    channel.append_child_value("unit", "T")
outlet = pylsl.StreamOutlet(info, chunk)
block = np.random.default_rng(0).standard_normal((100, chunk, len(names))).astype(np.float32) * np.float32(1e-13)
if backlog:
    while not outlet.have_consumers():
        time.sleep(0.05)
    time.sleep(3.0)  # the decoder follows
began = pylsl.local_clock()
start, n = began - backlog, 0
while True:
    n += 1
    newest = start + n * chunk / sfreq
    now = pylsl.local_clock()
    wait = max(newest - now, began + n * chunk / sfreq / faster - now) if backlog else newest - now
    if wait > 0:
        time.sleep(wait)
    outlet.push_chunk(block[n % 100], newest)
"""


def encoder_weights(channels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights of a strided convolution over time and a linear layer."""
    rng = np.random.default_rng(1)
    kernel = rng.standard_normal((FILTERS, channels, STRIDE)) / np.sqrt(channels * STRIDE)
    linear = rng.standard_normal((FILTERS, WIDTH)) / np.sqrt(FILTERS)
    return kernel.astype(np.float32), linear.astype(np.float32)


def encoder(time: int, channels: int) -> bytes:
    """A small convolutional encoder as ONNX: convolution, ReLU, mean over time, linear."""
    kernel, linear = encoder_weights(channels)
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "tesla"], ["scaled"]),
            helper.make_node("Transpose", ["scaled"], ["ct"], perm=[0, 2, 1]),
            helper.make_node("Conv", ["ct", "kernel"], ["conv"], strides=[STRIDE]),
            helper.make_node("Relu", ["conv"], ["relu"]),
            helper.make_node("ReduceMean", ["relu", "axes"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "linear"], ["embedding"]),
        ],
        "overhead",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, time, channels])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, WIDTH])],
        [
            numpy_helper.from_array(kernel, "kernel"),
            numpy_helper.from_array(linear, "linear"),
            numpy_helper.from_array(np.float32(1e13), "tesla"),
            numpy_helper.from_array(np.array([2], np.int64), "axes"),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def expected(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the encoder gives, by numpy."""
    n, time, channels = windows.shape
    kernel, linear = encoder_weights(channels)
    pieces = (windows * np.float32(1e13)).reshape(n, time // STRIDE, STRIDE, channels)
    conv = np.einsum("ntsc,fcs->nft", pieces, kernel)
    return np.asarray(np.maximum(conv, 0).mean(axis=2) @ linear, np.float32)


def make_bundle(path: Path, work: Workload) -> None:
    """Write the benchmark's bundle."""
    windows = (np.random.default_rng(2).standard_normal((2, work.samples, work.channels)) * 1e-13).astype(np.float32)
    manifest = Manifest(
        format="rtdecode-bundle",
        version=1,
        name="overhead",
        created="2026-01-01T00:00:00Z",
        contract=Contract(
            channels=tuple(ContractChannel(name=name, type="mag", unit="T") for name in work.names), sfreq=work.sfreq
        ),
        conditioning=Conditioning(stream=(Filter(low=0.5, high=100.0, order=2),)),
        windows=(Sliding(length=work.length_s, hop=work.hop_s),),
        encoder=Encoder(file="encoder.onnx", input="x", outputs=("embedding",)),
        heads=(EmbeddingHead(output="embedding"),),
        golden=Golden(windows="windows.npy", outputs={"embedding": "embedding.npy"}, tolerance=1e-3),
    )
    onnx_file = encoder(work.samples, work.channels)
    write_bundle(
        path, manifest, {"encoder.onnx": onnx_file, "windows.npy": windows, "embedding.npy": expected(windows)}
    )


@dataclass(frozen=True)
class Session:
    """A folder with all that a session needs, and what its processes are started with."""

    work: Workload
    folder: Path
    env: dict[str, str]

    @property
    def config(self) -> Path:
        """The session's file."""
        return self.folder / "session.toml"

    @property
    def results(self) -> str:
        """Where they are published."""
        return f"ipc://{self.folder / 'p.out'}"

    def sender(self, backlog: float = 0.0) -> "subprocess.Popen[bytes]":
        """The sender, in a process of its own."""
        numbers = (self.work.sfreq, self.work.chunk, backlog, FASTER)
        command = [sys.executable, "-c", SENDER, ",".join(self.work.names), *map(str, numbers)]
        return subprocess.Popen(command, env=self.env)


def environment(folder: Path) -> dict[str, str]:
    """Of all processes: sockets in `folder`, and LSL on the loopback alone, in a session that nobody else is in."""
    (folder / "lsl_api.cfg").write_text(
        "[ports]\nIPv6 = disable\n[multicast]\nResolveScope = machine\nListenAddress = 127.0.0.1\n"
        f"[lab]\nKnownPeers = {{127.0.0.1}}\nSessionID = overhead-{uuid.uuid4().hex}\n[log]\nlevel = -1\n"
    )
    return dict(os.environ) | {"LSLAPICFG": str(folder / "lsl_api.cfg"), "XDG_RUNTIME_DIR": str(folder)}


def prepare(folder: Path, work: Workload, budget_ms: float | None, log_s: float = 30.0) -> Session:
    """Bundle, configuration, and LSL on the loopback alone."""
    make_bundle(folder / "bundle", work)
    log_mb = math.ceil(1.2 * log_s * work.sfreq * work.channels * 4e-6) + 100
    session = Session(work, folder, environment(folder))
    session.config.write_text(
        f'[source]\nkind = "lsl"\nname = "overhead"\n[bus]\nlog_seconds = {log_s}\nlog_mb = {log_mb}\n'
        '[pipelines.p]\nbundle = "bundle"\npublish = "ipc://p.out"\n'
        + ("" if budget_ms is None else f"budget_ms = {budget_ms}\n")
    )
    return session


def measure(
    work: Workload, seconds: float, warmup: float, budget_ms: float | None, history: float
) -> dict[str, object]:
    """Run the session and collect the ledgers."""
    with tempfile.TemporaryDirectory(prefix="rtd") as name:
        session = prepare(Path(name), work, budget_ms, max(30.0, history + warmup + seconds + 60))
        sender = session.sender(history)
        command = [sys.executable, "-m", "rtdecode", "run", str(session.config)]
        run = subprocess.Popen(command, env=session.env, stdout=subprocess.PIPE, text=True)
        try:
            assert run.stdout is not None
            if not run.stdout.readline().startswith("READY"):
                raise SystemExit("the session did not start")
            with Subscriber(session.results) as subscriber:
                before = until_live(subscriber)
                collect(subscriber, warmup)
                used = cpu_of(run.pid)
                began = hostclock.now()
                rows, statuses = collect(subscriber, seconds)
                took = hostclock.now() - began
                cpu = {who: now - used[who] for who, now in cpu_of(run.pid).items() if who in used}
        finally:
            run.send_signal(signal.SIGTERM)
            run.wait(30)
            sender.kill()
            sender.wait()
    history_windows = {"history_s": history, "windows_before": before}
    return {
        "budget_ms": budget_ms,
        **history_windows,
        **report(work, rows, statuses, took),
        "cpu": shares(work, cpu, took),
    }


def until_live(subscriber: Subscriber) -> int:
    """Wait until a window comes as its last sample is taken; how many came before it."""
    n = 0
    while True:
        received = subscriber.receive(timeout=60.0)
        if received is None:
            raise SystemExit("no window came within a minute")
        if isinstance(received.message, Window) and not received.message.retained:
            n += 1
            stamp = received.message.ledger.stamp
            if stamp is not None and hostclock.now() - stamp < 0.1:
                return n


def cpu_of(supervisor: int) -> dict[str, float]:
    """CPU seconds of a session's processes so far, by what they do."""
    found = {}
    for child in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        for what in ("acquire", "decode"):
            if what.encode() in words:
                spent = [
                    Path(task, "schedstat").read_text().split()[0] for task in Path(f"/proc/{child}/task").iterdir()
                ]
                found[what] = sum(map(int, spent)) * 1e-9
    return found


def shares(work: Workload, cpu: dict[str, float], seconds: float) -> dict[str, dict[str, float]]:
    """CPU time as a share of one core, and per chunk."""
    per_chunk = work.chunk / work.sfreq * 1e3 / seconds
    spent = {**cpu, "together": sum(cpu.values())}
    return {
        who: {"core_percent": round(100 * used / seconds, 2), "ms_per_chunk": round(used * per_chunk, 4)}
        for who, used in spent.items()
    }


def collect(subscriber: Subscriber, seconds: float) -> tuple[list[tuple[float, ...]], dict[str, int]]:
    """Ledgers of the windows that come within `seconds`."""
    rows: list[tuple[float, ...]] = []
    statuses: dict[str, int] = {}
    began = hostclock.now()
    while hostclock.now() < began + seconds:
        received = subscriber.receive(timeout=1.0)
        taken = hostclock.now()
        if received is None or not isinstance(received.message, Window) or received.message.retained:
            continue
        message = received.message
        statuses[message.status] = statuses.get(message.status, 0) + 1
        times = moments(message.ledger)
        if times is not None:
            rows.append((*times, taken))
    return rows, statuses


def moments(ledger: Ledger) -> tuple[float, ...] | None:
    """Stamp, arrived, received, due, encoded, published; None where one is missing."""
    times = (ledger.stamp, ledger.arrived, ledger.received, ledger.due, ledger.encoded, ledger.published)
    return None if any(time is None for time in times) else tuple(float(time) for time in times if time is not None)


def report(
    work: Workload, rows: list[tuple[float, ...]], statuses: dict[str, int], seconds: float
) -> dict[str, object]:
    """Quantiles of each stage in milliseconds."""
    table = np.array(rows) * 1e3
    steps = np.diff(table, axis=1)
    added = (table[:, 5] - table[:, 1]) - (table[:, 4] - table[:, 3])
    names = (
        "stamp_to_arrived",
        "arrived_to_received",
        "received_to_due",
        "encoder",
        "encoded_to_published",
        "delivery",
    )
    return {
        **dataclasses.asdict(work),
        "seconds": round(seconds, 3),
        "windows": len(rows),
        "statuses": statuses,
        "added_ms": quantiles(added),
        "stages_ms": {name: quantiles(steps[:, n]) for n, name in enumerate(names)},
        "host": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
    }


def quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    """p50, p99 and the largest."""
    return {
        "p50": round(float(np.median(values)), 3),
        "p99": round(float(np.quantile(values, 0.99)), 3),
        "max": round(float(values.max()), 3),
    }


def add_workload(parser: argparse.ArgumentParser) -> None:
    """Options of `Workload`."""
    parser.add_argument("--channels", type=int, default=Workload.channels)
    parser.add_argument("--sfreq", type=float, default=Workload.sfreq, help="Hz")
    parser.add_argument("--chunk", type=int, default=Workload.chunk, help="samples")
    parser.add_argument("--length", type=float, default=Workload.length_s, help="of a window, in seconds")
    parser.add_argument("--hop", type=float, default=Workload.hop_s, help="from window to window, in seconds")


def workload(arguments: argparse.Namespace) -> Workload:
    """What the options say."""
    return Workload(arguments.channels, arguments.sfreq, arguments.chunk, arguments.length, arguments.hop)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to measure")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds to leave out at the start")
    parser.add_argument("--budget-ms", type=float, help="with a budget; without one where not given")
    parser.add_argument("--history", type=float, default=0.0, help="seconds of a backlog before the live stream")
    add_workload(parser)
    arguments = parser.parse_args()
    found = measure(workload(arguments), arguments.seconds, arguments.warmup, arguments.budget_ms, arguments.history)
    print(json.dumps(found, indent=2))
