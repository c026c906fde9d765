"""Sources in trouble: real senders that are killed, paused and replaced, and what the daemon says and decodes."""

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lsl_outlet
import pytest
import zmq
from daemon_kit import SFREQ, Listener, Session, endpoints_of, wait_for

from rtdecode.daemon import bus
from rtdecode.wire.framing import decode
from rtdecode.wire.messages import Event, Samples

pytestmark = pytest.mark.timeout(400)

CHANNELS = [["A", "EEG", "uV"], ["B", "EEG", "uV"]]
WINDOW_S = 0.2
PATIENCE_S = 90.0  # of the tests, on any machine


class Happenings:
    """What *acquire* publishes of its source, collected by a thread."""

    def __init__(self, endpoint: str) -> None:
        self.events: list[Event] = []
        self.samples: list[Samples] = []
        self._endpoint = endpoint
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            for topic in (bus.EVENT_TOPIC, bus.SAMPLES_TOPIC):  # in this order: who hears samples hears events
                socket.setsockopt_string(zmq.SUBSCRIBE, topic)
            socket.connect(self._endpoint)
            while not self._stop.is_set():
                if not socket.poll(50):
                    continue
                _, message, _ = decode(socket.recv_multipart())
                if isinstance(message, Event):
                    self.events.append(message)
                elif isinstance(message, Samples) and message.arrays:
                    self.samples.append(message)

    def connected(self) -> None:
        wait_for(lambda: self.samples, "samples", PATIENCE_S)

    def said(self, what: str) -> list[Event]:
        return [event for event in list(self.events) if event.event == what]

    def states(self) -> list[Any]:
        return [event.details["state"] for event in self.said("state")]

    def after(self, n: int, *expected: str) -> list[Event]:
        """Wait until `expected` states have followed the first `n`, and nothing else; their events."""
        wait_for(lambda: len(self.states()) >= n + len(expected), f"{expected} after {self.states()}", PATIENCE_S)
        assert self.states()[n:] == list(expected)
        return self.said("state")[n:]

    def check(self) -> None:
        """No event is missing, doubled, or does not follow from the one before it."""
        assert [event.seq for event in self.events] == [self.events[0].seq + k for k in range(len(self.events))]
        states = self.said("state")
        for one, other in itertools.pairwise(states):
            assert other.details["previous"] == one.details["state"]
            assert other.stamp >= one.stamp

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def sender(lsl_config: Path) -> Iterator[Callable[..., lsl_outlet.Outlet]]:
    """Starts senders of two channels that send by themselves, and ends them with the test."""
    started: list[lsl_outlet.Outlet] = []

    def start(**spec: object) -> lsl_outlet.Outlet:
        started.append(lsl_outlet.Outlet(lsl_config, **{"sfreq": SFREQ, "channels": CHANNELS, "pace": "keep"} | spec))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def heard() -> Iterator[Callable[[Session, Path], Happenings]]:
    """Listens to *acquire*."""
    listening: list[Happenings] = []

    def listen(session: Session, config: Path) -> Happenings:
        listening.append(Happenings(endpoints_of(session, config).samples))
        return listening[-1]

    yield listen
    for one in listening:
        one.close()


def source(name: str, **more: str) -> str:
    # Two seconds: a busy machine keeps nobody waiting for so long who was not paused.
    keys = {"name": f'"{name}"', "timeout_s": f"{PATIENCE_S}", "stall_s": "2.0", **more}
    return 'kind = "lsl"\n' + "\n".join(f"{key} = {value}" for key, value in keys.items())


def number(event: Event, key: str) -> float:
    value = event.details[key]
    assert isinstance(value, int | float)
    return value


def age(window: Any) -> float:
    """Seconds from a window's newest sample to its arrival."""
    stamp, arrived = window.ledger.stamp, window.ledger.arrived
    return arrived - stamp if stamp is not None and arrived is not None else 0.0


def first_of(listener: Listener, segment: int) -> Any:
    """A segment's first good window."""

    def good() -> Any:
        return next((m for m, _ in list(listener.windows) if m.segment == segment and m.status == "ok"), None)

    return wait_for(good, f"a good window of segment {segment}", PATIENCE_S)


def test_a_sender_that_is_killed_paused_or_gone_without_a_word(
    session: Session,
    lsl_config: Path,
    sender: Callable[..., lsl_outlet.Outlet],
    heard: Callable[[Session, Path], Happenings],
) -> None:
    session.bundle(channels=("A", "B"))
    amp = sender()
    config = session.config(source=source(amp.name))
    run = session.start("run", str(config), LSLAPICFG=str(lsl_config))
    listener = session.listen().connected()
    run.ready()
    acquire = heard(session, config)
    acquire.connected()
    first_of(listener, 0)
    assert session.status(config, "acquire")["state"] == "streaming"
    n = len(acquire.states())

    # Killed, and back.
    amp.kill()
    amp.restart()
    lost, back = acquire.after(n, "recovering", "streaming")
    assert lost.details["previous"] == "streaming"
    assert amp.name in lost.text
    assert number(back, "found_s") >= 0
    assert number(back, "missing") > 0
    again = first_of(listener, 1)
    assert again.start == 0  # none of what came after it was found again is lost
    assert again.ledger.stamp - next(m for m in acquire.samples if m.segment == 1).arrived < WINDOW_S + 0.5
    assert len(acquire.said("reconnect")) == 1

    # Paused for two seconds and more, and what it held back comes late.
    amp.pause()
    acquire.after(n + 2, "stalled")
    amp.resume()
    stalled, on = acquire.after(n + 2, "stalled", "streaming")
    assert number(stalled, "silent_s") >= 2.0
    assert number(on, "silent_s") > number(stalled, "silent_s")
    assert number(on, "missing") == 0
    assert number(on, "behind_s") > 1.0
    assert not acquire.said("gap")
    wait_for(lambda: any(age(m) > 1 for m, _ in list(listener.windows)), "windows whose ledger tells how old they are")

    # Frozen, and another of the same identity takes its place.
    frozen, amp = amp, sender(**amp.spec)
    frozen.pause()
    stalled, lost, back = acquire.after(n + 4, "stalled", "recovering", "streaming")
    assert first_of(listener, 2).start == 0
    frozen.resume()
    frozen.kill()

    # The pipeline's own subscribers have heard all of it too.
    def passed_on() -> bool:
        states = [event.details["state"] for event in listener.event("state") if event.origin == "acquire"]
        return states[-7:] == acquire.states()[n:]

    wait_for(passed_on, "what the pipeline passes on", PATIENCE_S)
    assert run.terminate() == 0, run.text
    listener.finished()
    acquire.check()
    health = listener.health[-1]
    assert health.due == sum(health.counts.values())
    assert "state=recovering" in run.text


