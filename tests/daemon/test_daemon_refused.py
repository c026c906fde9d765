"""What cannot run says so: which process, which key, which channel; with its own exit code, and nothing left behind."""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import zmq
from daemon_kit import NAMES, SFREQ, Session, wait_for

pytestmark = pytest.mark.timeout(120)

SENDER = """
import sys, time
import pylsl
info = pylsl.StreamInfo("eeg-of-the-test", "EEG", 4, 250.0, "float32", "id-1")
channels = info.desc().append_child("channels")
for name in ("A1", "A2", "A3", "A4"):
    channel = channels.append_child("channel")
    channel.append_child_value("label", name)
    channel.append_child_value("type", "EEG")
    channel.append_child_value("unit", "microvolts")
outlet = pylsl.StreamOutlet(info)
print("up", flush=True)
while True:
    outlet.push_sample([0.0] * 4)
    time.sleep(0.004)
"""


@pytest.fixture
def sender(lsl_config: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SENDER], env={"LSLAPICFG": str(lsl_config)}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def assert_refused(session: Session, config: Path, code: int, *words: str, **env: str) -> None:
    run = session.start("run", str(config), **env)
    assert run.end(60) == code, run.text
    for word in words:
        assert word in run.text
    assert "Traceback" not in run.text


def test_a_stream_that_is_not_the_bundle_s(session: Session) -> None:
    session.bundle(channels=(*NAMES[:-1], "Nz"))
    config = session.config(source='kind = "simulated"')
    assert_refused(session, config, 4, "Nz", NAMES[-1])


def test_channels_by_name_takes_what_strict_refuses(session: Session) -> None:
    session.bundle(channels=(NAMES[5], NAMES[2]))
    config = session.config(pipelines={"p": 'channels = "by-name"'}, source='kind = "simulated"\nseconds = 1')
    run = session.start("run", str(config))
    assert run.end(60) == 0, run.text
    assert "windows=9" in run.text


def test_a_damaged_bundle(session: Session) -> None:
    bundle = session.bundle()
    data = bytearray((bundle / "golden.npy").read_bytes())
    data[-1] ^= 1
    (bundle / "golden.npy").write_bytes(data)
    assert_refused(session, session.config(), 5, "golden.npy")


def test_an_unknown_provider_and_an_unknown_key(session: Session) -> None:
    session.bundle()
    config = session.config(pipelines={"p": 'provider = "tensorflow"\nbudget = 5'})
    assert_refused(session, config, 2, "tensorflow", "cuda", "budget_ms")


def test_a_port_in_use(session: Session) -> None:
    session.bundle()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = session.config(source='kind = "simulated"')
        config.write_text(config.read_text().replace("ipc://p.out", f"tcp://127.0.0.1:{port}"))
        assert_refused(session, config, 7, str(port), "in use")


def test_a_second_run_of_the_same_session_leaves_the_first_alone(session: Session) -> None:
    session.bundle()
    config = session.config(source='kind = "simulated"')
    first = session.start("run", str(config))
    listener = session.listen().connected()
    first.ready()
    assert_refused(session, config, 7, "in use")
    seen = len(listener.windows)
    wait_for(lambda: len(listener.windows) > seen + 5, "windows of the first")
    assert first.terminate() == 0, first.text


def test_a_recording_that_is_not_there(session: Session) -> None:
    session.bundle()
    config = session.config(source='kind = "recording"\npath = "nothing.edf"')
    assert_refused(session, config, 3, "nothing.edf")


def test_no_such_stream_lists_the_visible_ones(
    session: Session, lsl_config: Path, sender: subprocess.Popen[str]
) -> None:
    session.bundle()
    config = session.config(source='kind = "lsl"\nname = "another"\ntimeout_s = 1')
    assert_refused(session, config, 3, "another", "eeg-of-the-test", LSLAPICFG=str(lsl_config))


def test_a_sender_that_dies_ends_the_session_with_what_was_decoded(
    session: Session, lsl_config: Path, sender: subprocess.Popen[str]
) -> None:
    session.bundle(channels=("A1", "A2", "A3", "A4"))
    config = session.config(source='kind = "lsl"\nname = "eeg-of-the-test"\nend_when_lost = true')
    run = session.start("run", str(config), LSLAPICFG=str(lsl_config))
    listener = session.listen().connected()
    run.ready()
    wait_for(lambda: len(listener.windows) > 5, "windows")
    sender.kill()
    assert session.end(run) == 0, run.text
    assert listener.event("end")
    assert listener.health[-1].due == sum(listener.health[-1].counts.values()) >= len(listener.windows)


