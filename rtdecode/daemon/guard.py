"""The last resort against orphans: a small process that outlives a killed supervisor, and then ends what is left.

Children end by themselves when their standard input closes. One that hangs with the interpreter's lock in its hands
cannot, nor can one that somebody has stopped again. The guard holds a pidfd of each child, so that it can never hit
another process that was given the same number. Linux alone has those; elsewhere there is no guard.

Run as a script without site-packages: it imports nothing but the standard library, and takes no time to start.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

#: Seconds after the supervisor's end: more than its children allow themselves.
GUARD_S = 12.0

_PR_SET_PDEATHSIG = 1


class Guard:
    """The supervisor's end of it.

    Parameters
    ----------
    after_s : float
        What children may take to end by themselves, in seconds.
    """

    def __init__(self, after_s: float = GUARD_S) -> None:
        self._after_s = after_s
        self._process: subprocess.Popen[bytes] | None = None
        self._pids: list[int] = []

    def watch(self, pid: int) -> None:
        """End `pid` when this process is gone and it is not."""
        self._pids.append(pid)
        self._tell(pid)

    def forget(self, pid: int) -> None:
        """It has ended."""
        if pid in self._pids:
            self._pids.remove(pid)

    def revive(self) -> None:
        """Start it where it does not run; somebody may have killed it."""
        if not hasattr(os, "pidfd_open") or (self._process is not None and self._process.poll() is None):
            return
        self._release()
        # In a session of its own: what a terminal sends to the group is not for it.
        command = [sys.executable, "-I", "-S", __file__, str(self._after_s)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )
        for pid in self._pids:
            self._tell(pid)

    def close(self) -> None:
        """No child is left, and nothing to guard."""
        self._release()

    def _tell(self, pid: int) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it is gone, and `revive` will see that
                os.write(self._process.stdin.fileno(), b"%d\n" % pid)

    def _release(self) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()  # nothing is left for it to do, and one that somebody has stopped would not end by itself
        self._process.wait()
        self._process = None


def main() -> None:
    """Read process ids until standard input closes; then end what is left of them."""
    if sys.platform == "linux":  # one that is stopped would not see its standard input close
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)
    held: dict[int, int] = {}
    for line in sys.stdin.buffer:
        for pid in [pid for pid, handle in held.items() if _ended(handle, 0.0)]:
            os.close(held.pop(pid))
        with contextlib.suppress(OSError, ValueError):  # ended already, or a kernel without pidfds
            held[int(line)] = os.pidfd_open(int(line))
    deadline = time.monotonic() + float(sys.argv[1])
    for handle in held.values():
        if not _ended(handle, max(0.0, deadline - time.monotonic())):
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)


def _ended(handle: int, timeout: float) -> bool:
    """Whether the process of a pidfd ends within `timeout` seconds: it is readable from then on."""
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    return bool(poller.poll(timeout * 1000))


if __name__ == "__main__":
    main()
