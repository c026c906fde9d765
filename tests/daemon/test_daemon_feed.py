"""Processes that take over from each other, at any entry of the log: each due window is accounted for, and out, once.

The feed, the account on disk, the output, the encoder and the publisher are the daemon's own. What is played is when
processes end, and what *acquire*'s log still has then.
"""

import dataclasses
import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from daemon_kit import make_bundle, window_key
from hypothesis import given, settings

from rtdecode.config import PipelineConfig
from rtdecode.daemon.announcer import Announcer
from rtdecode.daemon.feed import Feed
from rtdecode.daemon.follow import Arrival, Lost
from rtdecode.daemon.model import Opened, build, make_decoder, verified
from rtdecode.daemon.output import Output
from rtdecode.daemon.progress import Account, Progress, ProgressFile
from rtdecode.decoder import Status
from rtdecode.signal import Batch
from rtdecode.sources.simulated import SimulatedSource
from rtdecode.wire.messages import Event, Window
from rtdecode.wire.publisher import Publisher
from rtdecode.wire.subscriber import Subscriber

SECONDS, HOP, LENGTH, SFREQ = 5, 0.1, 50, 250
BLANK = ({"markers": ("concept/*",), "tmin": -0.02, "tmax": 0.1, "method": "linear"},)


class World:
    """A folder, a stream that is known beforehand, and a subscriber who hears everything."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rtd"))
        self.bundle = make_bundle(self.folder / "bundle", hop=HOP, locked=True)
        source = SimulatedSource(seconds=SECONDS, speed=None, chunk=36)
        with source:
            self.info = source.info
            self.batches: list[Batch] = []
            while (batch := source.read(1.0)) is not None:
                self.batches.append(batch)
        self.publisher = Publisher(f"ipc://{self.folder}/out", hwm=100_000)
        self.subscriber = Subscriber(self.publisher.endpoint, hwm=100_000)
        self.opened: Opened | None = None
        self.announcer = Announcer("p", self.publisher)
        while self.subscriber.receive(0.0) is None:  # until it hears
            self.announcer.say("hello", "")
        self.heard()

    def pipeline(self, **extra: Any) -> PipelineConfig:
        return PipelineConfig(bundle=self.bundle, publish=self.publisher.endpoint, **extra)

    def entries(self, run: int, base: int) -> list[Arrival]:
        """The log of one start of *acquire*; the second one's stamps are later, as on a host clock."""
        found = []
        later = 1000.0 * run
        for seq, batch in enumerate(self.batches):
            chunk = batch.chunk
            if chunk is not None:
                chunk = dataclasses.replace(chunk, segment=chunk.segment + base, stamps=chunk.stamps + later)
            markers = [dataclasses.replace(marker, stamp=marker.stamp + later) for marker in batch.markers]
            found.append(Arrival(seq, Batch(chunk, markers, batch.watermark + later), math.nan, end=False))
        found.append(Arrival(len(found), Batch(None, (), math.inf), math.nan, end=True))
        return found

    def heard(self) -> tuple[list[Window], list[Event]]:
        """What was published since the last call."""
        self.announcer.say("so far", "")
        windows: list[Window] = []
        events: list[Event] = []
        while True:
            received = self.subscriber.receive(10.0)
            assert received is not None
            message = received.message
            if isinstance(message, Window):
                windows.append(message)
            elif isinstance(message, Event):
                if message.event == "so far":
                    return windows, events
                events.append(message)

    def close(self) -> None:
        self.subscriber.close()
        self.publisher.close(0.0)
        if self.opened is not None:
            self.opened.engine.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    one = World()
    yield one
    one.close()


class Process:
    """A decoder's process from its start: it takes over what a process before it left on disk."""

    def __init__(self, world: World, pipeline: PipelineConfig, run: int, earlier: Progress | None) -> None:
        self.world, self.pipeline = world, pipeline
        if world.opened is None:
            world.opened = verified(world.bundle, pipeline)
        model = build(world.bundle, "p", pipeline, world.info, world.opened)
        self.account = Account(earlier if earlier is not None else Progress(run=run))
        self.file = ProgressFile(world.folder / "p.progress")
        self.output = Output("p", pipeline, world.publisher, self.account, self.file, model)
        self.feed = Feed(model, self.account, self.output, world.announcer)
        if earlier is not None and earlier.run != run:
            self.account.follow(run, max(earlier.base, earlier.segment) + 1)
            self.output.take(self.account.forsaken(Status.GAP, "acquire was started again"), math.nan)

    def take(self, entries: list[Arrival], turns: int = 0) -> None:
        for entry in entries:
            self.output.hold()
            self.feed.take(entry, lambda: None)
            for _ in range(turns):
                self.output.work()
            self.output.save()

    def acquire_restarted(self, run: int) -> int:
        progress = self.account.progress
        base = max(progress.base, progress.segment) + 1
        self.feed.interrupted()
        self.output.hold()
        opened = self.feed.model.opened
        self.feed.restart(make_decoder(opened, None, self.pipeline, self.world.info), run, base)
        return base

    def crash(self) -> Progress:
        """What it leaves."""
        found = self.file.load()
        self.file.close()
        assert found is not None
        return found


