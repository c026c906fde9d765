"""The part of an encoder that runs on new samples only, and what it has given of a stream."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.manifest import Split
from rtdecode.encode.onnx import import_onnxruntime, session_settings
from rtdecode.encode.onnxfile import check_self_contained
from rtdecode.encode.sessions import shared
from rtdecode.errors import BundleError
from rtdecode.stream.ring import Ring

Floats = NDArray[np.float32]


def session(data: bytes, what: str, threads: int, *, spinning: bool = False) -> Any:
    """A session on the CPU with the settings of the whole-window engine."""
    check_self_contained(data, what)
    runtime = import_onnxruntime()
    settings = session_settings(runtime, threads, spinning)

    def make() -> Any:
        return runtime.InferenceSession(data, settings, providers=["CPUExecutionProvider"], enable_fallback=False)

    try:
        return shared(data, threads, spinning, make)
    except Exception as error:  # onnxruntime's exceptions share no base class of its own
        raise BundleError(f"{what}: onnxruntime {runtime.__version__} does not load it: {error}") from error


class Bound:
    """A session with memory of its own for what goes in and out, which the runtime reads and writes in place.

    Parameters
    ----------
    session : InferenceSession
    arrays : dict of str to ndarray of float32
        For every input and output of the session, by name.
    """

    def __init__(self, session: Any, arrays: dict[str, Floats]) -> None:
        self._session = session
        self.arrays = arrays
        self._binding = session.io_binding()
        for value in session.get_inputs():
            self._bind(self._binding.bind_input, value, arrays[value.name])
        for value in session.get_outputs():
            self._bind(self._binding.bind_output, value, arrays[value.name])

    def run(self) -> None:
        """Run it once."""
        self._session.run_with_iobinding(self._binding)

    @staticmethod
    def _bind(bind: Any, value: Any, array: Floats) -> None:
        if tuple(value.shape) != array.shape or not array.flags.c_contiguous:
            raise BundleError(f"{value.name!r} has shape {tuple(value.shape)}; the manifest says {array.shape}")
        bind(value.name, "cpu", 0, np.float32, array.shape, array.ctypes.data)


def arrays_of(session: Any) -> dict[str, Floats]:
    """Memory for every input and output of a session; `BundleError` where a shape is not fixed."""
    found: dict[str, Floats] = {}
    for value in (*session.get_inputs(), *session.get_outputs()):
        if not all(isinstance(n, int) and n > 0 for n in value.shape) or value.type != "tensor(float)":
            raise BundleError(f"{value.name!r} is {value.type} of shape {value.shape}; expected float32 of fixed shape")
        found[value.name] = np.zeros(value.shape, np.float32)
    return found


def check_layout(arrays: Mapping[str, Floats], wanted: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Raise `BundleError` unless a file takes and gives what the manifest says, and nothing else."""
    found = {name: array.shape for name, array in arrays.items()}
    if found != wanted:
        raise BundleError(f"{what} has {_listed(found)}; $.encoder.incremental says {_listed(wanted)}")


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items()))


