"""The Bayes-optimal score: what a decoder that knows the whole generative model gets right of the same test trials."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from rtdecode_models.data.trials import Ceiling
from rtdecode_models.simulated.grid import Grid
from rtdecode_models.simulated.things import GAIN_SPREAD, SHIFTS, WANDER, Shown, Subject

Array = NDArray[np.float64]

#: Points of the Gauss-Hermite quadrature over the logarithm of a trial's gain.
POINTS = 9


def log_posterior(subject: Subject, shown: Shown, amplitudes: Array, wander: float = WANDER) -> Array:
    r"""Posterior probability of each candidate, all equally likely before, given a trial.

    Given latencies t and gain g, a trial is normal. With B the components' whitened courses at these latencies (one row
    each), u = B x, Q = B B' and the amplitudes w of a candidate, its mean is g w B and its covariance I + g^2 s^2 B' B,
    s being `wander`. By the Woodbury identity, with M = (I + g^2 s^2 Q)^(-1), all of it lies in u:

    .. math:: \log p(x | i, t, g) = c(x) + g\, u M w_i - \tfrac 1 2 g^2 w_i M Q w_i
              + \tfrac 1 2 g^2 s^2 u M u - \tfrac 1 2 \log |M^{-1}|.

    Latencies are drawn from the very grid that is summed over, so that the one approximation is the quadrature over g.

    Parameters
    ----------
    subject : Subject
        Who looked.
    shown : Shown
        Trials.
    amplitudes : ndarray, shape (candidates, components)
    wander : float
        As the trials were made with.

    Returns
    -------
    ndarray of float64, shape (n, candidates)
        Natural logarithms.
    """
    weights = amplitudes + subject.common
    x = subject.noise.whiten(shown.windows).reshape(len(shown.windows), -1)
    # for each latency and step, the components that move with it: (components, times * sensors)
    grids = [[_whitened(subject, course) for course in grid] for grid in subject.courses]
    along = [[x @ part.T for part in grid] for grid in grids]
    logs = [np.log(Grid.normal(*spread).probability) for spread in SHIFTS]
    nodes, mass = np.polynomial.hermite_e.hermegauss(POINTS)
    gains, log_mass = np.exp(GAIN_SPREAD * nodes), np.log(mass / mass.sum())
    unit = np.eye(weights.shape[1])
    total = np.full((len(x), len(weights)), -np.inf)
    for first, (edge, along_edge) in enumerate(zip(grids[0], along[0], strict=True)):
        for second, (late, along_late) in enumerate(zip(grids[1], along[1], strict=True)):
            rows = edge + late
            gram, u = rows @ rows.T, along_edge + along_late
            for gain, share in zip(gains, log_mass, strict=True):
                inverse = np.linalg.inv(unit + (gain * wander) ** 2 * gram)
                um = u @ inverse
                trial = 0.5 * (gain * wander) ** 2 * (um * u).sum(axis=1) + 0.5 * np.linalg.slogdet(inverse)[1]
                power = 0.5 * gain**2 * ((weights @ inverse @ gram) * weights).sum(axis=1)
                prior = logs[0][first] + logs[1][second] + share
                np.logaddexp(total, prior + trial[:, None] + gain * (um @ weights.T) - power, out=total)
    return np.asarray(total - logsumexp(total, axis=1, keepdims=True))


def _whitened(subject: Subject, course: Array) -> Array:
    """Each component's answer at these courses, whitened, shape (components, times * sensors)."""
    answers = course.T[:, :, None] * subject.fields[:, None, :]
    return subject.noise.whiten(answers).reshape(len(answers), -1)


@dataclass(frozen=True, slots=True, eq=False)
class Ideal:
    """What the ideal decoder said, and the truth.

    Parameters
    ----------
    log_posterior : ndarray of float64, shape (n, candidates)
    truth : ndarray of int64, shape (n,)
    """

    log_posterior: Array
    truth: NDArray[np.int64]

    def top(self, k: int) -> float:
        """Share of trials with the truth among the `k` most probable; among equals by lot."""
        own = self.log_posterior[np.arange(len(self.truth)), self.truth][:, None]
        better, alike = (self.log_posterior > own).sum(axis=1), (self.log_posterior == own).sum(axis=1)
        return float(np.clip((k - better) / alike, 0.0, 1.0).mean())

    def expected(self, k: int) -> float:
        """The same, as the posterior itself expects it: equal to `top` on average, where the model is the true one."""
        best = np.sort(np.exp(self.log_posterior), axis=1)[:, -k:]
        return float(best.sum(axis=1).mean())

    def halfwidth(self, k: int) -> float:
        """Half of the 95 % interval of `top`, by the normal approximation."""
        share = self.top(k)
        return 1.96 * math.sqrt(max(share * (1.0 - share), 1.0 / len(self.truth)) / len(self.truth))


def retrieval(parts: list[Ideal]) -> Ceiling:
    """The ceiling of a set of test trials, in parts by subject."""
    whole = Ideal(
        np.concatenate([part.log_posterior for part in parts]), np.concatenate([part.truth for part in parts])
    )
    scores = {f"top{k}": whole.top(k) for k in (1, 5)}
    wide = {f"top{k}_halfwidth": whole.halfwidth(k) for k in (1, 5)}
    expected = {f"top{k}_expected": whole.expected(k) for k in (1, 5)}
    return Ceiling(
        scores={**scores, **wide, **expected},
        how="posterior over the gallery from the generative model: exact Gaussian likelihood, gain and latency "
        "integrated out, on the same single test trials",
    )


def classification(parts: list[Ideal], summed_out: str) -> Ceiling:
    """The ceiling of a set of test trials with classes, in parts by subject."""
    whole = Ideal(
        np.concatenate([part.log_posterior for part in parts]), np.concatenate([part.truth for part in parts])
    )
    scores = {
        "accuracy": whole.top(1),
        "accuracy_halfwidth": whole.halfwidth(1),
        "accuracy_expected": whole.expected(1),
    }
    return Ceiling(
        scores=scores,
        how=f"posterior over the classes from the generative model: exact likelihood, {summed_out} summed out, on the "
        "same test trials",
    )
