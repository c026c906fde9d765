"""What the peers' programs share: the encoder and the gallery, and how a result is noted. Needs numpy and onnxruntime.

The programs are to be compared, so all of them have the same encoder in the same version of onnxruntime, on one thread.
"""

import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

#: One result: stamp of the window's newest sample, moment of the result, items, scores.
RECORD = struct.Struct("<dd5i5f")


def read_spec() -> dict[str, Any]:
    """What the benchmark asks for: the JSON file that is the program's argument."""
    spec: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    return spec


class Decoder:
    """From a window to the best items of the gallery."""

    def __init__(self, spec: dict[str, Any]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(spec["encoder"], options, ["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._rows = np.load(spec["gallery"])
        self._top = int(spec["top"])
        shape = (round(spec["length"] * spec["sfreq"]), int(spec["channels"]))
        for _ in range(3):
            self(np.zeros(shape, np.float32))

    def __call__(self, window: Any) -> tuple[list[int], list[float]]:
        """Items and scores, best first, for a window of float32 (time, channels)."""
        embedding = self._session.run(None, {self._input: window[np.newaxis]})[0][0]
        norm = np.linalg.norm(embedding)
        scores = self._rows @ (embedding / norm if norm > 0 else embedding)
        best = np.argpartition(scores, -self._top)[-self._top :]
        best = best[np.argsort(-scores[best])]
        return best.tolist(), scores[best].tolist()


class Notes:
    """Results, written one by one as they are had, so that none is lost however the program ends."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._file = os.open(spec["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def add(self, stamp: float, at: float, items: list[int], scores: list[float]) -> None:
        """Note a result that was in hand at `at`, of a window whose newest sample is of `stamp`."""
        os.write(self._file, RECORD.pack(stamp, at, *items, *scores))
