"""The systems that are compared: how each is started on a workload, and how one run of one of them is measured.

Every system says READY on its standard output, and notes its results in a file (`peers/common.py`, `subscriber.py`).
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import accounts
import environments
import numpy as np
from numpy.typing import NDArray
from workload import Size, write_spec

HERE = Path(__file__).resolve().parent
RECORD = np.dtype([("stamp", "<f8"), ("at", "<f8"), ("items", "<i4", 5), ("scores", "<f4", 5)])
#: Ours, and how each encodes: while it listens, or whole windows.
OURS = {"rtdecode": "auto", "rtdecode, whole windows": "off"}
#: Seconds for a system to be ready.
READY_S = 60.0


@dataclass(frozen=True, slots=True)
class Started:
    """A system that runs.

    Parameters
    ----------
    pids : tuple of int
        Its processes; their descendants belong to it.
    listeners : tuple of int
        Processes that only take its results.
    out : tuple of Path
        Where the results of each stream are noted.
    """

    pids: tuple[int, ...]
    listeners: tuple[int, ...]
    out: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """What a system is to do: decode these streams, in this folder, with these variables."""

    size: Size
    place: Path
    streams: tuple[str, ...]
    folder: Path
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class System:
    """One way of doing the workload.

    Parameters
    ----------
    name : str
        In results.
    versions : mapping of str to str
        Of what it is made of.
    start : callable
        Starts it on a job, with an exit stack that ends it.
    """

    name: str
    versions: Mapping[str, str]
    start: Callable[[Job, ExitStack], Started]


@dataclass(slots=True)
class Taken:
    """What one run of one system gave."""

    records: list[NDArray[Any]]
    zero: list[float]
    cpu_s: float
    listeners_cpu_s: float
    peak_mib: float
    listeners_peak_mib: float
    sender: dict[str, float] = field(default_factory=dict)
    ledgers: list[NDArray[np.float64]] = field(default_factory=list)


def peer(name: str, program: str, environment: str, more: Mapping[str, Any], env: Mapping[str, str]) -> System:
    """A system that is one program, in an environment of its own; several streams are as many programs."""

    def start(job: Job, stack: ExitStack) -> Started:
        python = environments.python_of(environment)
        children, out = [], []
        for stream in job.streams:
            spec = write_spec(
                job.folder / f"{stream}.json", job.size, job.place, stream, job.folder / f"{stream}.results", more
            )
            command = [str(python), str(HERE / "peers" / program), str(spec)]
            children.append(stack.enter_context(process(command, {**job.env, **env}, job.folder / f"{stream}.log")))
            out.append(job.folder / f"{stream}.results")
        for child in children:
            await_line(child, "READY", READY_S)
        return Started(tuple(child.pid for child in children), (), tuple(out))

    return System(name, environments.versions(environment), start)


def ours(name: str, incremental: str) -> System:
    """rtdecode: a session, and a subscriber to its results in another process.

    `incremental`: as in a configuration: ``auto``, or ``off`` for whole windows.
    """
    bundle = "incremental" if incremental == "auto" else "bundle"
    key = f'incremental = "{incremental}"\n'

    def start(job: Job, stack: ExitStack) -> Started:
        sessions, listeners, out = [], [], []
        for stream in job.streams:
            (job.folder / f"{stream}.toml").write_text(
                f'[session]\nname = "{stream}"\n[source]\nkind = "lsl"\nname = "{stream}"\ntimeout_s = 60\n'
                f'[pipelines.p]\nbundle = "{job.place / bundle}"\npublish = "ipc://{job.folder}/{stream}.out"\n{key}'
            )
            results = job.folder / f"{stream}.results"
            command = [sys.executable, "-m", "rtdecode", "run", str(job.folder / f"{stream}.toml")]
            sessions.append(stack.enter_context(process(command, job.env, job.folder / f"{stream}.log")))
            listen = [sys.executable, str(HERE / "subscriber.py"), f"ipc://{job.folder}/{stream}.out", str(results)]
            listeners.append(stack.enter_context(process(listen, job.env, job.folder / f"{stream}.sub.log")))
            out.append(results)
        for child in [*sessions, *listeners]:
            await_line(child, "READY", READY_S)
        return Started(tuple(child.pid for child in sessions), tuple(child.pid for child in listeners), tuple(out))

    return System(name, {"rtdecode": version("rtdecode")}, start)


#: Name, program, environment and graph rate of each peer, and how long timeflux sleeps between turns at rate 0.
PEERS: tuple[tuple[str, str, str, int | None, float], ...] = (
    ("loop", "pylsl_loop.py", "pylsl", None, 0.0),
    ("ezmsg", "ezmsg_graph.py", "ezmsg", None, 0.0),
    ("mne-lsl", "mne_lsl_stream.py", "mne-lsl", None, 0.0),
    ("timeflux, rate 0", "timeflux_graph.py", "timeflux", 0, 0.0),
    ("timeflux, rate 0, sleep 0.5 ms", "timeflux_graph.py", "timeflux", 0, 5e-4),
    ("timeflux, rate 100", "timeflux_graph.py", "timeflux", 100, 0.0),
)


def systems(only: Sequence[str] | None = None) -> dict[str, System]:
    """All that are compared, by name, or these; the environments of those are made where they are not there."""
    every = {name: ours(name, how) for name, how in OURS.items() if only is None or name in only}
    for name, program, environment, rate, sleep in PEERS:
        if only is None or name in only:
            timeflux = environment == "timeflux"
            more, env = ({"rate": rate}, timeflux_env(sleep)) if timeflux else ({}, {})
            every[name] = peer(name, program, environment, more, env)
    unknown = set(only or ()) - set(every)
    if unknown:
        raise SystemExit(f"no system {', '.join(sorted(unknown))}; known: {', '.join([*OURS, *(p[0] for p in PEERS)])}")
    return every


def timeflux_env(sleep: float) -> dict[str, str]:
    """Where its pylsl finds liblsl and its graph our node; how long a graph of rate 0 sleeps in each turn."""
    return {
        "PYLSL_LIB": str(environments.liblsl()),
        "PYTHONPATH": str(HERE / "peers"),
        "TIMEFLUX_SLEEP": str(sleep),
        "TIMEFLUX_LOG_LEVEL_CONSOLE": "ERROR",
    }


@contextmanager
def process(command: Sequence[str], env: Mapping[str, str], log: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process group of its own, ended by SIGTERM and, where that does not help, killed."""
    with log.open("w") as errors:
        child = subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            cwd=log.parent,
        )
        try:
            yield child
        finally:
            _end(child)