def test_windows_out_of_budget_are_late_or_only_say_so(session: Session) -> None:
    session.bundle()
    budget = "budget_ms = 0.001"
    config = session.config(
        source='kind = "simulated"\nseconds = 2',
        pipelines={"mark": budget, "keep": f'{budget}\non_late = "keep"'},
    )
    run = session.start("run", str(config), "--hold", "1")
    listeners = {name: session.listen(name).connected() for name in ("mark", "keep")}
    run.ready()
    session.go(config)
    assert session.end(run) == 0, run.text
    for name, status, met in [("mark", "late", False), ("keep", "ok", False)]:
        messages = [message for message, _ in listeners[name].windows]
        assert {(message.status, message.ledger.met) for message in messages} == {(status, met)}
        assert listeners[name].health[-1].counts[status] == len(messages) == 19
    assert listeners["mark"].digests() == listeners["keep"].digests()


def test_decode_without_acquire_says_whom_it_misses(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    from rtdecode.config import load
    from rtdecode.daemon import decode as module
    from rtdecode.daemon.process import Stop
    from rtdecode.errors import ProcessError

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(session.folder))
    monkeypatch.setattr(module, "ACQUIRE_TIMEOUT_S", 0.2)
    session.bundle()
    config = session.config(source='kind = "simulated"')
    stop = Stop()
    with pytest.raises(ProcessError, match="acquire does not answer"):
        module.Decode(load(config), "p", stop).run(lambda _: None)
    stop.request("a test")  # and to be asked to stop while it waits is no fault
    module.Decode(load(config), "p", stop).run(lambda _: pytest.fail("not ready"))
    stop.close()


def test_a_subscriber_that_does_not_read_holds_nobody_up(session: Session) -> None:
    session.bundle(hop=0.004)
    config = session.config(source='kind = "simulated"\nseconds = 60\nspeed = 20', pipelines={"p": "hwm = 5"})
    run = session.start("run", str(config), "--hold", "1")
    with zmq.Context() as context, context.socket(zmq.SUB) as deaf:
        deaf.setsockopt(zmq.RCVHWM, 1)
        deaf.setsockopt(zmq.LINGER, 0)
        deaf.subscribe(b"")
        deaf.connect(session.out())
        assert deaf.poll(10_000)
        run.ready()
        session.go(config)
        assert run.end(60) == 0, run.text
    # With room for five messages any subscriber may lose the last ones; the process's own account does not.
    (account,) = [line for line in run.errors if "[info     ] done" in line]
    assert f"windows={250 * 60 - 49}" in account
    (dropped,) = re.findall(r"dropped=(\d+)", account)
    assert int(dropped) > 0


def test_everything_is_gone_after_the_end(session: Session) -> None:
    session.bundle()
    config = session.config(source='kind = "simulated"\nseconds = 1', bus=f'dir = "{session.folder}/mine"')
    (session.folder / "mine").mkdir()
    (session.folder / "mine" / "notes.txt").write_text("the user's own")
    run = session.start("run", str(config))
    run.ready()
    before = psutil.Process(run.pid).children(recursive=True)
    assert len(before) >= 2
    assert run.end(60) == 0, run.text
    assert not any(one.is_running() for one in before)
    assert [one.name for one in (session.folder / "mine").iterdir()] == ["notes.txt"]


def test_a_folder_that_takes_no_recording(session: Session) -> None:
    session.bundle()
    (session.folder / "rec").write_text("in the way")
    config = session.config(source='kind = "simulated"\nseconds = 1')
    config.write_text(config.read_text() + '[recording]\ndir = "rec"\nmin_free_mb = 0\n')
    run = session.start("run", str(config))
    assert run.end(60) == 2, run.text
    assert not [line for line in run.lines if line.startswith("READY")]
    assert "recording.dir" in run.text
    assert str(session.folder / "rec") in run.text
    assert "Traceback" not in run.text


def test_a_folder_that_takes_no_recording_ends_no_session_that_has_begun(session: Session) -> None:
    session.bundle()
    (session.folder / "rec").write_text("in the way")
    config = session.config(source='kind = "simulated"\nseconds = 1')
    config.write_text(config.read_text() + '[recording]\ndir = "rec"\nmin_free_mb = 0\n')
    acquire = session.start("acquire", str(config), "--resumed")
    assert acquire.end(60) == 9, acquire.text
    assert [line for line in acquire.lines if line.startswith("READY acquire")]
    assert "NOT RECORDING" in acquire.text
    assert f"{SFREQ:.0f} samples were not recorded" in acquire.text
