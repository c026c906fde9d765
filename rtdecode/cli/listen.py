"""``rtdecode listen``: show what a publisher sends, for a person or for a pipe."""

import os
import sys
import time
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from rtdecode.errors import WireError
from rtdecode.wire.messages import Description, Event, Health, Message, Samples, Window
from rtdecode.wire.payload import to_json
from rtdecode.wire.subscriber import Received, Subscriber

#: Seconds between looks at the connection while nothing comes.
_LOOK_EVERY_S = 0.25
_TOP = 5
_STATUS_COLOUR = {
    "ok": "green",
    "late": "yellow",
    "skipped": "yellow",
    "gap": "red",
    "artifact": "red",
    "failed": "red",
}


class Format(StrEnum):
    """How messages are printed."""

    text = "text"
    json = "json"


def listen(
    endpoint: Annotated[str, typer.Argument(help="Where results are published: tcp://HOST:PORT or ipc://PATH.")],
    form: Annotated[Format, typer.Option("--format", help="A line to read, or one JSON object a line.")] = Format.text,
    topic: Annotated[
        list[str] | None, typer.Option(help="Only topics that begin so, such as gaze. or gaze.event; may be repeated.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after this many windows.")] = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0.0, help="End after so many seconds without a message (exit code 7 if none came at all)."),
    ] = None,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="End when a pipeline says that its stream has ended.")
    ] = False,
    arrays: Annotated[bool, typer.Option(help="JSON: with the arrays, or with their dtype and shape alone.")] = True,
) -> None:
    """Show the results of a running daemon as they come.

    The publisher may start later, end and come back; Ctrl-C ends listening. Notes about the connection go to stderr.

    Example: rtdecode listen tcp://127.0.0.1:5555 --format json --topic gaze. | jq .status
    """
    with Subscriber(endpoint, topic or [""]) as subscriber:
        try:
            _follow(subscriber, form, count=count, timeout=timeout, until_end=until_end, with_arrays=arrays)
        except KeyboardInterrupt:
            pass
        except BrokenPipeError:  # whoever read us has had enough; Python's own flush at exit must not fail over it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        lost = sum(subscriber.missed.values())
        if lost or subscriber.malformed:
            _note(f"{lost} message(s) lost on the way, {subscriber.malformed} that could not be read")


def _follow(
    subscriber: Subscriber,
    form: Format,
    *,
    count: int | None,
    timeout: float | None,
    until_end: bool,
    with_arrays: bool,
) -> None:
    """Print messages until `count` windows are out, the stream has ended, or nothing came for `timeout` seconds."""
    windows, heard = 0, False
    connection = _Connection(subscriber)
    since = time.monotonic()
    while count is None or windows < count:
        received = subscriber.receive(_LOOK_EVERY_S if timeout is None else min(_LOOK_EVERY_S, timeout))
        connection.tell()
        if received is not None:
            heard, since = True, time.monotonic()
            _show(received, form, with_arrays)
            windows += isinstance(received.message, Window)
            # A retained event tells of an end before our time; another session may be about to begin.
            if until_end and _says_end(received.message):
                return
        elif timeout is not None and time.monotonic() - since >= timeout:
            if heard:
                return
            there = "a publisher is there, but sent nothing" if subscriber.connected else "nobody publishes there"
            raise WireError(
                f"no message from {subscriber.endpoint} within {timeout:g} s: {there}; is the endpoint the one that "
                "the configuration publishes on, and does --topic match?"
            )


def _says_end(message: Message) -> bool:
    return isinstance(message, Event) and message.event in ("end", "stop") and not message.retained


class _Connection:
    """Says when a publisher appears or goes; nothing while all is as it was."""

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self._connected: bool | None = None

    def tell(self) -> None:
        now, before = self._subscriber.connected, self._connected
        if now == before:
            return
        endpoint = self._subscriber.endpoint
        if now:
            _note(f"connected to {endpoint}")
        else:
            _note(f"waiting for a publisher on {endpoint}" if before is None else "publisher gone, waiting for it")
        self._connected = now


