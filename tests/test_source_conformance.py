"""One suite over all sources: what the protocol promises, each keeps."""

import itertools
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import lsl_outlet
import numpy as np
import pytest
import source_files as files
from fieldtrip_buffer import Buffer
from numpy.typing import NDArray
from zmq_acquire import Shared
from zmq_outlet import ZmqOutlet

from rtdecode import hostclock
from rtdecode.daemon.remote import RemoteSource
from rtdecode.signal import DATA_TYPES, Batch, Channel, Chunk, Marker, StreamInfo
from rtdecode.sources import fieldtrip_wire as wire
from rtdecode.sources.base import Source
from rtdecode.sources.declare import Declare
from rtdecode.sources.fieldtrip import FieldTripSource
from rtdecode.sources.fieldtrip_client import Client
from rtdecode.sources.fieldtrip_server import FieldTripServer
from rtdecode.sources.lsl import LslSource, MarkerQuery
from rtdecode.sources.recording import RecordingSource
from rtdecode.sources.simulated import SimulatedSource
from rtdecode.sources.trigger import TriggerRule
from rtdecode.sources.zmq_sender import ZmqSender
from rtdecode.sources.zmq_source import ZmqSource


@dataclass
class Case:
    """A source, what it must give, and what it gave."""

    source: Source
    samples: NDArray[np.float32] | None = None
    markers: list[tuple[float, str]] | None = None
    holes: list[tuple[int, int]] = field(default_factory=list)  # (index before, index behind)
    live: bool = False
    within: float = 2e-3  # s; a clock that is fitted to arrival knows no better than the machine lets it
    play: Callable[[], None] = lambda: None
    info: StreamInfo = field(init=False)
    batches: list[Batch] = field(init=False, default_factory=list)
    again: list[Batch | None] = field(init=False, default_factory=list)


VALUES = files.counts()
MARKERS = [(0.5, "go"), (2.255, "left hand"), (4.0, "go")]


def fif(folder: Path, shared: None = None) -> Case:
    import mne

    info = mne.create_info(["E1", "E2", "STI"], 100.0, ["eeg", "mag", "stim"])
    values = np.stack([VALUES[:, 0] * 1e-6, VALUES[:, 1] * 1e-13, np.repeat([0, 3, 0, 4, 0], 100)])
    raw = mne.io.RawArray(values, info, first_samp=700, verbose="error")
    skip = [(3.0, 0.5, "BAD_ACQ_SKIP")]
    onsets, durations, texts = zip(*[(t, 0.0, v) for t, v in MARKERS], *skip, strict=True)
    raw.set_annotations(mne.Annotations(onsets, durations, texts))
    raw.save(folder / "a_raw.fif", fmt="double", verbose="error")
    kept = np.delete(values.T.astype(np.float32), range(300, 350), axis=0)
    triggers = [(1.0, "3")]  # the code 4 begins inside the skipped stretch, and shows behind it
    return Case(
        RecordingSource(folder / "a_raw.fif", triggers=[TriggerRule("STI")], chunk=33),
        kept,
        [*MARKERS, *triggers, (3.5, "4")],
        [(300, 350)],
    )


def edf(folder: Path) -> Case:
    (folder / "a.edf").write_bytes(files.edf_bytes(VALUES, annotations=MARKERS))
    return Case(RecordingSource(folder / "a.edf", chunk=77), files.in_volts(VALUES), MARKERS)


def edf_discontinuous(folder: Path) -> Case:
    onsets = [0.0, 1.0, 5.0, 6.0, 7.0]
    (folder / "a.edf").write_bytes(files.edf_bytes(VALUES, annotations=[(0.5, "a"), (6.5, "b")], onsets=onsets))
    return Case(RecordingSource(folder / "a.edf"), files.in_volts(VALUES), [(0.5, "a"), (6.5, "b")], [(200, 500)])


