"""Ridge regression to image embeddings, on the streams of the encoders that are measured against it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.manifest import Contract
from rtdecode.stream.steps import Conditioning
from rtdecode.stream.window import Locked
from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.ridge import Ridge, RidgeConfig
from rtdecode_models.zoo.entry import Entry
from rtdecode_models.zoo.galleries import stand_in
from rtdecode_models.zoo.things import (
    EEG_BASELINE,
    EEG_CHAIN,
    EEG_CHANNELS,
    EEG_SFREQ,
    EEG_WINDOW,
    MEG_CHANNELS,
    MEG_SFREQ,
    MEG_WINDOW,
    eeg,
    meg,
    meg_chain,
    no_scaling,
    no_whitening,
)

#: Width of CLIP's image embedding.
WIDTH = 768


def _build(n_times: int, n_channels: int, sfreq: float, baseline: float) -> Ridge:
    return Ridge(RidgeConfig(baseline=baseline), Shape(n_times, n_channels, sfreq, targets={"image": (WIDTH,)}))


def _entry(
    name: str,
    experiment: str,
    contract: Contract,
    conditioning: Conditioning,
    window: Locked,
    sfreq: float,
    baseline: float,
    arrays: Callable[[], Mapping[str, NDArray[np.float64]]],
    **other: Any,
) -> Entry:
    n_channels = len(contract.channels)
    used = round((window.duration - baseline) * sfreq)
    return Entry(
        name=name,
        title=f"Ridge regression, {experiment.split('-')[1].upper()}",
        paper="10.1080/00401706.1970.10488634",
        card="ridge.md",
        build=partial(_build, window.n_samples(sfreq), n_channels, sfreq, baseline),
        published=None,
        counted="",
        parameters=(used * n_channels + 1) * WIDTH,
        contract=contract,
        conditioning=conditioning,
        window=window,
        heads=partial(stand_in, WIDTH),
        arrays=arrays,
        experiment=experiment,
        recipe=f"zoo/{name}.toml",
        **other,
    )


ENTRIES = (
    _entry(
        "ridge-eeg",
        "things-eeg",
        eeg(EEG_CHANNELS),
        EEG_CHAIN,
        EEG_WINDOW,
        EEG_SFREQ,
        EEG_BASELINE,
        partial(no_whitening, len(EEG_CHANNELS)),
        budget_ms=40.0,
    ),
    _entry(
        "ridge-meg",
        "things-meg",
        meg(MEG_CHANNELS),
        meg_chain(MEG_SFREQ, baseline=0.5),
        MEG_WINDOW,
        MEG_SFREQ,
        0.0,
        partial(no_scaling, len(MEG_CHANNELS)),
        budget_ms=100.0,
    ),
)
