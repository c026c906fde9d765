"""The Engine protocol: an encoder that may work while it listens."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

#: The outputs of one window, by the encoder's output names, without the batch axis.
Outputs = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What really runs, as it is published.

    Parameters
    ----------
    runtime : str
        Library and version, e.g. ``onnxruntime 1.31.1``.
    provider : str
        The provider in use, read back from the runtime after the session was made: ``cpu``, ``cuda``, ``tensorrt``,
        ``tensorrt-native``, ``openvino``, ``triton``.
    precision : str
        ``fp32``, ``fp16``, ``bf16`` or ``int8``.
    threads : int
        Threads inside one operator; 0 where a server decides.
    input_shape : tuple of int
        (time, channels) of one window.
    input_name : str
        Name of the encoder's input.
    asked : str
        The provider that the configuration named; empty where it is `provider`.
    output_shapes : tuple of (str, tuple of int)
        Shape of each output of one window, without the batch axis.
    more : tuple of (str, str or int)
        What else there is to know of this provider, by name.
    """

    runtime: str
    provider: str
    precision: str
    threads: int
    input_shape: tuple[int, int]
    input_name: str = ""
    asked: str = ""
    output_shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    more: tuple[tuple[str, str | int], ...] = ()

    @property
    def fell_back(self) -> bool:
        """Whether another provider runs than was asked for (only ever with ``fallback = "allow"``)."""
        return bool(self.asked) and self.asked != self.provider

    def describe(self) -> dict[str, str | int | tuple[int, ...]]:
        """The same as plain values, for a message or a table."""
        return {
            "runtime": self.runtime,
            "provider": self.provider,
            "asked": self.asked or self.provider,
            "fell_back": int(self.fell_back),
            "precision": self.precision,
            "threads": self.threads,
            "input_shape": self.input_shape,
            **{f"output_shape.{name}": shape for name, shape in self.output_shapes},
            **dict(self.more),
        }


class Engine(Protocol):
    """Runs an encoder. Whole-window engines do everything in `finish`."""

    @property
    def info(self) -> EngineInfo:
        """What really runs."""
        ...

    def restart(self, first_index: int) -> None:
        """Forget all state: the next conditioned sample is `first_index` and follows a gap (or nothing)."""
        ...

    def advance(self, samples: NDArray[np.float32], first_index: int) -> None:
        """Take conditioned samples, shape (n, channels), in order, as they come."""
        ...

    def catch_up(self) -> None:
        """Do what has not been done yet of what can be done before a window is due: nothing else is to be done now."""
        ...

    def rehearse(self) -> None:
        """A window will be due shortly: have what `finish` uses in the caches, where that is cheap.

        Raises
        ------
        EncodeError
            The runtime failed; the engine stays usable.
        """
        ...

    def begin(self, first_index: int, samples: NDArray[np.float32]) -> None:
        """A marker-locked window will be due that begins at `first_index`.

        Parameters
        ----------
        first_index : int
            Its first conditioned sample, which may lie ahead.
        samples : ndarray of float32, shape (n, channels)
            Those of it that `advance` has given already, before the window steps.
        """
        ...

    def apart(self, window: NDArray[np.float32], first_index: int) -> Outputs:
        """As `finish`, of a window that lies in an earlier segment than the one that is heard."""
        ...

    def finish(self, window: NDArray[np.float32], first_index: int) -> Outputs:
        """Encode one window.

        Parameters
        ----------
        window : ndarray of float32, shape (time, channels)
            After the window steps; may be a read-only view into a ring that is overwritten later.
        first_index : int
            Index of its first conditioned sample.

        Returns
        -------
        Outputs
            Finite arrays of their own: nothing in them changes at the next call.

        Raises
        ------
        EncodeError
            The window could not be encoded, or an output has NaN or Inf; the engine stays usable.
        """
        ...

    def close(self) -> None:
        """Let go of the runtime."""
        ...


class StatelessEngine(ABC):
    """An engine that does everything in `finish`, and knows nothing of any window before."""

    def restart(self, first_index: int) -> None:  # noqa: B027  there is nothing to forget
        """Nothing: there is no state between windows."""

    def advance(self, samples: NDArray[np.float32], first_index: int) -> None:  # noqa: B027  nor to prepare
        """Nothing: the window is encoded whole when it is due."""

    def catch_up(self) -> None:  # noqa: B027  nothing was put off
        """Nothing: there is nothing to do before a window is due."""

    def rehearse(self) -> None:  # noqa: B027  it would take as long as the window itself
        """Nothing: a whole window takes too long to be encoded for practice."""

    def begin(self, first_index: int, samples: NDArray[np.float32]) -> None:  # noqa: B027  the window comes whole
        """Nothing: the window is encoded whole when it is due."""

    def apart(self, window: NDArray[np.float32], first_index: int) -> Outputs:
        """As `finish`: every window is encoded by itself."""
        return self.finish(window, first_index)

    @abstractmethod
    def finish(self, window: NDArray[np.float32], first_index: int) -> Outputs:
        """Encode one window; see `Engine.finish`."""


@dataclass(frozen=True, slots=True)
class News:
    """Something to tell about an engine: a word for the event, a sentence, details."""

    event: str
    text: str
    details: dict[str, str | int | float | bool | None] = field(default_factory=dict)


class RemoteEngine(Engine, Protocol):
    """An engine whose windows leave this process, and may not come back. Its `info` is of the last window."""

    def allow(self, until: float) -> None:
        """The next window is of no use after this host time (infinity: whenever it comes)."""
        ...

    def news(self) -> list[News]:
        """What happened to the server since the last call."""
        ...
