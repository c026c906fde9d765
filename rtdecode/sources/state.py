"""How a source is: one typed state machine for all sources, driven by arrivals, silence and what the source says.

Time comes in as an argument, so that a test can play a day in a millisecond.
"""

import math
from collections import deque
from collections.abc import Mapping

from rtdecode.signal import Chunk, Notice, SourceState

#: A source is stalled after this many chunk periods without samples.
PERIODS = 3.0
#: But never before this many seconds: on a busy machine a sender, or we, may be kept waiting for tens of milliseconds.
FLOOR_S = 0.1
#: As long as the chunk period is not known, a source is stalled after this many seconds.
UNKNOWN_S = 2.0
#: The chunk period is learned from so many newest intervals between arrivals, and known after so many.
REMEMBERED, NEEDED = 32, 8
#: Three quarters of all time lie in intervals up to the chunk period.
QUANTILE = 0.75

#: Which state may follow which. One that is changed may change again, into something else that is refused.
LEGAL: Mapping[SourceState, frozenset[SourceState]] = {
    SourceState.CONNECTING: frozenset(SourceState) - {SourceState.CONNECTING},
    SourceState.STREAMING: frozenset(SourceState) - {SourceState.CONNECTING, SourceState.STREAMING},
    SourceState.STALLED: frozenset(SourceState) - {SourceState.CONNECTING, SourceState.STALLED},
    SourceState.RECOVERING: frozenset(SourceState) - {SourceState.CONNECTING, SourceState.RECOVERING},
    SourceState.CHANGED: frozenset(SourceState) - {SourceState.CONNECTING},
    SourceState.ENDED: frozenset(),
}


class ChunkPeriod:
    """How long a source usually lets one wait for its next samples, learned from their arrivals.

    The quantile of intervals that is taken weighs each by its length: of a chunk that is read in ten pieces, nine
    intervals are next to nothing, and the tenth is the period. An interval counts no longer than what was a stall when
    it happened, so that one long silence teaches nothing, and many in a row do.
    """

    def __init__(self) -> None:
        self._intervals: deque[float] = deque(maxlen=REMEMBERED)

    def learn(self, interval: float, at_most: float) -> None:
        """Take the seconds between two arrivals."""
        self._intervals.append(min(max(interval, 0.0), at_most))

    @property
    def seconds(self) -> float | None:
        """The period; None while it is not known."""
        if len(self._intervals) < NEEDED:
            return None
        ordered = sorted(self._intervals)
        left = QUANTILE * sum(ordered)
        for interval in ordered:
            left -= interval
            if left <= 0:
                return interval
        return ordered[-1]


