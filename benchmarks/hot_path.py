"""Which stage costs what: CPU time of *acquire*'s and *decode*'s own threads, per chunk, stage by stage, at work.

Sender, *acquire*, *decode* and a subscriber run as they do in a session, each a process of its own. In *acquire* and
*decode* the functions of each stage are wrapped by a clock that counts the thread's CPU time, less that of the stages
within; what the wrapping itself costs is measured and taken off. Prints a table in Markdown; `--json` for the figures.

    python benchmarks/hot_path.py --seconds 20
    python benchmarks/hot_path.py --seconds 20 --channels 64 --sfreq 250 --chunk 5 --length 1 --hop 0.1
"""

import argparse
import functools
import importlib
import json
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from overhead import Workload, add_workload, prepare, workload

from rtdecode.daemon.process import ONE_THREAD
from rtdecode.wire.subscriber import Subscriber

#: Stage, and what belongs to it: module, and class and function or function. What a stage calls of another is that
#: other's; the last row is the rest of the loop.
STAGES: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    "acquire": [
        ("pull from liblsl", ("rtdecode.sources.lsl_streams:Puller.pull",)),
        ("scale to SI", ("rtdecode.sources.lsl:to_si",)),
        ("clock", ("rtdecode.clock.stream_clock:StreamClock.stamped",)),
        ("source: the rest", ("rtdecode.sources.lsl:LslSource.read",)),
        ("state of the source", ("rtdecode.daemon.account:SourceAccount.took",)),
        ("reader: the rest", ("rtdecode.daemon.reader:Reader.read",)),
        ("frames for the bus", ("rtdecode.daemon.bus:samples_frames",)),
        ("publish on the bus", ("rtdecode.daemon.reader:Reader._send",)),
        ("log", ("rtdecode.daemon.log:ReplayLog.append",)),
        ("attend to the supervisor", ("rtdecode.daemon.acquire:Acquire._attend",)),
        ("loop", ("rtdecode.daemon.acquire:Acquire._read",)),
    ],
    "decode": [
        ("wait for the bus", ("zmq.sugar.poll:Poller.poll",)),
        ("take from the bus", ("rtdecode.daemon.inbox:Inbox._receive",)),
        ("whose turn it is", ("rtdecode.daemon.decode:Decode._turn", "rtdecode.daemon.decode:Decode._look_at_clocks")),
        ("order of entries", ("rtdecode.daemon.pipeline:Pipeline.turn",)),
        ("read the message", ("rtdecode.daemon.bus:read_samples",)),
        ("feed and its account", ("rtdecode.daemon.feed:Feed.take", "rtdecode.daemon.progress:Account.take")),
        ("order and times", ("rtdecode.decoder:Decoder.advance", "rtdecode.stream.arrivals:Arrivals.put")),
        ("finite, interpolated", ("rtdecode.stream.front:Front.push",)),
        ("conditioning", ("rtdecode.stream.condition:Conditioner.push",)),
        ("rings, quality", ("rtdecode.stream.segment:Segment.append",)),
        ("windows that are due", ("rtdecode.stream.intake:Intake._cut", "rtdecode.stream.segment:Segment.due")),
        ("encoder", ("rtdecode.encode.window_engine:WindowEngine.finish",)),
        ("window steps, heads", ("rtdecode.decoder:Decoder.encode",)),
        ("message", ("rtdecode.wire.results:ResultWriter.write",)),
        ("publish", ("rtdecode.wire.publisher:Publisher.send",)),
        ("settle the account", ("rtdecode.daemon.output:Output.publish", "rtdecode.daemon.progress:Account.settle")),
        ("progress file", ("rtdecode.daemon.progress:ProgressFile.save",)),
        ("subscribers, questions", ("rtdecode.wire.publisher:Publisher.service", "rtdecode.daemon.rpc:Server.receive")),
        ("rehearsal", ("rtdecode.daemon.pipeline:Pipeline.rehearse",)),
        ("what was put off", ("rtdecode.daemon.pipeline:Pipeline.catch_up",)),
        ("attend to the supervisor", ("rtdecode.daemon.decode:Decode._attend",)),
        ("loop", ("rtdecode.daemon.decode:Decode._loop",)),
    ],
}


