"""What a window costs on a shared Triton server, beside the same encoder in this process; paced, interleaved.

    make test-triton                       # installs a server that needs no Docker, once
    python benchmarks/triton_server.py --json triton.json

The server is started here, with its Python backend on the CPU; the encoder is one matrix product, so what differs is
the way there and back. Through shared memory, and with the samples in the message.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import accounts
import figures
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import bundles
import triton_kit

from rtdecode.encode.kserve import TritonServer
from rtdecode.encode.onnx import OnnxEngine
from rtdecode.encode.triton_link import TritonLink
from rtdecode.encode.triton_repository import ModelSettings, write_model

SHAPES = ((250, 64), (1000, 306))
PAUSE_S = 0.02


def measure(shape: tuple[int, int], windows: int, folder: Path) -> dict[str, Any]:
    """Milliseconds of each way, one window by each in turn."""
    time_, channels = shape
    rng = np.random.default_rng(0)
    onnx = bundles.linear({"y": rng.standard_normal((time_ * channels, 8)).astype(np.float32)}, time_, channels)
    folder.mkdir()
    write_model(onnx, folder / "models", "m", ModelSettings("python"))
    server = triton_kit.Server(folder, folder / "models")
    with contextlib.ExitStack() as stack:
        stack.callback(server.close)
        server.start()
        engines: dict[str, OnnxEngine | TritonLink] = {"here": OnnxEngine(onnx)}
        for name, shared in (("shared memory", "on"), ("message", "off")):
            engines[name] = TritonLink(TritonServer(server.url, "m", shared_memory=shared), ["y"])
        times: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(windows):
            window = rng.standard_normal(shape, dtype=np.float32)
            for name, engine in engines.items():
                time.sleep(PAUSE_S)
                began = time.perf_counter()
                engine.finish(window, 0)
                times[name].append((time.perf_counter() - began) * 1e3)
        for engine in engines.values():
            engine.close()
    return {"shape": shape, **{name: figures.quantiles(np.array(found)) for name, found in times.items()}}


def main() -> None:
    """Measure, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run: 5 windows")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if triton_kit.ROOT is None:
        sys.exit(triton_kit.WHY_NOT)
    machine = accounts.machine()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(shape, 5 if options.quick else 300, Path(folder) / str(n)) for n, shape in enumerate(SHAPES)]
    figures.save(options.json, {"benchmark": "triton", "machine": machine, "unit": "ms", "rows": rows})


if __name__ == "__main__":
    main()
