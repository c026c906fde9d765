"""Samples that are stamped: even stamps by a line through the sender's, and the holes and steps that they show."""

import math

import numpy as np
from numpy.typing import NDArray

from rtdecode.clock.given import Given, Piece
from rtdecode.clock.heard import HeardOffset
from rtdecode.clock.holes import APART_S, JITTERS, PERIODS
from rtdecode.clock.jitter import Jitter
from rtdecode.clock.line import Line
from rtdecode.clock.offset import ClockOffset
from rtdecode.clock.open_hole import LASTING, OpenHole
from rtdecode.clock.steps import ERRORS, OF_JITTER, Block, Step, find_step, first_behind
from rtdecode.errors import StampError

#: Before the jitter is known (seconds)...
WARM_UP_S = 2.0
#: ... steps longer than this are holes (seconds), and whole periods in a stream that had no jitter yet.
WARM_UP_STEP_S = 0.5
#: How far from whole periods, and from the line, such steps and such a stream may be; in periods.
EXACT = 0.05
#: Samples are taken into the fit in blocks of this many seconds; a lasting step is looked for at the end of each.
BLOCK_S = 0.02
#: A lasting step of the phase is looked for in this many seconds, and settled within them.
LOOK_BACK_S = 2.0
#: Blocks between two looks for a lasting step.
LOOK_EVERY = 5
#: Steps within so few samples are looked for without arrays, which cost more than they save.
FEW = 32
#: A step backwards by more than this is a clock that was set, at once.
BACKWARDS_S = 0.5


