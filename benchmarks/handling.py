"""What a decoder costs without its encoder, and what fill, quality, blanks and interpolation add to it.

``python benchmarks/handling.py [--seconds 20]``: 64 channels at 1 kHz in chunks of 10 samples, a 1 to 40 Hz band-pass,
windows of a second; prints milliseconds of one core per second of data, for ten and for a hundred windows a second.
"""

import argparse
import time

import numpy as np
from numpy.typing import NDArray

from rtdecode.decoder import Decoder
from rtdecode.encode.engine import EngineInfo, Outputs, StatelessEngine
from rtdecode.signal import Channel, Chunk, Marker
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.handling import AS_IT_COMES, Blank, Fill, Handling, Interpolation, Limits
from rtdecode.stream.steps import Filter
from rtdecode.stream.window import Sliding

SFREQ, N, CHUNK = 1000.0, 64, 10
CHANNELS = tuple(Channel(f"E{k}", "eeg", "V") for k in range(N))


class _NoEngine(StatelessEngine):
    """Encodes nothing, at once."""

    info = EngineInfo("none", "cpu", "fp32", 1, (0, 0))

    def finish(self, window: NDArray[np.float32], first_index: int) -> Outputs:
        return {}

    def close(self) -> None: ...


def cost(handling: Handling, hop: float, samples: NDArray[np.float32]) -> float:
    """Milliseconds per second of data; a marker every 100 ms."""
    decoder = Decoder(
        columns=range(N),
        channels=CHANNELS,
        n_stream_channels=N,
        sfreq=SFREQ,
        conditioner=Conditioner((Filter(low=1.0, high=40.0),), CHANNELS, SFREQ, {}),
        window_steps=(),
        windows=[Sliding(length=1.0, hop=hop)],
        engine=_NoEngine(),
        heads=(),
        handling=handling,
    )
    began = time.perf_counter()
    for first in range(0, len(samples), CHUNK):
        stamps = np.arange(first, first + CHUNK) / SFREQ
        markers = [Marker(float(stamps[5]), "stim")] if first % 100 == 0 else []
        decoder.push(Chunk(samples[first : first + CHUNK], stamps, first), markers, float(stamps[-1]))
    return (time.perf_counter() - began) * SFREQ / len(samples) * 1e3


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    n = round(parser.parse_args().seconds * SFREQ) // CHUNK * CHUNK
    samples = 1e-5 * np.random.default_rng(0).standard_normal((n, N)).astype(np.float32)
    matrix = np.eye(N)
    matrix[0] = [0, *[1 / (N - 1)] * (N - 1)]
    handlings = {
        "as it comes": AS_IT_COMES,
        "fill": Handling(fill=Fill(0.02)),
        "blank": Handling(blanks=(Blank(("stim",), 0.0, 0.01),)),
        "quality": Handling(limits=Limits(flat=1e-7, clip=5, range=5e-3)),
        "interpolation": Handling(interpolation=Interpolation(("E0",), matrix)),
    }
    for name, handling in handlings.items():
        few, many = (min(cost(handling, hop, samples) for _ in range(3)) for hop in (0.1, 0.01))
        print(f"{name:14} {few:6.2f} ms/s at 10 windows/s, {many:6.2f} ms/s at 100 windows/s")


if __name__ == "__main__":
    main()
