"""A file over real LSL, decoded live in processes of their own, against a replay of the same file: byte for byte."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest
from edfio import Edf, EdfAnnotation, EdfSignal

from rtdecode.encode.bundle import write_bundle
from rtdecode.encode.manifest import FORMAT, VERSION, ClassifyHead, Contract, ContractChannel, Encoder, Golden, Manifest
from rtdecode.signal import Channel
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.steps import Conditioning, Filter, Reference, Resample
from rtdecode.stream.window import Locked, Sliding, WindowSpec

COMMAND = [sys.executable, "-m", "rtdecode"]


def make_bundle(
    path: Path, channels: list[Channel], sfreq: float, windows: tuple[WindowSpec, ...], seed: int = 1
) -> Path:
    """A linear classifier of band-passed, re-referenced and resampled windows."""
    rng = np.random.default_rng(seed)
    steps = (Reference(), Filter(low=2.0, high=30.0), Resample(sfreq=sfreq * 0.75))
    conditioner = Conditioner(steps, channels, sfreq, {})
    time = windows[0].n_samples(conditioner.sfreq)
    weight = rng.standard_normal((time * len(channels), 2)).astype(np.float32) * 1e5
    golden = (1e-5 * rng.standard_normal((2, time, len(channels)))).astype(np.float32)
    manifest = Manifest(
        format=FORMAT,
        version=VERSION,
        name="end-to-end",
        created="2026-01-01T00:00:00Z",
        contract=Contract(
            channels=tuple(ContractChannel(name=c.name, type=c.type, unit=c.unit) for c in channels), sfreq=sfreq
        ),
        conditioning=Conditioning(stream=steps),
        windows=windows,
        encoder=Encoder(file="encoder.onnx", input="x", outputs=("logits",)),
        heads=(ClassifyHead(output="logits", labels=("left", "right"), markers={"left": ("T1",), "right": ("T2",)}),),
        golden=Golden(windows="golden/windows.npy", outputs={"logits": "golden/logits.npy"}, tolerance=1e-4),
    )
    files = {
        "encoder.onnx": bundles.linear({"logits": weight}, time, len(channels)),
        "golden/windows.npy": golden,
        "golden/logits.npy": (golden.reshape(2, -1).astype(np.float64) @ weight).astype(np.float32),
    }
    write_bundle(path, manifest, files)
    return path


def make_recording(path: Path) -> tuple[Path, list[Channel], float]:
    """12 s of 4 channels at 200 Hz, with a marker about every second, some between two samples."""
    rng = np.random.default_rng(0)
    sfreq, seconds = 200.0, 12
    names = ["C3", "Cz", "C4", "Pz"]
    signals = [
        EdfSignal(np.cumsum(rng.standard_normal(int(sfreq) * seconds)), sfreq, label=name, physical_dimension="uV")
        for name in names
    ]
    onsets = [0.1 + 0.97 * n for n in range(12)] + [11.9]
    Edf(signals, annotations=[EdfAnnotation(t, None, f"T{1 + n % 2}") for n, t in enumerate(onsets)]).write(path)
    return path, [Channel(name, "eeg", "V") for name in names], sfreq


@contextmanager
def process(*args: str, env: dict[str, str], out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A verb in a process of its own; killed if it is still there at the end."""
    with out.with_suffix(".err").open("wb") as err, out.open("wb") as stdout:
        child = subprocess.Popen([*COMMAND, *args], env=env, stdout=stdout, stderr=err)
        try:
            yield child
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
                try:
                    child.wait(20)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait(10)


def await_caller(port: int) -> None:
    """Until the listener calls: it is up then, and goes on calling until a pipeline answers."""
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(60)
        server.accept()[0].close()


def windows_of(lines: Path) -> list[dict[str, Any]]:
    """The window messages among lines of JSON."""
    messages = [json.loads(line) for line in lines.read_bytes().splitlines()]
    return [message for message in messages if message["type"] == "window"]


def identity(message: dict[str, Any]) -> tuple[Any, ...]:
    """What live and replay must share: the window's id, its data status, its payload."""
    return (message["window"], message["segment"], message["start"], message["status"], message["payload_sha256"])


