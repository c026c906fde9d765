"""The engine that works while it listens: a prefix on new samples only, the rest when a window is due."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.engine import EngineInfo, Outputs
from rtdecode.encode.first_layer import FirstSums, Sum
from rtdecode.encode.manifest import Split
from rtdecode.encode.open_window import OpenWindow
from rtdecode.encode.prefix import Bound, Floats, PrefixStream, arrays_of, check_layout
from rtdecode.encode.prefix_member import Member
from rtdecode.encode.prefix_pool import Prefix, PrefixPool
from rtdecode.encode.window_engine import check_window, finite
from rtdecode.errors import EncodeError, EngineError
from rtdecode.stream.early_steps import EarlySteps
from rtdecode.stream.window import Locked, Sliding, SlidingCursor, WindowSpec

#: Marker-locked windows that are encoded at once while their samples come; others are when they are due.
OPEN = 8


class IncrementalEngine:
    """Encodes windows of which it has heard the samples before they were due.

    Windows that begin at a whole number of `Split.stride` samples of the segment share one stream of the prefix. A
    marker-locked window that is announced by `begin` has a stream of its own, whose blocks are counted from its start.
    Any other, or one of which the samples were not heard in order, is encoded from the window alone, in the same
    blocks: so what was heard when makes no difference to what comes out.

    Parameters
    ----------
    split : Split
        How the encoder was cut.
    prefix : Prefix
        Runs its first part; may be shared with other engines that hear the same samples.
    rest, left, right : InferenceSession
        Its other parts; `left` and `right` may be None.
    layer : FirstSums or None
        A layer between the prefix and the rest that is summed up as positions come.
    steps : EarlySteps
        The window steps, run on samples as they come.
    windows : sequence of WindowSpec
        What is cut. With sliding ones the shared stream runs; with marker-locked ones, announced windows are encoded as
        they come.
    sfreq : float
        Rate of the samples, in Hz.
    whole : EngineInfo
        Of the engine that encodes whole windows, whose numbers this one gives.
    words : str
        What is done, for `info`.
    name : str
        Whose it is, for others that share the prefix.
    same : str
        What the rest is made of, by a hash of it all. Engines of one run that have this in common, too, share what they
        make of a window; nothing where it is empty.
    """

    def __init__(
        self,
        split: Split,
        prefix: Prefix,
        rest: object,
        left: object | None,
        right: object | None,
        *,
        layer: FirstSums | None,
        steps: EarlySteps,
        windows: Sequence[WindowSpec],
        sfreq: float,
        whole: EngineInfo,
        words: str,
        name: str = "",
        same: str = "",
    ) -> None:
        self._split, self._prefix, self._steps, self._layer = split, prefix, steps, layer
        self._sliding = tuple(one for one in windows if isinstance(one, Sliding))
        self._sfreq = sfreq
        self._info = replace(whole, more=(*whole.more, ("incremental", words)))
        self._length = whole.input_shape[0]
        self._shared: Member | None = Member(prefix, name, same) if self._sliding else None
        self._apart = prefix.stream(self._length)
        self._rest = Bound(rest, arrays_of(rest))
        self._check_rest(whole)
        self._left = None if left is None else Bound(left, arrays_of(left))
        self._right = None if right is None else Bound(right, arrays_of(right))
        self._positions = [
            self._rest.arrays[f"positions{n}"] if layer is None else np.zeros((one.positions, one.features), np.float32)
            for n, one in enumerate(split.boundary)
        ]
        self._outputs = [name for name, _ in whole.output_shapes]
        locked = any(isinstance(one, Locked) for one in windows)
        self._free = [self._open_window() for _ in range(OPEN if locked else 0)]
        self._open: dict[int, OpenWindow] = {}
        self._sums: dict[int, Sum] = {}  # of sliding windows, by where they start
        self._next = 0
        self._closed = False
        self.restart(0)

    def _check_rest(self, whole: EngineInfo) -> None:
        """Raise `BundleError` unless the rest takes what the prefix gives, and gives what the encoder does."""
        wanted: dict[str, tuple[int, ...]] = {name: (1, *shape) for name, shape in whole.output_shapes}
        if self._layer is not None:
            sums = self._rest.arrays["sums"].shape if "sums" in self._rest.arrays else ()
            wanted["sums"] = sums if math.prod(sums) == self._layer.width else (self._layer.width,)
        else:
            wanted |= {f"positions{n}": (one.positions, one.features) for n, one in enumerate(self._split.boundary)}
        if self._split.takes_window:
            wanted["window"] = (1, *whole.input_shape)
        check_layout(self._rest.arrays, wanted, self._split.rest)

    def _open_window(self) -> OpenWindow:
        split = self._split
        stream = self._prefix.stream(self._length)
        return OpenWindow(stream, self._steps, self._length, self._left, split, self._layer)

    @property
    def info(self) -> EngineInfo:
        """What really runs."""
        return self._info

    def sharing(self) -> dict[str, str | int]:
        """With whom it shares the prefix now; on how many samples since the last gap it had to run it itself."""
        if self._shared is None:
            return {}
        return {
            "prefix_shared_with": ", ".join(self._shared.beside),
            "prefix_samples_run": self._shared.made,
            "prefix_samples_found": self._shared.found,
            "windows_found": self._shared.windows_found,
        }

    def join(self, pool: PrefixPool) -> None:
        """Share the prefix from now on with the engines of this pool that hear the same."""
        if self._shared is not None:
            self._shared.join(pool.put(self._prefix))

    def restart(self, first_index: int) -> None:
        """Forget all state: the next conditioned sample is `first_index` and follows a gap (or nothing)."""
        self._next = first_index
        if self._shared is not None:
            self._shared.restart(first_index)
        self._sums.clear()
        self._cursors = [SlidingCursor(one, 0, self._length, self._sfreq, first_index) for one in self._sliding]
        # A window that is whole only waits for the watermark; unless samples are counted from further back now.
        for start in [start for start, one in self._open.items() if not one.complete or one.stop > first_index]:
            self._free.append(self._open.pop(start))

    def advance(self, samples: NDArray[np.float32], first_index: int) -> None:
        """Take conditioned samples, shape (n, channels), in order, as they come."""
        self._next = first_index + len(samples)
        if self._shared is not None:
            run = self._shared.run
            self._shared.push(samples, first_index, self._steps)
            if self._shared.run is not run:
                self._sums.clear()  # others may have added to them what is not heard here
            if self._layer is not None and not self._look_for_windows(first_index) and self._sums:
                next(iter(self._sums.values())).take(self._shared)  # what others lack can wait until there is time
        for one in self._open.values():
            one.push(samples, first_index)

    def catch_up(self) -> None:
        """Add up what is there of windows that are not due yet."""
        if self._shared is None:
            return
        for start in [start for start, one in self._sums.items() if not one.take(self._shared)]:
            del self._sums[start]

    def begin(self, first_index: int, samples: NDArray[np.float32]) -> None:
        """A marker-locked window will be due that begins at `first_index`; `samples` of it are here."""
        if first_index in self._open or self._in_shared(first_index) or not (self._free or self._make_room()):
            return
        one = self._free.pop()
        one.begin(first_index)
        one.push(samples, first_index)
        self._open[first_index] = one

    def finish(self, window: NDArray[np.float32], first_index: int) -> Outputs:
        """Encode one window; of what it consists of, most is there where its samples were heard.

        Raises
        ------
        EncodeError
            The window has another shape or type, the runtime failed, or an output is NaN or Inf.
        EngineError
            The engine was closed.
        """
        return self._finish(window, first_index, heard=True)

    def apart(self, window: NDArray[np.float32], first_index: int) -> Outputs:
        """As `finish`, of a window of another segment than the one that is heard: from the window alone."""
        return self._finish(window, first_index, heard=False)

    def close(self) -> None:
        """Let go of the runtime. Safe to call twice."""
        self._closed = True
        if self._shared is not None:
            self._shared.leave()

    def rehearse(self) -> None:
        """Run both parts on numbers of no account; `EncodeError` where the runtime fails."""
        try:
            self._rest.run()
            if self._shared is not None:
                self._shared.rehearse()
        except Exception as error:  # as in `finish`
            raise EncodeError(f"{self._info.runtime} failed in a rehearsal: {error}") from error

    def _finish(self, window: NDArray[np.float32], first_index: int, *, heard: bool) -> Outputs:
        if self._closed:
            raise EngineError("the engine was closed; make a new one")
        check_window(window, first_index, self._info.input_shape)
        shared = self._shared if heard and self._in_shared(first_index) else None
        if shared is not None and (done := shared.outputs_of(first_index, first_index + self._length)) is not None:
            self._sums.pop(first_index, None)
            return done
        try:
            self._fill(window, first_index, heard=heard)
            if self._layer is not None:
                self._sum_up(self._layer, first_index, heard=heard)
            if self._split.takes_window:
                self._rest.arrays["window"][0] = window
            self._rest.run()
        except Exception as error:  # the runtime's classes share no base; whatever it was, it is this window's failure
            raise EncodeError(f"window at sample {first_index}: {self._info.runtime} failed: {error}") from error
        outputs = finite({name: self._rest.arrays[name][0].copy() for name in self._outputs}, first_index)
        if shared is not None:
            shared.keep(first_index, first_index + self._length, outputs)
        return outputs

    def _fill(self, window: Floats, start: int, *, heard: bool) -> None:
        """All positions of a window: those that were made before, those that padding touches, and what is missing."""
        stop = start + self._length
        known = self._open.get(start) if heard else None
        shared = self._shared if heard and self._in_shared(start) else None
        stream: PrefixStream | Member | None = known.stream if known is not None and known.complete else shared
        if stream is None or not stream.window(start, stop, self._positions):
            self._apart.restart(start, self._phase(start))
            self._apart.push(window, start)
            if not self._apart.window(start, stop, self._positions):
                raise EngineError("positions are missing that the window itself gives")
        if known is not None and known.complete and known.left is not None:
            self._put(known.left, left=True)
        elif self._left is not None:
            self._left.arrays["samples"][0] = window[: self._split.left_samples]
            self._left.run()
            self._put(self._left.arrays, left=True)
        if self._right is not None:
            self._right.arrays["samples"][0] = window[-self._split.right_samples :]
            self._right.run()
            self._put(self._right.arrays, left=False)

    def _sum_up(self, layer: FirstSums, start: int, *, heard: bool) -> None:
        """The first layer's sums of a window whose positions are there."""
        done = None
        if heard and (known := self._open.get(start)) is not None and known.complete:
            done, known.sum = known.sum, None
        elif heard and self._in_shared(start):
            done = self._sums.pop(start, None)
        values = (done or Sum(layer, start)).end(self._positions[0])
        self._rest.arrays["sums"].reshape(-1)[:] = values

    def _look_for_windows(self, first_index: int) -> bool:
        """Open the sums of windows that have begun; say whether one is due by the samples from `first_index` on."""
        assert self._layer is not None
        assert self._shared is not None
        while self._sums and self._shared.gone(oldest := next(iter(self._sums)), self._layer.left):
            del self._sums[oldest]  # nobody asked for it: a gap, an artifact, a window that was skipped
        for cursor in self._cursors:
            while cursor.start < self._next:
                if cursor.start not in self._sums:
                    self._sums[cursor.start] = self._shared.sum_of(self._layer, cursor.start)
                cursor.advance()
        return any(first_index < start + self._length <= self._next for start in self._sums)

    def _put(self, made: dict[str, Floats], *, left: bool) -> None:
        for n, (one, array) in enumerate(zip(self._split.boundary, self._positions, strict=True)):
            if left and one.left:
                array[: one.left] = made[f"positions{n}"]
            elif not left and one.right:
                array[one.positions - one.right :] = made[f"positions{n}"]

    def _in_shared(self, start: int) -> bool:
        """Whether a window shares the stream: told from its place alone, never from what was heard."""
        return self._shared is not None and start % self._split.stride == 0

    def _phase(self, start: int) -> int:
        """Where a window's blocks begin: on the segment's own grid, or at its start."""
        shares = self._shared is not None and start % self._split.stride == 0
        return 0 if shares else start % self._split.block

    def _make_room(self) -> bool:
        """Give up what was made of the oldest window that is whole; it can be made again from the window."""
        whole = [start for start, one in self._open.items() if one.complete]
        if whole:
            self._free.append(self._open.pop(min(whole)))
        return bool(whole)
