"""Which operators a stream can be cut into, one rule for each kind, with its proof.

A rule is asked of a node all of whose inputs have a track (`rtdecode_export.incremental.track`) or are constants. It
says where the time axis of the result lies and which positions of the inputs an output reads, or why the operator has
to wait for the whole window. What a rule claims is what `Track.through` builds on: that output p is one function, the
same for every p, of the inputs that its reach names.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from rtdecode_export.incremental.graph import Source, Writer, attribute
from rtdecode_export.incremental.track import Reach, Track
from rtdecode_export.incremental.windows import conv, pad, pool, slices

LOCAL = Reach()

_POINTWISE = """
Abs Acos Acosh Asin Asinh Atan Atanh Cast Ceil Celu Clip Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish
Identity LeakyRelu Log Mish Neg Reciprocal Relu Round Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Tan Tanh
ThresholdedRelu
"""
_ELEMENTWISE = "Add Div Max Mean Min Mul PRelu Pow Sub Sum"

#: Element by element.
POINTWISE = frozenset(_POINTWISE.split())
#: Element by element, of several tensors that are spread over each other's axes of length 1.
ELEMENTWISE = frozenset(_ELEMENTWISE.split())


@dataclass(frozen=True, slots=True)
class Step:
    """What a rule says of a node.

    Parameters
    ----------
    axis : int
        Time axis of every result.
    reach : Reach
        Positions of each input with a track that an output reads.
    edit : callable
        Makes a copy of the node fit for other lengths: (copy, positions that come in, positions that go out, whether
        its own padding stays, the graph that is written).
    """

    axis: int
    reach: Reach = LOCAL
    edit: Callable[[NodeProto, int, int, bool, Writer], None] = lambda *_: None


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A node, with what is known of its surroundings.

    Parameters
    ----------
    node : NodeProto
    source : Source
        The graph that it is of.
    tracks : mapping of str to Track
        Of its inputs that are no constants.
    """

    node: NodeProto
    source: Source
    tracks: Mapping[str, Track]

    @property
    def track(self) -> Track:
        """Of the first input that has one."""
        return next(self.tracks[name] for name in self.node.input if name in self.tracks)

    @property
    def out(self) -> tuple[int, ...]:
        """Shape of the first result."""
        return self.source.shapes[self.node.output[0]]

    def constant(self, place: int) -> NDArray[Any] | None:
        """An input that is one; None where there is none there, or another tensor."""
        return self.source.constants.get(self.node.input[place]) if place < len(self.node.input) else None


Said = Step | str


def say(node: NodeProto, source: Source, tracks: Mapping[str, Track]) -> Said:
    """Ask the rule of a node: what it does to the time axis, or why it has to wait for the whole window."""
    known = {name: tracks[name] for name in node.input if name in tracks}
    rule = _RULES.get(node.op_type)
    if rule is None:
        return f"{node.op_type}: no rule"
    if any(name not in source.shapes or name not in source.floats for name in node.output if name):
        return f"{node.op_type}: a result that is no float32 of known shape"
    asked = Asked(node, source, known)
    if len({track.stride for track in known.values()}) > 1:
        return f"{node.op_type} of tensors of different strides"
    return rule(asked)


def _pointwise(asked: Asked) -> Said:
    """Element e of the result is a function of element e of the input: position p of position p, whatever p."""
    others = [name for name in asked.node.input[1:] if name in asked.tracks]
    if others or asked.node.input[0] not in asked.tracks:
        return f"{asked.node.op_type}: a bound that is computed from the window"
    return Step(asked.track.axis)


def _elementwise(asked: Asked) -> Said:
    """Element by element; axes count from the last one, and one of length 1 stands for every place.

    Position p of the result is a function of position p of each tensor where their time axes coincide, and of a
    constant that has length 1 there, so is the same for every p.
    """
    rank = len(asked.out)
    axes = {track.axis - len(track.shape) for track in asked.tracks.values()}
    lengths = {track.length for track in asked.tracks.values()}
    if len(axes) != 1 or len(lengths) != 1:
        return f"{asked.node.op_type}: time axes that do not coincide"
    axis = axes.pop()
    for name in asked.node.input:
        value = asked.source.constants.get(name)
        if value is not None and value.ndim >= -axis and value.shape[axis] != 1:
            return f"{asked.node.op_type} of a constant that differs over time"
    return Step(rank + axis)


