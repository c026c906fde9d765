"""A look into an ONNX file without the ``onnx`` package, to see that it stays inside itself.

An ONNX file is a protobuf message (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto gives the field numbers used
here). Two things in it reach outside: a tensor whose data lie in another file, by a path that the runtime would follow,
and a node that carries an engine compiled for one GPU, which is a program. Neither has a place in a bundle.
"""

from collections.abc import Iterator
from typing import Final

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

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_self_contained(onnx: bytes, where: str) -> None:
    """Raise `BundleError` where an ONNX file refers to other files, carries a compiled engine, or is no ONNX file."""
    data = memoryview(onnx)
    try:
        if not any(number == _MODEL_GRAPH for number, _ in _fields(data)):
            raise _NotProtobufError("it has no graph")
        _check(data, "Model", where, 0)
    except _NotProtobufError as error:
        raise BundleError(f"{where} is no ONNX file: {error}") from error


class _NotProtobufError(Exception):
    pass


def _check(data: memoryview, kind: str, where: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise BundleError(f"{where}: graphs nest more than {_MAX_DEPTH} deep")
    children = _FIELDS[kind]
    for number, value in _fields(data):
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
                raise _NotProtobufError(f"field {number} of a {kind} is a number")
            _check(value, children[number], where, depth + 1)


def _tensor_name(data: memoryview) -> str:
    for number, value in _fields(data):
        if number == _TENSOR_NAME and isinstance(value, memoryview):
            return bytes(value).decode(errors="replace")
    return ""


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of one protobuf message: number, and a number or bytes (https://protobuf.dev/programming-guides/encoding)."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in {_FIXED32, _FIXED64}:
            length = 4 if wire == _FIXED32 else 8
        else:
            raise _NotProtobufError(f"wire type {wire} at byte {at}")
        if at + length > len(data):
            raise _NotProtobufError(f"it is cut short: {length} bytes wanted at byte {at} of {len(data)}")
        yield number, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _NotProtobufError(f"a number at byte {at} does not end")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
