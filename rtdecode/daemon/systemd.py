"""What systemd is told (``Type=notify``, ``WatchdogSec=``). Without systemd, nothing.

Protocol: sd_notify(3) and sd_watchdog_enabled(3).
"""

import os
import socket

import structlog


def notify(state: str) -> None:
    """Send a state: ``READY=1``, ``STOPPING=1``, ``WATCHDOG=1``."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        try:
            sender.connect("\0" + address[1:] if address.startswith("@") else address)
            sender.send(state.encode())
        except OSError as error:
            structlog.get_logger().warning("systemd does not listen", error=str(error))


class Watchdog:
    """Pings at half the interval that systemd asks for, as long as its owner finds everything in order."""

    def __init__(self) -> None:
        ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        asked = os.environ.get("WATCHDOG_USEC", "")
        self._every = int(asked) / 2e6 if ours and asked.isdigit() and int(asked) else float("inf")
        self._next = 0.0 if self._every < float("inf") else self._every

    def ping(self, now: float) -> None:
        """Everything is in order at `now` (seconds)."""
        if now >= self._next:
            self._next = now + self._every
            notify("WATCHDOG=1")
