"""A long session: 64 channels at 1 kHz over real LSL, two pipelines, a recording, and a subscriber that hardly reads.

    python benchmarks/soak.py --minutes 60

Nothing is accelerated: an hour takes an hour. Prints JSON: each process's memory early and late, windows due and
accounted for, gaps in the windows' own numbers, what the slow subscriber missed. Exits with 1 where memory grew by more
than 5 %, or a window is unaccounted for.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import zmq
from onnx import TensorProto, helper, numpy_helper

from rtdecode import hostclock
from rtdecode.config import load
from rtdecode.daemon import control
from rtdecode.encode.bundle import write_bundle
from rtdecode.encode.manifest import Contract, ContractChannel, EmbeddingHead, Encoder, Golden, Manifest
from rtdecode.stream.steps import Conditioning, Filter
from rtdecode.stream.window import Locked, Sliding, WindowSpec
from rtdecode.wire.messages import Health, Window
from rtdecode.wire.subscriber import Subscriber

SFREQ, WIDTH = 1000.0, 32
NAMES = [f"E{n:02d}" for n in range(64)]
#: Memory is read this often; the log, the queues and the allocator have filled up after the warm-up.
EVERY_S, WARM_UP_S = 5.0, 120.0
ALLOWED_GROWTH = 0.05
PIPELINES: dict[str, tuple[WindowSpec, ...]] = {
    "fast": (Sliding(length=0.5, hop=0.05),),
    "slow": (Sliding(length=1.0, hop=0.25), Locked(tmin=0.0, tmax=1.0, markers=("*",))),
}

SENDER = """
import sys, time
import numpy as np
import pylsl
names = sys.argv[1].split(",")
info = pylsl.StreamInfo("soak", "EEG", len(names), 1000.0, "float32", "soak-sender")
channels = info.desc().append_child("channels")
for name in names:
    channel = channels.append_child("channel")
    for key, value in (("label", name), ("type", "EEG"), ("unit", "V")):
        channel.append_child_value(key, value)
outlet = pylsl.StreamOutlet(info, 10)
markers = pylsl.StreamOutlet(pylsl.StreamInfo("soak-markers", "Markers", 1, 0.0, "string", "soak-markers"))
block = np.random.default_rng(0).standard_normal((100, 10, len(names))).astype(np.float32) * np.float32(1e-5)
start, n = pylsl.local_clock(), 0
while True:
    n += 1
    newest = start + n * 0.01
    wait = newest - pylsl.local_clock()
    if wait > 0:
        time.sleep(wait)
    outlet.push_chunk(block[n % 100], newest)
    if n % 150 == 0:
        markers.push_sample(["go"], newest)
"""

CONFIG = """
[session]
name = "soak"
[source]
kind = "lsl"
name = "soak"
markers = [{ name = "soak-markers" }]
[recording]
dir = "recordings"
subject = "soak"
task = "soak"
[pipelines.fast]
bundle = "fast"
publish = "ipc://fast.out"
budget_ms = 100.0
[pipelines.slow]
bundle = "slow"
publish = "ipc://slow.out"
budget_ms = 100.0
hwm = 100
"""


def make_bundle(path: Path, windows: tuple[WindowSpec, ...]) -> None:
    """A mean over time and a linear layer."""
    time = windows[0].n_samples(SFREQ)
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((len(NAMES), WIDTH)).astype(np.float32)
    golden = (rng.standard_normal((2, time, len(NAMES))) * 1e-5).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "w"], ["embedding"]),
        ],
        "soak",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, time, len(NAMES)])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, WIDTH])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array([1], np.int64), "axes")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(proto)
    manifest = Manifest(
        format="rtdecode-bundle",
        version=1,
        name=path.name,
        created="2026-01-01T00:00:00Z",
        contract=Contract(
            channels=tuple(ContractChannel(name=name, type="eeg", unit="V") for name in NAMES), sfreq=SFREQ
        ),
        conditioning=Conditioning(stream=(Filter(low=0.5, high=40.0, order=2),)),
        windows=windows,
        encoder=Encoder(file="encoder.onnx", input="x", outputs=("embedding",)),
        heads=(EmbeddingHead(output="embedding"),),
        golden=Golden(windows="windows.npy", outputs={"embedding": "embedding.npy"}, tolerance=1e-3),
    )
    expected = (golden.mean(axis=1) @ weights).astype(np.float32)
    files: dict[str, Any] = {
        "encoder.onnx": bytes(proto.SerializeToString()),
        "windows.npy": golden,
        "embedding.npy": expected,
    }
    write_bundle(path, manifest, files)


class Follower(threading.Thread):
    """Counts what one pipeline publishes."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(daemon=True)
        self._endpoint = endpoint
        self._closing = threading.Event()
        self.statuses: dict[str, int] = defaultdict(int)
        self.health: Health | None = None
        self.missed = 0
        self._starts: dict[tuple[str, int], set[int]] = defaultdict(set)
        self.hop: dict[str, int] = {}

    @property
    def holes(self) -> int:
        """Sliding windows between the first and the last one that came of which no message told.

        When the pipeline is behind the newest come first, so that their order says nothing.
        """
        return sum(
            (max(starts) - min(starts)) // self.hop[window] + 1 - len(starts)
            for (window, _), starts in self._starts.items()
        )

    def run(self) -> None:
        """Until `stop`."""
        with Subscriber(self._endpoint, hwm=100_000) as subscriber:
            while not self._closing.is_set():
                received = subscriber.receive(0.5)
                if received is None or getattr(received.message, "retained", False):
                    continue
                if isinstance(received.message, Window):
                    self._take(received.message)
                elif isinstance(received.message, Health):
                    self.health = received.message
            self.missed = sum(subscriber.missed.values())

    def _take(self, message: Window) -> None:
        self.statuses[message.status] += 1
        if message.marker is None:
            self._starts[message.window, message.segment].add(message.start)

    def stop(self) -> None:
        """End it, with what had come."""
        self._closing.set()
        self.join()


