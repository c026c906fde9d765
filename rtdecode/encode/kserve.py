"""The part of the open inference protocol that a client needs, over gRPC.

The protocol is KServe's version 2 with Triton's extensions (model configuration, system shared memory); its messages
are in https://github.com/triton-inference-server/common/blob/main/protobuf/grpc_service.proto, from which the field
numbers here are. They are few, and one of them is built once and sent thousands of times; so they are written here, on
bare gRPC, rather than by Triton's own client, which pins older releases of protobuf and ml_dtypes than others need.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rtdecode.encode.protobuf import (
    NotProtobufError,
    bytes_field,
    contents,
    fields,
    integers,
    number_field,
    packed_field,
    text,
)
from rtdecode.errors import EngineError, ProviderError

_SERVICE: Final = "/inference.GRPCInferenceService/"

#: A lost connection is made again by who noticed, after the model was checked again; never behind its back.
_OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


@dataclass(frozen=True, slots=True)
class TritonServer:
    """A server, the model on it, and how it is spoken to.

    Parameters
    ----------
    url : str
        ``HOST:PORT`` of its gRPC endpoint.
    model : str
        Name of the model.
    version : str
        Version of the model; empty for the one that the server chooses.
    timeout_s : float
        How long one window may take at most.
    shared_memory : {"auto", "on", "off"}
        Whether windows go through memory that both processes see; ``auto``: where the server can.
    tls : bool
        Whether the connection is encrypted, and the server proves who it is.
    ca, certificate, key : Path or None
        PEM files: who is believed; by what this side proves who it is.
    """

    url: str
    model: str
    version: str = ""
    timeout_s: float = 1.0
    shared_memory: str = "auto"
    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output: name, data type as the protocol spells it (``FP32``), shape; -1 where it varies."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What a server says of a model: the versions that it serves, the platform, inputs and outputs."""

    versions: tuple[str, ...]
    platform: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Batching:
    """How a model's requests are batched: the largest batch (0: none are), and whether several make one batch."""

    max_batch: int
    dynamic: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Part of a shared memory region: its name at the server, offset and length in bytes."""

    region: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request for inference gave: the model's version, the outputs, and their bytes where they are in it."""

    version: str
    outputs: tuple[Tensor, ...]
    raw: tuple[memoryview, ...]


class Connection:
    """One connection to a server. It is never made again: once it was lost, `lost` stays true.

    Parameters
    ----------
    server : TritonServer

    Raises
    ------
    ProviderError
        grpcio is not installed, or a TLS file cannot be read.
    """

    def __init__(self, server: TritonServer) -> None:
        self._grpc = import_grpc()
        self._was_ready = False
        self.lost = False
        self._channel = _channel(self._grpc, server)
        self._channel.subscribe(self._changed, try_to_connect=True)
        self._infer: Callable[..., bytes] = self._method("ModelInfer")

    def close(self) -> None:
        """Hang up."""
        self._channel.unsubscribe(self._changed)
        self._channel.close()

    def _changed(self, state: object) -> None:
        ready = self._grpc.ChannelConnectivity.READY
        if state is ready:
            self._was_ready = True
        elif self._was_ready:
            self.lost = True

    def _method(self, name: str) -> Callable[..., bytes]:
        # Without serialisers, bytes go out and come in as they are.
        method: Callable[..., bytes] = self._channel.unary_unary(_SERVICE + name)
        return method

    def _ask(self, name: str, request: bytes, timeout: float) -> memoryview:
        return memoryview(self._method(name)(request, timeout=timeout, wait_for_ready=True))

    def server_version(self, timeout: float) -> str:
        """The server's name and version."""
        found = {
            number: text(value) for number, value in fields(self._ask("ServerMetadata", b"", timeout)) if number < 3
        }
        return f"{found.get(1, '')} {found.get(2, '')}".strip()

    def model_ready(self, model: str, version: str, timeout: float) -> bool:
        """Whether the server can run a model now."""
        return any(bool(value) for _, value in fields(self._ask("ModelReady", _named(model, version), timeout)))

    def model(self, model: str, version: str, timeout: float) -> ModelMetadata:
        """What the server says of a model."""
        versions, platform, tensors = [], "", {4: [], 5: []}  # type: tuple[list[str], str, dict[int, list[Tensor]]]
        for number, value in fields(self._ask("ModelMetadata", _named(model, version), timeout)):
            if number == 2:
                versions.append(text(value))
            elif number == 3:
                platform = text(value)
            elif number in tensors:
                tensors[number].append(_tensor(contents(value)))
        return ModelMetadata(tuple(versions), platform, tuple(tensors[4]), tuple(tensors[5]))

    def batching(self, model: str, version: str, timeout: float) -> Batching:
        """How the server batches a model's requests."""
        most, dynamic = 0, False
        for _, config in fields(self._ask("ModelConfig", _named(model, version), timeout)):
            for number, value in fields(contents(config)):
                if number == 4 and isinstance(value, int):
                    most = value
                dynamic |= number == 11
        return Batching(most, dynamic)

    def register(self, region: str, key: str, size: int, timeout: float) -> None:
        """Tell the server of a shared memory region: its name there, its key in the system, its length in bytes."""
        request = bytes_field(1, region) + bytes_field(2, key) + number_field(4, size)
        self._ask("SystemSharedMemoryRegister", request, timeout)

    def unregister(self, region: str, timeout: float) -> None:
        """Have the server forget a region."""
        self._ask("SystemSharedMemoryUnregister", bytes_field(1, region), timeout)

    def infer(self, request: bytes, timeout: float) -> bytes:
        """Send what `infer_request` made, and the time that it may take in seconds, which the server is told too."""
        limit = bytes_field(1, "timeout") + bytes_field(2, number_field(2, max(1, round(timeout * 1e6))))
        return self._infer(request + bytes_field(4, limit), timeout=timeout)


