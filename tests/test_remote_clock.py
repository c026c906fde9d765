"""Another machine's clock: what was measured of one host says nothing about the next."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import zmq

from rtdecode import hostclock
from rtdecode.daemon import bus
from rtdecode.daemon.remote_clock import RemoteClock, measure
from rtdecode.daemon.rpc import Client, Server


@contextlib.contextmanager
def host(folder: Path, name: str, ahead: float) -> Iterator[Client]:
    """A log that tells the time of another host, whose clock is `ahead` seconds ahead of ours."""
    closing = threading.Event()
    endpoint = f"ipc://{folder / name}"
    with zmq.Context() as context:
        server = Server[bus.LogRequest](context, endpoint, bus.LogRequest)

        def serve() -> None:
            while not closing.is_set():
                server.socket.poll(20)
                while (request := server.receive()) is not None:
                    now = hostclock.now() + ahead
                    reading = bus.Reading(received=now, answered=now, clock=name)
                    server.answer(request[0], msgspec.to_builtins(reading))

        thread = threading.Thread(target=serve)
        thread.start()
        client = Client(context, endpoint, name)
        try:
            yield client
        finally:
            client.close()
            closing.set()
            thread.join()
            server.close()


def test_a_measurement_of_the_host_before_is_dropped(tmp_path: Path) -> None:
    clock = RemoteClock("here", 10.0)
    with host(tmp_path, "one", 100.0) as one, host(tmp_path, "here", 0.0) as other:
        clock.begin(one)
        assert len(clock.take()) == 1
        assert abs(clock.to_host(105.0) - 5.0) < 1.0
        in_flight = (clock._hosts, measure(one, 10.0)[0])
        clock.begin(other)  # the daemon over there was started again, on this very host
        clock._measured.append(in_flight)
        assert clock.take() == []
        assert clock.to_host(5.0) == 5.0
