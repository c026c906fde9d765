"""The faults, each with what begins it, what ends it, and by which signs it must be noticed."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from rtdecode.chaos import truth
from rtdecode.chaos.stage import Over, Stage

if sys.platform == "linux":
    import resource

ALL: tuple[Over, ...] = ("lsl", "zmq", "fieldtrip")

#: Ends a fault.
Undo = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the table.

    Parameters
    ----------
    name : str
        In the table, and on the command line.
    over : tuple of {"lsl", "zmq", "fieldtrip"}
        Which transports it is tried on.
    begin : callable
        Does it; returns what undoes it, or None where it is over by itself.
    signs : tuple of str
        Names of events, of source states, or statuses of windows: the first of them that is published says that the
        fault was noticed. Empty where the daemon has nothing to notice.
    hold_s : float
        Seconds between the fault and its end.
    outage : str
        ``acquire`` or ``disk`` where it keeps samples from being recorded: the table then shows how many, against what
        was announced.
    """

    name: str
    over: tuple[Over, ...]
    begin: Callable[[Stage], Undo | None]
    signs: tuple[str, ...] = ()
    hold_s: float = 0.0
    outage: str = ""


def _sender_killed(stage: Stage) -> Undo:
    stage.end_sender()
    return stage.start_sender


def _sender_paused(stage: Stage) -> Undo:
    sender = stage.sender
    sender.send_signal(signal.SIGSTOP)
    return lambda: sender.send_signal(signal.SIGCONT)


def _back_as(**declared: str | float) -> Callable[[Stage], Undo]:
    """Killed, and back as something else; then killed again, and back as it was."""

    def begin(stage: Stage) -> Undo:
        stage.end_sender()
        stage.start_sender(**declared)

        def undo() -> None:
            stage.end_sender()
            stage.start_sender()

        return undo

    return begin


def _second_sender(stage: Stage) -> Undo:
    first = stage.sender
    second = stage.start_sender(source_id="impostor")

    def undo() -> None:
        stage.end_sender(second)
        stage.forget_sender(second)
        assert stage.sender is first

    return undo


def _order(**order: str | float) -> Callable[[Stage], None]:
    return lambda stage: stage.tell(**order)


def _order_and_back(order: dict[str, str | float], back: dict[str, str | float]) -> Callable[[Stage], Undo]:
    def begin(stage: Stage) -> Undo:
        stage.tell(**order)
        return lambda: stage.tell(**back)

    return begin


def _signal(process: str, number: int) -> Callable[[Stage], None]:
    def begin(stage: Stage) -> None:
        stage.signal(process, number)

    return begin


def _slow_subscriber(stage: Stage) -> Undo:
    """One that connects, takes the smallest queues there are, and never reads."""
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.RCVHWM, 1)
    socket.setsockopt(zmq.RCVBUF, 4096)
    socket.setsockopt(zmq.LINGER, 0)
    socket.subscribe(b"")
    socket.connect(stage.endpoint)

    def undo() -> None:
        socket.close()
        context.term()

    return undo


def _full_disk(stage: Stage) -> Undo:
    """No file of *acquire* may grow: what the kernel answers to a write is an error, as on a disk that is full."""
    pid = stage.pid("acquire")
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    return lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def _cpu_hog(stage: Stage) -> Undo:
    """Twice as many busy processes as there are cores."""
    hogs = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], stdin=subprocess.DEVNULL)
        for _ in range(2 * (os.cpu_count() or 1))
    ]

    def undo() -> None:
        for hog in hogs:
            hog.kill()
            hog.wait()

    return undo


def _garbage_on_control(stage: Stage) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 500)
        socket.connect(stage.control_address)
        for n in range(200):
            socket.send_multipart([b"", os.urandom(1 + n * 37 % 5000)])


def _garbage_beside(stage: Stage) -> Undo:
    """Connections to the sender's port that talk nonsense, as a port scanner does."""
    done = threading.Event()
    thread = threading.Thread(target=_scan, args=(stage, done), daemon=True)
    thread.start()

    def undo() -> None:
        done.set()
        thread.join()

    return undo