def sliding(windows: list[Window], segment: int) -> list[int]:
    return sorted(window.start for window in windows if window.window == "sliding" and window.segment == segment)


def starts(before: float) -> list[int]:
    """Of the sliding windows that begin before a sample."""
    return [n for n in range(0, SECONDS * SFREQ, round(HOP * SFREQ)) if n < before]


@settings(deadline=None, max_examples=60)
@given(st.data())
@pytest.mark.parametrize(
    "extra", [{}, {"budget_ms": 50.0, "queue": 4}, {"blank": BLANK}], ids=["plain", "budget", "blank"]
)
def test_each_window_is_due_once_whoever_crashes(world: World, extra: dict[str, Any], data: st.DataObject) -> None:
    """One decoder crashes; the next one is still reading what that one had read when *acquire* crashes, or it too."""
    pipeline = world.pipeline(**extra)
    first, n = world.entries(1, 0), len(world.batches)
    taken = data.draw(st.integers(1, n), "taken by the first")
    oldest = data.draw(st.integers(0, taken), "oldest entry when the second begins")
    stop = data.draw(st.integers(oldest, n), "read by the second")
    gone = data.draw(st.sampled_from([None, min(stop + 7, n - 1)]), "the log has moved on to")
    end = data.draw(st.sampled_from(["goes on", "acquire crashes", "both crash"]), "then")
    turns = data.draw(st.integers(0, 2), "windows encoded in a turn")

    process = Process(world, pipeline, 1, None)
    process.take(first[:taken], turns)
    process = Process(world, pipeline, 1, process.crash())
    process.take(first[oldest:stop], turns)
    seen = max(taken, stop)
    if gone is not None and gone > stop and stop > oldest:
        process.feed.lost(Lost(stop, gone))
        process.take(first[gone : gone + 1], turns)
        seen = max(seen, gone + 1)
    else:
        gone = stop
    base = 0
    if end == "goes on":
        process.take(first[max(stop, gone + (gone > stop)) :], turns)
    else:
        if end == "acquire crashes":
            base = process.acquire_restarted(2)
        else:
            process = Process(world, pipeline, 2, process.crash())
            base = process.account.progress.base
        assert base > 0
        process.take(world.entries(2, base), turns)

    progress = process.account.progress
    windows, _ = world.heard()
    keys = [window_key(window) for window in windows]
    assert len(keys) == len(set(keys))
    assert progress.due == sum(progress.counts.values()) == len(windows)
    assert progress.owed == []
    whole = starts(SECONDS * SFREQ - LENGTH + 1)
    if end == "goes on":
        assert sliding(windows, 0) == whole
    else:
        chunk = world.batches[seen - 1].chunk
        assert chunk is not None
        assert sliding(windows, 0) == starts(chunk.stop_index)
    if base:
        assert sliding(windows, base) == whole
    process.file.close()


@pytest.mark.parametrize("queue", [None, 1, 3, 100])
def test_windows_that_wait_are_withdrawn_when_a_late_hole_is_found(world: World, queue: int | None) -> None:
    extra = {} if queue is None else {"budget_ms": 50.0, "queue": queue}
    process = Process(world, world.pipeline(**extra), 1, None)
    entries = world.entries(1, 0)
    process.take(entries[:10])
    chunk = entries[10].batch.chunk
    assert chunk is not None
    hole = 200
    shifted = dataclasses.replace(chunk, first_index=chunk.first_index + 20, invalidates=hole)
    process.take([dataclasses.replace(entries[10], batch=Batch(shifted, (), chunk.stamps[-1]))])
    process.take([dataclasses.replace(entries[-1], seq=11)])
    windows, events = world.heard()
    keys = [window_key(window) for window in windows]
    assert len(keys) == len(set(keys))
    assert process.account.progress.due == sum(process.account.progress.counts.values()) == len(windows)
    touched = {key for key, window in zip(keys, windows, strict=True) if window.start + LENGTH > hole}
    assert touched
    named: set[tuple[Any, ...]] = set()
    for event in events:
        if event.event == "invalidated":
            assert event.details["windows"] == len(event.windows) > 0
            named |= {(one.window, one.segment, one.start, one.marker and one.marker.value) for one in event.windows}
    given = {key for key, window in zip(keys, windows, strict=True) if window.status == "ok"}
    # Whatever lies behind the hole as it was counted: out and named, or not out and a gap.
    before = {key for key in touched if key[2] + LENGTH <= chunk.first_index}
    assert named == given & before
    assert all(window.status == "gap" for key, window in zip(keys, windows, strict=True) if key in before - named)
    if queue is None:
        assert named == before
    if queue == 100:
        assert not named
    process.file.close()
