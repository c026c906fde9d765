"""``rtdecode demo``: the whole way through, with a simulated subject."""

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.live import Live

from rtdecode.cli.view import WIDTH, Scene, closing_lines, opening_line, picture, plain_line
from rtdecode.demo import BUNDLE
from rtdecode.demo.stage import PIPELINE, Stage, Transport
from rtdecode.demo.tally import Tally, Trial
from rtdecode.errors import BundleError, ConfigError, ProcessError
from rtdecode.wire.messages import Description, Health, Window
from rtdecode.wire.subscriber import Subscriber

#: Seconds for the daemon to find the stream and describe it; longer where nothing else is left to try.
LSL_TIMEOUT_S, LAST_TIMEOUT_S = 20.0, 60.0

#: Seconds from the start of the session to the first window: two before the first stimulus, and a margin.
FIRST_WINDOW_TIMEOUT_S = 12.0

#: Seconds after the session in which everything must have been published.
END_TIMEOUT_S = 15.0

#: Signals that end the demo with its summary: asked to end, and the terminal was closed.
_ENDINGS = [signal.SIGTERM, *([signal.SIGHUP] if sys.platform != "win32" else [])]


class _NotThereError(Exception):
    """LSL gave nothing; the message says why."""


def demo(
    seconds: Annotated[float, typer.Option(min=4.0, max=3600.0, help="How long the subject looks.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
    transport: Annotated[
        Literal["auto", "lsl", "local"],
        typer.Option(help="lsl: from a process of its own over LSL; local: inside acquire; auto: lsl where it works."),
    ] = "auto",
    seed: Annotated[int | None, typer.Option(min=0, max=999, help="Which session; another one each time.")] = None,
    budget_ms: Annotated[float, typer.Option(min=0.1, help="From a window's last sample to its result.")] = 50.0,
    bundle: Annotated[Path, typer.Option(help="Another bundle, trained on the simulated subject.")] = BUNDLE,
) -> None:
    """Watch the daemon decode a SIMULATED subject who looks at things. No hardware, nothing measured.

    The processes are the real ones: a sender over LSL, acquire, decode, and a subscriber, which is this view. See
    docs/demo.md for what is simulated and what the figures mean.

    Example: rtdecode demo --seconds 30 --json
    """
    if not bundle.exists():
        raise ConfigError(
            f"there is no bundle at {bundle}; make it with: python -m rtdecode_models.demo --out {bundle}"
        )
    for number in _ENDINGS:  # as Ctrl-C: the processes must not outlive us
        signal.signal(number, signal.default_int_handler)
    chosen = time.time_ns() % 1000 if seed is None else seed
    show = Show(bundle, chosen, seconds, budget_ms, Console(stderr=as_json, highlight=False))
    try:
        played = show.play("local" if transport == "local" else "lsl", "asked for" if transport == "local" else "")
    except _NotThereError as error:
        if transport == "lsl":
            raise ProcessError(f"the demo does not work over LSL here: {error}; try --transport local") from None
        played = show.play("local", str(error))
    if as_json:
        typer.echo(json.dumps(played))
    if not played["accounted"]:
        raise ProcessError(
            f"the demo is not whole: {played['windows']} windows came and the daemon counted {played['due']}; "
            f"{played['fault'] or 'no process failed'}"
        )


class Show:
    """Plays the demo over one transport, and shows it.

    Parameters
    ----------
    bundle : Path
        What to decode with.
    seed : int
        Of the session.
    seconds : float
        Its length.
    budget_ms : float
        Allowed time from arrival to publication.
    console : Console
        Where it is shown: live on a terminal, in plain lines elsewhere.
    """

    def __init__(self, bundle: Path, seed: int, seconds: float, budget_ms: float, console: Console) -> None:
        self._bundle, self._seed, self._seconds, self._budget_ms = bundle, seed, seconds, budget_ms
        self._console = console
        self._live: Live | None = None
        self._emoji = _emoji(bundle)
        self._began = 0.0

    def play(self, transport: Transport, why_local: str) -> dict[str, Any]:
        """Run it to its end (or Ctrl-C) and return the summary.

        Raises
        ------
        _NotThereError
            LSL was to be tried and gave nothing.
        ProcessError
            The daemon failed and nothing else is left to try.
        """
        interrupted = False
        stage = Stage(transport, self._bundle, self._seed, self._seconds, self._budget_ms)
        with stage, Subscriber(stage.endpoint, [f"{PIPELINE}."]) as subscriber:
            described = self._described(stage, subscriber)
            tally = Tally(max(1, len(described.items)), self._budget_ms)
            scene = self._scene(described, transport, why_local)
            stage.go()
            self._began = time.monotonic()
            with self._shown(scene, tally):
                try:
                    self._follow(stage, subscriber, scene, tally)
                except KeyboardInterrupt:
                    interrupted = True
                stage.stop()
                self._rest(stage, subscriber, scene, tally)
            fault = stage.fault
            elapsed = time.monotonic() - self._began
        for line in closing_lines(scene, tally, latency=not self._console.is_terminal):
            self._say(line)
        return {
            "simulated": True,
            "transport": transport,
            "why_local": why_local,
            "seconds": round(min(elapsed, self._seconds) if interrupted else self._seconds, 3),
            "seed": self._seed,
            **tally.summary(),
            "accounted": tally.accounted and not fault,
            "interrupted": interrupted,
            "fault": fault,
            "bundle": scene.bundle,
        }

    def _described(self, stage: Stage, subscriber: Subscriber) -> Description:
        """Wait until the decoder describes its stream: the bundle is verified and the stream meets its contract."""
        patience = LSL_TIMEOUT_S if stage.transport == "lsl" else LAST_TIMEOUT_S
        deadline = time.monotonic() + patience
        with self._console.status(f"starting the daemon ({'over LSL' if stage.transport == 'lsl' else 'in process'})"):
            while time.monotonic() < deadline:
                received = subscriber.receive(0.1)
                if received is not None and isinstance(received.message, Description):
                    return received.message
                if stage.fault or stage.ended:
                    break
        raise self._gone(stage, stage.fault or f"the daemon was not ready within {patience:g} s")

    def _gone(self, stage: Stage, why: str) -> Exception:
        return _NotThereError(why) if stage.transport == "lsl" else ProcessError(why)

    def _follow(self, stage: Stage, subscriber: Subscriber, scene: Scene, tally: Tally) -> None:
        """Show what comes until everything shown has its window, or the daemon has ended, or the time is up."""
        deadline = self._began + self._seconds + END_TIMEOUT_S
        while tally.windows < stage.stimuli and not stage.ended and time.monotonic() < deadline:
            self._take(subscriber, 0.1, scene, tally)
            if not tally.windows and time.monotonic() > self._began + FIRST_WINDOW_TIMEOUT_S:
                raise self._gone(stage, stage.fault or f"no window came within {FIRST_WINDOW_TIMEOUT_S:g} s")
            if stage.fault and not tally.windows:
                raise self._gone(stage, stage.fault)

    def _rest(self, stage: Stage, subscriber: Subscriber, scene: Scene, tally: Tally) -> None:
        """Take what is published until the daemon has gone and nothing is left."""
        deadline = time.monotonic() + END_TIMEOUT_S
        while time.monotonic() < deadline:
            gone = stage.ended
            if not self._take(subscriber, 0.2, scene, tally) and gone:
                return

    def _take(self, subscriber: Subscriber, timeout: float, scene: Scene, tally: Tally) -> bool:
        """Take one message; False where none came."""
        received = subscriber.receive(timeout)
        elapsed = time.monotonic() - self._began
        if received is not None and isinstance(received.message, Window):
            self._say_trial(tally.add(received.message), elapsed)
        elif received is not None and isinstance(received.message, Health) and not received.message.retained:
            tally.health = received.message
        if self._live is not None:
            self._live.update(picture(scene, tally, elapsed))
        return received is not None

    def _scene(self, described: Description, transport: Transport, why_local: str) -> Scene:
        engine = described.engine
        return Scene(
            stream=f"{len(described.channels)} channels at {described.sfreq:g} Hz",
            transport=transport,
            why_local=why_local,
            bundle=described.bundle[:12],
            engine=f"{engine.get('runtime', '?')}, {engine.get('provider', '?')}",
            emoji=self._emoji,
            seconds=self._seconds,
        )

    @contextmanager
    def _shown(self, scene: Scene, tally: Tally) -> Iterator[None]:
        if not self._console.is_terminal:
            self._say(opening_line(scene))
            yield
            return
        self._console.width = min(self._console.width, WIDTH)
        with Live(picture(scene, tally, 0.0), console=self._console, refresh_per_second=10) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def _say_trial(self, trial: Trial, elapsed: float) -> None:
        if self._live is None:
            self._say(plain_line(trial, elapsed))

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, markup=False, emoji=False)
        (sys.stderr if self._console.stderr else sys.stdout).flush()


def _emoji(bundle: Path) -> dict[str, str]:
    """Name -> emoji of the gallery."""
    from rtdecode.encode.bundle import Bundle
    from rtdecode.encode.manifest import RetrieveHead

    opened = Bundle.open(bundle)
    head = opened.manifest.heads[0]
    if not isinstance(head, RetrieveHead):
        raise BundleError(f"{bundle}: its first head is of kind {head.__class__.__name__}; the demo needs a gallery")
    return {item.name: item.emoji or "" for item in opened.items(head)}
