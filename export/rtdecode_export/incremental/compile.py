"""An encoder becomes a prefix and a rest: which cut is best for a bundle's windows, and the files of it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from rtdecode.encode.arrays import array_bytes
from rtdecode.encode.incremental_fit import why_not
from rtdecode.encode.manifest import Boundary, FirstLayer, Split, Unsplit
from rtdecode.stream.steps import WindowStep
from rtdecode.stream.window import Sliding, WindowSpec
from rtdecode_export.incremental.algebra import simplify
from rtdecode_export.incremental.first import First, first_layer
from rtdecode_export.incremental.graph import read, unusual
from rtdecode_export.incremental.split import Cut, Walk, cuts, walk
from rtdecode_export.incremental.write import edge, prefix, rest

#: A block is at least so long, in seconds; longer ones take less arithmetic in all, and leave more of it to the end.
BLOCK_S = 0.01
#: A block is at most so long.
LONGEST_BLOCK_S = 0.025
#: What is left of the arithmetic when a window is due must be below this share for a split to be worth it.
WORTH = 0.8
#: Of a marker-locked window, which shares nothing with others: each small block reads the weights again.
WORTH_LOCKED = 0.5
#: What a window takes in all must be below this share, too: other windows wait for what this one takes while it comes.
DEAR = 1.1

FOLDER = "incremental"


@dataclass(frozen=True, slots=True)
class Compiled:
    """An encoder's split, or why it has none, with the files that it names.

    Parameters
    ----------
    split : Split or Unsplit
    files : dict of str to bytes
    """

    split: Split | Unsplit
    files: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Choice:
    """A cut, and how it would be run.

    Parameters
    ----------
    cut : Cut
    locked : bool
        Whether only marker-locked windows are cut, which share nothing.
    block : int
        Samples that the prefix takes at once.
    first : First or None
        A first layer that is summed up as positions come, and `group` positions of it at once.
    at_finish, per_window : float
        Arithmetic that is left when a window is due, and that of a window in all, as shares of the whole encoder's.
    """

    cut: Cut
    locked: bool
    block: int
    first: First | None
    group: int
    at_finish: float
    per_window: float

    def with_block(self, block: int) -> "Choice":
        """The same in blocks of another length, a whole number of the cut's strides."""
        return replace(self, block=block)

    @property
    def waiting(self) -> float:
        """Arithmetic of the rest, but for what of a first layer is summed up before."""
        track = self.cut.tracks[self.cut.boundary[0]]
        if self.first is None:
            return self.cut.of_the_rest
        return self.cut.of_the_rest - self.first.products * (1 - (self.group + track.left + track.right) / track.length)

    @property
    def left(self) -> float:
        """What is to be small: what waits for a window's end, and what sliding windows take in all."""
        return self.at_finish if self.locked else self.at_finish + self.per_window


def compile_encoder(
    onnx: bytes, windows: Sequence[WindowSpec], steps: Sequence[WindowStep], sfreq: float, precision: str = "fp32"
) -> Compiled:
    """Split an encoder for the windows of a bundle.

    Parameters
    ----------
    onnx : bytes
        The encoder.
    windows : sequence of WindowSpec
        That are cut for it.
    steps : sequence of WindowStep
        That each window goes through.
    sfreq : float
        Rate of the windows, in Hz.
    precision : str
        What the file computes in.
    """
    if precision != "fp32":
        return _none(f"only fp32 is split, and this is {precision}")
    if reason := why_not(windows, steps, sfreq, stride=1):
        return _none(reason)
    source = read(onnx)
    if reason := unusual(source):
        return _none(reason)
    found = walk(simplify(source))
    because = f"; behind it: {', '.join(found.reasons)}" if found.reasons else ""
    possible = _choices(found, windows, steps, sfreq)
    if not possible:
        return _none(f"nothing of it runs on new samples only{because}")
    affordable = [one for one in possible if one.per_window < DEAR]
    best = min(affordable or possible, key=lambda one: one.left)
    if best.at_finish >= (WORTH_LOCKED if best.locked else WORTH) or not affordable:
        return _none(
            f"{100 * best.at_finish:.0f} % of the arithmetic would be left at a window's end, and a window would take "
            f"{100 * best.per_window:.0f} % in all{because}"
        )
    return write_choice(best, _hop(windows, sfreq))


