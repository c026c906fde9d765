"""Which clock stamps were read from, and how it relates to the time of day."""

import platform
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

from rtdecode import hostclock

_LINUX_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def clock_id() -> str:
    """Clock, host and boot, as ``CLOCK:HOST:BOOT``: two stamps may be compared only where this is the same."""
    return f"{hostclock.CLOCK_NAME}:{platform.node()}:{_boot()}"


def _boot() -> str:
    """Name of this boot; where the system gives it none, when it was, to ten minutes.

    The time of day may be set while the system runs; the worst that follows is that ages are withheld.
    """
    if _LINUX_BOOT_ID.exists():
        return _LINUX_BOOT_ID.read_text().strip()
    if sys.platform == "darwin":
        found = subprocess.run(["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, check=False)
        if found.returncode == 0:
            return found.stdout.decode().strip()
    return str(round((time.time() - time.monotonic()) / 600))


def utc_anchor() -> tuple[float, float]:
    """A host-clock time and the UTC time (seconds since 1970) of the same moment.

    The time of day is read between two readings of the host clock; of five tries the narrowest counts.
    """
    tries: list[tuple[float, float, float]] = []
    for _ in range(5):
        before = hostclock.now()
        utc = time.time()
        after = hostclock.now()
        tries.append((after - before, (before + after) / 2, utc))
    _, host, utc = min(tries)
    return host, utc
