"""A bundle in the daemon, live: noise over LSL from a process of its own at the contract's channels and rate."""

import contextlib
import json
import math
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rtdecode import hostclock
from rtdecode.demo.staging import LSL_API, free_port, private_folder
from rtdecode.encode.bundle import Bundle
from rtdecode.errors import ProcessError
from rtdecode.stream.window import Locked, WindowSpec
from rtdecode.wire.messages import Description, Window
from rtdecode.wire.subscriber import Subscriber
from rtdecode_models.zoo.noise import markers_of

#: Seconds for the daemon to come up beyond the session itself, and for a process to end when asked.
START_S, END_S = 120.0, 30.0
#: Seconds before the sender's end within which a window may end and not be counted: the stream stops in its midst.
LAST_S = 0.5
#: Share of the windows that must be inside the budget.
SHARE = 0.99

_CONFIG = """\
[session]
name = "zoo"

[source]
kind = "lsl"
name = {name}
timeout_s = 60.0
lateness_s = {lateness}
end_when_lost = true
{markers}

[bus]
{bus}

[pipelines.zoo]
bundle = {bundle}
publish = {publish}
budget_ms = {budget_ms}
threads = {threads}
"""


@dataclass(frozen=True, slots=True)
class Live:
    """What came of a live session.

    Parameters
    ----------
    windows : int
        Windows that were published, but for those in whose midst the sender ended.
    statuses : mapping of str to int
        Status -> how many.
    met : int
        Windows inside the budget.
    p50_ms, p99_ms, worst_ms : float
        From the arrival of a window's newest sample to its publication.
    budget_ms : float
        What was allowed.
    exit_code : int
        Of the daemon.
    """

    windows: int
    statuses: dict[str, int]
    met: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    budget_ms: float
    exit_code: int

    @property
    def good(self) -> bool:
        """Whether every window was decoded, and all but one in a hundred (or one in fewer) inside the budget."""
        decoded = self.statuses.get("ok", 0) + self.statuses.get("late", 0)
        late = self.windows - self.met
        allowed = max(1, math.floor((1 - SHARE) * self.windows))
        return self.exit_code == 0 and self.windows > 0 and decoded == self.windows and late <= allowed


def run_live(bundle: Path, budget_ms: float, *, seconds: float, threads: int = 1) -> Live:
    """Run a bundle in a daemon on noise, and see what is published.

    Parameters
    ----------
    bundle : Path
        Folder or zip.
    budget_ms : float
        From the arrival of a window's newest sample to its publication.
    seconds : float
        Of samples, beyond one window.
    threads : int
        Inside one operator of the encoder.

    Raises
    ------
    ProcessError
        The daemon or the sender did not come up, or the daemon ended with an error; with its last words.
    """
    folder = private_folder()
    name = f"rtdecode-zoo-{secrets.token_hex(4)}"
    manifest = Bundle.open(bundle).manifest
    unix = sys.platform == "linux"
    endpoint = f"ipc://{folder / 'results'}" if unix else f"tcp://127.0.0.1:{free_port()}"
    config = folder / "zoo.toml"
    config.write_text(
        _CONFIG.format(
            name=json.dumps(name),
            lateness=lateness(manifest.windows),
            markers=f'markers = [{{ name = "{name}-markers" }}]' if markers_of(manifest.windows) else "",
            bus=f"dir = {json.dumps(str(folder))}" if unix else "",
            bundle=json.dumps(str(bundle.absolute())),
            publish=json.dumps(endpoint),
            budget_ms=float(budget_ms),
            threads=threads,
        ),
        encoding="utf-8",
    )
    api = folder / "lsl_api.cfg"
    api.write_text(LSL_API.format(session=name), encoding="utf-8")
    environment = os.environ | {"LSLAPICFG": str(api), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    length = seconds + max(window.duration for window in manifest.windows)
    served = ["rtdecode_models.zoo.sender", "--bundle", str(bundle), "--name", name, "--seconds", str(length)]
    sender = _spawn(folder, "sender", served, environment)
    daemon = _spawn(folder, "daemon", ["rtdecode", "run", str(config)], environment)
    try:
        windows = _listen(endpoint, sender, daemon, folder, START_S + length)
        whole = [window for window in windows if (window.start + window.length) / window.sfreq <= length - LAST_S]
        return _tally(whole, budget_ms, daemon.wait(END_S))
    finally:
        for process in (daemon, sender):
            _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def lateness(windows: Sequence[WindowSpec]) -> float:
    """What a marker may be late by: a window that ends sooner after its marker would wait so long, and miss its budget.

    Half a second, as by default, or half of the time from a marker to the earliest end of a window.
    """
    ends = [window.tmax for window in windows if isinstance(window, Locked)]
    return min([0.5, *(max(0.0, end) / 2 for end in ends)])


def _spawn(folder: Path, what: str, command: list[str], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    with (folder / f"{what}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _listen(
    endpoint: str, sender: "subprocess.Popen[bytes]", daemon: "subprocess.Popen[bytes]", folder: Path, seconds: float
) -> list[Window]:
    """Every window that is published until the daemon has ended, as it does when the sender is gone."""
    windows: list[Window] = []
    begun = False
    deadline = hostclock.now() + seconds
    with Subscriber(endpoint, timeout=1.0) as subscriber:
        while hostclock.now() < deadline:
            ended = daemon.poll() is not None  # asked first: what it published before is still taken below
            for received in subscriber:
                message = received.message
                if isinstance(message, Window) and not message.retained:
                    windows.append(message)
                elif isinstance(message, Description) and not begun:
                    begun = True  # the decoder is ready: samples before that would wait for it, and be late
                    _go(sender)
            for what, process in (("sender", sender), ("daemon", daemon)):
                if process.poll() not in (None, 0):
                    raise ProcessError(f"the {what} ended with {process.returncode}: {_last_words(folder, what)}")
            if ended:
                return windows
    raise ProcessError(f"the session did not end within {seconds:g} s: {_last_words(folder, 'daemon')}")


def _go(sender: "subprocess.Popen[bytes]") -> None:
    assert sender.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it is gone, and its log says why
        sender.stdin.write(b"go\n")
        sender.stdin.flush()


def _tally(windows: list[Window], budget_ms: float, exit_code: int) -> Live:
    took = [
        1e3 * (window.ledger.published - window.ledger.arrived)
        for window in windows
        if window.ledger.published is not None and window.ledger.arrived is not None
    ]
    p50, p99, worst = np.percentile(took, [50, 99, 100]) if took else (math.nan,) * 3
    return Live(
        windows=len(windows),
        statuses=dict(Counter(str(window.status) for window in windows)),
        met=sum(window.ledger.met is True for window in windows),
        p50_ms=float(p50),
        p99_ms=float(p99),
        worst_ms=float(worst),
        budget_ms=budget_ms,
        exit_code=exit_code,
    )


def _last_words(folder: Path, what: str) -> str:
    lines = (folder / f"{what}.log").read_text(encoding="utf-8", errors="replace").splitlines()
    spoken = [line.strip() for line in lines if line.strip()]
    errors = [line for line in spoken if "rror" in line]
    return (errors or spoken or ["it said nothing"])[-1][:400]


def _end(process: "subprocess.Popen[Any]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.stdin is not None:
        process.stdin.close()
