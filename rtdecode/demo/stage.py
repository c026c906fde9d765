"""The processes of a demo: the daemon as ``rtdecode run`` starts it, the sender over LSL, and a folder for both."""

import json
import secrets
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from rtdecode.demo.staging import How, Staging, free_port
from rtdecode.sources.forward import Session, Subject

Transport = Literal["lsl", "local"]

#: Name of the demo's pipeline.
PIPELINE = "demo"

#: Seconds for a process to end when asked: with results to publish, and before it began.
_END_S, _END_BEFORE_S = 15.0, 2.0

#: How each process is asked to end.
_ENDS: Final[dict[str, How]] = {"daemon": "signal", "sender": "input"}

_CONFIG = """\
[session]
name = "demo"

[source]
{source}

[bus]
{bus}

[pipelines.{pipeline}]
bundle = {bundle}
publish = {publish}
budget_ms = {budget_ms}
"""

_LSL_SOURCE = """\
kind = "lsl"
name = {name}
timeout_s = 15.0
end_when_lost = true
markers = [{{ name = {markers} }}]"""

_SIMULATED_SOURCE = """\
kind = "simulated"
seed = {seed}
seconds = {seconds}"""


class Stage:
    """One attempt at a demo: its own folder, its own LSL session on the loopback device, its own processes.

    Parameters
    ----------
    transport : {"lsl", "local"}
        Whether the simulated subject comes over LSL from a process of its own, or lives in *acquire*.
    bundle : Path
        What to decode with.
    seed : int
        Of the session.
    seconds : float
        Its length at most; it ends earlier by as much as would cut off a response.
    budget_ms : float
        For the pipeline.

    Attributes
    ----------
    endpoint : str
        Where results are published.
    stimuli : int
        How many things will be shown.
    """

    def __init__(self, transport: Transport, bundle: Path, seed: int, seconds: float, budget_ms: float) -> None:
        self.transport = transport
        self._staging = Staging()
        self._name = f"rtdecode-demo-{secrets.token_hex(4)}"
        self._seed = seed
        session = Session(Subject(), seed)
        self._seconds = session.whole(seconds)
        self.stimuli = len(session.stimuli(0, round(self._seconds * session.sfreq)))
        folder = self._staging.folder
        unix = sys.platform == "linux"
        self.endpoint = f"ipc://{folder / 'results'}" if unix else f"tcp://127.0.0.1:{free_port()}"
        text = _CONFIG.format(
            source=self._source(),
            bus=f"dir = {json.dumps(str(folder))}" if unix else "",
            pipeline=PIPELINE,
            bundle=json.dumps(str(bundle.absolute())),
            publish=json.dumps(self.endpoint),
            budget_ms=float(budget_ms),
        )
        self._config = folder / "demo.toml"
        self._config.write_text(text, encoding="utf-8")
        self._begun = False

    def _source(self) -> str:
        if self.transport == "lsl":
            return _LSL_SOURCE.format(name=json.dumps(self._name), markers=json.dumps(f"{self._name}-markers"))
        return _SIMULATED_SOURCE.format(seed=self._seed, seconds=float(self._seconds))

    def start(self) -> None:
        """Start the daemon, and the sender where there is one. A simulation in *acquire* begins once it is decoded."""
        if self.transport == "lsl":
            self._staging.own_lsl()
            arguments = ["--name", self._name, "--seed", str(self._seed), "--seconds", str(self._seconds)]
            self._staging.spawn("sender", "rtdecode.demo.sender", *arguments)
        self._staging.spawn("daemon", "rtdecode", "run", str(self._config))

    def go(self) -> None:
        """Let the sender begin: the decoder is ready."""
        self._begun = True
        if "sender" in self._staging.processes:
            self._staging.tell("sender", b"go")

    @property
    def fault(self) -> str:
        """What went wrong, from the log of a process that failed; empty while nothing did."""
        return self._staging.fault

    @property
    def ended(self) -> bool:
        """Whether the daemon is done."""
        return self._staging.ended("daemon")

    def stop(self) -> None:
        """Ask the daemon to end with everything published, and the sender to end."""
        for name, how in _ENDS.items():
            if name in self._staging.processes:
                self._staging.ask_to_end(name, how)

    def close(self) -> None:
        """End what still runs, and remove the folder. Safe to call twice."""
        self.stop()
        # before it began there is nothing to publish, so nothing to wait for
        self._staging.close(_END_S if self._begun else _END_BEFORE_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
