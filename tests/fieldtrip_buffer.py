"""A FieldTrip buffer in a process of its own: ``python fieldtrip_buffer.py PORT N_SAMPLES`` says its port and serves.

It ends when its standard input does. `Buffer` is the other end, in the test.
"""

import os
import signal
import subprocess
import sys
from types import TracebackType
from typing import Self

from rtdecode.sources.fieldtrip_client import Client


class Buffer:
    """A buffer process, under the hand of a test."""

    def __init__(self, port: int = 0, n_samples: int = 60_000) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(port), str(n_samples)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def client(self) -> Client:
        client = Client("127.0.0.1", self.port, answer_s=20)
        client.connect()
        return client

    def pause(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(timeout=20)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()


if __name__ == "__main__":
    from rtdecode.sources.fieldtrip_server import FieldTripServer

    with FieldTripServer(port=int(sys.argv[1]), n_samples=int(sys.argv[2])) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        sys.stdin.read()
