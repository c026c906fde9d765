"""Causal polyphase FIR resampling, by whole and rational factors alike."""

import math

import numpy as np
from scipy import signal

from rtdecode.signal import Channel
from rtdecode.stream.runner import Array, Runner, rate, require
from rtdecode.stream.steps import Resample

#: Attenuation in dB that the Kaiser window is made for, so that all that folds into the pass band together, an alias
#: and its images between the phases, stays below -60 dB.
_DESIGN = 66.0
_BETA = float(signal.kaiser_beta(_DESIGN))
#: Outputs of one product.
ROWS = 8
MAX_UP = 4
MIN_HALF_WIDTH, MAX_HALF_WIDTH = 3.0, 64.0
#: Bytes of taps that are kept; ratios with many phases compute theirs again when they come round.
_TAP_BYTES = 32 << 20


class ResampleRunner(Runner):
    r"""Runs `Resample`.

    Output ``k`` stands at input position ``k / ratio`` and needs no input after it:

    .. math:: y_k = \sum_n h(k/r - n)\, x_n,\qquad
              h(t) = \mathrm{sinc}\!\left(2 f_c (t - D)\right) w\!\left(\frac{t - D}{D}\right),\ 0 \le t \le 2D

    with the Kaiser window ``w``, the cut-off ``f_c`` at half the lower rate and the delay ``D`` of `half_width` periods
    of that rate (Crochiere and Rabiner, Multirate Digital Signal Processing, 1983, ch. 4; Kaiser, 1974). Each output's
    taps add up to one, so that an offset comes through without ripple.

    Outputs are computed in blocks of `ROWS` counted from the segment's start, each block one product of the same shape.
    """

    def __init__(self, where: str, step: Resample, channels: tuple[Channel, ...], sfreq: float) -> None:
        highest = MAX_UP * sfreq
        require(
            0 < step.sfreq <= highest,
            where,
            "sfreq",
            step.sfreq,
            f"above 0, at most {highest:g} Hz ({MAX_UP} x {sfreq:g})",
        )
        limits = f"{MIN_HALF_WIDTH:g} to {MAX_HALF_WIDTH:g} periods"
        require(MIN_HALF_WIDTH <= step.half_width <= MAX_HALF_WIDTH, where, "half_width", step.half_width, limits)
        super().__init__(where, channels, step.sfreq)
        require(rate(step.sfreq) > 0, where, "sfreq", step.sfreq, "at least 0.0001 Hz")
        self.ratio = rate(step.sfreq) / rate(sfreq)
        lower = min(sfreq, step.sfreq)
        self._seconds = 0.0 if self.ratio == 1 else step.half_width / lower
        # Kaiser's formula gives the width of the transition, which lies around half the lower rate: what is above it
        # folds to below the pass band's edge only from beyond the transition's other end.
        if self.ratio != 1:
            self.band = (0.0, lower * (0.5 - (_DESIGN - 7.95) / (14.36 * 4 * step.half_width)))
        self._cutoff = lower / sfreq / 2
        self._delay = step.half_width * sfreq / lower
        self._taps = math.floor(2 * self._delay + 1e-9) + 1
        up, down = self.ratio.numerator, self.ratio.denominator
        self._width = self._taps + -(-(ROWS - 1) * down // up)
        self._tap_blocks: dict[int, Array] = {}
        self._most_tap_blocks = max(1, _TAP_BYTES // (8 * ROWS * self._width))
        self._buffer = np.zeros((0, len(channels)))
        self.restart(0)

    def restart(self, index: int) -> None:
        """Forget the inputs; those before `index` are taken to equal the first one from there on."""
        self._fresh = True
        self._next_in = index
        self._next_out = math.ceil(index * self.ratio)
        self._base = self._first_input(self._next_out // ROWS)
        self._fill = 0

    def push(self, x: Array) -> Array:
        """Resample; at the rate that is there already, hand on what comes in."""
        if self.ratio == 1:
            return x
        if self._fresh:
            self._fresh = False
            self._append(np.broadcast_to(x[0], (self._next_in - self._base, x.shape[1])))
        self._append(x)
        self._next_in += len(x)
        first, stop = self._next_out, math.ceil(self._next_in * self.ratio)
        out = np.empty((stop - first, x.shape[1]))
        while self._next_out < stop:
            block = self._next_out // ROWS
            at = self._first_input(block) - self._base
            # Inputs still to come have no taps in the rows that are due; the rows that have are not taken.
            rows = self._taps_of(block) @ self._buffer[at : at + self._width]
            to = min(stop, (block + 1) * ROWS)
            out[self._next_out - first : to - first] = rows[self._next_out - block * ROWS : to - block * ROWS]
            self._next_out = to
        return out

    def delay(self, hz: Array) -> Array:
        """Half the filter's length at every frequency."""
        return np.full(len(hz), self._seconds)

    def _first_input(self, block: int) -> int:
        return block * ROWS * self.ratio.denominator // self.ratio.numerator - (self._taps - 1)

    def _append(self, x: Array) -> None:
        """Keep inputs behind those that are still needed, with room for a whole block after them."""
        if self._fill + len(x) + self._width > len(self._buffer):
            keep_from = self._first_input(self._next_out // ROWS) - self._base
            kept = self._buffer[keep_from : self._fill].copy() if self._fill else self._buffer[:0]
            needed = len(kept) + len(x) + self._width
            if needed > len(self._buffer):
                self._buffer = np.zeros((2 * needed, self._buffer.shape[1]))
            self._buffer[: len(kept)] = kept
            self._base += keep_from if self._fill else 0
            self._fill = len(kept)
        self._buffer[self._fill : self._fill + len(x)] = x
        self._fill += len(x)

    def _taps_of(self, block: int) -> Array:
        """Taps of one block of outputs, (`ROWS`, inputs); rates that fit well repeat after a few blocks."""
        up, down = self.ratio.numerator, self.ratio.denominator
        phase = block * ROWS * down % up
        taps = self._tap_blocks.get(phase)
        if taps is None:
            if len(self._tap_blocks) >= self._most_tap_blocks:
                del self._tap_blocks[next(iter(self._tap_blocks))]
            taps = self._tap_blocks[phase] = self._design(phase)
        return taps

    def _design(self, phase: int) -> Array:
        up, down = self.ratio.numerator, self.ratio.denominator
        positions = [divmod(phase + row * down, up) for row in range(ROWS)]
        whole = np.array([[w] for w, _ in positions])
        fraction = np.array([[rest / up] for _, rest in positions])
        back = np.arange(self._taps)
        t = fraction + back - self._delay
        inside = 1 - (t / self._delay) ** 2
        window = np.where(inside >= -1e-9, np.i0(_BETA * np.sqrt(np.maximum(inside, 0))), 0)
        h = np.sinc(2 * self._cutoff * t) * window
        taps = np.zeros((ROWS, self._width))
        np.put_along_axis(taps, whole + (self._taps - 1) - back, h / h.sum(axis=1, keepdims=True), axis=1)
        return taps
