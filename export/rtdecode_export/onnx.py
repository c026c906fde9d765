"""PyTorch to ONNX, and the proof that both give the same numbers."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from rtdecode.encode.onnx import import_onnxruntime
from rtdecode.errors import EngineError
from rtdecode_export.fold import Folded, check_deployable, computing, fold

#: The name of the one input, of shape (1, time, channels).
INPUT = "window"


@dataclass(frozen=True, slots=True)
class Graph:
    """An exported network.

    Parameters
    ----------
    data : bytes
        The ONNX file, weights inside.
    opset : int
        Version of ONNX's operator set.
    operators : mapping of str to int
        Operator -> how many nodes of the graph are one.
    folded : Folded
        What of the network was computed at export, once and for all.
    """

    data: bytes
    opset: int
    operators: Mapping[str, int]
    folded: Folded


def to_onnx(module: torch.nn.Module, window_shape: tuple[int, int], outputs: Sequence[str]) -> Graph:
    """Export a module for windows of one fixed shape, in evaluation mode, and fold its constants.

    Parameters
    ----------
    module : Module
        Maps (1, time, channels) to a tensor, a tuple of tensors or a dictionary of them. Left in the mode it was in.
    window_shape : tuple of int
        (time, channels).
    outputs : sequence of str
        Names of the outputs, in the module's order; of a dictionary, those that are wanted.

    Returns
    -------
    Graph
        One input, `INPUT`, and the named outputs, all of fixed shape.

    Raises
    ------
    EngineError
        The exporter cannot express the module, or what it gives cannot be deployed (`check_deployable`).
    """
    name = type(module).__name__
    example = (torch.zeros(1, *window_shape),)
    with _evaluating(module), _quiet():
        try:
            program = torch.onnx.export(
                _Outputs(module, outputs).eval(),
                example,
                dynamo=True,
                external_data=False,
                input_names=[INPUT],
                output_names=list(outputs),
                optimize=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise EngineError(
                f"{name} cannot be exported to ONNX for a window of {window_shape[0]} samples by "
                f"{window_shape[1]} channels: {_first_line(error)}"
            ) from error
        if program is None:
            raise EngineError(f"the ONNX exporter gave nothing for {name}")
        before = computing(program.model_proto)
        program.optimize()
    model = program.model_proto
    given = [output.name for output in model.graph.output]
    if given != list(outputs):
        raise EngineError(f"{name} has outputs {given}; expected {list(outputs)}")
    fold(model)
    check_deployable(model, name)
    after = computing(model)
    gone = Folded(before.total(), after.total(), dict(sorted((before - after).items())))
    return graph_of(model, gone)


def graph_of(model: ModelProto, folded: Folded) -> Graph:
    """A model as bytes, with what it holds."""
    opset = next(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"})
    return Graph(model.SerializeToString(), opset, dict(sorted(computing(model).items())), folded)


def run_torch(
    module: torch.nn.Module, windows: NDArray[np.float32], outputs: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Outputs of the module, one window at a time as they will be run: output name -> (n, ...).

    Raises
    ------
    EngineError
        An output is not (1, ...) of floating-point numbers, or holds some that are not finite.
    """
    rows: dict[str, list[NDArray[np.float32]]] = {name: [] for name in outputs}
    with _evaluating(module), torch.no_grad():
        for place, window in enumerate(windows):
            given = _named(module(torch.from_numpy(np.array(window[None]))), outputs)
            for name, value in zip(outputs, given, strict=True):
                _check_output(name, value, place)
                rows[name].append(value[0].numpy().astype(np.float32))
    return {name: np.stack(values) for name, values in rows.items()}


def _check_output(name: str, value: torch.Tensor, window: int) -> None:
    if not value.is_floating_point() or value.ndim < 2 or len(value) != 1:
        kind = str(value.dtype).removeprefix("torch.")
        raise EngineError(
            f"the network's output {name!r} is {kind} of shape {tuple(value.shape)} for one window; expected "
            "float32 of shape (1, ...)"
        )
    if not bool(torch.isfinite(value).all()):
        raise EngineError(
            f"the network's output {name!r} holds NaN or Inf on window {window}, in PyTorch already: look at "
            "its weights"
        )


def run_onnx(graph: Graph, windows: NDArray[np.float32], outputs: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Outputs of the exported graph in onnxruntime on one thread, one window at a time: output name -> (n, ...)."""
    return run_model(graph.data, windows, outputs)


def run_model(
    data: bytes, windows: NDArray[np.float32], outputs: Sequence[str], *, as_written: bool = False
) -> dict[str, NDArray[np.float32]]:
    """Outputs of an ONNX file in onnxruntime, as for `run_onnx`.

    Parameters
    ----------
    as_written : bool
        Run every node as it stands, without onnxruntime's optimisations, which would take out roundings.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if as_written:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    rows = [session.run(list(outputs), {INPUT: np.ascontiguousarray(window[None])}) for window in windows]
    return {name: np.concatenate([row[i] for row in rows]) for i, name in enumerate(outputs)}


def largest_errors(
    expected: Mapping[str, NDArray[np.float32]], given: Mapping[str, NDArray[np.float32]]
) -> dict[str, float]:
    """Largest absolute difference of each output."""
    return {name: float(np.abs(given[name] - value).max()) for name, value in expected.items()}


class _Outputs(torch.nn.Module):
    """A module whose outputs are a tuple, in the order of their names."""

    def __init__(self, module: torch.nn.Module, outputs: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self.outputs = tuple(outputs)

    def forward(self, window: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return _named(self.module(window), self.outputs)


def _named(given: object, outputs: Sequence[str]) -> tuple[torch.Tensor, ...]:
    """What a module gave, in the order of the outputs' names; of a dictionary, those that are asked for."""
    if isinstance(given, Mapping):
        if missing := [name for name in outputs if name not in given]:
            raise EngineError(f"the network gives the outputs {', '.join(given)}; expected {', '.join(missing)} too")
        return tuple(given[name] for name in outputs)
    if isinstance(given, torch.Tensor):
        given = (given,)
    if not isinstance(given, Sequence):
        raise EngineError(
            f"a module gave {type(given).__name__}; expected a tensor, a tuple or a dictionary of tensors"
        )
    if len(given) != len(outputs):
        raise EngineError(f"the network gives {len(given)} outputs; expected {len(outputs)}: {', '.join(outputs)}")
    return tuple(given)


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0] if lines else type(cause).__name__


@contextlib.contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Every part of the module in evaluation mode for a while, then each in the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress lines, its dumps of a failure and warnings about itself off the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)  # torch logs tracebacks of what it raises, and its graph: the error says it
    try:
        nowhere = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
