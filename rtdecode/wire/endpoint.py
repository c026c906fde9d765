"""Addresses of sockets, checked before libzmq sees them: its own messages name neither the address nor the remedy."""

import re
import socket
from pathlib import Path

from rtdecode.errors import ConfigError, PortInUseError

_TCP = re.compile(r"tcp://(?P<host>\[[^\]]+\]|[^:/\s]+):(?P<port>\*|\d{1,5})")
_FORMS = "tcp://HOST:PORT (such as tcp://127.0.0.1:5555) or ipc://PATH"
#: Longest path of a Unix socket on Linux; macOS allows a few bytes less and says so itself.
_MAX_IPC_PATH = 107


def check_endpoint(endpoint: str, *, bind: bool = False) -> str:
    """Give `endpoint` back when a socket can connect to it (or, with `bind`, bind it).

    Raises
    ------
    ConfigError
        It is neither ``tcp://HOST:PORT`` nor ``ipc://PATH``, or its port or path is out of range. Port ``0`` or ``*``
        and host ``*`` are for binding alone.
    """
    if endpoint.startswith("ipc://"):
        path = endpoint.removeprefix("ipc://")
        if not path:
            raise ConfigError(f"endpoint {endpoint!r} names no path; expected ipc://PATH")
        if len(path.encode()) > _MAX_IPC_PATH:
            raise ConfigError(f"endpoint {endpoint!r}: a socket's path has at most {_MAX_IPC_PATH} bytes")
        if bind and path[0] not in "@*" and not Path(path).parent.is_dir():
            raise ConfigError(f"endpoint {endpoint!r}: the folder {Path(path).parent} does not exist; make it first")
        return endpoint
    if endpoint.startswith("inproc://") and len(endpoint) > len("inproc://"):
        return endpoint
    parts = _TCP.fullmatch(endpoint)
    if parts is None:
        raise ConfigError(f"{endpoint!r} is no endpoint; expected {_FORMS}")
    host, port = parts["host"], parts["port"]
    if port != "*" and int(port) > 65535:
        raise ConfigError(f"endpoint {endpoint!r}: port {port} is above 65535")
    if not bind and (port == "*" or int(port) == 0 or host == "*"):
        raise ConfigError(f"endpoint {endpoint!r} leaves host or port open; to connect, name both: {_FORMS}")
    return endpoint


def refuse_live_ipc(endpoint: str) -> None:
    """Raise `PortInUseError` where another process listens on an ``ipc://`` endpoint.

    libzmq removes the file and binds its own, which leaves the other process deaf without a word.
    """
    path = endpoint.removeprefix("ipc://")
    if not endpoint.startswith("ipc://") or path == "*" or not hasattr(socket, "AF_UNIX"):
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(address)
        except OSError:  # no such file, or a file that a dead process left
            return
    raise port_in_use(endpoint)


def port_in_use(endpoint: str) -> PortInUseError:
    """Build the error that says who is in the way and what to do."""
    return PortInUseError(
        f"{endpoint} is in use by another process; stop it, or publish on another port (port 0 takes a free one)"
    )
