"""Whether TensorRT takes an exported graph: operator by operator from a list, and by its own parser where that is here.

The parser is that of TensorRT for RTX, whose wheels are on PyPI and which reads a graph without a GPU::

    pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings

They are NVIDIA's, proprietary and large (230 MB installed), so nothing here depends on them. That a graph is parsed
says that every operator, with its attributes and types, has a counterpart; not how fast it runs, nor that an engine
fits a GPU.
"""

import importlib
import importlib.util
from typing import Any, Final

import msgspec
from onnx import ModelProto, NodeProto, TensorProto

_OPERATORS: Final = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization BlackmanWindow
Cast CastLike CausalConvWithState Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum
DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather
GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample
GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity If InstanceNormalization IsInf
IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual LinearAttention Log LogSoftmax Loop LpNormalization
LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or
PRelu Pad Pow QuantizeLinear RMSNormalization RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range
Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign RotaryEmbedding Round STFT Scan Scatter ScatterElements
ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze
Sub Sum Swish Tan Tanh TensorScatter ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""

#: Whose list `OPERATORS` is: every operator of ONNX was put to this parser's ``supports_operator``.
LIST_OF: Final = "TensorRT for RTX 1.7.1.116"

OPERATORS: Final = frozenset(_OPERATORS.split())

_BINDINGS: Final = "tensorrt_rtx_bindings"


class OperatorCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One operator of a graph: how often it stands there, and why it is not taken; empty where it is."""

    count: int
    problem: str = ""


class TensorRT(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a graph and TensorRT.

    Parameters
    ----------
    list_of : str
        The release whose operator list was used.
    operators : dict
        Operator -> what the list says.
    parser : str
        The parser that read the graph; empty where none was at hand, and then the graph was not parsed.
    problems : tuple of str
        What the parser said. Empty where it took the graph.
    """

    list_of: str = LIST_OF
    operators: dict[str, OperatorCheck]
    parser: str = ""
    problems: tuple[str, ...] = ()

    @property
    def taken(self) -> bool:
        """Whether nothing speaks against it, as far as it was looked at."""
        return not self.problems and not any(operator.problem for operator in self.operators.values())


def check_tensorrt(onnx: bytes) -> TensorRT:
    """Look up every operator of a graph, and have it parsed where the bindings are installed."""
    operators = check_operators(ModelProto.FromString(onnx))
    if importlib.util.find_spec(_BINDINGS) is None:
        return TensorRT(operators=operators)
    version, problems = parse(onnx)
    return TensorRT(operators=operators, parser=f"TensorRT for RTX {version}", problems=problems)


def check_operators(model: ModelProto) -> dict[str, OperatorCheck]:
    """What the list says of each operator of a graph, by name."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    found: dict[str, OperatorCheck] = {}
    for node in model.graph.node:
        before = found.get(node.op_type, OperatorCheck(count=0))
        found[node.op_type] = OperatorCheck(count=before.count + 1, problem=before.problem or _problem(node, types))
    return dict(sorted(found.items()))


def _problem(node: NodeProto, types: dict[str, int]) -> str:
    if node.domain not in {"", "ai.onnx"}:
        return f"of the domain {node.domain!r}"
    if node.op_type not in OPERATORS:
        return "not in the list"
    if node.op_type == "DequantizeLinear" and types.get(node.input[0]) == TensorProto.INT32:
        return "dequantises int32; only 8 and 4 bits are taken"
    if node.op_type == "MaxPool" and len(node.output) > 1:
        return "gives indices, which are not taken"
    return ""


def parse(onnx: bytes) -> tuple[str, tuple[str, ...]]:
    """Have TensorRT's parser read a graph: its version, and its errors.

    Raises
    ------
    ImportError
        The bindings are not installed, or their libraries do not load.
    """
    trt: Any = importlib.import_module(_BINDINGS)

    class Silent(trt.ILogger):  # type: ignore[misc]  # the bindings have no types
        """TensorRT says on the terminal what the parser's errors say too."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: object, message: str) -> None:
            """Nothing."""

    logger = Silent()
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if parser.parse(onnx):
        return trt.__version__, ()
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    return trt.__version__, tuple(f"{e.node_operator()} {e.node_name()}: {_one_line(e.desc())}" for e in errors)


def _one_line(text: str) -> str:
    return " ".join(text.split())
