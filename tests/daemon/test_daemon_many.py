"""Several streams and pipelines in few processes: each window once, the same bytes, whatever dies meanwhile."""

import contextlib
import itertools
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq
from daemon_kit import Session, children, endpoints_of, expected_windows, wait_for, window_key

from rtdecode.daemon.bus import Follow, Leave
from rtdecode.daemon.rpc import Client
from rtdecode.decoder import Decoder
from rtdecode.encode.bundle import Bundle, write_bundle
from rtdecode.encode.engines import make_engine
from rtdecode.encode.manifest import ClassifyHead
from rtdecode.encode.onnx import OnnxEngine
from rtdecode.sources.recording import RecordingSource
from rtdecode.wire.messages import Description, Event, Window
from rtdecode.wire.payload import payload_digest
from rtdecode.wire.results import ResultWriter
from rtdecode.wire.subscriber import Subscriber
from rtdecode_export.incremental.recompile import compile_bundle

sys.path.insert(0, str(Path(__file__).parents[1]))

from incremental_kit import Net
from lsl_outlet import Outlet

pytestmark = pytest.mark.timeout(150)


def simulated(session: Session, n: int, *, seconds: float, more: str = "", pipelines: str = "") -> Path:
    """`n` simulated subjects, each decoded by a pipeline of its own, all in one *acquire* and one *decode*."""
    sources = "".join(f'[sources.s{k}]\nkind = "simulated"\nseconds = {seconds}\nseed = {k}\n' for k in range(1, n + 1))
    path: Path = session.folder / "session.toml"
    path.write_text(
        f'{sources}[processes]\ndecode = 1\n{more}\n[pipelines.p]\nbundle = "bundle"\npublish = "ipc://p.out"\n'
        f'source = "*"\n{pipelines}\n'
    )
    return path


class Everything:
    """What all pipelines of a process publish, on its one endpoint: windows and events by pipeline."""

    def __init__(self, endpoint: str) -> None:
        self.windows: dict[str, list[tuple[Window, dict[str, Any]]]] = {}
        self.events: dict[str, list[Event]] = {}
        #: Which pipeline published each, in the order in which they came.
        self.order: list[str] = []
        self._stop = threading.Event()
        self._described: set[str] = set()
        self._subscriber = Subscriber(endpoint)
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        while not self._stop.is_set():
            received = self._subscriber.receive(timeout=0.05)
            if received is None:
                continue
            message = received.message
            if isinstance(message, Window) and not message.retained:
                self.order.append(message.pipeline)
                self.windows.setdefault(message.pipeline, []).append((message, dict(received.arrays)))
            elif isinstance(message, Event) and not message.retained:
                self.events.setdefault(message.pipeline or message.origin, []).append(message)
            elif isinstance(message, Description):
                self._described.add(message.pipeline)

    def described(self, n: int) -> "Everything":
        """Wait until so many pipelines are known: nothing of theirs is missed from here on."""
        wait_for(lambda: len(self._described) >= n, f"{n} pipelines", 60.0)
        return self

    def keys(self, pipeline: str) -> list[tuple[Any, ...]]:
        return [window_key(message) for message, _ in list(self.windows.get(pipeline, ()))]

    def digests(self, pipeline: str) -> dict[tuple[Any, ...], str]:
        found = list(self.windows.get(pipeline, ()))
        return {window_key(message): payload_digest(message, arrays) or "" for message, arrays in found}

    def told(self, pipeline: str, event: str) -> list[Event]:
        return [one for one in list(self.events.get(pipeline, ())) if one.event == event]

    def ended(self, *pipelines: str) -> None:
        wait_for(lambda: all(self.told(one, "end") for one in pipelines), "the end of all")

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._subscriber.close()


@pytest.fixture
def everything(session: Session) -> Any:
    one = Everything(session.out())
    yield one
    one.close()


def test_four_streams_in_one_process_give_what_replays_of_each_give(session: Session, everything: Everything) -> None:
    bundle = session.bundle(locked=True)
    config = simulated(session, 4, seconds=3)
    run = session.start("run", str(config), "--hold", "1")
    everything.described(4)
    assert f"decode.1=ipc://{session.folder}/p.out" in run.ready()
    assert set(children(run.pid)) == {"acquire", "decode.1"}
    status = session.ask(config, "status")
    assert list(status) == ["acquire", "p-s1", "p-s2", "p-s3", "p-s4"]
    assert set(status["acquire"]["sources"]) == {"s1", "s2", "s3", "s4"}
    assert status["acquire"]["sources"]["s3"]["decoders"] == ["p-s3"]
    assert (status["p-s2"]["reads"], status["p-s2"]["host"], status["p-s2"]["beside"]) == ("s2", "decode.1", 3)
    go(session, config, "s1")
    assert run.end() == 0, run.text
    everything.ended("p-s1", "p-s2", "p-s3", "p-s4")
    for k in range(1, 5):
        assert everything.digests(f"p-s{k}") == expected_windows(bundle, seconds=3, seed=k)
        assert len(everything.keys(f"p-s{k}")) == len(set(everything.keys(f"p-s{k}")))


