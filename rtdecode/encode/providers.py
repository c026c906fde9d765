"""Execution providers by the names that the configuration uses, and the options that each one takes.

onnxruntime cannot be trusted with either: where a provider's library does not load, it runs on the CPU with no more
than a line on the terminal, and it does not look at the options then. So names and options are checked here, first.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from rtdecode.errors import ProviderError

OptionValue = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider.

    Parameters
    ----------
    name : str
        As the configuration spells it.
    runtime_name : str
        As the runtime spells it.
    extra : str
        The extra of this project that installs it.
    options : mapping of str to type or tuple of str
        The options that it takes: the type of the value, or the values to choose from.
    """

    name: str
    runtime_name: str
    extra: str
    options: Mapping[str, type | tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))


#: Preferred first. The options are those of onnxruntime's and OpenVINO's documentation that make sense for one small
#: static model; precision is not among TensorRT's, since it belongs in the ONNX file (TensorRT 11 knows no other way).
PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {
        provider.name: provider
        for provider in (
            Provider(
                "tensorrt",
                "TensorrtExecutionProvider",
                "gpu,tensorrt",
                {
                    "device_id": int,
                    "trt_max_workspace_size": int,
                    "trt_min_subgraph_size": int,
                    "trt_engine_cache_enable": bool,
                    "trt_engine_cache_path": str,
                    "trt_engine_cache_prefix": str,
                    "trt_timing_cache_enable": bool,
                    "trt_timing_cache_path": str,
                    "trt_force_timing_cache": bool,
                    "trt_cuda_graph_enable": bool,
                    "trt_context_memory_sharing_enable": bool,
                    "trt_build_heuristics_enable": bool,
                    "trt_sparsity_enable": bool,
                    "trt_builder_optimization_level": int,
                    "trt_auxiliary_streams": int,
                },
            ),
            Provider(
                "cuda",
                "CUDAExecutionProvider",
                "gpu",
                {
                    "device_id": int,
                    "gpu_mem_limit": int,
                    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
                    "cudnn_conv_algo_search": ("DEFAULT", "HEURISTIC", "EXHAUSTIVE"),
                    "cudnn_conv_use_max_workspace": bool,
                    "cudnn_conv1d_pad_to_nc1d": bool,
                    "do_copy_in_default_stream": bool,
                    "enable_cuda_graph": bool,
                    "fuse_conv_bias": bool,
                    "use_tf32": bool,
                    "prefer_nhwc": bool,
                },
            ),
            Provider(
                "tensorrt-native",
                "tensorrt",
                "gpu,tensorrt",
                {
                    "device_id": int,
                    "cuda_graph": bool,
                    "workspace_mb": int,
                    "optimization_level": int,
                    "cache": bool,
                    "cache_path": str,
                },
            ),
            Provider(
                "openvino",
                "openvino",
                "openvino",
                {"device": str, "hint": ("LATENCY", "THROUGHPUT"), "cache_dir": str},
            ),
            Provider("cpu", "CPUExecutionProvider", "cpu"),
        )
    }
)


def find_provider(name: str) -> Provider:
    """The provider of this name; `ProviderError` lists the known ones where there is none."""
    try:
        return PROVIDERS[name]
    except KeyError:
        raise ProviderError(
            f"provider {name!r} is unknown; known are {', '.join(PROVIDERS)}{_near(name, PROVIDERS)}"
        ) from None


def check_options(provider: Provider, options: Mapping[str, OptionValue]) -> dict[str, str]:
    """Options as the runtime wants them: strings, with ``True`` and ``False`` for booleans.

    Raises
    ------
    ProviderError
        An option that the provider does not have, or a value of another type; the message names what there is.
    """
    checked = {}
    for key, value in options.items():
        if key not in provider.options:
            known = ", ".join(sorted(provider.options)) or "none"
            raise ProviderError(
                f"provider {provider.name!r} has no option {key!r}; it has {known}{_near(key, provider.options)}"
            )
        kind = provider.options[key]
        if isinstance(kind, tuple):
            fits, expected = value in kind, " or ".join(kind)
        else:
            # A bool is an int to Python, and to nobody else.
            fits, expected = isinstance(value, kind) and (kind is bool or not isinstance(value, bool)), kind.__name__
        if not fits:
            raise ProviderError(f"option {key!r} of provider {provider.name!r} is {value!r}; expected {expected}")
        checked[key] = str(value)
    return checked


def not_available(provider: Provider, why: str) -> ProviderError:
    """The error for a provider that was named and cannot be had."""
    return ProviderError(
        f'provider "{provider.name}" cannot be used: {why}; install it with pip install "rtdecode[{provider.extra}]", '
        'or name another (cpu), or let the CPU stand in with fallback = "allow"'
    )


def engine_cache_key(
    onnx: bytes, *, onnxruntime: str, tensorrt: str, gpu: str, driver: str, precision: str, options: Mapping[str, str]
) -> str:
    """Name of the folder in which one model's compiled engines lie.

    A compiled engine is a program for one GPU, driver and library version, and is not checked when it is loaded: used
    with another, it fails or, worse, runs. So everything that it depends on goes into the name, and engines are never
    taken from a bundle.

    Parameters
    ----------
    onnx : bytes
        The encoder.
    onnxruntime, tensorrt : str
        Library versions.
    gpu : str
        Name and compute capability, e.g. ``NVIDIA H200 (9.0)``.
    driver : str
        Driver version.
    precision : str
        ``fp32``, ``fp16``...
    options : mapping of str to str
        Provider options.

    Returns
    -------
    str
        SHA-256 in hexadecimal digits.
    """
    parts = {
        "onnx": hashlib.sha256(onnx).hexdigest(),
        "onnxruntime": onnxruntime,
        "tensorrt": tensorrt,
        "gpu": gpu,
        "driver": driver,
        "precision": precision,
        "options": dict(options),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
