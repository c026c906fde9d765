"""One system as it is published, and the stream and the budget that it is run with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.manifest import Contract, HeadSpec
from rtdecode.stream.steps import Conditioning
from rtdecode.stream.window import WindowSpec
from rtdecode_models.systems.encoder import Encoder


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A system of the zoo.

    Parameters
    ----------
    name : str
        As it is asked for: ``atm-s``.
    title : str
        As the paper calls it.
    paper : str
        arXiv id or DOI.
    card : str
        File under ``docs/models/``.
    build : callable
        Gives the encoder in its published configuration, with weights at random from torch's generator.
    published : int or None
        Trained parameters that the paper or its code has for this configuration; None where neither is known.
    counted : str
        What stands behind `published`, in a few words: "paper", "derived from the layer table", what is left out.
    parameters : int
        Trained parameters of what `build` gives, and so of this project's file. A test compares them.
    contract : Contract
        The stream at the amplifier: true number of channels, rate, types, units.
    conditioning : Conditioning
        From that stream to the encoder's input.
    window : WindowSpec
        Marker-locked where the paper's is, sliding otherwise.
    heads : callable
        From nothing to the heads and the further files of a bundle (items, galleries).
    budget_ms : float
        From the arrival of a window's newest sample to its published result, as the card declares it for `hardware`.
    hardware : str
        "2 CPU cores", or what it needs.
    subject : int or None
        Whose deployment is exported; None where the encoder knows no subjects.
    arrays : callable
        Arrays that the chain names, for an encoder that was not trained.
    experiment : str or None
        The simulated experiment that it is trained on; None where it is trained on none.
    recipe : str or None
        File under ``models/recipes/`` that trains it.
    threads : int
        Inside one operator of the encoder, for `budget_ms`.
    """

    name: str
    title: str
    paper: str
    card: str
    build: Callable[[], Encoder]
    published: int | None
    counted: str
    parameters: int
    contract: Contract
    conditioning: Conditioning
    window: WindowSpec
    heads: Callable[[], tuple[tuple[HeadSpec, ...], Mapping[str, bytes | NDArray[Any]]]]
    budget_ms: float
    hardware: str = "2 CPU cores"
    subject: int | None = None
    arrays: Callable[[], Mapping[str, NDArray[np.float64]]] = field(default=dict)
    experiment: str | None = None
    recipe: str | None = None
    threads: int = 1