def go(session: Session, config: Path, source: str) -> None:
    """Let the sources start that were told to hold for one more."""
    with zmq.Context() as context:
        client = Client(context, endpoints_of(session, config).log, "acquire")
        client.ask(Follow(name="test", source=source), 5.0)
        client.ask(Leave(name="test", source=source), 5.0)
        client.close()


def test_a_killed_process_restarts_all_that_it_hosts_and_nothing_is_missing_or_doubled(
    session: Session, everything: Everything
) -> None:
    bundle = session.bundle()
    config = simulated(session, 2, seconds=6)
    run = session.start("run", str(config), "--hold", "1")
    everything.described(2)
    run.ready()
    go(session, config, "s1")
    wait_for(lambda: min(len(everything.keys(f"p-s{k}")) for k in (1, 2)) > 8, "windows")
    before = children(run.pid)
    before["decode.1"].kill()
    after = wait_for(
        lambda: (c := children(run.pid)).get("decode.1") not in (None, before["decode.1"]) and c, "a new process"
    )
    assert after["acquire"] == before["acquire"]
    assert run.end() == 0, run.text
    everything.ended("p-s1", "p-s2")
    for k in (1, 2):
        keys, expected = everything.keys(f"p-s{k}"), expected_windows(bundle, seconds=6, seed=k)
        assert len(keys) == len(set(keys))
        assert set(keys) == set(expected)
        found = everything.digests(f"p-s{k}")
        assert all(found[key] == expected[key] for key in keys)


def test_a_backlog_is_worked_off_in_turns(session: Session, everything: Everything) -> None:
    session.bundle()
    config = simulated(session, 2, seconds=8)
    run = session.start("run", str(config), "--hold", "1")
    everything.described(2)
    run.ready()
    go(session, config, "s1")
    wait_for(lambda: len(everything.order) > 6, "windows")
    process = children(run.pid)["decode.1"]
    process.suspend()
    seen = len(everything.order)
    acquire = lambda: session.status(config, "acquire")["sources"]  # noqa: E731
    reached = acquire()["s2"]["next_index"] + 750
    wait_for(lambda: acquire()["s2"]["next_index"] > reached, "three seconds of samples")
    process.resume()
    wait_for(lambda: len(everything.order) > seen + 50, "what was due meanwhile")
    runs = [len(list(group)) for _, group in itertools.groupby(everything.order[seen : seen + 50])]
    assert max(runs) <= 10, runs
    assert run.terminate() == 0, run.text


def test_two_live_streams_are_decoded_and_recorded_apart(
    session: Session, everything: Everything, lsl_config: Path
) -> None:
    bundle = session.bundle(channels=("A", "B"))
    sources = ""
    with contextlib.ExitStack() as stack:
        for name in ("left", "right"):
            outlet = stack.enter_context(contextlib.closing(Outlet(lsl_config, sfreq=250.0, pace="keep")))
            sources += f'[sources.{name}]\nkind = "lsl"\nname = "{outlet.name}"\n'
        config = session.folder / "session.toml"
        config.write_text(
            f'{sources}[processes]\ndecode = 1\n[recording]\ndir = "recorded"\n[pipelines.p]\nbundle = "bundle"\n'
            'publish = "ipc://p.out"\nsource = ["left", "right"]\n'
        )
        run = session.start("run", str(config), LSLAPICFG=str(lsl_config))
        everything.described(2)
        run.ready()
        wait_for(lambda: min(len(everything.keys(f"p-{one}")) for one in ("left", "right")) > 10, "windows")
        assert run.terminate() == 0, run.text
    everything.ended("p-left", "p-right")
    for name in ("left", "right"):
        (file,) = (session.folder / "recorded").glob(f"*acq-{name}_*.xdf")
        expected = replayed(bundle, file)
        found = everything.digests(f"p-{name}")
        assert found
        assert all(expected[key] == digest for key, digest in found.items())


def test_a_lost_stream_comes_back_and_the_others_never_notice(
    session: Session, everything: Everything, lsl_config: Path
) -> None:
    session.bundle(channels=("A", "B"))
    with contextlib.ExitStack() as stack:
        outlets = {
            name: stack.enter_context(contextlib.closing(Outlet(lsl_config, sfreq=250.0, pace="keep")))
            for name in ("left", "right")
        }
        config = session.folder / "session.toml"
        config.write_text(
            "".join(f'[sources.{name}]\nkind = "lsl"\nname = "{one.name}"\n' for name, one in outlets.items())
            + '[processes]\ndecode = 1\n[pipelines.p]\nbundle = "bundle"\npublish = "ipc://p.out"\nsource = "*"\n'
        )
        run = session.start("run", str(config), LSLAPICFG=str(lsl_config))
        everything.described(2)
        run.ready()
        wait_for(lambda: everything.keys("p-left") and everything.keys("p-right"), "windows")
        outlets["left"].kill()
        outlets["left"].restart()
        wait_for(lambda: any(key[1] == 1 for key in everything.keys("p-left")), "windows of another segment")
        assert everything.told("p-left", "reconnect")
        assert run.terminate() == 0, run.text
    everything.ended("p-left", "p-right")
    assert {key[1] for key in everything.keys("p-right")} == {0}
    assert not everything.told("p-right", "reconnect")


