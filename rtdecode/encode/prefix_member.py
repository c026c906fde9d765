"""Engines that hear the same samples, and the prefix that runs once for all of them.

Nobody has to say that they do, and they need not be in step: each compares what it hears with what was run, to the
byte. A position of a prefix is made of its samples alone, in blocks counted from the segment's start, so whoever heard
the same samples may take it, whenever and whatever else the other hears before or after. So it is with what the same
rest of an encoder makes of the positions of a window.
"""

import itertools
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.engine import Outputs
from rtdecode.encode.first_layer import FirstSums, Sum
from rtdecode.encode.prefix import Floats, PrefixStream
from rtdecode.stream.early_steps import EarlySteps
from rtdecode.stream.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtdecode.encode.prefix_pool import Prefix

#: Windows whose outputs are kept for others.
OUTPUTS = 32

#: A rest of an encoder, and where a window begins.
Window = tuple[str, int]

_serials = itertools.count()


class Run:
    """A prefix at work on one stream, and the newest samples that it was run on.

    Parameters
    ----------
    stream : PrefixStream
        Of its own.
    first_index : int
        Its first sample.
    kept : int
        Samples that are kept, to be compared.
    """

    def __init__(self, stream: PrefixStream, first_index: int, kept: int) -> None:
        stream.restart(first_index)
        self.stream = stream
        #: Runs in the order in which they were begun.
        self.serial = next(_serials)
        #: What was made of windows: sums while somebody adds to them, and outputs.
        self.sums: WeakValueDictionary[Window, Sum] = WeakValueDictionary()
        self.outputs: dict[Window, Outputs] = {}
        self._kept = kept
        self._heard: Ring | None = None  # before the window steps; none are kept for an engine that is alone

    def agrees(self, samples: Floats, first_index: int) -> bool:
        """Whether samples repeat what it was run on, to the byte, as far as that goes, and follow it then.

        False where that is not known any more.
        """
        known = min(len(samples), self.stream.next - first_index)
        if known <= 0:
            return known == 0
        heard = self.heard(first_index, first_index + known)
        return heard is not None and _same(heard, samples[:known])

    def heard(self, start: int, stop: int) -> Floats | None:
        """Samples [start, stop) that it was run on; None where some are not kept."""
        ring = self._heard
        if ring is None or start < ring.oldest_index or stop > ring.next_index:
            return None
        rows: Floats = ring.view(start, stop)
        return rows

    @property
    def oldest(self) -> int:
        """The oldest sample that is kept; the next one where none is."""
        return self.stream.next if self._heard is None else self._heard.oldest_index

    def push(self, samples: Floats, first_index: int, steps: EarlySteps, *, keep: bool) -> int:
        """Run it on those samples that it has not heard, after the window steps; give how many those were.

        With `keep`, samples are kept from now on.
        """
        if keep and self._heard is None:
            self._heard = Ring(self._kept, samples.shape[1], np.float32, self.stream.next)
        new = samples[self.stream.next - first_index :]
        if len(new):
            self.stream.push(steps(new), self.stream.next)
            if self._heard is not None:
                self._heard.write(new)
        return len(new)


