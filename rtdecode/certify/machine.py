"""What the machine is, and what its kernel counted while we measured. Linux tells most; other systems little."""

import os
import platform
import sys
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

#: Packages whose versions the certificate names.
PACKAGES = ("rtdecode", "numpy", "scipy", "onnxruntime", "onnxruntime-gpu", "openvino", "pyzmq", "pylsl", "msgspec")

_CPU = Path("/sys/devices/system/cpu")


def describe() -> dict[str, Any]:
    """The machine: CPU, cores, governor, kernel, swap, limits, versions."""
    return {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "kernel": platform.version(),
        "preempt": _preemption(),
        "architecture": platform.machine(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "virtual": "hypervisor" in _cpu_line("flags").split(),
        "governor": _one_of(_CPU.glob("cpu[0-9]*/cpufreq/scaling_governor")),
        "max_mhz": _number(_CPU / "cpu0/cpufreq/cpuinfo_max_freq", 1e-3),
        "idle_exit_us": _idle_exit_us(),
        "memory_gb": _kilobytes("MemTotal") / 1e6,
        "swap_gb": _kilobytes("SwapTotal") / 1e6,
        "limits": _limits(),
        "python": platform.python_version(),
        "packages": _versions(),
    }


@dataclass(frozen=True, slots=True)
class Counters:
    """What the kernel has counted up to a moment; differences of two are what is told.

    Parameters
    ----------
    busy_s, steal_s : float
        CPU seconds of everybody on this machine; seconds that its host kept from it.
    swapped : int
        Pages swapped in and out.
    throttled_s : float
        Seconds for which our group's CPU quota was used up.
    processes : dict of str to dict
        Of each process of ours: ``cpu_s``, ``waited_s`` (ready to run, and not running), ``switched`` (taken off its
        core), ``faults`` (pages read from disk).
    mhz : float or None
        Clock of the cores now, on average.
    """

    busy_s: float = 0.0
    steal_s: float = 0.0
    swapped: int = 0
    throttled_s: float = 0.0
    processes: dict[str, dict[str, float]] = field(default_factory=dict)
    mhz: float | None = None


def counters(pids: dict[str, int]) -> Counters:
    """Read them all; `pids` are the processes of ours, by name."""
    if sys.platform != "linux":
        return Counters()
    tick = os.sysconf("SC_CLK_TCK")
    user, nice, system, _idle, _wait, irq, soft, steal = map(int, _words("/proc/stat")[1:9])
    swapped = sum(int(line.split()[1]) for line in _lines("/proc/vmstat") if line.startswith(("pswpin ", "pswpout ")))
    throttled = [int(line.split()[1]) for line in _lines(_own_group()) if line.startswith("throttled_usec ")]
    clocks = [found for one in _CPU.glob("cpu[0-9]*/cpufreq/scaling_cur_freq") if (found := _number(one, 1e-3))]
    return Counters(
        busy_s=(user + nice + system + irq + soft) / tick,
        steal_s=steal / tick,
        swapped=swapped,
        throttled_s=sum(throttled) / 1e6,
        processes={name: _process(pid, tick) for name, pid in pids.items()},
        mhz=sum(clocks) / len(clocks) if clocks else None,
    )


def difference(before: Counters, after: Counters, seconds: float) -> dict[str, Any]:
    """What was counted from one reading to the other, `seconds` apart.

    ``others_cores`` is what everybody but the named processes used, in cores.
    """
    ours: dict[str, dict[str, float]] = {}
    for name, now in after.processes.items():
        then = before.processes.get(name, {})
        ours[name] = {key: max(0.0, now[key] - then.get(key, 0.0)) for key in now}
    busy = after.busy_s - before.busy_s
    mhz = [one for one in (before.mhz, after.mhz) if one is not None]
    return {
        "seconds": seconds,
        "cpu_s": busy,
        "others_cores": max(0.0, busy - sum(one.get("cpu_s", 0.0) for one in ours.values())) / seconds,
        "steal_s": after.steal_s - before.steal_s,
        "swapped_pages": after.swapped - before.swapped,
        "throttled_s": after.throttled_s - before.throttled_s,
        "mhz": sum(mhz) / len(mhz) if mhz else None,
        "processes": ours,
    }


def usable_cores() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def available_gb() -> float:
    """Memory that is to be had without swapping; infinite where the system does not say."""
    found = _kilobytes("MemAvailable")
    return found / 1e6 if found else float("inf")


def _process(pid: int, tick: int) -> dict[str, float]:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return {}
    tasks = list(Path(f"/proc/{pid}/task").glob("*"))
    waited = switched = 0
    for task in tasks:
        words = _words(task / "schedstat")
        waited += int(words[1]) if len(words) > 1 else 0
        switched += sum(int(line.split()[1]) for line in _lines(task / "status") if line.startswith("nonvoluntary_"))
    return {
        "cpu_s": (int(stat[11]) + int(stat[12])) / tick,
        "waited_s": waited / 1e9,
        "switched": float(switched),
        "faults": float(stat[9]),
    }


def _preemption() -> str:
    if _words("/sys/kernel/realtime") == ["1"] or "PREEMPT_RT" in platform.version():
        return "PREEMPT_RT"
    return next((word for word in platform.version().split() if word.startswith("PREEMPT")), "unknown")


def _cpu_model() -> str:
    return _cpu_line("model name") or platform.processor() or "unknown"


def _cpu_line(key: str) -> str:
    return next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith(key)), "")


def _idle_exit_us() -> float | None:
    """Longest time that a core may take to wake from its deepest sleep that is not forbidden."""
    states = list(_CPU.glob("cpu0/cpuidle/state*"))
    found = [_number(one / "latency", 1.0) for one in states if _words(one / "disable") != ["1"]]
    return max((one for one in found if one is not None), default=None)


def _limits() -> dict[str, str]:
    if sys.platform == "win32":
        return {}
    import resource

    kinds = {"rtprio": "RLIMIT_RTPRIO", "memlock": "RLIMIT_MEMLOCK", "nofile": "RLIMIT_NOFILE"}
    found = {}
    for name, kind in kinds.items():
        if hasattr(resource, kind):
            soft = resource.getrlimit(getattr(resource, kind))[0]
            found[name] = "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
    return found


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _own_group() -> Path:
    """Where the kernel counts what our group of processes was kept from."""
    path = next((line.rpartition("::")[2] for line in _lines("/proc/self/cgroup") if "::" in line), "/")
    return Path("/sys/fs/cgroup") / path.lstrip("/") / "cpu.stat"


def _one_of(paths: Any) -> str | None:
    """What all files say, or all that they say; None where there are none."""
    found = sorted({" ".join(_words(path)) for path in paths})
    return ", ".join(found) or None


def _kilobytes(key: str) -> float:
    return next((float(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith(f"{key}:")), 0.0)


def _number(path: Path, scale: float) -> float | None:
    words = _words(path)
    return float(words[0]) * scale if words else None


def _words(path: Path | str) -> list[str]:
    return " ".join(_lines(path)[:1]).split()


def _lines(path: Path | str) -> list[str]:
    """A small file of the kernel's; nothing where this kernel has none."""
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