def live_and_replay(
    tmp_path: Path, lsl_config: Path, recording: Path, bundle: Path, seconds: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Stream, run and listen in three processes; then replay. Returns the window messages of both."""
    port = 20000 + os.getpid() % 20000
    config = tmp_path / "session.toml"
    config.write_text(
        f'[session]\nname = "e2e"\n'
        f'[source]\nkind = "lsl"\nname = "e2e"\ntimeout_s = 60\nend_when_lost = true\nmarkers = [{{ name = "cues" }}]\n'
        f'[bus]\ndir = "{tmp_path}/bus"\n'
        f'[pipelines.p]\nbundle = "{bundle}"\npublish = "tcp://127.0.0.1:{port}"\n'
    )
    env = {**os.environ, "LSLAPICFG": str(lsl_config)}
    live, sent, ran = tmp_path / "live.jsonl", tmp_path / "stream.txt", tmp_path / "run.txt"
    listen = ("listen", f"tcp://127.0.0.1:{port}", "--format", "json", "--until-end", "--timeout", str(seconds + 90))
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(process(*listen, env=env, out=live))
        await_caller(port)
        daemon = stack.enter_context(process("run", str(config), env=env, out=ran))
        stream = ("stream", str(recording), "--name", "e2e", "--markers", "cues")
        sender = stack.enter_context(process(*stream, env=env, out=sent))
        assert sender.wait(seconds + 90) == 0, sent.with_suffix(".err").read_text()
        assert daemon.wait(60) == 0, ran.with_suffix(".err").read_text()
        assert listener.wait(30) == 0, live.with_suffix(".err").read_text()
    replayed = tmp_path / "replay.jsonl"
    subprocess.run(
        [*COMMAND, "replay", str(recording), "--bundle", str(bundle), "--out", str(replayed), "--json"],
        env=env,
        check=True,
        timeout=120,
        stdout=subprocess.PIPE,
    )
    return windows_of(live), windows_of(replayed)


def test_live_over_lsl_equals_replay(tmp_path: Path, lsl_config: Path) -> None:
    recording, channels, sfreq = make_recording(tmp_path / "short.edf")
    windows = (
        Locked(tmin=-0.1, tmax=0.9, markers=("T1", "T2")),
        Sliding(length=1.0, hop=0.13),
    )
    bundle = make_bundle(tmp_path / "bundle.zip", channels, sfreq, windows)
    live, replayed = live_and_replay(tmp_path, lsl_config, recording, bundle, 12)
    assert sorted(map(identity, live)) == sorted(map(identity, replayed))
    assert len({identity(message)[:3] for message in live}) == len(live) == 13 + 85
    # The last marker's window runs past the end of the recording.
    assert [m["status"] for m in live if m["status"] != "ok"] == ["gap"]
    ledger = next(m["ledger"] for m in live if m["status"] == "ok")
    assert ledger["stamp"] <= ledger["arrived"] <= ledger["received"] <= ledger["due"]
    assert ledger["due"] <= ledger["encoded"] <= ledger["published"]


def test_live_over_a_fieldtrip_buffer_equals_replay(tmp_path: Path) -> None:
    recording, channels, sfreq = make_recording(tmp_path / "short.edf")
    windows = (Locked(tmin=-0.1, tmax=0.9, markers=("T1", "T2")), Sliding(length=1.0, hop=0.13))
    bundle = make_bundle(tmp_path / "bundle.zip", channels, sfreq, windows)
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        buffer, port = one.getsockname()[1], other.getsockname()[1]
    config = tmp_path / "session.toml"
    config.write_text(
        f'[session]\nname = "e2e-fieldtrip"\n'
        f'[source]\nkind = "fieldtrip"\nhost = "127.0.0.1"\nport = {buffer}\ntimeout_s = 60\nend_when_lost = true\n'
        f"lateness_s = 5\n"
        f'[bus]\ndir = "{tmp_path}/bus"\n'
        f'[pipelines.p]\nbundle = "{bundle}"\npublish = "tcp://127.0.0.1:{port}"\n'
    )
    env = dict(os.environ)
    heard, ran, sent = tmp_path / "live.jsonl", tmp_path / "run.txt", tmp_path / "stream.txt"
    listen = ("listen", f"tcp://127.0.0.1:{port}", "--format", "json", "--until-end", "--timeout", "100")
    with (
        process(*listen, env=env, out=heard) as listener,
        process("run", str(config), env=env, out=ran) as daemon,
        process("stream", str(recording), "--fieldtrip", f"127.0.0.1:{buffer}", env=env, out=sent) as sender,
    ):
        assert sender.wait(100) == 0, sent.with_suffix(".err").read_text()
        assert daemon.wait(60) == 0, ran.with_suffix(".err").read_text()
        assert listener.wait(30) == 0, heard.with_suffix(".err").read_text()
    replay = [*COMMAND, "replay", str(recording), "--bundle", str(bundle), "--out", str(tmp_path / "replay.jsonl")]
    subprocess.run([*replay, "--json"], env=env, check=True, timeout=120, stdout=subprocess.PIPE)
    live, replayed = map(identity, windows_of(heard)), map(identity, windows_of(tmp_path / "replay.jsonl"))
    given, expected = set(live), set(replayed)
    # The first ones may be out before the listener is connected: the buffer is found faster than a process starts.
    assert given <= expected
    assert max(expected) in given


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_real_recording_live_over_lsl_equals_replay(tmp_path: Path, lsl_config: Path, shared_data: Path) -> None:
    recording = shared_data / "eegmmidb" / "S001" / "S001R14.edf"
    if not recording.exists():
        pytest.skip("eegmmidb/S001/S001R14.edf is not among the shared recordings")
    from rtdecode.sources.recording import RecordingSource

    with RecordingSource(recording) as source:
        channels, sfreq = list(source.info.channels), source.info.sfreq
    windows = (Locked(tmin=0.5, tmax=3.5, markers=("T1", "T2")), Sliding(length=3.0, hop=0.25))
    bundle = make_bundle(tmp_path / "bundle", channels, sfreq, windows)
    live, replayed = live_and_replay(tmp_path, lsl_config, recording, bundle, 125)
    assert sorted(map(identity, live)) == sorted(map(identity, replayed))
    assert sum(m["window"] == "locked" and m["status"] == "ok" for m in live) == 15
    assert sum(m["window"] == "sliding" for m in live) == 489
