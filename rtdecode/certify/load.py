"""A load beside the daemon while it is certified: processes that burn CPU, stream through memory, write to the disk.

Each is ``python -m rtdecode.certify.load KIND VALUE``, and never outlives its parent: it ends when its standard input
closes, and on Linux the kernel kills it with its parent, stopped or not.
"""

import argparse
import ctypes
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rtdecode.errors import ConfigError

_PR_SET_PDEATHSIG = 1

#: Megabytes of the file that the disk load writes over and over, and of each write.
_FILE_MB, _WRITE_MB = 256, 4


@dataclass(frozen=True, slots=True)
class Load:
    """What runs beside the daemon.

    Parameters
    ----------
    cpu : int
        Processes that use a core each, as far as they get one.
    memory_gb : float
        Gigabytes that one process copies to and fro.
    disk : bool
        Whether one process writes a file and has each write put on the medium.
    """

    cpu: int = 0
    memory_gb: float = 0.0
    disk: bool = False

    def __bool__(self) -> bool:
        return bool(self.cpu or self.memory_gb or self.disk)

    def __str__(self) -> str:
        parts = [f"cpu={self.cpu}"] * bool(self.cpu) + [f"memory={self.memory_gb:g}"] * bool(self.memory_gb)
        return ",".join([*parts, *["disk"] * self.disk]) or "none"

    def commands(self, folder: Path) -> list[tuple[str, ...]]:
        """Arguments of each process; the disk's file lies in `folder`."""
        commands: list[tuple[str, ...]] = [("cpu", "0")] * self.cpu
        if self.memory_gb:
            commands.append(("memory", str(self.memory_gb)))
        if self.disk:
            commands.append(("disk", str(folder)))
        return commands


def parse_load(text: str, cores: int, available_gb: float) -> Load:
    """A load as it is asked for: ``cpu=2,memory=1.5,disk``; any of them, in any order.

    Parameters
    ----------
    text : str
        ``cpu`` alone takes as many processes as there are cores, ``memory`` alone a gigabyte.
    cores : int
        Of this machine.
    available_gb : float
        Memory that is to be had; a load that takes more than 8/10 of it is refused, since it would measure the swap.

    Raises
    ------
    ConfigError
        What is asked for is none of these.
    """
    found: dict[str, float] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        match = re.fullmatch(r"(cpu|memory|disk)(?:=([0-9]+(?:\.[0-9]+)?))?", part)
        if match is None or match[1] in found or (match[1] == "disk" and match[2]):
            raise ConfigError(f"--load has {part!r}; expected cpu=N, memory=GB and disk, each once, as in cpu=2,disk")
        found[match[1]] = float(match[2] or {"cpu": cores, "memory": 1.0, "disk": 1.0}[match[1]])
    cpu = found.get("cpu", 0.0)
    if cpu != int(cpu) or cpu > 1024:
        raise ConfigError(f"--load has cpu={cpu:g}; expected a whole number of processes, up to 1024")
    memory = found.get("memory", 0.0)
    if memory > 0.8 * available_gb:
        raise ConfigError(
            f"--load has memory={memory:g}, and {available_gb:.1f} GB are free; "
            f"expected at most {0.8 * available_gb:.1f}"
        )
    return Load(int(cpu), memory, "disk" in found)


def burn() -> None:
    """Use a core."""
    value = 1
    while True:
        value = (value * 1_103_515_245 + 12_345) % 2_147_483_648


def stream(gigabytes: float) -> None:
    """Copy so much memory to and fro."""
    import numpy as np

    half = max(1, round(gigabytes * 1e9 / 16))
    one, other = np.ones(half), np.zeros(half)
    while True:
        np.copyto(other, one)
        np.copyto(one, other)


def write(folder: Path) -> None:
    """Write a file over and over, and have each write put on the medium. It has no name, so nothing is left of it."""
    block = os.urandom(_WRITE_MB << 20)
    with tempfile.TemporaryFile(dir=folder) as file:
        while True:
            file.seek(0)
            for _ in range(_FILE_MB // _WRITE_MB):
                file.write(block)
                file.flush()
                os.fsync(file.fileno())


def _end_with_parent() -> None:
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(0)

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def main() -> None:
    """Entry of ``python -m rtdecode.certify.load``."""
    parser = argparse.ArgumentParser(prog="rtdecode.certify.load", description=__doc__)
    parser.add_argument("kind", choices=["cpu", "memory", "disk"])
    parser.add_argument("value")
    arguments = parser.parse_args()
    kinds: dict[str, Callable[[], None]] = {
        "cpu": burn,
        "memory": lambda: stream(float(arguments.value)),
        "disk": lambda: write(Path(arguments.value)),
    }
    _end_with_parent()
    kinds[arguments.kind]()


if __name__ == "__main__":
    main()
