"""Exact rewriting of a graph that takes less arithmetic: each pass is small, and done only where it pays."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from rtdecode_export.incremental.graph import Source, attribute, set_attribute


def simplify(source: Source) -> Source:
    """The same encoder in less arithmetic, rounding apart: batch norms and means that go into a convolution."""
    while (less := _norm_into_conv(source) or _mean_into_conv(source)) is not None:
        source = less
    return source


def _norm_into_conv(source: Source) -> Source | None:
    """A batch norm behind a convolution, with constants a[c] and b[c] for each channel: a (w * x + s) + b.

    That is (a w) * x + (a s + b), a convolution with other weights.
    """
    for conv, norm in _pairs(source, "BatchNormalization"):
        scale, shift, mean, var = (source.constants[name].astype(np.float64) for name in norm.input[1:5])
        a = scale / np.sqrt(var + attribute(norm, "epsilon", 1e-5))
        weight, bias = _weights(conv, source)
        wide = a.reshape(-1, *[1] * (weight.ndim - 1))
        return _merged(source, conv, norm, weight * wide, a * (bias - mean) + shift, {})
    return None


def _mean_into_conv(source: Source) -> Source | None:
    """A mean of m neighbouring outputs of a convolution of k inputs, taken every s: one convolution of k + m - 1.

    mean over i of sum over j of w[j] x[p s + i + j] = sum over l of (w conv box)[l] x[p s + l], with a box of m times
    1 / m. The convolution takes k products for each output and the other (k + m - 1) for each of 1 / s as many, so it
    pays where k + m - 1 < k s. Where padding is set between the two, or the convolution leaves places out, that is not
    so, and they stay.
    """
    for conv, pool in _pairs(source, "AveragePool"):
        weight, bias = _weights(conv, source)
        spatial = weight.ndim - 2
        ones, size = [1] * spatial, list(attribute(pool, "kernel_shape"))
        steps = list(attribute(pool, "strides", ones))
        moved = [*attribute(pool, "pads", [0]), *attribute(conv, "pads", [0])]
        simple = attribute(conv, "strides", ones) == ones and attribute(conv, "dilations", ones) == ones
        plain = attribute(pool, "dilations", ones) == ones and not attribute(pool, "ceil_mode", 0)
        auto = any(attribute(node, "auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"} for node in (conv, pool))
        longer = [k + m - 1 for k, m in zip(weight.shape[2:], size, strict=True)]
        pays = np.prod(longer) < np.prod(weight.shape[2:]) * np.prod(steps)
        if not (simple and plain and pays) or any(moved) or auto:
            continue
        attributes = {"kernel_shape": longer, "strides": steps}
        return _merged(source, conv, pool, _boxed(weight, size), bias, attributes)
    return None


def _boxed(weight: NDArray[np.float64], size: list[int]) -> NDArray[np.float64]:
    """Kernels convolved with a box whose numbers add up to 1."""
    for at, m in enumerate(size, start=2):
        pads = [(m - 1, m - 1) if axis == at else (0, 0) for axis in range(weight.ndim)]
        weight = np.lib.stride_tricks.sliding_window_view(np.pad(weight, pads), m, axis=at).mean(axis=-1)
    return weight


def _pairs(source: Source, operator: str) -> list[tuple[NodeProto, NodeProto]]:
    """Convolutions with constant weights of which one node of a kind alone takes the output."""
    made = {node.output[0]: node for node in source.nodes if node.op_type == "Conv"}
    found = []
    for node in source.nodes:
        conv = made.get(node.input[0]) if node.op_type == operator and len(node.output) == 1 else None
        if conv is None or len(source.users(conv.output[0])) != 1 or conv.output[0] in source.outputs:
            continue
        given = [*conv.input[1:], *node.input[1:]]
        if all(name in source.constants for name in given if name) and not attribute(node, "training_mode", 0):
            found.append((conv, node))
    return found


def _weights(conv: NodeProto, source: Source) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    weight = source.constants[conv.input[1]].astype(np.float64)
    given = len(conv.input) > 2 and conv.input[2]
    return weight, source.constants[conv.input[2]].astype(np.float64) if given else np.zeros(len(weight))


def _merged(
    source: Source,
    conv: NodeProto,
    node: NodeProto,
    weight: NDArray[np.float64],
    bias: NDArray[np.float64],
    attributes: dict[str, list[int]],
) -> Source:
    """The graph with one convolution in place of a convolution and the node behind it."""
    made = NodeProto()
    made.CopyFrom(conv)
    names = [f"{node.output[0]}.weight", f"{node.output[0]}.bias"]
    made.input[:] = [conv.input[0], *names]
    made.output[:] = [node.output[0]]
    for name, value in attributes.items():
        set_attribute(made, name, value)
    values = (weight.astype(np.float32), bias.astype(np.float32))
    constants = source.constants | dict(zip(names, values, strict=True))
    nodes = tuple(made if one is node else one for one in source.nodes if one is not conv)
    return replace(source, nodes=nodes, constants=constants)
