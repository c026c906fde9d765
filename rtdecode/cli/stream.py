"""``rtdecode stream``: serve a recording over LSL, ZeroMQ or as a FieldTrip buffer, as if it were recorded now."""

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rtdecode.errors import ConfigError
from rtdecode.sources.declare import Declare
from rtdecode.sources.fieldtrip_sender import FieldTripSender
from rtdecode.sources.pacing import PacedSender
from rtdecode.sources.recording import RecordingSource
from rtdecode.sources.sender import LslSender, require_consumers
from rtdecode.sources.trigger import TriggerRule
from rtdecode.sources.zmq_sender import ZmqSender
from rtdecode.wire.clock import clock_id
from rtdecode.wire.endpoint import check_endpoint


def stream(
    recording: Annotated[
        Path, typer.Argument(help="FIF, EDF, BDF, GDF, BrainVision (.vhdr), EEGLAB (.set) or XDF file.")
    ],
    name: Annotated[str | None, typer.Option(help="Name of the LSL stream; the file's name by default.")] = None,
    stream_type: Annotated[str, typer.Option("--type", help="LSL content type of the stream.")] = "EEG",
    markers: Annotated[
        str | None, typer.Option(help="Name of the LSL marker stream; the stream's name with '-markers' by default.")
    ] = None,
    no_markers: Annotated[
        bool, typer.Option("--no-markers", help="Serve no markers, and wait for nobody to take them.")
    ] = False,
    speed: Annotated[float, typer.Option(help="1 is the recording's own rate.")] = 1.0,
    chunk_ms: Annotated[float, typer.Option(help="Milliseconds of samples that are sent at once.")] = 20.0,
    wait: Annotated[
        float, typer.Option(help="Seconds to wait for consumers; 0 starts without any, -1 waits forever.")
    ] = -1.0,
    loop: Annotated[bool, typer.Option("--loop", help="Begin anew at the end, until Ctrl-C.")] = False,
    unit: Annotated[str, typer.Option(help="Unit of the data channels, where the file declares none.")] = "",
    trigger: Annotated[
        list[str] | None, typer.Option(help="Trigger channel whose codes become markers (may repeat).")
    ] = None,
    data: Annotated[str | None, typer.Option(help="XDF: name or type of the data stream.")] = None,
    over_zmq: Annotated[
        str | None,
        typer.Option("--zmq", metavar="ENDPOINT", help="Publish over ZeroMQ, e.g. tcp://127.0.0.1:5600, not over LSL."),
    ] = None,
    fieldtrip: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Serve a FieldTrip buffer at this address of this machine, not LSL."),
    ] = None,
) -> None:
    """Serve a recording at its own rate, with its markers: over LSL, over ZeroMQ, or as a FieldTrip buffer.

    It begins once its consumers are there, and ends with the recording.

    Example: [bold]rtdecode stream S001R14.edf --name eeg --markers cues[/]
    """
    if not math.isfinite(speed) or speed <= 0:
        raise ConfigError(f"--speed is {speed}; expected a number above 0")
    if not math.isfinite(chunk_ms) or chunk_ms <= 0:
        raise ConfigError(f"--chunk-ms is {chunk_ms}; expected a number above 0")
    if math.isnan(wait):
        raise ConfigError(f"--wait is {wait}; expected seconds, 0 for not at all, or -1 for ever")
    if over_zmq is not None and fieldtrip is not None:
        raise ConfigError("--zmq and --fieldtrip are both given; expected one of them")
    endpoint = None if over_zmq is None else check_endpoint(over_zmq, bind=True)
    console = Console(stderr=True, highlight=False)
    served = name or recording.stem
    marker_name = None if no_markers else markers or f"{served}-markers"
    if marker_name == served:
        raise ConfigError(f"--name and --markers are both {served!r}; expected two names, by which consumers find them")

    def opened() -> RecordingSource:
        rules = [TriggerRule(channel) for channel in trigger or ()]
        source = RecordingSource(recording, declare=Declare(unit=unit), triggers=rules, stream=data)
        source.open()
        return source

    source = opened()
    where = ""
    sender: LslSender | FieldTripSender | ZmqSender
    if fieldtrip is not None:
        host, port = _address(fieldtrip)
        sender = FieldTripSender(source.info, host, port, events=not no_markers, chunk_s=chunk_ms * 1e-3)
        where = f"FieldTrip buffer at {sender.host}:{sender.port}"
    elif endpoint is not None:
        sender = ZmqSender(
            source.info, served, endpoint, markers=not no_markers, chunk_s=chunk_ms * 1e-3, clock=clock_id()
        )
        where = f"publishing at {sender.endpoint}"
    else:
        sender = LslSender(
            source.info, served, marker_name=marker_name, chunk_s=chunk_ms * 1e-3, stream_type=stream_type
        )
    with sender:
        _describe(console, source, served, marker_name, speed)
        if where:
            console.print(where, markup=False)
        try:
            if wait:
                console.print(
                    "waiting for consumers; Ctrl-C ends it" if wait < 0 else f"waiting {wait:g} s for consumers"
                )
                require_consumers(sender, wait if wait > 0 else math.inf)
            _serve(console, sender, source, opened, speed, loop)
            sender.drain()
        except KeyboardInterrupt:
            console.print(f"stopped after {sender.samples_sent} samples and {sender.markers_sent} markers")
            raise typer.Exit(0 if loop else 130) from None
    console.print(f"served {sender.samples_sent} samples and {sender.markers_sent} markers")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"--fieldtrip is {text!r}; expected HOST:PORT, e.g. 127.0.0.1:1972")
    return host.strip("[]"), int(port)


def _describe(console: Console, source: RecordingSource, served: str, marker_name: str | None, speed: float) -> None:
    info = source.info
    kinds = ", ".join(f"{count} {type_}" for type_, count in Counter(c.type for c in info.channels).items())
    units = "/".join(sorted({channel.unit or "undeclared" for channel in info.channels}))
    console.print(
        f"[bold]{escape(served)}[/]: {len(info.channels)} channels ({kinds}; {units}), {info.sfreq:g} Hz, "
        f"{source.duration:.1f} s"
        + (f", {source.n_holes} holes" if source.n_holes else "")
        + (f", at {speed:g} times its rate" if speed != 1 else "")
    )
    console.print(f"[bold]{escape(marker_name)}[/]: its markers" if marker_name else "no markers are served")
    if speed != 1 and marker_name:
        console.print(
            "stamps keep the recording's spacing and leave the clock: a live decoder waits for markers from the "
            "future, and takes those from the past for late",
            style="yellow",
        )
    for flag in info.declared_by_user:
        console.print(f"declared by you: {flag}", markup=False)
    if source.left_out:
        console.print(f"left out, since their rate differs: {', '.join(source.left_out)}", markup=False)


def _serve(
    console: Console,
    sender: PacedSender,
    source: RecordingSource,
    reopen: Callable[[], RecordingSource],
    speed: float,
    loop: bool,
) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        duration = source.duration
        start: float | None = None
        while True:
            task = bar.add_task("serving", total=duration)
            start = sender.serve(source, speed=speed, start=start, progress=partial(_show, bar, task))
            source.close()
            bar.update(task, completed=duration)
            if not loop:
                return
            bar.remove_task(task)
            start += duration  # stamps go on without a hole
            source = reopen()


def _show(bar: Progress, task: TaskID, done: float) -> None:
    bar.update(task, completed=done)
