"""mne-lsl: a StreamLSL with a filter, and a loop that takes the newest window when a hop of new samples is there.

The buffer holds one window, since the cost of an acquisition grows with it; `acquisition_delay` is one millisecond.
Each window is the newest there is, so that its end may lie beyond the grid where the loop was late.
"""

import time

import numpy as np
from common import Decoder, Notes, read_spec
from mne_lsl.lsl import local_clock
from mne_lsl.stream import StreamLSL


def main() -> None:
    """Decode until killed."""
    spec = read_spec()
    hop = round(spec["hop"] * spec["sfreq"])
    decode, notes = Decoder(spec), Notes(spec)
    stream = StreamLSL(spec["length"], name=spec["stream"])
    stream.connect(acquisition_delay=0.001, processing_flags=None, timeout=30)
    stream.filter(spec["low"], spec["high"], iir_params={"order": spec["order"], "ftype": "butter", "output": "sos"})
    print("READY", flush=True)
    seen = 0
    wanted = round(spec["length"] * spec["sfreq"])
    while True:
        if stream.n_new_samples < wanted:
            time.sleep(0.0002)
            continue
        data, stamps = stream.get_data(spec["length"])
        wanted = hop
        seen += 1
        items, scores = decode(np.ascontiguousarray(data.T, np.float32))
        notes.add(stamps[-1], local_clock(), items, scores)


if __name__ == "__main__":
    main()
