"""The paced sender of the benchmarks, a process of its own: streams of a known signal over LSL, on the loopback.

    python benchmarks/lsl_sender.py SPEC.json

It announces its streams and says ``up``; at a line on standard input it begins, and says the stamp of sample 0 of each
stream. Each chunk goes out when its newest sample is due, and has that moment as its stamp. The streams of one sender
are spread evenly over a chunk, or over `spread` seconds. When standard input closes it says how late its chunks went
out, and ends.
"""

import ctypes
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pylsl


def outlet(spec: dict[str, Any], name: str) -> pylsl.StreamOutlet:
    """One stream, each channel described."""
    labels = spec["labels"]
    info = pylsl.StreamInfo(name, spec["kind"].upper(), len(labels), spec["sfreq"], "float32", f"{name}-sender")
    channels = info.desc().append_child("channels")
    for label in labels:
        channel = channels.append_child("channel")
        for key, value in (("label", label), ("type", spec["kind"]), ("unit", spec["unit"])):
            channel.append_child_value(key, value)
    return pylsl.StreamOutlet(info, spec["chunk"])


def main() -> None:
    """Announce, wait, send, account."""
    spec = json.loads(Path(sys.argv[1]).read_text())
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(29, 1, 0, 0, 0)  # PR_SET_TIMERSLACK: waking on time is what a sender is for
    sfreq, chunk = spec["sfreq"], spec["chunk"]
    period = np.load(spec["signal"])
    chunks = np.ascontiguousarray(period.reshape(-1, chunk, period.shape[1]))
    ramp = np.clip(np.arange(len(period)) / sfreq / 0.1 - 1, 0, 1).astype(np.float32)
    first = np.ascontiguousarray((period * ramp[:, np.newaxis]).reshape(chunks.shape))
    outlets = [outlet(spec, name) for name in spec["streams"]]
    print("up", flush=True)
    if not sys.stdin.readline():
        return
    ended = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    every = chunk / sfreq
    begins = [k * spec.get("spread", every) / len(outlets) for k in range(len(outlets))]
    # In each turn one chunk of each stream; one that begins later is so many chunks behind.
    turn = sorted((begin % every, int(begin // every), one) for begin, one in zip(begins, outlets, strict=True))
    start = pylsl.local_clock() + 0.2
    print(json.dumps([start + begin for begin in begins]), flush=True)
    late: list[float] = []
    n = 0
    while not ended.is_set():
        for begin, behind, one in turn:
            at = n - behind
            if at < 0:
                continue
            block = first[at] if at < len(first) else chunks[at % len(chunks)]
            stamp = start + begin + ((n + 1) * chunk - 1) / sfreq
            wait = stamp - pylsl.local_clock()
            if wait > 0:
                time.sleep(wait)
            one.push_chunk(block, stamp)
            late.append(pylsl.local_clock() - stamp)
        n += 1
    table = np.array(late[len(late) // 5 :]) * 1e3
    print(json.dumps({f"p{q:g}": round(float(np.percentile(table, q)), 4) for q in (50, 99, 100)}), flush=True)


if __name__ == "__main__":
    main()
