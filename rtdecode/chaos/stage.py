"""A live daemon, its sender and its subscriber, with a handle on each of them to do it harm."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from rtdecode import hostclock
from rtdecode.chaos import BUNDLE
from rtdecode.chaos.tally import Life
from rtdecode.config import load
from rtdecode.daemon import control
from rtdecode.daemon.process import ONE_THREAD, SUPERVISED
from rtdecode.demo.staging import LSL_API, free_port, private_folder
from rtdecode.errors import ProcessError
from rtdecode.wire.messages import Event, Message
from rtdecode.wire.subscriber import Subscriber

Over = Literal["lsl", "zmq", "fieldtrip"]

#: Name of the pipeline.
PIPELINE = "witness"
#: Seconds for the daemon to start, and for a process to end when asked.
START_S, END_S = 90.0, 30.0

_CONFIG = """\
[session]
name = "chaos"
exit_at_end = false
hang_s = 3.0

[source]
{source}
timeout_s = 120.0

[bus]
dir = {folder}

[recording]
dir = {recordings}
subject = "chaos"
task = {over}

[pipelines.{pipeline}]
bundle = {bundle}
publish = {publish}
budget_ms = 500.0
hwm = 200
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """One message, when it came, and its arrays."""

    at: float
    message: Message
    arrays: Mapping[str, NDArray[np.generic]]