def _end(child: "subprocess.Popen[str]") -> None:
    assert child.stdin is not None
    assert child.stdout is not None
    child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(8)
    for pid in accounts.in_group(child.pid):
        os.kill(pid, signal.SIGKILL)
    child.wait(8)
    child.stdin.close()
    child.stdout.close()


def await_line(child: "subprocess.Popen[str]", begins: str, seconds: float) -> str:
    """The first line of its standard output that begins so; SystemExit with what it said where none comes in time."""
    deadline = time.monotonic() + seconds
    assert child.stdout is not None
    said = ""
    while (left := deadline - time.monotonic()) > 0:
        if (line := _line(child.stdout, left)) is None:
            continue
        if line.startswith(begins):
            return line
        said += line
        if not line:
            break
    raise SystemExit(f"{child.args!r}: no {begins} within {seconds:g} s; it said {said!r}")


def _line(stream: IO[str], seconds: float) -> str | None:
    ready, _, _ = select.select([stream], [], [], seconds)
    return stream.readline() if ready else None


def run(
    system: System,
    size: Size,
    place: Path,
    folder: Path,
    *,
    warmup: float,
    seconds: float,
    streams: int = 1,
) -> Taken:
    """Start a sender and a system, let them run, and take what they noted.

    Parameters
    ----------
    system : System
        What is run.
    size : Size
        The workload's.
    place : Path
        What `workload.make` returned.
    folder : Path
        For the run's files; emptied by whoever gave it.
    warmup, seconds : float
        Left out from the first window on, and measured.
    streams : int
        How many senders' streams it decodes at once.

    Returns
    -------
    Taken
        All results, from the first window on; CPU of the measured seconds.
    """
    with ExitStack() as stack:
        job, sender = sending(size, place, folder, streams, stack)
        started = system.start(job, stack)
        assert sender.stdin is not None
        assert sender.stdout is not None
        time.sleep(0.5)  # subscriptions take effect
        sender.stdin.write("go\n")
        sender.stdin.flush()
        zero = json.loads(await_line(sender, "[", 30))
        time.sleep(size.length + warmup)
        before = _costs(started)
        time.sleep(seconds)
        after = _costs(started)
        time.sleep(0.3)
        peaks = [accounts.peak_mib(accounts.family(pids)) for pids in (started.pids, started.listeners)]
        sender.stdin.close()
        late = json.loads(await_line(sender, "{", 30))
        records = [_records(path) for path in started.out]
        ledgers = [_ledger(path.with_suffix(".ledger")) for path in started.out]
    return Taken(records, zero, after[0] - before[0], after[1] - before[1], peaks[0], peaks[1], late, ledgers)


def sending(
    size: Size, place: Path, folder: Path, streams: int, stack: ExitStack
) -> tuple[Job, "subprocess.Popen[str]"]:
    """Start a sender that waits for a line to begin; it, and what a system is to do with its streams."""
    config = folder / "lsl_api.cfg"
    config.write_text(
        "[ports]\nIPv6 = disable\nPortRange = 512\n[multicast]\nResolveScope = machine\nListenAddress = 127.0.0.1\n"
        f"[lab]\nKnownPeers = {{127.0.0.1}}\nSessionID = bench-{uuid.uuid4().hex}\n[log]\nlevel = -2\n"
    )
    names = tuple(f"stream{n}" for n in range(streams))
    env = {
        **os.environ,
        "LSLAPICFG": str(config),
        "XDG_RUNTIME_DIR": str(folder),
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
    }
    spec = folder / "sender.json"
    spec.write_text(
        json.dumps(
            {
                "streams": names,
                "labels": size.labels,
                "kind": size.kind,
                "unit": size.unit,
                "sfreq": size.sfreq,
                "chunk": size.chunk,
                "spread": size.hop if streams > 1 else size.chunk / size.sfreq,
                "signal": str(place / "signal.npy"),
            }
        )
    )
    send = [sys.executable, str(HERE / "lsl_sender.py"), str(spec)]
    sender = stack.enter_context(process(send, env, folder / "sender.log"))
    await_line(sender, "up", 30)
    return Job(size, place, names, folder, env), sender


def _costs(started: Started) -> tuple[float, float]:
    return (
        accounts.cpu_seconds(accounts.family(started.pids)),
        accounts.cpu_seconds(accounts.family(started.listeners)),
    )


def _records(path: Path) -> NDArray[Any]:
    if not path.exists():
        return np.empty(0, RECORD)
    data = path.read_bytes()
    return np.frombuffer(data[: len(data) // RECORD.itemsize * RECORD.itemsize], RECORD)


def _ledger(path: Path) -> NDArray[np.float64]:
    """Rows of stamp, arrived, received, due, encoded, published and in hand; none of a peer."""
    if not path.exists():
        return np.empty((0, 7))
    data = path.read_bytes()
    return np.frombuffer(data[: len(data) // 56 * 56]).reshape(-1, 7)
