"""A FieldTrip buffer in a process of its own: ``python fieldtrip_buffer.py PORT N_SAMPLES`` says its port and serves.

It ends when its standard input does. `Buffer` is the other end, in the test.
"""

import sys

from child import Child

from rtdecode.sources.fieldtrip_client import Client


class Buffer(Child):
    """A buffer process, under the hand of a test."""

    def __init__(self, port: int = 0, n_samples: int = 60_000) -> None:
        self.port = int(self.start(__file__, str(port), str(n_samples)))

    def client(self) -> Client:
        client = Client("127.0.0.1", self.port, answer_s=20)
        client.connect()
        return client


if __name__ == "__main__":
    from rtdecode.sources.fieldtrip_server import FieldTripServer

    with FieldTripServer(port=int(sys.argv[1]), n_samples=int(sys.argv[2])) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        sys.stdin.read()
