"""Operators that move over time: convolutions, pools, slices, padding. What an output of each reads, and no padding."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto

from rtdecode_export.incremental.graph import Source, Writer, attribute, set_attribute
from rtdecode_export.incremental.track import Reach

Edit = Callable[[NodeProto, int, int, bool, Writer], None]
Made = tuple[Reach, Edit] | str


def conv(node: NodeProto, shape: tuple[int, ...], axis: int, source: Source) -> Made:
    """y[o, p] = b[o] + sum over c and j of w[o, c, j] x[c, step p - before + dilation j], zeros outside.

    The sum is the same for every p, and reads `kernel` inputs, `dilation` apart. Axes of space beside time are summed
    within a position. Where padding stands in for an input, the sum has fewer terms: those positions are not clean.
    """
    if axis < 2:
        return "Conv over channels or batch that are time"
    if len(node.input) < 2 or node.input[1] not in source.constants:
        return "Conv with weights that are computed"
    sizes = source.constants[node.input[1]].shape[2:]
    return _moved(node, shape, axis, sizes)


def pool(node: NodeProto, shape: tuple[int, ...], axis: int, source: Source) -> Made:
    """y[p] = mean (largest, norm) of x[step p - before + dilation j] over j: as a convolution.

    A mean without padding has the same number of terms for every p, whether it counts padding or not. Rounding up
    (`ceil_mode`) would give outputs that read beyond the input, and is refused.
    """
    if attribute(node, "ceil_mode", 0) or len(node.output) > 1:
        return f"{node.op_type} that rounds up or gives places"
    if axis < 2:  # it moves over the other axes, within a position
        return Reach(), lambda *_: None
    return _moved(node, shape, axis, attribute(node, "kernel_shape"))


def _moved(node: NodeProto, shape: tuple[int, ...], axis: int, sizes: Sequence[int]) -> Made:
    spatial, at = len(shape) - 2, axis - 2
    dilations = list(attribute(node, "dilations", [1] * spatial))
    strides = list(attribute(node, "strides", [1] * spatial))
    pads = _pads(node, shape[2:], sizes, dilations, strides)
    reach = Reach(sizes[at], dilations[at], strides[at], pads[at], pads[at + spatial])

    def edit(copy: NodeProto, _in: int, _out: int, whole: bool, _writer: Writer) -> None:
        own = list(pads)
        if not whole:
            own[at] = own[at + spatial] = 0
        set_attribute(copy, "auto_pad", None)
        set_attribute(copy, "pads", own)

    return reach, edit


def _pads(
    node: NodeProto, lengths: Sequence[int], sizes: Sequence[int], dilations: Sequence[int], strides: Sequence[int]
) -> list[int]:
    """Padding in numbers: begins, then ends. "SAME" gives ceil(length / stride) outputs, the odd one at one end."""
    how = attribute(node, "auto_pad", b"NOTSET").decode()
    if how not in {"SAME_UPPER", "SAME_LOWER"}:
        return [0] * (2 * len(sizes)) if how == "VALID" else list(attribute(node, "pads", [0] * (2 * len(sizes))))
    begins, ends = [], []
    for length, size, dilation, stride in zip(lengths, sizes, dilations, strides, strict=True):
        total = max(0, (-(-length // stride) - 1) * stride + dilation * (size - 1) + 1 - length)
        less, more = total // 2, total - total // 2
        begins.append(less if how == "SAME_UPPER" else more)
        ends.append(more if how == "SAME_UPPER" else less)
    return begins + ends


def slices(node: NodeProto, shape: tuple[int, ...], axis: int, source: Source) -> Made:
    """y[p] = x[start + step p]: as a convolution with one weight, 1, and negative padding."""
    given = [source.constants.get(name) for name in node.input[1:] if name]
    if any(value is None for value in given) or not 2 <= len(given) <= 4:
        return "Slice by what is computed"
    values: list[list[int]] = [[int(n) for n in value] for value in given if value is not None]
    starts, ends = values[0], values[1]
    axes = [one % len(shape) for one in (values[2] if len(values) > 2 else range(len(starts)))]
    steps = values[3] if len(values) > 3 else [1] * len(starts)
    if axis not in axes:
        return Reach(), lambda *_: None
    at, length = axes.index(axis), shape[axis]
    start, stop, step = slice(starts[at], ends[at], steps[at]).indices(length)
    if step < 1 or stop <= start:
        return "Slice backwards over time"
    count = (stop - start - 1) // step + 1
    after = start + step * (count - 1) + 1 - length  # what lies behind the last that is read goes

    def edit(copy: NodeProto, n_in: int, n_out: int, whole: bool, writer: Writer) -> None:
        first = start if whole else 0
        own_starts = [first if i == at else one for i, one in enumerate(starts)]
        own_ends = [first + step * (n_out - 1) + 1 if i == at else one for i, one in enumerate(ends)]
        copy.input[:] = [copy.input[0], *(writer.integers(*one) for one in (own_starts, own_ends, axes, steps))]

    return Reach(step=step, before=-start, after=after), edit


def pad(node: NodeProto, shape: tuple[int, ...], axis: int, source: Source) -> Made:
    """y[p] = x[p - before], and something else outside: of that, those positions alone are made that are not clean."""
    amounts = source.constants.get(node.input[1]) if len(node.input) > 1 else None
    if amounts is None or attribute(node, "mode", b"constant") == b"wrap":
        return "Pad by what is computed, or with what lies at the other end"
    axes: Any = source.constants.get(node.input[3]) if len(node.input) > 3 and node.input[3] else None
    if axes is None:
        axes = range(len(shape))
    axes = [int(one) % len(shape) for one in axes]
    if axis not in axes:
        return Reach(), lambda *_: None
    at, n = axes.index(axis), len(axes)
    pads = [int(one) for one in np.asarray(amounts)]

    def edit(copy: NodeProto, _in: int, _out: int, whole: bool, writer: Writer) -> None:
        own = list(pads)
        if not whole:
            own[at] = own[at + n] = 0
        copy.input[1] = writer.integers(*own)

    return Reach(before=pads[at], after=pads[at + n]), edit
