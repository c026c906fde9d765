"""The three files of a cut: the prefix on a block of new samples, the positions at the edges, and the rest."""

from dataclasses import dataclass

from onnx import NodeProto, helper

from rtdecode_export.incremental.first import First
from rtdecode_export.incremental.graph import Writer
from rtdecode_export.incremental.split import Cut
from rtdecode_export.incremental.track import delay_after, memory

SAMPLES, WINDOW, SUMS = "samples", "window", "sums"


@dataclass(frozen=True, slots=True)
class Prefix:
    """The first part, on a block of new samples.

    Parameters
    ----------
    data : bytes
        The ONNX file. Inputs: ``samples``, of shape (1, block, channels), and ``state0``...; outputs:
        ``positions0``..., of shape (positions, features), one for each tensor of the boundary, and ``next0``..., the
        states after it.
    delays : tuple of int
        Of each tensor of the boundary: with n positions due by the samples so far, those before n - delay are given.
    states : tuple of tuple of int
        Shape of each state; all begin as zeros.
    """

    data: bytes
    delays: tuple[int, ...]
    states: tuple[tuple[int, ...], ...]


class _Stream:
    """Writes a cut's nodes so that each remembers what it will read again."""

    def __init__(self, cut: Cut, block: int) -> None:
        self._cut, self._block = cut, block
        self.writer = Writer(cut.source)
        shape = cut.window.shape
        self.writer.inputs.append((SAMPLES, (shape[0], block, *shape[2:])))
        self._names = {cut.source.input: SAMPLES}
        self.delays = {cut.source.input: 0}
        self.states: list[tuple[int, ...]] = []

    def write(self) -> None:
        for node, step in self._cut.steps:
            read = [name for name in node.input if name in self._names]
            delay = max(self.delays[name] for name in read)
            copy = NodeProto()
            copy.CopyFrom(node)
            n = self._positions(read[0])
            more = memory(step.reach, delay)
            copy.input[:] = [
                self._before(name, more, self._aligned(name, delay)) if name in self._names else name
                for name in node.input
            ]
            step.edit(copy, n + more, n // step.reach.step, False, self.writer)
            self.writer.use(copy)
            for name in node.output:
                self._names[name] = name
                self.delays[name] = delay_after(step.reach, delay)
        for place, name in enumerate(self._cut.boundary):
            given = flattened(self._cut, name, self._names[name], self._positions(name), self.writer)
            self._give(given, f"positions{place}", (self._positions(name), self._cut.tracks[name].features))

    def _positions(self, name: str) -> int:
        """Positions of a tensor that each block adds."""
        return self._block // self._cut.tracks[name].stride

    def _aligned(self, name: str, delay: int) -> str:
        """A tensor's positions as late as another's: position p of both in the same block."""
        late = delay - self.delays[name]
        if not late:
            return self._names[name]
        longer = self._before(name, late, self._names[name])
        return self.writer.cut(longer, self._cut.tracks[name].axis, 0, self._positions(name))

    def _before(self, name: str, n: int, given: str) -> str:
        """The last `n` positions of earlier blocks in front of a block's own, which are kept for the next."""
        axis, own = self._cut.tracks[name].axis, self._positions(name)
        if n == 0:
            return given
        if n < 0:
            return self.writer.cut(given, axis, -n, own)
        shape = tuple(n if at == axis else size for at, size in enumerate(self._cut.tracks[name].shape))
        place = len(self.states)
        self.states.append(shape)
        self.writer.inputs.append((f"state{place}", shape))
        longer = self.writer.add("Concat", [f"state{place}", given], "longer", axis=axis)
        self._give(self.writer.cut(longer, axis, own, own + n), f"next{place}", shape)
        return longer

    def _give(self, name: str, as_name: str, shape: tuple[int, ...]) -> None:
        self.writer.nodes.append(helper.make_node("Identity", [name], [as_name]))
        self.writer.outputs.append((as_name, shape))


def flattened(cut: Cut, tensor: str, name: str, n: int, writer: Writer) -> str:
    """`n` positions of a tensor as (n, features)."""
    track = cut.tracks[tensor]
    rank = len(track.shape)
    if track.axis:
        order = [track.axis, *(at for at in range(rank) if at != track.axis)]
        name = writer.add("Transpose", [name], "turned", perm=order)
    return writer.add("Reshape", [name, writer.integers(n, track.features)], "flat")


def prefix(cut: Cut, block: int) -> Prefix:
    """The first part, on blocks of `block` samples, a whole number of strides."""
    stream = _Stream(cut, block)
    stream.write()
    delays = tuple(stream.delays[name] for name in cut.boundary)
    return Prefix(stream.writer.file("prefix"), delays, tuple(stream.states))


def edge(cut: Cut, n: int, *, right: bool) -> bytes:
    """The first part on the first `n` samples of a window, with its own padding: the positions that this touches.

    Returns
    -------
    bytes
        The ONNX file. Input: ``samples``, of shape (1, n, channels); outputs: ``positions0``... of each tensor of the
        boundary of which padding touches some: the first of them, or with `right` the last.
    """
    writer = Writer(cut.source)
    shape = cut.window.shape
    writer.inputs.append((SAMPLES, (shape[0], n, *shape[2:])))
    sizes = cut.sizes(n)
    for node, step in cut.steps:
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [SAMPLES if name == cut.source.input else name for name in node.input]
        read = next(name for name in node.input if name in sizes)
        step.edit(copy, sizes[read][0], sizes[next(name for name in node.output if name)][0], True, writer)
        writer.use(copy)
    for place, name in enumerate(cut.boundary):
        track, length = cut.tracks[name], sizes[name][0]
        count = track.right if right else track.left
        if count:
            first = length - count if right else 0
            part = writer.cut(name, track.axis, first, first + count)
            given = flattened(cut, name, part, count, writer)
            writer.nodes.append(helper.make_node("Identity", [given], [f"positions{place}"]))
            writer.outputs.append((f"positions{place}", (count, track.features)))
    return writer.file("edge")


def rest(cut: Cut, first: First | None = None) -> bytes:
    """The second part.

    Returns
    -------
    bytes
        The ONNX file. Inputs: ``positions0``... of shape (positions, features), all of a window's, and ``window`` where
        it reads that, too; or ``sums``, what the first layer gives; outputs: the encoder's.
    """
    writer = Writer(cut.source)
    if first is not None:
        shape = cut.source.shapes[first.output]
        writer.inputs.append((SUMS, shape))
        writer.nodes.append(helper.make_node("Identity", [SUMS], [first.output]))
        gone = {id(node) for node in first.nodes}
        for node in cut.rest:
            if id(node) not in gone:
                writer.use(node)
        writer.outputs.extend((name, cut.source.shapes[name]) for name in cut.source.outputs)
        return writer.file("rest")
    for place, name in enumerate(cut.boundary):
        track = cut.tracks[name]
        writer.inputs.append((f"positions{place}", (track.length, track.features)))
        others = [at for at in range(len(track.shape)) if at != track.axis]
        turned = [track.axis, *others]
        whole = writer.integers(*(track.shape[at] for at in turned))
        shaped = writer.add("Reshape", [f"positions{place}", whole], "shaped")
        writer.nodes.append(
            helper.make_node("Transpose", [shaped], [name], perm=[turned.index(at) for at in range(len(turned))])
        )
    if cut.takes_window:
        writer.inputs.append((WINDOW, cut.window.shape))
        writer.nodes.append(helper.make_node("Identity", [WINDOW], [cut.source.input]))
    for node in cut.rest:
        writer.use(node)
    writer.outputs.extend((name, cut.source.shapes[name]) for name in cut.source.outputs)
    return writer.file("rest")
