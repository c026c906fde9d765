"""Noise in place of a recording, at a contract's own channels, rate and units: for shapes, latency and parity."""

import math
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from scipy.signal import lfilter

from rtdecode.encode.manifest import Contract
from rtdecode.signal import Batch, Channel, Chunk, Marker, Origin, StreamInfo
from rtdecode.stream.window import Locked, WindowSpec

#: Standard deviation by channel type, in the type's SI unit: the order of magnitude of real recordings.
AMPLITUDE = {"eeg": 1e-5, "seeg": 5e-5, "ecog": 5e-5, "dbs": 5e-5, "mag": 5e-13, "grad": 1e-11, "ref_meg": 5e-13}
#: Pole of the first-order filter that makes the noise red, at every rate: neighbours in time correlate by this.
POLE = 0.95
#: Seconds of samples in one chunk, and from one marker to the next.
CHUNK_S, MARKER_EVERY_S = 0.1, 0.5


class NoiseSource:
    """A stream that meets a contract and holds noise, with markers for the windows that are locked to some.

    The same arguments give the same samples. Stamps count from 0; nothing is paced.

    Parameters
    ----------
    contract : Contract
        Channels, units and rate.
    windows : sequence of WindowSpec
        For their markers: one every `MARKER_EVERY_S` seconds, and none where no window is locked.
    seconds : float
        Length.
    seed : int
        Of the noise.
    """

    def __init__(self, contract: Contract, windows: Sequence[WindowSpec], seconds: float, seed: int = 0) -> None:
        self.info = StreamInfo(
            channels=tuple(Channel(channel.name, channel.type, channel.unit) for channel in contract.channels),
            sfreq=contract.sfreq,
            source="noise",
            source_id=f"rtdecode-noise-{seed}",
        )
        self._amplitude = np.array([AMPLITUDE.get(channel.type, 1.0) for channel in contract.channels])
        self._values = markers_of(windows)
        self._n = round(seconds * contract.sfreq)
        self._seed = seed
        self._chunks = self._make()

    def open(self) -> StreamInfo:
        """Begin at the first sample."""
        self._chunks = self._make()
        return self.info

    @property
    def origins(self) -> tuple[Origin, ...]:
        """None: nothing is rawer than its chunks."""
        return ()

    def read(self, timeout: float) -> Batch | None:
        """The next chunk with its markers; never waits."""
        return next(self._chunks, None)

    def close(self) -> None:
        """Nothing to let go of."""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make(self) -> Iterator[Batch]:
        random = np.random.default_rng(self._seed)
        sfreq, size = self.info.sfreq, max(1, round(CHUNK_S * self.info.sfreq))
        state = np.zeros((1, len(self._amplitude)))
        for first in range(0, self._n, size):
            n = min(size, self._n - first)
            white = random.standard_normal((n, len(self._amplitude))) * math.sqrt(1 - POLE**2)
            red, state = lfilter([1.0], [1.0, -POLE], white, axis=0, zi=state)
            samples = np.asarray(red * self._amplitude, np.float32)
            stamps = np.arange(first, first + n) / sfreq
            last = first + n >= self._n
            yield Batch(
                Chunk(np.ascontiguousarray(samples), stamps, first),
                self._markers(first, first + n),
                math.inf if last else float(stamps[-1]),
            )

    def _markers(self, first: int, stop: int) -> tuple[Marker, ...]:
        if not self._values:
            return ()
        every = max(1, round(MARKER_EVERY_S * self.info.sfreq))
        numbers = range(-(-first // every), -(-stop // every))
        return tuple(
            Marker(n * every / self.info.sfreq, self._values[n % len(self._values)], "noise-markers")
            for n in numbers
            if n > 0
        )


def markers_of(windows: Sequence[WindowSpec]) -> tuple[str, ...]:
    """A marker value for each pattern of each locked window: wildcards are filled in."""
    patterns = [pattern for window in windows if isinstance(window, Locked) for pattern in window.markers]
    return tuple(pattern.replace("*", "1").replace("?", "1") for pattern in dict.fromkeys(patterns))


def batches_of(source: NoiseSource) -> tuple[Batch, ...]:
    """All that a source gives, from its first sample on."""
    with source:
        return tuple(iter(lambda: source.read(0.0), None))