def test_a_sender_that_ends(
    session: Session,
    lsl_config: Path,
    sender: Callable[..., lsl_outlet.Outlet],
    heard: Callable[[Session, Path], Happenings],
) -> None:
    amp = sender()
    config = session.config(source=source(amp.name, end_when_lost="true"), pipelines={})
    run = session.start("acquire", str(config), LSLAPICFG=str(lsl_config))
    run.ready()
    acquire = heard(session, config)
    acquire.connected()
    n = len(acquire.states())
    amp.close()
    (ended,) = acquire.after(n, "ended")
    assert ended.details["previous"] == "streaming"
    assert run.end() == 0, run.text
    assert len(acquire.said("end")) == 1
    acquire.check()


def test_a_pause_that_lost_samples_is_counted(
    session: Session,
    lsl_config: Path,
    sender: Callable[..., lsl_outlet.Outlet],
    heard: Callable[[Session, Path], Happenings],
) -> None:
    amp = sender(pace="drop")
    config = session.config(source=source(amp.name), pipelines={})
    run = session.start("acquire", str(config), LSLAPICFG=str(lsl_config))
    run.ready()
    acquire = heard(session, config)
    acquire.connected()
    n = len(acquire.states())
    amp.pause()
    acquire.after(n, "stalled")
    amp.resume()
    _, on = acquire.after(n, "stalled", "streaming")
    gap = wait_for(lambda: acquire.said("gap"), "the gap")[0]
    # A chunk may have been on its way when the sender was paused: it comes first, and the hole behind it.
    assert number(on, "missing") in (0, number(gap, "n"))
    assert number(gap, "seconds") == number(gap, "n") / SFREQ > 1.5
    assert gap.details["segment"] == 0
    assert gap.details["late"] is False
    assert run.terminate() == 0, run.text
    acquire.check()


def test_a_sender_that_is_back_as_another_is_refused_with_the_difference_until_it_is_what_it_was(
    session: Session,
    lsl_config: Path,
    sender: Callable[..., lsl_outlet.Outlet],
    heard: Callable[[Session, Path], Happenings],
) -> None:
    amp = sender()
    spec = dict(amp.spec)
    config = session.config(source=source(amp.name), pipelines={})
    run = session.start("acquire", str(config), LSLAPICFG=str(lsl_config))
    run.ready()
    acquire = heard(session, config)
    acquire.connected()
    n = len(acquire.states())
    expected = ["recovering"]
    refusals: list[tuple[dict[str, object], str]] = [
        ({"sfreq": 500.0}, "rate: 500 Hz instead of 250 Hz"),
        ({"channels": [["A", "EEG", "uV"], ["Z", "EEG", "uV"]]}, "names of channels: 'Z' at place 2 instead of 'B'"),
        ({"channels": CHANNELS[::-1]}, "order of channels: 'B' at place 1 instead of 'A'"),
        ({"channels": [["A", "EEG", "uV"], ["B", "EEG", "mV"]]}, "unit of channel 'B': mV instead of uV"),
    ]
    for changed, difference in refusals:
        amp.kill()
        amp.restart(**spec | changed)
        expected.append("changed")
        refused = acquire.after(n, *expected)[-1]
        assert f"other {difference};" in refused.text
        assert str(refused.details["changed"]) == difference.partition(":")[0]
        assert session.status(config, "acquire")["state"] == "changed"
    amp.kill()
    amp.restart(**spec)
    expected.append("streaming")
    acquire.after(n, *expected)

    # A second of its name, while it sends; and then in its place.
    other = sender(name=amp.name, source_id="another")
    told = wait_for(lambda: acquire.said("second sender"), "the second sender", PATIENCE_S)
    assert "another" in told[0].text
    amp.kill()
    expected += ["recovering", "changed"]
    refused = acquire.after(n, *expected)[-1]
    assert f"other source_id: 'another' instead of '{spec['source_id']}'" in refused.text
    amp.restart()
    expected.append("streaming")
    acquire.after(n, *expected)
    assert {m.segment for m in acquire.samples} == {0, 1, 2}
    assert len(acquire.said("second sender")) == 1
    other.kill()
    assert run.terminate() == 0, run.text
    acquire.check()
