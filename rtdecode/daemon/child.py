"""One process of a session, in its supervisor's hands: it is started, heard, told, and ended."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from dataclasses import dataclass

import msgspec

from rtdecode.daemon.heartbeat import Pulse
from rtdecode.daemon.process import ONE_THREAD, SUPERVISED
from rtdecode.daemon.supervised import BEATS, LINE_BYTES, TEXT_CHARS, News

#: What waits for a process that is down; the newest are kept.
UNTOLD = 100


@dataclass(frozen=True, slots=True)
class Line:
    """A line that a process wrote."""

    child: "Child"
    text: str


@dataclass(frozen=True, slots=True)
class Exit:
    """A process ended; a negative code is the signal that ended it."""

    child: "Child"
    code: int


class Child:
    """One process: *acquire*, or a *decode*.

    Parameters
    ----------
    name : str
        ``acquire``, the pipeline that has it for itself, or what a process is called that is shared.
    members : tuple of str
        Its sources or pipelines.
    """

    def __init__(self, name: str, members: tuple[str, ...] = ()) -> None:
        self.name = name
        self.members = members
        self.process: subprocess.Popen[bytes] | None = None
        self.pulse: Pulse | None = None
        #: What it said behind READY.
        self.ready = ""
        #: Whether it was told to end.
        self.terminated = False
        #: Why it was killed, where it hung.
        self.hung = ""
        #: Whether it is not started again.
        self.given_up = False
        #: Whether it waits to be started again.
        self.waits = False
        #: How often it was started again.
        self.restarts = 0
        #: Seconds that it was seen to run in all, and at which of them it crashed.
        self.lived = 0.0
        self.crashes: list[float] = []
        self._untold: deque[News] = deque(maxlen=UNTOLD)

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.process is not None

    @property
    def label(self) -> str:
        """What people call it."""
        if self.name.partition(".")[0] == "acquire":
            return self.name
        return f"process {self.name} ({len(self.members)} pipelines)" if "." in self.name else f"pipeline {self.name}"

    def start(self, arguments: list[str], happenings: "queue.SimpleQueue[Line | Exit]", pulse: Pulse) -> None:
        """Start it; what it says, and its end, come as happenings.

        Parameters
        ----------
        arguments : list of str
            After ``rtdecode``.
        happenings : queue.SimpleQueue
            Filled by a thread of this process's own.
        pulse : Pulse
            Of its new life.
        """
        self.ready, self.hung = "", ""
        self.terminated = self.waits = False
        self.pulse = pulse
        process = subprocess.Popen(
            [sys.executable, "-m", "rtdecode", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | ONE_THREAD | {SUPERVISED: str(os.getpid()), BEATS: "1", "PYTHONUNBUFFERED": "1"},
        )
        self.process = process
        assert process.stdin is not None
        if sys.platform != "win32":
            os.set_blocking(process.stdin.fileno(), False)  # one that is stopped reads nothing; we never wait for it

        def follow() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                happenings.put(Line(self, line.decode(errors="replace").rstrip("\r\n")))
            happenings.put(Exit(self, process.wait()))

        threading.Thread(target=follow, name=f"follow {self.name}", daemon=True).start()
        while self._untold:
            self.tell(self._untold.popleft())

    def ended(self) -> None:
        """Let go of a process that has ended."""
        assert self.process is not None
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # whatever waited in it has no reader
                pipe.close()  # type: ignore[union-attr]  # both are pipes
        if self.pulse is not None:
            self.lived += self.pulse.lived
        self.process = self.pulse = None

    def tell(self, news: News) -> None:
        """Have it publish `news`; as soon as it runs, where it does not."""
        if self.process is None:
            self._untold.append(news)
            return
        line = msgspec.json.encode(msgspec.structs.replace(news, text=news.text[:TEXT_CHARS])) + b"\n"
        assert self.process.stdin is not None
        if len(line) <= LINE_BYTES:
            with contextlib.suppress(OSError, ValueError):  # it is ending, or has not read for long
                os.write(self.process.stdin.fileno(), line)

    def terminate(self) -> None:
        """Ask it to end."""
        if self.process is None:
            return
        self.terminated = True
        if sys.platform == "win32":  # no SIGTERM there; its standard input says the same
            assert self.process.stdin is not None
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        else:
            self.process.terminate()

    def kill(self) -> None:
        """End it, stopped or not."""
        if self.process is not None:
            self.process.kill()


def describe_exit(code: int) -> str:
    """How a process ended, for people."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
