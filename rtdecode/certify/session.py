"""One certified session: its processes from start to end, and everything that was measured of them."""

import contextlib
import itertools
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import zmq

from rtdecode import hostclock
from rtdecode.certify import machine
from rtdecode.certify.listener import Counted, Described, Line, Seen, Told
from rtdecode.certify.load import Load
from rtdecode.certify.plan import Plan, Wishes, make_plan, toml
from rtdecode.config import Config, load
from rtdecode.daemon import bus, control
from rtdecode.daemon.endpoints import Endpoints, endpoints
from rtdecode.daemon.rpc import Client
from rtdecode.demo.staging import Staging
from rtdecode.errors import ProcessError
from rtdecode.wire.messages import Samples

#: Seconds for the first window, beyond the longest window and what the markers take.
FIRST_WINDOW_S = 20.0

#: Seconds for a process to end when asked, beyond what it allows itself.
END_S = 30.0

#: Seconds for which the machine is looked at without us.
LOOK_S = 0.5

#: Seconds from one look at the processes to the next.
_TURN_S = 0.1


@dataclass(slots=True)
class Measured:
    """Everything that a session gave.

    Parameters
    ----------
    plan : Plan
        What was run.
    load : Load
        What ran beside it.
    asked_s : float
        Seconds that were to be measured.
    begin, end : float
        Host time of the measured span.
    windows : list of Seen
        Every window of the whole session, in the order in which each pipeline published them.
    events : list of Told
        What was announced.
    described : dict of str to Described
        By pipeline, the last of each.
    counted : dict of str to Counted
        The pipelines' last count.
    blocks : list of (float, int)
        Arrival and samples of each chunk of the first source, of the seconds before the span.
    sender : dict
        What the stand-in's process says of itself.
    machine : dict
        From `machine.describe`.
    kernel, before : dict
        What the kernel counted in the span, and for a moment before anything of ours ran.
    faults : list of str
        What failed.
    interrupted : bool
        Whether somebody ended it early.
    ended_early : str
        Why the span is shorter than it was to be; empty where it is not.
    """

    plan: Plan
    load: Load
    asked_s: float
    begin: float = 0.0
    end: float = 0.0
    windows: list[Seen] = field(default_factory=list)
    events: list[Told] = field(default_factory=list)
    described: dict[str, Described] = field(default_factory=dict)
    counted: dict[str, Counted] = field(default_factory=dict)
    blocks: list[tuple[float, int]] = field(default_factory=list)
    sender: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    kernel: dict[str, Any] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    interrupted: bool = False
    ended_early: str = ""

    @property
    def seconds(self) -> float:
        """Length of the measured span."""
        return max(0.0, self.end - self.begin)


#: Called with what goes on, seconds measured so far, and what there is as yet.
Progress = Callable[[str, float, Measured], None]


