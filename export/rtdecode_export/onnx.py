"""PyTorch to ONNX, and the proof that both give the same numbers."""

import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rtdecode.encode.onnx import import_onnxruntime
from rtdecode.errors import EngineError

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
    """

    data: bytes
    opset: int
    operators: Mapping[str, int]


def to_onnx(module: torch.nn.Module, window_shape: tuple[int, int], outputs: Sequence[str]) -> Graph:
    """Export a module for windows of one fixed shape, in evaluation mode.

    Parameters
    ----------
    module : Module
        Maps (1, time, channels) to a tensor, a tuple of tensors or a dictionary of them. Left in the mode it was in.
    window_shape : tuple of int
        (time, channels).
    outputs : sequence of str
        Names of the outputs, in the module's order.

    Returns
    -------
    Graph
        One input, `INPUT`, and the named outputs, all of fixed shape.

    Raises
    ------
    EngineError
        The exporter cannot express the module.
    """
    example = (torch.zeros(1, *window_shape),)
    with _evaluating(module), _quiet():
        try:
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                external_data=False,
                input_names=[INPUT],
                output_names=list(outputs),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise EngineError(
                f"{type(module).__name__} cannot be exported to ONNX for a window of {window_shape[0]} samples by "
                f"{window_shape[1]} channels: {_first_line(error)}"
            ) from error
    if program is None:
        raise EngineError(f"the ONNX exporter gave nothing for {type(module).__name__}")
    model = program.model_proto
    given = [output.name for output in model.graph.output]
    if given != list(outputs):
        raise EngineError(f"{type(module).__name__} has outputs {given}; expected {list(outputs)}")
    opset = next(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"})
    operators = Counter(node.op_type for node in model.graph.node)
    return Graph(model.SerializeToString(), opset, dict(sorted(operators.items())))


def run_torch(
    module: torch.nn.Module, windows: NDArray[np.float32], outputs: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Outputs of the module, one window at a time as they will be run: output name -> (n, ...)."""
    rows: dict[str, list[NDArray[np.float32]]] = {name: [] for name in outputs}
    with _evaluating(module), torch.no_grad():
        for window in windows:
            given = module(torch.from_numpy(np.array(window[None])))
            for name, value in zip(outputs, _as_tuple(given), strict=True):
                rows[name].append(value[0].numpy().astype(np.float32))
    return {name: np.stack(values) for name, values in rows.items()}


def run_onnx(graph: Graph, windows: NDArray[np.float32], outputs: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Outputs of the exported graph in onnxruntime on one thread, one window at a time: output name -> (n, ...)."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(graph.data, options, providers=["CPUExecutionProvider"])
    rows = [session.run(list(outputs), {INPUT: np.ascontiguousarray(window[None])}) for window in windows]
    return {name: np.concatenate([row[i] for row in rows]) for i, name in enumerate(outputs)}


def largest_errors(
    expected: Mapping[str, NDArray[np.float32]], given: Mapping[str, NDArray[np.float32]]
) -> dict[str, float]:
    """Largest absolute difference of each output."""
    return {name: float(np.abs(given[name] - value).max()) for name, value in expected.items()}


def _as_tuple(given: object) -> tuple[torch.Tensor, ...]:
    if isinstance(given, torch.Tensor):
        return (given,)
    if isinstance(given, Mapping):
        return tuple(given.values())
    if isinstance(given, Sequence):
        return tuple(given)
    raise EngineError(f"a module gave {type(given).__name__}; expected a tensor, a tuple or a dictionary of tensors")


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0] if lines else type(cause).__name__


@contextlib.contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress lines and its deprecation warnings about itself off the user's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
