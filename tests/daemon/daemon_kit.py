"""A tiny bundle for the simulated subject, sessions of real processes, and what they should publish."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import zmq
from onnx import TensorProto, helper

from rtdecode.config import load
from rtdecode.daemon.bus import Follow, Leave
from rtdecode.daemon.control import Status, ask
from rtdecode.daemon.endpoints import Endpoints, endpoints
from rtdecode.daemon.rpc import Client
from rtdecode.decoder import Decoder
from rtdecode.encode.bundle import write_bundle
from rtdecode.encode.engines import make_engine
from rtdecode.encode.manifest import (
    ClassifyHead,
    Contract,
    ContractChannel,
    Encoder,
    Golden,
    Manifest,
)
from rtdecode.errors import ProcessError
from rtdecode.sources.forward import MONTAGE
from rtdecode.sources.simulated import SimulatedSource
from rtdecode.stream.steps import Conditioning, Filter
from rtdecode.stream.window import Locked, Sliding
from rtdecode.wire.messages import Event, Health, Window
from rtdecode.wire.payload import payload_digest
from rtdecode.wire.results import ResultWriter
from rtdecode.wire.subscriber import Subscriber

SFREQ = 250.0
TIME = 50
NAMES = tuple(MONTAGE)


def encoder(weights: np.ndarray, time: int = TIME, work: int = 0) -> bytes:
    """Mean over time, one linear layer, as ONNX; with `work`, the product of two matrices of that size beside it."""
    n_channels, n_classes = weights.shape
    linear = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["logits" if not work else "plain"]),
    ]
    slow = [  # what it adds is 0, and nobody can know that beforehand
        helper.make_node("ReduceMin", ["mean"], ["least"], keepdims=0),
        helper.make_node("Sub", ["least", "least"], ["zero"]),
        helper.make_node("Expand", ["zero", "size"], ["one"]),
        helper.make_node("Expand", ["zero", "size"], ["other"]),
        helper.make_node("MatMul", ["one", "other"], ["product"]),
        helper.make_node("ReduceMax", ["product"], ["nothing"], keepdims=0),
        helper.make_node("Add", ["plain", "nothing"], ["logits"]),
    ]
    size = helper.make_tensor("size", TensorProto.INT64, [2], [work, work])
    graph = helper.make_graph(
        linear + (slow if work else []),
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, time, n_channels])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, n_classes])],
        [
            helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
            helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.ravel()),
            *([size] if work else []),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def make_bundle(
    path: Path,
    *,
    seed: int = 0,
    name: str = "tiny",
    hop: float = 0.1,
    low: float = 1.0,
    channels: tuple[str, ...] = NAMES,
    unit: str = "V",
    locked: bool = False,
    work: int = 0,
    time: int = TIME,
) -> Path:
    """A bundle for the simulated subject's 64 channels at 250 Hz: windows of 0.2 s, or of other `time` samples."""
    rng = np.random.default_rng(seed)
    weights = (rng.standard_normal((len(channels), 3)) * 1e5).astype(np.float32)
    golden = (rng.standard_normal((2, time, len(channels))) * 1e-5).astype(np.float32)
    manifest = Manifest(
        format="rtdecode-bundle",
        version=1,
        name=name,
        created="2026-01-01T00:00:00Z",
        contract=Contract(
            channels=tuple(ContractChannel(name=one, type="eeg", unit=unit) for one in channels), sfreq=SFREQ
        ),
        conditioning=Conditioning(stream=(Filter(low=low, high=40.0, order=2),)),
        windows=(
            Sliding(length=time / SFREQ, hop=hop),
            *((Locked(tmin=0.0, tmax=time / SFREQ, markers=("concept/*",)),) if locked else ()),
        ),
        encoder=Encoder(file="encoder.onnx", input="x", outputs=("logits",)),
        heads=(ClassifyHead(output="logits", labels=("a", "b", "c")),),
        golden=Golden(windows="golden.npy", outputs={"logits": "expected.npy"}, tolerance=1e-3),
    )
    expected = golden.mean(axis=1) @ weights
    write_bundle(
        path, manifest, {"encoder.onnx": encoder(weights, time, work), "golden.npy": golden, "expected.npy": expected}
    )
    return path


