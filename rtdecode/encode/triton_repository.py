"""A model repository for a Triton server, from a bundle.

``REPOSITORY/MODEL/config.pbtxt`` says what the model is, ``REPOSITORY/MODEL/VERSION/`` holds it; see
https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_repository.md
"""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from rtdecode.encode.onnx import import_onnxruntime
from rtdecode.encode.onnxfile import check_self_contained
from rtdecode.errors import BundleError, ConfigError

Backend = Literal["onnxruntime", "python"]

_PYTHON_MODEL: Final = Path(__file__).with_name("triton_python_model.py")
_TYPES: Final = {"tensor(float)": "TYPE_FP32", "tensor(float16)": "TYPE_FP16", "tensor(double)": "TYPE_FP64"}


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """How a server is to run a model.

    Parameters
    ----------
    backend : {"onnxruntime", "python"}
        Triton's own ONNX backend; or its Python backend, in which each window is run by itself.
    max_batch : int
        Windows in one batch; 0 leaves the encoder as it is, one window at a time, without dynamic batching.
    delay_us : int
        How long a window may wait for others, in microseconds.
    instances : int
        Copies of the model that run side by side.
    gpu : bool
        Whether they run on the GPU.
    threads : int
        Threads inside one operator, on the CPU.
    """

    backend: Backend = "onnxruntime"
    max_batch: int = 8
    delay_us: int = 0
    instances: int = 1
    gpu: bool = False
    threads: int = 1

    def __post_init__(self) -> None:
        for name, least in (("max_batch", 0), ("delay_us", 0), ("instances", 1), ("threads", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected {least} or more")


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output: name, data type as Triton's configuration spells it, shape with the batch of one."""

    name: str
    type: str
    shape: tuple[int, ...]


def write_model(
    onnx: bytes,
    root: Path,
    model: str,
    settings: ModelSettings,
    *,
    note: str = "",
    batched: Callable[[bytes], bytes] | None = None,
) -> Path:
    """Write an encoder as a model of a Triton server, version 1.

    Parameters
    ----------
    onnx : bytes
        An ONNX file that takes one window of fixed shape.
    root : Path
        The repository: other models in it are left alone.
    model : str
        Name of the model, and of its folder, which must not be there yet.
    settings : ModelSettings
    note : str
        Where it comes from, for a comment.
    batched : callable, optional
        Makes an ONNX file that takes batches from one that takes one window; for the ONNX backend with batches.

    Returns
    -------
    Path
        The model's folder.

    Raises
    ------
    ConfigError
        The name is none, the folder is there already or cannot be written.
    BundleError
        The encoder does not load here, or cannot be made to take batches.
    """
    if not model or not all(sign.isascii() and (sign.isalnum() or sign in "_-.") for sign in model) or model[0] == ".":
        raise ConfigError(f"the model's name is {model!r}; expected letters, digits, _, - and dots")
    values = _values(onnx)
    if settings.backend == "onnxruntime" and settings.max_batch:
        if batched is None:
            raise BundleError(f"{model}: batches need an encoder that takes them; expected batches of 0")
        onnx = batched(onnx)
    folder = root / model
    python = settings.backend == "python"
    try:
        (folder / "1").mkdir(parents=True)
        (folder / "1" / ("encoder.onnx" if python else "model.onnx")).write_bytes(onnx)
        if python:
            shutil.copyfile(_PYTHON_MODEL, folder / "1" / "model.py")
        (folder / "config.pbtxt").write_text(model_config(model, *values, settings, note), encoding="utf-8")
    except FileExistsError as error:
        raise ConfigError(f"{folder} is there already; remove it, or name another model") from error
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}") from error
    return folder


def model_config(
    model: str, inputs: tuple[Value, ...], outputs: tuple[Value, ...], settings: ModelSettings, note: str = ""
) -> str:
    """The text of ``config.pbtxt``: protobuf's text format of a ``ModelConfig``."""
    python = settings.backend == "python"
    threads = "threads" if python else "intra_op_thread_count"
    lines = [
        f"# {' '.join(note.split())}",
        f"name: {_quoted(model)}",
        f'backend: "{settings.backend}"',
        f"max_batch_size: {settings.max_batch}",
        *(_tensor("input", one.name, one.type, one.shape, settings) for one in inputs),
        *(_tensor("output", one.name, "TYPE_FP32" if python else one.type, one.shape, settings) for one in outputs),
        f"instance_group [ {{ count: {settings.instances} kind: {'KIND_GPU' if settings.gpu else 'KIND_CPU'} }} ]",
        f'parameters {{ key: "{threads}" value: {{ string_value: "{settings.threads}" }} }}',
    ]
    if settings.max_batch:
        # A window that cannot be encoded in the time that its request allows is given up, not encoded for nobody.
        lines.append(
            f"dynamic_batching {{ max_queue_delay_microseconds: {settings.delay_us} default_queue_policy {{ "
            "timeout_action: REJECT allow_timeout_override: true } }"
        )
    return "\n".join(lines) + "\n"


def _tensor(kind: str, name: str, type_name: str, shape: tuple[int, ...], settings: ModelSettings) -> str:
    # With batches, the server puts their axis before the shape; without, the shape is that of the file.
    dims = ", ".join(map(str, shape[1:] if settings.max_batch else shape))
    return f"{kind} [ {{ name: {_quoted(name)} data_type: {type_name} dims: [ {dims} ] }} ]"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _values(onnx: bytes) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    check_self_contained(onnx, "the ONNX file")
    runtime = import_onnxruntime()
    try:
        session = runtime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class of its own
        raise BundleError(f"onnxruntime {runtime.__version__} does not load the ONNX file: {error}") from error

    def values(declared: Iterable[Any]) -> tuple[Value, ...]:
        return tuple(Value(one.name, _TYPES.get(one.type, one.type), tuple(one.shape)) for one in declared)

    return values(session.get_inputs()), values(session.get_outputs())
