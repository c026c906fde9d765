"""Whether a process can do what it is given: predicted before it begins, from what this machine takes for it.

Each pipeline is rehearsed: its decoder, on noise, in chunks as amplifiers send them, timed by the CPU time of the
thread, which a busy machine does not lengthen as it does the clock's. Before each chunk the caches are filled with
something else, as other pipelines and processes do before its turn comes again. What is not in the decoder (the way of
a chunk and of a message through *decode*) is added from measurements (docs/scale.md).

    load of a pipeline = windows/s * (encoder, heads, message) + chunks/s * (chunk, conditioning)

The load of a process is the sum of its pipelines'; more than a share of one core is more than it can do in time, since
one thread does it all, and a window that waits for others is late.
"""

import math
import os
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rtdecode.config import Config, PipelineConfig
from rtdecode.config.processes import layout
from rtdecode.daemon.grid import due_grid
from rtdecode.daemon.model import Opened, make_decoder
from rtdecode.errors import AdmissionError
from rtdecode.result import Task
from rtdecode.signal import Chunk, StreamInfo
from rtdecode.stream.window import Sliding

#: Chunks per second of a stream, as amplifiers send them.
CHUNK_RATE = 50.0

#: Seconds that *decode* takes for a chunk and for a message, beyond what is rehearsed; and *acquire* for a chunk.
CHUNK_S, MESSAGE_S, ACQUIRE_S = 120e-6, 300e-6, 200e-6

#: Share of one core that a process may be given, and of all cores that all processes may.
CORE, CORES = 0.85, 0.95

#: What is written over before each chunk of a rehearsal: more than the caches that a core has for itself, in bytes.
ELSEWHERE = 16_000_000

#: A rehearsal ends after so many windows, or so many seconds of CPU time.
WINDOWS, LONGEST_S = 5, 0.5

Policy = Literal["refuse", "warn", "off"]


@dataclass(frozen=True, slots=True)
class Load:
    """What a pipeline takes of one core.

    Parameters
    ----------
    rate : float
        Sliding windows per second; those locked to markers come when they come, and are not counted.
    window_s : float
        For each window: encoder, heads, message.
    stream_s : float
        For each second of the stream.
    """

    rate: float
    window_s: float
    stream_s: float

    @property
    def cores(self) -> float:
        """Of one core."""
        return self.rate * self.window_s + self.stream_s

    def __str__(self) -> str:
        windows = f"{self.rate:.4g} windows/s of {1e3 * self.window_s:.3g} ms"
        return f"{self.cores:.3g} of a core: {windows}, and {1e3 * self.stream_s:.3g} ms for each second of the stream"


def rehearse(opened: Opened, pipeline: PipelineConfig, info: StreamInfo, *, together: bool = False) -> Load:
    """Measure a pipeline on this machine; its engine is as new afterwards.

    Parameters
    ----------
    opened : Opened
        Its bundle.
    pipeline : PipelineConfig
    info : StreamInfo
        The stream.
    together : bool
        Samples come up to those at which a window is due together, as from an *acquire* that has several sources.

    Raises
    ------
    ContractError
        The stream is not what the bundle decodes.
    """
    decoder = make_decoder(opened, None, pipeline, info)
    rate = sum(1 / window.hop for window in decoder.windows if isinstance(window, Sliding))
    n = (due_grid(decoder, pipeline)[0] if together else 0) or max(1, round(info.sfreq / CHUNK_RATE))
    noise = np.random.default_rng(0).standard_normal((n, len(info.channels)))
    samples = (noise * 1e-5).astype(np.float32)
    period = 1 / info.sfreq
    stream: list[float] = []
    windows: list[float] = []
    elsewhere = np.zeros(ELSEWHERE // 8)
    spent, at = 0.0, 0
    longest = max(window.n_samples(info.sfreq) for window in decoder.windows) if decoder.windows else 0
    while at <= longest or (rate and len(windows) < WINDOWS and spent < LONGEST_S):
        chunk = Chunk(samples, np.arange(at, at + n, dtype=np.float64) * period, at)
        elsewhere += 1.0
        began = time.thread_time()
        found = decoder.advance(chunk, (), math.inf)
        taken = time.thread_time()
        for task in found:
            if isinstance(task, Task):
                decoder.encode(task)
                windows.append(time.thread_time() - taken)
                taken = time.thread_time()
        stream.append((taken - began) - (sum(windows[-len(found) :]) if found else 0.0))
        spent += time.thread_time() - began
        at += len(samples)
    opened.engine.restart(0)
    chunks = info.sfreq / len(samples)
    per_chunk = float(np.mean(stream[len(stream) // 2 :])) + CHUNK_S
    return Load(rate, (float(np.median(windows)) if windows else 0.0) + MESSAGE_S, max(0.0, per_chunk) * chunks)


class Admission:
    """Keeps the account of what the pipelines of one process take.

    Parameters
    ----------
    config : Config
        The whole configuration.
    process : str
        Which process.
    """

    def __init__(self, config: Config, process: str) -> None:
        hosts = layout(config)
        self.policy = policy(config)
        self.limit = limit(config)
        self._process = process
        self._together = len(config.inputs) > 1
        self._n_processes = len(hosts.decode)
        self._loads: dict[str, Load] = {}
        self._rehearsed: dict[tuple[object, ...], Load] = {}

    def known(self, opened: Opened, pipeline: PipelineConfig, info: StreamInfo) -> Load:
        """What a pipeline takes; those that differ in nothing that costs time are rehearsed once."""
        settings = pipeline.model_dump(exclude={"source", "publish"})
        key = (opened.bundle.id, repr(settings), info.channels, info.sfreq)
        if key not in self._rehearsed:
            self._rehearsed[key] = rehearse(opened, pipeline, info, together=self._together)
        return self._rehearsed[key]

    @property
    def cores(self) -> float:
        """What all take together."""
        return sum(load.cores for load in self._loads.values())

    def take(self, name: str, load: Load) -> str:
        """Admit a pipeline, or another bundle for one; what is to be said where it is too much and is let pass.

        Raises
        ------
        AdmissionError
            It is too much, and the policy is to refuse.
        """
        others = sum(one.cores for other, one in self._loads.items() if other != name)
        together = others + load.cores
        text = ""
        if self.policy != "off" and together > self.limit:
            text = self._why(name, load, others)
            if self.policy == "refuse":
                raise AdmissionError(text)
        self._loads[name] = load
        return text

    def _why(self, name: str, load: Load, others: float) -> str:
        n = sum(other != name for other in self._loads)
        beside = f" beside {n} that take {others:.2f}" if n else ""
        fit = f"; {int(self.limit / load.cores)} of its kind would fit" if n else ""
        return (
            f"pipeline {name!r} is predicted to take {load}{beside}; {self.limit:.2f} of a core are to be had for "
            f"process {self._process!r} (one of {self._n_processes}, on {cpus()} CPUs){fit}. Expected fewer pipelines, "
            "a longer hop, a bundle with a cheaper encoder, more processes (`decode` of [processes]) where there are "
            'CPUs for them, or `admission = "warn"` in [processes]'
        )


def policy(config: Config) -> Policy:
    """What is done about too much: the configured policy, else to refuse it where pipelines share a process."""
    return config.processes.admission or ("refuse" if layout(config).shared else "warn")


def limit(config: Config) -> float:
    """Of one core, what each *decode* may be given: one thread's worth, and no more than all CPUs have for all."""
    acquire = len(config.inputs) * CHUNK_RATE * ACQUIRE_S
    n = max(1, len(layout(config).decode))
    return max(0.1, min(CORE, (CORES * cpus() - acquire) / n))


def cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
