"""A loop by hand: pylsl, scipy and onnxruntime, no framework.

It blocks in liblsl until a sample is there, filters each chunk once, and keeps the filtered samples in a buffer of
which a window is a plain view.
"""

import numpy as np
import pylsl
from common import Decoder, Notes, read_spec
from scipy.signal import butter, sosfilt, sosfilt_zi


def main() -> None:
    """Decode until killed."""
    spec = read_spec()
    n, hop = round(spec["length"] * spec["sfreq"]), round(spec["hop"] * spec["sfreq"])
    decode, notes = Decoder(spec), Notes(spec)
    (info,) = pylsl.resolve_byprop("name", spec["stream"], 1, 30)
    inlet = pylsl.StreamInlet(info, processing_flags=0)
    inlet.open_stream(30)
    sos = butter(spec["order"], (spec["low"], spec["high"]), "bandpass", fs=spec["sfreq"], output="sos")
    state = None
    pulled = np.empty((1024, spec["channels"]), np.float32)
    kept = np.empty((8 * n, spec["channels"]), np.float32)
    end = 0  # of what is in `kept`
    due = n  # where the next window ends
    print("READY", flush=True)
    while True:
        _, stamps = inlet.pull_chunk(timeout=1.0, max_samples=len(pulled), dest_obj=pulled, min_samples=1)
        if not stamps:
            continue
        chunk = pulled[: len(stamps)]
        if state is None:
            state = sosfilt_zi(sos)[:, :, np.newaxis] * chunk[0]
        filtered, state = sosfilt(sos, chunk, axis=0, zi=state)
        if end + len(filtered) > len(kept):
            kept[:n] = kept[end - n : end]
            due, end = due - (end - n), n
        kept[end : end + len(filtered)] = filtered
        end += len(filtered)
        while due <= end:
            items, scores = decode(kept[due - n : due])
            notes.add(stamps[len(stamps) - 1 - (end - due)], pylsl.local_clock(), items, scores)
            due += hop


if __name__ == "__main__":
    main()
