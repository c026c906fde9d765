"""A first layer that is linear over positions and features, summed up while positions come."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from rtdecode_export.incremental.graph import Source, attribute
from rtdecode_export.incremental.split import Cut

#: What leaves every number as it is, and moves it at most.
_MOVES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity"})


@dataclass(frozen=True, slots=True, eq=False)
class First:
    """The layer, y = sum over p and f of x[p, f] weights[p, f] + shift.

    A flattened tensor times a matrix is a sum over all its numbers, in whatever order they stand: the matrix's rows
    are put in the order (position, feature), and the sum may be taken position by position. Rounding apart, nothing
    changes.

    Parameters
    ----------
    source : Source
        The graph that it is of.
    nodes : list of NodeProto
        What it stands for; the last one is the product.
    rows : ndarray of int64
        Row of the matrix for each (position, feature).
    width : int
        Numbers that it gives.
    """

    source: Source
    nodes: list[NodeProto]
    rows: NDArray[np.int64]
    width: int

    @property
    def output(self) -> str:
        """The tensor that it gives."""
        return str(self.nodes[-1].output[0])

    @property
    def products(self) -> int:
        """Multiply-adds of it."""
        return len(self.rows) * self.width

    def weights(self) -> NDArray[np.float32]:
        """Float32, shape (positions x features + 1, width); the last row is the shift."""
        node = self.nodes[-1]
        weight = _matrix(node, self.source) * np.float32(attribute(node, "alpha", 1.0))
        shift = np.zeros((1, self.width), np.float32)
        if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]:
            shift += self.source.constants[node.input[2]].reshape(-1) * np.float32(attribute(node, "beta", 1.0))
        return np.concatenate([weight[self.rows], shift])


def first_layer(cut: Cut) -> First | None:
    """The first layer of the second part of a cut, where it is one; else None."""
    if len(cut.boundary) != 1 or cut.takes_window:
        return None
    source, name = cut.source, cut.boundary[0]
    track = cut.tracks[name]
    nodes: list[NodeProto] = []
    places = np.arange(math.prod(track.shape)).reshape(track.shape)
    while not nodes or nodes[-1].op_type in _MOVES:
        users = source.users(name)
        if len(users) != 1 or name in source.outputs or users[0].input[0] != name:
            return None
        nodes.append(users[0])
        if users[0].op_type in _MOVES:
            places, name = _moved(users[0], places, source), users[0].output[0]
    product = nodes[-1]
    if not _is_product(product, source) or places.shape[-1] != places.size:
        return None
    weight = _matrix(product, source)
    if len(weight) != places.size:
        return None
    # Row i of the matrix takes number places.ravel()[i] of the tensor; the rows are wanted by (position, feature).
    order = np.moveaxis(np.arange(places.size).reshape(track.shape), track.axis, 0).ravel()
    row_of = np.empty(places.size, np.int64)
    row_of[places.ravel()] = np.arange(places.size)
    return First(source, nodes, row_of[order], weight.shape[1])


def _moved(node: NodeProto, places: NDArray[np.int64], source: Source) -> NDArray[np.int64]:
    if node.op_type == "Transpose":
        return places.transpose(attribute(node, "perm", list(range(places.ndim))[::-1]))
    return places.reshape(source.shapes[node.output[0]])


def _is_product(node: NodeProto, source: Source) -> bool:
    """Whether a node is a product with a constant matrix, and a constant shift."""
    if node.op_type not in {"Gemm", "MatMul"} or attribute(node, "transA", 0):
        return False
    given = [name for name in node.input[1:] if name]
    return all(name in source.constants for name in given) and source.constants[given[0]].ndim == 2


def _matrix(node: NodeProto, source: Source) -> NDArray[np.float32]:
    """The matrix, shape (numbers, width)."""
    weight: NDArray[np.float32] = source.constants[node.input[1]]
    return weight.T if attribute(node, "transB", 0) else weight