class Member:
    """One engine's place at a prefix: what of a run it has heard itself, and may take.

    Samples that another has had run are compared, not run again. Where they differ, or are no longer kept, it goes on
    with a run of its own; where that has heard for a window's length what an older one has, it goes over to that one.

    Parameters
    ----------
    prefix : Prefix
        Whose runs it looks at.
    name : str
        Whose it is, for others' descriptions.
    same : str
        Names the rest of the encoder; empty where nothing that it makes is for others.
    """

    def __init__(self, prefix: "Prefix", name: str, same: str = "") -> None:
        self.name = name
        self._same = same
        self.prefix = prefix
        self.run: Run | None = None
        #: First sample of the run that it has heard, and the one that it hears next.
        self.first = self.next = 0
        #: Since the last restart: samples on which it had the prefix run, and those that it found done.
        self.made = self.found = 0
        #: Windows since then that were encoded for another.
        self.windows_found = 0
        self._look_at = 0
        self._differs = False
        prefix.members.add(self)

    def join(self, prefix: "Prefix") -> None:
        """Look at the runs of this prefix from now on: the same file, loaded for others."""
        self.leave()
        self.prefix = prefix
        prefix.members.add(self)

    def leave(self) -> None:
        """Nobody can share with it any more."""
        self.prefix.members.discard(self)

    @property
    def beside(self) -> list[str]:
        """Names of those that share its run; before there is one, of those that may."""
        others = [one for one in self.prefix.members if one is not self]
        return sorted(one.name for one in others if one.run is self.run)

    def restart(self, first_index: int) -> None:
        """Forget all; the next sample is `first_index` and follows a gap (or nothing). Others go on."""
        self.run = None
        self.first = self.next = self._look_at = first_index
        self.made = self.found = self.windows_found = 0
        self._differs = False

    def push(self, samples: Floats, first_index: int, steps: EarlySteps) -> None:
        """Take samples, shape (n, channels), that follow those before.

        Raises
        ------
        ValueError
            They do not.
        """
        if first_index != self.next:
            raise ValueError(f"sample {first_index} does not follow {self.next - 1}; restart first")
        if not len(samples):
            return
        several = len(self.prefix.members) > 1
        if self.run is None:
            self.run = self._find(samples) or self.prefix.run(first_index)
        elif not self.run.agrees(samples, first_index):
            self.run = self._go_alone(self.run, steps)
        made = self.run.push(samples, first_index, steps, keep=several)
        self.made += made
        self.found += len(samples) - made
        self.next += len(samples)
        if several and not self._differs and self.next >= self._look_at:
            self._look_at = self.next + self.prefix.length
            self._go_over(self.run, steps)

    def rehearse(self) -> None:
        """Run the prefix on what counts for nothing."""
        if self.run is not None:
            self.run.stream.rehearse()

    def covers(self, start: int, stop: int) -> bool:
        """Whether it has heard these samples of its run itself."""
        return self.run is not None and start >= self.first and stop <= self.next

    def window(self, start: int, stop: int, out: "Sequence[Floats]") -> bool:
        """As `PrefixStream.window`, of what it has heard."""
        return self.run is not None and self.covers(start, stop) and self.run.stream.window(start, stop, out)

    def sum_of(self, layer: FirstSums, start: int) -> Sum:
        """The sums of a window: those to which another adds already, or new ones. They count once it is covered."""
        made = Sum(layer, start)
        return made if self.run is None or not self._same else self.run.sums.setdefault((self._same, start), made)

    def outputs_of(self, start: int, stop: int) -> Outputs | None:
        """What another has made of a window that this one has heard, too; None where there is none."""
        if self.run is None or not self.covers(start, stop):
            return None
        outputs = self.run.outputs.get((self._same, start))
        if outputs is None:
            return None
        self.windows_found += 1
        return {name: value.copy() for name, value in outputs.items()}

    def keep(self, start: int, stop: int, outputs: Outputs) -> None:
        """Let others that have heard a window have what was made of it."""
        if self.run is None or not self._same or len(self.prefix.members) < 2 or not self.covers(start, stop):
            return
        kept = self.run.outputs
        kept[self._same, start] = {name: value.copy() for name, value in outputs.items()}
        if len(kept) > OUTPUTS:
            del kept[next(iter(kept))]

    def positions(self, start: int, first: int, stop: int) -> Floats | None:
        """As `PrefixStream.positions`, of what it has heard."""
        if self.run is None or start < self.first:
            return None
        return self.run.stream.positions(start, first, stop, self.next)

    def gone(self, start: int, first: int) -> bool:
        """As `PrefixStream.gone`, of what it has heard."""
        return start < self.first or (self.run is not None and self.run.stream.gone(start, first))

    def _find(self, samples: Floats) -> Run | None:
        """A run that has heard its first samples already."""
        for run in self.prefix.runs():
            if run.stream.first <= self.next < run.stream.next and run.agrees(samples, self.next):
                return run
        return None

    def _go_alone(self, left: Run, steps: EarlySteps) -> Run:
        """A run of its own, on what it has heard itself: a window's length of it, as far as that is kept."""
        oldest = max(self.first, left.oldest, self.next - self.prefix.length)
        self._differs = self.next >= left.oldest  # else it has only fallen behind
        self.first = min(oldest, self.next)
        heard = left.heard(self.first, self.next)
        if heard is None:
            self.first = self.next
        run = self.prefix.run(self.first)
        if heard is not None:
            self.made += run.push(heard, self.first, steps, keep=True)
        return run

    def _go_over(self, run: Run, steps: EarlySteps) -> None:
        """To the oldest run that has heard what it has, for a window's length at least."""
        for older in self.prefix.runs():
            if older is run:
                return
            start, stop = max(self.first, run.oldest, older.oldest), min(self.next, older.stream.next)
            if stop - start < self.prefix.length or not _agree(run, older, start, stop):
                continue
            rest = run.heard(stop, self.next)
            assert rest is not None
            self.made += older.push(rest, stop, steps, keep=True) if len(rest) else 0
            self.run, self.first = older, start
            return


def _agree(one: Run, other: Run, start: int, stop: int) -> bool:
    """Whether two runs have heard the same samples [start, stop); the newest are looked at first."""
    for first in (stop - 1, start):
        here, there = one.heard(first, stop), other.heard(first, stop)
        if here is None or there is None or not _same(here, there):
            return False
    return True


def _same(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Whether two arrays of samples are equal to the byte: 0 and -0 are not."""
    return np.array_equal(one.view(np.uint32), other.view(np.uint32))