def replayed(bundle: Path, file: Path) -> dict[tuple[Any, ...], str]:
    """Payload digest of every window of a recorded session."""
    opened = Bundle.open(bundle)
    engine = make_engine(opened)
    with RecordingSource(file, stream=None) as source:
        decoder = Decoder.from_bundle(opened, source.info, engine)
        writer = ResultWriter("p", opened.id, decoder)
        results = []
        while (batch := source.read(1.0)) is not None:
            results += decoder.push(batch.chunk, batch.markers, batch.watermark)
    messages = [writer.write(result) for result in results]
    return {window_key(message): payload_digest(message, arrays) or "" for message, arrays in messages}


def test_what_cannot_be_done_in_time_is_refused_with_figures(session: Session) -> None:
    session.bundle(work=1200, hop=0.01)
    config = simulated(session, 2, seconds=3)
    checked = session.start("check", str(config))
    assert checked.end() == 2
    assert "windows/s" in checked.text
    assert "pipelines.p-s1" in checked.text
    run = session.start("run", str(config))
    assert run.end() == 2, run.text
    assert "is predicted to take" in run.text


# --- one stream, several pipelines ------------------------------------------------------------------------------------


def convolutional(session: Session, folder: str, labels: tuple[str, ...]) -> Path:
    """A bundle whose encoder works while it listens; bundles of other labels have the same prefix."""
    plain = Bundle.open(session.bundle(f"plain-{folder}"))
    golden = plain.array(plain.manifest.golden.windows)
    net = Net(*golden.shape[1:], 3, "x")
    net.x = net.add("Mul", [net.x, net.constant(1e5)])
    net.conv(5, 1, 1, (0, 0), 6)
    net.x = net.add("Elu", [net.x])
    files: dict[str, Any] = {name: plain.read(name) for name in plain.files if name != "manifest.json"}
    files["encoder.onnx"] = net.end("flat", "logits", 3)
    engine = OnnxEngine(files["encoder.onnx"])
    files["expected.npy"] = np.stack([engine.finish(window, 0)["logits"] for window in golden])
    head = ClassifyHead(output="logits", labels=labels)
    path: Path = session.folder / folder
    write_bundle(path, msgspec.structs.replace(plain.manifest, heads=(head,)), files)
    compile_bundle(path)
    return path


def test_pipelines_on_one_stream_run_a_prefix_once_and_give_what_each_gives_alone(
    session: Session, everything: Everything
) -> None:
    bundle, other = convolutional(session, "bundle", ("a", "b", "c")), convolutional(session, "other", ("d", "e", "f"))
    config = session.folder / "session.toml"
    pipelines = {"first": "bundle", "second": "bundle", "third": "other"}
    config.write_text(
        '[session]\nexit_at_end = false\n[source]\nkind = "simulated"\nseconds = 6\nseed = 1\n[processes]\ndecode = 1\n'
        + "".join(
            f'[pipelines.{name}]\nbundle = "{folder}"\npublish = "ipc://p.out"\n' for name, folder in pipelines.items()
        )
    )
    run = session.start("run", str(config), "--hold", "1")
    everything.described(3)
    run.ready()
    engines = lambda: [one["engine"] for one in session.status(config, "first")["pipelines"].values()]  # noqa: E731
    assert [one["prefix_shared_with"] for one in engines()] == ["second, third", "first, third", "first, second"]
    go(session, config, "")
    wait_for(lambda: len(everything.keys("second")) > 8, "windows")
    before = engines()
    assert (
        sum(one["prefix_samples_run"] for one in before)
        == max(one["prefix_samples_run"] + one["prefix_samples_found"] for one in before)
        > 0
    )
    assert sum(one["windows_found"] for one in before) > 0
    session.ask(config, "swap", "second", str(other))
    wait_for(lambda: engines()[1]["prefix_shared_with"], "the new bundle's sharing")
    everything.ended(*pipelines)
    found = engines()
    assert run.terminate() == 0, run.text
    expected, new = (expected_windows(one, seconds=6, seed=1) for one in (bundle, other))
    assert everything.digests("first") == expected
    assert everything.digests("third") == new
    assert everything.keys("second") == list(expected)
    assert all(digest in (expected[key], new[key]) for key, digest in everything.digests("second").items())
    heard = {one["prefix_samples_run"] + one["prefix_samples_found"] for one in (found[0], found[2])}
    assert heard == {6 * 250}
    assert found[0]["prefix_samples_run"] + found[2]["prefix_samples_run"] <= 6 * 250
