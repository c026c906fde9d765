"""Runs of onnxruntime with buffers that are bound once: input and outputs stay where they are, on the device.

A captured CUDA graph needs that, for it repeats its reads and writes at the addresses it was recorded with; without
one, it saves what onnxruntime would allocate for each run.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.cuda import Cuda
from rtdecode.errors import EngineError


class BoundRun:
    """One session with its buffers.

    Parameters
    ----------
    runtime : module
        onnxruntime.
    session : onnxruntime.InferenceSession
    window : tuple of (str, tuple of int)
        Name and shape (1, time, channels) of the input, float32.
    outputs : mapping of str to (tuple of int, dtype)
        Shape, with the batch of one, and type of each output.
    device : {"cpu", "cuda"}
        Where the buffers are.
    device_id : int
        Which device.
    """

    def __init__(
        self,
        runtime: Any,
        session: Any,
        window: tuple[str, tuple[int, ...]],
        outputs: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
        device: str = "cpu",
        device_id: int = 0,
    ) -> None:
        name, shape = window
        self._session = session
        self._cuda: Cuda | None = None
        self._pinned: list[int] = []
        make = runtime.OrtValue.ortvalue_from_shape_and_type
        self._input = make(shape, np.float32, device, device_id)
        self._outputs = {one: make(size, dtype.type, device, device_id) for one, (size, dtype) in outputs.items()}
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(name, self._input)
        for one, value in self._outputs.items():
            self._binding.bind_ortvalue_output(one, value)
        self._host = np.zeros(shape, np.float32)
        if device == "cuda":
            self._pin(device_id, shape)

    @property
    def pinned(self) -> bool:
        """Whether windows go to the device from memory that is never paged out."""
        return bool(self._pinned)

    @property
    def addresses(self) -> tuple[int, ...]:
        """Where input and outputs are, on the device."""
        return tuple(value.data_ptr() for value in (self._input, *self._outputs.values()))

    def __call__(self, batch: NDArray[np.float32]) -> dict[str, NDArray[np.floating]]:
        """Run a batch of one, shape (1, time, channels); outputs by name."""
        np.copyto(self._host, batch)
        self._input.update_inplace(self._host)
        self._session.run_with_iobinding(self._binding)
        return {name: value.numpy() for name, value in self._outputs.items()}

    def close(self) -> None:
        """Let go of the session and the memory. Safe to call twice."""
        self._session = self._binding = self._input = None
        self._outputs = {}
        self._host = np.zeros(0, np.float32)
        while self._pinned and self._cuda is not None:
            self._cuda.free_pinned(self._pinned.pop())

    def _pin(self, device_id: int, shape: tuple[int, ...]) -> None:
        try:
            self._cuda = Cuda(device_id)
            self._host, address = self._cuda.pinned(shape, np.dtype(np.float32))
        except EngineError:  # it is faster with, and right without
            return
        self._pinned.append(address)
