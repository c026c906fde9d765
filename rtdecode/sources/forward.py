"""A simulated subject who looks at things: 64-channel EEG from a seeded forward model. Nothing here was measured.

What the model holds, and where each part comes from:

- *Positions*: the idealised 10-10 system on a sphere (Oostenveld and Praamstra, Clinical Neurophysiology 2001): rows
  that cross the midline in steps of 18 degrees, each divided into equal parts between midline and circumference.
- *Sensor patterns*: the potential of a current dipole in an infinite homogeneous conductor, v ~ q.(r - r0)/|r - r0|^3
  (Nunez and Srinivasan, Electric Fields of the Brain, 2006, chapter 5), against the common average. Smooth and
  dipolar as real fields are, without a skull.
- *Evoked response*: visual sources in the occipital lobes (peaks at 100-200 ms) and in the occipital and temporal lobes
  (250-500 ms). Each source answers with a fixed random projection of the concept's embedding, plus a part common to all
  concepts. Each trial has its own gain and latency.
- *Background*: 1/f noise of dipoles all over the head (so it is correlated between neighbours), an alpha rhythm that
  waxes and wanes, eye blinks, line noise at 50 Hz, and white sensor noise.

Everything is a pure function of (subject seed, session seed, sample index): samples are made in blocks of `BLOCK`,
counted from the start, so however they are asked for, the bytes are the same. The subject is drawn from SHAKE-256 (see
`rtdecode.sources.concepts`), the noise from numpy's PCG64.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rtdecode.sources.concepts import WIDTH, Array, Concept, embeddings, gallery, normals, uniforms

#: Samples that are made at once.
BLOCK = 512
#: Radius of the head in metres.
RADIUS = 0.095


# --- the head ---------------------------------------------------------------------------------------------------------


#: Rows of the 10-10 system: midline name, inclination of the midline (degrees from the vertex, front is positive),
#: azimuth of the row's end on the circumference (degrees from the front), and the names to the left of the midline,
#: from the circumference inwards, with the quarter of the way out that each one takes.
_ROWS: tuple[tuple[str, float, float, tuple[tuple[str, int], ...]], ...] = (
    ("Fpz", 72, 18, (("Fp1", 4),)),
    ("AFz", 54, 36, (("AF7", 4), ("AF3", 2))),
    ("Fz", 36, 54, (("F7", 4), ("F5", 3), ("F3", 2), ("F1", 1))),
    ("FCz", 18, 72, (("FT7", 4), ("FC5", 3), ("FC3", 2), ("FC1", 1))),
    ("Cz", 0, 90, (("T7", 4), ("C5", 3), ("C3", 2), ("C1", 1))),
    ("CPz", -18, 108, (("TP7", 4), ("CP5", 3), ("CP3", 2), ("CP1", 1))),
    ("Pz", -36, 126, (("P9", 5), ("P7", 4), ("P5", 3), ("P3", 2), ("P1", 1))),
    ("POz", -54, 144, (("PO7", 4), ("PO3", 2))),
    ("Oz", -72, 162, (("O1", 4),)),
    ("Iz", -90, 180, ()),
)


def _on_sphere(inclination: float, azimuth: float) -> Array:
    """Unit vector; x to the right, y to the front, z up. Azimuth counts from the front to the left."""
    tilt, turn = math.radians(inclination), math.radians(azimuth)
    return np.array([-math.sin(tilt) * math.sin(turn), math.sin(tilt) * math.cos(turn), math.cos(tilt)])


def _along(start: Array, end: Array, share: float) -> Array:
    """Point of the great circle from `start` to `end`."""
    angle = math.acos(float(np.clip(start @ end, -1.0, 1.0)))
    return (math.sin((1 - share) * angle) * start + math.sin(share * angle) * end) / math.sin(angle)


def _montage() -> dict[str, tuple[float, float, float]]:
    positions: dict[str, Array] = {}
    for middle, inclination, azimuth, left in _ROWS:
        centre = _on_sphere(inclination, 0.0)
        end = _on_sphere(72.0, azimuth)
        row = {name: _on_sphere(90.0, azimuth) if part > 4 else _along(centre, end, part / 4) for name, part in left}
        positions |= row
        positions[middle] = centre
        # the right side mirrors the left; its names are the next even numbers: P7 -> P8, P9 -> P10
        for name, at in reversed(row.items()):
            stem = name.rstrip("0123456789")
            positions[f"{stem}{int(name[len(stem) :]) + 1}"] = at * (-1.0, 1.0, 1.0)
    return {name: (float(x), float(y), float(z)) for name, (x, y, z) in ((n, RADIUS * p) for n, p in positions.items())}


#: The 64 channels, from the front to the back and from left to right, with positions in metres (head coordinates).
MONTAGE: dict[str, tuple[float, float, float]] = _montage()


def lead_field(sources: Array, moments: Array) -> Array:
    """Potentials of dipoles at the 64 electrodes, against their average.

    Parameters
    ----------
    sources : ndarray, shape (n, 3)
        Places in metres.
    moments : ndarray, shape (n, 3)
        Directions; only they count, as each pattern is scaled.

    Returns
    -------
    ndarray, shape (n, 64)
        Each row has a root mean square of 1.
    """
    away = np.array(list(MONTAGE.values()))[None] - sources[:, None]
    potential = np.einsum("ncx,nx->nc", away, moments) / np.linalg.norm(away, axis=2) ** 3
    potential -= potential.mean(axis=1, keepdims=True)
    return np.asarray(potential / np.sqrt(np.mean(potential**2, axis=1, keepdims=True)))


# --- the subject ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Levels:
    """How strong each part is, in volts (root mean square over channels unless said otherwise).

    The default was chosen so that single trials can be decoded, but often are not; see ``docs/demo.md``.
    """

    evoked: float = 0.28e-6
    """Peak of a typical source's answer to a concept."""
    common: float = 1.5e-6
    """Peak of a typical source's answer to anything at all."""
    background: float = 9.0e-6
    alpha: float = 5.0e-6
    blink: float = 120.0e-6
    """Peak at the most frontal electrodes."""
    line: float = 2.0e-6
    """Amplitude of the 50 Hz sine."""
    sensor: float = 0.7e-6
    gain_spread: float = 0.2
    """Standard deviation of the logarithm of a trial's gain."""
    latency_spread: float = 0.008
    """Standard deviation of a trial's latency in seconds."""


