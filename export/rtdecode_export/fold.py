"""An exported graph without what only training, or only the exporter, needed: constants folded, nothing left over."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from rtdecode.encode.onnx import import_onnxruntime
from rtdecode.errors import EngineError

#: Operators of which a constant result is larger than what it is made of.
_SPREADING = frozenset({"Expand", "Tile", "ConstantOfShape"})

#: Operators that decide while they run, which a graph of fixed shape has no use for and TensorRT runs badly or not.
_DECIDING = frozenset({"If", "Loop", "Scan"})

_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


@dataclass(frozen=True, slots=True)
class Folded:
    """What folding did.

    Parameters
    ----------
    before, after : int
        Nodes that compute, without constants.
    operators : mapping of str to int
        Operator -> how many of it went.
    """

    before: int = 0
    after: int = 0
    operators: Mapping[str, int] = field(default_factory=dict)


def fold(model: ModelProto) -> None:
    """Compute everything in a graph that depends on no input, once and for all, and drop what is not needed then.

    Parameters
    ----------
    model : ModelProto
        Changed in place. Traces of the exporter (the source lines of the network, with their paths) go too.
    """
    graph = model.graph
    _constants_to_initializers(graph)
    _compute_constants(model)
    _drop_unused(graph)
    del model.metadata_props[:]
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""


def computing(model: ModelProto) -> Counter[str]:
    """Operator -> nodes that are one, without constants."""
    return Counter(node.op_type for node in model.graph.node if node.op_type != "Constant")


def check_deployable(model: ModelProto, what: str) -> None:
    """Raise `EngineError` where a graph holds what a decoder of fixed windows must not.

    Parameters
    ----------
    model : ModelProto
        After `fold`.
    what : str
        The network's name, for the message.

    Raises
    ------
    EngineError
        A random or deciding operator, an operator of another domain than ONNX's own, dropout or batch normalisation in
        training mode, float64, an axis without fixed length.
    """
    problems = [problem for node in model.graph.node if (problem := _node_problem(node))]
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    problems += [problem for value in values if (problem := _value_problem(value))]
    problems += [
        f"the constant {tensor.name!r} is float64; write the network in float32"
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.DOUBLE
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise EngineError(f"{what} cannot be deployed: {problems[0]}{more}")


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    kept = []
    for node in graph.node:
        value = next((a for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            tensor = TensorProto()
            tensor.CopyFrom(value.t)
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _compute_constants(model: ModelProto) -> None:
    """Replace every node whose inputs are all constant by its results, as onnxruntime computes them."""
    graph = model.graph
    constant = {tensor.name for tensor in graph.initializer}
    folded: list[NodeProto] = []
    kept: list[NodeProto] = []
    for node in graph.node:
        fixed = all(name in constant for name in node.input if name) and node.op_type not in _SPREADING | _RANDOM
        (folded if fixed and not _subgraphs(node) else kept).append(node)
        if fixed and not _subgraphs(node):
            constant.update(node.output)
    if not folded:
        return
    made = {name for node in folded for name in node.output if name}
    read = {name for node in kept for name in node.input} | {value.name for value in graph.output}
    wanted = sorted(made & read)
    graph.initializer.extend(_results(model, folded, wanted))
    del graph.node[:]
    graph.node.extend(kept)


def _results(model: ModelProto, nodes: Iterable[NodeProto], wanted: list[str]) -> list[TensorProto]:
    nodes = list(nodes)
    read = {name for node in nodes for name in node.input}
    part = helper.make_model(
        helper.make_graph(
            nodes,
            "constants",
            [],
            [onnx.ValueInfoProto(name=name) for name in wanted],
            [tensor for tensor in model.graph.initializer if tensor.name in read],
        ),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [numpy_helper.from_array(value, name) for name, value in zip(wanted, session.run(wanted, {}), strict=True)]


def _drop_unused(graph: onnx.GraphProto) -> None:
    needed = {value.name for value in graph.output}
    kept: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed.update(node.input)
    kept.reverse()
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    alive = {name for node in kept for name in node.output}
    values = [value for value in graph.value_info if value.name in alive]
    for repeated, left in ((graph.node, kept), (graph.initializer, constants), (graph.value_info, values)):
        del repeated[:]
        repeated.extend(left)


def _subgraphs(node: NodeProto) -> bool:
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)


def _node_problem(node: NodeProto) -> str | None:
    if node.domain not in {"", "ai.onnx"}:
        return f"the operator {node.op_type} is of the domain {node.domain!r}, which no runtime but one knows"
    if node.op_type in _RANDOM:
        return f"it draws random numbers ({node.op_type}), also in evaluation mode"
    if node.op_type in _DECIDING or _subgraphs(node):
        return f"it decides while it runs ({node.op_type}); write it without branches and loops over data"
    training = any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
    if training or node.op_type == "Dropout":
        return f"{node.op_type} is in training mode"
    return None


def _value_problem(value: ValueInfoProto) -> str | None:
    tensor = value.type.tensor_type
    if tensor.elem_type == TensorProto.DOUBLE:
        return f"{value.name!r} is computed in float64; write the network in float32"
    if any(not dim.HasField("dim_value") for dim in tensor.shape.dim):
        return f"{value.name!r} has an axis without fixed length"
    return None
