"""Typed questions and answers over ZMQ: *acquire*'s log and every process's control socket.

A request is one frame, msgpack or JSON (an object), of a tagged struct; the answer's header comes in the same language,
and may be followed by raw frames. Whatever else arrives is refused with an answer that says why.
"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
import zmq

from rtdecode import hostclock
from rtdecode.errors import ProcessError, RtdecodeError
from rtdecode.wire.endpoint import port_in_use, refuse_live_ipc

#: Largest request, in bytes. A larger one is refused with an answer, as long as libzmq hands it out: it ends a
#: connection that announces a frame of more than `MAX_FRAME`, before memory is taken for it.
MAX_REQUEST, MAX_FRAME = 65_536, 8 << 20
#: Frames of a request that are kept.
_MAX_FRAMES = 8

#: A plain number: the enumeration's own operators are slow.
_POLLIN = int(zmq.POLLIN)

T = TypeVar("T")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Header of an answer. `error` names the class of the error, `text` says what is wrong."""

    ok: bool
    result: dict[str, Any] = {}
    error: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asked, and in which language: pass it back to `Server.answer`, now or later."""

    envelope: tuple[bytes, ...]
    json: bool


class Server(Generic[T]):
    """Answers the requests of one endpoint. Used by one thread; an answer may come later than the next request.

    Parameters
    ----------
    context : zmq.Context
    endpoint : str
        Where to listen.
    requests : type
        The union of structs that are understood.

    Raises
    ------
    PortInUseError
        Another process listens there.
    """

    def __init__(self, context: "zmq.Context[Any]", endpoint: str, requests: Any) -> None:
        self.refused = 0
        self._requests = requests
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
        self.socket.setsockopt(zmq.LINGER, 500)
        bind(self.socket, endpoint)

    def receive(self) -> tuple[Caller, T] | None:
        """The next well-formed request that has arrived; malformed ones are refused on the way. None where none has."""
        while int(self.socket.getsockopt(zmq.EVENTS)) & _POLLIN:  # to be told so by an exception takes far longer
            frames = [self.socket.recv(zmq.NOBLOCK)]
            n = 1
            while self.socket.getsockopt(zmq.RCVMORE):
                frame = self.socket.recv(zmq.NOBLOCK)  # libzmq hands out whole messages only
                n += 1
                if n <= _MAX_FRAMES:
                    frames.append(frame)
            request = self._read(frames, n)
            if request is not None:
                return request
        return None

    def answer(self, caller: Caller, result: dict[str, Any], frames: Sequence[bytes] = ()) -> None:
        """Answer a request."""
        self._send(caller, Answer(ok=True, result=result), frames)

    def refuse(self, caller: Caller, error: RtdecodeError) -> None:
        """Say why a request is not met."""
        self._send(caller, Answer(ok=False, error=type(error).__name__, text=str(error)))

    def close(self) -> None:
        """Let go of the socket."""
        self.socket.close()

    def _read(self, frames: list[bytes], n: int) -> tuple[Caller, T] | None:
        # A REQ socket sends [identity, (number of the request), empty, body]: what is up to the empty frame goes back.
        cut = frames.index(b"", 1) + 1 if b"" in frames[1:3] else 0
        well_formed = cut > 0 and n == cut + 1
        body = frames[cut] if well_formed else b""
        caller = Caller(tuple(frames[:cut]) or (frames[0], b""), json=body[:1] in (b"{", b"["))
        try:
            if not well_formed:
                raise ProcessError(f"expected one frame from a REQ socket; got {n - 1} frames")
            if len(body) > MAX_REQUEST:
                raise ProcessError(f"expected at most {MAX_REQUEST} bytes; got {len(body)}")
            decode = msgspec.json.decode if caller.json else msgspec.msgpack.decode
            return caller, decode(body, type=self._requests)
        except (ValueError, RecursionError) as error:  # msgspec's errors and UnicodeDecodeError are ValueErrors
            wrong = ProcessError(f"the request is not understood: {error}")
        except ProcessError as error:
            wrong = error
        self.refused += 1
        self.refuse(caller, wrong)
        return None

    def _send(self, caller: Caller, answer: Answer, frames: Sequence[bytes] = ()) -> None:
        encode = msgspec.json.encode if caller.json else msgspec.msgpack.encode
        try:
            self.socket.send_multipart([*caller.envelope, encode(answer), *frames], zmq.NOBLOCK)
        except (zmq.Again, zmq.ZMQError):
            # Who asked is gone or does not read; nobody is left to tell.
            self.refused += 1


class Client:
    """Asks one endpoint. Used by one thread.

    Parameters
    ----------
    context : zmq.Context
    endpoint : str
        Whom to ask.
    who : str
        Who answers there, for messages.
    max_bytes : int
        Largest frame of an answer; -1 for any.
    """

    def __init__(self, context: "zmq.Context[Any]", endpoint: str, who: str, *, max_bytes: int = -1) -> None:
        self._endpoint = endpoint
        self._who = who
        self._socket = context.socket(zmq.REQ)
        # A late answer to a question that was given up must not pass for the next one's.
        self._socket.setsockopt(zmq.REQ_RELAXED, 1)
        self._socket.setsockopt(zmq.REQ_CORRELATE, 1)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, max_bytes)
        self._socket.connect(endpoint)

    def ask(self, request: msgspec.Struct, timeout: float) -> tuple[dict[str, Any], list[bytes]]:
        """Ask, and wait `timeout` seconds at most.

        Raises
        ------
        ProcessError
            No answer in time, or one that cannot be read.
        RtdecodeError
            The request was refused: the very error that the other side raised.
        """
        self._socket.send(msgspec.msgpack.encode(request))
        header, *frames = self._receive(timeout)
        try:
            answer = msgspec.msgpack.decode(header, type=Answer)
        except ValueError as error:
            raise ProcessError(f"{self._who} at {self._endpoint} gives no answer of this version: {error}") from None
        if not answer.ok:
            raise _errors().get(answer.error, ProcessError)(answer.text)
        return answer.result, frames

    def tell(self, request: msgspec.Struct) -> None:
        """Ask, and do not wait: whatever is answered is dropped."""
        with contextlib.suppress(zmq.Again):
            self._socket.send(msgspec.msgpack.encode(request), zmq.NOBLOCK)

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def _receive(self, timeout: float) -> list[bytes]:
        deadline = hostclock.now() + timeout
        while True:
            left = deadline - hostclock.now()
            if left < 0 or not self._socket.poll(math.ceil(left * 1e3), zmq.POLLIN):
                raise ProcessError(
                    f"{self._who} does not answer at {self._endpoint} (waited {timeout:g} s); is it running?"
                )
            # What made it readable may turn out to be the answer to an older question, which libzmq drops.
            with contextlib.suppress(zmq.Again):
                frames: list[bytes] = self._socket.recv_multipart(zmq.NOBLOCK)
                return frames


def bind(socket: "zmq.Socket[Any]", endpoint: str) -> None:
    """Bind, or close the socket and raise `PortInUseError`."""
    try:
        refuse_live_ipc(endpoint)
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        socket.close()
        if error.errno == zmq.EADDRINUSE:
            raise port_in_use(endpoint) from None
        raise ProcessError(f"{endpoint} cannot be bound: {error.strerror}") from None
    except RtdecodeError:
        socket.close()
        raise


def _errors() -> dict[str, type[RtdecodeError]]:
    """Every error class by name."""
    found: dict[str, type[RtdecodeError]] = {}
    left: list[type[RtdecodeError]] = [RtdecodeError]
    while left:
        one = left.pop()
        # Those that take more than a message arrive as their parents.
        if one.__init__ is Exception.__init__:
            found[one.__name__] = one
        left += one.__subclasses__()
    return found
