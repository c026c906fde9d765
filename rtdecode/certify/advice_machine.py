"""What to change about the machine itself: its governor, its swap, its other programs, what it refuses us."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rtdecode.certify.session import Measured

#: Cores that other programs may use before it is said.
_NEARBY_CORES = 0.2

#: Cores that the kernel may use for us without saying so.
_KERNEL_CORES = 0.3


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to change.

    Parameters
    ----------
    rule : str
        Which rule says so.
    pipeline : str
        Of whom; empty where it is of the machine.
    figure : str
        What was measured.
    change : str
        What to change.
    gain : str
        What that gains at most.
    gain_ms : float or None
        The same in milliseconds of the median, where it is known.
    """

    rule: str
    pipeline: str
    figure: str
    change: str
    gain: str
    gain_ms: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For the certificate."""
        return asdict(self)


def machine_advice(measured: Measured) -> Iterator[Advice]:
    """What of the machine, whoever decodes on it."""
    machine, kernel = measured.machine, measured.kernel
    seconds = kernel.get("seconds") or 1.0
    governor, mhz, most = machine.get("governor"), kernel.get("mhz"), machine.get("max_mhz")
    if governor and governor != "performance":
        slow = f"the cores ran at {mhz:.0f} of {most:.0f} MHz" if mhz and most else "how fast is not told here"
        gain = f"up to {100 * (1 - mhz / most):.0f} % of all that is computed" if mhz and most else "not known here"
        yield Advice(
            "governor", "", f"the CPU governor is {governor}; {slow}", "cpupower frequency-set -g performance", gain
        )
    if kernel.get("swapped_pages"):
        yield Advice(
            "swap",
            "",
            f"{kernel['swapped_pages']} pages went to the swap and back while we measured",
            "swapoff -a, more memory, or lock_memory = true in [realtime.decode] too",
            "a page that is read from disk costs 0.1 to 10 ms, in the tail",
        )
    if kernel.get("throttled_s"):
        yield Advice(
            "quota",
            "",
            f"the CPU quota of this service or container kept us waiting for {kernel['throttled_s']:.2f} s",
            "no CPUQuota= for the service, no --cpus for the container",
            f"{kernel['throttled_s']:.2f} s of {seconds:.0f} s",
        )
    if kernel.get("steal_s", 0.0) > 0.01 * seconds:
        yield Advice(
            "steal",
            "",
            f"this machine's host kept {kernel['steal_s']:.2f} CPU seconds from it in {seconds:.0f} s",
            "cores of its own for the virtual machine, or no virtual machine",
            "the longest waits of the tail",
        )
    nearby, before = kernel.get("others_cores", 0.0), measured.before.get("others_cores", 0.0)
    ours = sum(one.get("cpu_s", 0.0) for one in kernel.get("processes", {}).values()) / seconds
    # While we run, the kernel's own work for our sockets is nobody's, and looks like another program's.
    if before > _NEARBY_CORES or nearby > max(_NEARBY_CORES + _KERNEL_CORES, 2 * ours):
        yield Advice(
            "nearby",
            "",
            f"other programs used {nearby:.2f} cores while we measured, and {before:.2f} before we began",
            "end them, or give the daemon cores of its own: cpus in [realtime.acquire] and [realtime.decode]",
            "what processes waited for a core (see cores), most of it in the tail",
        )
    yield from _refused(measured)
    yield from _deep_sleep(measured)


def _refused(measured: Measured) -> Iterator[Advice]:
    said = dict.fromkeys(event.text for event in measured.events if event.event == "realtime refused")
    for text in said:
        waited = measured.kernel.get("processes", {}).get("acquire", {}).get("waited_s", 0.0)
        yield Advice(
            f"realtime {'scheduling' if 'scheduling' in text else 'memory' if 'memory' in text else 'cpus'}",
            "",
            f"{text.removesuffix('; going on without')}; acquire waited {waited * 1e3:.1f} ms in all for a core",
            "grant it as said (docs/daemon.md, Real-time settings)",
            f"up to these {waited * 1e3:.1f} ms" if "scheduling" in text else "no pages read from disk in the tail",
        )


def _deep_sleep(measured: Measured) -> Iterator[Advice]:
    exit_us = measured.machine.get("idle_exit_us")
    if exit_us and exit_us >= 100:
        yield Advice(
            "sleep",
            "",
            f"idle cores may take {exit_us:.0f} us to wake, and a window wakes three processes",
            "cpupower idle-set -D 50, or /dev/cpu_dma_latency held at 0 while a session runs",
            f"up to {3 * exit_us / 1e3:.2f} ms",
            None,
        )