def bdf(folder: Path) -> Case:
    status = np.repeat([0, 5, 0, 7, 0], 100)
    (folder / "a.bdf").write_bytes(files.edf_bytes(VALUES, bdf=True, status=status))
    samples = np.column_stack([files.in_volts(VALUES), status.astype(np.float32)])
    rule = TriggerRule("Status", mask=0xFF)
    return Case(RecordingSource(folder / "a.bdf", triggers=[rule], chunk=13), samples, [(1.0, "5"), (3.0, "7")])


def gdf(folder: Path) -> Case:
    (folder / "a.gdf").write_bytes(files.gdf_bytes(VALUES))
    return Case(RecordingSource(folder / "a.gdf"), files.in_volts(VALUES), [])


def brainvision(folder: Path) -> Case:
    path = files.write_brainvision(folder, VALUES, markers=[(1, "New Segment", ""), (101, "Stimulus", "S  1")])
    return Case(RecordingSource(path), files.in_volts(VALUES), [(1.0, "Stimulus/S  1")])


def eeglab(folder: Path) -> Case:
    events = [(51.0, "go", 0.0), (200.5, "boundary", 40.0), (301.0, "stop", 0.0)]
    path = files.write_eeglab(folder, VALUES, events=events, apart=True)
    return Case(RecordingSource(path), files.in_volts(VALUES), [(0.5, "go"), (3.4, "stop")], [(200, 240)])


def xdf(folder: Path) -> Case:
    index = np.concatenate([np.arange(300), np.arange(330, 530)])  # 30 samples were lost
    stamps = 1000 + index / 100 + np.random.default_rng(0).uniform(0, 1e-3, 500)
    volts = (VALUES * files.STEP_UV).astype(np.float32)
    streams = [
        {"name": "cues", "type": "Markers", "sfreq": 0, "format": "string", "offset": 3.0,
         "values": [v for _, v in MARKERS], "stamps": [999.0 + t for t, _ in MARKERS]},
        {"name": "amp", "type": "EEG", "sfreq": 100, "format": "float32", "offset": 2.0, "values": volts,
         "stamps": stamps, "channels": [(f"E{k}", "EEG", "microvolts") for k in range(3)]},
        {"name": "keys", "type": "Markers", "sfreq": 0, "format": "int32", "values": [[7]], "stamps": [1003.0]},
    ]  # fmt: skip
    (folder / "a.xdf").write_bytes(files.xdf_bytes(streams))
    samples = (volts.astype(np.float64) * 1e-6).astype(np.float32)
    return Case(RecordingSource(folder / "a.xdf"), samples, [*MARKERS, (1.0, "7")], [(300, 330)])


def simulated(folder: Path) -> Case:
    return Case(SimulatedSource(seconds=4.0, speed=None, chunk=40))


def lsl(folder: Path, config: Path) -> Iterator[Case]:
    channels = [["A", "EEG", "uV"], ["B", "EEG", "uV"], ["TRIG", "Trigger", ""]]
    with lsl_outlet.Outlet(config, format="int16", channels=channels, markers=f"cues-{folder.name}") as outlet:
        source = LslSource(
            name=outlet.name,
            markers=[MarkerQuery(outlet.spec["markers"])],
            triggers=[TriggerRule("TRIG")],
            timeout_s=20,
            end_when_lost=True,
        )
        values = np.column_stack([VALUES[:, :2], np.repeat([0, 5, 0, 7, 0], 100)])
        case = Case(source, live=True, holes=[(300, 320)])
        case.samples = np.column_stack([VALUES[:, :2] * 1e-6, values[:, 2]]).astype(np.float32)

        def play() -> None:
            zero = hostclock.now() - 6.0
            stamps = zero + np.concatenate([np.arange(300), np.arange(320, 520)]) / 100
            case.markers = [(stamps[100], "5"), (stamps[300], "7"), (zero + 5.5, "go"), (zero + 5.9, "stop")]
            outlet.mark(("go", zero + 5.5))
            for begin in range(0, 500, 50):
                outlet.push(values[begin : begin + 50], stamps[begin : begin + 50])
            outlet.mark(("stop", zero + 5.9))
            while sum(len(b.chunk) for b in case.batches if b.chunk is not None) < 500:
                batch = source.read(5.0)
                assert batch is not None
                case.batches.append(batch)
            case.batches.append(source.read(0.05) or pytest.fail("the stream has not ended"))
            outlet.close()

        case.play = play
        yield case


