"""What every process of the daemon does alike: its log lines, its end, and that it never outlives its supervisor."""

import contextlib
import ctypes
import gc
import logging
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TextIO

import structlog

from rtdecode.daemon.supervised import BEATS, LINE_BYTES, Supervised

#: Set by the supervisor for its children: the parent's process id. Their standard input is then its lifeline.
SUPERVISED = "RTDECODE_SUPERVISED"

#: Threads of the linear algebra, before numpy is imported: live and replay must count the same.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

#: What a terminal sends to the whole group: Ctrl-C, and its own end, unless we were started to survive that (nohup).
GROUP_SIGNALS = [signal.SIGINT]
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
    GROUP_SIGNALS.append(signal.SIGHUP)

#: Longest that a thread with samples in its hands waits for another that runs Python, in seconds; 5 ms unless told.
SWITCH_S = 0.0005

#: Seconds that a process without its supervisor may take to publish what it has.
ORPHAN_GRACE_S = 10.0

_PR_SET_PDEATHSIG = 1


class _LossyLogger(structlog.WriteLogger):
    """Writes lines, and goes without those that cannot be written at once.

    The log may lie on the very disk that is full; its reader may be gone, or read no more (Ctrl-S in a terminal, a
    pager). None of that may end a recording or hold it up.
    """

    lost = 0  # of all loggers: structlog makes one for each who asks

    def msg(self, message: str) -> None:
        if not _takes_a_line(self._file):
            _LossyLogger.lost += 1
            return
        if _LossyLogger.lost:
            message = f"({_LossyLogger.lost} lines before this one were not read in time, and are lost) {message}"
            _LossyLogger.lost = 0
        with contextlib.suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def _takes_a_line(file: TextIO) -> bool:
    """Whether a line can be written without waiting for somebody to read."""
    if not hasattr(select, "poll"):  # Windows
        return True
    try:
        number = file.fileno()
    except (OSError, ValueError):  # no file of the system's, or closed
        return True
    poller = select.poll()
    poller.register(number, select.POLLOUT)
    return bool(poller.poll(0))


def configure_logging(**names: str) -> None:
    """Human-readable lines on standard error, each with the process's (and pipeline's) name."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: _LossyLogger(sys.stderr),
    )
    structlog.contextvars.bind_contextvars(**names)


def announce(line: str) -> None:
    """Write a line to standard output, where a supervisor or a script waits for it."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def settle() -> None:
    """All is loaded, and time counts from now on: what is there is no garbage, and threads take turns more often."""
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_S)


class Stop:
    """A request to end: from a signal, the control socket, or a supervisor that is gone.

    `socket` becomes readable with the first request, so that a poll over sockets wakes up for it.

    Parameters
    ----------
    supervised : Supervised, optional
        What the process says to its supervisor, where it has one.
    """

    def __init__(self, supervised: Supervised | None = None) -> None:
        self.reason = ""
        self.supervised = supervised or Supervised()
        #: Whether to end. A plain flag, and no `threading.Event`: a signal may interrupt the very thread that waits for
        #: it, and then find its lock taken.
        self.requested = False
        self.socket, self._waker = socket.socketpair()
        self._waker.setblocking(False)

    def request(self, reason: str) -> None:
        """Ask for the end; the first reason is kept."""
        if not self.requested:
            self.reason = reason
            self.requested = True
            # A socket that is closed by now means that the end is under way.
            with contextlib.suppress(OSError):
                self._waker.send(b".")

    def wait(self, timeout: float) -> bool:
        """Wait for a request, `timeout` seconds at most; whether there is one."""
        return self.requested or bool(select.select([self.socket], [], [], timeout)[0])

    def close(self) -> None:
        """Let go of the sockets."""
        self.socket.close()
        self._waker.close()


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """A `Stop` that SIGTERM requests, and SIGINT where no supervisor forwards it; and the supervisor's death."""
    supervised = os.environ.get(SUPERVISED)
    stop = Stop(Supervised(beats=bool(supervised and os.environ.get(BEATS))))

    def handler(number: int, _frame: FrameType | None) -> None:
        stop.request(signal.Signals(number).name)

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, handler)}
    # Ctrl-C and a terminal that closes reach the whole group at once; the supervisor then ends its children in order.
    for number in GROUP_SIGNALS:
        before[number] = signal.signal(number, signal.SIG_IGN if supervised else handler)
    if supervised:
        follow_parent(int(supervised), lambda: stop.request("the supervisor is gone"), stop.supervised.hear)
    try:
        yield stop
    finally:
        for number, old in before.items():
            signal.signal(number, old)
        stop.close()


def follow_parent(
    parent: int, on_gone: Callable[[], None], on_line: Callable[[bytes], None], grace_s: float = ORPHAN_GRACE_S
) -> None:
    """Call `on_gone` when the supervisor dies, and leave for good `grace_s` seconds later.

    The supervisor holds the other end of our standard input, which every system closes with it, however it dies. On
    Linux the kernel also sends SIGCONT: a process that was stopped would never see that end. (`guard` ends those that
    neither reaches.)

    Parameters
    ----------
    parent : int
        The supervisor's process id.
    on_gone, on_line : callable
        Called by a thread: at its end, and with each line that it writes before.
    grace_s : float
        Seconds.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)
        if os.getppid() != parent:  # it died before the line above
            on_gone()

    def watch() -> None:
        rest = b""
        while data := os.read(0, LINE_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                on_line(line)
        on_gone()
        threading.Event().wait(grace_s)
        os._exit(8)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