def _note(text: str) -> None:
    typer.secho(f"rtdecode: {text}", err=True, dim=True)


def _show(received: Received, form: Format, with_arrays: bool) -> None:
    if form is Format.json:
        sys.stdout.buffer.write(to_json(received.message, received.arrays, with_arrays=with_arrays) + b"\n")
        sys.stdout.buffer.flush()
    else:
        typer.echo(line_of(received))
        sys.stdout.flush()


def line_of(received: Received) -> str:
    """One line for a person, with colours (which `typer.echo` removes where there is no terminal)."""
    message = received.message
    clock = datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]
    kept = " (last value)" if message.retained else ""
    match message:
        case Window():
            return f"{clock} {_window(message, received.age)}{kept}"
        case Event():
            text = _clean(f"{message.origin}: {message.event}: {message.text}")
            return typer.style(f"{clock} ** {text}", fg="yellow", bold=True) + kept
        case _:
            return typer.style(f"{clock} {_clean(_other(message))}{kept}", dim=True)


def _window(window: Window, age: float | None) -> str:
    where = _clean(f"{window.pipeline} {window.window} {window.segment}/{window.start}")
    parts = [where, typer.style(f"{window.status:8}", fg=_STATUS_COLOUR[window.status])]
    if window.marker is not None:
        parts.append(_clean(f"[{window.marker.value}]"))
    if window.retrieval is not None:
        parts.append(_clean(_retrieved(window)))
    if window.label is not None:
        chance = dict(zip(window.label.names, window.label.probabilities, strict=False)).get(window.label.best)
        parts.append(_clean(window.label.best) + ("" if chance is None else f" p={chance:.2f}"))
    if window.kind == "embedding":
        parts.append(_clean(" ".join(f"{a.name}{list(a.shape)}" for a in window.arrays)))
    if window.reason:
        parts.append(_clean(f"({window.reason})"))
    parts.append(_timing(window, age))
    return "  ".join(part for part in parts if part)


def _retrieved(window: Window) -> str:
    assert window.retrieval is not None
    best = list(zip(window.retrieval.names, window.retrieval.scores, strict=False))[:_TOP]
    none = "none of these? " if window.retrieval.none_of_these else ""
    return none + ", ".join(f"{name} {score:.2f}" for name, score in best)


def _timing(window: Window, age: float | None) -> str:
    ledger = window.ledger
    parts = [] if age is None else [f"age {age * 1000:.0f} ms"]
    if ledger.arrived is not None and ledger.published is not None:
        latency = f"latency {(ledger.published - ledger.arrived) * 1000:.1f}"
        budget = "" if ledger.budget_ms is None else f" of {ledger.budget_ms:g}"
        met = "" if ledger.met is None else " met" if ledger.met else " MISSED"
        parts.append(f"{latency}{budget} ms{met}")
    return ", ".join(parts)


def _other(message: Message) -> str:
    match message:
        case Description():
            engine = message.engine.get("provider", "")
            return (
                f"{message.pipeline}: {message.source}, {len(message.channels)} channels at {message.sfreq:g} Hz, "
                f"conditioned at {message.conditioned_sfreq:g} Hz with {message.group_delay * 1000:.0f} ms delay, "
                f"{len(message.items)} items, bundle {message.bundle} {engine}"
            )
        case Health():
            counts = ", ".join(f"{count} {status}" for status, count in message.counts.items() if count)
            return f"{message.pipeline}: {message.due} windows due ({counts}), {message.dropped} messages dropped"
        case Samples():
            return f"acquire: {message.segment}/{message.first_index}, {len(message.markers)} markers"
        case _:
            return type(message).__name__


def _clean(text: str) -> str:
    """Printable characters only: names come from the network and must not steer the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