def fieldtrip_here(folder: Path) -> Iterator[Case]:
    with FieldTripServer(n_samples=1000) as server:
        client = Client("127.0.0.1", server.port)
        client.connect()
        yield from fieldtrip(client, server.port, server.close)


def fieldtrip_elsewhere(folder: Path) -> Iterator[Case]:
    with Buffer(n_samples=1000) as buffer:
        yield from fieldtrip(buffer.client(), buffer.port, buffer.kill)


def fieldtrip(client: Client, port: int, end: Callable[[], None]) -> Iterator[Case]:
    """Fifty blocks at the pace of an amplifier, as clocks fitted to arrival expect them."""
    names = wire.HeaderChunk(wire.ChunkType.CHANNEL_NAMES, b"A\0B\0TRIG\0")
    flags = wire.HeaderChunk(wire.ChunkType.CHANNEL_FLAGS, b"eeg_trigger\0\1\1\2")
    client.put_header(wire.Header(3, 0, 0, 500.0, wire.DataType.INT16, (names, flags)))
    source = FieldTripSource(
        "127.0.0.1",
        port,
        declare=Declare(unit="uV"),
        triggers=[TriggerRule("TRIG")],
        timeout_s=20,
        lateness_s=60,
        end_when_lost=True,
    )
    values = np.column_stack([VALUES[:, :2], np.repeat([0, 5, 0, 7, 0], 100)])
    case = Case(source, live=True, within=1.0)
    case.samples = np.column_stack([VALUES[:, :2] * 1e-6, values[:, 2]]).astype(np.float32)

    def play() -> None:
        began = hostclock.now()
        for k in range(50):
            part = values[10 * k : 10 * k + 10]
            while hostclock.now() < began + 0.02 * (k + 1):
                time.sleep(0.001)
            assert client.put_samples(wire.Block.of(part, wire.DataType.INT16))
            if k == 5:
                assert client.put_events([wire.Event(wire.Value.of("go"), wire.Value.of("left"), 55)])
            read(10 * k + 10)
        assert client.put_events([wire.Event(wire.Value.of("stop"), wire.Value.of([3, 4]), 495)])
        quiet = 0
        while quiet < 5 or not any(m.value == "stop/3,4" for b in case.batches for m in b.markers):
            batch = source.read(5.0)
            assert batch is not None
            case.batches.append(batch)
            quiet += batch.chunk is None
        stamps = np.concatenate([b.chunk.stamps for b in case.batches if b.chunk is not None])
        case.markers = [(stamps[100], "5"), (stamps[300], "7"), (stamps[55], "go/left"), (stamps[495], "stop/3,4")]
        client.close()
        end()

    def read(until: int) -> None:
        while sum(len(b.chunk) for b in case.batches if b.chunk is not None) < until:
            batch = source.read(5.0)
            assert batch is not None
            case.batches.append(batch)

    case.play = play
    yield case


def zmq_here(folder: Path) -> Iterator[Case]:
    """The project's own sender, in this process."""
    channels = (Channel("A", "eeg", "V"), Channel("B", "eeg", "V"), Channel("TRIG", "stim", "1"))
    info = StreamInfo(channels, 100.0, "test")
    with ZmqSender(info, "amp", "tcp://127.0.0.1:0", clock="here") as sender:
        source = ZmqSource(sender.endpoint, triggers=[TriggerRule("TRIG")], timeout_s=20, clock="here")

        def send(samples: NDArray[np.float32], stamps: NDArray[np.float64], index: int) -> None:
            sender._push(Chunk(samples.astype(np.float32), stamps, index))

        yield from zmq_case(
            source,
            lambda: sender.wait_for_consumers(20.0),
            send,
            lambda value, stamp, index: sender._mark(value, stamp),
            sender.drain,
            scale=1e-6,
        )


