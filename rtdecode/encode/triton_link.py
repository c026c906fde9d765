"""One connection to one model on a Triton server, as a whole-window engine; it works until it is broken.

A link belongs to one life of the server. Where the connection goes, the server refuses what it took before, or several
windows in a row get no answer, the link is broken and stays so: whoever needs the server opens another, and checks the
model again (`rtdecode.encode.triton`).
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rtdecode import hostclock
from rtdecode.encode.engine import EngineInfo
from rtdecode.encode.kserve import (
    Answer,
    Connection,
    ModelMetadata,
    NotProtobufError,
    Place,
    Tensor,
    TritonServer,
    import_grpc,
    infer_request,
    read_answer,
    with_input,
)
from rtdecode.encode.shared_region import FOLDER, SharedRegion
from rtdecode.encode.window_engine import WindowEngine, check_input, check_output
from rtdecode.errors import BundleError, EngineError, ProviderError

#: What each question may take while a link is opened.
OPEN_S: Final = 5.0

#: Windows in a row without an answer in time, after which the server is taken to hang; those count that had several
#: times what its quickest answer took.
PATIENCE: Final = 3
FAIR: Final = 4.0

#: Places for windows in shared memory. One whose window got no answer is never used again: the server may yet write
#: to it. When so many are left, another link is wanted.
SLOTS: Final = 8
FEW_SLOTS: Final = 4

_ALIGNED: Final = 64
_TYPES: Final = {"FP16": "float16", "FP32": "float32", "FP64": "float64"}

#: What Triton's scheduler says of a request that it gave up itself: the server is well, and busy.
_GIVEN_UP: Final = ("timeout expired", "maximum queue size")


class RemoteError(Exception):
    """The server did not encode a window; it is not the window's fault as far as anybody knows.

    Parameters
    ----------
    text : str
        What went wrong.
    done : bool
        Whether the server is known to be done with the window.
    """

    def __init__(self, text: str, *, done: bool = False) -> None:
        super().__init__(text)
        self.done = done


def of_the_server(error: BaseException | None) -> bool:
    """Whether a `RemoteError` is at the bottom of an error."""
    while error is not None and not isinstance(error, RemoteError):
        error = error.__cause__
    return error is not None


@dataclass(frozen=True, slots=True)
class _Slot:
    """Room for one window and its outputs in shared memory, and the request that names it."""

    request: bytes
    window: NDArray[np.floating]
    outputs: dict[str, NDArray[np.floating]]


class TritonLink(WindowEngine):
    """Encodes whole windows on a Triton server.

    Parameters
    ----------
    server : TritonServer
    outputs : sequence of str
        Those that are wanted.
    precision : str
        What the model computes in, for `info`.
    warmup : int
        Runs before the link counts as open.

    Raises
    ------
    ProviderError
        The server cannot be reached, is not ready, or has no such model.
    BundleError
        The model's input or outputs are not such as an encoder has.
    """

    def __init__(
        self, server: TritonServer, outputs: Sequence[str], *, precision: str = "fp32", warmup: int = 3
    ) -> None:
        self._grpc = import_grpc()
        self._server = server
        #: Host time at which nobody needs the window any more.
        self.until = math.inf
        #: How long one window may take at most. The first ones may have a model loaded, or kernels chosen.
        self.limit_s = max(OPEN_S, server.timeout_s)
        #: Why no further window can be sent; empty where none is the matter.
        self.broken = ""
        self._unanswered = 0
        self._quickest_s = 0.0  # until there is an answer
        self._region: SharedRegion | None = None
        self._slots: list[_Slot] = []
        self._connection = Connection(server)
        try:
            self._open(outputs, precision)
            self._warm_up(warmup)
        except EngineError as error:
            self.close()
            if of_the_server(error):
                raise ProviderError(f"{self._where()} does not answer: {error}") from error
            raise
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Take the memory back, and hang up."""
        if getattr(self, "_closed", False):
            return
        super().close()
        if self._region is not None and len(self._slots) == SLOTS and not self.lost:
            # Where a window got no answer, the region stays with the server: it may be at work in it still.
            with contextlib.suppress(self._grpc.RpcError):
                self._connection.unregister(self._region.name, OPEN_S)
        self._slots = []
        self._region = None
        self._connection.close()

    @property
    def lost(self) -> bool:
        """Whether no further window can be sent."""
        return bool(self.broken) or self._connection.lost

    @property
    def worn(self) -> bool:
        """Whether another link is wanted, though this one still works."""
        return self._region is not None and len(self._slots) <= FEW_SLOTS

    # --- opening ------------------------------------------------------------------------------------------------------

    def _open(self, outputs: Sequence[str], precision: str) -> None:
        server, connection = self._server, self._connection
        try:
            version = connection.server_version(OPEN_S)
            if not connection.model_ready(server.model, server.version, OPEN_S):
                raise ProviderError(f"{self._where()} is not ready")
            model = connection.model(server.model, server.version, OPEN_S)
            batching = connection.batching(server.model, server.version, OPEN_S)
        except self._grpc.RpcError as error:
            raise ProviderError(f"{self._where()} cannot be used: {_said(error)}") from error
        except NotProtobufError as error:
            raise ProviderError(f"{self._where()} does not speak the inference protocol: {error}") from error
        # A batch of one is one window for every model: without batches, its shape begins with that one.
        self._input, shape = self._declared_input(model)
        self._declared = self._declared_outputs(model, outputs)
        shared = server.shared_memory != "off" and self._share()
        super().__init__(
            EngineInfo(
                runtime=version,
                provider="triton",
                precision=precision,
                threads=0,
                input_shape=shape,
                asked="triton",
                input_name=self._input.name,
                output_shapes=tuple((one.name, one.shape[1:]) for one in self._declared),
                more=(
                    ("server", server.url),
                    ("model", server.model),
                    ("version", server.version or ",".join(model.versions)),
                    ("platform", model.platform),
                    ("shared_memory", int(shared)),
                    ("max_batch", batching.max_batch),
                    ("dynamic_batching", int(batching.dynamic)),
                ),
            )
        )
        self._request = infer_request(server.model, server.version, self._input, outputs)

    def _declared_input(self, model: ModelMetadata) -> tuple[Tensor, tuple[int, int]]:
        if len(model.inputs) != 1:
            names = ", ".join(one.name for one in model.inputs) or "none"
            raise BundleError(f"{self._where()} has {len(model.inputs)} inputs ({names}); expected one window")
        found = model.inputs[0]
        shape = _of_one(found)
        try:
            return Tensor(found.name, found.datatype, shape), check_input(
                found.name, _TYPES.get(found.datatype, found.datatype), [n if n > 0 else None for n in shape]
            )
        except BundleError as error:
            raise BundleError(f"{self._where()}: {error}") from error

    def _declared_outputs(self, model: ModelMetadata, outputs: Sequence[str]) -> list[Tensor]:
        declared = {one.name: one for one in model.outputs}
        if missing := [name for name in outputs if name not in declared]:
            raise BundleError(f"{self._where()} has no output {', '.join(missing)}; it has {', '.join(declared)}")
        found = []
        for name in outputs:
            one, shape = declared[name], _of_one(declared[name])
            try:
                check_output(name, _TYPES.get(one.datatype, one.datatype), [n if n > 0 else None for n in shape])
            except BundleError as error:
                raise BundleError(f"{self._where()}: {error}") from error
            found.append(Tensor(name, one.datatype, shape))
        return found

    def _share(self) -> bool:
        """Make memory that the server sees too, and have it registered; whether that was possible."""
        required = self._server.shared_memory == "on"
        if not FOLDER.is_dir() and not required:
            return False
        tensors = (self._input, *self._declared)
        offsets, each = [], 0
        for tensor in tensors:
            offsets.append(each)
            each += -(-_size(tensor) // _ALIGNED) * _ALIGNED
        region = SharedRegion(each * SLOTS)
        try:
            self._connection.register(region.name, region.key, region.size, OPEN_S)
        except self._grpc.RpcError as error:
            if required:
                raise ProviderError(
                    f"the Triton server {self._server.url} does not take shared memory: {_said(error)}; expected one "
                    'that runs on this machine as the same user, or shared_memory = "off"'
                ) from error
            return False
        finally:
            region.unlink()  # the server has it open, or never will
        self._region = region
        for n in range(SLOTS):
            places = [Place(region.name, n * each + at, _size(one)) for at, one in zip(offsets, tensors, strict=True)]
            arrays = [region.array(at.offset, one.shape, _dtype(one)) for at, one in zip(places, tensors, strict=True)]
            request = infer_request(
                self._server.model,
                self._server.version,
                self._input,
                [one.name for one in self._declared],
                place=places[0],
                output_places=places[1:],
            )
            outputs = {one.name: array for one, array in zip(self._declared, arrays[1:], strict=True)}
            self._slots.append(_Slot(request, arrays[0], outputs))
        return True

    # --- windows ------------------------------------------------------------------------------------------------------

    def _run(self, batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.floating]]:
        if self._region is None:
            data = np.ascontiguousarray(batch, "<f4").data.cast("B")
            answer = self._ask(with_input(self._request, data))
            if len(answer.raw) != len(self._declared):
                raise self._break(f"it gave {len(answer.raw)} outputs of {len(self._declared)}")
            try:
                return {
                    one.name: np.frombuffer(raw, _dtype(one)).reshape(one.shape)
                    for one, raw in zip(self._declared, answer.raw, strict=True)
                }
            except ValueError as error:
                raise self._break(f"an output has another size: {error}") from error
        if not self._slots:
            raise self._break("too many windows got no answer")
        slot = self._slots.pop()  # comes back when there was an answer, and not without
        slot.window[:] = batch
        for output in slot.outputs.values():
            output.fill(np.nan)  # what the server leaves as it was must not pass for an answer
        try:
            self._ask(slot.request)
        except RemoteError as error:
            if error.done:
                self._slots.append(slot)
            raise
        self._slots.append(slot)
        return slot.outputs

    def _ask(self, request: bytes) -> Answer:
        """Send a request, and check that what answered is what was asked."""
        if self._connection.lost:
            raise self._break("the connection was lost")
        began = hostclock.now()
        allowed = min(self.limit_s, self.until - began)
        if allowed <= self._quickest_s:
            raise RemoteError("no time was left to ask the server", done=True)
        try:
            answer = read_answer(self._connection.infer(request, allowed))
        except self._grpc.RpcError as error:
            raise self._failed(error, allowed) from error
        except NotProtobufError as error:
            raise self._break(f"its answer is none: {error}") from error
        if self._connection.lost:  # whoever answered, it is not known to have the model that was checked
            raise self._break("the connection was lost")
        self._unanswered = 0
        took = hostclock.now() - began
        self._quickest_s = min(self._quickest_s or took, took)
        if answer.outputs != tuple(self._declared):
            raise self._break(f"it gave {_shown(answer.outputs)}; expected {_shown(self._declared)}")
        return answer

    def _failed(self, error: Any, allowed: float) -> RemoteError:
        code, codes = error.code(), self._grpc.StatusCode
        said = _said(error)
        if any(phrase in said for phrase in _GIVEN_UP):
            return RemoteError(f"the server gave the window up: {said}", done=True)
        if code is codes.DEADLINE_EXCEEDED:
            self._unanswered += allowed >= FAIR * self._quickest_s
            if self._unanswered >= PATIENCE:
                return self._break(f"it left {PATIENCE} windows in a row without an answer")
            return RemoteError(f"the server did not answer within {allowed * 1e3:.1f} ms")
        if code in (codes.INTERNAL, codes.UNKNOWN, codes.RESOURCE_EXHAUSTED, codes.ABORTED):
            return RemoteError(f"the server could not encode the window: {said}", done=True)
        return self._break(said)

    def _break(self, why: str) -> RemoteError:
        self.broken = self.broken or why
        return RemoteError(f"the server is lost: {why}")

    def _where(self) -> str:
        server = self._server
        version = f" version {server.version}" if server.version else ""
        return f"the model {server.model!r}{version} on the Triton server {server.url}"


def _of_one(tensor: Tensor) -> tuple[int, ...]:
    """The shape of a tensor in a batch of one."""
    return (1, *tensor.shape[1:]) if tensor.shape[:1] == (-1,) else tensor.shape


def _size(tensor: Tensor) -> int:
    return int(np.prod(tensor.shape)) * _dtype(tensor).itemsize


def _dtype(tensor: Tensor) -> "np.dtype[np.floating]":
    return np.dtype(_TYPES[tensor.datatype]).newbyteorder("<")


def _shown(tensors: Sequence[Tensor]) -> str:
    return ", ".join(f"{one.name} {one.datatype} {one.shape}" for one in tensors) or "nothing"


def _said(error: Any) -> str:
    """What a gRPC error says, in one line."""
    return f"{' '.join(str(error.details() or '').split())} ({error.code().name})"
