"""A FieldTrip buffer: the hub that an acquisition program writes to and a decoder reads from."""

import contextlib
import errno
import socket
import threading
from collections import Counter
from types import TracebackType
from typing import Self

from rtdecode.errors import PortInUseError, SourceError
from rtdecode.sources import fieldtrip_wire as wire
from rtdecode.sources.fieldtrip_store import Refused, Store
from rtdecode.sources.fieldtrip_wire import Command, MalformedError, Order
from rtdecode.sources.tcp import receive

#: Largest body of a request in bytes.
BODY_BYTES = 64 << 20
#: Longest wait that a client may ask for in one request; a longer one is answered after this.
WAIT_S = 10.0
#: How long a client may take for the rest of a request that it began, or for an answer, before it is let go.
SLOW_S = 10.0
#: Connections at one time.
CLIENTS = 64

_ERRORS = {1: Command.PUT_ERR, 2: Command.GET_ERR, 3: Command.FLUSH_ERR, 4: Command.WAIT_ERR}


class FieldTripServer:
    """Listens as soon as it is made, and answers each client in a thread of its own, in the client's byte order.

    A request that cannot be fulfilled (`unmet`) or read (`refused`) is counted, and answered with the error of its
    kind. Where even its prefix is wrong there is no telling where the next request begins: the connection ends.
    `waits` counts the requests to wait for more, by which those who follow the samples show.

    Parameters
    ----------
    host : str
        Address to listen on.
    port : int
        0 takes a free one; see `port`.
    n_samples : int
        Samples that are kept.

    Raises
    ------
    PortInUseError
        Another process listens there.
    SourceError
        The address cannot be listened on.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, n_samples: int = 600_000) -> None:
        self.store = Store(n_samples)
        self.refused: Counter[str] = Counter()
        self.unmet = self.waits = 0
        self._clients: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        try:
            self._listener = socket.create_server((host, port), backlog=CLIENTS)
        except OSError as error:
            kind = PortInUseError if error.errno == errno.EADDRINUSE else SourceError
            raise kind(
                f"a FieldTrip buffer cannot listen on {host}:{port} ({error.strerror or error}); choose a free port "
                "and an address of this machine"
            ) from error
        self.host, self.port = self._listener.getsockname()[:2]
        threading.Thread(target=self._accept, name="fieldtrip-accept", daemon=True).start()

    @property
    def n_clients(self) -> int:
        """Connections that are open."""
        with self._lock:
            return len(self._clients)

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed, or a client that left before it was taken
                continue
            with self._lock:
                if self._closed.is_set() or len(self._clients) >= CLIENTS:
                    self.refused["more clients than can be served"] += not self._closed.is_set()
                    client.close()
                    continue
                self._clients.add(client)
            threading.Thread(target=self._serve, args=(client,), name="fieldtrip-client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not self._closed.is_set():
                self._one(client)
        except MalformedError as error:
            self._count(str(error))
        except OSError:  # gone, or too slow to be waited for
            pass
        finally:
            with self._lock:
                self._clients.discard(client)
            client.close()

    def _one(self, client: socket.socket) -> None:
        first = receive(client, 1, None)  # the next request may be hours away
        order, command, size = wire.prefix(first + receive(client, wire.PREFIX - 1, SLOW_S))
        if size > BODY_BYTES:
            raise MalformedError(f"a request of {size} bytes; {BODY_BYTES} are allowed")
        body = receive(client, size, SLOW_S)
        try:
            answer = self._answer(command, body, order)
        except (Refused, MalformedError) as error:
            if isinstance(error, MalformedError):
                self._count(str(error))
            else:
                with self._lock:
                    self.unmet += 1
            answer = wire.message(_ERRORS.get(command >> 8, Command.GET_ERR), b"", order)
        client.settimeout(SLOW_S)
        client.sendall(answer)

    def _count(self, reason: str) -> None:
        with self._lock:
            self.refused[reason.split(";")[0][:40]] += 1
            if len(self.refused) > 1000:  # reasons hold numbers; their sum must stay true, their list need not
                rest = self.refused.total()
                self.refused.clear()
                self.refused["others"] = rest

    def _answer(self, command: int, body: bytes, order: Order) -> bytes:
        store = self.store
        match command:
            case Command.GET_HDR:
                return wire.message(Command.GET_OK, store.header().encode(order), order)
            case Command.GET_DAT:
                block = store.samples(wire.decode_range(body, order) if body else None)
                return wire.message(Command.GET_OK, block.encode(order), order)
            case Command.GET_EVT:
                events = store.events(wire.decode_range(body, order) if body else None)
                return wire.message(Command.GET_OK, wire.encode_events(events, order), order)
            case Command.WAIT_DAT:
                n_samples, n_events, milliseconds = wire.decode_wait(body, order)
                with self._lock:
                    self.waits += 1
                counts = store.wait(n_samples, n_events, min(milliseconds * 1e-3, WAIT_S))
                return wire.message(Command.WAIT_OK, wire.encode_counts(*counts, order), order)
            case Command.PUT_HDR:
                store.put_header(wire.Header.decode(body, order))
            case Command.PUT_DAT:
                store.put_samples(wire.Block.decode(body, order))
            case Command.PUT_EVT:
                store.put_events(wire.decode_events(body, order))
            case Command.FLUSH_HDR:
                store.flush_all()
            case Command.FLUSH_DAT:
                store.flush_samples()
            case Command.FLUSH_EVT:
                store.flush_events()
            case _:
                raise MalformedError(f"command {command:#x} is unknown")
        done = Command.PUT_OK if command >> 8 == 1 else Command.FLUSH_OK
        return wire.message(done, b"", order)

    def close(self) -> None:
        """Stop listening, and end all connections. Safe to call twice."""
        self._closed.set()
        with self._lock:
            clients = list(self._clients)
        for one in (self._listener, *clients):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
