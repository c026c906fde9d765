"""UBP's projection encoder: EEG and MEG to image embeddings."""

from functools import partial

from rtdecode.stream.window import Locked
from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.ubp import Ubp, UbpConfig
from rtdecode_models.zoo.entry import Entry
from rtdecode_models.zoo.galleries import stand_in
from rtdecode_models.zoo.things import (
    EEG_BASELINE,
    EEG_CHAIN,
    EEG_WINDOW,
    IMAGE,
    MEG_CHANNELS_271,
    MEG_SUBJECTS,
    POSTERIOR,
    eeg,
    eeg_shape,
    meg,
    meg_chain,
    no_scaling,
    no_whitening,
)

#: Width of CLIP RN50's image embedding.
WIDTH = 1024
#: 201 samples at 200 Hz, from onset to 1 s and the sample there, and 0.1 s before it for the baseline.
SFREQ, BASELINE = 200.0, 0.1
WINDOW = Locked(tmin=-BASELINE, tmax=1.0 + 1 / SFREQ, markers=IMAGE, name="image")


def _eeg() -> Ubp:
    return Ubp(UbpConfig(baseline=EEG_BASELINE), eeg_shape(POSTERIOR, WIDTH))


def _meg() -> Ubp:
    n_times = WINDOW.n_samples(SFREQ)
    shape = Shape(n_times, len(MEG_CHANNELS_271), SFREQ, MEG_SUBJECTS, MEG_CHANNELS_271, targets={"image": (WIDTH,)})
    return Ubp(UbpConfig(baseline=BASELINE), shape)


ENTRIES = (
    Entry(
        name="ubp-eeg",
        title="UBP, EEG",
        paper="2503.04207",
        card="ubp.md",
        build=_eeg,
        published=5_404_673,
        counted="released code, with the scale of the logits",
        parameters=5_404_673,
        contract=eeg(POSTERIOR),
        conditioning=EEG_CHAIN,
        window=EEG_WINDOW,
        heads=partial(stand_in, WIDTH),
        budget_ms=30.0,
        arrays=partial(no_whitening, len(POSTERIOR)),
        experiment="things-eeg",
        recipe="things_eeg2_ubp.toml",
    ),
    Entry(
        name="ubp-meg",
        title="UBP, MEG",
        paper="2503.04207",
        card="ubp.md",
        build=_meg,
        published=56_830_977,
        counted="released code, with the scale of the logits",
        parameters=56_830_977,
        contract=meg(MEG_CHANNELS_271),
        conditioning=meg_chain(SFREQ, BASELINE),
        window=WINDOW,
        heads=partial(stand_in, WIDTH),
        budget_ms=150.0,
        arrays=partial(no_scaling, len(MEG_CHANNELS_271)),
        experiment="things-meg",
    ),
)
