"""Chunks in the order in which they come: checked, and held while a marker that may blank them is not known."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from rtdecode.errors import StampError
from rtdecode.signal import Chunk, check_stamps


class Arrivals:
    """Takes chunks; gives them again, in pieces, as far as the watermark allows.

    Parameters
    ----------
    n_channels : int
        Columns of the stream.
    ahead : float, optional
        Seconds after a sample's stamp up to which a marker may blank it: it is held until the watermark is there.
        Nothing is held where None.
    """

    def __init__(self, n_channels: int, ahead: float | None) -> None:
        self._n_channels = n_channels
        self._ahead = ahead
        self._held: deque[tuple[Chunk, str | None]] = deque()
        self._given: tuple[int, int, float] | None = None  # segment, next index and last stamp

    def resume(self, segment: int, index: int) -> None:
        """The samples of a segment up to `index` were given elsewhere; what is held is let go."""
        self._held.clear()
        self._given = (segment, index, float("-inf"))

    def put(self, chunk: Chunk, loss: str | None) -> None:
        """Take a chunk, and why samples before it were lost on our side, if they were; raises as `check`."""
        self.check(chunk)
        self._held.append((chunk, loss))

    def check(self, chunk: Chunk) -> None:
        """Look at the next chunk, which is not given again.

        Raises
        ------
        StampError
            Wrong shapes or types, stamps that do not increase, or an index or a segment that goes back.
        """
        chunk.check(self._n_channels)
        if self._given is not None:
            segment, next_index, last_stamp = self._given
            if chunk.segment < segment:
                raise StampError(f"a chunk of segment {chunk.segment} came after segment {segment} had begun")
            # A new segment's stamps may lie before the last ones: a sender may come back with another clock.
            if chunk.segment == segment:
                if chunk.first_index < next_index:
                    raise StampError(
                        f"a chunk begins at index {chunk.first_index} of segment {segment}; expected {next_index} or "
                        "later: samples are never given twice"
                    )
                check_stamps(chunk.stamps[:1], chunk.first_index, last_stamp)
        self._given = (chunk.segment, chunk.stop_index, float(chunk.stamps[-1]))

    def release(self, watermark: float) -> Iterator[tuple[Chunk, str | None]]:
        """What need not wait any more, each with its loss."""
        while self._held:
            chunk, loss = self._held[0]
            n = len(chunk)
            if self._ahead is not None:
                n = int(np.searchsorted(chunk.stamps + self._ahead, watermark, side="right"))
            if not n:
                return
            if n == len(chunk):
                self._held.popleft()
                yield chunk, loss
                continue
            left = replace(
                chunk,
                samples=chunk.samples[n:],
                stamps=chunk.stamps[n:],
                first_index=chunk.first_index + n,
                invalidates=None,
            )
            self._held[0] = (left, None)
            yield replace(chunk, samples=chunk.samples[:n], stamps=chunk.stamps[:n]), loss
