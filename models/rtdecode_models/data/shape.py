"""What a system has to be built for: the shape of its windows, and of what it is to say."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rtdecode_models.data.trials import Dataset


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """The data that an encoder is built for.

    Parameters
    ----------
    n_times, n_channels : int
        Of a conditioned window.
    sfreq : float
        Conditioned rate in Hz.
    n_subjects : int
        How many people the training data are of.
    channels : tuple of str
        Names of the conditioned channels.
    classes : mapping of str to int
        Label name -> how many classes.
    targets : mapping of str to tuple of int
        Target name -> shape of one row: ``image`` -> (768,).
    positions : ndarray of float64, shape (channels, 2), optional
        Where the sensors are on a flat layout scaled to [0, 1]; for encoders that merge channels by position.
    """

    n_times: int
    n_channels: int
    sfreq: float
    n_subjects: int = 1
    channels: tuple[str, ...] = ()
    classes: Mapping[str, int] = field(default_factory=dict)
    targets: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    positions: NDArray[np.float64] | None = None


def shape_of(dataset: Dataset) -> Shape:
    """The shape of a data set's training windows, of their labels and of their targets."""
    train = dataset.train
    channels = dataset.contract.channels
    return Shape(
        n_times=train.x.shape[1],
        n_channels=train.x.shape[2],
        sfreq=train.sfreq,
        n_subjects=len(train.subjects),
        channels=dataset.channels or tuple(channel.name for channel in channels),
        classes={name: len(classes) for name, classes in train.classes.items()},
        targets={name: rows.shape[1:] for name, rows in train.gallery.embeddings.items()} if train.gallery else {},
        positions=dataset.positions,
    )
