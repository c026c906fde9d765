"""What comes from *acquire*, in order: into the decoder, and the windows that it makes due on to the output.

A feed begins anywhere in a stream, takes over from a process before this one, and outlives *acquire*: each due window
is accounted for once, whoever took its samples.
"""

import dataclasses
import math
from collections.abc import Callable

from rtdecode import hostclock
from rtdecode.daemon.announcer import Announcer
from rtdecode.daemon.follow import Arrival, Lost
from rtdecode.daemon.model import Model
from rtdecode.daemon.output import Output
from rtdecode.daemon.pace import Pace
from rtdecode.daemon.progress import Account
from rtdecode.daemon.published import Published
from rtdecode.daemon.swap import MARGIN_S, lost_reason
from rtdecode.decoder import Decoder, Status
from rtdecode.result import Result, Task
from rtdecode.signal import Chunk
from rtdecode.stream.incidents import Incident
from rtdecode.wire.results import wire_window

#: Why a window is a gap whose samples went with *acquire*; and why one is skipped that went with the log.
RESTARTED = "acquire was started again before it was decoded"
UNREAD = "its samples left the log while no process decoded"


class Feed:
    """One pipeline's samples, and what becomes due by them.

    Parameters
    ----------
    model : Model
        What decodes; its decoder has taken nothing.
    account : Account
    output : Output
    announcer : Announcer
    """

    def __init__(self, model: Model, account: Account, output: Output, announcer: Announcer) -> None:
        self.model = model
        #: Stamp of the newest sample.
        self.newest = math.nan
        #: Segment and index behind it; None before there is one.
        self.position: tuple[int, int] | None = None
        #: The source has ended.
        self.ended = False
        #: When it wants samples, and a rehearsal.
        self.pace = Pace(_period_of(model))
        self._account = account
        self._output = output
        self._announcer = announcer
        self._published = Published()
        self._published.recall(account.progress.out)
        self._joining = True

    def take(self, entry: Arrival, attend: Callable[[], object]) -> None:
        """Take samples, and hand on the windows that they make due; `attend` is called while a queue is emptied."""
        batch, chunk, decoder, account = entry.batch, entry.batch.chunk, self.model.decoder, self._account
        self.pace.unknown()
        new = entry.seq >= account.progress.taken  # not taken by a process before this one
        if chunk is not None and len(chunk):
            self.newest = float(chunk.stamps[-1])
            if self._joining:
                self._join(chunk, entry.seq)
            self.position = (chunk.segment, chunk.stop_index)
            if new:
                account.moved(chunk.segment, chunk.first_index, chunk.stop_index)
        if new:
            self._output.take(account.forsaken(Status.SKIPPED, UNREAD), math.nan)
        began = hostclock.now()
        items = decoder.advance(batch.chunk, batch.markers, batch.watermark)
        took = hostclock.now() - began
        if entry.end:
            items += decoder.advance_to_end()
        items = self._tell(items, told=not new)
        if self.newest < account.progress.compare_until:
            items = self._news(items)
        elif account.progress.out and new:
            account.compared()
        items = account.take(items, entry.seq)
        account.ended(decoder.segment)
        for item in items:
            self._published.note(item)
        self._output.take(items, entry.received)
        if chunk is not None and len(chunk):
            patient = self.pace.took(took, len(chunk))
            self.model.decoder.may_wait(patient)
            self.pace.plan(chunk, self.model.decoder.wanting, hostclock.now(), patient=patient)
        if entry.end:
            self._output.drain(attend=attend)
            self.ended = True
            self._announcer.say("end", "the source has ended")

    def lost(self, entry: Lost) -> None:
        """Entries of the log were never seen here."""
        self.pace.unknown()
        self._say_lost(lost_reason(entry), entry.first, entry.stop)
        self.model.decoder.lost(lost_reason(entry))

    def interrupted(self) -> None:
        """*acquire* was started again: what has begun gets no more samples."""
        self.pace.unknown()
        if self.ended:
            return
        account, progress, decoder = self._account, self._account.progress, self.model.decoder
        # What a process before this one owed, and had begun, also where this one had not come as far yet.
        self._output.take(account.forsaken(Status.GAP, RESTARTED), math.nan)
        items: list[Result | Task] = []
        if self.position is None or self.position < (progress.segment, progress.index):
            for segment, first, stop in account.begun:
                if segment >= decoder.segment:
                    items += decoder.resume(segment, first, stop, RESTARTED)
        items += decoder.advance_to_end(interrupted=True)
        items = self._tell(items, told=False)
        self._output.take(account.resume(items), math.nan)

    def restart(self, decoder: Decoder, run: int, base: int) -> None:
        """A new start of *acquire* is followed from here on, by a fresh decoder; segments are numbered from `base`."""
        self.model.decoder = decoder
        self._account.restart(run, base)
        self.ended = False
        self.position = None
        self._joining = True

    def switch(self, model: Model, held: list[tuple[Result, float]]) -> None:
        """Another model decodes from here on.

        Parameters
        ----------
        model : Model
            It has taken what this feed has; nothing waits in the output.
        held : list of tuple of Result and float
            What it gave on the way, and when it had the samples.
        """
        self.model = model
        self.pace.unknown()
        self._output.use(model)
        results = [result for result, _ in held]
        self._account.swapped(str(model.path), results, self._published.newest, self.newest + MARGIN_S)
        wanted = []
        for result, received in held:
            if self._published.follows(result):
                self._account.add([result])
                self._published.note(result)
                wanted.append((result, received))
        for result, received in wanted:  # now that all of them are in the account
            self._output.take([result], received)
        self._output.save()

    def _join(self, chunk: Chunk, seq: int) -> None:
        """The first samples that this process takes: where is that, and what has it missed."""
        self._joining = False
        progress, decoder = self._account.progress, self.model.decoder
        if progress.segment < 0:
            if chunk.first_index or seq:
                self._announcer.say("joined", f"decoding from index {chunk.first_index} on", index=chunk.first_index)
            return
        if seq > progress.taken:
            missed = seq - progress.taken
            self._say_lost(f"{missed} chunks left the log while no process decoded", progress.taken, seq)
        due: list[Result | Task] = []
        for segment, first, stop in self._account.begun:
            if segment == chunk.segment:
                stop = min(stop, chunk.first_index)
            if segment <= chunk.segment and stop > first:
                due += decoder.resume(segment, first, stop, UNREAD)
                if seq > progress.taken or chunk.segment <= progress.segment:
                    decoder.lost(UNREAD)
        self._output.take(self._account.resume(self._news(due)), math.nan)

    def _news(self, items: list[Result | Task]) -> list[Result | Task]:
        """Those that the bundle before this one has not given, or that are owed nevertheless."""
        return [item for item in items if item not in self._published or self._account.inherits(item)]

    def _say_lost(self, text: str, first: int, stop: int) -> None:
        self._announcer.say("lost", f"{text}; markers in them are not known here", first=first, stop=stop)

    def _tell(self, items: list[Result | Task], *, told: bool) -> list[Result | Task]:
        """Publish what the decoder says about holes and segments, unless a process before this one has.

        Returns
        -------
        list of Result or Task
            `items`, those that turned out to be wrong as `gap`.
        """
        for incident in self.model.decoder.incidents():
            if incident.windows:
                items, incident = self._withdraw(items, incident)
            if not told and (incident.windows or incident.event != "invalidated"):
                windows = tuple(wire_window(window) for window in incident.windows)
                self._announcer.say(incident.event, incident.text, windows, **incident.details)
        return items

    def _withdraw(self, items: list[Result | Task], incident: Incident) -> tuple[list[Result | Task], Incident]:
        """Windows that were due and are wrong: those that are not out are `gap`, the event names those that are."""
        wrong = set(incident.windows)
        reason = f"a hole of {incident.details['n']} samples at index {incident.details['index']} was found late"
        kept: list[Result | Task] = []
        for item in items:
            if isinstance(item, Task) and item.ref in wrong:
                wrong.discard(item.ref)
                kept.append(self.model.decoder.withdraw(item, reason))
            else:
                kept.append(item)
        wrong -= self._output.withdraw(wrong, reason)
        left = tuple(window for window in incident.windows if window in wrong)
        return kept, dataclasses.replace(incident, details={**incident.details, "windows": len(left)}, windows=left)


def _period_of(model: Model) -> float:
    """Seconds from one raw sample to the next; the same for every bundle that decodes a stream."""
    conditioner = model.decoder.conditioner
    return float(conditioner.ratio) / conditioner.sfreq
