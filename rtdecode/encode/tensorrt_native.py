"""The whole-window engine on TensorRT itself, without onnxruntime around it.

For one window: a copy from pinned memory to a fixed place on the device, the engine, and copies back, all on one stream
and, where it can be, one captured CUDA graph. Engines are built where they run and kept by `engine_cache`'s keys.
"""

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.cuda import Cuda, CudaError
from rtdecode.encode.engine import EngineInfo
from rtdecode.encode.engine_cache import native_folder
from rtdecode.encode.onnxfile import check_self_contained
from rtdecode.encode.providers import PROVIDERS, OptionValue, check_options, not_available
from rtdecode.encode.tensorrt_build import OPTIMIZATION_LEVEL, WORKSPACE_MB, build_engine, quiet_logger
from rtdecode.encode.window_engine import WindowEngine, check_input, check_output
from rtdecode.errors import BundleError, EngineError, ProviderError

#: Runs before a graph is captured: the first ones choose and allocate.
WARMUP: Final = 3

_TYPES: Final = {"FLOAT": "float32", "HALF": "float16"}
_NO_OPTIONS: Mapping[str, OptionValue] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Buffer:
    """One input or output: where it is on the device, and where in pinned memory."""

    device: int
    host: NDArray[np.floating]
    pinned: int


class TensorRtEngine(WindowEngine):
    """Encodes whole windows with TensorRT.

    Parameters
    ----------
    onnx : bytes
        As for `rtdecode.encode.onnx.OnnxEngine`; its precision is the engine's.
    warmup : int
        Runs before the engine counts as ready.
    options : mapping of str to int, str or bool
        ``device_id`` (0), ``cuda_graph`` (true), ``workspace_mb``, ``optimization_level``, ``cache`` (true),
        ``cache_path``.
    precision : str
        What the ONNX file computes in, for `info`.

    Raises
    ------
    ProviderError
        TensorRT, the CUDA runtime or the GPU is not to be had.
    BundleError
        The ONNX file is damaged, has a dynamic or wrong shape, refers to other files, or is not taken by TensorRT.
    EngineError
        The engine cannot be built or run.
    """

    def __init__(
        self,
        onnx: bytes,
        *,
        warmup: int = WARMUP,
        options: Mapping[str, OptionValue] = _NO_OPTIONS,
        precision: str = "fp32",
    ) -> None:
        provider = PROVIDERS["tensorrt-native"]
        checked = check_options(provider, options)
        trt = import_tensorrt()
        check_self_contained(onnx, "the ONNX file")
        try:
            self._cuda = Cuda(int(checked.get("device_id", "0")))
        except ProviderError as error:
            raise not_available(provider, str(error)) from error
        plan, built = _plan(trt, onnx, checked, precision)
        self._logger = quiet_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(f"TensorRT {trt.__version__} does not load its engine: {self._logger.said}")
        self._context = self._engine.create_execution_context()
        self._buffers: dict[str, _Buffer] = {}
        self._stream = self._graph = 0
        shape, outputs = self._declared(trt)
        self._outputs = list(outputs)
        super().__init__(
            EngineInfo(
                runtime=f"tensorrt {trt.__version__}",
                provider=provider.name,
                precision=precision,
                threads=1,
                input_shape=shape,
                asked=provider.name,
                input_name=self._input,
                output_shapes=tuple(outputs.items()),
            )
        )
        try:
            self._stream = self._cuda.stream()
            self._place()
            self._warm_up(max(warmup, WARMUP))
            if checked.get("cuda_graph", "True") == "True":
                self._graph = self._cuda.capture(self._stream, self._enqueue)
                self._warm_up(1)
        except BaseException:
            self.close()
            raise
        self.note("engine", "built" if built else "kept")
        self.note("cuda_graph", "yes" if self._graph else "no")

    def close(self) -> None:
        """Give the device's memory back."""
        if self._closed:
            return
        super().close()
        self._cuda.use()
        if self._graph:
            self._cuda.free_graph(self._graph)
        for buffer in self._buffers.values():
            self._cuda.free(buffer.device)
            self._cuda.free_pinned(buffer.pinned)
        if self._stream:
            self._cuda.free_stream(self._stream)
        self._buffers = {}
        self._context = self._engine = self._runtime = None

    def _declared(self, trt: Any) -> tuple[tuple[int, int], dict[str, tuple[int, ...]]]:
        """Shape of a window, and of each output, from what the engine declares."""
        engine = self._engine
        self._types: dict[str, np.dtype[Any]] = {}
        inputs: list[tuple[int, int]] = []
        outputs = {}
        for name in (engine.get_tensor_name(n) for n in range(engine.num_io_tensors)):
            kind = _TYPES.get(engine.get_tensor_dtype(name).name, engine.get_tensor_dtype(name).name.lower())
            sizes = [size if size > 0 else None for size in engine.get_tensor_shape(name)]
            if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                self._input = name
                inputs.append(check_input(name, kind, sizes))
            else:
                outputs[name] = check_output(name, kind, sizes)
            self._types[name] = np.dtype(kind)
        if len(inputs) != 1:
            raise BundleError(f"the ONNX file has {len(inputs)} inputs; expected one, of shape (1, time, channels)")
        return inputs[0], outputs

    def _place(self) -> None:
        """Buffers for input and outputs, which stay where they are."""
        shapes: dict[str, tuple[int, ...]] = {self._input: (1, *self._info.input_shape)}
        shapes |= {name: (1, *shape) for name, shape in self._info.output_shapes}
        for name, shape in shapes.items():
            host, pinned = self._cuda.pinned(shape, self._types[name])
            device = self._cuda.allocate(host.nbytes)
            self._buffers[name] = _Buffer(device, host, pinned)
            self._context.set_tensor_address(name, device)

    def _enqueue(self) -> None:
        """Give the stream one window's work."""
        cuda, stream = self._cuda, self._stream
        window = self._buffers[self._input]
        cuda.to_device(window.device, window.host, stream)
        if not self._context.execute_async_v3(stream):
            raise CudaError(f"TensorRT did not run the engine: {self._logger.said}")
        for name in self._outputs:
            buffer = self._buffers[name]
            cuda.to_host(buffer.host, buffer.device, stream)

    def _run(self, batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.floating]]:
        self._cuda.use()  # the thread that encodes need not be the one that made the engine
        np.copyto(self._buffers[self._input].host, batch)
        if self._graph:
            self._cuda.launch(self._graph, self._stream)
        else:
            self._enqueue()
        self._cuda.wait(self._stream)
        return {name: self._buffers[name].host for name in self._outputs}


