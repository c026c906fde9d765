"""From an ONNX file to a TensorRT engine, in the precision that the file is written in."""

from typing import Any, Final

from rtdecode.errors import BundleError, EngineError

#: Megabytes that a layer may use while it is tried and run.
WORKSPACE_MB: Final = 1024

#: How long the builder looks for fast kernels: 0 to 5, TensorRT's own default.
OPTIMIZATION_LEVEL: Final = 3


def build_engine(
    trt: Any,
    onnx: bytes,
    *,
    workspace_mb: int = WORKSPACE_MB,
    optimization_level: int = OPTIMIZATION_LEVEL,
    timings: bytes = b"",
) -> tuple[bytes, bytes]:
    """Build an engine.

    The network is strongly typed: types are those of the file, and the builder lowers none of them (TensorRT 11 knows
    no other way). TF32, which keeps 10 bits of a float32's 23, is off.

    Parameters
    ----------
    trt : module
        TensorRT's bindings.
    onnx : bytes
        A self-contained ONNX file of fixed shapes.
    workspace_mb : int
        Megabytes that a layer may use.
    optimization_level : int
        0 to 5.
    timings : bytes
        What an earlier build measured on the same machine; empty where there was none.

    Returns
    -------
    plan : bytes
        The engine, serialised: a program for this GPU and this release of TensorRT.
    timings : bytes
        What was measured; empty where this TensorRT measures nothing.

    Raises
    ------
    BundleError
        TensorRT does not take the file.
    EngineError
        It takes it, and cannot build an engine.
    """
    logger = quiet_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        errors = (parser.get_error(n) for n in range(parser.num_errors))
        said = "; ".join(f"{one.node_operator()} {one.node_name()}: {' '.join(one.desc().split())}" for one in errors)
        raise BundleError(f"TensorRT {trt.__version__} does not take the ONNX file: {said}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mb << 20)
    config.builder_optimization_level = optimization_level
    config.clear_flag(trt.BuilderFlag.TF32)
    cache = config.create_timing_cache(timings)
    if cache is not None:
        config.set_timing_cache(cache, False)  # one of another machine is of no use
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"TensorRT {trt.__version__} cannot build an engine: {logger.said or 'it does not say why'}")
    measured = config.get_timing_cache() if cache is not None else None
    return bytes(memoryview(plan)), b"" if measured is None else bytes(memoryview(measured.serialize()))


def quiet_logger(trt: Any) -> Any:
    """A logger that prints nothing and keeps the last error, `said`."""

    class Quiet(trt.ILogger):  # type: ignore[misc]  # the bindings have no types
        """What TensorRT would print."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.said = ""

        def log(self, severity: Any, message: str) -> None:
            """Keep an error."""
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.said = " ".join(message.split())

    return Quiet()


def _strongly_typed(trt: Any) -> int:
    """The flag of a strongly typed network; where there is none any more, every network is."""
    flags = trt.NetworkDefinitionCreationFlag.__members__
    return 1 << int(flags["STRONGLY_TYPED"]) if "STRONGLY_TYPED" in flags else 0
