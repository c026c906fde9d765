"""The whole-window engine on OpenVINO, for Intel processors (and their GPUs and NPUs)."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.engine import EngineInfo
from rtdecode.encode.engine_cache import private_folder
from rtdecode.encode.onnxfile import check_self_contained
from rtdecode.encode.providers import PROVIDERS, OptionValue, check_options, not_available
from rtdecode.encode.window_engine import WindowEngine, check_input, check_output
from rtdecode.errors import BundleError, EngineError

_TYPES = {"f32": "float32", "f16": "float16", "f64": "float64"}
_NO_OPTIONS: Mapping[str, OptionValue] = MappingProxyType({})


class OpenVinoEngine(WindowEngine):
    """Encodes whole windows with OpenVINO, in the precision of the ONNX file.

    Parameters
    ----------
    onnx : bytes
        As for `rtdecode.encode.onnx.OnnxEngine`.
    threads : int
        Threads of the one inference stream.
    warmup : int
        Runs before the engine counts as ready.
    options : mapping of str to str
        ``device`` (``CPU``), ``hint`` (``LATENCY``), ``cache_dir``.
    precision : str
        What the ONNX file computes in, for `info`.

    Raises
    ------
    ProviderError
        OpenVINO is not installed, or has no such device.
    BundleError
        The ONNX file is damaged, has a dynamic or wrong shape, or refers to other files.
    """

    def __init__(
        self,
        onnx: bytes,
        *,
        threads: int = 1,
        warmup: int = 3,
        options: Mapping[str, OptionValue] = _NO_OPTIONS,
        precision: str = "fp32",
    ) -> None:
        provider = PROVIDERS["openvino"]
        checked = {"device": "CPU", "hint": "LATENCY"} | check_options(provider, options)
        if threads < 1:
            raise EngineError(f"threads = {threads}; expected 1 or more")
        try:
            import openvino
        except ImportError as error:
            raise not_available(provider, f"openvino is not installed ({error})") from error
        check_self_contained(onnx, "the ONNX file")
        core = openvino.Core()
        device = checked["device"]
        if device.split(".")[0] not in {name.split(".")[0] for name in core.available_devices}:
            have = ", ".join(core.available_devices)
            raise not_available(provider, f"there is no device {device!r} on this machine, only {have}")
        model = _read(core, onnx)
        declared = _declared(model.inputs[0])
        shape = check_input(*declared)
        outputs = {output[0]: check_output(*output) for output in map(_declared, model.outputs)}
        settings: dict[str, Any] = {"PERFORMANCE_HINT": checked["hint"], "NUM_STREAMS": 1}
        if device == "CPU":
            settings |= {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        if "cache_dir" in checked:
            settings["CACHE_DIR"] = str(private_folder(Path(checked["cache_dir"])))
        try:
            compiled = core.compile_model(model, device, settings)
        except RuntimeError as error:
            raise EngineError(f"openvino does not compile the ONNX file for {device}: {error}") from error
        self._request: Any = compiled.create_infer_request()
        self._names = list(outputs)
        super().__init__(
            EngineInfo(
                runtime=f"openvino {openvino.__version__}",
                provider="openvino",
                precision=precision,
                threads=threads,
                input_shape=shape,
                asked="openvino",
                input_name=declared[0],
                output_shapes=tuple(outputs.items()),
            )
        )
        self._warm_up(warmup)

    def close(self) -> None:
        """Let go of the compiled model."""
        super().close()
        self._request = None

    def _run(self, batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.floating]]:
        # share_inputs: no copy of the window; the outputs are the request's own memory, which `finish` copies.
        found = self._request.infer({0: batch}, share_inputs=True, share_outputs=True)
        return {name: found[index] for index, name in enumerate(self._names)}


def _read(core: Any, onnx: bytes) -> Any:
    try:
        model = core.read_model(onnx, b"")
    except RuntimeError as error:
        raise BundleError(f"openvino does not load the ONNX file: {error}") from error
    if len(model.inputs) != 1:
        raise BundleError(f"the ONNX file has {len(model.inputs)} inputs; expected one, of shape (1, time, channels)")
    return model


def _declared(port: Any) -> tuple[str, str, list[object]]:
    type_name = port.get_element_type().get_type_name()
    shape = [axis.get_length() if axis.is_static else None for axis in port.get_partial_shape()]
    # Where the import folded nodes together, a port has several names; its node is called by the graph's own.
    own = port.node.get_friendly_name().removesuffix("/sink_port_0")
    name = own if own in port.get_names() else port.get_any_name()
    return name, _TYPES.get(type_name, type_name), shape
