"""An exported graph in int8, with scales that real windows gave."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from rtdecode.errors import EngineError
from rtdecode_export.onnx import INPUT

Method = Literal["static", "dynamic"]

#: Operators that compute in int8; everything between them stays in float32.
PRODUCTS: Final = ("Conv", "Gemm", "MatMul")

#: Windows that scales are taken from, at most.
MAX_CALIBRATION: Final = 256


def quantise(data: bytes, windows: NDArray[np.float32], method: Method = "static") -> bytes:
    """A float32 graph with int8 products, weights by output channel, symmetric as TensorRT wants them.

    Products of two computed values (the scores of an attention) stay in float32: they have no weights.

    Parameters
    ----------
    data : bytes
        An ONNX file in float32.
    windows : ndarray of float32, shape (n, time, channels)
        Conditioned windows. With ``static``, the largest magnitude that each value reaches on them is 127.
    method : {"static", "dynamic"}
        ``static``: scales fixed at export, written as QuantizeLinear and DequantizeLinear. ``dynamic``: scales of the
        inputs found anew in each window, for Gemm and MatMul alone; TensorRT does not take it.

    Returns
    -------
    bytes
        The ONNX file, with a float32 input and float32 outputs.

    Raises
    ------
    EngineError
        The graph has no product with weights.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_dynamic, quantize_static

    model = ModelProto.FromString(data)
    names = _products_with_weights(model, PRODUCTS if method == "static" else PRODUCTS[1:])
    if not names:
        raise EngineError("the network has no convolution or matrix product with weights; int8 has nothing to quantise")
    common: dict[str, Any] = {
        "per_channel": True,
        "weight_type": QuantType.QInt8,
        "nodes_to_quantize": names,
    }
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        out = Path(scratch) / "int8.onnx"
        if method == "static":
            quantize_static(
                model,
                str(out),
                _Reader(windows),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(PRODUCTS),
                activation_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                # TensorRT dequantises int8 alone, so biases stay as they are.
                extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
                **common,
            )
        else:
            # It writes Gemm as MatMul, under another name, its weights transposed, and does not say so in the shapes.
            del model.graph.value_info[:]
            common["nodes_to_quantize"] = [*names, *(f"{name}_MatMul" for name in names)]
            quantize_dynamic(model, str(out), op_types_to_quantize=list(PRODUCTS[1:]), **common)
        return out.read_bytes()


class _Reader:
    """Windows one after the other, as onnxruntime's calibration asks for them."""

    def __init__(self, windows: NDArray[np.float32]) -> None:
        self._rows = iter(windows)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        window = next(self._rows, None)
        return None if window is None else {INPUT: np.ascontiguousarray(window[None])}


def _products_with_weights(model: ModelProto, operators: tuple[str, ...]) -> list[str]:
    """Names of the products with a constant second input; nodes without a name get one."""
    constants = {tensor.name for tensor in model.graph.initializer}
    names = []
    for at, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{at}"
        if node.op_type in operators and node.input[1] in constants:
            names.append(node.name)
    return names


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice, which it gives on the root logger, off the user's terminal."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)