def expected_windows(bundle_path: Path, *, seconds: float, **simulated: Any) -> dict[tuple[Any, ...], str]:
    """Payload digest of every due window of the simulated session, decoded in this process."""
    from rtdecode.encode.bundle import Bundle

    bundle = Bundle.open(bundle_path)
    engine = make_engine(bundle)
    source = SimulatedSource(seconds=seconds, speed=None, **simulated)
    digests: dict[tuple[Any, ...], str] = {}
    with source:
        decoder = Decoder.from_bundle(bundle, source.info, engine)
        writer = ResultWriter("p", bundle.id, decoder)
        results = []
        while (batch := source.read(1.0)) is not None:
            results += decoder.push(batch.chunk, batch.markers, batch.watermark)
        results += decoder.finish()
    for result in results:
        message, arrays = writer.write(result)
        key = window_key(message)
        assert key not in digests
        digests[key] = payload_digest(message, arrays) or ""
    engine.close()
    return digests


def window_key(message: Window) -> tuple[Any, ...]:
    # Not the marker's stamp: it is on the host clock when live.
    return (message.window, message.segment, message.start, message.marker and message.marker.value)


def wait_for(condition: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
    """What `condition` gives once it is true."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"waited {timeout} s for {what}")


class Listener:
    """Everything that a pipeline publishes, collected by a thread."""

    def __init__(self, endpoint: str, processes: "list[Process]") -> None:
        self.processes = processes
        self.windows: list[tuple[Window, dict[str, Any]]] = []
        self.events: list[Event] = []
        #: Events that were published before we were there (again), and kept for us.
        self.retained: list[Event] = []
        self.health: list[Health] = []
        self.descriptions: list[Any] = []
        self._stop = threading.Event()
        self._over = threading.Event()
        self._subscriber = Subscriber(endpoint)
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        while not self._stop.is_set():
            received = self._subscriber.receive(timeout=0.05)
            if received is None:
                continue
            message = received.message
            if isinstance(message, Window):
                if not message.retained:
                    self.windows.append((message, dict(received.arrays)))
            elif isinstance(message, Event):
                (self.retained if message.retained else self.events).append(message)
            elif isinstance(message, Health):
                self.health.append(message)
                # The last thing that a pipeline says is its health, after the event that ends it.
                if self.event("end") or self.event("stop"):
                    self._over.set()
            else:
                self.descriptions.append(message)

    def connected(self) -> "Listener":
        """Wait for the description: from here on nothing is missed."""

        def described() -> bool:
            failed = [process for process in self.processes if process.process.poll()]
            assert not failed, failed[0].text
            return bool(self.descriptions)

        wait_for(described, "the description", 60.0)
        return self

    def finished(self) -> None:
        """Wait for the pipeline's last message: its process may be gone while they are still on their way to us."""
        assert self._over.wait(20.0), "the pipeline's end was never heard"

    def keys(self) -> list[tuple[Any, ...]]:
        return [window_key(message) for message, _ in list(self.windows)]

    def digests(self) -> dict[tuple[Any, ...], str | None]:
        return {window_key(message): payload_digest(message, arrays) for message, arrays in list(self.windows)}

    def event(self, kind: str) -> list[Event]:
        return [event for event in list(self.events) if event.event == kind]

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._subscriber.close()


class Process:
    """``python -m rtdecode ...`` with its output collected."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.lines: list[str] = []
        self.errors: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rtdecode", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | (env or {}),
            cwd=Path(__file__).parents[2],
        )
        self._readers = [
            threading.Thread(target=self._read, args=(pipe, into), daemon=True)
            for pipe, into in ((self.process.stdout, self.lines), (self.process.stderr, self.errors))
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(pipe: Any, into: list[str]) -> None:
        into.extend(line.rstrip("\n") for line in pipe)

    @property
    def pid(self) -> int:
        return self.process.pid

    def ready(self, timeout: float = 60.0) -> str:
        def line() -> str | None:
            found = [one for one in list(self.lines) if one.startswith("READY")]
            if not found and self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}:\n" + "\n".join(self.errors))
            return found[0] if found else None

        return str(wait_for(line, "READY", timeout))

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, timeout: float = 40.0) -> int:
        """Wait for its own end."""
        code = self.process.wait(timeout)
        for reader in self._readers:
            reader.join(5)
        return code

    def terminate(self) -> int:
        self.send(signal.SIGTERM)
        return self.end()

    @property
    def text(self) -> str:
        return "\n".join(self.errors)


def children(pid: int) -> dict[str, psutil.Process]:
    """A supervisor's processes by name: acquire, and each pipeline."""
    found = {}
    for process in psutil.Process(pid).children():
        try:
            line = process.cmdline()
        except psutil.Error:  # on its way out
            continue
        if "rtdecode" not in line:  # not yet itself
            continue
        found[line[-1] if "decode" in line else "acquire"] = process
    return found


class Session:
    """A folder with a bundle and a configuration, and processes that are gone when the test is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bus = folder / "bus"
        self.processes: list[Process] = []
        self.listeners: list[Listener] = []
        self.env = {"XDG_RUNTIME_DIR": str(folder)}

    def bundle(self, folder: str = "bundle", **what: Any) -> Path:
        return make_bundle(self.folder / folder, **what)

    def config(
        self,
        *,
        source: str = 'kind = "simulated"\nseconds = 3',
        pipelines: dict[str, str] | None = None,
        session: str = "",
        bus: str = "",
    ) -> Path:
        text = f"[session]\n{session}\n[source]\n{source}\n[bus]\n{bus}\n"
        for name, extra in (pipelines if pipelines is not None else {"p": ""}).items():
            bundle = "" if "bundle =" in extra else 'bundle = "bundle"\n'
            text += f'[pipelines.{name}]\n{bundle}publish = "ipc://{name}.out"\n{extra}\n'
        path = self.folder / "session.toml"
        path.write_text(text)
        return path

    def out(self, pipeline: str = "p") -> str:
        return f"ipc://{self.folder / f'{pipeline}.out'}"

    def start(self, *arguments: str, **env: str) -> Process:
        process = Process(*arguments, env=self.env | env)
        self.processes.append(process)
        return process

    def listen(self, pipeline: str = "p") -> Listener:
        listener = Listener(self.out(pipeline), self.processes)
        self.listeners.append(listener)
        return listener

    def end(self, run: Process) -> int:
        """Wait for the end of a run, and for all that it published; its exit code."""
        code = run.end()
        for listener in self.listeners if code == 0 else ():
            listener.finished()
        return code

    def status(self, config: Path, name: str) -> dict[str, Any]:
        """One process's answer, asked from this process; empty where there is none."""
        found = endpoints_of(self, config)
        try:
            return ask(found.acquire if name == "acquire" else found.decoders[name], Status(), 2.0)
        except ProcessError:
            return {}

    def ask(self, config: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
        process = self.start("control", str(config), *arguments, "--json")
        assert process.end() == code, process.text
        return json.loads(process.lines[0]) if code == 0 else {"error": process.text}

    def go(self, config: Path) -> None:
        """Let a source start that was told to hold for one more: everybody who is to hear it is there."""
        with zmq.Context() as context:
            client = Client(context, endpoints_of(self, config).log, "acquire")
            client.ask(Follow(name="test"), 5.0)
            client.ask(Leave(name="test"), 5.0)
            client.close()

    def close(self) -> None:
        for process in self.processes:
            if process.process.poll() is None:
                process.send(signal.SIGCONT)
                process.send(signal.SIGKILL)
            process.end()
            process.process.stdout.close()  # type: ignore[union-attr]
            process.process.stderr.close()  # type: ignore[union-attr]
        for listener in self.listeners:
            listener.close()


def endpoints_of(session: Session, config: Path) -> Endpoints:
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(session.folder)
    try:
        return endpoints(load(config))
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