class Stamped:
    """Even stamps for one sender that stamps.

    Parameters
    ----------
    given : Given
        Where the pieces are counted; shared with who else gives of the same stream.
    nominal : float
        Seconds per sample, as declared.
    offset : ClockOffset or HeardOffset
        Maps the sender's clock to the host's.
    """

    def __init__(self, given: Given, nominal: float, offset: ClockOffset | HeardOffset) -> None:
        self._given = given
        self._nominal = nominal
        self._offset = offset
        self._full_block = max(1, round(BLOCK_S / nominal))
        self._look_back = max(8, round(LOOK_BACK_S / nominal))
        self._warm_up = round(WARM_UP_S / nominal)
        self._offset_steps = offset.steps
        self._jitter = Jitter(1.0 / nominal)
        self._looked = 0  # blocks looked at
        self._learned = 0  # samples taken in since the sender is known
        self._exact = True  # no stamp so far strayed from the line
        self._number: int | None = None  # the sender's own, of the next sample
        self._fresh()

    @property
    def period(self) -> float:
        """Seconds per sample, as fitted."""
        return self._line.period if self._line is not None else self._nominal

    @property
    def jitter(self) -> float:
        """Seconds: 95 of 100 stamps lie closer to the line."""
        return self._jitter.value

    def _next_segment(self, why: str) -> None:
        self._given.next_segment(why)
        self._fresh()

    def _fresh(self) -> None:
        self._next = 0  # index of the next sample that comes; of the next that is given: self._given.index
        self._line: Line | None = None
        self._since = 0  # samples taken in since the segment or the last hole: blocks are short at first
        self._total = 0  # samples in the fit
        self._blocks: list[Block] = []
        self._behind = 0  # samples in them
        self._waiting: list[NDArray[np.float64]] = []  # stamps of the block that is not full yet
        self._n_waiting = 0
        self._hole: OpenHole | None = None

    def take(self, stamps: NDArray[np.float64], number: int | None) -> list[Piece]:
        """Place one pull, of at least one sample; see `StreamClock.stamped`."""
        if not math.isfinite(stamps.sum()) and not np.isfinite(stamps).all():
            at = int(np.flatnonzero(~np.isfinite(stamps))[0])
            raise StampError(f"the stamp of sample {self._next + at} is {stamps[at]}; expected seconds")
        if self._offset.steps != self._offset_steps:
            self._offset_steps = self._offset.steps
            self._next_segment("the offset between the sender's clock and the host's stepped")
        if number is not None:
            self._count(number, len(stamps))
        pieces: list[Piece] = []
        begin = at = 0
        while at < len(stamps):
            part = stamps[at : at + self._block_size() - self._n_waiting]
            behind = self._first_step(part)
            if behind is None:
                self._collect(part)
                at += len(part)
            else:
                if behind:
                    self._collect(part[:behind])
                    at += behind
                self._emit(pieces, begin, at)
                begin = at
                self._step_over(float(stamps[at]))
                self._collect(stamps[at : at + 1])
                at += 1
            if self._n_waiting >= self._block_size():
                begin = self._close_block(pieces, begin, at)
        self._emit(pieces, begin, at)
        return pieces

    def _count(self, number: int, n: int) -> None:
        """Follow the sender's own numbers."""
        expected, self._number = self._number, number + n
        if expected is None or number == expected:
            return
        if number < expected or (number - expected) * self.period > APART_S:
            self._next_segment("the sender's numbers went back" if number < expected else "a break of over an hour")
        else:
            self._flush()
            self._jump(number - expected, None, "numbers are missing")

    def _jump(self, missing: int, low: int | None, why: str) -> None:
        self._next += missing
        self._given.jump(missing, low, why)

    def _block_size(self) -> int:
        return min(self._full_block, max(1, self._since))

    def _first_step(self, part: NDArray[np.float64]) -> int | None:
        """Which sample shows a step at once."""
        line = self._line
        if line is None:
            return None
        strayed = EXACT * line.period
        learning = self._exact and 2 <= self._learned < self._warm_up and self._number is None
        limit = self._limit()
        above, below = (strayed, strayed) if learning else (max(strayed, limit), max(strayed, limit + BACKWARDS_S))
        first = line.at(self._next) + (0.0 if self._hole is None else self._hole.lag(line))
        if len(part) <= FEW:
            late = [stamp - first - k * line.period for k, stamp in enumerate(part.tolist())]
            if max(late) <= above and min(late) >= -below:
                return None
        off = part - (first + line.period * np.arange(len(part)))
        if off.max() <= above and off.min() >= -below:
            return None
        if learning:
            sure = EXACT if self._learned >= 8 else EXACT / 10
            k = int(np.flatnonzero(np.abs(off) > strayed)[0])
            whole = round(float(off[k]) / line.period)
            like = abs(line.period / self._nominal - 1) <= sure or self._learned >= 8
            if whole >= 1 and like and abs(off[k] - whole * line.period) <= sure * line.period:
                return k
            self._exact = False
        steps = np.flatnonzero((off > limit) | (off < -limit - BACKWARDS_S))
        return int(steps[0]) if len(steps) else None

    def _limit(self) -> float:
        """How far above the line a stamp shows a step at once: one of two periods is one period above it."""
        if self._number is not None or self._learned < self._warm_up:
            return WARM_UP_STEP_S
        return max(PERIODS * self.period, JITTERS * self._jitter.value) - self.period

    def _step_over(self, stamp: float) -> None:
        """The next sample lies behind a hole, or is stamped by a clock that was set."""
        assert self._line is not None
        off = stamp - self._line.at(self._next) - (0.0 if self._hole is None else self._hole.lag(self._line))
        if off < 0:
            self._next_segment(f"the sender's clock went back by {-off:.3f} s")
            return
        if self._number is not None:
            self._next_segment(f"the sender's clock went on by {off:.3f} s, and no number is missing")
            return
        if off > APART_S:
            self._next_segment("nothing came for more than an hour")
            return
        lost = self._first_lost(off)
        self._flush()
        # No more than are missing for sure: what is found later can be added, and nothing can be taken away.
        doubt = max(0.0, 1.5 * self._jitter.value - self.period / 2)
        missing = max(1, round((off - doubt) / self.period))
        self._jump(missing, lost, f"the stamps step by {off:.4f} s")
        self._hole = OpenHole(self._next, missing)

    def _first_lost(self, step: float) -> int:
        """Index from which on samples may lie behind a step that the next sample shows, by which jitter hid it."""
        assert self._line is not None
        line = self._line
        times = np.concatenate([*(b.times for b in self._blocks), *self._waiting, np.empty(0)])
        first = self._next - len(times)
        residuals = times - (line.phase + line.period * np.arange(first - line.origin, self._next - line.origin))
        return first + first_behind(residuals, step, max(line.noise(0.0), self._jitter.value / 2))

    def _collect(self, part: NDArray[np.float64]) -> None:
        if self._line is None:
            self._line = Line(float(part[0]), self._nominal, self._nominal, self._next)
        if self._hole is not None:
            self._hole.take(len(part), float(part.sum()))
        self._waiting.append(part)
        self._n_waiting += len(part)
        self._next += len(part)

    def _take_block(self) -> Block:
        """Make a block of what waits."""
        assert self._line is not None
        times = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        block = Block(self._next - len(times), times, float(times.sum()), self._line.copy())
        self._waiting.clear()
        self._n_waiting = 0
        self._since += len(times)
        self._learned += len(times)
        self._blocks.append(block)
        return block

    def _fit(self, block: Block) -> None:
        """Take a block into the line."""
        assert self._line is not None
        line = self._line
        line.spread = max(self._jitter.value, EXACT * line.period) if self._learned >= 8 else math.inf
        self._jitter.add(line.add(block.first, block.times))
        self._total += len(block)

    def _flush(self) -> None:
        """Before a hole: take in what waits, settle what is not settled, and begin to look for steps anew."""
        if self._n_waiting:
            block = self._take_block()
            if self._hole is None:
                self._fit(block)
        if self._hole is not None:
            assert self._line is not None
            hole, self._hole = self._hole, None
            more = round(hole.lag(self._line) / self.period)
            if more > 0:
                self._jump(more, hole.first, "")
            for block in self._blocks:
                block.first += more  # fewer than none: they only came late
                self._fit(block)
        self._blocks, self._behind = [], 0
        self._since = 0

    def _close_block(self, pieces: list[Piece], begin: int, at: int) -> int:
        """Take a full block in, and see to what it shows; which sample of the pull is to be given next."""
        block = self._take_block()
        if self._hole is not None:
            return self._settle(self._hole, pieces, begin, at)
        self._fit(block)
        self._behind += len(block)
        while self._blocks and self._behind > min(self._look_back, self._total / 2):
            self._behind -= len(self._blocks.pop(0))
        self._looked += 1
        if self._looked % LOOK_EVERY or self._learned < self._warm_up / 4 or len(self._blocks) < 2:
            return begin
        step = find_step(self._blocks, self._jitter.value, self._lasting())
        return begin if step is None else self._late_step(step, pieces, begin, at)

    def _settle(self, hole: OpenHole, pieces: list[Piece], begin: int, at: int) -> int:
        """Behind a hole: say how many samples it swallowed, once their stamps tell."""
        assert self._line is not None
        settled = hole.settled(self._line, self._blocks, self._jitter.value, self._look_back)
        if settled is None:
            return begin
        lag, error = settled
        behind, self._hole = self._blocks, None
        more = round(lag / self.period)
        if more < 0:
            return self._unmake_hole(behind, hole.held, lag, pieces, begin, at)
        if more:
            self._jump(more, hole.first, f"{more} more samples were missing than it seemed")
        self._blocks, self._behind = [], 0
        self._rephase(lag - more * self.period, error)
        for block in behind:
            block.first += more
            self._fit(block)
        return begin

    def _lasting(self) -> int:
        """Samples that must lie behind a step that lasts."""
        return max(2 * self._full_block, math.ceil(LASTING * self._jitter.value / self.period))

    def _unmake_hole(self, behind: list[Block], held: int, lag: float, pieces: list[Piece], begin: int, at: int) -> int:
        """Fewer samples were missing than was held, or none: another segment, since no index goes back."""
        assert self._line is not None
        line, missing = self._line, held + round(lag / self.period)
        if missing < 0:  # not a hole at all
            return self._set_clock(behind, lag, pieces, begin, at)
        pending = at - begin
        # The line before the hole still holds; behind it, samples are counted from the first that is not given yet.
        line.origin -= self._next - pending - (held - missing)
        first = pending - sum(map(len, behind))
        self._next_segment("samples came late, and fewer were missing than it seemed")
        self._next, self._line = pending, line
        for block in behind:
            block.first = first
            first += len(block)
            self._fit(block)
        return begin

    def _rephase(self, rest: float, error: float) -> None:
        """A step that is no whole number of periods: the sender keeps its rate, and not its phase."""
        assert self._line is not None
        if abs(rest) > max(
            ERRORS * error, EXACT * self.period, OF_JITTER * self.jitter, self._line.uncertainty(self._next)
        ):
            self._line.phase += rest

    def _late_step(self, step: Step, pieces: list[Piece], begin: int, at: int) -> int:
        """A lasting step was there, unseen, for some time."""
        assert self._line is not None
        blocks, self._blocks, self._behind = self._blocks, [], 0
        ahead, behind = blocks[: step.block], blocks[step.block :]
        more = round(step.size / self.period)
        self._line = blocks[0].before
        for block in ahead:
            self._fit(block)
        if more < 0 or self._number is not None:
            return self._set_clock(behind, step.size, pieces, begin, at)
        self._emit(pieces, begin, at)  # counted wrong, some of them, and declared so by what follows
        begin = at
        self._jump(more, step.low, f"{more} samples were missing, found late")
        self._rephase(step.size - more * self.period, self._line.noise(0.0) / sum(len(b) for b in behind) ** 0.5)
        for block in behind:
            block.first += more
            self._fit(block)
        return begin

    def _set_clock(self, behind: list[Block], step: float, pieces: list[Piece], begin: int, at: int) -> int:
        """A lasting step that no hole explains: another segment, which begins with what is not given yet."""
        n = sum(len(b) for b in behind)
        whole = at - begin - n
        if whole > 0:
            self._emit(pieces, begin, begin + whole)
            begin += whole
        self._next_segment(f"the sender's clock was set by {step:+.6f} s, or samples came late")
        self._next = at - begin
        first = self._next - n
        for k, block in enumerate(behind):
            block.first = first
            first += len(block)
            if k or len(behind) == 1:  # the step may lie within the first one
                self._line = self._line or Line(float(block.times[0]), self._nominal, self._nominal, block.first)
                self._fit(block)
        return begin

    def _emit(self, pieces: list[Piece], begin: int, stop: int) -> None:
        """Give samples of the pull, by the line as it stands."""
        n = stop - begin
        if n <= 0:
            return
        assert self._line is not None
        line, period, index = self._line, self._line.period, self._given.index
        lag = 0.0 if self._hole is None else self._hole.likely_lag(line, self._jitter.value)
        first = self._offset.to_host(line.at(index) + lag)
        last = self._offset.to_host(line.at(index + n - 1) + lag)
        unsure = 0.0 if self._hole is None else period
        doubt = line.uncertainty(index + n - 1) + self._offset.uncertainty + unsure
        pieces.append(self._given.piece(begin, stop, (first, last), period, doubt))
