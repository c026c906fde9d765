"""Asks a FieldTrip buffer: one connection, one request at a time, each answered within a time or not at all."""

import contextlib
import math
import socket
from collections.abc import Sequence

from rtdecode.sources import fieldtrip_wire as wire
from rtdecode.sources.fieldtrip_wire import Block, Command, Event, Header, MalformedError, Order
from rtdecode.sources.tcp import receive

#: Seconds that an answer may take, beyond what was asked to be waited for.
ANSWER_S = 2.0
#: Largest header and largest list of events that are taken, in bytes (CTF's .res4 has some 3 MB).
HEADER_BYTES = 32 << 20
EVENT_BYTES = 4 << 20
#: The protocol's largest count, which no buffer exceeds: "do not wake me for these".
NEVER = 2**32 - 1


class Client:
    """A connection to a buffer.

    Whatever comes that is no answer to what was asked raises `MalformedError`: the connection is then of no use any
    more. Sizes are held against what can be true before a byte of the body is taken.

    Parameters
    ----------
    host : str
        Name or address.
    port : int
        1972 by custom.
    order : {"<", ">"}
        Byte order to speak in; the buffer answers in the same.
    answer_s : float
        Seconds that an answer may take.
    """

    def __init__(self, host: str, port: int, *, order: Order = "<", answer_s: float = ANSWER_S) -> None:
        self.host, self.port = host, port
        self._order: Order = order
        self._answer_s = answer_s
        self._socket: socket.socket | None = None

    def connect(self) -> None:
        """Connect anew; raises `OSError`."""
        self.close()
        connection = socket.create_connection((self.host, self.port), self._answer_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection

    def close(self) -> None:
        """Let go of the connection; a request that waits in another thread ends. Safe to call twice."""
        connection, self._socket = self._socket, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def header(self) -> Header | None:
        """The header; None where there is none yet."""
        body = self._ask(Command.GET_HDR, b"", HEADER_BYTES)
        return None if body is None else Header.decode(body, self._order)

    def samples(self, begin: int, stop: int, frame: int) -> Block | None:
        """Samples `begin` to `stop` (left out), of `frame` bytes each; None where the buffer does not have them all."""
        body = self._ask(Command.GET_DAT, wire.encode_range(begin, stop, self._order), 16 + (stop - begin) * frame)
        if body is None:
            return None
        block = Block.decode(body, self._order)
        if block.n_samples != stop - begin:
            raise MalformedError(f"{block.n_samples} samples in answer to a request for {stop - begin}")
        return block

    def events(self, begin: int, stop: int) -> tuple[Event, ...] | None:
        """Events `begin` to `stop` (left out); None where the buffer does not have them all."""
        body = self._ask(Command.GET_EVT, wire.encode_range(begin, stop, self._order), EVENT_BYTES)
        if body is None:
            return None
        events = wire.decode_events(body, self._order)
        if len(events) != stop - begin:
            raise MalformedError(f"{len(events)} events in answer to a request for {stop - begin}")
        return events

    def wait(self, n_samples: int, n_events: int, seconds: float) -> tuple[int, int] | None:
        """Counts of samples and events, once one exceeds what is given or the time is up; None without a header."""
        body = wire.encode_wait(n_samples, n_events, math.ceil(seconds * 1e3), self._order)
        found = self._ask(Command.WAIT_DAT, body, 8, seconds)
        return None if found is None else wire.decode_counts(found, self._order)

    def put_header(self, header: Header) -> bool:
        """Have the buffer begin anew with this header; False where it refuses."""
        return self._ask(Command.PUT_HDR, header.encode(self._order), 0) is not None

    def put_samples(self, block: Block) -> bool:
        """Append samples; False where the buffer refuses them."""
        return self._ask(Command.PUT_DAT, block.encode(self._order), 0) is not None

    def put_events(self, events: Sequence[Event]) -> bool:
        """Append events; False where the buffer refuses them."""
        return self._ask(Command.PUT_EVT, wire.encode_events(events, self._order), 0) is not None

    def flush(self, what: Command) -> bool:
        """FLUSH_HDR (everything), FLUSH_DAT or FLUSH_EVT; False where the buffer refuses."""
        return self._ask(what, b"", 0) is not None

    def _ask(self, command: Command, body: bytes, most: int, patience_s: float = 0.0) -> bytes | None:
        """The body of the answer, None where it is the error of this kind of request."""
        connection = self._socket
        if connection is None:
            raise ConnectionError("not connected")
        connection.settimeout(self._answer_s)
        connection.sendall(wire.message(command, body, self._order))
        order, answer, size = wire.prefix(receive(connection, wire.PREFIX, self._answer_s + patience_s))
        kind = command & 0xFF00
        if order != self._order or answer not in (kind | 4, kind | 5):
            raise MalformedError(f"{answer:#x} in answer to {command.name}")
        refused = answer == kind | 5
        if size > (0 if refused else most):
            raise MalformedError(f"an answer of {size} bytes to {command.name}; {0 if refused else most} are possible")
        found = receive(connection, size, self._answer_s)
        return None if refused else found