def zmq_elsewhere(folder: Path) -> Iterator[Case]:
    """A script that knows nothing of rtdecode, in another process: whole numbers, markers by the sample."""
    types = ["eeg", "eeg", "stim"]
    with ZmqOutlet(channels=["A", "B", "TRIG"], types=types, unit="uV", dtype=">i2", sfreq=500.0) as outlet:
        source = ZmqSource(outlet.endpoint, triggers=[TriggerRule("TRIG")], timeout_s=20, lateness_s=60)
        yield from zmq_case(
            source,
            outlet.joined,
            lambda samples, stamps, index: outlet.push(samples, index=index, stamp=float(stamps[0])),
            lambda value, stamp, index: outlet.send(kind="marker", value=value, index=index),
            lambda: outlet.send(kind="end"),
            within=1.0,
            sfreq=500.0,
        )


def zmq_rtdecode(folder: Path) -> Iterator[Case]:
    """What another machine's acquire publishes, and its log."""
    channels = (Channel("A", "eeg", "V"), Channel("B", "eeg", "V"), Channel("TRIG", "stim", "1"))
    with Shared(StreamInfo(channels, 100.0, "test"), folder) as shared:
        source = RemoteSource(shared.endpoint, triggers=[TriggerRule("TRIG")], timeout_s=20)
        marks: list[Marker] = []

        def send(samples: NDArray[np.float32], stamps: NDArray[np.float64], index: int) -> None:
            chunk = Chunk(samples.astype(np.float32), stamps, index, arrived=hostclock.now())
            shared.send(Batch(chunk, marks, hostclock.now() - 0.5))
            marks.clear()

        yield from zmq_case(
            source,
            lambda: None,
            send,
            lambda value, stamp, index: marks.append(Marker(stamp, value, "cues")),
            lambda: shared.send(Batch(None, marks, hostclock.now()), end=True),
            scale=1e-6,
        )


def zmq_case(
    source: ZmqSource | RemoteSource,
    joined: Callable[[], object],
    send: Callable[[NDArray[np.float32], NDArray[np.float64], int], object],
    mark: Callable[[str, float, int], object],
    end: Callable[[], object],
    *,
    scale: float = 1.0,
    within: float = 2e-3,
    sfreq: float = 100.0,
) -> Iterator[Case]:
    """Five hundred samples with twenty missing, two trigger codes and two markers; at its pace on an unknown clock."""
    values = np.column_stack([VALUES[:, :2] * scale, np.repeat([0, 5, 0, 7, 0], 100)])
    case = Case(source, live=True, holes=[(300, 320)], within=within)
    case.samples = np.column_stack([VALUES[:, :2] * 1e-6, values[:, 2]]).astype(np.float32)
    paced = within > 0.1
    zero = hostclock.now() - (0.0 if paced else 520 / sfreq)
    index = np.concatenate([np.arange(300), np.arange(320, 520)])

    def play_first() -> None:
        joined()
        send(values[:50], zero + index[:50] / sfreq, 0)

    thread = threading.Thread(target=play_first)
    thread.start()

    def play() -> None:
        thread.join()
        began = hostclock.now()
        mark("go", zero + 512 / sfreq, 512)
        for begin in range(50, 500, 50):
            while paced and hostclock.now() < began + begin / sfreq:
                time.sleep(0.001)
            send(values[begin : begin + 50], zero + index[begin : begin + 50] / sfreq, int(index[begin]))
        mark("stop", zero + 515 / sfreq, 515)
        while sum(len(b.chunk) for b in case.batches if b.chunk is not None) < 500:
            batch = source.read(5.0)
            assert batch is not None
            case.batches.append(batch)
        while (batch := source.read(0.05)) is not None:
            case.batches.append(batch)
            if batch.chunk is None and not batch.markers:
                break
        stamps = np.concatenate([b.chunk.stamps for b in case.batches if b.chunk is not None])
        marks = [(stamps[492], "go"), (stamps[495], "stop")]
        case.markers = [(stamps[100], "5"), (stamps[300], "7"), *marks]
        end()

    case.play = play
    yield case


FILES = (fif, edf, edf_discontinuous, bdf, gdf, brainvision, eeglab, xdf, simulated)


