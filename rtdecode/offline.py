"""Drive a decoder with a source, at any speed: the results are those that the live daemon gives."""

import math
from collections.abc import Callable, Iterator
from time import sleep

from rtdecode.decoder import Decoder, Result
from rtdecode.hostclock import now
from rtdecode.signal import Chunk
from rtdecode.sources.base import Source


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
        if chunk is not None and len(chunk) and math.isfinite(speed):
            first = float(chunk.stamps[0]) if math.isnan(first) else first
            sleep(max(0.0, began + (float(chunk.stamps[-1]) - first) / speed - now()))
        yield from decoder.push(chunk, batch.markers, batch.watermark)
        if chunk is not None and progress is not None:
            progress(chunk)
    yield from decoder.finish()
