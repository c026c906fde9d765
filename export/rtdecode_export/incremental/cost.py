"""How much arithmetic a node is: multiply-adds, and for the rest of the operators their like."""

import math

from onnx import NodeProto

from rtdecode_export.incremental.graph import Source

#: An exponential or its like counts as so many multiply-adds.
_CURVED = 8
_CURVED_NAMES = "Celu Elu Erf Exp Gelu Log Mish Pow Selu Sigmoid Softmax Softplus Sqrt Tanh"
_CURVES = frozenset(_CURVED_NAMES.split())
#: Moves numbers, computes none.
_FREE_NAMES = "Cast Concat Expand Flatten Gather Identity Pad Reshape Slice Split Squeeze Transpose Unsqueeze"
_FREE = frozenset(_FREE_NAMES.split())


def arithmetic(node: NodeProto, source: Source) -> float:
    """Multiply-adds of a node for a whole window.

    A convolution: for each number that comes out, a product for each of its kernel's weights. A matrix product: one for
    each number along the axis that is summed over. What moves over numbers without a product: one for each it reads.
    """
    out = sum(math.prod(source.shapes.get(name, (0,))) for name in node.output if name)
    if node.op_type in _FREE:
        return 0.0
    if node.op_type in {"Conv", "ConvTranspose"}:
        weight = source.constants.get(node.input[1])
        return float(out * math.prod(weight.shape[1:])) if weight is not None else float(out)
    if node.op_type in {"MatMul", "Gemm"}:
        return float(out * _summed(node, source))
    read = sum(math.prod(source.shapes.get(name, (0,))) for name in node.input if name not in source.constants)
    return float(max(out, read) * (_CURVED if node.op_type in _CURVES else 1))


def _summed(node: NodeProto, source: Source) -> int:
    name = node.input[0]
    shape = source.shapes.get(name) or source.constants[name].shape
    across = node.op_type == "Gemm" and any(one.name == "transA" and one.i for one in node.attribute)
    return int(shape[0] if across else shape[-1])