class Stage:
    """One daemon over one transport, recording, with one pipeline that cannot lie.

    Parameters
    ----------
    over : {"lsl", "zmq", "fieldtrip"}
        How the sender reaches it.

    Attributes
    ----------
    lives : dict of int to Life
        What the senders said of themselves.
    seen : list of Seen
        Everything published, in order; it grows.
    """

    def __init__(self, over: Over) -> None:
        self.over: Over = over
        self.folder = private_folder()
        self.recordings = self.folder / "recordings"
        self.recordings.mkdir()
        self.lives: dict[int, Life] = {}
        self.seen: list[Seen] = []
        self.endpoint = f"ipc://{self.folder / 'results'}"
        self._address = f"chaos-{os.getpid()}" if over == "lsl" else f"127.0.0.1:{free_port()}"
        self._config = self.folder / "chaos.toml"
        self._config.write_text(self._text(), encoding="utf-8")
        api = self.folder / "lsl_api.cfg"
        api.write_text(LSL_API.format(session=f"chaos-{os.getpid()}-{self.folder.name}"), encoding="utf-8")
        self._environment = os.environ | ONE_THREAD | {SUPERVISED: str(os.getpid()), "LSLAPICFG": str(api)}
        self._life = 0
        self._senders: list[subprocess.Popen[str]] = []
        self._daemon: subprocess.Popen[bytes] | None = None
        self._closing = threading.Event()
        self._listener = threading.Thread(target=self._listen, name="listen", daemon=True)

    def _text(self) -> str:
        host, _, port = self._address.partition(":")
        source = {
            "lsl": f'kind = "lsl"\nname = "{self._address}"\nmarkers = [{{ name = "{self._address}-markers" }}]',
            "zmq": f'kind = "zmq"\nendpoint = "tcp://{self._address}"',
            "fieldtrip": f'kind = "fieldtrip"\nhost = "{host}"\nport = {port}',
        }[self.over]
        return _CONFIG.format(
            source=source,
            folder=json.dumps(str(self.folder)),
            recordings=json.dumps(str(self.recordings)),
            over=json.dumps(self.over),
            pipeline=PIPELINE,
            bundle=json.dumps(str(BUNDLE)),
            publish=json.dumps(self.endpoint),
        )

    # --- the sender ---------------------------------------------------------------------------------------------------

    @property
    def sender(self) -> "subprocess.Popen[str]":
        """The newest sender."""
        return self._senders[-1]

    def start_sender(self, **declared: str | float) -> "subprocess.Popen[str]":
        """Start another life of the sender; `declared` are its options, where they are not as usual."""
        self._life += 1
        options = {"transport": self.over, "address": self._address, "life": self._life} | declared
        arguments = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", str(value))]
        with (self.folder / "sender.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "rtdecode.chaos.sender", *arguments],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._senders.append(process)
        assert process.stdout is not None
        self._told(process.stdout.readline())
        threading.Thread(target=self._hear, args=(process.stdout,), name="hear", daemon=True).start()
        return process

    def _hear(self, lines: "IO[str]") -> None:
        for line in lines:
            self._told(line)

    def _told(self, line: str) -> None:
        if not line:
            raise ProcessError(f"the sender did not start: {self.last_words('sender')}")
        said = json.loads(line)
        if "zero" in said:
            self.lives[said["life"]] = Life(said["zero"], said["sfreq"])
        elif "dropped" in said:
            begin, stop = said["dropped"]
            self.lives[said["life"]].dropped.append((begin, stop))
        elif "skew" in said:
            self.lives[said["life"]].skews.append((said["first"], said["skew"]))

    def tell(self, **order: str | float) -> None:
        """Give the sender an order."""
        assert self.sender.stdin is not None
        self.sender.stdin.write(json.dumps(order) + "\n")
        self.sender.stdin.flush()

    def forget_sender(self, process: "subprocess.Popen[str]") -> None:
        """That sender is no more; the one before it is again the one that is meant."""
        self._senders.remove(process)
        _close(process)

    @property
    def sender_address(self) -> tuple[str, int]:
        """Host and port that the sender serves, where its transport has one."""
        host, _, port = self._address.partition(":")
        return host, int(port)

    def end_sender(self, process: "subprocess.Popen[str] | None" = None) -> None:
        """Kill a sender, by default the newest; it gets no chance to say goodbye."""
        victim = process or self.sender
        victim.kill()
        victim.wait()

    # --- the daemon ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a sender and the daemon, and listen."""
        self.start_sender()
        with (self.folder / "daemon.log").open("wb") as log:
            self._daemon = subprocess.Popen(
                [sys.executable, "-m", "rtdecode", "run", str(self._config)],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._listener.start()

    def _listen(self) -> None:
        with Subscriber(self.endpoint, [f"{PIPELINE}."], hwm=100_000) as subscriber:
            while not self._closing.is_set():
                received = subscriber.receive(0.1)
                # A retained event may be news: what a process says as it starts, before we have found it again.
                if received is not None and (isinstance(received.message, Event) or not received.message.retained):
                    self.seen.append(Seen(received.at, received.message, received.arrays))

    def status(self, process: str) -> dict[str, Any]:
        """What *acquire* or the pipeline (``witness``) answers; raises `ProcessError` where it does not."""
        config = load(self._config)
        return control.ask(control.control_endpoints(config)[process], control.Status(), 2.0, process)

    def pid(self, process: str) -> int:
        """Its process id, asked until it answers."""
        deadline = hostclock.now() + START_S
        while True:
            try:
                return int(self.status(process)["pid"])
            except ProcessError:
                if hostclock.now() > deadline:
                    raise

    def signal(self, process: str, number: int) -> int:
        """Send a signal to *acquire* or the pipeline; its process id."""
        pid = self.pid(process)
        os.kill(pid, number)
        return pid

    @property
    def control_address(self) -> str:
        """Where *acquire* takes requests."""
        return control.control_endpoints(load(self._config))["acquire"]

    @property
    def fault(self) -> str:
        """Why the daemon is not there any more; empty while it is."""
        if self._daemon is not None and self._daemon.poll() is not None:
            return f"the daemon ended with exit code {self._daemon.returncode}: {self.last_words('daemon')}"
        return ""

    def last_words(self, what: str) -> str:
        """The end of a log."""
        lines = (self.folder / f"{what}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return " / ".join([line.strip() for line in lines if line.strip()][-6:])[-1000:] or "it said nothing"

    # --- the end ------------------------------------------------------------------------------------------------------

    def stop(self) -> int:
        """End the daemon in order; its exit code. The recordings are then whole."""
        assert self._daemon is not None
        if self._daemon.poll() is None:
            self._daemon.send_signal(signal.SIGTERM)
        try:
            return self._daemon.wait(END_S)
        finally:
            self._closing.set()
            self._listener.join()

    def close(self) -> None:
        """End what still runs. The folder stays for who wants to look; `folder` says where. Safe to call twice."""
        self._closing.set()
        for process in self._senders:
            process.kill()
            process.wait()
            _close(process)
        if self._daemon is not None:
            if self._daemon.poll() is None:
                os.killpg(self._daemon.pid, signal.SIGKILL)
            self._daemon.wait()
            if self._daemon.stdin is not None:
                self._daemon.stdin.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:  # ended while it starts: nobody would close it
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _close(process: "subprocess.Popen[str]") -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