class Subject:
    """How one simulated head answers to what it is shown: the forward model without noise.

    Parameters
    ----------
    seed : int
        Which subject.
    levels : Levels
        Strengths.

    Attributes
    ----------
    patterns : ndarray, shape (sources, 64)
        Sensor pattern of each source.
    weights : ndarray, shape (sources, `WIDTH`)
        What each source answers to.
    """

    N_EARLY = 16
    N_LATE = 32
    #: Seconds after which an answer is over, jitter included.
    DURATION = 0.8

    def __init__(self, seed: int = 0, levels: Levels | None = None) -> None:
        self.seed = seed
        self.levels = levels or Levels()
        n = self.N_EARLY + self.N_LATE
        key = f"rtdecode subject {seed}"
        late = np.arange(n) >= self.N_EARLY
        self.patterns = lead_field(self._places(key, late), normals(f"{key} moments", (n, 3)))
        self.weights = normals(f"{key} weights", (n, WIDTH)) * self.levels.evoked
        self.offsets = normals(f"{key} offsets", (n,)) * self.levels.common
        early_peaks = uniforms(f"{key} early", 0.10, 0.20, n)
        late_peaks = uniforms(f"{key} late", 0.25, 0.50, n)
        self.peaks = np.where(late, late_peaks, early_peaks)
        self.widths = np.where(late, 0.045, 0.018) * uniforms(f"{key} widths", 0.8, 1.3, n)
        self.phases = uniforms(f"{key} phases", 0.0, 2.0 * np.pi, n)

    @staticmethod
    def _places(key: str, late: NDArray[np.bool_]) -> Array:
        """Sources on both sides: the early ones in the occipital lobes, the late ones also along the temporal lobes."""
        n = len(late)
        turn = np.where(late, uniforms(f"{key} azimuth late", 100, 175, n), uniforms(f"{key} azimuth", 150, 180, n))
        tilt = np.where(late, uniforms(f"{key} tilt late", 60, 110, n), uniforms(f"{key} tilt", 65, 100, n))
        depth = RADIUS * uniforms(f"{key} depth", 0.60, 0.82, n)
        side = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
        return np.array([r * _on_sphere(t, s * a) for r, t, s, a in zip(depth, tilt, side, turn, strict=True)])

    def courses(self, times: Array) -> Array:
        """Time course of each source, shape (times, sources): a Gaussian envelope around one and a half waves.

        `times` are seconds after stimulus onset.
        """
        late = (times[:, None] - self.peaks) / self.widths
        return np.asarray(np.exp(-0.5 * late**2) * np.cos(1.5 * late + self.phases))

    def evoked(self, embedding: Array, times: Array) -> Array:
        """Response to one concept at the sensors in volts, shape (times, 64), without noise."""
        amplitudes = self.weights @ embedding + self.offsets
        return np.asarray((self.courses(times) * amplitudes) @ self.patterns)


