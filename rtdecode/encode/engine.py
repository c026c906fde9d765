"""The Engine protocol: an encoder that may work while it listens."""

from collections.abc import Mapping
from dataclasses import dataclass
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
        ``openvino``.
    precision : str
        ``fp32``, ``fp16``, ``bf16`` or ``int8``.
    threads : int
        Threads inside one operator.
    input_shape : tuple of int
        (time, channels) of one window.
    input_name : str
        Name of the encoder's input.
    asked : str
        The provider that the configuration named; empty where it is `provider`.
    output_shapes : tuple of (str, tuple of int)
        Shape of each output of one window, without the batch axis.
    """

    runtime: str
    provider: str
    precision: str
    threads: int
    input_shape: tuple[int, int]
    input_name: str = ""
    asked: str = ""
    output_shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()

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