class Session:
    """Runs one session and measures it.

    Parameters
    ----------
    config : Config
        The user's own.
    wishes : Wishes
        How it is to differ from that.
    seconds, warmup : float
        To measure, and before that.
    load : Load
        Beside it, from the warm-up on.
    progress : callable
        Told a few times a second.
    """

    def __init__(
        self, config: Config, wishes: Wishes, seconds: float, warmup: float, load: Load, progress: Progress
    ) -> None:
        self._wishes = wishes
        self._warmup = warmup
        self._progress = progress
        self._staging = Staging()
        try:
            plan = make_plan(config, wishes, self._staging.folder)
        except BaseException:
            self._staging.close()
            raise
        self.measured = Measured(plan, load, seconds)
        self._ready = threading.Event()
        self._readers: list[threading.Thread] = []

    def run(self) -> Measured:
        """Run it to its end. Ctrl-C while it is measured ends it early, with what there is.

        Raises
        ------
        ProcessError
            It did not come to be measured: a process failed before, with its last words.
        """
        measured = self.measured
        try:
            try:
                self._prepare()
                self._start()
                self._warm_up()
            except KeyboardInterrupt:
                raise ProcessError("ended before anything was measured") from None
            self._measure()
            self._end()
        finally:
            self._staging.close()
            for made in measured.plan.made:
                shutil.rmtree(made, ignore_errors=True)
        return measured

    # --- beginning ----------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Describe the machine, see how busy it is without us, and write down what is to be run."""
        self.measured.machine = machine.describe()
        before, began = machine.counters({}), hostclock.now()
        self._wait(LOOK_S, "looking at the machine")
        self.measured.before = machine.difference(before, machine.counters({}), hostclock.now() - began)
        plan, folder = self.measured.plan, self._staging.folder
        path = folder / "session.toml"
        path.write_text(toml(plan.table), encoding="utf-8")
        self._config = load(path)  # what was written must be what is meant
        if plan.standins:
            (folder / "standins.json").write_bytes(msgspec.json.encode(list(plan.standins.values())))

    def _start(self) -> None:
        staging, plan = self._staging, self.measured.plan
        if not self._wishes.live:
            staging.own_lsl()
        if plan.standins:
            sender = staging.spawn(
                "sender", "rtdecode.certify.sender", str(staging.folder / "standins.json"), talks=True
            )
            self._read(sender.stdout, self._hear_sender)
        # A ZeroMQ stream says what it is with its samples; the others are there before they begin.
        early = any(one.transport == "zmq" for one in plan.standins.values())
        if early:
            staging.tell("sender", b"go")
        # One more than the pipelines is waited for: a source that is played begins when the listener is there, too.
        daemon = staging.spawn(
            "daemon", "rtdecode", "run", str(self._config.path), "--hold", str(int(self._config.paced)), talks=True
        )
        self._read(daemon.stdout, self._hear_daemon)
        places = [f"{name}={pipeline.publish}" for name, pipeline in self._config.pipelines.items()]
        listener = staging.spawn("listener", "rtdecode.certify.listener", *places, talks=True)
        self._read(listener.stdout, self._hear_listener)
        source_s = max(getattr(source, "timeout_s", 0.0) for source in self._config.inputs.values())
        self._until(self._all_ready, "starting the daemon", self._config.session.start_s + source_s)
        if self._config.paced:
            self._let_go()
        if plan.standins and not early:
            staging.tell("sender", b"go")
        for n, command in enumerate(self.measured.load.commands(self._disk())):
            staging.spawn(f"load{n}", "rtdecode.certify.load", *command)
        longest = max(window.duration for name in plan.bundles for window in plan.windows(name))
        patience = FIRST_WINDOW_S + longest + 3 * self._wishes.marker_s
        self._until(lambda: bool(self.measured.windows), "waiting for the first window", patience)

    def _disk(self) -> Any:
        """Where the load writes: beside the recordings, where there are any."""
        plan = self.measured.plan
        return plan.made[0] if plan.made else self._staging.folder

    def _all_ready(self) -> bool:
        return self._ready.is_set() and set(self.measured.described) == set(self._config.pipelines)

    def _let_go(self) -> None:
        """Tell *acquire*, which waits for us as for a decoder, that we are here, and need nothing at the end."""
        for source in self._config.inputs:
            of: dict[str, Any] = {"source": source} if source else {}
            with zmq.Context() as context:
                client = Client(context, self._addresses(source).log, "acquire")
                try:
                    for request in (bus.Follow(name="certify", **of), bus.Leave(name="certify", **of)):
                        client.ask(request, 5.0)
                finally:
                    client.close()

    def _addresses(self, source: str) -> Endpoints:
        found = endpoints(self._config)
        return found.of(source) if source else found

    # --- measuring ----------------------------------------------------------------------------------------------------

    def _warm_up(self) -> None:
        """Let everything settle, and watch the chunks meanwhile: later that would be measured too."""
        deadline = hostclock.now() + self._warmup
        source = next(iter(self._config.inputs))
        topic = ".".join(filter(None, (bus.SAMPLES_TOPIC, source))).encode()
        with (
            zmq.Context() as context,
            context.socket(zmq.SUB) as socket,
            contextlib.closing(Client(context, self._addresses(source).log, "acquire")) as client,
        ):
            socket.setsockopt(zmq.LINGER, 0)
            socket.subscribe(topic)
            socket.connect(self._addresses(source).samples)
            # One who wants every sample at once: else they come together, and not in the sender's blocks.
            with contextlib.suppress(ProcessError):  # a session that is over says so below
                client.ask(bus.Follow(name="certify", source=source, remote=True), 5.0)
            while (left := deadline - hostclock.now()) > 0:
                self._look("warming up", 0.0)
                if self._over():
                    return
                if socket.poll(round(1e3 * min(left, _TURN_S))):
                    frames = socket.recv_multipart()
                    message = msgspec.msgpack.decode(frames[1], type=Samples)
                    if message.arrays and frames[0] == topic:  # a subscription to `a` hears `ab` too
                        self.measured.blocks.append((message.arrived, message.arrays[0].shape[0]))
            with contextlib.suppress(ProcessError):
                client.ask(bus.Leave(name="certify", source=source), 5.0)

    def _measure(self) -> None:
        measured = self.measured
        pids = self._pids()
        before = machine.counters(pids)
        measured.begin = hostclock.now()
        try:
            while (passed := hostclock.now() - measured.begin) < measured.asked_s:
                self._look("measuring", passed)
                if self._over():
                    break
                self._pause(min(_TURN_S * 2, measured.asked_s - passed))
        except KeyboardInterrupt:
            measured.interrupted = True
            measured.ended_early = "somebody ended it"
        measured.end = hostclock.now()
        measured.kernel = machine.difference(before, machine.counters(pids), measured.seconds)

    def _over(self) -> bool:
        """Whether there is nothing more to measure: the daemon has ended."""
        if self._staging.ended("daemon"):
            self.measured.ended_early = "the source has ended"
            return True
        return False

    def _pids(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, endpoint in control.control_endpoints(self._config).items():
            pid = int(control.ask(endpoint, control.Status(), 5.0, name)["pid"])
            if pid not in found.values():  # pipelines may share one
                found[name] = pid
        others = {name: one.pid for name, one in self._staging.processes.items()}
        return found | others | {"certify": os.getpid()}

    # --- the end ------------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Load off; the daemon ends with everything published; what it published is taken; then the others."""
        staging, measured = self._staging, self.measured
        self._progress("ending", measured.seconds, measured)
        self._note_faults()
        for name in [name for name in staging.processes if name.startswith("load")]:
            staging.ask_to_end(name, "input")
            staging.wait(name, 2.0)
        staging.ask_to_end("daemon", "signal")
        code = staging.wait("daemon", self._config.bus.drain_s + END_S)
        if code and not measured.faults:
            measured.faults.append(f"the daemon ended with exit code {code}: {staging.last_words('daemon')}")
        for name in ("listener", "sender"):
            if name in staging.processes and not staging.ended(name):
                staging.tell(name, b"stop")
                staging.wait(name, END_S)
        for reader in self._readers:
            reader.join(END_S)

    def _note_faults(self) -> None:
        for name, process in self._staging.processes.items():
            if process.poll() not in (None, 0):
                words = self._staging.last_words(name)
                self.measured.faults.append(f"the {name} ended with exit code {process.returncode}: {words}")

    # --- what the processes say ---------------------------------------------------------------------------------------

    def _read(self, lines: Any, hear: Callable[[bytes], None]) -> None:
        def read() -> None:
            for line in lines:
                hear(line)

        thread = threading.Thread(target=read, name="hear", daemon=True)
        thread.start()
        self._readers.append(thread)

    def _hear_daemon(self, line: bytes) -> None:
        if line.startswith(b"READY run"):
            self._ready.set()

    def _hear_sender(self, line: bytes) -> None:
        self.measured.sender = json.loads(line)

    def _hear_listener(self, line: bytes) -> None:
        measured = self.measured
        match msgspec.json.decode(line, type=Line):
            case Seen() as window:
                measured.windows.append(window)
            case Told() as event:
                measured.events.append(event)
            case Described() as described:
                measured.described[described.pipeline] = described
            case Counted() as counted:
                measured.counted[counted.pipeline] = counted

    # --- waiting ------------------------------------------------------------------------------------------------------

    def _look(self, what: str, seconds: float) -> None:
        self._progress(what, seconds, self.measured)

    def _wait(self, seconds: float, what: str) -> None:
        for _ in self._turns(seconds, what):
            pass

    def _until(self, done: Callable[[], bool], what: str, patience: float) -> None:
        """Wait for something, and raise `ProcessError` where it does not come."""
        for _ in self._turns(patience, what):
            if done():
                return
            fault = self._staging.fault
            if fault or self._staging.ended("daemon"):
                raise ProcessError(fault or f"the daemon ended early: {self._staging.last_words('daemon')}")
        raise ProcessError(f"{what} took more than {patience:g} s: {self._staging.last_words('daemon')}")

    def _turns(self, seconds: float, what: str) -> Iterator[int]:
        deadline = hostclock.now() + seconds
        for n in itertools.count():
            self._look(what, 0.0)
            yield n
            left = deadline - hostclock.now()
            if left <= 0:
                return
            self._pause(min(_TURN_S, left))

    @staticmethod
    def _pause(seconds: float) -> None:
        threading.Event().wait(seconds)
