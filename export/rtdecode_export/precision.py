"""An exported graph in half precision, with everything that would lose by it left in float32.

TensorRT 11 takes the precision of every operator from the graph, so the graph says it: convolutions and matrix
products compute in fp16 or bf16, with what lies between them; normalisations, softmax, norms and every other reduction
compute in float32, as does everything that is not named here. The window comes and the outputs leave as float32.
"""

from collections.abc import Sequence
from typing import Final, Literal

import ml_dtypes
import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference, version_converter

from rtdecode.errors import EngineError

Half = Literal["fp16", "bf16"]

#: Computed in half precision wherever they stand: the work is here, and units that compute it accumulate in float32.
PRODUCTS: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

_FOLLOWING = """
Abs Add Celu Clip Concat DepthToSpace Div Elu Expand Flatten Gather Gelu HardSigmoid HardSwish Identity LeakyRelu Max
MaxPool Min Mul Neg PRelu Pad Relu Reshape Selu Sigmoid Slice SpaceToDepth Split Squeeze Sub Tanh Tile Transpose
Unsqueeze Where
"""

#: Computed in half precision between two such operators, and in float32 where a float32 value comes in, or a constant
#: that half precision does not hold.
FOLLOWING: Final = frozenset(_FOLLOWING.split())

#: ONNX lets a convolution compute in bf16 from this operator set on.
BF16_OPSET: Final = 22

_TYPES: Final = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_DTYPES: Final = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
_LARGEST: Final = {"fp16": 65504.0, "bf16": 3.3895e38}


def lower(data: bytes, precision: Half) -> bytes:
    """A float32 graph in fp16 or bf16.

    Parameters
    ----------
    data : bytes
        An ONNX file in float32, as `rtdecode_export.onnx.to_onnx` writes it.
    precision : {"fp16", "bf16"}
        Of the products and what lies between them.

    Returns
    -------
    bytes
        The ONNX file, with a float32 input and float32 outputs.

    Raises
    ------
    EngineError
        A weight is too large for fp16.
    """
    return bytes(_Lowering(data, precision, rounded=False).model().SerializeToString())


def rounded(data: bytes, precision: Half) -> bytes:
    """The same in float32: each operator computes in float32, and its result is rounded to half precision.

    This is what hardware with float32 accumulators computes. It runs where there are no kernels for the precision, and
    where a runtime would leave roundings out.
    """
    return bytes(_Lowering(data, precision, rounded=True).model().SerializeToString())


def in_half(data: bytes) -> tuple[str, ...]:
    """The operators of a float32 graph that `lower` puts into half precision, each once."""
    lowering = _Lowering(data, "bf16", rounded=True)
    lowering.model()
    return tuple(sorted(lowering.operators))


class _Lowering:
    def __init__(self, data: bytes, precision: Half, *, rounded: bool) -> None:
        model = ModelProto.FromString(data)
        if precision == "bf16" and model.opset_import[0].version < BF16_OPSET:
            model = version_converter.convert_version(model, BF16_OPSET)
        self._source = shape_inference.infer_shapes(model, strict_mode=True)
        self._precision, self._rounded = precision, rounded
        self._type, self._dtype = _TYPES[precision], _DTYPES[precision]
        graph = self._source.graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        values = [*graph.input, *graph.output, *graph.value_info]
        self._floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
        self._floats |= {name for name, tensor in self._constants.items() if tensor.data_type == TensorProto.FLOAT}
        self._outputs = {value.name for value in graph.output}
        self._half: dict[str, str] = {}  # value -> its name in half precision
        self._nodes: list[NodeProto] = []
        self._made: set[str] = set()
        self._tensors: dict[str, TensorProto] = {}
        self.operators: set[str] = set()

    def model(self) -> ModelProto:
        for node in self._source.graph.node:
            self._add(node)
        graph = self._source.graph
        made = helper.make_graph(self._nodes, graph.name, graph.input, graph.output, list(self._tensors.values()))
        model = helper.make_model(made, opset_imports=self._source.opset_import, ir_version=self._source.ir_version)
        return shape_inference.infer_shapes(model, check_type=True, strict_mode=True)

    def _add(self, node: NodeProto) -> None:
        half = self._in_half(node)
        if half:
            self.operators.add(node.op_type)
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [self._as(name, half) for name in node.input]
        after = []
        for place, name in enumerate(node.output):
            if not half or name not in self._floats:
                continue
            self._half[name] = name
            if self._rounded:
                copy.output[place] = f"{name}.exact"
                after += self._rounding(copy.output[place], name)
            elif name in self._outputs:
                copy.output[place] = self._half[name] = f"{name}.half"
                after.append(_cast(copy.output[place], name, TensorProto.FLOAT))
        self._nodes += [copy, *after]

    def _in_half(self, node: NodeProto) -> bool:
        if node.op_type in PRODUCTS:
            return True
        if node.op_type not in FOLLOWING or (node.op_type == "Mul" and node.input[0] == node.input[1]):
            return False  # a square overflows first
        floats = [name for name in node.input if name in self._floats]
        computed = [name for name in floats if name not in self._constants]
        fitting = all(self._fits(name) for name in floats if name in self._constants)
        return bool(computed) and all(name in self._half for name in computed) and fitting

    def _fits(self, name: str) -> bool:
        """Whether a constant is still there in half precision: a mask's -1e9 is not, nor is an epsilon of 1e-12."""
        value = numpy_helper.to_array(self._constants[name])
        with np.errstate(over="ignore"):
            lowered = value.astype(self._dtype).astype(np.float32)
        return bool((np.isfinite(lowered) & ((lowered != 0) | (value == 0))).all())

    def _as(self, name: str, half: bool) -> str:
        """The name of a value in the precision that a node wants."""
        if name in self._constants:
            return self._constant(name, half and name in self._floats)
        if name not in self._floats:
            return name
        if half and name in self._half:
            return self._half[name]
        if not half:
            if name not in self._half or self._rounded or name in self._outputs:
                return name
            return self._once(f"{name}.single", [_cast(name, f"{name}.single", TensorProto.FLOAT)])
        if self._rounded:
            return self._once(f"{name}.half", self._rounding(name, f"{name}.half"))
        return self._once(f"{name}.half", [_cast(name, f"{name}.half", self._type)])

    def _once(self, name: str, nodes: Sequence[NodeProto]) -> str:
        if name not in self._made:
            self._made.add(name)
            self._nodes += nodes
        return name

    def _constant(self, name: str, half: bool) -> str:
        wanted = f"{name}.half" if half else name
        if wanted not in self._tensors:
            self._tensors[wanted] = self._half_constant(name, wanted) if half else self._constants[name]
        return wanted

    def _half_constant(self, name: str, wanted: str) -> TensorProto:
        value = numpy_helper.to_array(self._constants[name])
        limit = _LARGEST[self._precision]
        if value.size and (largest := float(np.abs(value).max())) > limit:
            raise EngineError(
                f"the constant {name!r} reaches {largest:.3g}, more than {self._precision} holds ({limit:.3g})"
            )
        value = value.astype(self._dtype)
        return numpy_helper.from_array(value.astype(np.float32) if self._rounded else value, wanted)

    def _rounding(self, name: str, out: str) -> list[NodeProto]:
        return [_cast(name, f"{out}.bits", self._type), _cast(f"{out}.bits", out, TensorProto.FLOAT)]


def _cast(name: str, out: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [name], [out], to=to)