def slow_reader(endpoint: str, closing: threading.Event) -> int:
    """Takes one message a second; how many it took."""
    taken = 0
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.RCVHWM, 10)
        socket.setsockopt(zmq.LINGER, 0)
        socket.subscribe(b"")
        socket.connect(endpoint)
        while not closing.wait(1.0):
            taken += socket.poll(0) != 0 and bool(socket.recv_multipart())
    return taken


def memory_mb(pid: int) -> float:
    """Resident memory of a process, without what it shares with files."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def soak(minutes: float, folder: Path) -> dict[str, Any]:
    """Run the session."""
    for name, windows in PIPELINES.items():
        make_bundle(folder / name, windows)
    (folder / "recordings").mkdir()
    (folder / "lsl_api.cfg").write_text(
        "[ports]\nIPv6 = disable\n[multicast]\nResolveScope = machine\nListenAddress = 127.0.0.1\n"
        f"[lab]\nKnownPeers = {{127.0.0.1}}\nSessionID = soak-{uuid.uuid4().hex}\n[log]\nlevel = -1\n"
    )
    path = folder / "soak.toml"
    path.write_text(CONFIG)
    env = os.environ | {"LSLAPICFG": str(folder / "lsl_api.cfg"), "XDG_RUNTIME_DIR": str(folder)}
    os.environ["XDG_RUNTIME_DIR"] = str(folder)  # where the control sockets are
    sender = subprocess.Popen([sys.executable, "-c", SENDER, ",".join(NAMES)], env=env)
    run = subprocess.Popen(
        [sys.executable, "-m", "rtdecode", "run", str(path)], env=env, stdout=subprocess.PIPE, text=True
    )
    followers = {name: Follower(f"ipc://{folder / name}.out") for name in PIPELINES}
    closing = threading.Event()
    took: list[int] = []
    slow = threading.Thread(target=lambda: took.append(slow_reader(f"ipc://{folder}/slow.out", closing)), daemon=True)
    memory: dict[str, list[float]] = defaultdict(list)
    try:
        for name, follower in followers.items():
            follower.hop = {one.name: round(one.hop * SFREQ) for one in PIPELINES[name] if isinstance(one, Sliding)}
            follower.start()
        slow.start()
        assert run.stdout is not None
        if not run.stdout.readline().startswith("READY"):
            raise SystemExit("the session did not start")
        asked = control.control_endpoints(load(path))
        pids = {who: int(control.ask(where, control.Status(), 10.0)["pid"]) for who, where in asked.items()}
        began = hostclock.now()
        wait = threading.Event()
        while hostclock.now() < began + 60 * minutes:
            wait.wait(EVERY_S)
            if run.poll() is not None:
                raise SystemExit(f"the session ended with exit code {run.returncode}")
            if hostclock.now() > began + min(WARM_UP_S, 20 * minutes):
                for who, pid in pids.items():
                    memory[who].append(memory_mb(pid))
    finally:
        run.send_signal(signal.SIGTERM)
        code = run.wait(60)
        closing.set()
        slow.join()
        for follower in followers.values():
            follower.stop()
        sender.kill()
        sender.wait()
    return report(minutes, code, followers, memory, took[0], folder)


def report(
    minutes: float,
    code: int,
    followers: dict[str, Follower],
    memory: dict[str, list[float]],
    taken: int,
    folder: Path,
) -> dict[str, Any]:
    """The figures, and whether they are good."""
    tenth = max(1, len(memory["acquire"]) // 10)
    figures = {
        who: {
            "early_mb": round(float(np.median(values[:tenth])), 2),
            "late_mb": round(float(np.median(values[-tenth:])), 2),
            "growth": round(float(np.median(values[-tenth:]) / np.median(values[:tenth]) - 1), 4),
        }
        for who, values in memory.items()
    }
    pipelines = {}
    for name, follower in followers.items():
        health = follower.health
        pipelines[name] = {
            "due": health.due if health else None,
            "counts": dict(health.counts) if health else None,
            "dropped": health.dropped if health else None,
            "received": dict(follower.statuses),
            "unaccounted": (health.due - sum(health.counts.values())) if health else None,
            "windows_missing_from_the_row": follower.holes,
            "not_received": (health.due - sum(follower.statuses.values())) if health else None,
        }
    good = (
        code == 0
        and all(one["growth"] <= ALLOWED_GROWTH for one in figures.values())
        and all(one["unaccounted"] == 0 and one["windows_missing_from_the_row"] == 0 for one in pipelines.values())
    )
    recorded = sum(file.stat().st_size for file in (folder / "recordings").rglob("*.xdf"))
    return {
        "minutes": minutes,
        "accelerated": False,
        "channels": len(NAMES),
        "sfreq": SFREQ,
        "exit_code": code,
        "memory": figures,
        "pipelines": pipelines,
        "slow_subscriber_took": taken,
        "recorded_mb": round(recorded / 1e6, 1),
        "good": good,
    }


def main() -> None:
    """Entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rtd") as name:
        figures = soak(arguments.minutes, Path(name))
    print(json.dumps(figures, indent=2))
    sys.exit(not figures["good"])


if __name__ == "__main__":
    main()
