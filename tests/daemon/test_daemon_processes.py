"""Real processes that crash, hang and are orphaned: what goes on meanwhile, and what is said of it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from daemon_kit import Listener, Process, Session, children, endpoints_of, wait_for

from rtdecode.daemon.bus import EVENT_TOPIC
from rtdecode.daemon.guard import Guard
from rtdecode.wire.messages import Event
from rtdecode.wire.subscriber import Subscriber

pytestmark = [
    pytest.mark.timeout(170),
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals"),
]

SIMULATED = 'kind = "simulated"'

#: Short enough for a test, and longer than what a loaded machine makes of a process that is well.
HANG = "hang_s = 4"


class Announced:
    """Events that *acquire* publishes, collected by a thread."""

    def __init__(self, endpoint: str) -> None:
        self.events: list[Event] = []
        self._stop = threading.Event()
        self._subscriber = Subscriber(endpoint, [EVENT_TOPIC])
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        while not self._stop.is_set():
            received = self._subscriber.receive(timeout=0.05)
            if received is not None and isinstance(received.message, Event):
                self.events.append(received.message)

    def event(self, kind: str) -> list[Event]:
        return [event for event in list(self.events) if event.event == kind]

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._subscriber.close()


@pytest.fixture
def announced(session: Session) -> Iterator[Callable[[Path], Announced]]:
    made: list[Announced] = []

    def make(config: Path) -> Announced:
        made.append(Announced(endpoints_of(session, config).samples))
        return made[-1]

    yield make
    for one in made:
        one.close()


def another(run: Process, name: str, than: psutil.Process) -> psutil.Process:
    """The process that has taken the place of `than`."""
    found = wait_for(lambda: (c := children(run.pid).get(name)) not in (None, than) and c, f"another {name}", 60)
    assert isinstance(found, psutil.Process)
    return found


def restarted(listener: Listener) -> Event:
    """What a process that was started again says of it; perhaps before its subscribers have found it again."""

    def said() -> list[Event]:
        return [event for event in [*listener.events, *listener.retained] if event.event == "restarted"]

    event = wait_for(said, "the new process's own word", 60)[0]
    assert isinstance(event, Event)
    return event


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_segmentation_fault_of_decode_leaves_acquire_alone_and_is_announced(
    session: Session, announced: Callable[[Path], Announced]
) -> None:
    session.bundle()
    config = session.config(source=SIMULATED, pipelines={"p": "", "q": ""})
    run = session.start("run", str(config))
    listener, other = session.listen("p").connected(), session.listen("q").connected()
    run.ready()
    heard = announced(config)
    wait_for(lambda: len(listener.windows) > 5, "windows")
    before, status = children(run.pid), session.status(config, "acquire")
    before["p"].send_signal(signal.SIGSEGV)
    another(run, "p", before["p"])
    assert restarted(listener).details == {"process": "p", "how": "SIGSEGV", "after_s": 0.2, "restarts": 1}
    crashed = wait_for(lambda: heard.event("crashed"), "acquire's word")[0]
    assert crashed.details["how"] == "SIGSEGV"
    assert "pipeline p" in crashed.text
    seen = len(listener.windows)
    wait_for(lambda: len(listener.windows) > seen + 5, "its windows")
    # *acquire*, and the other pipeline, have noticed nothing.
    after = session.status(config, "acquire")
    assert children(run.pid)["acquire"] == before["acquire"]
    assert children(run.pid)["q"] == before["q"]
    assert after["run"] == status["run"]
    assert after["segment"] == status["segment"] == 0
    assert after["samples"] > status["samples"]
    assert after["samples"] == after["next_index"]
    assert (after["restarts"], session.status(config, "p")["restarts"]) == (0, 1)
    assert not [event for event in [*other.events, *other.retained] if event.event == "restarted"]
    assert run.terminate() == 0, run.text


def kill_until_given_up(run: Process, name: str) -> int:
    """How many times."""
    killed: set[int] = set()
    while f"given up about={name}" not in run.text:
        one = wait_for(
            lambda: (
                f"given up about={name}" in run.text
                or ((c := children(run.pid).get(name)) and c.pid not in killed and c)
            ),
            "the next one",
            60,
        )
        if one is not True:
            killed.add(one.pid)
            one.kill()
    return len(killed)


@pytest.mark.slow
def test_a_decoder_that_always_crashes_is_given_up_and_what_is_being_recorded_is_recorded_to_the_end(
    session: Session, announced: Callable[[Path], Announced]
) -> None:
    pyxdf = pytest.importorskip("pyxdf")
    session.bundle()
    config = session.config(source=SIMULATED)
    with config.open("a") as file:
        file.write('[recording]\ndir = "recorded"\n')
    run = session.start("run", str(config))
    run.ready()
    heard = announced(config)
    before = children(run.pid)["acquire"]
    assert kill_until_given_up(run, "p") == 6
    wait_for(lambda: heard.event("no pipeline"), "acquire's word of it")
    assert heard.event("given up")
    assert [event.details["after_s"] for event in heard.event("crashed")] == [0.2, 0.4, 0.8, 1.6, 3.2]
    seen = session.status(config, "acquire")["samples"]
    wait_for(lambda: session.status(config, "acquire")["samples"] > seen + 250, "another second")
    seen = session.status(config, "acquire")["samples"]
    assert children(run.pid)["acquire"] == before
    assert run.terminate() == 8, run.text
    (recorded,) = (session.folder / "recorded").rglob("*.xdf")
    streams, _ = pyxdf.load_xdf(recorded, synchronize_clocks=False, dejitter_timestamps=False)
    assert max(len(stream["time_series"]) for stream in streams) >= seen  # all that *acquire* counted


def test_a_killed_acquire_costs_a_gap_over_lsl_and_alone_it_has_inlets(session: Session, lsl_config: Path) -> None:
    session.bundle()
    name = f"s-{session.folder.name}"
    with lsl_sender(name, lsl_config):
        config = session.config(
            source=f'kind = "lsl"\nname = "{name}"\ntimeout_s = 60\nmarkers = [{{ name = "{name}-markers" }}]'
        )
        with config.open("a") as file:
            file.write('[recording]\ndir = "recorded"\n')
        run = session.start("run", str(config), LSLAPICFG=str(lsl_config))
        listener = session.listen().connected()
        run.ready(120)
        wait_for(lambda: len(listener.windows) > 5, "windows", 60)
        before = children(run.pid)
        # liblsl's inlets are sockets and threads of *acquire* alone; the others talk through the runtime folder.
        assert before["acquire"].net_connections("inet")
        assert not before["p"].net_connections("inet")
        assert not psutil.Process(run.pid).net_connections("inet")
        status = session.status(config, "acquire")
        before["acquire"].kill()
        crashed = wait_for(lambda: listener.event("crashed"), "the word of the crash", 60)[0]
        assert crashed.details["process"] == "acquire"
        assert crashed.details["how"] == "SIGKILL"
        wait_for(lambda: any(message.segment > 0 for message, _ in list(listener.windows)), "a new segment", 90)
        assert listener.event("restart")
        assert children(run.pid)["p"] == before["p"]
        assert len(list((session.folder / "recorded").rglob("*.xdf"))) == 2
        after = session.status(config, "acquire")
        assert after["run"] != status["run"]
        assert after["restarts"] == 1
        keys = listener.keys()
        assert len(keys) == len(set(keys))
        assert run.terminate() == 0, run.text
        health = listener.health[-1]
        assert health.due == sum(health.counts.values())


class lsl_sender:  # noqa: N801  # used as a function
    """The simulated subject over LSL, in a process of its own."""

    def __init__(self, name: str, lsl_config: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rtdecode.demo.sender", "--name", name, "--seed", "1", "--seconds", "600"],
            env=os.environ | {"LSLAPICFG": str(lsl_config)},
            stdin=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )

    def __enter__(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)


def test_an_acquire_that_crashes_at_once_each_time_ends_the_session(session: Session) -> None:
    session.bundle()
    config = session.config(source=SIMULATED)
    run = session.start("run", str(config))
    listener = session.listen().connected()
    run.ready()
    killed: set[int] = set()
    while run.process.poll() is None and "acquire is given up" not in run.text and "acquire failed" not in run.text:
        one = children(run.pid).get("acquire") if run.process.poll() is None else None
        if one is not None and one.pid not in killed:
            killed.add(one.pid)
            one.kill()
    assert run.end() == 8, run.text
    assert len(killed) == 6
    assert listener.event("stop")


def test_a_process_that_hangs_is_replaced(session: Session, announced: Callable[[Path], Announced]) -> None:
    session.bundle()
    config = session.config(source=SIMULATED, session=HANG)
    run = session.start("run", str(config))
    listener = session.listen().connected()
    run.ready()
    heard = announced(config)
    wait_for(lambda: len(listener.windows) > 5, "windows")
    for name, others in (("p", heard), ("acquire", listener)):  # one that hangs says nothing itself
        stopped = children(run.pid)[name]
        stopped.suspend()
        another(run, name, stopped)
        assert gone(stopped)
        how = wait_for(partial(said_of, name, others), "the word of it", 60)[0].details["how"]
        assert how == "hung: silent for 4 s"
        seen = len(listener.windows)
        wait_for(lambda at=seen: len(listener.windows) > at + 5, "windows again", 60)
    assert run.terminate() == 0, run.text


def said_of(name: str, others: Announced | Listener) -> list[Event]:
    return [event for event in others.event("crashed") if event.details["process"] == name]


def test_a_supervisor_that_slept_blames_nobody(session: Session) -> None:
    session.bundle()
    config = session.config(source=SIMULATED, session="hang_s = 2")
    run = session.start("run", str(config))
    listener = session.listen().connected()
    run.ready()
    wait_for(lambda: len(listener.windows) > 5, "windows")
    before = children(run.pid)
    processes = [psutil.Process(run.pid), *before.values()]
    for process in processes:  # as when a machine is suspended
        process.suspend()
    with pytest.raises(subprocess.TimeoutExpired):  # three times as long as a process may be silent
        run.process.wait(6)
    for process in processes:
        process.resume()
    wait_for(lambda: "nobody is blamed" in run.text, "the supervisor's word")
    seen = len(listener.windows)
    wait_for(lambda: len(listener.windows) > seen + 20, "windows again", 60)
    assert children(run.pid) == before
    assert "hung" not in run.text
    assert run.terminate() == 0, run.text


@pytest.mark.parametrize("stopped", ["none", "children", "guard too"])
def test_no_process_outlives_a_killed_supervisor(session: Session, stopped: str) -> None:
    session.bundle()
    config = session.config(source=SIMULATED)
    run = session.start("run", str(config))
    run.ready()
    named = children(run.pid)
    left = psutil.Process(run.pid).children(recursive=True)
    assert set(named.values()) <= set(left)
    # A stopped process cannot see by itself that its standard input closes.
    for process in {"none": [], "children": named.values(), "guard too": left}[stopped]:
        process.suspend()
    run.send(signal.SIGKILL)
    assert run.end() == -signal.SIGKILL
    wait_for(lambda: all(gone(one) for one in left), "their end", 40)
    # What it left in the runtime folder does not keep the next one from running.
    again = session.start("run", str(config))
    again.ready()
    assert again.terminate() == 0, again.text


def test_two_runs_begun_at_once_are_one(session: Session) -> None:
    session.bundle()
    config = session.config(source=SIMULATED)
    runs = [session.start("run", str(config)) for _ in range(3)]
    refused = [run for run in runs if wait_for(lambda run=run: run.lines or run.process.poll(), "its word", 60) == 7]
    (alive,) = [run for run in runs if run not in refused]
    assert all("runs already" in run.text for run in refused)
    # Those that were refused took nothing of its folder away.
    wait_for(lambda: session.status(config, "acquire")["state"] == "streaming", "its samples")
    assert alive.terminate() == 0, alive.text


_DEAF = "import signal, time\nfor n in (15, 18): signal.signal(n, signal.SIG_IGN)\ntime.sleep(600)"

_GUARDED = """
import subprocess, sys, time
from rtdecode.daemon import guard
guarding = guard.Guard(after_s=0.2)
guarding.revive()
deaf = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE)
guarding.watch(deaf.pid)
if sys.argv[2] == "revive":
    guarding._process.kill()
    guarding._process.wait()
    guarding.revive()
