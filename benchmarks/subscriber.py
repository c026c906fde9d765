"""Take what a session publishes, in a process of its own, and note each result, when it was in hand, and its ledger.

python benchmarks/subscriber.py ENDPOINT FILE.results
"""

import math
import os
import struct
import sys
from pathlib import Path

from rtdecode import hostclock
from rtdecode.wire.messages import Window
from rtdecode.wire.subscriber import Subscriber

#: As in `peers/common.py`.
RECORD = struct.Struct("<dd5i5f")
#: Moments of a ledger, in FILE.ledger; the last is when the result was in hand.
MOMENTS = ("stamp", "arrived", "received", "due", "encoded", "published")
LEDGER = struct.Struct("<7d")


def main() -> None:
    """Listen until killed."""
    endpoint, path = sys.argv[1:]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    results, ledgers = os.open(path, flags), os.open(Path(path).with_suffix(".ledger"), flags)
    with Subscriber(endpoint, ["p.retrieval"]) as subscriber:
        print("READY", flush=True)
        for received in subscriber:
            at = hostclock.now()
            message = received.message
            if not isinstance(message, Window) or message.retained or message.retrieval is None:
                continue
            items = [int(name.rpartition(" ")[2]) for name in message.retrieval.names]
            os.write(results, RECORD.pack(message.ledger.stamp, at, *items, *message.retrieval.scores))
            moments = [getattr(message.ledger, name) for name in MOMENTS]
            os.write(ledgers, LEDGER.pack(*(math.nan if moment is None else moment for moment in moments), at))


if __name__ == "__main__":
    main()
