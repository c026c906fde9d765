"""One network in several precisions, each measured against PyTorch on the same windows."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from rtdecode.encode.consistency import MAX_TOLERANCE
from rtdecode.encode.manifest import HeadSpec
from rtdecode.encode.onnx import import_onnxruntime
from rtdecode.errors import GoldenError
from rtdecode_export.drift import LIMITS, Drift, crossed, golden_tolerance, measure
from rtdecode_export.latency import paced
from rtdecode_export.onnx import Graph, graph_of, run_model
from rtdecode_export.precision import Half, in_half, lower, rounded
from rtdecode_export.quantise import MAX_CALIBRATION, Method, quantise
from rtdecode_export.report import Variant
from rtdecode_export.tensorrt_check import check_tensorrt

Precision = Literal["fp32", "fp16", "bf16", "int8"]
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)

#: With fewer windows than this, all of them set the scales of int8 and are measured on too.
_SPLIT_FROM: Final = 8

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """The ground on which precisions are compared.

    Parameters
    ----------
    windows : ndarray of float32, shape (n, time, channels)
        Conditioned windows.
    expected : mapping of str to ndarray, shape (n, ...)
        PyTorch's outputs, in float32.
    heads : sequence of HeadSpec
        What the outputs are for.
    galleries : mapping of str to ndarray, shape (items, width)
        File name -> embeddings, for retrieval heads.
    labels : mapping of str to ndarray of int64, shape (n,)
        Output name -> right choices; -1 where unknown.
    """

    windows: Floats
    expected: Mapping[str, Floats]
    heads: Sequence[HeadSpec]
    galleries: Mapping[str, NDArray[Any]]
    labels: Mapping[str, NDArray[np.int64]]

    def exact(self, graph: Graph) -> tuple[Drift, ...]:
        """The parity of the graph in fp32, on all windows."""
        rows = np.arange(len(self.windows))
        return self.drift(self.outputs(graph.data, rows), rows, _runtime())

    def outputs(self, data: bytes, rows: NDArray[np.int64], *, as_written: bool = False) -> dict[str, Floats]:
        """What a graph gives for some of the windows."""
        return run_model(data, self.windows[rows], list(self.expected), as_written=as_written)

    def drift(self, given: Mapping[str, Floats], rows: NDArray[np.int64], how: str) -> tuple[Drift, ...]:
        """How far that is from PyTorch."""
        return measure(self.expected, given, rows, how, self.heads, self.galleries, self.labels)


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """A graph in some precision, what was measured of it, and what could not be."""

    graph: Graph
    method: str
    drift: tuple[Drift, ...]
    not_run: tuple[str, ...] = ()


def make_variant(
    precision: Precision,
    graph: Graph,
    ground: Measurement,
    parity: tuple[Drift, ...],
    *,
    tolerance: float,
    accept_drift: bool,
    latency_runs: int,
) -> tuple[Graph, Variant]:
    """One precision of an exported network, measured.

    Parameters
    ----------
    precision : {"fp32", "fp16", "bf16", "int8"}
        What the graph is to compute in.
    graph : Graph
        The network in fp32.
    ground : Measurement
        Windows, PyTorch's outputs, heads.
    parity : tuple of Drift
        Of the graph in fp32: what `Measurement.exact` gave.
    tolerance : float
        Golden tolerance of fp32, below which none is set.
    accept_drift : bool
        Whether a variant beyond its limits is made all the same.
    latency_runs : int
        Windows to time on the CPU; 0 for none.

    Raises
    ------
    GoldenError
        Its drift is beyond `rtdecode_export.drift.LIMITS`, and that was not accepted.
    EngineError
        The network cannot be put into that precision.
    """
    made = _make(precision, graph, ground, parity)
    limits = LIMITS.get(precision)
    beyond = [] if limits is None else [words for drift in made.drift for words in crossed(drift, limits)]
    worst = max(drift.share for drift in made.drift)
    if not worst <= MAX_TOLERANCE:
        raise GoldenError(f"{precision} is off by {worst:.3g} of the largest value: that is no decoder any more")
    if beyond and not accept_drift:
        raise GoldenError(
            f"{precision} drifts from fp32 by more than its limits: {'; '.join(dict.fromkeys(beyond))}. Leave it out, "
            "or say that its drift is accepted (--accept-drift)"
        )
    runs_here = not made.not_run
    untimed = () if latency_runs or made.not_run else ("latency: it was not asked for",)
    variant = Variant(
        precision=precision,
        method=made.method,
        onnx_bytes=len(made.graph.data),
        opset=made.graph.opset,
        operators=dict(made.graph.operators),
        drift=made.drift,
        golden_tolerance=golden_tolerance(precision, made.drift, tolerance),
        beyond_limits=tuple(dict.fromkeys(beyond)),
        latency=paced(made.graph.data, ground.windows, latency_runs, precision) if latency_runs and runs_here else None,
        tensorrt=check_tensorrt(made.graph.data),
        runs_here=runs_here,
        not_run=(*made.not_run, *untimed),
    )
    return made.graph, variant


def _make(precision: Precision, graph: Graph, ground: Measurement, parity: tuple[Drift, ...]) -> _Made:
    if precision == "fp32":
        return _Made(graph, "as exported", parity)
    return _int8(graph, ground) if precision == "int8" else _half(precision, graph, ground)


def _half(precision: Half, graph: Graph, ground: Measurement) -> _Made:
    rows = np.arange(len(ground.windows))
    lowered = graph_of(ModelProto.FromString(lower(graph.data, precision)), graph.folded)
    method = f"{', '.join(in_half(graph.data))} in {precision}, all else in float32"
    exact = ground.outputs(rounded(graph.data, precision), rows, as_written=True)
    drift = ground.drift(exact, rows, f"float32, each result rounded to {precision}")
    no_kernel = _no_kernel()
    try:
        given = ground.outputs(lowered.data, rows)
    except no_kernel as error:
        missing = re.search(r"implementation for (\w+)\(", str(error))
        operator = missing[1] if missing else str(error)
        return _Made(lowered, method, drift, (f"{_runtime()} has no {precision} kernel for {operator}",))
    return _Made(lowered, method, (*drift, *ground.drift(given, rows, _runtime())))


def _int8(graph: Graph, ground: Measurement) -> _Made:
    """Static int8; dynamic where static is beyond the limits and dynamic is not."""
    n = len(ground.windows)
    split = n >= _SPLIT_FROM
    calibration = np.arange(0, n, 2 if split else 1)[:MAX_CALIBRATION]
    rows = np.setdiff1d(np.arange(n), calibration) if split else np.arange(n)
    apart = f"{len(rows)} others" if split else "the same"
    first = _quantised("static", graph, ground, calibration, rows, apart)
    if not any(crossed(drift, LIMITS["int8"]) for drift in first.drift):
        return first
    second = _quantised("dynamic", graph, ground, calibration, rows, apart)
    return first if any(crossed(drift, LIMITS["int8"]) for drift in second.drift) else second


def _quantised(
    method: Method,
    graph: Graph,
    ground: Measurement,
    calibration: NDArray[np.int64],
    rows: NDArray[np.int64],
    apart: str,
) -> _Made:
    made = graph_of(ModelProto.FromString(quantise(graph.data, ground.windows[calibration], method)), graph.folded)
    words = {
        "static": f"int8 products, scales from {len(calibration)} real windows, measured on {apart}",
        "dynamic": "int8 Gemm and MatMul, scales found in each window",
    }
    return _Made(made, words[method], ground.drift(ground.outputs(made.data, rows), rows, _runtime()))


def _runtime() -> str:
    return f"onnxruntime {import_onnxruntime().__version__}, CPU"


def _no_kernel() -> type[Exception]:
    """What onnxruntime raises for an operator that a provider does not have in some type."""
    import_onnxruntime()
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

    kind: type[Exception] = NoKernel
    return kind
