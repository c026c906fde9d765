"""One trunk behind a front of each subject, in the two forms of the family: over channels, and over whole windows."""

from functools import partial

from rtdecode_models.systems.cross_subject import CrossSubject, CrossSubjectConfig
from rtdecode_models.zoo.entry import Entry
from rtdecode_models.zoo.galleries import stand_in
from rtdecode_models.zoo.things import (
    EEG_BASELINE,
    EEG_CHAIN,
    EEG_CHANNELS,
    EEG_WINDOW,
    POSTERIOR,
    eeg,
    eeg_shape,
    no_whitening,
)

NICE_WIDTH, MIXER_WIDTH, HIDDEN = 768, 1024, 1024


def _nice() -> CrossSubject:
    config = CrossSubjectConfig(trunk="nice", options={"baseline": EEG_BASELINE})
    return CrossSubject(config, eeg_shape(EEG_CHANNELS, NICE_WIDTH))


def _mindeye2() -> CrossSubject:
    config = CrossSubjectConfig(trunk="mixer", flat=True, width=HIDDEN)
    return CrossSubject(config, eeg_shape(POSTERIOR, MIXER_WIDTH))


ENTRIES = (
    Entry(
        name="cross-subject-nice",
        title="A linear front for each subject, NICE behind it",
        paper="2403.06361",
        card="cross-subject.md",
        build=_nice,
        published=None,
        counted="NICE's 1,802,496 and 10 fronts of 63 x 63 and 63",
        parameters=1_842_816,
        contract=eeg(EEG_CHANNELS),
        conditioning=EEG_CHAIN,
        window=EEG_WINDOW,
        heads=partial(stand_in, NICE_WIDTH),
        budget_ms=40.0,
        subject=0,
        arrays=partial(no_whitening, len(EEG_CHANNELS)),
        experiment="things-eeg",
        recipe="things_eeg2_cross_subject.toml",
    ),
    Entry(
        name="cross-subject-mindeye2",
        title="MindEye2's front and trunk on EEG",
        paper="2403.11207",
        card="cross-subject.md",
        build=_mindeye2,
        published=None,
        counted="the paper's are for fMRI: 10 fronts of 5,100 x 1,024 here",
        parameters=64_843_776,
        contract=eeg(POSTERIOR),
        conditioning=EEG_CHAIN,
        window=EEG_WINDOW,
        heads=partial(stand_in, MIXER_WIDTH, also=("latent",)),
        budget_ms=60.0,
        subject=0,
        arrays=partial(no_whitening, len(POSTERIOR)),
        experiment="things-eeg",
        recipe="zoo/cross-subject-mindeye2.toml",
    ),
)
