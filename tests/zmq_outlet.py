"""A sender of the minimal ZeroMQ format in a process of its own, that does as it is told (see `lsl_outlet`).

It knows nothing of rtdecode: JSON, numpy and pyzmq, as a hardware script has them.
"""

import json
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

import numpy as np


class ZmqOutlet:
    """A sender process, under the hand of a test. Binds a PUB socket; a restart takes the same port."""

    def __init__(self, **spec: Any) -> None:
        self.spec = {
            "stream": "amp",
            "run": 1,
            "sfreq": 100.0,
            "dtype": "<f4",
            "channels": ["A", "B"],
            "port": 0,
            **spec,
        }
        self._start()

    def _start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(self.spec)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.spec["port"] = int(self.process.stdout.readline())

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self.spec['port']}"

    def tell(self, **command: Any) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def joined(self) -> None:
        """Wait until somebody has subscribed."""
        self.tell(wait=1)

    def push(self, values: np.ndarray[Any, Any], **header: Any) -> None:
        self.tell(values=values.tolist(), header=header)

    def send(self, **header: Any) -> None:
        self.tell(header=header)

    def kill(self) -> None:
        self.process.kill()
        self._reap()

    def restart(self, **changes: Any) -> None:
        self.spec |= changes
        self._start()

    def close(self) -> None:
        if self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
        self._reap()

    def _reap(self) -> None:
        self.process.wait(timeout=20)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            if not pipe.closed:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def main() -> None:
    import zmq

    spec = json.loads(sys.argv[1])
    socket = zmq.Context().socket(zmq.XPUB)
    socket.bind(f"tcp://127.0.0.1:{spec['port'] or '*'}")
    sys.stdout.write(socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2] + "\n")
    sys.stdout.flush()
    about = {"v": 1, "stream": spec["stream"], "run": spec["run"]}
    shape = {key: spec[key] for key in spec if key not in ("stream", "run", "port")}
    for line in sys.stdin:
        command = json.loads(line)
        if "wait" in command:
            assert socket.recv()[:1] == b"\x01"
        elif "values" in command:
            values = np.array(command["values"], spec["dtype"])
            header = about | shape | {"kind": "samples", "n": len(values)} | command["header"]
            socket.send_multipart([json.dumps(header).encode(), values.tobytes()])
        else:
            socket.send(json.dumps(about | command["header"]).encode())
        sys.stdout.write("done\n")
        sys.stdout.flush()
    socket.close(2000)


if __name__ == "__main__":
    main()
