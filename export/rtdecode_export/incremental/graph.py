"""An ONNX graph of fixed shapes, as the rules read it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from rtdecode.errors import EngineError
from rtdecode_export.fold import fold


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """An encoder's graph.

    Parameters
    ----------
    nodes : tuple of NodeProto
        In an order in which they can run.
    constants : dict of str to ndarray
        Every tensor that is the same for each window.
    shapes : dict of str to tuple of int
        Shape of every other tensor.
    floats : set of str
        Those of them that are float32.
    input : str
        The window, of shape (1, time, channels).
    outputs : tuple of str
        What the encoder gives.
    opset : int
        Version of ONNX's operator set.
    ir_version : int
        Version of the file's format.
    """

    nodes: tuple[NodeProto, ...]
    constants: dict[str, NDArray[Any]]
    shapes: dict[str, tuple[int, ...]]
    floats: set[str]
    input: str
    outputs: tuple[str, ...]
    opset: int
    ir_version: int

    def users(self, name: str) -> list[NodeProto]:
        """The nodes that read a tensor."""
        return [node for node in self.nodes if name in node.input]


def read(data: bytes) -> Source:
    """Read an ONNX file of one input and fixed shapes, with its constants folded.

    Raises
    ------
    EngineError
        It has several inputs, or a shape that is not known.
    """
    model = ModelProto.FromString(data)
    fold(model)
    model = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise EngineError(f"the encoder has {len(inputs)} inputs; expected one, the window")
    shapes: dict[str, tuple[int, ...]] = {}
    floats: set[str] = set()
    for value in (*inputs, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
        if tensor.elem_type == TensorProto.FLOAT:
            floats.add(value.name)
    return Source(
        nodes=tuple(graph.node),
        constants=constants,
        shapes=shapes,
        floats=floats,
        input=inputs[0].name,
        outputs=tuple(value.name for value in graph.output),
        opset=next(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}),
        ir_version=model.ir_version,
    )


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """An attribute of a node, or `default`."""
    for found in node.attribute:
        if found.name == name:
            return helper.get_attribute_value(found)
    return default


def set_attribute(node: NodeProto, name: str, value: Any) -> None:
    """Give a node's attribute another value; None takes it away."""
    kept = [found for found in node.attribute if found.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    if value is not None:
        node.attribute.append(helper.make_attribute(name, value))


def unusual(source: Source) -> str:
    """What of a graph cannot be written in parts; empty where nothing is in the way."""
    for node in source.nodes:
        if node.domain not in {"", "ai.onnx"}:
            return f"{node.op_type} is of the domain {node.domain!r}"
        if any(one.HasField("g") or one.graphs for one in node.attribute):
            return f"{node.op_type} holds a graph of its own"
    other = [name for name in source.outputs if name not in source.floats]
    return f"the output {other[0]!r} is not float32" if other else ""


@dataclass(slots=True)
class Writer:
    """A graph that is being written.

    Parameters
    ----------
    source : Source
        Where constants come from.
    """

    source: Source
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    inputs: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    outputs: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    _made: int = 0

    def fresh(self, what: str) -> str:
        """A name that nothing has."""
        self._made += 1
        return f"rt.{what}.{self._made}"

    def constant(self, value: NDArray[Any]) -> str:
        """A constant of its own; equal whole numbers share one."""
        for name, known in self.constants.items():
            if name.startswith("rt.") and known.dtype == value.dtype and np.array_equal(known, value):
                return name
        name = self.fresh("constant")
        self.constants[name] = value
        return name

    def integers(self, *values: int) -> str:
        """A constant list of whole numbers."""
        return self.constant(np.array(values, np.int64))

    def add(self, operator: str, inputs: list[str], what: str, **attributes: Any) -> str:
        """A node with one output; gives its name."""
        name = self.fresh(what)
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def cut(self, name: str, axis: int, start: int, stop: int) -> str:
        """Positions [start, stop) of a tensor."""
        return self.add("Slice", [name, *map(self.integers, (start, stop, axis))], "cut")

    def use(self, node: NodeProto) -> None:
        """Take a node over, with the constants that it reads."""
        if node.op_type == "Elu" and attribute(node, "alpha", 1.0) == 1.0:
            self._elu(node.input[0], node.output[0])
            return
        self.nodes.append(node)
        for name in node.input:
            if name in self.source.constants:
                self.constants[name] = self.source.constants[name]

    def _elu(self, x: str, y: str) -> None:
        """ELU of alpha 1 by operators of which each is one pass over vectors of numbers.

        With p = max(x, 0): p + (exp(x - p) - 1), which is x where x > 0, since x - p is 0 there, and exp(x) - 1
        elsewhere (Clevert et al. 2016, arXiv 1511.07289, eq. 15). onnxruntime's own takes the exponential of every
        number, and then chooses.
        """
        positive = self.add("Relu", [x], "positive")
        negative = self.add("Sub", [x, positive], "negative")
        one = self.constant(np.array(1.0, np.float32))
        below = self.add("Sub", [self.add("Exp", [negative], "exp"), one], "below")
        self.nodes.append(helper.make_node("Add", [positive, below], [y]))

    def file(self, name: str) -> bytes:
        """The ONNX file."""
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(one, TensorProto.FLOAT, shape) for one, shape in self.inputs],
            [helper.make_tensor_value_info(one, TensorProto.FLOAT, shape) for one, shape in self.outputs],
            [numpy_helper.from_array(value, one) for one, value in self.constants.items()],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.source.opset)], ir_version=self.source.ir_version
        )
        return bytes(model.SerializeToString(deterministic=True))
