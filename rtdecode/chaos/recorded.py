"""What the recordings of a chaos run lack."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdecode.chaos import truth
from rtdecode.chaos.tally import Life


def missing_stamps(folder: Path, lives: Mapping[int, Life]) -> NDArray[np.float64]:
    """When the samples were taken that were sent and are in none of the recordings.

    Counted inside each life of the sender, between the first and the last of its samples that were recorded or that a
    good window held: what a sender sent before anybody listened, and what died with it, never reached *acquire*.

    Parameters
    ----------
    folder : Path
        Of the recordings.
    lives : mapping of int to Life
        The truth.

    Returns
    -------
    ndarray of float64, shape (n,)
        Host times in seconds at which they were taken.
    """
    found: dict[int, list[int]] = {}
    for path in sorted(folder.rglob("*.xdf")):
        rows = _samples_of(path)
        for life in np.unique(rows[:, 1]).astype(int):
            found.setdefault(life, []).extend(rows[rows[:, 1] == life, 0].astype(int).tolist())
    missing = [np.empty(0)]
    for number, life in lives.items():
        have = found.get(number, [])
        known = [*have, *(life.heard or ())]
        if not known:
            continue
        lacking = np.setdiff1d(np.arange(min(known), max(known) + 1), have)
        never = [count for begin, stop in life.dropped for count in range(begin, stop)]
        lacking = np.setdiff1d(lacking, never)
        missing.append(life.zero + lacking / life.sfreq)
    return np.concatenate(missing)


def _samples_of(path: Path) -> NDArray[np.float64]:
    """The samples in a recording, whole or cut short, shape (n, channels)."""
    import pyxdf

    streams, _ = pyxdf.load_xdf(path, dejitter_timestamps=False, synchronize_clocks=False)
    for stream in streams:
        if int(stream["info"]["channel_count"][0]) == len(truth.NAMES):
            return np.asarray(stream["time_series"], np.float64).reshape(-1, len(truth.NAMES))
    return np.empty((0, len(truth.NAMES)))