def import_tensorrt() -> Any:
    """TensorRT's bindings; `ProviderError` says what to install where they are missing or do not load."""
    try:
        return importlib.import_module("tensorrt")
    except (ImportError, OSError, RuntimeError) as error:
        why = f"TensorRT's Python bindings do not load ({error})"
        raise not_available(PROVIDERS["tensorrt-native"], why) from error


def _plan(trt: Any, onnx: bytes, options: Mapping[str, str], precision: str) -> tuple[bytes, bool]:
    """The engine, and whether it was built now; it is kept where nobody else could have put it."""
    folder: Path | None = None
    if options.get("cache", "True") == "True":
        folder = native_folder(onnx, options, precision, str(trt.__version__), os.environ)
    kept = None if folder is None else folder / "engine.plan"
    if kept is not None and kept.is_file():
        return kept.read_bytes(), False
    timings = None if folder is None else folder / "timings"
    plan, measured = build_engine(
        trt,
        onnx,
        workspace_mb=int(options.get("workspace_mb", WORKSPACE_MB)),
        optimization_level=int(options.get("optimization_level", OPTIMIZATION_LEVEL)),
        timings=timings.read_bytes() if timings is not None and timings.is_file() else b"",
    )
    if kept is not None and timings is not None:
        timings.write_bytes(measured)
        part = kept.with_suffix(f".{os.getpid()}")
        part.write_bytes(plan)
        part.replace(kept)  # whole, or not at all
    return plan, True