print(deaf.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux alone has pidfds")
@pytest.mark.parametrize("how", ["as started", "revive"])
def test_the_guard_ends_a_child_that_hears_nothing(how: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _GUARDED, _DEAF, how],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as supervisor:
        assert supervisor.stdout is not None
        deaf = psutil.Process(int(supervisor.stdout.readline()))
        supervisor.kill()
        supervisor.wait()
        wait_for(lambda: gone(deaf), "the deaf one's end")


def test_a_refusal_is_said_once_for_all_processes_and_all_restarts(
    session: Session, announced: Callable[[Path], Announced]
) -> None:
    session.bundle()
    config = session.config(source=SIMULATED, pipelines={"p": "", "q": ""})
    for process in ("acquire", "decode"):
        with config.open("a") as file:  # one that no machine has
            file.write(f"[realtime.{process}]\ncpus = [4095]\npriority = 0\nlock_memory = false\n")
    run = session.start("run", str(config))
    heard = announced(config)
    listener = session.listen("p").connected()
    run.ready()
    before = children(run.pid)["p"]
    before.kill()
    another(run, "p", before)
    restarted(listener)
    seen = len(listener.windows)
    wait_for(lambda: len(listener.windows) > seen + 2, "its windows", 60)
    text = "CPU affinity [4095] is not to be had" if sys.platform == "linux" else "for Linux alone"
    assert run.text.count(text) == 1
    assert len(heard.event("realtime refused")) <= 1  # it may have come before we listened
    assert run.terminate() == 0, run.text
    config.write_text(config.read_text() + '[realtime]\npolicy = "require"\n')
    refused = session.start("run", str(config))
    assert refused.end() == 2
    assert "realtime.policy is 'require'" in refused.text


@pytest.mark.skipif(sys.platform != "linux", reason="systemd")
def test_systemd_hears_ready_then_pings_then_the_end(session: Session) -> None:
    session.bundle()
    config = session.config(source=SIMULATED)
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(session.folder / "notify"))
        listener.settimeout(60)
        run = session.start("run", str(config), NOTIFY_SOCKET=str(session.folder / "notify"), WATCHDOG_USEC="1000000")
        while "READY=1" not in heard:
            heard.append(listener.recv(100).decode())
        begun = len(heard)
        while heard[begun:].count("WATCHDOG=1") < 3:
            heard.append(listener.recv(100).decode())
        run.send(signal.SIGTERM)
        while "STOPPING=1" not in heard:
            heard.append(listener.recv(100).decode())
        assert run.end() == 0, run.text
    assert set(heard) == {"READY=1", "WATCHDOG=1", "STOPPING=1"}


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the guard needs Linux's pidfds")
def test_a_guard_that_somebody_stopped_holds_up_no_end() -> None:
    guarding = Guard()
    guarding.revive()
    assert guarding._process is not None
    pid = guarding._process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        ends = threading.Thread(target=guarding.close, daemon=True)
        ends.start()
        ends.join(30.0)
        assert not ends.is_alive()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