def _scan(stage: Stage, done: threading.Event) -> None:
    import socket

    host, port = stage.sender_address
    while not done.wait(0.05):
        try:
            with socket.create_connection((host, port), 1.0) as connection:
                connection.sendall(os.urandom(512))
        except OSError:
            continue


_OTHER_NAMES = ",".join(("other", *truth.NAMES[1:]))
_OTHER_ORDER = ",".join((truth.NAMES[1], truth.NAMES[0], *truth.NAMES[2:]))

#: What every sender's death or silence looks like; a decoder's; *acquire*'s; a clock that was set.
_GONE = ("stalled", "recovering", "gap")
_DECODER = ("restarted", "joined", "lost")
_ACQUIRE = ("restart", "restarted", "gap")
_STEPPED = ("gap", "reconnect", "clock")

_JITTER = _order_and_back({"do": "jitter", "s": 0.004}, {"do": "jitter", "s": 0.0})
_NAN = _order_and_back({"do": "spoil", "how": "nan"}, {"do": "spoil", "how": ""})

FAULTS: tuple[Fault, ...] = (
    Fault("sender killed, back after 2 s", ALL, _sender_killed, _GONE, 2.0),
    Fault("sender paused for 2 s", ALL, _sender_paused, _GONE, 2.0),
    Fault("sender hangs for 1 s, then sends all", ALL, _order(do="hold", s=1.0), ("stalled", "late"), 1.5),
    Fault("1 s of samples lost upstream", ALL, _order(do="drop", n=250), ("gap",)),
    Fault("10 samples lost upstream", ALL, _order(do="drop", n=10), ("gap",)),
    Fault("stamps jitter by 4 ms", ("lsl", "zmq"), _JITTER, (), 5.0),
    Fault("sender's clock steps forward by 2 s", ("lsl", "zmq"), _order(do="skew", s=2.0), _STEPPED),
    Fault("sender's clock steps back by 2 s", ("lsl", "zmq"), _order(do="skew", s=0.0), _STEPPED),
    Fault("back with another rate", ALL, _back_as(sfreq=500.0), ("changed",), 3.0),
    Fault("back with another channel name", ALL, _back_as(names=_OTHER_NAMES), ("changed",), 3.0),
    Fault("back with channels in another order", ALL, _back_as(names=_OTHER_ORDER), ("changed",), 3.0),
    Fault("back with another unit", ALL, _back_as(unit="uV"), ("changed",), 3.0),
    Fault("a second sender of the same name", ("lsl",), _second_sender, ("second sender",), 4.0),
    Fault("a channel of NaN", ALL, _NAN, ("artifact",), 1.0),
    Fault("decoder killed", ALL, _signal("witness", signal.SIGKILL), _DECODER),
    Fault("decoder: segmentation fault", ("lsl",), _signal("witness", signal.SIGSEGV), _DECODER),
    Fault("decoder hangs", ("lsl",), _signal("witness", signal.SIGSTOP), _DECODER),
    Fault("acquire killed", ALL, _signal("acquire", signal.SIGKILL), _ACQUIRE, outage="acquire"),
    Fault("acquire hangs", ("lsl",), _signal("acquire", signal.SIGSTOP), _ACQUIRE, outage="acquire"),
    Fault("disk full", ALL, _full_disk, ("recording failed",), 2.0, outage="disk"),
    Fault("a subscriber that never reads", ("lsl",), _slow_subscriber, (), 5.0),
    Fault("every core busy twice over", ALL, _cpu_hog, (), 5.0),
    Fault("garbage on the control socket", ("lsl",), _garbage_on_control, ()),
    Fault("garbage on the sender's port", ("zmq", "fieldtrip"), _garbage_beside, (), 2.0),
)


def faults_over(over: Over, names: tuple[str, ...] = ()) -> list[Fault]:
    """The faults that are tried on a transport; with `names`, those whose name holds one of them."""
    return [
        fault
        for fault in FAULTS
        if over in fault.over and (not names or any(name.lower() in fault.name.lower() for name in names))
    ]


def unknown(names: tuple[str, ...]) -> list[str]:
    """Those of `names` that no fault has."""
    return [name for name in names if not any(name.lower() in fault.name.lower() for fault in FAULTS)]