FIELDTRIP = ("fieldtrip_here", "fieldtrip_elsewhere")
ZMQ = ("zmq_here", "zmq_elsewhere", "zmq_rtdecode")


@pytest.fixture(scope="module", params=[*(make.__name__ for make in FILES), *FIELDTRIP, *ZMQ, "lsl"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """A case that has been played to its end."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "lsl":
        cases = lsl(folder, request.getfixturevalue("lsl_here"))
    elif request.param in (*FIELDTRIP, *ZMQ):
        cases = getattr(sys.modules[__name__], request.param)(folder)
    else:
        cases = iter([getattr(sys.modules[__name__], request.param)(folder)])
    for one in cases:
        one.info = one.source.open()
        one.play()
        while (batch := one.source.read(5.0)) is not None:
            one.batches.append(batch)
        one.again = [one.source.read(0.0), one.source.read(0.1)]
        one.source.close()
        one.source.close()
        one.again.append(one.source.read(0.0))
        yield one


def test_info_is_complete(case: Case) -> None:
    names = case.info.names
    assert len(set(names)) == len(names)
    assert case.info.sfreq > 0
    assert case.info.source
    for channel in case.info.channels:
        assert channel.unit in (("V", "T", "T/m") if channel.type in DATA_TYPES else ("V", "1"))


def test_chunks_are_sound_and_contiguous(case: Case) -> None:
    chunks = [batch.chunk for batch in case.batches if batch.chunk is not None]
    for chunk in chunks:
        chunk.check(len(case.info.channels))
        assert chunk.samples.flags.c_contiguous
        assert math.isfinite(chunk.arrived) == case.live
    holes = []
    for before, behind in itertools.pairwise(chunks):
        assert behind.stamps[0] > before.stamps[-1]
        if behind.first_index != before.stop_index:
            holes.append((before.stop_index, behind.first_index))
    assert chunks[0].first_index == 0
    assert holes == case.holes


def test_stamps_follow_the_index(case: Case) -> None:
    chunks = [batch.chunk for batch in case.batches if batch.chunk is not None]
    index = np.concatenate([np.arange(c.first_index, c.stop_index) for c in chunks])
    stamps = np.concatenate([c.stamps for c in chunks])
    assert np.abs(stamps - stamps[0] - index / case.info.sfreq).max() < case.within
    if not case.live:
        assert abs(stamps[0]) < 2e-3


def test_samples_are_the_files(case: Case) -> None:
    if case.samples is None:
        pytest.skip("what this source gives is known by its own tests")
    given = np.concatenate([batch.chunk.samples for batch in case.batches if batch.chunk is not None])
    # One unit in the last place: readers multiply by gain and unit in another order than the test does.
    np.testing.assert_allclose(given, case.samples, rtol=2e-7, atol=0)


def test_every_marker_once_and_before_the_watermark_passes(case: Case) -> None:
    passed = -math.inf
    given: list[Marker] = []
    for batch in case.batches:
        for marker in batch.markers:
            assert marker.stamp > passed
            assert marker.stream
        given += batch.markers
        assert batch.watermark >= passed
        passed = batch.watermark
    if case.markers is not None:
        expected = sorted(case.markers)
        assert [marker.value for marker in sorted(given)] == [value for _, value in expected]
        stamps = [marker.stamp for marker in sorted(given)]
        np.testing.assert_allclose(stamps, [stamp for stamp, _ in expected], atol=case.within / 2, rtol=0)
    last = max((marker.stamp for marker in given), default=-math.inf)
    newest = max(batch.chunk.stamps[-1] for batch in case.batches if batch.chunk is not None)
    assert passed >= max(last, newest)


def test_the_end_lasts(case: Case) -> None:
    assert case.again == [None, None, None]


def test_an_empty_read_is_an_empty_batch(case: Case) -> None:
    for batch in case.batches:
        if batch.chunk is None and not batch.markers:
            assert case.live or batch.watermark == math.inf
            return
    assert not case.live, "reading with nothing there must give a batch without chunk and markers"
