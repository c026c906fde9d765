"""From a bundle to the engine that runs it, checked against it."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from rtdecode.encode.bundle import Bundle
from rtdecode.encode.consistency import check_gallery, check_labels
from rtdecode.encode.engine import Engine
from rtdecode.encode.golden import check_encoder
from rtdecode.encode.incremental_make import make_incremental
from rtdecode.encode.kserve import TritonServer
from rtdecode.encode.manifest import ClassifyHead, RetrieveHead
from rtdecode.encode.onnx import WARMUP, Fallback, OnnxEngine
from rtdecode.encode.openvino import OpenVinoEngine
from rtdecode.encode.prefix_pool import Company
from rtdecode.encode.providers import OptionValue, find_provider
from rtdecode.encode.tensorrt_native import TensorRtEngine
from rtdecode.encode.triton import TritonEngine
from rtdecode.encode.triton_link import TritonLink, of_the_server
from rtdecode.encode.window_engine import WindowEngine
from rtdecode.errors import BundleError, ProviderError
from rtdecode.stream.window import WindowSpec

_NO_OPTIONS: Mapping[str, OptionValue] = MappingProxyType({})

#: Providers that are no affair of onnxruntime's.
_NATIVE = frozenset({"openvino", "tensorrt-native"})


def make_engine(
    bundle: Bundle,
    *,
    provider: str = "cpu",
    fallback: Fallback = "forbid",
    threads: int = 1,
    spinning: bool = False,
    warmup: int = WARMUP,
    options: Mapping[str, OptionValue] = _NO_OPTIONS,
    triton: TritonServer | None = None,
    incremental: Literal["auto", "off"] = "auto",
    windows: Sequence[WindowSpec] = (),
    company: Company | None = None,
) -> Engine:
    """Make the engine for a bundle's encoder, warmed up, and check its shapes against the bundle.

    Parameters
    ----------
    bundle : Bundle
        Whose encoder runs.
    provider : str
        ``tensorrt``, ``tensorrt-native``, ``cuda``, ``openvino`` or ``cpu``.
    fallback : {"forbid", "allow"}
        Whether the CPU may stand in where the provider cannot be had.
    threads, spinning, warmup, options
        As for `OnnxEngine`.
    triton : TritonServer, optional
        A server that encodes in place of this process; `provider` is then the CPU's, for where it cannot.
    incremental : {"auto", "off"}
        Whether the encoder works while it listens, where the bundle was split for that and the windows fit. What is
        done stands in the engine's `info`.
    windows, company
        As for `make_incremental`.

    Raises
    ------
    ProviderError, EngineError
        The provider, the server or the runtime is not to be had.
    BundleError
        The ONNX file does not load, or its shapes do not fit the bundle.
    """
    if triton is not None:
        return _on_triton(bundle, triton, fallback, threads, warmup)
    onnx = bundle.onnx_bytes()
    precision = bundle.manifest.encoder.precision
    engine: Engine
    try:
        if find_provider(provider).name in _NATIVE:
            engine = _native(provider, onnx, fallback, threads, warmup, options, precision)
        else:
            engine = OnnxEngine(
                onnx,
                provider=provider,
                fallback=fallback,
                threads=threads,
                spinning=spinning,
                warmup=warmup,
                options=options,
                precision=precision,
            )
    except BundleError as error:
        raise BundleError(f"{bundle.source}: {bundle.manifest.encoder.file}: {error}") from error
    try:
        check_engine(bundle, engine)
    except BundleError:
        engine.close()
        raise
    if incremental == "off" or not isinstance(engine, WindowEngine):
        return engine
    try:
        return make_incremental(bundle, engine, windows=windows, threads=threads, spinning=spinning, company=company)
    except BaseException:
        engine.close()
        raise


def _on_triton(bundle: Bundle, server: TritonServer, fallback: Fallback, threads: int, warmup: int) -> Engine:
    encoder = bundle.manifest.encoder

    def open_link() -> TritonLink:
        link = TritonLink(server, encoder.outputs, precision=encoder.precision, warmup=warmup)
        try:
            check_engine(bundle, link)
            check_encoder(bundle, link)
        except BundleError as error:
            link.close()
            if of_the_server(error):
                raise ProviderError(f"the Triton server {server.url} does not answer: {error}") from error
            raise type(error)(
                f"the model {server.model!r} on the Triton server {server.url} is not the bundle's encoder: {error}"
            ) from error
        return link

    local = make_engine(bundle, threads=threads, warmup=warmup, incremental="off") if fallback == "allow" else None
    try:
        return TritonEngine(open_link, server.timeout_s, local)
    except BaseException:
        if local is not None:
            local.close()
        raise


def _native(
    provider: str,
    onnx: bytes,
    fallback: Fallback,
    threads: int,
    warmup: int,
    options: Mapping[str, OptionValue],
    precision: str,
) -> Engine:
    """An engine on a runtime of its own; onnxruntime on the CPU where that may stand in."""
    try:
        if provider == "openvino":
            return OpenVinoEngine(onnx, threads=threads, warmup=warmup, options=options, precision=precision)
        return TensorRtEngine(onnx, warmup=warmup, options=options, precision=precision)
    except ProviderError:
        if fallback == "forbid":
            raise
        return OnnxEngine(
            onnx,
            provider=provider,
            fallback="allow",
            threads=threads,
            warmup=warmup,
            options=options,
            precision=precision,
        )


def check_engine(bundle: Bundle, engine: Engine) -> None:
    """Raise `BundleError` unless the encoder's shapes are those that the bundle's other parts need.

    The window that conditioning and the window specification give must be the input; every declared output must be
    there; galleries must be as wide as the embedding, and labels as many as the logits.
    """
    manifest, info = bundle.manifest, engine.info
    where = f"{bundle.source}: {manifest.encoder.file}"
    wanted = bundle.array(manifest.golden.windows).shape[1:]
    if info.input_shape != wanted:
        raise BundleError(
            f"{where}: the encoder takes windows of {_shape(info.input_shape)}; the contract, conditioning and windows "
            f"give {_shape(wanted)}"
        )
    if info.input_name != manifest.encoder.input:
        raise BundleError(f"{where}: its input is {info.input_name!r}; $.encoder.input says {manifest.encoder.input!r}")
    shapes = dict(info.output_shapes)
    if missing := [name for name in manifest.encoder.outputs if name not in shapes]:
        raise BundleError(f"{where}: has no output {', '.join(missing)}; it has {', '.join(shapes)}")
    for name in manifest.encoder.outputs:
        golden = bundle.array(manifest.golden.outputs[name]).shape[1:]
        if golden != shapes[name]:
            raise BundleError(
                f"{where}: the output {name!r} has shape {shapes[name]}; its golden output has {golden} for a window"
            )
    for head in manifest.heads:
        width = math.prod(shapes[head.output])
        if isinstance(head, RetrieveHead):
            check_gallery(head, bundle.array(head.embeddings), bundle.items(head), width, bundle.source)
        elif isinstance(head, ClassifyHead):
            check_labels(head, width, bundle.source)


def _shape(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} samples of {shape[1]} channels"
