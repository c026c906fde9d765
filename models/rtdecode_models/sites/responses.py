"""What electrodes answer, from recordings conditioned as the daemon conditions them."""

import glob
import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.manifest import Contract
from rtdecode.errors import ConfigError
from rtdecode.result import Status
from rtdecode.stream.steps import Conditioning
from rtdecode.stream.window import Locked, Sliding
from rtdecode_models.data.recordings import Recording, cut

#: What of a signal counts: its mean over a time, or the logarithm of its power there.
Measure = Literal["mean", "power"]

Array = NDArray[np.float64]


def stimulus_responses(
    recordings: Sequence[Recording],
    contract: Contract,
    conditioning: Conditioning,
    names: Sequence[str],
    edges: Sequence[float],
    measure: Measure,
) -> tuple[Array, NDArray[np.int64]]:
    """Responses to stimuli, averaged over the presentations of each.

    Before that each recording's presentations are brought to mean 0 and standard deviation 1, so that recordings whose
    amplifiers or impedances differ can be put together.

    Parameters
    ----------
    recordings : sequence of Recording
        Of one person, with the same contacts.
    contract : Contract
        What each must meet.
    conditioning : Conditioning
        From contacts to sites.
    names : sequence of str
        The stimuli's markers.
    edges : sequence of float
        Seconds after the marker between which the signal is averaged: one time fewer than edges.
    measure : {"mean", "power"}
        What counts.

    Returns
    -------
    responses : ndarray of float64, shape (stimuli that were shown, sites, times)
    rows : ndarray of int64, shape (stimuli that were shown,)
        Which of `names` they are.

    Raises
    ------
    ConfigError
        `edges` do not rise, or none of the stimuli was shown.
    """
    if len(edges) < 2 or any(not later > earlier for earlier, later in itertools.pairwise(edges)):
        raise ConfigError(f"times between {', '.join(f'{edge:g}' for edge in edges)} s; expected two or more, rising")
    window = Locked(tmin=edges[0], tmax=edges[-1], markers=tuple(glob.escape(name) for name in names))
    row_of = {name: row for row, name in enumerate(names)}
    measured, shown = [], []
    for recording in recordings:
        trials, rows = [], []
        for result in cut(recording, contract, conditioning, {}, [window]):
            if result.status == Status.OK and result.marker is not None:
                trials.append(_measured(result.outputs["window"], edges, result.sfreq, measure))
                rows.append(row_of[result.marker.value])
        if trials:
            measured.append(_standardised(np.array(trials)))
            shown += rows
    if not shown:
        markers = sorted(
            {marker.value for recording in recordings for batch in recording.batches for marker in batch.markers}
        )
        raise ConfigError(
            f"none of the {len(names)} markers with features ({', '.join(names[:3])}...) has a usable window in "
            f"{', '.join(recording.name for recording in recordings)}, whose markers are "
            f"{', '.join(markers[:5]) or 'none'}"
        )
    every, presented = np.concatenate(measured), np.array(shown)
    kept = np.unique(presented)
    return np.stack([every[presented == row].mean(axis=0) for row in kept]), kept


def moment_responses(
    recording: Recording, contract: Contract, conditioning: Conditioning, sfreq: float, measure: Measure
) -> tuple[Array, NDArray[np.int64]]:
    """Responses moment by moment, over consecutive stretches of ``1 / sfreq`` seconds.

    Returns
    -------
    responses : ndarray of float64, shape (moments, sites)
        Of those that touch no gap.
    moments : ndarray of int64, shape (moments,)
        Which stretch each is, counted from the start of the recording.
    """
    window = Sliding(length=1 / sfreq, hop=1 / sfreq)
    rows, moments = [], []
    for result in cut(recording, contract, conditioning, {}, [window]):
        if result.status == Status.OK:
            edges = (0.0, result.length / result.sfreq)
            rows.append(_measured(result.outputs["window"], edges, result.sfreq, measure)[:, 0])
            moments.append(round(result.start / result.sfreq * sfreq))
    if not rows:
        raise ConfigError(f"{recording.name} has no stretch of {1 / sfreq:g} s without a gap")
    return np.array(rows), np.array(moments)


def lagged(features: Array, lags: Sequence[int], moments: NDArray[np.int64]) -> tuple[Array, NDArray[np.bool_]]:
    """Features of several moments back, side by side.

    Parameters
    ----------
    features : ndarray of float64, shape (n, width)
        Of each moment.
    lags : sequence of int
        How many moments back; 0 is the moment itself.
    moments : ndarray of int64, shape (m,)
        For which they are wanted.

    Returns
    -------
    rows : ndarray of float64, shape (kept moments, lags x width)
    kept : ndarray of bool, shape (m,)
        The moments for which all lags lie inside the features.
    """
    source = moments[:, np.newaxis] - np.asarray(lags)
    kept = ((source >= 0) & (source < len(features))).all(axis=1)
    return features[source[kept]].reshape(int(kept.sum()), -1), kept


def _measured(window: NDArray[np.float32], edges: Sequence[float], sfreq: float, measure: Measure) -> Array:
    """One number for each site and time, (sites, times), of a window (samples, sites) that begins at the first edge."""
    at = [math.floor((edge - edges[0]) * sfreq + 0.5) for edge in edges]
    x = window.astype(np.float64)
    parts = [x[start:stop] for start, stop in itertools.pairwise(at)]
    if any(not len(part) for part in parts):
        raise ConfigError(f"a time of {min(np.diff(edges)):g} s holds no sample at {sfreq:g} Hz; expected longer ones")
    if measure == "mean":
        return np.stack([part.mean(axis=0) for part in parts], axis=1)
    # A flat channel has no power: the smallest number stands for it, the same at all times.
    powers = np.stack([(part**2).mean(axis=0) for part in parts], axis=1)
    logarithms: Array = np.log(np.maximum(powers, np.finfo(np.float64).tiny))
    return logarithms


def _standardised(trials: Array) -> Array:
    centred = trials - trials.mean(axis=0)
    deviation = trials.std(axis=0)
    flat = np.ptp(trials, axis=0) == 0
    result: Array = np.where(flat, 0.0, centred / np.where(flat, 1.0, deviation))
    return result
