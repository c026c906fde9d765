"""Drive a decoder with a source, at any speed: the results are those that the live daemon gives."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import sleep

import numpy as np

from rtdecode.decoder import Decoder, Result
from rtdecode.hostclock import now
from rtdecode.signal import Chunk
from rtdecode.sources.base import Source

#: Seconds of samples that are decoded at once where the speed is given.
PACED_S = 0.02


def replay(
    source: Source,
    decoder: Decoder,
    *,
    speed: float = math.inf,
    progress: Callable[[Chunk], object] | None = None,
) -> Iterator[Result]:
    """Decode a whole source, result by result.

    Parameters
    ----------
    source : Source
        Open; read to its end.
    decoder : Decoder
        Fresh.
    speed : float
        Multiples of real time; infinite means as fast as it goes.
    progress : callable, optional
        Told of each chunk after it was decoded.

    Yields
    ------
    Result
        One for every due window.
    """
    began = now()
    first = math.nan
    while (batch := source.read(0.1)) is not None:
        chunk = batch.chunk
        if chunk is None or not len(chunk):
            yield from decoder.push(None, batch.markers, batch.watermark)
            continue
        first = float(chunk.stamps[0]) if math.isnan(first) else first
        markers = batch.markers
        for piece in _pieces(chunk, PACED_S) if math.isfinite(speed) else [chunk]:
            if math.isfinite(speed):
                sleep(max(0.0, began + (float(piece.stamps[-1]) - first) / speed - now()))
            yield from decoder.push(piece, markers, batch.watermark)
            markers = ()
            if progress is not None:
                progress(piece)
    yield from decoder.finish()


def _pieces(chunk: Chunk, seconds: float) -> Iterator[Chunk]:
    """A chunk in pieces of so many seconds, as an amplifier would hand it over; the cutting changes no result."""
    stops = np.searchsorted(chunk.stamps, np.arange(chunk.stamps[0] + seconds, chunk.stamps[-1], seconds))
    start = 0
    for stop in [*map(int, stops), len(chunk)]:
        if stop > start:
            samples, stamps = chunk.samples[start:stop], chunk.stamps[start:stop]
            late = chunk.invalidates if start == 0 else None
            first_index = chunk.first_index + start
            yield replace(chunk, samples=samples, stamps=stamps, first_index=first_index, invalidates=late)
        start = stop
