"""What there is to tell about a source, made of what it gives: its state, holes, new segments, and its own notices."""

import math

from rtdecode.signal import Batch, Chunk, Notice, SourceState
from rtdecode.sources.state import SourceWatch


class SourceAccount:
    """Follows what a source gives, batch by batch. Reads no clock.

    Parameters
    ----------
    now : float
        Host time at which reading begins.
    sfreq : float
        Nominal rate in Hz.
    stall_s : float, optional
        Seconds of silence after which it is stalled, in place of what is learned.
    """

    def __init__(self, now: float, sfreq: float, stall_s: float | None = None) -> None:
        self._sfreq = sfreq
        self._watch = SourceWatch(now, sfreq, stall_s)
        self._held_up = False
        self._newest = math.nan
        self.position = (0, 0)
        self.samples = 0

    def wait(self, now: float) -> float:
        """Seconds after which to look whether it is silent; infinite where silence says nothing."""
        return max(0.0, self._watch.look_at - now)

    def took(self, batch: Batch, now: float, *, held_up: bool) -> list[Notice]:
        """What is to be told after a batch.

        Parameters
        ----------
        batch : Batch
            What was read.
        now : float
            Host time.
        held_up : bool
            The read took longer than it was asked to: it was not the source that was silent.
        """
        told: list[Notice | None] = [
            notice if notice.state is None else self._watch.told(notice, now) for notice in batch.notices
        ]
        chunk = batch.chunk
        if chunk is not None and len(chunk):
            told += [self._watch.arrived(chunk, now), self._place(chunk)]
            self._held_up = False
        elif held_up and not self._held_up:
            self._held_up = True  # what came meanwhile is there at the next read; once, or a slow machine hides a stall
        else:
            self._held_up = False
            told.append(self._watch.looked(now))
        return [notice for notice in told if notice is not None]

    def ended(self, text: str, now: float) -> list[Notice]:
        """What is to be told at the end."""
        change = self._watch.told(Notice("state", text, SourceState.ENDED), now)
        return [] if change is None else [change]

    def status(self, now: float) -> dict[str, str | float]:
        """For people who ask."""
        return {
            "state": self._watch.state.value,
            "state_s": now - self._watch.since,
            "silent_s": self._watch.silent(now),
            "stall_after_s": self._watch.stall_after,
        }

    def _place(self, chunk: Chunk) -> Notice | None:
        """A new segment, or a hole; and keep where we are."""
        (segment, index), newest = self.position, self._newest
        notice = None
        if self.samples and chunk.segment != segment:
            notice = _segment(chunk, newest)
        elif self.samples and chunk.first_index != index:
            notice = self._gap(chunk, chunk.first_index - index)
        self.position = (chunk.segment, chunk.stop_index)
        self._newest = float(chunk.stamps[-1])
        self.samples += len(chunk)
        return notice

    def _gap(self, chunk: Chunk, n: int) -> Notice:
        text = f"{n} samples are missing before index {chunk.first_index}"
        if chunk.invalidates is not None:
            text = (
                f"{n} samples were missing before index {chunk.invalidates}; found at index {chunk.first_index}, so "
                "that what lies between was stamped too early"
            )
        details = {
            "segment": chunk.segment,
            "index": chunk.first_index,
            "n": n,
            "seconds": n / self._sfreq,
            "stamp": float(chunk.stamps[0]),
            "late": chunk.invalidates is not None,
            "invalidates": chunk.invalidates,
        }
        return Notice("gap", text, details=details)


def _segment(chunk: Chunk, newest: float) -> Notice:
    first = float(chunk.stamps[0])
    details = {
        "segment": chunk.segment,
        "stamp": first,
        "seconds": first - newest,
        "uncertainty": float(chunk.uncertainty),
    }
    return Notice("reconnect", f"segment {chunk.segment} begins", details=details)