class PrefixStream:
    """A prefix at work on one stream of samples, in blocks counted from a fixed place.

    A block is run when its last sample is in, and never again. What a position is made of is the same samples at the
    same place of the same block, however the samples are cut into chunks and wherever the stream began: so its bytes
    are the same, too. Blocks at the stream's beginning are filled up with zeros in front; no window that began later
    holds a position that they colour.

    Parameters
    ----------
    runner : InferenceSession
        Of the prefix; several streams may share it.
    split : Split
        Its layout.
    channels : int
        Of a sample.
    samples : int
        Samples whose positions are kept at least.

    Raises
    ------
    BundleError
        The session takes or gives something else.
    """

    def __init__(self, runner: Any, split: Split, channels: int, samples: int) -> None:
        self._split = split
        arrays = arrays_of(runner)
        block = split.block
        wanted: dict[str, tuple[int, ...]] = {"samples": (1, block, channels)}
        wanted |= {f"{kind}{n}": shape for n, shape in enumerate(split.states) for kind in ("state", "next")}
        wanted |= {f"positions{n}": (block // one.stride, one.features) for n, one in enumerate(split.boundary)}
        check_layout(arrays, wanted, split.prefix)
        others = {f"{kind}{n}": np.zeros_like(arrays[f"state{n}"])
                  for kind in ("state", "next") for n in range(len(split.states))}  # fmt: skip
        # States go from one memory into the other, and back with the next block: nothing is copied.
        there = {name: others.get(name, array) for name, array in arrays.items()}
        back = dict(there)
        for n in range(len(split.states)):
            there[f"next{n}"] = others[f"next{n}"]
            back[f"state{n}"], back[f"next{n}"] = there[f"next{n}"], there[f"state{n}"]
        self._bound = Bound(runner, there), Bound(runner, back)
        self._block: Floats = arrays["samples"]
        self._given = [arrays[f"positions{n}"] for n in range(len(split.boundary))]
        self._capacity = [-(-samples // one.stride) + split.block // one.stride + 1 for one in split.boundary]
        #: First sample that was heard since the last restart, and the one that comes next.
        self.first = self.next = 0
        self.restart(0)

    def restart(self, first_index: int, phase: int = 0) -> None:
        """Forget all; the next sample is `first_index`, and blocks begin at `phase` and whole blocks from there."""
        self._phase = phase
        self._filled = (first_index - phase) % self._split.block
        self._block[:] = 0
        self._turn = 0
        for n in range(len(self._split.states)):
            self._bound[0].arrays[f"state{n}"][:] = 0
        begin = first_index - self._filled - phase
        self._rings = [
            Ring(capacity, one.features, np.float32, begin // one.stride)
            for capacity, one in zip(self._capacity, self._split.boundary, strict=True)
        ]
        self.first = self.next = first_index

    def push(self, samples: Floats, first_index: int) -> None:
        """Take samples, shape (n, channels); of those that were heard already, nothing is done."""
        if first_index > self.next:
            raise ValueError(f"sample {first_index} does not follow {self.next - 1}; restart first")
        samples = samples[self.next - first_index :]
        at, n, size = 0, len(samples), self._split.block
        while at < n:
            take = min(n - at, size - self._filled)
            self._block[0, self._filled : self._filled + take] = samples[at : at + take]
            at += take
            self._filled += take
            if self._filled == size:
                self._bound[self._turn].run()
                self._turn = 1 - self._turn
                self._filled = 0
                for ring, given in zip(self._rings, self._given, strict=True):
                    ring.write(given)
        self.next += n

    def rehearse(self) -> None:
        """Run the block that is not full; nobody looks at what comes out."""
        self._bound[self._turn].run()

    def fits(self, start: int) -> bool:
        """Whether a window that begins at `start` begins at a position."""
        return (start - self._phase) % self._split.stride == 0

    def window(self, start: int, stop: int, out: Sequence[Floats]) -> bool:
        """Copy a window's positions that no padding touches into (positions, features) of each tensor of the boundary.

        Returns
        -------
        bool
            False, and nothing copied that counts, where the window's samples were not heard or its positions are gone.
        """
        if start < self.first or stop > self.next or not self.fits(start):
            return False
        ran = False
        for one, ring, given, array in zip(self._split.boundary, self._rings, self._given, out, strict=True):
            base = (start - self._phase) // one.stride + one.delay
            first, last = base + one.left, base + one.positions - one.right
            if first < ring.oldest_index:
                return False
            kept = min(last, ring.next_index)
            array[one.left : one.left + kept - first] = ring.view(first, kept)
            if kept < last:
                if not ran:
                    self._look_ahead()
                    ran = True
                array[one.left + kept - first : one.positions - one.right] = given[: last - kept]
        return True

    def positions(self, start: int, first: int, stop: int, heard: int | None = None) -> Floats | None:
        """Positions [first, stop) of the one tensor of the boundary, of the window that begins at `start`; a view.

        None where they are not there yet, or not any more; with `heard`, also where their blocks hold that sample or
        later ones.
        """
        one, ring = self._split.boundary[0], self._rings[0]
        base = (start - self._phase) // one.stride + one.delay
        due, block = ring.next_index, self._split.block
        if heard is not None:
            due = min(due, (heard - self._phase) // block * (block // one.stride))
        if start < self.first or base + stop > due or base + first < ring.oldest_index:
            return None
        rows: Floats = ring.view(base + first, base + stop)
        return rows

    def gone(self, start: int, first: int) -> bool:
        """Whether position `first` of the window that begins at `start` is not there any more, or never will be."""
        one, ring = self._split.boundary[0], self._rings[0]
        return start < self.first or (start - self._phase) // one.stride + one.delay + first < ring.oldest_index

    def _look_ahead(self) -> None:
        """Run the block that is not full, for the positions that hang on none of what is missing; its states go."""
        self._block[0, self._filled :] = 0
        self._bound[self._turn].run()