class SourceWatch:
    """The state of one source.

    It is streaming when samples come, and only then; stalled when none came for `PERIODS` chunk periods while it is
    connected. What else happens to it, it says itself (`rtdecode.signal.Notice`): that it is recovering, changed, or
    connected again.

    Parameters
    ----------
    now : float
        Host time at which it was connected.
    sfreq : float
        Nominal rate in Hz, for how many samples a silence cost.
    stall_s : float, optional
        Seconds of silence after which it is stalled, in place of the learned ones.
    """

    def __init__(self, now: float, sfreq: float, stall_s: float | None = None) -> None:
        self._sfreq = sfreq
        self._stall_s = stall_s
        self._period = ChunkPeriod()
        self._patience = stall_s or UNKNOWN_S
        self._arrivals = 0
        self._newest = now  # when samples came last, or when it was connected
        self._connected = now  # the same, or when it last said so; silence is counted from here; nan while it is not
        self._place: tuple[int, int] | None = None
        self._said = ""  # text of the newest change
        self._text = ""  # what the source said when it was connected again
        self._details: dict[str, str | int | float | bool | None] = {}
        self.state = SourceState.CONNECTING
        self.since = now

    @property
    def stall_after(self) -> float:
        """Seconds of silence after which it is stalled."""
        return self._patience

    def silent(self, now: float) -> float:
        """Seconds since samples came last (or since it was connected first)."""
        return max(0.0, now - self._newest)

    @property
    def look_at(self) -> float:
        """Host time at which to call `looked`, unless something comes before; infinite where silence says nothing."""
        watched = self.state not in (SourceState.STALLED, SourceState.ENDED) and not math.isnan(self._connected)
        return self._connected + self._patience if watched else math.inf

    def arrived(self, chunk: Chunk, now: float) -> Notice | None:
        """Samples came: it is streaming."""
        silent = self.silent(now)
        exact = self._place is not None and self._place[0] == chunk.segment
        missing = self._missing(chunk, silent)
        self._learn(silent)
        self._newest = self._connected = now
        self._place = (chunk.segment, chunk.stop_index)
        if self.state in (SourceState.STREAMING, SourceState.ENDED):
            return None
        first = self.state is SourceState.CONNECTING
        text = self._text or ("samples come" if first else f"samples come again after {silent:.3g} s")
        details = self._details | {
            "silent_s": silent,
            "missing": 0 if first else missing,
            "behind_s": chunk.arrived - float(chunk.stamps[-1]) if math.isfinite(chunk.arrived) else None,
        }
        if not first:
            text += f"; {'' if exact else 'about '}{missing} samples are missing"
        return self._enter(SourceState.STREAMING, text, now, details)

    def looked(self, now: float) -> Notice | None:
        """No samples are there now: it is stalled, if that has been so for long enough."""
        if now < self.look_at or self.look_at == math.inf:
            return None
        text = f"no samples for {now - self._connected:.3g} s"
        return self._enter(SourceState.STALLED, text, now, {"silent_s": self.silent(now), "after_s": self._patience})

    def told(self, notice: Notice, now: float) -> Notice | None:
        """The source says what it is; the notice of a change, or None where nothing changes by it.

        That it streams is taken as that it is connected again: it streams when samples come.
        """
        state = notice.state
        if state is None or self.state is SourceState.ENDED:
            return None
        if state in (SourceState.STREAMING, SourceState.CONNECTING, SourceState.STALLED):
            # `looked` finds out by itself whether it is stalled, and when.
            if self.state in (SourceState.RECOVERING, SourceState.CHANGED) and math.isnan(self._connected):
                self._connected = now
                self._text, self._details = notice.text, dict(notice.details)
            return None
        if state is self.state and (state is not SourceState.CHANGED or notice.text == self._said):
            return None
        self._connected = math.nan
        return self._enter(state, notice.text, now, {"silent_s": self.silent(now), **notice.details})

    def _enter(
        self, state: SourceState, text: str, now: float, details: Mapping[str, str | int | float | bool | None]
    ) -> Notice:
        previous, lasted = self.state, max(0.0, now - self.since)
        if state not in LEGAL[previous]:
            raise AssertionError(f"a source cannot be {state} after it was {previous}")
        self.state, self.since = state, now
        self._said, self._text, self._details = text, "", {}
        own = {"state": state.value, "previous": previous.value, "since_s": lasted}
        return Notice("state", text, state, {**details, **own})

    def _missing(self, chunk: Chunk, silent: float) -> int:
        """Samples lost since the last: counted within a segment, by the time that passed between two."""
        if self._place is not None and chunk.segment == self._place[0]:
            return max(0, chunk.first_index - self._place[1])
        return max(0, round(silent * self._sfreq) - len(chunk))

    def _learn(self, interval: float) -> None:
        if self._stall_s is not None:
            return
        if self._arrivals:
            self._period.learn(interval, self._patience)
        self._arrivals += 1
        if self._arrivals % NEEDED == 1:  # now and then: samples may come a thousand times a second
            period = self._period.seconds
            self._patience = UNKNOWN_S if period is None else max(FLOOR_S, PERIODS * period)
