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
from daemon_kit import TIME, make_bundle, window_key
from hypothesis import given, settings

from rtdecode.config import PipelineConfig
from rtdecode.daemon.announcer import Announcer
from rtdecode.daemon.feed import Feed
from rtdecode.daemon.follow import Arrival, Lost
from rtdecode.daemon.model import Model, Opened, build, make_decoder, verified
from rtdecode.daemon.output import Output
from rtdecode.daemon.progress import Account, Progress, ProgressFile
from rtdecode.decoder import Result, Status
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
        self.longer = make_bundle(self.folder / "longer", hop=HOP, locked=True, time=2 * TIME)
        source = SimulatedSource(seconds=SECONDS, speed=None, chunk=36)
        with source:
            self.info = source.info
            self.batches: list[Batch] = []
            while (batch := source.read(1.0)) is not None:
                self.batches.append(batch)
        self.publisher = Publisher(f"ipc://{self.folder}/out", hwm=100_000)
        self.subscriber = Subscriber(self.publisher.endpoint, hwm=100_000)
        self.opened: dict[Path, Opened] = {}
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

    def model(self, path: Path, pipeline: PipelineConfig) -> Model:
        if path not in self.opened:
            self.opened[path] = verified(path, pipeline)
        return build(path, "p", pipeline, self.info, self.opened[path])

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
        for opened in self.opened.values():
            opened.engine.close()
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
        path = Path(earlier.bundle) if earlier is not None and earlier.bundle else world.bundle
        model = world.model(path, pipeline)
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

    def swap(self, path: Path, entries: list[Arrival]) -> None:
        """To another bundle, which is given these entries too."""
        model = self.world.model(path, self.pipeline)
        held: list[tuple[Result, float]] = []
        for entry in entries:
            items = model.decoder.advance(entry.batch.chunk, entry.batch.markers, entry.batch.watermark)
            held += [(item if isinstance(item, Result) else model.decoder.encode(item), math.nan) for item in items]
        self.output.drain()
        self.feed.switch(model, held)

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


@pytest.mark.parametrize("then", ["goes on", "acquire crashes", "both crash"])
@pytest.mark.parametrize("oldest", [0, 11, 12])
def test_a_segment_that_ends_in_samples_that_a_blank_holds_is_not_forgotten(
    world: World, oldest: int, then: str
) -> None:
    """The decoder crashes when samples of the next segment came, and no marker is known up to them yet."""
    pipeline = world.pipeline(blank=BLANK)
    log = world.entries(1, 0)
    ended = log[9].batch.chunk
    begins = log[10].batch.chunk
    assert ended is not None
    assert begins is not None
    watermark = float(ended.stamps[-20])
    for seq in range(9, len(log) - 1):
        chunk = log[seq].batch.chunk
        assert chunk is not None
        if seq > 9:
            chunk = dataclasses.replace(chunk, segment=1, first_index=chunk.first_index - begins.first_index)
        log[seq] = dataclasses.replace(log[seq], batch=Batch(chunk, (), watermark if seq < 12 else chunk.stamps[-1]))
    process = Process(world, pipeline, 1, None)
    process.take(log[:12])
    assert process.feed.model.decoder.segment == 0
    assert process.account.progress.segment == 1
    process = Process(world, pipeline, 1, process.crash())
    base = None
    if then == "goes on":
        process.take(log[oldest:])
    else:
        process.take(log[oldest:12])
        if then == "acquire crashes":
            base = process.acquire_restarted(2)
        else:
            process = Process(world, pipeline, 2, process.crash())
            base = process.account.progress.base
        process.take(world.entries(2, base))
    windows, _ = world.heard()
    keys = [window_key(window) for window in windows]
    assert len(keys) == len(set(keys))
    progress = process.account.progress
    assert progress.due == sum(progress.counts.values()) == len(windows)
    assert progress.owed == []
    assert progress.left == []
    assert sliding(windows, 0) == starts(ended.stop_index)
    assert sliding(windows, 1)[: len(starts(72))] == starts(72)
    if base is not None:
        assert base == 2
        assert sliding(windows, 1) == starts(72)
        assert sliding(windows, base) == starts(SECONDS * SFREQ - LENGTH + 1)
    process.file.close()


@pytest.mark.parametrize("queue", [None, 4])
@pytest.mark.parametrize("oldest", [0, 4, 9])
@pytest.mark.parametrize("later", [0, 1, 2, 30])
@pytest.mark.parametrize("times", [(50, 100), (100, 50)])
def test_a_crash_after_a_swap_gives_no_window_twice(
    world: World, times: tuple[int, int], later: int, oldest: int, queue: int | None
) -> None:
    """The two bundles give the same windows 0.2 s apart: what is out by the one is still to come by the other."""
    extra = {} if queue is None else {"budget_ms": 50.0, "queue": queue}
    pipeline = world.pipeline(**extra)
    paths = {TIME: world.bundle, 2 * TIME: world.longer}
    log = world.entries(1, 0)

    def swapped() -> Process:
        process = Process(world, pipeline, 1, Progress(run=1, bundle=str(paths[times[0]])))
        process.take(log[:9])
        process.swap(paths[times[1]], log[:9])
        return process

    steady = swapped()
    steady.take(log[9:])
    steady.file.close()
    expected = {window_key(window) for window in world.heard()[0]}
    process = swapped()
    process.take(log[9 : 9 + later], turns=1)
    process = Process(world, pipeline, 1, process.crash())
    assert process.feed.model.path == paths[times[1]]
    process.take(log[oldest:])
    windows, _ = world.heard()
    keys = [window_key(window) for window in windows]
    assert len(keys) == len(set(keys))
    progress = process.account.progress
    assert progress.due == sum(progress.counts.values()) == len(windows)
    assert progress.owed == []
    assert progress.out == []
    assert set(keys) == expected
    assert len(expected) > 40
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