def _transpose(asked: Asked) -> Said:
    """Axes change places; position p stays position p."""
    rank = len(asked.track.shape)
    order = attribute(asked.node, "perm", list(range(rank))[::-1])
    return Step(list(order).index(asked.track.axis))


def _reshape(asked: Asked) -> Said:
    """Elements keep their order, so the time axis is one of the result's where as many elements stand before it.

    With the same number of elements in front of the axis, and the same length, as many are behind it; element (i, p, j)
    stays (i, p, j). Elsewhere positions and features are mixed, which for a result of other lengths would be another
    mixture.
    """
    track, out = asked.track, asked.out
    before = math.prod(track.shape[: track.axis])
    places = [at for at, size in enumerate(out) if size == track.length and math.prod(out[:at]) == before]
    if not places:
        return f"{asked.node.op_type} over time"
    axis = places[-1] if track.length == 1 else places[0]

    def edit(node: NodeProto, _in: int, n: int, _whole: bool, writer: Writer) -> None:
        shape = [n if at == axis else size for at, size in enumerate(out)]
        del node.attribute[:]
        node.op_type = "Reshape"
        node.input[:] = [node.input[0], writer.integers(*shape)]

    return Step(axis, edit=edit)


def _matmul(asked: Asked) -> Said:
    """A product with a constant matrix over an axis that is not time: position p of the result is of position p.

    (X W)[.., p, :] = X[.., p, :] W where time is the last axis but one of X, and (W X)[.., p] = W X[.., p] where it is
    the last of X; where it is an axis before those, each position has a product of its own, with the same W unless W
    has that axis, too.
    """
    if len(asked.tracks) != 1:
        return "MatMul of two tensors that are computed from the window"
    place = 0 if asked.node.input[0] in asked.tracks else 1
    track, weight = asked.track, asked.constant(1 - place)
    if weight is None or weight.ndim < 2 or len(track.shape) < 2:
        return "MatMul without a constant matrix"
    summed = len(track.shape) - (1 if place == 0 else 2)
    if track.axis == summed:
        return "MatMul over time"
    behind = track.axis - len(track.shape)
    if behind < -2 and weight.ndim >= -behind and weight.shape[behind] != 1:
        return "MatMul with a constant that differs over time"
    return Step(len(asked.out) + behind)


def _gemm(asked: Asked) -> Said:
    """Y = a X W + b C with constant W and C: row p of the result is of row p of X, and of C, the same for each row."""
    first = asked.node.input[0]
    if first not in asked.tracks or len(asked.tracks) != 1 or attribute(asked.node, "transA", 0):
        return "Gemm over time"
    if asked.track.axis != 0:
        return "Gemm over time"
    bias = asked.constant(2)
    if bias is not None and bias.ndim == 2 and bias.shape[0] != 1:
        return "Gemm with a constant that differs over time"
    return Step(0)


def _batch_norm(asked: Asked) -> Said:
    """(x - mean[c]) / sqrt(var[c] + e) * scale[c] + shift[c] with constants for each channel c: element by element."""
    if asked.track.axis == 1:
        return "BatchNormalization with statistics for each position"
    if len(asked.tracks) != 1 or attribute(asked.node, "training_mode", 0):
        return "BatchNormalization with statistics of the window"
    return Step(asked.track.axis)


def _layer_norm(asked: Asked) -> Said:
    """The axes from `axis` on are standardised together: with time in front of them, each position by itself."""
    rank = len(asked.track.shape)
    axis = attribute(asked.node, "axis", -1) % rank
    if asked.track.axis >= axis or len(asked.tracks) != 1:
        return "LayerNormalization over time"
    return Step(asked.track.axis)


def _softmax(asked: Asked) -> Said:
    """Over one axis; with another as time, each position by itself."""
    rank = len(asked.track.shape)
    if attribute(asked.node, "axis", -1) % rank == asked.track.axis or asked.source.opset < 13:
        return f"{asked.node.op_type} over time"
    return Step(asked.track.axis)


