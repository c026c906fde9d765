"""A sender of the minimal ZeroMQ format in a process of its own, that does as it is told (see `lsl_outlet`).

What it runs knows nothing of rtdecode: JSON, numpy and pyzmq, as a hardware script has them.
"""

import json
import sys
from typing import Any

import numpy as np
from child import Child


class ZmqOutlet(Child):
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
        self._serve()

    def _serve(self) -> None:
        self.spec["port"] = int(self.start(__file__, json.dumps(self.spec)))

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self.spec['port']}"

    def joined(self) -> None:
        """Wait until somebody has subscribed."""
        self.tell(wait=1)

    def push(self, values: np.ndarray[Any, Any], **header: Any) -> None:
        self.tell(values=values.tolist(), header=header)

    def send(self, **header: Any) -> None:
        self.tell(header=header)

    def restart(self, **changes: Any) -> None:
        self.spec |= changes
        self._serve()


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
