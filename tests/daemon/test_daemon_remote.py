"""Two sessions, one reading the other's samples: the same windows and payloads, whatever happens to either."""

import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from daemon_kit import Listener, Session, children, expected_windows, wait_for

from rtdecode.wire.messages import Window

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="signals of Linux"),
]

PATIENCE_S = 90.0


def address() -> str:
    """Two loopback ports in a row that are free."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = first.getsockname()[1]
            try:
                socket.create_server(("127.0.0.1", port + 1)).close()
            except OSError:
                continue
        return f"tcp://127.0.0.1:{port}"


def reader(session: Session, share: str, more: str = "") -> Path:
    session.bundle(locked=True)
    source = f'kind = "zmq"\nformat = "rtdecode"\nendpoint = "{share}"\ntimeout_s = {PATIENCE_S}\n{more}'
    config: Path = session.config(source=source)
    return config


def windows(listener: Listener, segment: int = 0, status: str = "ok") -> list[Window]:
    return [m for m, _ in list(listener.windows) if m.segment == segment and m.status == status]


def test_both_publish_the_same_windows_with_the_same_payloads(session: Session, other: Session) -> None:
    share = address()
    bundle = session.bundle(locked=True)
    first = session.config(source='kind = "simulated"\nseconds = 4', bus=f'share = "{share}"')
    run = session.start("run", str(first), "--hold", "1")
    mine = session.listen().connected()
    run.ready()
    second = other.start("run", str(reader(other, share)))
    theirs = other.listen().connected()
    second.ready()
    session.go(first)
    assert session.end(run) == 0, run.text
    assert other.end(second) == 0, second.text
    assert len(mine.digests()) > 30
    assert theirs.digests() == mine.digests() == expected_windows(bundle, seconds=4)


def test_who_joins_late_has_all_that_the_log_still_holds_and_goes_on_when_acquire_is_killed(
    session: Session, other: Session
) -> None:
    share = address()
    session.bundle(locked=True)
    first = session.config(source='kind = "simulated"', bus=f'share = "{share}"')
    run = session.start("run", str(first))
    mine = session.listen().connected()
    run.ready()
    wait_for(lambda: len(windows(mine)) > 20, "windows", PATIENCE_S)
    config = reader(other, share)
    second = other.start("run", str(config))
    theirs = other.listen().connected()
    second.ready()
    wait_for(lambda: len(windows(theirs)) > 25, "windows of before it joined", PATIENCE_S)
    children(run.pid)["acquire"].send_signal(signal.SIGKILL)
    wait_for(lambda: len(windows(theirs, 1)) > 10, "windows after the restart", PATIENCE_S)
    for process, listener in ((second, theirs), (run, mine)):
        assert process.terminate() == 0, process.text
        listener.finished()
    mine_of, theirs_of = decoded(mine), decoded(theirs)
    assert {segment for _, segment, *_ in theirs_of} == {0, 1}
    both = mine_of.keys() & theirs_of.keys()
    assert len([key for key in both if key[1] == 0]) > 20
    assert len([key for key in both if key[1] == 1]) > 5
    assert {key: theirs_of[key] for key in both} == {key: mine_of[key] for key in both}
    starts = [m.start for m in windows(theirs, 1) if m.window == "sliding"]
    assert starts == [25 * k for k in range(len(starts))]  # from its beginning on, and none left out
    assert "recovering" in {event.details.get("state") for event in theirs.events}


def decoded(listener: Listener) -> dict[tuple[Any, ...], str | None]:
    ok = {(m.window, m.segment, m.start, m.marker and m.marker.value) for m, _ in listener.windows if m.status == "ok"}
    return {key: digest for key, digest in listener.digests().items() if key in ok}
