"""The whole-window engine on onnxruntime, which runs on the provider that was asked for or not at all."""

import contextlib
import io
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.bound import BoundRun
from rtdecode.encode.engine import EngineInfo
from rtdecode.encode.engine_cache import cache_options, find_platform, kept_context
from rtdecode.encode.onnxfile import check_self_contained
from rtdecode.encode.providers import PROVIDERS, OptionValue, Provider, check_options, find_provider, not_available
from rtdecode.encode.sessions import shared
from rtdecode.encode.window_engine import WindowEngine, check_input, check_output
from rtdecode.errors import BundleError, EngineError, ProviderError

Fallback = Literal["forbid", "allow"]

#: Runs before the engine counts as ready, for its one shape.
WARMUP = 3

#: Providers whose buffers are on the device.
ON_GPU = ("cuda", "tensorrt")

#: onnxruntime's tensor types, as numpy spells them; others are left as they are, to be named in an error.
_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}

_NO_OPTIONS: Mapping[str, OptionValue] = MappingProxyType({})

#: What this project asks of a provider unless it is told otherwise: fp32 means fp32 (TF32 keeps 10 bits of 23).
_DEFAULTS: Mapping[str, Mapping[str, OptionValue]] = MappingProxyType({"cuda": {"use_tf32": False}})


class OnnxEngine(WindowEngine):
    """Encodes whole windows with onnxruntime.

    Nodes run one after the other, with all graph optimisations and without busy-waiting. The same window gives the same
    bytes again on one machine with one library version and number of threads; another machine may choose other kernels,
    which is why every bundle has golden windows with a tolerance.

    Parameters
    ----------
    onnx : bytes
        An ONNX file with one float32 input of fixed shape (1, time, channels) and outputs of fixed shape (1, ...).
    provider : str
        ``cpu``, ``cuda`` or ``tensorrt``. Only this one is given to the runtime. ``openvino`` has an engine of its own.
    fallback : {"forbid", "allow"}
        Whether the CPU may run the model, or nodes of it, where `provider` cannot. What runs is read back from the
        runtime and stands in `info`.
    threads : int
        Threads inside one operator. More than the cores that are free makes the slowest windows slower.
    spinning : bool
        Whether waiting threads keep their core busy: a little faster with cores to spare, far slower without.
    warmup : int
        Runs before the engine counts as ready.
    options : mapping of str to str, int, float or bool
        Options of the provider, checked against `PROVIDERS`.
    precision : str
        What the ONNX file computes in, for `info`.
    bind : bool, optional
        Whether input and outputs stay where they are, bound once; as a rule on a GPU alone, where copies and captured
        graphs gain by it.

    Raises
    ------
    ProviderError
        The provider is unknown, not in this installation, or could not be used and `fallback` forbids another.
    EngineError
        onnxruntime is not installed, or the first run failed.
    BundleError
        The ONNX file is damaged, has a dynamic or wrong shape, or refers to other files.
    """

    def __init__(
        self,
        onnx: bytes,
        *,
        provider: str = "cpu",
        fallback: Fallback = "forbid",
        threads: int = 1,
        spinning: bool = False,
        warmup: int = WARMUP,
        options: Mapping[str, OptionValue] = _NO_OPTIONS,
        precision: str = "fp32",
        bind: bool | None = None,
    ) -> None:
        named = find_provider(provider)
        checked = check_options(named, {**_DEFAULTS.get(provider, {}), **options})
        if threads < 1:
            raise EngineError(f"threads = {threads}; expected 1 or more")
        runtime = import_onnxruntime()
        check_self_contained(onnx, "the ONNX file")
        if named.name == "tensorrt":
            checked = cache_options(
                onnx, checked, precision, find_platform(runtime.__version__, os.environ), os.environ
            )
        self._session = _make_session(runtime, onnx, named, fallback, checked, threads, spinning)
        shape, outputs = _read_shapes(self._session)
        self._input = self._session.get_inputs()[0].name
        self._outputs = list(outputs)
        super().__init__(
            EngineInfo(
                runtime=f"onnxruntime {runtime.__version__}",
                provider=_in_use(self._session),
                precision=precision,
                threads=threads,
                input_shape=shape,
                asked=provider,
                input_name=self._input,
                output_shapes=tuple(outputs.items()),
            )
        )
        self._bound: BoundRun | None = None
        on_gpu = self._info.provider in ON_GPU
        if on_gpu if bind is None else bind:
            self._bind(runtime, "cuda" if on_gpu else "cpu", int(checked.get("device_id", "0")))
        # A graph is captured in the first runs, not in those that count.
        graph = on_gpu and "True" in (checked.get("enable_cuda_graph"), checked.get("trt_cuda_graph_enable"))
        self._warm_up(max(warmup, WARMUP) if graph else warmup)

    def close(self) -> None:
        """Let go of the session."""
        super().close()
        self._session = None
        if self._bound is not None:
            self._bound.close()

    def _bind(self, runtime: Any, device: str, device_id: int) -> None:
        shapes = dict(self._info.output_shapes)
        outputs = {
            value.name: ((1, *shapes[value.name]), np.dtype(_TYPES[value.type]))
            for value in self._session.get_outputs()
        }
        window = (self._input, (1, *self._info.input_shape))
        self._bound = BoundRun(runtime, self._session, window, outputs, device, device_id)
        self.note("buffers", f"bound, {'pinned' if self._bound.pinned else 'not pinned'}")

    def _run(self, batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.floating]]:
        if self._bound is not None:
            return self._bound(batch)
        return dict(zip(self._outputs, self._session.run(self._outputs, {self._input: batch}), strict=True))


