"""A session beside its senders and its listeners: processes with one folder, one LSL session, and one end for all.

What the demo, the faults on purpose and the certification have in common. Every process is in a session of its own, as
Ctrl-C is for us alone: we end them in order. Should we be killed, each sees its standard input close.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from rtdecode.daemon.process import ONE_THREAD, SUPERVISED
from rtdecode.errors import ProcessError

#: Longest path of a Unix socket that every system takes, less the names of the sockets.
_LONGEST_FOLDER = 70

#: liblsl kept to this machine; `session` keeps runs apart.
LSL_API = """\
[ports]
IPv6 = disable
[multicast]
ResolveScope = machine
ListenAddress = 127.0.0.1
[lab]
KnownPeers = {{127.0.0.1}}
SessionID = {session}
[log]
level = -1
"""


#: By SIGTERM, with everything published; or by closing its standard input.
How = Literal["signal", "input"]


class Staging:
    """Processes that are started together and leave nothing behind.

    Attributes
    ----------
    folder : Path
        For sockets and logs: this user's alone.
    environment : dict of str to str
        Of the processes.
    processes : dict of str to Popen
        Those that were started, by name.
    """

    def __init__(self) -> None:
        self.folder = private_folder()
        self.environment = os.environ | ONE_THREAD | {SUPERVISED: str(os.getpid())}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._asked: set[str] = set()

    def own_lsl(self) -> None:
        """Keep LSL to the loopback device, in a session that nobody else is in."""
        api = self.folder / "lsl_api.cfg"
        api.write_text(LSL_API.format(session=self.folder.name), encoding="utf-8")
        self.environment["LSLAPICFG"] = str(api)

    def spawn(self, name: str, *command: str, talks: bool = False) -> "subprocess.Popen[bytes]":
        """Start ``python -m command...``, its standard input open and its words in ``NAME.log``.

        Parameters
        ----------
        name : str
            By which it is known here.
        *command : str
            Module and arguments.
        talks : bool
            Leave its standard output to the caller, who has to read it.
        """
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if talks else log,
                stderr=log,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def tell(self, name: str, line: bytes) -> None:
        """Write a line to its standard input.

        Raises
        ------
        ProcessError
            It is gone.
        """
        pipe = self.processes[name].stdin
        assert pipe is not None
        try:
            pipe.write(line + b"\n")
            pipe.flush()
        except OSError as error:
            raise ProcessError(f"the {name} is gone: {self.last_words(name)}") from error

    def ended(self, name: str) -> bool:
        """Whether it was started and has ended."""
        return name in self.processes and self.processes[name].poll() is not None

    @property
    def fault(self) -> str:
        """What went wrong, from the log of a process that failed; empty while nothing did."""
        for name, process in self.processes.items():
            if process.poll() not in (None, 0):
                return f"the {name} ended with exit code {process.returncode}: {self.last_words(name)}"
        return ""

    def last_words(self, name: str) -> str:
        """The last thing that a process complained about, or said."""
        lines = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").split("\n")
        spoken = [line.strip() for line in lines if line.strip()]
        errors = [line for line in spoken if "Error" in line]
        return (errors or spoken or ["it said nothing"])[-1][:400]

    def ask_to_end(self, name: str, how: How) -> None:
        """Ask it to end."""
        process = self.processes[name]
        self._asked.add(name)
        if how == "signal" and process.poll() is None:
            process.send_signal(signal.SIGTERM)
        elif how == "input" and process.stdin is not None and not process.stdin.closed:
            _close(process)

    def wait(self, name: str, seconds: float) -> int:
        """Wait for its end, and kill it, and its children, where it does not come; its exit code."""
        process = self.processes[name]
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            _kill(process)
            return process.wait()

    def close(self, seconds: float = 2.0) -> None:
        """End what still runs and was not asked to yet, each within so many seconds; remove the folder.

        Safe to call twice.
        """
        for name, process in self.processes.items():
            if process.poll() is None and name not in self._asked:
                self.ask_to_end(name, "input")
        for name, process in self.processes.items():
            self.wait(name, seconds)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None and not pipe.closed:
                    pipe.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _close(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # what waited in it has no reader
        process.stdin.close()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process that does not end, and its children, which share its session."""
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)


def private_folder() -> Path:
    """A new folder that is this user's alone, with a path short enough for sockets."""
    for place in (None, "/tmp"):
        folder = Path(tempfile.mkdtemp(prefix="rtdecode-", dir=place))
        if sys.platform != "linux" or len(str(folder)) <= _LONGEST_FOLDER:
            return folder
        folder.rmdir()
    raise ProcessError("no temporary folder has a path short enough for sockets; set TMPDIR to a shorter one")


def free_port() -> int:
    """A loopback port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