@dataclass(frozen=True, slots=True)
class Stimulus:
    """One thing that was shown. `index` is the sample of its onset, `concept` its place in the session's list."""

    index: int
    concept: int
    gain: float
    delay: float


class Session:
    """An endless recording of one subject: samples by index, stimuli by index.

    Parameters
    ----------
    subject : Subject
        Who.
    seed : int
        Noise, order and jitter of the stimuli.
    sfreq : float
        Hz.
    soa : float
        Mean seconds from one onset to the next; at least the response's duration.
    jitter : float
        Each onset lies up to this many seconds to either side of its place.
    shown : sequence of Concept, optional
        What is shown: each once, in random order, then each once again; all of `gallery` where not given.

    Attributes
    ----------
    stimulus : callable
        The stimulus of a number, counted from 0.

    Raises
    ------
    ValueError
        A rate, interval or list that makes no sense.
    """

    #: Seconds before the first stimulus, in which filters settle.
    LEAD_IN = 2.0

    def __init__(
        self,
        subject: Subject,
        seed: int = 0,
        *,
        sfreq: float = 250.0,
        soa: float = 1.0,
        jitter: float = 0.1,
        shown: Sequence[Concept] | None = None,
    ) -> None:
        if not 120.0 <= sfreq <= 20000.0:
            raise ValueError(
                f"a simulated rate of {sfreq} Hz; expected 120 to 20000 Hz, so that 50 Hz can be told from noise"
            )
        if not 0.0 <= jitter < soa / 2 or soa - 2 * jitter < Subject.DURATION - 0.01:
            raise ValueError(
                f"stimuli every {soa} s with a jitter of {jitter} s; expected at least {Subject.DURATION} s from one "
                "to the next, as the response to the one must be over"
            )
        self.subject = subject
        self.seed = seed
        self.sfreq = sfreq
        self.soa = soa
        self.jitter = jitter
        self.shown = gallery() if shown is None else tuple(shown)
        if not self.shown:
            raise ValueError("a simulated session that shows nothing; expected at least one concept")
        self.embeddings = embeddings(self.shown)
        self._line_gain, self._line_phase = self._line()
        self._noise = _Noise(subject, seed, sfreq)
        self._blocks: OrderedDict[int, NDArray[np.float32]] = OrderedDict()
        self.stimulus = lru_cache(maxsize=64)(self._stimulus)

    def samples(self, first: int, n: int) -> NDArray[np.float32]:
        """Samples [first, first + n) in volts, shape (n, 64)."""
        if n <= 0:
            return np.empty((0, len(MONTAGE)), np.float32)
        parts = []
        for number in range(first // BLOCK, (first + n - 1) // BLOCK + 1):
            origin = number * BLOCK
            parts.append(self.block(number)[max(first - origin, 0) : min(first + n - origin, BLOCK)])
        return np.concatenate(parts) if len(parts) > 1 else parts[0].copy()

    def block(self, number: int) -> NDArray[np.float32]:
        """Block `number`, made now unless it is one of the last few."""
        kept = self._blocks.get(number)
        if kept is None:
            kept = self._make(number)
            kept.setflags(write=False)
            self._blocks[number] = kept
            if len(self._blocks) > 4:
                self._blocks.popitem(last=False)
        return kept

    def stimuli(self, first: int, n: int) -> list[Stimulus]:
        """The stimuli with onsets in [first, first + n), in order."""
        lowest = max(0, math.floor((first / self.sfreq - self.LEAD_IN - self.jitter) / self.soa) - 1)
        highest = math.ceil(((first + n) / self.sfreq - self.LEAD_IN + self.jitter) / self.soa) + 1
        return [s for s in map(self.stimulus, range(lowest, max(lowest, highest))) if first <= s.index < first + n]

    def whole(self, seconds: float) -> float:
        """The longest length up to `seconds`, in seconds, at whose end no response is cut off."""
        stop, reach = round(seconds * self.sfreq), round(Subject.DURATION * self.sfreq)
        unfinished = self.stimuli(max(0, stop - reach), min(stop, reach))
        return (unfinished[0].index if unfinished else stop) / self.sfreq

    def _stimulus(self, number: int) -> Stimulus:
        cycle, place = divmod(number, len(self.shown))
        order = np.random.default_rng([self.seed, 1, cycle]).permutation(len(self.shown))
        rng = np.random.default_rng([self.seed, 2, number])
        onset = self.LEAD_IN + number * self.soa + rng.uniform(-self.jitter, self.jitter)
        levels = self.subject.levels
        return Stimulus(
            index=round(onset * self.sfreq),
            concept=int(order[place]),
            gain=math.exp(levels.gain_spread * rng.standard_normal()),
            delay=float(np.clip(rng.standard_normal(), -3, 3)) * levels.latency_spread,
        )

    def _make(self, number: int) -> NDArray[np.float32]:
        first = number * BLOCK
        volts = self._noise.block(number)
        times = (first + np.arange(BLOCK)) / self.sfreq
        volts += self._line_gain * np.sin(2.0 * np.pi * 50.0 * times[:, None] + self._line_phase)
        reach = round(Subject.DURATION * self.sfreq)
        for stimulus in self.stimuli(first - reach, reach + BLOCK):
            begin, end = max(0, stimulus.index - first), min(BLOCK, stimulus.index + reach - first)
            since = (first + np.arange(begin, end) - stimulus.index) / self.sfreq - stimulus.delay
            volts[begin:end] += stimulus.gain * self.subject.evoked(self.embeddings[stimulus.concept], since)
        return volts.astype(np.float32)

    def _line(self) -> tuple[Array, Array]:
        """Amplitude and phase of the 50 Hz at each electrode: nearly alike, as the cable is the antenna."""
        rng = np.random.default_rng([self.seed, 3])
        n = len(MONTAGE)
        return self.subject.levels.line * (1.0 + 0.4 * rng.standard_normal(n)), rng.normal(0.7, 0.3, n)


# --- what is always there ---------------------------------------------------------------------------------------------


class _Noise:
    """Background, alpha, blinks and sensor noise, by block.

    Coloured noise is white noise shaped in the frequency domain, in pieces of two blocks that overlap by one under a
    sine window; squares of sine and cosine add up to one, so the power is constant and every block stands alone.
    """

    N_SOURCES = 96
    N_ALPHA = 4
    #: Seconds in which there is at most one blink.
    BLINK_EVERY = 4.0

    def __init__(self, subject: Subject, seed: int, sfreq: float) -> None:
        self._seed = seed
        self._sfreq = sfreq
        levels = self._levels = subject.levels
        frequencies = np.fft.rfftfreq(2 * BLOCK, 1.0 / sfreq)
        # amplitudes: 1/f in power from half a hertz up; alpha as a peak, 2 Hz wide, so that it waxes and wanes
        pink = _normalised(np.where(frequencies > 0, np.maximum(frequencies, 0.5) ** -0.5, 0.0))
        alpha = _normalised(np.exp(-0.5 * ((frequencies - 10.2) / 0.9) ** 2))
        self._shape = np.concatenate([np.tile(pink, (self.N_SOURCES, 1)), np.tile(alpha, (self.N_ALPHA, 1))])
        self._mixing = self._sources(subject.seed, levels)
        self._blink = self._blink_pattern(levels)
        self._window = np.sin(np.pi * (np.arange(2 * BLOCK) + 0.5) / (2 * BLOCK))
        self._pieces: OrderedDict[int, Array] = OrderedDict()

    def block(self, number: int) -> Array:
        """Shape (`BLOCK`, 64), volts."""
        coloured = self._piece(number)[:, BLOCK:] + self._piece(number + 1)[:, :BLOCK]
        volts = coloured.T @ self._mixing
        rng = np.random.default_rng([self._seed, 4, number])
        volts += self._levels.sensor * rng.standard_normal(volts.shape, np.float32)
        volts += self._blinks(number * BLOCK)[:, None] * self._blink
        return np.asarray(volts)

    def _piece(self, number: int) -> Array:
        kept = self._pieces.get(number)
        if kept is None:
            rng = np.random.default_rng([self._seed, 5, number])
            parts = rng.standard_normal((2, *self._shape.shape), np.float32)
            kept = np.fft.irfft(self._shape * (parts[0] + 1j * parts[1]), axis=1) * self._window
            self._pieces[number] = kept
            if len(self._pieces) > 4:
                self._pieces.popitem(last=False)
        return kept

    def _blinks(self, first: int) -> Array:
        """Course of the blinks over a block: a raised cosine each, 0.3 s long."""
        times = (first + np.arange(BLOCK)) / self._sfreq
        course = np.zeros(BLOCK)
        lowest = math.floor(times[0] / self.BLINK_EVERY) - 1
        for slot in range(lowest, math.floor(times[-1] / self.BLINK_EVERY) + 1):
            rng = np.random.default_rng([self._seed, 6, slot + 1])
            happens, at, size = rng.uniform() < 0.8, rng.uniform(0.0, self.BLINK_EVERY - 0.3), rng.uniform(0.6, 1.2)
            since = times - slot * self.BLINK_EVERY - at
            if happens:
                course += np.where((since > 0) & (since < 0.3), size * np.sin(np.pi * since / 0.3) ** 2, 0.0)
        return course

    def _sources(self, subject: int, levels: Levels) -> Array:
        """Shape (sources, 64): background dipoles anywhere, alpha dipoles in the back."""
        key = f"rtdecode background {subject}"
        everywhere = normals(f"{key} places", (self.N_SOURCES, 3))
        everywhere /= np.linalg.norm(everywhere, axis=1, keepdims=True)
        everywhere *= RADIUS * uniforms(f"{key} depth", 0.3, 0.85, self.N_SOURCES)[:, None]
        everywhere[:, 2] = np.abs(everywhere[:, 2]) - 0.02
        background = lead_field(everywhere, normals(f"{key} moments", (self.N_SOURCES, 3)))
        turns = (150.0, 170.0, -165.0, -145.0)
        behind = np.array([0.065 * _on_sphere(60.0, turn) for turn in turns])
        alpha = lead_field(behind, behind + 0.02 * normals(f"{key} alpha", (self.N_ALPHA, 3)))
        background *= levels.background / math.sqrt(self.N_SOURCES)
        return np.concatenate([background, alpha * levels.alpha / math.sqrt(self.N_ALPHA)])

    @staticmethod
    def _blink_pattern(levels: Levels) -> Array:
        """Both eyes as dipoles that point forward, scaled to the peak."""
        eyes = np.array([[-0.032, 0.075, -0.025], [0.032, 0.075, -0.025]])
        pattern = lead_field(eyes, np.array([[0.0, 0.6, 0.8]] * 2)).sum(axis=0)
        return np.asarray(levels.blink * pattern / np.abs(pattern).max())


def _normalised(amplitude: Array) -> Array:
    """Scale a one-sided amplitude spectrum so that complex white noise times it transforms into unit variance."""
    n = 2 * (len(amplitude) - 1)
    # irfft of X gives x with variance (2 * sum |X_k|^2) / n^2, and E|a + ib|^2 = 2
    power = 4.0 * float(np.sum(amplitude**2)) / n**2
    return amplitude / math.sqrt(power)
