"""The few calls of NVIDIA's CUDA runtime that engines need: buffers, pinned memory, a stream, a captured graph.

Through ctypes, since the runtime comes with onnxruntime-gpu's packages and a Python layer over it would be one more
dependency. Signatures: https://docs.nvidia.com/cuda/cuda-runtime-api/
"""

import ctypes
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import EngineError, ProviderError

#: Newest first. The functions used here have one signature in all of them.
_LIBRARIES: Final = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")

#: pip's packages, in which the library lies where the loader does not look.
_PACKAGES: Final = ("nvidia.cu13", "nvidia.cuda_runtime")

_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyKind
_NON_BLOCKING: Final = 1  # cudaStreamNonBlocking
_THREAD_LOCAL: Final = 1  # cudaStreamCaptureModeThreadLocal


class CudaError(EngineError):
    """A call of the CUDA runtime failed."""


class Cuda:
    """The CUDA runtime, on one device.

    Parameters
    ----------
    device : int
        Number of the GPU.
    library : ctypes.CDLL, optional
        The runtime; found where none is given.

    Raises
    ------
    ProviderError
        There is no runtime, no driver or no such device.
    """

    def __init__(self, device: int = 0, library: Any = None) -> None:
        self._library = load_runtime() if library is None else library
        self._library.cudaGetErrorString.restype = ctypes.c_char_p
        self.device = device
        count = ctypes.c_int()
        try:
            self._call("cudaGetDeviceCount", ctypes.byref(count))
        except CudaError as error:
            raise ProviderError(f"there is no GPU to be had: {error}") from error
        if not 0 <= device < count.value:
            raise ProviderError(f"there is no GPU {device}; expected 0 to {count.value - 1}")
        self.use()

    def use(self) -> None:
        """Have this thread's calls go to the device."""
        self._call("cudaSetDevice", ctypes.c_int(self.device))

    def allocate(self, size: int) -> int:
        """Address of so many bytes on the device."""
        return self._address("cudaMalloc", ctypes.c_size_t(size))

    def free(self, address: int) -> None:
        """Give device memory back."""
        self._call("cudaFree", ctypes.c_void_p(address))

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[NDArray[Any], int]:
        """An array in memory that is never paged out, so that copies to and from the device need no detour.

        Returns
        -------
        array : ndarray
        address : int
            For `free_pinned`, when nothing uses the array any more.
        """
        size = int(np.prod(shape)) * dtype.itemsize
        address = self._address("cudaHostAlloc", ctypes.c_size_t(size), ctypes.c_uint(0))
        memory = (ctypes.c_byte * size).from_address(address)
        return np.ctypeslib.as_array(memory).view(dtype).reshape(shape), address

    def free_pinned(self, address: int) -> None:
        """Give pinned memory back."""
        self._call("cudaFreeHost", ctypes.c_void_p(address))

    def stream(self) -> int:
        """A stream of its own, which waits for no other."""
        return self._address("cudaStreamCreateWithFlags", ctypes.c_uint(_NON_BLOCKING))

    def free_stream(self, stream: int) -> None:
        """Give a stream back."""
        self._call("cudaStreamDestroy", ctypes.c_void_p(stream))

    def to_device(self, address: int, host: NDArray[Any], stream: int) -> None:
        """Copy an array to the device, in the stream's turn."""
        self._copy(address, host.ctypes.data, host.nbytes, _TO_DEVICE, stream)

    def to_host(self, host: NDArray[Any], address: int, stream: int) -> None:
        """Copy from the device into an array, in the stream's turn."""
        self._copy(host.ctypes.data, address, host.nbytes, _TO_HOST, stream)

    def wait(self, stream: int) -> None:
        """Wait until all that the stream was given is done."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(stream))

    def capture(self, stream: int, work: Callable[[], object]) -> int:
        """Record what `work` gives the stream, without doing it; the graph can be run again and again."""
        self._call("cudaStreamBeginCapture", ctypes.c_void_p(stream), ctypes.c_int(_THREAD_LOCAL))
        graph = ctypes.c_void_p()
        try:
            work()
        finally:
            self._call("cudaStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        try:
            return self._address("cudaGraphInstantiate", graph, ctypes.c_ulonglong(0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: int, stream: int) -> None:
        """Run a captured graph, in the stream's turn."""
        self._call("cudaGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def free_graph(self, graph: int) -> None:
        """Give a captured graph back."""
        self._call("cudaGraphExecDestroy", ctypes.c_void_p(graph))

    def _copy(self, to: int, of: int, size: int, kind: int, stream: int) -> None:
        self._call(
            "cudaMemcpyAsync",
            ctypes.c_void_p(to),
            ctypes.c_void_p(of),
            ctypes.c_size_t(size),
            ctypes.c_int(kind),
            ctypes.c_void_p(stream),
        )

    def _address(self, name: str, *values: object) -> int:
        """Call a function that puts what it makes where its first argument points."""
        made = ctypes.c_void_p()
        self._call(name, ctypes.byref(made), *values)
        assert made.value is not None
        return made.value

    def _call(self, name: str, *values: object) -> None:
        code = getattr(self._library, name)(*values)
        if code != 0:
            said = self._library.cudaGetErrorString(ctypes.c_int(code)) or b"?"
            raise CudaError(f"{name} failed with {code}: {said.decode(errors='replace')}")


def load_runtime() -> Any:
    """The CUDA runtime's library; `ProviderError` where it is not installed."""
    for place in _places():
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue  # the next place
    raise ProviderError(
        'the CUDA runtime (libcudart) is not installed; pip install "rtdecode[gpu]" brings it, for an NVIDIA GPU'
    )


def _places() -> Iterator[str]:
    yield from _LIBRARIES
    for package in _PACKAGES:
        try:
            found = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        for folder in () if found is None else found.submodule_search_locations or ():
            for name in _LIBRARIES:
                path = Path(folder) / "lib" / name
                if path.exists():
                    yield str(path)
