"""The subscriber's process: it takes what every pipeline publishes, and tells its parent what each ledger says.

A line of JSON each on standard output, several at once, so that neither side is kept from its work. It ends with the
line ``stop`` once nothing more comes, or at once when standard input closes.
"""

import argparse
import os
import sys
import threading

import msgspec

from rtdecode.wire.messages import Description, Event, Health, Window
from rtdecode.wire.subscriber import Received, Subscriber

#: Seconds for which lines are kept together; seconds without a message after which, told to stop, it does.
_TOGETHER_S, _QUIET_S = 0.5, 0.5


class Seen(msgspec.Struct, frozen=True, tag="window", kw_only=True):
    """One window: what became of it, and its moments in host-clock seconds; `taken` is when it was in our hands."""

    pipeline: str
    seq: int
    window: str
    locked: bool
    status: str
    reason: str
    variant: bool
    met: bool | None
    stamp: float | None
    arrived: float | None
    received: float | None
    due: float | None
    encoded: float | None
    published: float | None
    taken: float


class Told(msgspec.Struct, frozen=True, tag="event", kw_only=True):
    """Something that a pipeline, or *acquire* by it, announced."""

    pipeline: str
    origin: str
    event: str
    text: str
    stamp: float
    details: dict[str, str | int | float | bool | None]


class Described(msgspec.Struct, frozen=True, tag="description", kw_only=True):
    """What a pipeline says of itself."""

    pipeline: str
    source: str
    channels: int
    sfreq: float
    conditioned_sfreq: float
    group_delay: float
    bundle: str
    engine: dict[str, str | int | tuple[int, ...]]
    clock: str


class Counted(msgspec.Struct, frozen=True, tag="health", kw_only=True):
    """A pipeline's own count; messages that were lost on the way to us, or could not be read."""

    pipeline: str
    due: int
    pending: int
    counts: dict[str, int]
    dropped: int
    lost: int
    malformed: int
    p50_ms: dict[str, float]


Line = Seen | Told | Described | Counted


class _Lines:
    """Lines of several threads, written a few times a second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []

    def put(self, line: Line) -> None:
        encoded = msgspec.json.encode(line)
        with self._lock:
            self._waiting.append(encoded)

    def flush(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if waiting:
            sys.stdout.buffer.write(b"\n".join(waiting) + b"\n")
            sys.stdout.buffer.flush()


def follow(pipeline: str, endpoint: str, stopped: threading.Event, lines: _Lines) -> None:
    """Take what one pipeline publishes until somebody says stop and nothing more comes."""
    with Subscriber(endpoint, [f"{pipeline}."], hwm=100_000) as subscriber:
        while True:
            received = subscriber.receive(_QUIET_S)
            if received is None:
                if stopped.is_set():
                    return
            elif (line := line_of(received, subscriber)) is not None and line.pipeline == pipeline:
                lines.put(line)


def line_of(received: Received, subscriber: Subscriber) -> Line | None:
    """What is told of a message; None where it is old news."""
    message = received.message
    match message:
        case Window(retained=False):
            ledger = message.ledger
            return Seen(
                pipeline=message.pipeline,
                seq=message.seq,
                window=message.window,
                locked=message.marker is not None,
                status=message.status,
                reason=message.reason,
                variant=message.variant,
                met=ledger.met,
                stamp=ledger.stamp,
                arrived=ledger.arrived,
                received=ledger.received,
                due=ledger.due,
                encoded=ledger.encoded,
                published=ledger.published,
                taken=received.at,
            )
        case Event():
            pipeline = message.pipeline or message.origin
            return Told(
                pipeline=pipeline,
                origin=message.origin,
                event=message.event,
                text=message.text,
                stamp=message.stamp,
                details=message.details,
            )
        case Description():
            return Described(
                pipeline=message.pipeline,
                source=message.source,
                channels=len(message.channels),
                sfreq=message.sfreq,
                conditioned_sfreq=message.conditioned_sfreq,
                group_delay=message.group_delay,
                bundle=message.bundle,
                engine=message.engine,
                clock=message.clock,
            )
        case Health(retained=False):
            return Counted(
                pipeline=message.pipeline,
                due=message.due,
                pending=message.pending,
                counts=message.counts,
                dropped=message.dropped,
                lost=sum(subscriber.missed.values()),
                malformed=subscriber.malformed,
                p50_ms=message.p50_ms,
            )
    return None


def _obey(stopped: threading.Event) -> None:
    while line := sys.stdin.readline():
        if line.strip() == "stop":
            stopped.set()
    os._exit(0)


def main() -> None:
    """Entry of ``python -m rtdecode.certify.listener``."""
    parser = argparse.ArgumentParser(prog="rtdecode.certify.listener", description=__doc__)
    parser.add_argument("pipelines", nargs="+", metavar="PIPELINE=ENDPOINT")
    stopped = threading.Event()
    lines = _Lines()
    threading.Thread(target=_obey, args=(stopped,), name="lifeline", daemon=True).start()
    places = [one.partition("=")[::2] for one in parser.parse_args().pipelines]
    threads = [threading.Thread(target=follow, args=(*place, stopped, lines)) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(_TOGETHER_S)
            lines.flush()
    lines.flush()


if __name__ == "__main__":
    main()
