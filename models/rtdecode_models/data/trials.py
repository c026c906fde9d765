"""Labelled windows in memory, from wherever they came: what every training and every test here is given."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.manifest import Contract
from rtdecode.stream.steps import Conditioning
from rtdecode.stream.window import WindowSpec


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """The stimuli of a set of trials, and what stands for each.

    Parameters
    ----------
    names : tuple of str
        One for each stimulus.
    embeddings : mapping of str to ndarray of float32, shape (stimuli, ...)
        Target name -> one row for each stimulus: ``image`` (stimuli, width), ``text``, or several to choose from, as
        ``image_blurred`` (stimuli, levels, width).
    captions : tuple of str
        One for each stimulus, or none.
    """

    names: tuple[str, ...]
    embeddings: Mapping[str, NDArray[np.float32]]
    captions: tuple[str, ...] = ()

    def take(self, rows: NDArray[np.int64]) -> "Gallery":
        """Some of the stimuli."""
        return Gallery(
            names=tuple(self.names[row] for row in rows),
            embeddings={target: table[rows] for target, table in self.embeddings.items()},
            captions=tuple(self.captions[row] for row in rows) if self.captions else (),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Trials:
    """Labelled windows.

    Parameters
    ----------
    x : ndarray of float32, shape (n, time, channels)
        Conditioned windows, as they enter an encoder.
    sfreq : float
        Their rate in Hz.
    subject, session : ndarray of int64, shape (n,)
        Index into `subjects` and `sessions`. A session is a recording (or what the data call a session), and belongs to
        one subject.
    subjects, sessions : tuple of str
        Their names.
    labels : mapping of str to ndarray of int64, shape (n,)
        Label name -> class of each window: ``label``, ``colour``.
    classes : mapping of str to tuple of str
        Label name -> what its classes are called.
    item : ndarray of int64, shape (n,), optional
        Row of `gallery`; None where windows have no stimulus.
    gallery : Gallery, optional
        The stimuli.
    """

    x: NDArray[np.float32]
    sfreq: float
    subject: NDArray[np.int64]
    session: NDArray[np.int64]
    subjects: tuple[str, ...]
    sessions: tuple[str, ...]
    labels: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    item: NDArray[np.int64] | None = None
    gallery: Gallery | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: NDArray[np.int64]) -> "Trials":
        """Some of the trials, with the same subjects, sessions, classes and gallery."""
        return replace(
            self,
            x=self.x[rows],
            subject=self.subject[rows],
            session=self.session[rows],
            labels={name: values[rows] for name, values in self.labels.items()},
            item=None if self.item is None else self.item[rows],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Ceiling:
    """What a decoder that knows the generative model scores on the very same test trials.

    Parameters
    ----------
    scores : mapping of str to float
        Metric -> value, named as in ``metrics.json``: ``top1``, ``top5``, ``accuracy``.
    how : str
        One line on how it was computed.
    """

    scores: Mapping[str, float]
    how: str


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Trials to train on and to test on, and the stream that a trained encoder will meet.

    Parameters
    ----------
    train : Trials
        May be split further, into training and validation.
    test : Trials or None
        Nothing is ever fitted on these; None where a split of `train` makes them.
    contract : Contract
        What a live stream must offer.
    conditioning : Conditioning
        From that stream to `Trials.x`.
    arrays : mapping of str to ndarray
        What the chain names, fitted on all training trials together.
    window : WindowSpec
        What the daemon cuts.
    markers : mapping of str to tuple of str
        Class or stimulus -> marker patterns; for the bundle's head.
    raw : ndarray of float32, shape (samples, channels), optional
        A piece of recording from the start of a segment, in SI units, and in `raw_starts` where the first training
        windows begin in it, in conditioned samples.
    raw_starts : tuple of int
        See `raw`.
    simulated : bool
        Nothing of it was measured.
    ceiling : Ceiling, optional
        Where the answer is known.
    provenance : mapping
        Files with their SHA-256, seeds, versions.
    subject_arrays, session_arrays : mapping of str to mapping of str to ndarray
        Where the chain is fitted to each subject or session: the arrays of those that have their own.
    channels : tuple of str
        Names of the conditioned channels; those of the contract where empty.
    positions : ndarray of float64, shape (channels, 2), optional
        Where the conditioned channels are on a flat layout scaled to [0, 1]; see `rtdecode_models.data.positions`.
    trained_on : mapping of str to ndarray of int64
        Where windows of a session were held out: session -> which of its windows (0 is its first) `train` has.
    """

    train: Trials
    test: Trials | None
    contract: Contract
    conditioning: Conditioning
    arrays: Mapping[str, NDArray[Any]]
    window: WindowSpec
    markers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    raw: NDArray[np.float32] | None = None
    raw_starts: tuple[int, ...] = ()
    simulated: bool = False
    ceiling: Ceiling | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    subject_arrays: Mapping[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict)
    session_arrays: Mapping[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    positions: NDArray[np.float64] | None = None
    trained_on: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def arrays_of(self, subject: str | None = None, session: str | None = None) -> Mapping[str, NDArray[Any]]:
        """The chain's arrays for a session: its own, else its subject's, else those of all."""
        return self.session_arrays.get(session or "") or self.subject_arrays.get(subject or "") or self.arrays
