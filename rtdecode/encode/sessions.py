"""The runtime's sessions on the CPU, and weights beside them, shared by all engines of a process that run one file.

Weights then lie in memory, and in the caches, once: many streams that have their own each read them from memory. A
session has no state between runs, and may run in several threads at once. What an engine knows of its stream is its
own.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

from numpy.typing import NDArray

_made: WeakValueDictionary[tuple[str, int, bool], Any] = WeakValueDictionary()
_weights: WeakValueDictionary[str, NDArray[Any]] = WeakValueDictionary()
_making = threading.Lock()
_kept: list[Any] | None = None


def shared(onnx: bytes, threads: int, spinning: bool, make: Callable[[], Any]) -> Any:
    """The session that is in use for this file and these settings; made where there is none.

    Parameters
    ----------
    onnx : bytes
        The file.
    threads, spinning
        As for `OnnxEngine`.
    make : callable
        Makes it; what it raises is raised.
    """
    key = (hashlib.sha256(onnx).hexdigest(), threads, spinning)
    with _making:
        found = _made.get(key)
        if found is None:
            found = _made[key] = make()
        if _kept is not None:
            _kept.append(found)
        return found


def shared_weights(data: bytes, read: Callable[[bytes], NDArray[Any]]) -> NDArray[Any]:
    """The array that is in use for these bytes, read-only; read where there is none."""
    key = hashlib.sha256(data).hexdigest()
    with _making:
        found = _weights.get(key)
        if found is None:
            found = _weights[key] = read(data)
            found.flags.writeable = False
        return found


@contextmanager
def kept() -> Iterator[None]:
    """Keep what is made meanwhile, until several engines have been made of it that each need it for a moment only."""
    global _kept
    _kept = []
    try:
        yield
    finally:
        _kept = None
