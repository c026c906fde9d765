"""The processes of a demo: the daemon as ``rtdecode run`` starts it, the sender over LSL, and a folder for both."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self

from rtdecode.daemon.process import ONE_THREAD, SUPERVISED
from rtdecode.errors import ProcessError
from rtdecode.sources.forward import Session, Subject

Transport = Literal["lsl", "local"]

#: Name of the demo's pipeline.
PIPELINE = "demo"

#: Seconds for a process to end when asked: with results to publish, and before it began.
_END_S, _END_BEFORE_S = 15.0, 2.0

#: Longest path of a Unix socket that every system takes, less the names of the sockets.
_LONGEST_FOLDER = 70

_CONFIG = """\
[session]
name = "demo"

[source]
{source}

[bus]
{bus}

[pipelines.{pipeline}]
bundle = {bundle}
publish = {publish}
budget_ms = {budget_ms}
"""

_LSL_SOURCE = """\
kind = "lsl"
name = {name}
timeout_s = 15.0
end_when_lost = true
markers = [{{ name = {markers} }}]"""

_SIMULATED_SOURCE = """\
kind = "simulated"
seed = {seed}
seconds = {seconds}"""

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


class Stage:
    """One attempt at a demo: its own folder, its own LSL session on the loopback device, its own processes.

    Parameters
    ----------
    transport : {"lsl", "local"}
        Whether the simulated subject comes over LSL from a process of its own, or lives in *acquire*.
    bundle : Path
        What to decode with.
    seed : int
        Of the session.
    seconds : float
        Its length at most; it ends earlier by as much as would cut off a response.
    budget_ms : float
        For the pipeline.

    Attributes
    ----------
    endpoint : str
        Where results are published.
    stimuli : int
        How many things will be shown.
    """

    def __init__(self, transport: Transport, bundle: Path, seed: int, seconds: float, budget_ms: float) -> None:
        self.transport = transport
        self._folder = private_folder()
        self._name = f"rtdecode-demo-{secrets.token_hex(4)}"
        self._seed = seed
        session = Session(Subject(), seed)
        self._seconds = session.whole(seconds)
        self.stimuli = len(session.stimuli(0, round(self._seconds * session.sfreq)))
        unix = sys.platform == "linux"
        self.endpoint = f"ipc://{self._folder / 'results'}" if unix else f"tcp://127.0.0.1:{free_port()}"
        text = _CONFIG.format(
            source=self._source(),
            bus=f"dir = {json.dumps(str(self._folder))}" if unix else "",
            pipeline=PIPELINE,
            bundle=json.dumps(str(bundle.absolute())),
            publish=json.dumps(self.endpoint),
            budget_ms=float(budget_ms),
        )
        self._config = self._folder / "demo.toml"
        self._config.write_text(text, encoding="utf-8")
        self._environment = os.environ | ONE_THREAD | {SUPERVISED: str(os.getpid())}
        if transport == "lsl":
            api = self._folder / "lsl_api.cfg"
            api.write_text(LSL_API.format(session=self._name), encoding="utf-8")
            self._environment["LSLAPICFG"] = str(api)
        self._begun = False
        self._daemon: subprocess.Popen[bytes] | None = None
        self._sender: subprocess.Popen[bytes] | None = None

    def _source(self) -> str:
        if self.transport == "lsl":
            return _LSL_SOURCE.format(name=json.dumps(self._name), markers=json.dumps(f"{self._name}-markers"))
        return _SIMULATED_SOURCE.format(seed=self._seed, seconds=float(self._seconds))

    def start(self) -> None:
        """Start the daemon, and the sender where there is one. A simulation in *acquire* begins once it is decoded."""
        if self.transport == "lsl":
            arguments = ["--name", self._name, "--seed", str(self._seed), "--seconds", str(self._seconds)]
            self._sender = self._spawn("sender", ["rtdecode.demo.sender", *arguments])
        self._daemon = self._spawn("daemon", ["rtdecode", "run", str(self._config)])

    def _spawn(self, what: str, command: list[str]) -> subprocess.Popen[bytes]:
        # In a session of their own, as Ctrl-C is for us alone: we end them in order. Should we be killed, both
        # see their standard input close.
        with (self._folder / f"{what}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def go(self) -> None:
        """Let the sender begin: the decoder is ready."""
        self._begun = True
        if self._sender is not None and (pipe := self._sender.stdin) is not None:
            _write(pipe, b"go\n")

    @property
    def fault(self) -> str:
        """What went wrong, from the log of a process that failed; empty while nothing did."""
        for what, process in (("sender", self._sender), ("daemon", self._daemon)):
            if process is not None and process.poll() not in (None, 0):
                return f"the {what} ended with exit code {process.returncode}: {self._last_words(what)}"
        return ""

    @property
    def ended(self) -> bool:
        """Whether the daemon is done."""
        return self._daemon is not None and self._daemon.poll() is not None

    def _last_words(self, what: str) -> str:
        lines = (self._folder / f"{what}.log").read_text(encoding="utf-8", errors="replace").split("\n")
        spoken = [line.strip() for line in lines if line.strip()]
        errors = [line for line in spoken if "Error" in line]
        return (errors or spoken or ["it said nothing"])[-1][:400]

    def stop(self) -> None:
        """Ask the daemon to end with everything published, and the sender to end."""
        if self._daemon is not None and self._daemon.poll() is None:
            self._daemon.send_signal(signal.SIGTERM)
        if self._sender is not None and self._sender.stdin is not None:
            self._sender.stdin.close()

    def close(self) -> None:
        """End what still runs, and remove the folder. Safe to call twice."""
        self.stop()
        for process in (self._sender, self._daemon):
            if process is None:
                continue
            try:
                # before it began there is nothing to publish, so nothing to wait for
                process.wait(_END_S if self._begun else _END_BEFORE_S)
            except subprocess.TimeoutExpired:
                _kill(process)
                process.wait()
            if process.stdin is not None:
                process.stdin.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that does not end, and its children, which share its session."""
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)


def _write(pipe: IO[bytes], line: bytes) -> None:
    try:
        pipe.write(line)
        pipe.flush()
    except BrokenPipeError as error:
        raise ProcessError("the demo's sender is gone before it began") from error


def private_folder() -> Path:
    """A new folder that is this user's alone, with a path short enough for sockets."""
    for place in (None, "/tmp"):
        folder = Path(tempfile.mkdtemp(prefix="rtdecode-demo-", dir=place))
        if sys.platform != "linux" or len(str(folder)) <= _LONGEST_FOLDER:
            return folder
        folder.rmdir()
    raise ProcessError("no temporary folder has a path short enough for sockets; set TMPDIR to a shorter one")


def free_port() -> int:
    """A loopback port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