class Stopwatch:
    """CPU time of one thread, by stage."""

    def __init__(self) -> None:
        self.spent: dict[str, int] = {}
        self.calls: dict[str, int] = {}
        self._inside: list[int] = []  # of each stage that is open: what the stages within took
        self._thread: int | None = None

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, watched; in the thread that calls it first alone."""
        self.spent.setdefault(stage, 0)
        self.calls.setdefault(stage, 0)

        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != self._thread:
                if self._thread is not None or stage != "loop":
                    return function(*args, **kwargs)
                self._thread = threading.get_ident()
            self._inside.append(0)
            began = time.thread_time_ns()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.thread_time_ns() - began
                self.spent[stage] += took - self._inside.pop()
                self.calls[stage] += 1
                if self._inside:
                    self._inside[-1] += took

        return watched

    def cost_ns(self) -> tuple[float, float]:
        """What watching one call adds to its own stage, and to the one around it."""
        other, n = Stopwatch(), 20_000
        outer = other.wrap("loop", lambda: [inner() for _ in range(n)])
        inner = other.wrap("inner", lambda: None)
        outer()
        plain = time.thread_time_ns()
        for _ in range(n):
            (lambda: None)()
        plain = time.thread_time_ns() - plain
        return (other.spent["inner"] - plain) / n, other.spent["loop"] / n


def child(process: str, out: str, arguments: list[str]) -> None:
    """Run one process of a session with its stages watched, and write down what they took."""
    watch = Stopwatch()
    for stage, targets in STAGES[process]:
        for target in targets:
            module, _, path = target.partition(":")
            owner: Any = importlib.import_module(module)
            *around, name = path.split(".")
            for one in around:
                owner = getattr(owner, one)
            setattr(owner, name, watch.wrap(stage, getattr(owner, name)))
    marks: list[dict[str, Any]] = []

    def mark(*_: object) -> None:
        ours = {one.native_id: one.name for one in threading.enumerate()}
        threads: dict[str, int] = {}
        for task in Path("/proc/self/task").iterdir():
            name = ours.get(int(task.name)) or f"native: {(task / 'comm').read_text().strip()}"
            threads[name] = threads.get(name, 0) + int((task / "schedstat").read_text().split()[0])
        marks.append({"spent": dict(watch.spent), "calls": dict(watch.calls), "threads": threads})

    signal.signal(signal.SIGUSR1, mark)
    sys.argv = ["rtdecode", *arguments]
    try:
        runpy.run_module("rtdecode", run_name="__main__")
    finally:
        Path(out).write_text(json.dumps({"marks": marks, "cost": watch.cost_ns()}))


def watched_processes(config: Path, folder: Path, env: dict[str, str]) -> "dict[str, subprocess.Popen[str]]":
    """*acquire* and the *decode* of pipeline ``p``, each watching itself."""
    children = {}
    env = env | ONE_THREAD  # numpy is loaded here before `rtdecode` could say so
    for process, extra in (("acquire", []), ("decode", ["p"])):
        command = [sys.executable, __file__, "--child", process, str(folder / f"{process}.json"), process]
        command += [str(config), *extra]
        children[process] = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    return children


def wait_for(children: "dict[str, subprocess.Popen[str]]") -> None:
    """Wait until all are ready."""
    for one in children.values():
        assert one.stdout is not None
        if not one.stdout.readline().startswith("READY"):
            raise SystemExit("the session did not start")


def mark(children: "dict[str, subprocess.Popen[str]]") -> None:
    """Have them write down what was spent so far."""
    for one in children.values():
        one.send_signal(signal.SIGUSR1)


def end(children: "dict[str, subprocess.Popen[str]]") -> None:
    """End them in order."""
    for one in reversed(children.values()):
        one.terminate()
        one.wait(60)


def measure(work: Workload, seconds: float) -> dict[str, Any]:
    """Run a session whose processes watch themselves."""
    with tempfile.TemporaryDirectory(prefix="rtd") as name:
        folder = Path(name)
        session = prepare(folder, work, None)
        sender = session.sender()
        children = watched_processes(session.config, folder, session.env)
        try:
            wait_for(children)
            with Subscriber(session.results) as subscriber:
                listen(subscriber, 2.0)
                mark(children)
                listen(subscriber, seconds)
                mark(children)
                listen(subscriber, 0.5)
        finally:
            end(children)
            sender.kill()
            sender.wait()
        chunks = seconds * work.sfreq / work.chunk
        return {process: costs(folder / f"{process}.json", chunks) for process in children}


def listen(subscriber: Subscriber, seconds: float) -> None:
    """Take what comes."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        subscriber.receive(timeout=left)


def costs(file: Path, chunks: float) -> dict[str, Any]:
    """Microseconds per chunk of each stage, and of the threads that are not the process's own loop."""
    found = json.loads(file.read_text())
    before, after = found["marks"][:2]
    inside, around = found["cost"]
    calls = {stage: n - before["calls"][stage] for stage, n in after["calls"].items()}
    stages = {}
    for stage, spent in after["spent"].items():
        net = spent - before["spent"][stage] - inside * calls[stage]
        stages[stage] = {"us": net / chunks / 1e3, "calls": calls[stage] / chunks}
    watching = sum(calls.values()) * (inside + around) / chunks / 1e3
    threads = {
        name: (spent - before["threads"].get(name, 0)) / chunks / 1e3 for name, spent in after["threads"].items()
    }
    return {
        "stages": stages,
        "loop_thread_us": threads.pop("MainThread") - watching,
        "other_threads_us": threads,
        "watching_us": watching,
    }


def table(work: Workload, found: dict[str, Any]) -> str:
    """The same in Markdown."""
    lines = [
        f"{work.channels} channels, {work.sfreq:g} Hz, chunks of {work.chunk}, a window every {work.hop_s * 1e3:g} ms"
    ]
    for process, one in found.items():
        lines += ["", f"| {process}: stage | us per chunk | calls per chunk |", "|---|---|---|"]
        for stage, cost in one["stages"].items():
            lines.append(f"| {stage} | {max(0.0, cost['us']):.1f} | {cost['calls']:.2f} |")
        lines.append(f"| **the thread of the loop** | **{one['loop_thread_us']:.0f}** | |")
        for name, us in one["other_threads_us"].items():
            lines.append(f"| thread {name} | {us:.0f} | |")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], sys.argv[4:])
        raise SystemExit
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to measure")
    parser.add_argument("--json", action="store_true", help="the figures")
    add_workload(parser)
    given = parser.parse_args()
    result = measure(workload(given), given.seconds)
    print(json.dumps(result, indent=2) if given.json else table(workload(given), result))
