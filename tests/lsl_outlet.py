"""An LSL sender in a process of its own, that does as it is told: a line of JSON in, a line out.

Run as ``python lsl_outlet.py SPEC`` (JSON); `Outlet` is the other end, in the test. With ``"pace": "keep"`` it sends by
itself, in real time, stamped by when each sample was due, and after a pause all that was due meanwhile; with
``"pace": "drop"`` it has lost that.
"""

import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from child import Child


class Outlet(Child):
    """A sender process, under the hand of a test."""

    def __init__(self, config: Path, **spec: Any) -> None:
        self.spec = {"name": f"s-{uuid.uuid4().hex[:8]}", "type": "EEG", "sfreq": 100.0, "format": "float32", **spec}
        self.spec.setdefault("source_id", self.spec["name"])
        self._config = config
        self._serve()

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    def _serve(self) -> None:
        assert self.start(__file__, json.dumps(self.spec), env={**os.environ, "LSLAPICFG": str(self._config)}) == "up"

    def push(self, values: np.ndarray[Any, Any], stamps: np.ndarray[Any, Any] | Sequence[float]) -> None:
        self.tell(values=values.tolist(), stamps=list(stamps))

    def mark(self, *markers: tuple[Any, float]) -> None:
        self.tell(markers=markers)

    def restart(self, **changes: Any) -> None:
        self.spec |= changes
        self._serve()


def send_by_itself(outlet: Any, spec: dict[str, Any], n_channels: int) -> None:
    """Chunks of 20 ms, for ever."""
    import pylsl

    period, n, sent = 1 / spec["sfreq"], round(spec["sfreq"] / 50), 0
    began = pylsl.local_clock()
    while True:
        due = began + (sent + n) * period
        time.sleep(max(0.0, due - pylsl.local_clock()))
        if spec["pace"] == "drop" and pylsl.local_clock() > due + 0.5:
            sent = round((pylsl.local_clock() - began) / period)
            continue
        index = np.arange(sent, sent + n)
        values = np.repeat(index[:, None] % 1000, n_channels, axis=1)
        outlet.push_chunk(values.astype(np.float32), (began + index * period).tolist())
        sent += n


def main() -> None:
    import pylsl

    spec = json.loads(sys.argv[1])
    channels = spec.get("channels", [["A", "EEG", "uV"], ["B", "EEG", "uV"]])
    info = pylsl.StreamInfo(spec["name"], spec["type"], len(channels), spec["sfreq"], spec["format"], spec["source_id"])
    if spec.get("described", True):
        listed = info.desc().append_child("channels")
        for label, kind, unit in channels:
            one = listed.append_child("channel")
            for key, value in (("label", label), ("type", kind), ("unit", unit)):
                if value:
                    one.append_child_value(key, value)
    outlet = pylsl.StreamOutlet(info)
    marker_outlet = None
    if "markers" in spec:
        form = spec.get("marker_format", "string")
        marker_outlet = pylsl.StreamOutlet(pylsl.StreamInfo(spec["markers"], "Markers", 1, 0, form, spec["markers"]))
    if "pace" in spec:
        threading.Thread(target=send_by_itself, args=(outlet, spec, len(channels)), daemon=True).start()
    sys.stdout.write("up\n")
    sys.stdout.flush()
    for line in sys.stdin:
        command = json.loads(line)
        if "values" in command:
            outlet.push_chunk(np.array(command["values"]), command["stamps"])
        for value, stamp in command.get("markers", ()):
            assert marker_outlet is not None
            raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
            marker_outlet.push_sample([raw], stamp)
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
