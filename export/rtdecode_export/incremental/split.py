"""Where an encoder's graph is cut: what can run on new samples only, and what has to wait for the whole window."""

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from onnx import NodeProto

from rtdecode_export.incremental.cost import arithmetic
from rtdecode_export.incremental.graph import Source
from rtdecode_export.incremental.rules import Step, say
from rtdecode_export.incremental.track import Track, merged


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """A graph, walked from its input.

    Parameters
    ----------
    source : Source
    steps : list of (NodeProto, Step)
        Nodes that can run on new samples only, in order.
    tracks : dict of str to Track
        Of every tensor that they give, and of the window.
    reasons : list of str
        Why the nodes behind them cannot; each once.
    """

    source: Source
    steps: list[tuple[NodeProto, Step]]
    tracks: dict[str, Track]
    reasons: list[str]


def walk(source: Source) -> Walk:
    """Follow the window through the graph as far as the rules go."""
    tracks = {source.input: Track(source.shapes[source.input], 1)}
    steps: list[tuple[NodeProto, Step]] = []
    reasons: list[str] = []
    for node in source.nodes:
        read = [name for name in node.input if name and name not in source.constants]
        if not read or any(name not in tracks for name in read):
            continue
        said = say(node, source, tracks)
        if isinstance(said, str):
            reasons += [said] if said not in reasons else []
            continue
        first = tracks[read[0]]
        before = merged([tracks[name] for name in read], first.shape, first.axis)
        for name in node.output:
            if name:
                tracks[name] = before.through(said.reach, source.shapes[name], said.axis)
        steps.append((node, said))
    return Walk(source, steps, tracks, reasons)


@dataclass(frozen=True, eq=False)
class Cut:
    """A graph in two: nodes that run on new samples, and the rest.

    Parameters
    ----------
    source : Source
    steps : list of (NodeProto, Step)
        What runs on new samples and is needed for the rest, in order.
    tracks : dict of str to Track
        Of its tensors.
    boundary : tuple of str
        Tensors that go from one part to the other, the window itself apart.
    rest : list of NodeProto
        What runs when the window is whole.
    takes_window : bool
        Whether the rest reads the window itself, too.
    """

    source: Source
    steps: list[tuple[NodeProto, Step]]
    tracks: dict[str, Track]
    boundary: tuple[str, ...]
    rest: list[NodeProto]
    takes_window: bool

    @property
    def window(self) -> Track:
        """The window itself."""
        return self.tracks[self.source.input]

    @cached_property
    def stride(self) -> int:
        """Samples of which a block has a whole number, so that each of its tensors has a whole number of positions."""
        return math.lcm(*(self.tracks[name].stride for node, _ in self.steps for name in node.output if name), 1)

    @cached_property
    def left(self) -> int:
        """First samples of a window that the positions at its beginning are made of again; 0 where there are none.

        The more samples, the more positions from the first on are free of the padding at the other end: the least
        number is found by halving.
        """
        if not any(self.tracks[name].left for name in self.boundary):
            return 0

        def enough(n: int) -> bool:
            sizes = self.sizes(n)
            return bool(sizes) and all(sizes[b][0] - sizes[b][2] >= self.tracks[b].left for b in self.boundary)

        return 1 + bisect_left(range(1, self.window.length), True, key=enough)

    @cached_property
    def right(self) -> int:
        """Last samples of a window that the positions at its end are made of again.

        A whole number of strides lies in front of them, so that positions counted from the end are the same ones.
        """
        if not any(self.tracks[name].right for name in self.boundary):
            return 0

        def enough(n: int) -> bool:
            sizes = self.sizes(n)
            return bool(sizes) and all(sizes[b][1] <= sizes[b][0] - self.tracks[b].right for b in self.boundary)

        whole = self.window.length
        possible = range(whole % self.stride or self.stride, whole, self.stride)
        at = bisect_left(possible, True, key=enough)
        return possible[at] if at < len(possible) else whole

    def sizes(self, n: int) -> dict[str, tuple[int, int, int]]:
        """Of a window of `n` samples: each tensor's length, and how many positions padding touches at both ends.

        Empty where some tensor would have no position.
        """
        found = {self.source.input: (n, 0, 0)}
        for node, step in self.steps:
            read = [found[name] for name in node.input if name in found]
            lengths = {one[0] for one in read}
            if len(lengths) != 1:
                return {}
            length = lengths.pop()
            if step.reach.outputs(length) < 1:
                return {}
            before = Track((length,), 0, 1, 0, 0, max(one[1] for one in read), max(one[2] for one in read))
            after = before.through(step.reach, (step.reach.outputs(length),), 0)
            found |= {name: (after.length, after.left, after.right) for name in node.output if name}
        return found

    @cached_property
    def per_sample(self) -> float:
        """Arithmetic of the first part for a new sample."""
        return sum(self._of(node) / self._track(node).length / self._track(node).stride for node, _ in self.steps)

    @cached_property
    def at_the_edges(self) -> float:
        """Arithmetic of the positions that are made again."""
        sides = [self.sizes(n) for n in (self.left, self.right) if n]
        each = [(self._of(node) / self._track(node).length, _first(node)) for node, _ in self.steps]
        return sum(cost * sizes[name][0] for sizes in sides for cost, name in each)

    @cached_property
    def of_the_rest(self) -> float:
        """Arithmetic of the second part."""
        return sum(map(self._of, self.rest))

    @cached_property
    def whole(self) -> float:
        """Arithmetic of the encoder for a whole window."""
        return sum(map(self._of, self.source.nodes))

    def _track(self, node: NodeProto) -> Track:
        return self.tracks[_first(node)]

    def _of(self, node: NodeProto) -> float:
        return arithmetic(node, self.source)


def _first(node: NodeProto) -> str:
    return next(str(name) for name in node.output if name)


def cuts(found: Walk) -> Iterator[Cut]:
    """Every cut along the order of the nodes of which the first part is of some use, the latest first."""
    for n in range(len(found.steps), -1, -1):
        made = cut(found, n)
        if made is not None:
            yield made


def cut(found: Walk, n: int) -> Cut | None:
    """Cut behind the first `n` nodes of a walk; None where no position that goes over is free of padding."""
    source = found.source
    inside = {id(node) for node, _ in found.steps[:n]}
    given = {name for node, _ in found.steps[:n] for name in node.output if name}
    rest = [node for node in source.nodes if id(node) not in inside]
    read = {name for node in rest for name in node.input} | set(source.outputs)
    boundary = tuple(name for node, _ in found.steps[:n] for name in node.output if name in read)
    if n == 0:  # the samples themselves, which is of use where the first layer is a sum over them
        return Cut(source, [], found.tracks, (source.input,), rest, takes_window=False)
    if not boundary or any(found.tracks[name].clean < 1 for name in boundary):
        return None
    wanted, needed = set(boundary), []
    for node, step in reversed(found.steps[:n]):
        if wanted & set(node.output):
            needed.append((node, step))
            wanted |= {name for name in node.input if name in given}
    needed.reverse()
    return Cut(source, needed, found.tracks, boundary, rest, source.input in read)
