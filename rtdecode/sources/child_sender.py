"""A source over LSL as a process of its own, whose parent says when it begins and is never outlived.

It announces its streams, waits for a line on standard input, serves the source, and ends; or as soon as standard input
closes, which happens when the parent is gone, however it went.
"""

import os
import sys
import threading
from collections.abc import Callable

from rtdecode.errors import RtdecodeError
from rtdecode.signal import StreamInfo
from rtdecode.sources.base import Source
from rtdecode.sources.sender import LslSender, require_consumers


def serve_when_told(
    source: Source, info: StreamInfo, name: str, marker_name: str | None, consumers_timeout_s: float
) -> None:
    """Serve a source on the stream `name`; see the module.

    Parameters
    ----------
    source : Source
        Open.
    info : StreamInfo
        What it said when it was opened.
    name : str
        Of the data stream, and the identity by which a consumer finds it again.
    marker_name : str or None
        Of the marker stream; None serves no markers.
    consumers_timeout_s : float
        Seconds for the streams to be taken, counted from the line.

    Raises
    ------
    StreamNotFoundError
        Nobody took the streams.
    """
    with LslSender(info, name, marker_name=marker_name, source_id=name) as sender:
        if not sys.stdin.readline():
            return
        threading.Thread(target=_end_with_stdin, name="lifeline", daemon=True).start()
        require_consumers(sender, consumers_timeout_s)
        sender.serve(source)
        sender.drain()


def exit_code_of(serve: Callable[[], None]) -> int:
    """0 when it is done; what went wrong goes to standard error, and its exit code is returned."""
    try:
        serve()
    except RtdecodeError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return error.exit_code
    return 0


def _end_with_stdin() -> None:
    while sys.stdin.readline():
        pass
    os._exit(0)
