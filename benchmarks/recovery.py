"""How soon samples come again after an LSL sender was killed and started anew, on this host.

Counted from the moment in which the new sender exists, to the arrival of its first samples in the source's hands; a
window is out its own length later, and the decoder's milliseconds.

    python benchmarks/recovery.py [--kills 10]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np

SFREQ, PER_CHUNK = 250.0, 5


def serve(name: str) -> None:
    """The sender: chunks of 20 ms, stamped by when they were due; says when it began."""
    import pylsl

    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(name, "EEG", 2, SFREQ, "float32", name))
    began, sent = pylsl.local_clock(), 0
    print(began, flush=True)
    while True:
        time.sleep(max(0.0, began + (sent + PER_CHUNK) / SFREQ - pylsl.local_clock()))
        index = np.arange(sent, sent + PER_CHUNK)
        values = np.repeat(index[:, None], 2, axis=1).astype(np.float32)
        outlet.push_chunk(values, (began + index / SFREQ).tolist())
        sent += PER_CHUNK


def start(name: str, config: Path) -> "tuple[subprocess.Popen[str], float]":
    """A sender, and the host time at which it began."""
    sender = subprocess.Popen(
        [sys.executable, __file__, "--serve", name],
        env=os.environ | {"LSLAPICFG": str(config)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert sender.stdout is not None
    return sender, float(sender.stdout.readline())


def main() -> None:
    """Kill, start again, and wait for samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--serve", metavar="NAME", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return

    from rtdecode.sources.lsl import LslSource, configure_lsl

    content = (
        "[ports]\nIPv6 = disable\n[multicast]\nResolveScope = machine\nListenAddress = 127.0.0.1\n"
        f"[lab]\nKnownPeers = {{127.0.0.1}}\nSessionID = recovery-{uuid.uuid4().hex}\n[log]\nlevel = -2\n"
    )
    configure_lsl(content)
    name = f"recovery-{uuid.uuid4().hex[:8]}"
    took = []
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "lsl_api.cfg"
        config.write_text(content)
        sender, _ = start(name, config)
        with LslSource(name=name, timeout_s=60) as source:
            for segment in range(1, given.kills + 1):
                sender.kill()
                sender.wait()
                sender, began = start(name, config)
                while (batch := source.read(1.0)) is not None:
                    if batch.chunk is not None and batch.chunk.segment == segment:
                        took.append(batch.chunk.arrived - began)
                        break
        sender.kill()
        sender.wait()
    median, worst = np.median(took), max(took)
    print(f"{len(took)} kills; first samples after: median {median:.3f} s, longest {worst:.3f} s")


if __name__ == "__main__":
    main()
