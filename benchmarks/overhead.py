"""What acquire -> decode adds to the encoder's own time, on 306 channels at 1 kHz over real LSL.

A sender process -> *acquire* -> *decode* -> a subscriber, each a process of its own; every figure comes from the
messages' own ledgers. Prints JSON:

- `added_ms`: from the last sample's arrival to the publication of its window, less the encoder's time (due to encoded);
- `stages_ms`: arrived -> received -> due -> encoded -> published, and published -> in the subscriber's hands.

    python benchmarks/overhead.py --seconds 30
    python benchmarks/overhead.py --seconds 30 --budget-ms 50
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import uuid
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

CHANNELS, SFREQ, CHUNK = 306, 1000.0, 10
LENGTH_S, HOP_S, STRIDE, FILTERS, WIDTH = 0.25, 0.05, 5, 32, 64
NAMES = [f"MEG{n:04d}" for n in range(CHANNELS)]

SENDER = """
import sys, time
import numpy as np
import pylsl
names = sys.argv[1].split(",")
sfreq, chunk = float(sys.argv[2]), int(sys.argv[3])
info = pylsl.StreamInfo("overhead", "MEG", len(names), sfreq, "float32", "overhead-sender")
channels = info.desc().append_child("channels")
for name in names:
    channel = channels.append_child("channel")
    channel.append_child_value("label", name)
    channel.append_child_value("type", "mag")
    channel.append_child_value("unit", "T")
outlet = pylsl.StreamOutlet(info, chunk)
block = np.random.default_rng(0).standard_normal((100, chunk, len(names))).astype(np.float32) * np.float32(1e-13)
start, n = pylsl.local_clock(), 0
while True:
    n += 1
    newest = start + n * chunk / sfreq
    wait = newest - pylsl.local_clock()
    if wait > 0:
        time.sleep(wait)
    outlet.push_chunk(block[n % 100], newest)
"""


def encoder_weights() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights of a strided convolution over time and a linear layer."""
    rng = np.random.default_rng(1)
    kernel = rng.standard_normal((FILTERS, CHANNELS, STRIDE)) / np.sqrt(CHANNELS * STRIDE)
    linear = rng.standard_normal((FILTERS, WIDTH)) / np.sqrt(FILTERS)
    return kernel.astype(np.float32), linear.astype(np.float32)


def encoder(time: int) -> bytes:
    """A small convolutional encoder as ONNX: convolution, ReLU, mean over time, linear."""
    kernel, linear = encoder_weights()
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
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, time, CHANNELS])],
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
    kernel, linear = encoder_weights()
    n, time, _ = windows.shape
    pieces = (windows * np.float32(1e13)).reshape(n, time // STRIDE, STRIDE, CHANNELS)
    conv = np.einsum("ntsc,fcs->nft", pieces, kernel)
    return np.asarray(np.maximum(conv, 0).mean(axis=2) @ linear, np.float32)


def make_bundle(path: Path) -> None:
    """Write the benchmark's bundle."""
    time = round(LENGTH_S * SFREQ)
    windows = (np.random.default_rng(2).standard_normal((2, time, CHANNELS)) * 1e-13).astype(np.float32)
    manifest = Manifest(
        format="rtdecode-bundle",
        version=1,
        name="overhead",
        created="2026-01-01T00:00:00Z",
        contract=Contract(
            channels=tuple(ContractChannel(name=name, type="mag", unit="T") for name in NAMES), sfreq=SFREQ
        ),
        conditioning=Conditioning(stream=(Filter(low=0.5, high=100.0, order=2),)),
        windows=(Sliding(length=LENGTH_S, hop=HOP_S),),
        encoder=Encoder(file="encoder.onnx", input="x", outputs=("embedding",)),
        heads=(EmbeddingHead(output="embedding"),),
        golden=Golden(windows="windows.npy", outputs={"embedding": "embedding.npy"}, tolerance=1e-3),
    )
    write_bundle(
        path, manifest, {"encoder.onnx": encoder(time), "windows.npy": windows, "embedding.npy": expected(windows)}
    )


def measure(seconds: float, warmup: float, budget_ms: float | None) -> dict[str, object]:
    """Run the session and collect the ledgers."""
    with tempfile.TemporaryDirectory(prefix="rtd") as name:
        folder = Path(name)
        make_bundle(folder / "bundle")
        (folder / "lsl_api.cfg").write_text(
            "[ports]\nIPv6 = disable\n[multicast]\nResolveScope = machine\nListenAddress = 127.0.0.1\n"
            f"[lab]\nKnownPeers = {{127.0.0.1}}\nSessionID = overhead-{uuid.uuid4().hex}\n[log]\nlevel = -1\n"
        )
        (folder / "session.toml").write_text(
            '[source]\nkind = "lsl"\nname = "overhead"\n[pipelines.p]\nbundle = "bundle"\npublish = "ipc://p.out"\n'
            + ("" if budget_ms is None else f"budget_ms = {budget_ms}\n")
        )
        env = os.environ | {"LSLAPICFG": str(folder / "lsl_api.cfg"), "XDG_RUNTIME_DIR": name}
        sender = subprocess.Popen([sys.executable, "-c", SENDER, ",".join(NAMES), str(SFREQ), str(CHUNK)], env=env)
        run = subprocess.Popen(
            [sys.executable, "-m", "rtdecode", "run", str(folder / "session.toml")],
            env=env,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert run.stdout is not None
            if not run.stdout.readline().startswith("READY"):
                raise SystemExit("the session did not start")
            rows, statuses = collect(f"ipc://{folder / 'p.out'}", seconds, warmup)
        finally:
            run.send_signal(signal.SIGTERM)
            run.wait(30)
            sender.kill()
            sender.wait()
    return {"budget_ms": budget_ms, **report(rows, statuses, seconds)}


def collect(endpoint: str, seconds: float, warmup: float) -> tuple[list[tuple[float, ...]], dict[str, int]]:
    """Ledgers of the windows that came within `seconds`, after `warmup`."""
    rows: list[tuple[float, ...]] = []
    statuses: dict[str, int] = {}
    began = hostclock.now()
    with Subscriber(endpoint) as subscriber:
        while (now := hostclock.now()) < began + warmup + seconds:
            received = subscriber.receive(timeout=1.0)
            taken = hostclock.now()
            if received is None or not isinstance(received.message, Window) or received.message.retained:
                continue
            if now < began + warmup:
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


def report(rows: list[tuple[float, ...]], statuses: dict[str, int], seconds: float) -> dict[str, object]:
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
        "channels": CHANNELS,
        "sfreq": SFREQ,
        "chunk": CHUNK,
        "window_s": LENGTH_S,
        "hop_s": HOP_S,
        "seconds": seconds,
        "windows": len(rows),
        "statuses": statuses,
        "added_ms": quantiles(added),
        "added_below_1_ms_at_the_median": bool(np.median(added) < 1.0),
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to measure")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds to leave out at the start")
    parser.add_argument("--budget-ms", type=float, help="with a budget; without one where not given")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.seconds, arguments.warmup, arguments.budget_ms), indent=2))
