"""Whole messages out of a TCP connection, never more than was asked for and never later than was allowed."""

import socket
import time

#: Bytes that are taken at once: memory grows with what comes, not with what a peer claims will come.
_PIECE = 1 << 20


class Gone(ConnectionError):  # noqa: N818 - what happened to the peer
    """The other side has closed the connection."""


def receive(connection: socket.socket, n: int, timeout_s: float | None) -> bytes:
    """Exactly `n` bytes.

    Parameters
    ----------
    connection : socket
        Connected.
    n : int
        How many.
    timeout_s : float or None
        For all of them together, so that a peer that drips cannot hold anybody up; None waits for ever.

    Raises
    ------
    Gone
        The connection was closed first.
    TimeoutError
        They did not come in time.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    parts: list[bytes] = []
    missing = n
    while missing:
        if deadline is None:
            connection.settimeout(None)
        else:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{missing} of {n} bytes did not come within {timeout_s:g} s")
            connection.settimeout(left)
        part = connection.recv(min(missing, _PIECE))
        if not part:
            after = f" after {n - missing} of {n} bytes" if missing < n else ""
            raise Gone(f"the connection was closed{after}")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
