"""Single channels of simulated EEG, and of what disturbs it: for denoisers that learn from clean signals made dirty.

What is added to what is known, so that the clean signal is known too (semi-synthetic contamination, Zhang and others,
Journal of Neural Engineering 18, 2021: EEGdenoiseNet). Everything here is simulated.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt
from scipy.signal.windows import hann

Signals = NDArray[np.float32]

#: Centre in Hz, width in Hz and largest size of the rhythms, beside the background's standard deviation of one.
RHYTHMS = ((6.0, 1.5, 0.6), (10.0, 1.0, 1.5), (20.0, 4.0, 0.5))
#: Band of muscle activity in Hz; what lies above the signal's own band is cut.
MUSCLE = (20.0, 90.0)
#: A signal that varies by less is none.
FLAT = 1e-9


def clean_eeg(rng: np.random.Generator, n: int, n_times: int, sfreq: float) -> Signals:
    """EEG as a 1/f background with bursts of theta, alpha and beta, each signal of standard deviation one.

    Returns
    -------
    ndarray of float32, shape (n, n_times)
    """
    frequencies = np.fft.rfftfreq(n_times, 1 / sfreq)
    slope = rng.uniform(0.7, 1.3, size=(n, 1))
    gain = np.where(frequencies >= 0.5, np.maximum(frequencies, 0.5) ** -slope, 0.0)
    signal = _standard(np.fft.irfft(gain * _gaussian(rng, (n, len(frequencies))), n_times))
    for centre, width, largest in RHYTHMS:
        band = np.exp(-np.square((frequencies - centre) / width) / 2)
        rhythm = _standard(np.fft.irfft(band * _gaussian(rng, (n, len(frequencies))), n_times))
        signal = signal + rng.uniform(0, largest, size=(n, 1)) * rhythm
    return _standard(signal).astype(np.float32)


def artifacts(rng: np.random.Generator, n: int, n_times: int, sfreq: float) -> Signals:
    """Blinks, gaze steps, muscle bursts and mains hum, one or two of them in each signal, of standard deviation one.

    Returns
    -------
    ndarray of float32, shape (n, n_times)
    """
    signals = np.zeros((n, n_times))
    for row in range(n):
        while np.ptp(signals[row]) < FLAT:  # a blink that begins with the last sample adds nothing
            signals[row] = _one_or_two(rng, n_times, sfreq)
    return _standard(signals).astype(np.float32)


def _one_or_two(rng: np.random.Generator, n_times: int, sfreq: float) -> NDArray[np.float64]:
    kinds = rng.choice(len(MAKERS), size=rng.integers(1, 3), replace=False, p=SHARES)
    parts = [rng.uniform(0.5, 1) * _standard(MAKERS[kind](rng, n_times, sfreq)[None])[0] for kind in kinds]
    return np.asarray(np.sum(parts, axis=0))


def contaminate(clean: Signals, artifact: Signals, snr_db: NDArray[np.floating] | float) -> Signals:
    """``clean + k artifact`` with k such that ``10 log10(power of clean / power of k artifact)`` is the given ratio.

    Parameters
    ----------
    clean, artifact : ndarray of float32, shape (n, n_times)
        Powers are those about zero.
    snr_db : float or ndarray, shape (n,)
        In dB.

    Raises
    ------
    ValueError
        An artifact is zero throughout: no k gives the ratio.
    """
    if len(empty := np.flatnonzero(~artifact.any(axis=1))):
        raise ValueError(f"artifact {empty[0]} is zero throughout; no multiple of it gives {snr_db} dB")
    ratio = 10 ** (-np.asarray(snr_db, dtype=np.float64) / 20)
    power = np.square(clean, dtype=np.float64).mean(axis=1) / np.square(artifact, dtype=np.float64).mean(axis=1)
    scale = ratio * np.sqrt(power)
    return np.asarray(clean + scale[:, None] * artifact, dtype=np.float32)


def correlation(one: Signals, other: Signals) -> NDArray[np.float64]:
    """Pearson's correlation coefficient of each pair of signals, shape (n,)."""
    x = one.astype(np.float64) - one.mean(axis=-1, keepdims=True, dtype=np.float64)
    y = other.astype(np.float64) - other.mean(axis=-1, keepdims=True, dtype=np.float64)
    scale = np.sqrt(np.square(x).sum(axis=-1) * np.square(y).sum(axis=-1))
    return np.asarray((x * y).sum(axis=-1) / np.maximum(scale, 1e-30))


def _blinks(rng: np.random.Generator, n_times: int, sfreq: float) -> NDArray[np.float64]:
    """Humps of 0.2 to 0.4 s, some with an undershoot after them."""
    signal = np.zeros(n_times)
    for _ in range(rng.integers(1, 4)):
        width = round(rng.uniform(0.2, 0.4) * sfreq)
        hump = np.concatenate([hann(width), -rng.uniform(0, 0.3) * hann(width)])
        _add(signal, hump * rng.uniform(0.6, 1), int(rng.integers(-width, n_times)))
    return signal


def _gaze(rng: np.random.Generator, n_times: int, sfreq: float) -> NDArray[np.float64]:
    """Steps of gaze behind an amplifier's high-pass: sudden, then fading over 0.5 to 2 s."""
    signal = np.zeros(n_times)
    for _ in range(rng.integers(1, 5)):
        fading = np.exp(-np.arange(n_times) / (rng.uniform(0.5, 2) * sfreq))
        _add(signal, fading * rng.choice([-1, 1]) * rng.uniform(0.4, 1), int(rng.integers(0, n_times)))
    return signal


def _muscle(rng: np.random.Generator, n_times: int, sfreq: float) -> NDArray[np.float64]:
    """Band-passed noise under an envelope that swells and fades."""
    high = min(MUSCLE[1], 0.45 * sfreq)
    bands = butter(2, (MUSCLE[0], high), btype="bandpass", fs=sfreq, output="sos")
    noise: NDArray[np.float64] = sosfiltfilt(bands, rng.standard_normal(3 * n_times))[n_times : 2 * n_times]
    envelope = np.full(n_times, rng.uniform(0, 0.3))
    for _ in range(rng.integers(1, 4)):
        width = round(rng.uniform(0.2, 1.5) * sfreq)
        _add(envelope, hann(width), int(rng.integers(-width // 2, n_times)))
    return np.asarray(noise * envelope)


def _mains(rng: np.random.Generator, n_times: int, sfreq: float) -> NDArray[np.float64]:
    """A sine of 50 Hz."""
    phase = rng.uniform(0, 2 * np.pi)
    return np.asarray(np.sin(2 * np.pi * 50 * np.arange(n_times) / sfreq + phase))


def _add(signal: NDArray[np.float64], piece: NDArray[np.float64], start: int) -> None:
    """Add a piece that may reach over either end."""
    first, last = max(0, start), min(len(signal), start + len(piece))
    if first < last:
        signal[first:last] += piece[first - start : last - start]


#: What disturbs, and how often each of them does.
MAKERS = (_blinks, _gaze, _muscle, _mains)
SHARES = np.array([0.3, 0.15, 0.45, 0.1])


def _gaussian(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.complex128]:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def _standard(signals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean zero and standard deviation one; a signal of zeros stays what it is, but for a trace of noise."""
    centred = signals - signals.mean(axis=-1, keepdims=True)
    deviation = centred.std(axis=-1, keepdims=True)
    return np.asarray(centred / np.where(deviation > 1e-12, deviation, 1.0))