def choices(onnx: bytes, windows: Sequence[WindowSpec], steps: Sequence[WindowStep], sfreq: float) -> list[Choice]:
    """Every place where an encoder can be cut for these windows, whether it is worth it or not."""
    if why_not(windows, steps, sfreq, stride=1):
        return []
    return _choices(walk(simplify(read(onnx))), windows, steps, sfreq)


def _choices(found: Walk, windows: Sequence[WindowSpec], steps: Sequence[WindowStep], sfreq: float) -> list[Choice]:
    hop = _hop(windows, sfreq)
    fitting = (cut for cut in cuts(found) if not why_not(windows, steps, sfreq, cut.stride))
    weighed = [_weighed(cut, hop, sfreq) for cut in fitting]
    return [one for one in weighed if one.cut.steps or one.first is not None]


def _hop(windows: Sequence[WindowSpec], sfreq: float) -> Fraction | None:
    """The least number of samples from one sliding window to the next; None where there are none."""
    return min((one.step(sfreq) for one in windows if isinstance(one, Sliding)), default=None)


def _none(reason: str) -> Compiled:
    return Compiled(Unsplit(reason=reason), {})


def _weighed(cut: Cut, hop: Fraction | None, sfreq: float) -> Choice:
    length = cut.window.length
    block = min(_blocks(cut.stride, length, hop, sfreq), key=lambda one: one[0])[1]
    edges, whole = cut.at_the_edges, cut.whole
    new = float(hop) if hop is not None else float(length)
    late = edges if hop is not None else edges * cut.right / max(1, cut.left + cut.right)
    first = first_layer(cut)
    group = 0
    if first is not None:
        track = cut.tracks[cut.boundary[0]]
        # What a hop adds is a group, so that one is left when a window is due; of a locked one, what a block adds.
        apart = block if hop is None or hop.denominator > 1 else int(hop)
        group = max(1, min(apart // track.stride, track.clean))
    choice = Choice(
        cut, hop is None, block, first, group, 0.0, (edges + cut.of_the_rest + new * cut.per_sample) / whole
    )
    return replace(choice, at_finish=(late + choice.waiting + block * cut.per_sample) / whole)


def _blocks(stride: int, length: int, hop: Fraction | None, sfreq: float) -> Iterator[tuple[tuple[bool, float], int]]:
    """Lengths that a block may have, each with how much it is to be avoided; best, such that windows end with one."""
    least = max(stride, math.ceil(BLOCK_S * sfreq / stride) * stride)
    grid = length if hop is None or hop.denominator > 1 else math.gcd(int(hop), length)
    for block in range(least, max(least, int(LONGEST_BLOCK_S * sfreq)) + 1, stride):
        yield (grid % block != 0, block / sfreq), block


def write_choice(choice: Choice, hop: Fraction | None) -> Compiled:
    """The files of a cut, and what a manifest says of them."""
    cut = choice.cut
    first = prefix(cut, choice.block)
    files = {f"{FOLDER}/prefix.onnx": first.data, f"{FOLDER}/rest.onnx": rest(cut, choice.first)}
    layer = None
    if choice.first is not None:
        layer = FirstLayer(weights=f"{FOLDER}/first.npy", width=choice.first.width, group=choice.group)
        files[layer.weights] = array_bytes(choice.first.weights(), layer.weights)
    sides: dict[str, tuple[str | None, int]] = {"left": (None, 0), "right": (None, 0)}
    for side, n in (("left", cut.left), ("right", cut.right)):
        if n:
            sides[side] = (f"{FOLDER}/{side}.onnx", n)
            files[f"{FOLDER}/{side}.onnx"] = edge(cut, n, right=side == "right")
    boundary = tuple(
        Boundary(
            positions=track.length,
            features=track.features,
            stride=track.stride,
            delay=delay,
            left=track.left,
            right=track.right,
        )
        for track, delay in zip((cut.tracks[name] for name in cut.boundary), first.delays, strict=True)
    )
    split = Split(
        prefix=f"{FOLDER}/prefix.onnx",
        rest=f"{FOLDER}/rest.onnx",
        block=choice.block,
        stride=cut.stride,
        boundary=boundary,
        states=first.states,
        left=sides["left"][0],
        left_samples=sides["left"][1],
        right=sides["right"][0],
        right_samples=sides["right"][1],
        takes_window=cut.takes_window,
        first=layer,
        hop=None if hop is None else float(hop),
        share=round(1 - choice.waiting / cut.whole, 4),
        at_finish=round(choice.at_finish, 4),
        per_window=round(choice.per_window, 4),
    )
    return Compiled(split, files)
