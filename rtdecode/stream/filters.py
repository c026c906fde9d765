"""Causal IIR filters in second-order sections: Butterworth and notch."""

import numpy as np
from scipy import signal

from rtdecode.errors import ConfigError
from rtdecode.signal import Channel
from rtdecode.stream.runner import Array, Runner, require
from rtdecode.stream.steps import Filter, Notch

#: Samples between two looks at the state for numbers that have decayed to nothing.
FLUSH = 1024
#: Below this a state is nothing: float32 input that is not zero is at least 1e-45.
NOTHING = 1e-200
#: Highest Butterworth order; beyond it, narrow band-passes lose their shape to rounding.
MAX_ORDER = 12
MAX_HARMONICS = 64


def _sosfilt_public(sos: Array, rows: Array, state: Array) -> None:
    """Filter `rows` (channels, time) in place, with `state` (channels, sections, 2), by scipy's public function."""
    rows[:], after = signal.sosfilt(sos, rows, axis=1, zi=state.transpose(1, 0, 2))
    state[:] = after.transpose(1, 0, 2)


try:
    # What the public function runs after it has looked at its arguments, which takes several times as long as filtering
    # a chunk does. A scipy without it is as good, only slower.
    from scipy.signal._sosfilt import _sosfilt
except ImportError:
    _sosfilt = _sosfilt_public  # type: ignore[assignment]  # scipy's takes more types


class SosRunner(Runner):
    """Runs second-order sections from the steady state of the first sample on, so that an offset makes no transient."""

    def __init__(self, where: str, sos: Array, channels: tuple[Channel, ...], sfreq: float) -> None:
        super().__init__(where, channels, sfreq)
        self._sos = np.ascontiguousarray(sos)
        self._steady = signal.sosfilt_zi(self._sos)[:, :, np.newaxis]
        self._state: Array | None = None
        self._index = 0

    def restart(self, index: int) -> None:
        """Forget the state; the next sample sets it."""
        self._state = None
        self._index = index

    def push(self, x: Array) -> Array:
        """Filter."""
        if self._state is None:
            self._state = np.ascontiguousarray((self._steady * x[0]).transpose(2, 0, 1))
        out = np.empty_like(x)
        done = 0
        while done < len(x):
            to = min(len(x), done + FLUSH - self._index % FLUSH)
            rows = np.array(x[done:to].T, order="C")
            _sosfilt(self._sos, rows, self._state)
            out[done:to] = rows.T
            self._index += to - done
            done = to
            if self._index % FLUSH == 0:
                # After a signal falls silent the state decays into subnormal numbers, which cost a hundred times as
                # much to compute with. Counted from the segment's start, so that the cutting does not matter.
                self._state[np.abs(self._state) < NOTHING] = 0.0
        return out

    def delay(self, hz: Array) -> Array:
        """Group delay of the sections: minus the derivative of their phase (Oppenheim and Schafer, sec. 5.1)."""
        z = np.exp(-2j * np.pi * hz / self.sfreq)[:, np.newaxis] ** np.arange(3)
        samples = np.zeros(len(hz))
        for section in self._sos:
            samples += _slope(section[:3], z) - _slope(section[3:], z)
        return samples / self.sfreq


def _slope(polynomial: Array, z: np.ndarray) -> Array:
    """Re(sum k c_k z^-k / sum c_k z^-k), the group delay of one polynomial, in samples."""
    value = z @ polynomial
    slope = np.full(len(z), np.nan)
    some = np.abs(value) > 1e-12
    slope[some] = np.real(z[some] @ (polynomial * np.arange(3)) / value[some])
    return slope


class FilterRunner(SosRunner):
    """Runs `Filter`."""

    def __init__(self, where: str, step: Filter, channels: tuple[Channel, ...], sfreq: float) -> None:
        nyquist = sfreq / 2
        low, high = step.low, step.high
        require(1 <= step.order <= MAX_ORDER, where, "order", step.order, f"1 to {MAX_ORDER}")
        for key, edge in (("low", low), ("high", high)):
            limit = f"above 0 and below {nyquist:g} Hz, half the rate at this place of the chain"
            require(edge is None or 0 < edge < nyquist, where, key, edge, limit)
        if low is not None and high is not None:
            require(low < high, where, "low", low, f"below high = {high:g} Hz")
            sos = signal.butter(step.order, (low, high), "bandpass", fs=sfreq, output="sos")
        elif low is not None:
            sos = signal.butter(step.order, low, "highpass", fs=sfreq, output="sos")
        elif high is not None:
            sos = signal.butter(step.order, high, "lowpass", fs=sfreq, output="sos")
        else:
            raise ConfigError(f"{where}: neither low nor high is given; expected at least one of them, in Hz")
        stable = all((np.abs(np.roots(section[3:])) < 1).all() for section in sos)
        require(
            stable, where, "low, high, order", (low, high, step.order), "a stable filter: a lower order or wider band"
        )
        super().__init__(where, sos, channels, sfreq)
        self.band = (low or 0.0, high or nyquist)


class NotchRunner(SosRunner):
    """Runs `Notch`."""

    def __init__(self, where: str, step: Notch, channels: tuple[Channel, ...], sfreq: float) -> None:
        nyquist = sfreq / 2
        require(step.quality > 0, where, "quality", step.quality, "above 0")
        require(1 <= step.harmonics <= MAX_HARMONICS, where, "harmonics", step.harmonics, f"1 to {MAX_HARMONICS}")
        limit = f"above 0 and below {nyquist:g} Hz, half the rate at this place of the chain"
        require(0 < step.freq < nyquist, where, "freq", step.freq, limit)
        most = int(np.ceil(nyquist / step.freq)) - 1
        require(
            step.harmonics <= most,
            where,
            "harmonics",
            step.harmonics,
            f"at most {most}: all of them below {nyquist:g} Hz",
        )
        self._notches = [step.freq * n for n in range(1, step.harmonics + 1)]
        self._quality = step.quality
        sos = np.array([np.concatenate(signal.iirnotch(f, step.quality, fs=sfreq)) for f in self._notches])
        super().__init__(where, sos, channels, sfreq)

    def delay(self, hz: Array) -> Array:
        """Group delay; NaN inside the notches, from one bandwidth below to one above."""
        seconds = super().delay(hz)
        for notch in self._notches:
            seconds[np.abs(hz - notch) < notch / self._quality] = np.nan
        return seconds
