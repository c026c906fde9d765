"""A look into an ONNX file without the ``onnx`` package, to see that it stays inside itself.

An ONNX file is a protobuf message (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto gives the field numbers used
here). Two things in it reach outside: a tensor whose data lie in another file, by a path that the runtime would follow,
and a node that carries an engine compiled for one GPU, which is a program. Neither has a place in a bundle.
"""

from typing import Final

from rtdecode.encode.protobuf import NotProtobufError, fields
from rtdecode.errors import BundleError

#: Message -> field number -> message in that field. Only what leads to tensors and nodes.
_FIELDS: Final[dict[str, dict[int, str]]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_MODEL_GRAPH: Final = 7
_OP_TYPE: Final = 4
_TENSOR_NAME: Final = 8
_EXTERNAL_DATA: Final = 13
_DATA_LOCATION: Final = 14

#: Graphs nest in the attributes of nodes (If, Loop); no real model comes near this.
_MAX_DEPTH: Final = 64


def check_self_contained(onnx: bytes, where: str) -> None:
    """Raise `BundleError` where an ONNX file refers to other files, carries a compiled engine, or is no ONNX file."""
    data = memoryview(onnx)
    try:
        if not any(number == _MODEL_GRAPH for number, _ in fields(data)):
            raise NotProtobufError("it has no graph")
        _check(data, "Model", where, 0)
    except NotProtobufError as error:
        raise BundleError(f"{where} is no ONNX file: {error}") from error


def _check(data: memoryview, kind: str, where: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise BundleError(f"{where}: graphs nest more than {_MAX_DEPTH} deep")
    children = _FIELDS[kind]
    for number, value in fields(data):
        if kind == "Tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)):
            raise BundleError(
                f"{where}: the weights {_tensor_name(data)!r} lie in another file; export with all data inside "
                "(torch.onnx.export(..., external_data=False))"
            )
        if kind == "Node" and number == _OP_TYPE and isinstance(value, memoryview) and bytes(value) == b"EPContext":
            raise BundleError(
                f"{where}: holds an engine compiled for one machine (EPContext), which is a program; "
                "put the plain ONNX file into the bundle: engines are built where they run"
            )
        if number in children:
            if not isinstance(value, memoryview):
                raise NotProtobufError(f"field {number} of a {kind} is a number")
            _check(value, children[number], where, depth + 1)


def _tensor_name(data: memoryview) -> str:
    for number, value in fields(data):
        if number == _TENSOR_NAME and isinstance(value, memoryview):
            return bytes(value).decode(errors="replace")
    return ""
