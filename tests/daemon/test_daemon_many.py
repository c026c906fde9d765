"""Several streams and pipelines in few processes: each window once, the same bytes, whatever dies meanwhile."""

import threading
from pathlib import Path
from typing import Any

import pytest
from daemon_kit import Session, children, expected_windows, wait_for, window_key

from rtdecode.wire.messages import Event, Window
from rtdecode.wire.payload import payload_digest
from rtdecode.wire.subscriber import Subscriber

pytestmark = pytest.mark.timeout(150)


def simulated(session: Session, n: int, *, seconds: float, more: str = "", pipelines: str = "") -> Path:
    """`n` simulated subjects, each decoded by a pipeline of its own, all in one *acquire* and one *decode*."""
    sources = "".join(f'[sources.s{k}]\nkind = "simulated"\nseconds = {seconds}\nseed = {k}\n' for k in range(1, n + 1))
    path = session.folder / "session.toml"
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
                self.windows.setdefault(message.pipeline, []).append((message, dict(received.arrays)))
            elif isinstance(message, Event) and not message.retained:
                self.events.setdefault(message.pipeline or message.origin, []).append(message)
            elif not isinstance(message, Window | Event):
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
    import zmq
    from daemon_kit import endpoints_of

    from rtdecode.daemon.bus import Follow, Leave
    from rtdecode.daemon.rpc import Client

    with zmq.Context() as context:
        client = Client(context, endpoints_of(session, config).log, "acquire")
        client.ask(Follow(name="test", source=source), 5.0)
        client.ask(Leave(name="test", source=source), 5.0)
        client.close()
