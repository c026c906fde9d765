"""How long the daemon's own engine takes for a window, at a live stream's pace."""

import time
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.onnx import OnnxEngine

#: Seconds between windows. Run without pause, caches and clock rates are those of no live stream.
PAUSE_S: Final = 0.02


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Of `rtdecode.encode.onnx.OnnxEngine.finish`, on the CPU.

    Parameters
    ----------
    p50_ms, p99_ms : float
        Quantiles.
    runs : int
        Windows.
    pause_ms : float
        Between one window and the next.
    threads : int
        Of onnxruntime.
    runtime : str
        Library and version.
    cpu : str
        The processor, as the system names it.
    """

    p50_ms: float
    p99_ms: float
    runs: int
    pause_ms: float
    threads: int
    runtime: str
    cpu: str


def paced(onnx: bytes, windows: NDArray[np.float32], runs: int, precision: str, threads: int = 1) -> Latency:
    """Encode windows on the CPU, with a pause before each.

    Parameters
    ----------
    onnx : bytes
        The encoder.
    windows : ndarray of float32, shape (n, time, channels)
        Run again and again, in turn.
    runs : int
        How many.
    precision : str
        For the engine's description.
    threads : int
        Inside one operator.
    """
    engine = OnnxEngine(onnx, precision=precision, threads=threads)
    taken = np.empty(runs)
    try:
        for run in range(runs):
            time.sleep(PAUSE_S)
            began = time.perf_counter()
            engine.finish(windows[run % len(windows)], 0)
            taken[run] = time.perf_counter() - began
    finally:
        engine.close()
    p50, p99 = np.quantile(taken * 1e3, [0.5, 0.99])
    return Latency(
        p50_ms=round(float(p50), 4),
        p99_ms=round(float(p99), 4),
        runs=runs,
        pause_ms=PAUSE_S * 1e3,
        threads=engine.info.threads,
        runtime=engine.info.runtime,
        cpu=_cpu(),
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
