"""What every whole-window engine shares: the checks of a window on its way in and of its outputs on their way out."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.engine import EngineInfo, Outputs, StatelessEngine
from rtdecode.errors import BundleError, EncodeError, EngineError


class WindowEngine(StatelessEngine):
    """An engine that does everything in `finish`.

    Parameters
    ----------
    info : EngineInfo
        What really runs.
    """

    def __init__(self, info: EngineInfo) -> None:
        self._info = info
        self._shapes = dict(info.output_shapes)
        self._closed = False

    @property
    def info(self) -> EngineInfo:
        """What really runs."""
        return self._info

    def finish(self, window: NDArray[np.float32], first_index: int) -> Outputs:
        """Encode one window.

        Parameters
        ----------
        window : ndarray of float32, shape (time, channels)
            May be read-only, and need not be contiguous; it is copied only where it is not.
        first_index : int
            Index of its first conditioned sample, for the message.

        Returns
        -------
        Outputs
            Arrays of their own, float32, without the batch axis, finite.

        Raises
        ------
        EncodeError
            The window has another shape or type, the runtime failed, or an output is NaN or Inf. The engine stays
            usable.
        EngineError
            The engine was closed.
        """
        if self._closed:
            raise EngineError("the engine was closed; make a new one")
        check_window(window, first_index, self._info.input_shape)
        try:
            found = self._run(np.ascontiguousarray(window)[np.newaxis])
        except Exception as error:
            # The runtimes raise classes of their own that share no base; whatever it was, it is this window's failure.
            raise EncodeError(f"window at sample {first_index}: {self._info.runtime} failed: {error}") from error
        # Copied, since a runtime may hand out its own memory, or even the window's where an output is the input itself.
        return finite(
            {name: np.array(found[name][0], dtype=np.float32, order="C") for name in self._shapes}, first_index
        )

    def note(self, name: str, value: str) -> None:
        """Say something more of what runs, in `info`."""
        self._info = replace(self._info, more=(*self._info.more, (name, value)))

    def close(self) -> None:
        """Let go of the runtime. Safe to call twice."""
        self._closed = True

    def _warm_up(self, runs: int) -> None:
        """Encode zeros a few times: the first runs allocate, tune and compile, and no live window should pay for it."""
        zeros = np.zeros((1, *self._info.input_shape), np.float32)
        for _ in range(runs):
            try:
                found = self._run(zeros)
            except Exception as error:
                raise EngineError(f"{self._info.runtime} failed at the first window: {error}") from error
            for name, shape in self._shapes.items():
                if found[name].shape != (1, *shape):
                    raise BundleError(
                        f"the ONNX file's output {name!r} has shape {found[name].shape}; it declares {(1, *shape)}"
                    )

    @abstractmethod
    def _run(self, batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.floating]]:
        """Run a batch of one, shape (1, time, channels)."""


def check_window(window: NDArray[np.float32], first_index: int, shape: tuple[int, int]) -> None:
    """Raise `EncodeError` unless a window is float32 of the encoder's shape (time, channels)."""
    if window.shape != shape or window.dtype != np.float32:
        raise EncodeError(
            f"window at sample {first_index} is {window.dtype} of shape {window.shape}; "
            f"the encoder takes float32 of shape {shape}"
        )


def finite(outputs: Outputs, first_index: int) -> Outputs:
    """Outputs as they are; raise `EncodeError` where one has NaN or Inf."""
    for name, output in outputs.items():
        if not np.isfinite(output).all():
            raise EncodeError(f"window at sample {first_index}: the encoder's output {name!r} has NaN or Inf")
    return outputs


def check_input(name: str, type_name: str, shape: Sequence[object]) -> tuple[int, int]:
    """The (time, channels) of a window, from what an ONNX file declares of its input.

    Raises
    ------
    BundleError
        The input is not float32 of a fixed shape (1, time, channels).
    """
    fixed = [n for n in shape if isinstance(n, int) and n > 0]
    if type_name != "float32" or len(shape) != 3 or len(fixed) != 3 or fixed[0] != 1:
        raise BundleError(
            f"the ONNX file's input {name!r} is {type_name} of shape {_shown(shape)}; expected float32 of a fixed "
            "shape (1, time, channels): export it without dynamic axes, one window at a time"
        )
    return fixed[1], fixed[2]


def check_output(name: str, type_name: str, shape: Sequence[object]) -> tuple[int, ...]:
    """The shape of one window's output, from what an ONNX file declares of it.

    Raises
    ------
    BundleError
        The output is not floating point of a fixed shape (1, ...).
    """
    fixed = [n for n in shape if isinstance(n, int) and n > 0]
    if (
        type_name not in {"float16", "float32", "float64"}
        or len(fixed) != len(shape)
        or len(fixed) < 2
        or fixed[0] != 1
    ):
        raise BundleError(
            f"the ONNX file's output {name!r} is {type_name} of shape {_shown(shape)}; expected floating point of a "
            "fixed shape (1, ...): export it without dynamic axes, one window at a time"
        )
    return tuple(fixed[1:])


def _shown(shape: Sequence[object]) -> str:
    return "(" + ", ".join(str(n) if isinstance(n, int) else f"{n or '?'}" for n in shape) + ")"