def import_grpc() -> Any:
    """The module; `ProviderError` says what to install where it is missing."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what goes wrong is raised here, not printed there
    try:
        import grpc
    except ImportError as error:
        raise ProviderError(
            f'a Triton server is spoken to by grpcio, which is not installed; pip install "rtdecode[triton]": {error}'
        ) from error
    return grpc


def infer_request(
    model: str,
    version: str,
    tensor: Tensor,
    outputs: Sequence[str],
    *,
    place: Place | None = None,
    output_places: Sequence[Place] = (),
) -> bytes:
    """A request for inference, as often as it is sent, without the input's bytes (`with_input` adds those).

    Parameters
    ----------
    model, version : str
    tensor : Tensor
        The input.
    outputs : sequence of str
        Which outputs are wanted.
    place : Place, optional
        Where the input is in shared memory.
    output_places : sequence of Place
        Where each output is to go.
    """
    given = bytes_field(1, tensor.name) + bytes_field(2, tensor.datatype) + packed_field(3, tensor.shape)
    given += b"" if place is None else b"".join(_shared(4, place))
    request = bytes_field(1, model) + bytes_field(2, version) + bytes_field(5, given)
    for n, name in enumerate(outputs):
        wanted = bytes_field(1, name) + (b"".join(_shared(2, output_places[n])) if output_places else b"")
        request += bytes_field(6, wanted)
    return request


def with_input(request: bytes, data: memoryview) -> bytes:
    """A request with the input's bytes, little-endian and in order."""
    return request + bytes_field(7, data)


def read_answer(data: bytes) -> Answer:
    """What a request for inference gave; raises `NotProtobufError`."""
    version, outputs, raw = "", [], []
    for number, value in fields(memoryview(data)):
        if number == 2:
            version = text(value)
        elif number == 5:
            outputs.append(_tensor(contents(value)))
        elif number == 6:
            raw.append(contents(value))
    return Answer(version, tuple(outputs), tuple(raw))


def _named(model: str, version: str) -> bytes:
    return bytes_field(1, model) + bytes_field(2, version)


def _tensor(data: memoryview) -> Tensor:
    name, datatype, shape = "", "", []  # type: tuple[str, str, list[int]]
    for number, value in fields(data):
        if number == 1:
            name = text(value)
        elif number == 2:
            datatype = text(value)
        elif number == 3:
            shape += integers(value)
    return Tensor(name, datatype, tuple(shape))


def _shared(number: int, place: Place) -> Iterator[bytes]:
    """The parameters that say where a tensor is, in the field of this number."""
    values = {
        "shared_memory_region": bytes_field(3, place.region),
        "shared_memory_offset": number_field(2, place.offset),
        "shared_memory_byte_size": number_field(2, place.size),
    }
    for name, value in values.items():
        yield bytes_field(number, bytes_field(1, name) + bytes_field(2, value))


def _channel(grpc: Any, server: TritonServer) -> Any:
    if not server.tls:
        return grpc.insecure_channel(server.url, options=_OPTIONS)
    ca, certificate, key = (_read(path) for path in (server.ca, server.certificate, server.key))
    try:
        credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    except ValueError as error:
        raise EngineError(f"the TLS files of the Triton server {server.url} cannot be used: {error}") from error
    return grpc.secure_channel(server.url, credentials, options=_OPTIONS)


def _read(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise ProviderError(f"{path} cannot be read ({error.strerror}); expected a PEM file for TLS") from error


__all__ = [
    "Answer",
    "Batching",
    "Connection",
    "ModelMetadata",
    "NotProtobufError",
    "Place",
    "Tensor",
    "TritonServer",
    "import_grpc",
    "infer_request",
    "read_answer",
    "with_input",
]
