"""ATM-S and NICE: EEG to image embeddings."""

from functools import partial

from rtdecode_models.systems.atm import Atm, AtmConfig
from rtdecode_models.systems.nice import Nice, NiceConfig
from rtdecode_models.zoo.entry import Entry
from rtdecode_models.zoo.galleries import stand_in
from rtdecode_models.zoo.things import (
    EEG_BASELINE,
    EEG_CHAIN,
    EEG_CHANNELS,
    EEG_WINDOW,
    eeg,
    eeg_shape,
    no_whitening,
)

#: Widths of OpenCLIP ViT-H/14's and CLIP ViT-L/14's image embeddings.
ATM_WIDTH, NICE_WIDTH = 1024, 768


ENTRIES = (
    Entry(
        name="atm-s",
        title="ATM-S",
        paper="2403.07721",
        card="atm-nice.md",
        build=lambda: Atm(AtmConfig(baseline=EEG_BASELINE, unused=True), eeg_shape(EEG_CHANNELS, ATM_WIDTH)),
        published=3_202_413,
        counted="released code, with 127,000 that nothing uses",
        parameters=3_202_413,
        contract=eeg(EEG_CHANNELS),
        conditioning=EEG_CHAIN,
        window=EEG_WINDOW,
        heads=partial(stand_in, ATM_WIDTH, "dot"),
        budget_ms=40.0,
        subject=0,
        arrays=partial(no_whitening, len(EEG_CHANNELS)),
        experiment="things-eeg",
        recipe="things_eeg2_atm.toml",
    ),
    Entry(
        name="nice",
        title="NICE",
        paper="2308.13234",
        card="atm-nice.md",
        build=lambda: Nice(NiceConfig(baseline=EEG_BASELINE), eeg_shape(EEG_CHANNELS, NICE_WIDTH)),
        published=1_802_496,
        counted="released code",
        parameters=1_802_496,
        contract=eeg(EEG_CHANNELS),
        conditioning=EEG_CHAIN,
        window=EEG_WINDOW,
        heads=partial(stand_in, NICE_WIDTH),
        budget_ms=40.0,
        arrays=partial(no_whitening, len(EEG_CHANNELS)),
        experiment="things-eeg",
        recipe="things_eeg2_nice.toml",
    ),
)