def _reduce(asked: Asked) -> Said:
    """A sum, mean or largest value over axes of which none is time: each position by itself."""
    rank = len(asked.track.shape)
    axes = _axes(asked, 1)
    reduced = {axis % rank for axis in axes} if axes else set(range(rank))
    if asked.track.axis in reduced:
        return f"{asked.node.op_type} over time"
    gone = 0 if attribute(asked.node, "keepdims", 1) else sum(axis < asked.track.axis for axis in reduced)
    return Step(asked.track.axis - gone)


def _squeeze(asked: Asked) -> Said:
    """Axes of length 1 go; position p stays position p."""
    track = asked.track
    rank = len(track.shape)
    axes = _axes(asked, 1)
    gone = {axis % rank for axis in axes} if axes else {at for at, size in enumerate(track.shape) if size == 1}
    if track.axis in gone:
        return "Squeeze over time"
    axis = track.axis - sum(at < track.axis for at in gone)

    def edit(node: NodeProto, _in: int, _out: int, _whole: bool, writer: Writer) -> None:
        node.input[:] = [node.input[0], writer.integers(*sorted(gone))]  # a block may have one position: say which go

    return Step(axis, edit=edit)


def _unsqueeze(asked: Asked) -> Said:
    """Axes of length 1 come; position p stays position p."""
    rank = len(asked.out)
    new = {axis % rank for axis in _axes(asked, 1)}
    return Step([at for at in range(rank) if at not in new][asked.track.axis])


def _concat(asked: Asked) -> Said:
    """Tensors beside each other over another axis: position p is of position p of each. Constants have no time axis."""
    rank = len(asked.out)
    axes = {track.axis for track in asked.tracks.values()}
    if len(axes) != 1 or attribute(asked.node, "axis") % rank in axes:
        return "Concat over time"
    if any(name not in asked.tracks for name in asked.node.input):
        return "Concat with a constant"
    return Step(axes.pop())


def _split(asked: Asked) -> Said:
    """Parts of another axis: position p is of position p."""
    if attribute(asked.node, "axis", 0) % len(asked.track.shape) == asked.track.axis:
        return "Split over time"
    return Step(asked.track.axis)


def _gather(asked: Asked) -> Said:
    """Places of another axis, by constant numbers: position p is of position p."""
    axis = attribute(asked.node, "axis", 0) % len(asked.track.shape)
    places = asked.constant(1)
    if places is None or asked.node.input[0] not in asked.tracks:
        return "Gather by what is computed from the window"
    if axis == asked.track.axis:
        return "Gather over time"
    return Step(asked.track.axis + (places.ndim - 1 if axis < asked.track.axis else 0))


def _moving(asked: Asked) -> Said:
    """A convolution, a pool, a slice or padding: what it reads is said in `rtdecode_export.incremental.windows`."""
    if any(name in asked.tracks for name in asked.node.input[1:]) or asked.node.input[0] not in asked.tracks:
        return f"{asked.node.op_type} by what is computed from the window"
    made = _MOVING[asked.node.op_type](asked.node, asked.track.shape, asked.track.axis, asked.source)
    if isinstance(made, str):
        return made
    reach, edit = made
    if reach.outputs(asked.track.length) != asked.out[asked.track.axis]:
        return f"{asked.node.op_type}: positions that are counted otherwise"
    return Step(asked.track.axis, reach, edit)


def _axes(asked: Asked, place: int) -> Sequence[int]:
    """An operator's axes, which are an attribute in older operator sets and a constant input in newer ones."""
    given = asked.constant(place)
    if given is not None:
        return [int(axis) for axis in np.atleast_1d(given)]
    return list(attribute(asked.node, "axes", ()))


_MOVING = {"Conv": conv, "AveragePool": pool, "MaxPool": pool, "LpPool": pool, "Slice": slices, "Pad": pad}

_RULES: dict[str, Callable[[Asked], Said]] = {
    **dict.fromkeys(POINTWISE, _pointwise),
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(("Reshape", "Flatten"), _reshape),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    **dict.fromkeys(
        (
            "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
            "ReduceProd", "ReduceSum", "ReduceSumSquare",
        ),
        _reduce,
    ),
    **dict.fromkeys(_MOVING, _moving),
    "BatchNormalization": _batch_norm,
    "Concat": _concat,
    "Gather": _gather,
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}  # fmt: skip
