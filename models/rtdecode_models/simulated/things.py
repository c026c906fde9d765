"""People who look at images: from the images' embeddings to sensors, trial by trial. Nothing here was measured.

An image is answered by a few dozen components. Each reads one direction of the embedding, has a place in the brain with
its pattern over the sensors, and a course in time; early ones read other directions than late ones. A trial has its own
gain, one latency for what is locked to the edges of the stimulus and one for what comes late, and noise. What each
number stands for, and why it is what it is: ``docs/simulated.md``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode_models.simulated.grid import Grid
from rtdecode_models.simulated.noise import Noise, over_sensors, over_time
from rtdecode_models.simulated.sensors import Sensors, brain
from rtdecode_models.simulated.stimuli import Distribution

Array = NDArray[np.float64]

#: Standard deviation of the background at a sensor, and of the sensor's own noise, by channel type (V, T).
BACKGROUND = {"eeg": 10e-6, "mag": 200e-15}
WHITE = {"eeg": 3e-6, "mag": 60e-15}
#: Share of the background's variance that is alpha.
ALPHA = 0.3
#: Standard deviation of the logarithm of a trial's gain.
GAIN_SPREAD = 0.3
#: Standard deviation of what a component answers to the same image from trial to trial, where that from image to image
#: is 1: the variability that lies in the very directions that carry the signal, and bounds what any decoder can tell.
WANDER = 1.0
#: How much stronger the answer to any image at all is than what tells images apart, on average over components.
COMMON = 2.0
#: Between people: standard deviations of the logarithm of the gain, of the latency (s), of each component's own latency
#: (s), of a source's place (m) and of its direction (of a unit vector).
SUBJECT_GAIN, SUBJECT_LATENCY, OWN_LATENCY, PLACE, TURN = 0.15, 0.008, 0.004, 0.006, 0.35


@dataclass(frozen=True, slots=True)
class Stage:
    """Components that come and shift together.

    Parameters
    ----------
    n : int
        Components.
    peaks, widths : tuple of float
        Ranges of the peak and of the envelope's standard deviation in seconds.
    tilt, turn : tuple of float
        Where their sources are; see `brain`.
    reads : tuple of int
        First and last principal component of the embeddings that they read.
    shift : int
        Which of a trial's two latencies is theirs: 0 of the edges, 1 of what comes late.
    strength : float
        Of their answers, in relation to one another.
    """

    n: int
    peaks: tuple[float, float]
    widths: tuple[float, float]
    tilt: tuple[float, float]
    turn: tuple[float, float]
    reads: tuple[int, int]
    shift: int
    strength: float


EARLY = Stage(8, (0.095, 0.16), (0.014, 0.022), (65.0, 100.0), (150.0, 180.0), (4, 32), 0, 1.0)
LATE = Stage(16, (0.20, 0.42), (0.035, 0.06), (60.0, 105.0), (100.0, 175.0), (0, 24), 1, 1.0)
#: After an image of half a second has gone.
OFFSET = Stage(6, (0.60, 0.68), (0.02, 0.03), (65.0, 100.0), (150.0, 180.0), (4, 32), 0, 0.6)
#: Standard deviations of a trial's two latencies in seconds, and the steps in which they are drawn.
SHIFTS = ((0.006, 0.003), (0.020, 0.0075))


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """What all people have in common: which directions are read, and roughly when and where.

    Parameters
    ----------
    reads : ndarray of float64, shape (components, width)
        From an embedding's scores along the principal components to amplitudes of variance 1.
    common : ndarray of float64, shape (components,)
        Amplitude of the answer to any image.
    strength, peaks, widths, phases : ndarray of float64, shape (components,)
    places, moments : ndarray of float64, shape (components, 3)
    shift : ndarray of int64, shape (components,)
        Which latency is theirs.
    """

    reads: Array
    common: Array
    strength: Array
    peaks: Array
    widths: Array
    phases: Array
    places: Array
    moments: Array
    shift: NDArray[np.int64]

    @classmethod
    def draw(cls, rng: np.random.Generator, stages: tuple[Stage, ...], width: int) -> "Components":
        """At random, as the stages say."""
        n = sum(stage.n for stage in stages)
        reads = np.zeros((n, width))
        row = 0
        for stage in stages:
            first, last = (min(at, width) for at in stage.reads)
            first = min(first, last // 2)
            reads[row : row + stage.n, first:last] = rng.standard_normal((stage.n, last - first))
            row += stage.n
        reads /= np.linalg.norm(reads, axis=1, keepdims=True)

        def each(of: "list[Array]") -> Array:
            return np.concatenate(of)

        return cls(
            reads=reads,
            common=COMMON * rng.standard_normal(n),
            strength=each([stage.strength * rng.lognormal(0.0, 0.3, stage.n) for stage in stages]),
            peaks=each([rng.uniform(*stage.peaks, stage.n) for stage in stages]),
            widths=each([rng.uniform(*stage.widths, stage.n) for stage in stages]),
            phases=rng.uniform(0.0, 2.0 * np.pi, n),
            places=np.concatenate([brain(rng, stage.n, stage.tilt, stage.turn) for stage in stages]),
            moments=rng.standard_normal((n, 3)),
            shift=np.concatenate([np.full(stage.n, stage.shift) for stage in stages]),
        )

    def amplitudes(self, distribution: Distribution, embeddings: Array) -> Array:
        """How strongly each component answers to each image, shape (images, components), and 1 in the mean square."""
        return np.asarray(distribution.scores(embeddings) @ self.reads.T)


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """One head: what each component gives at the sensors, and the noise.

    Parameters
    ----------
    courses : tuple of ndarray of float64, each of shape (steps, times, components)
        For each of a trial's two latencies, the courses at every step of its grid; 0 for the other components.
    fields : ndarray of float64, shape (components, sensors)
        In volts or tesla.
    common : ndarray of float64, shape (components,)
        Amplitude of the answer to any image.
    noise : Noise
    """

    courses: tuple[Array, ...]
    fields: Array
    common: Array
    noise: Noise

    def responses(self, amplitudes: Array, steps: NDArray[np.int64]) -> NDArray[np.float32]:
        """Answers without gain and noise.

        Parameters
        ----------
        amplitudes : ndarray, shape (n, components)
        steps : ndarray of int64, shape (n, 2)
            Which step of each grid.

        Returns
        -------
        ndarray of float32, shape (n, times, sensors)
        """
        fields = self.fields.astype(np.float32)
        weights = (amplitudes + self.common).astype(np.float32)
        times = self.courses[0].shape[1]
        answers = np.empty((len(weights), times, fields.shape[1]), np.float32)
        grids = [grid.astype(np.float32) for grid in self.courses]
        for row, (weight, step) in enumerate(zip(weights, steps, strict=True)):
            course = sum(grid[at] for grid, at in zip(grids, step, strict=True))
            answers[row] = (course * weight) @ fields
        return answers


def courses(components: Components, times: Array, late: Array) -> Array:
    """Course of each component, shape (times, components): a Gaussian envelope around one and a half waves.

    Parameters
    ----------
    components : Components
    times : ndarray, shape (times,)
        Seconds after onset.
    late : ndarray, shape (components,)
        By how much each is later than its peak says, in seconds.
    """
    at = (times[:, None] - components.peaks - late) / components.widths
    return np.asarray(np.exp(-0.5 * at**2) * np.cos(1.5 * at + components.phases))


def draw_subject(
    rng: np.random.Generator, components: Components, sensors: Sensors, times: Array, sfreq: float, snr: float
) -> Subject:
    """A head of its own: places, directions, latencies, gain and noise.

    `snr`: at the peak in time, what tells images apart (r.m.s. over images and sensors) in units of the noise's
    standard deviation, for the components that all people share and no shifts.
    """
    n = len(components.peaks)
    plain = sensors.fields(components.places, components.moments)
    plain /= np.sqrt((plain**2).mean(axis=1, keepdims=True))
    typical = courses(components, times, np.zeros(n)) ** 2 @ (components.strength**2)
    level = np.hypot(BACKGROUND[sensors.type], WHITE[sensors.type])
    unit = snr * level / np.sqrt(typical.max())

    places = components.places + PLACE * rng.standard_normal((n, 3))
    moments = components.moments + TURN * rng.standard_normal((n, 3))
    fields = sensors.fields(places, moments)
    fields /= np.sqrt((fields**2).mean(axis=1, keepdims=True))
    gain = np.exp(SUBJECT_GAIN * rng.standard_normal())
    late = SUBJECT_LATENCY * rng.standard_normal() + OWN_LATENCY * rng.standard_normal(n)
    grids = []
    for number, (deviation, step) in enumerate(SHIFTS):
        mine = components.shift == number
        grid = [courses(components, times, late + s) * mine for s in Grid.normal(deviation, step).values]
        grids.append(np.stack(grid))
    noise = Noise.of(
        over_time(len(times), sfreq, alpha=rng.uniform(9.0, 11.0), share=ALPHA),
        (BACKGROUND[sensors.type] * np.exp(0.1 * rng.standard_normal())) ** 2 * over_sensors(rng, sensors),
        WHITE[sensors.type],
    )
    strength = unit * gain * components.strength
    return Subject(tuple(grids), strength[:, None] * fields, components.common, noise)


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """Trials of one session.

    Parameters
    ----------
    windows : ndarray of float32, shape (n, times, sensors)
        In volts or tesla.
    item : ndarray of int64, shape (n,)
        Which image.
    """

    windows: NDArray[np.float32]
    item: NDArray[np.int64]


def show(
    rng: np.random.Generator, subject: Subject, amplitudes: Array, repetitions: int, wander: float = WANDER
) -> Shown:
    """Show every image `repetitions` times, in random order.

    Parameters
    ----------
    rng : Generator
        Order, gains, latencies and noise.
    subject : Subject
    amplitudes : ndarray, shape (images, components)
    repetitions : int
    wander : float
        Standard deviation of the amplitudes over the trials of one image.
    """
    item = rng.permutation(np.repeat(np.arange(len(amplitudes)), repetitions))
    gains = np.exp(GAIN_SPREAD * rng.standard_normal(len(item))).astype(np.float32)
    steps = [Grid.normal(*spread).places(rng, len(item)) for spread in SHIFTS]
    windows = subject.noise.sample(rng, len(item))
    own = amplitudes[item] + wander * rng.standard_normal((len(item), amplitudes.shape[1]))
    windows += gains[:, None, None] * subject.responses(own, np.stack(steps, axis=1))
    return Shown(windows, item)