class _NoKernelError(EngineError):
    """The file may be sound; the provider does not compute some operator in some type."""


def import_onnxruntime() -> Any:
    """The module; `EngineError` says what to install where it is missing.

    Its builds may send usage data from the moment they are loaded. They are told not to: nothing here goes to the
    network that the configuration does not name.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(
            'onnxruntime is not installed; install one of pip install "rtdecode[cpu]" and, for an NVIDIA GPU, '
            f'pip install "rtdecode[gpu]" (never both): {error}'
        ) from error
    return onnxruntime


def _make_session(
    runtime: Any,
    onnx: bytes,
    provider: Provider,
    fallback: Fallback,
    options: Mapping[str, str],
    threads: int,
    spinning: bool,
) -> Any:
    """A session on the provider; on the CPU instead only where the fallback is allowed."""
    cpu = PROVIDERS["cpu"]
    if provider is cpu:

        def make() -> Any:
            return _create(runtime, onnx, cpu, options, threads, spinning, strict=False)

        return make() if options else shared(onnx, threads, spinning, make)
    if provider.runtime_name not in runtime.get_available_providers():
        why = (
            "it runs in an engine of its own, not in onnxruntime (make_engine picks it)"
            if provider.name in ("openvino", "tensorrt-native")
            else "this onnxruntime was built without it"
        )
        if fallback == "forbid":
            raise not_available(provider, why)
        return _create(runtime, onnx, cpu, {}, threads, spinning, strict=False)
    said = _preload(runtime)
    strict = fallback == "forbid"
    if (context := kept_context(options)) is not None:
        # The engine that an earlier start built, with the graph around it: nothing is parsed, optimised or built.
        with contextlib.suppress(BundleError, _NoKernelError):
            session = _create(runtime, str(context), provider, options, threads, spinning, strict=True)
            if _in_use(session) == provider.name:
                return session
        context.unlink(missing_ok=True)  # of no use on this machine: it is built again
    try:
        session = _create(runtime, onnx, provider, options, threads, spinning, strict=strict)
    except (BundleError, _NoKernelError) as error:
        unusable = not_available(provider, f"onnxruntime does not run the model on it: {error.__cause__}{said}")
        # Is it the provider, or the file? The CPU can tell: where it does not load the file either, this raises. Where
        # it only lacks a kernel, it cannot tell, and cannot stand in.
        try:
            session = _create(runtime, onnx, cpu, {}, threads, spinning, strict=False)
        except _NoKernelError:
            raise unusable from error
        if strict:
            raise unusable from error
    if strict and (found := _in_use(session)) != provider.name:
        raise not_available(provider, f"onnxruntime would have run the model on {found} instead{said}")
    return session


def _preload(runtime: Any) -> str:
    """Load the CUDA libraries of pip's packages, which lie where the loader does not look; say what did not load.

    onnxruntime prints that on standard output, where a program may be reading.
    """
    said = io.StringIO()
    if hasattr(runtime, "preload_dlls"):
        with contextlib.redirect_stdout(said):
            runtime.preload_dlls()
    lines = [line for line in said.getvalue().splitlines() if line.startswith("Failed to load")]
    return "".join(f" ({line})" for line in lines)


def session_settings(runtime: Any, threads: int, spinning: bool) -> Any:
    """Of every session: one node after the other, deterministic, all graph optimisations; errors alone are logged."""
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.use_deterministic_compute = True
    settings.log_severity_level = 3
    for pool in ("intra", "inter"):
        settings.add_session_config_entry(f"session.{pool}_op.allow_spinning", str(int(spinning)))
    return settings


def _create(
    runtime: Any,
    onnx: bytes | str,
    provider: Provider,
    options: Mapping[str, str],
    threads: int,
    spinning: bool,
    *,
    strict: bool,
) -> Any:
    settings = session_settings(runtime, threads, spinning)
    if strict:
        settings.log_severity_level = 4
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        # enable_fallback=False: without it, the Python layer retries on the CPU by itself, whatever the settings say.
        return runtime.InferenceSession(
            onnx, settings, providers=[(provider.runtime_name, dict(options))], enable_fallback=False
        )
    except Exception as error:
        # onnxruntime's exceptions share no base class of its own.
        if type(error).__name__ == "NotImplemented":
            raise _NoKernelError(
                f"onnxruntime {runtime.__version__} has no kernel on {provider.name!r} for an operator of the file "
                f"in the precision that it is written in: {error}; name another provider, or a bundle in fp32"
            ) from error
        raise BundleError(f"onnxruntime {runtime.__version__} does not load the ONNX file: {error}") from error


def _in_use(session: Any) -> str:
    """The provider that comes first in the session, by our name."""
    first = session.get_providers()[0]
    for provider in PROVIDERS.values():
        if provider.runtime_name == first:
            return provider.name
    raise ProviderError(f"onnxruntime runs the model on {first}, which nobody asked for")


def _read_shapes(session: Any) -> tuple[tuple[int, int], dict[str, tuple[int, ...]]]:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise BundleError(
            f"the ONNX file has {len(inputs)} inputs ({names}); expected one, of shape (1, time, channels)"
        )
    shape = check_input(inputs[0].name, _TYPES.get(inputs[0].type, inputs[0].type), inputs[0].shape)
    outputs = {
        value.name: check_output(value.name, _TYPES.get(value.type, value.type), value.shape)
        for value in session.get_outputs()
    }
    return shape, outputs
