"""Real-time settings of a process: scheduling, memory locking, CPU affinity, timer slack. Linux alone has them all.

They are applied before a process starts its threads, which inherit them: liblsl's, ZeroMQ's and the inference runtime's
too. What is not permitted is said once in a session, with what to grant, and the session goes on without; except where
the configuration requires it.

Sources: sched(7), mlockall(2), PR_SET_TIMERSLACK in prctl(2), getrlimit(2), capabilities(7).
"""

import ctypes
import os
import sys
from pathlib import Path

import structlog

from rtdecode.config import Config
from rtdecode.config.sections import ProcessRealtime
from rtdecode.daemon.supervised import News, Supervised
from rtdecode.errors import ConfigError

_PR_SET_TIMERSLACK = 29
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CAP_IPC_LOCK = 14

#: Nanoseconds by which the kernel may delay a wake-up of an ordinary thread; 50,000 unless told.
TIMER_SLACK_NS = 1


def apply(config: Config, process: str, supervised: Supervised) -> None:
    """Apply the ``[realtime]`` section to this process. Call it before other threads are started.

    Parameters
    ----------
    config : Config
        The whole configuration.
    process : str
        ``acquire`` or ``decode``.
    supervised : Supervised
        Where refusals are said.

    Raises
    ------
    ConfigError
        Something is refused, and ``policy`` is ``require``.
    """
    asked = config.realtime
    if asked.policy == "off":
        return
    wanted: ProcessRealtime = asked.acquire if process == "acquire" else asked.decode
    # A recording is read as fast as it is asked for; at real-time priority it could keep a core from everybody else.
    refusals = refused(wanted, scheduled=not (process == "acquire" and config.paced))
    if refusals and asked.policy == "require":
        raise ConfigError(f"realtime.policy is 'require', and {'; '.join(refusals)}")
    for text in refusals:
        news = News(event="realtime refused", text=f"{text}; going on without")
        if not supervised.refused(news):
            structlog.get_logger().warning(news.text, about=news.event)
            supervised.publish(news)


def refused(wanted: ProcessRealtime, *, scheduled: bool) -> list[str]:
    """Apply `wanted` to this process, and give what was refused: a sentence each, with what to grant.

    Parameters
    ----------
    wanted : ProcessRealtime
    scheduled : bool
        Whether the priority is applied too.
    """
    if sys.platform != "linux":
        asked = wanted.cpus or wanted.lock_memory or (scheduled and wanted.priority)
        return ["real-time settings are for Linux alone"] if asked else []
    found = [
        _affinity(wanted.cpus) if wanted.cpus else "",
        _schedule(wanted.priority) if scheduled and wanted.priority else "",
        _lock_memory() if wanted.lock_memory else "",
    ]
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(TIMER_SLACK_NS), 0, 0, 0)  # always permitted
    return [text for text in found if text]


if sys.platform == "linux":

    def _affinity(cpus: tuple[int, ...]) -> str:
        allowed = os.sched_getaffinity(0)
        if not set(cpus) <= allowed:
            return (
                f"CPU affinity {sorted(cpus)} is not to be had: this process may run on {sorted(allowed)}; "
                "see AllowedCPUs= and CPUAffinity= of the service"
            )
        os.sched_setaffinity(0, cpus)
        return ""

    def _schedule(priority: int) -> str:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
        except OSError as error:
            return (
                f"real-time scheduling (SCHED_FIFO, priority {priority}) is refused ({error.strerror}); grant "
                f"LimitRTPRIO={priority} to the service, 'rtprio {priority}' in /etc/security/limits.conf, or "
                "CAP_SYS_NICE"
            )
        return ""

    def _lock_memory() -> str:
        # Under a finite limit the lock might succeed now, and a later allocation fail for it: rather none than that.
        import resource

        limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
        why = f"the limit is {limit / 1e6:.3g} MB"
        if limit == resource.RLIM_INFINITY or _has_capability(_CAP_IPC_LOCK):
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0:
                return ""
            why = os.strerror(ctypes.get_errno())
        return (
            f"memory locking is refused ({why}); grant LimitMEMLOCK=infinity to the service, 'memlock unlimited' in "
            "/etc/security/limits.conf, or CAP_IPC_LOCK"
        )


def _has_capability(number: int) -> bool:
    """Whether a capability is effective in this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False
