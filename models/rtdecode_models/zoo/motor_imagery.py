"""EEG-SimpleConv and EEGNet: motor imagery."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.manifest import ClassifyHead, Contract, ContractChannel, HeadSpec
from rtdecode.stream.steps import Conditioning, Filter, Matrix, Resample, Scale
from rtdecode.stream.window import Locked
from rtdecode_models.data.fitting import ALIGNMENT, CENTER, SCALE
from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.eegnet import EEGNet, EEGNetConfig
from rtdecode_models.systems.simpleconv import EEGSimpleConv, SimpleConvConfig
from rtdecode_models.zoo.entry import Entry

#: Heads of a bundle, and files that they name.
Heads = tuple[tuple[HeadSpec, ...], Mapping[str, bytes | NDArray[Any]]]

#: BCI Competition IV, data set 2a (BNCI 2014-001): 22 EEG channels at 250 Hz.
BNCI_CHANNELS = (
    "Fz", "FC3", "FC1", "FCz", "FC2", "FC4", "C5", "C3", "C1", "Cz", "C2",
    "C4", "C6", "CP3", "CP1", "CPz", "CP2", "CP4", "P1", "Pz", "P2", "POz",
)  # fmt: skip
BNCI = Contract(channels=tuple(ContractChannel(name=name, type="eeg", unit="V") for name in BNCI_CHANNELS), sfreq=250.0)
BNCI_SUBJECTS = 9
#: Cues as the data set's GDF files have them.
BNCI_CUES = {"left hand": ("769",), "right hand": ("770",), "feet": ("771",), "tongue": ("772",)}
IMAGERY = Locked(tmin=0.0, tmax=4.0, markers=("769", "770", "771", "772"), name="imagery")

#: PhysioNet EEG Motor Movement/Imagery, as the EDF files name their 64 channels, at 160 Hz.
EEGMMIDB_CHANNELS = (
    "Fc5.", "Fc3.", "Fc1.", "Fcz.", "Fc2.", "Fc4.", "Fc6.", "C5..", "C3..", "C1..", "Cz..",
    "C2..", "C4..", "C6..", "Cp5.", "Cp3.", "Cp1.", "Cpz.", "Cp2.", "Cp4.", "Cp6.", "Fp1.",
    "Fpz.", "Fp2.", "Af7.", "Af3.", "Afz.", "Af4.", "Af8.", "F7..", "F5..", "F3..", "F1..",
    "Fz..", "F2..", "F4..", "F6..", "F8..", "Ft7.", "Ft8.", "T7..", "T8..", "T9..", "T10.",
    "Tp7.", "Tp8.", "P7..", "P5..", "P3..", "P1..", "Pz..", "P2..", "P4..", "P6..", "P8..",
    "Po7.", "Po3.", "Poz.", "Po4.", "Po8.", "O1..", "Oz..", "O2..", "Iz..",
)  # fmt: skip
EEGMMIDB = Contract(
    channels=tuple(ContractChannel(name=name, type="eeg", unit="V") for name in EEGMMIDB_CHANNELS), sfreq=160.0
)
FISTS_FEET = {"fists": ("T1",), "feet": ("T2",)}
CUE = Locked(tmin=0.5, tmax=3.5, markers=("T1", "T2"), name="cue")


def aligned(sfreq: float, low: float, high: float | None = None) -> Conditioning:
    """A band, a rate, Euclidean alignment and standard deviations, the last two from training sessions."""
    return Conditioning(
        stream=(
            Filter(low=low, high=high),
            Resample(sfreq=sfreq),
            Matrix(array=ALIGNMENT, kind="euclidean_alignment"),
            Scale(center=CENTER, scale=SCALE),
        )
    )


def no_training(n_channels: int) -> dict[str, NDArray[np.float64]]:
    """What `aligned` names, where nothing was trained: 10 uV become 1, channels stay what they are."""
    return {ALIGNMENT: 1e5 * np.eye(n_channels), CENTER: np.zeros(n_channels), SCALE: np.ones(n_channels)}


def classify(markers: Mapping[str, tuple[str, ...]]) -> Heads:
    """One head that names the class."""
    return (ClassifyHead(output="logits", labels=tuple(markers), markers=dict(markers)),), {}


def _bnci(sfreq: float) -> Shape:
    return Shape(IMAGERY.n_samples(sfreq), len(BNCI_CHANNELS), sfreq, BNCI_SUBJECTS, BNCI_CHANNELS, {"label": 4})


def _eegmmidb(sfreq: float) -> Shape:
    return Shape(CUE.n_samples(sfreq), len(EEGMMIDB_CHANNELS), sfreq, 1, EEGMMIDB_CHANNELS, {"label": 2})


def _simpleconv(name: str, title: str, config: SimpleConvConfig, sfreq: float, parameters: int, counted: str) -> Entry:
    return Entry(
        name=name,
        title=title,
        paper="10.1109/TNSRE.2024.3451010",
        card="simpleconv.md",
        build=lambda: EEGSimpleConv(config, _bnci(sfreq)),
        published=parameters,
        counted=counted,
        parameters=parameters,
        contract=BNCI,
        conditioning=aligned(sfreq, low=0.5),
        window=IMAGERY,
        heads=lambda: classify(BNCI_CUES),
        budget_ms=25.0,
        arrays=lambda: no_training(len(BNCI_CHANNELS)),
        experiment="imagery",
        recipe="eegmmidb_simpleconv.toml",
    )


ENTRIES = (
    _simpleconv(
        "simpleconv",
        "EEG-SimpleConv, across subjects",
        SimpleConvConfig(),
        70.0,
        2_462_246,
        "released configuration",
    ),
    _simpleconv(
        "simpleconv-regularised",
        "EEG-SimpleConv, across subjects, subjects told apart in training",
        SimpleConvConfig(width=160, kernel=5, subject_head=True),
        70.0,
        3_326_225,
        "released configuration, with the head for 9 subjects, which is not exported",
    ),
    _simpleconv(
        "simpleconv-within",
        "EEG-SimpleConv, within a subject",
        SimpleConvConfig(width=85, n_blocks=1, kernel=15),
        95.0,
        245_654,
        "released configuration",
    ),
    Entry(
        name="eegnet",
        title="EEGNet-8,2",
        paper="10.1088/1741-2552/aace8c",
        card="eegnet.md",
        build=lambda: EEGNet(EEGNetConfig(), _eegmmidb(128.0)),
        published=2_514,
        counted="the paper's table 2 for 64 channels, 384 samples, 2 classes",
        parameters=2_514,
        contract=EEGMMIDB,
        conditioning=aligned(128.0, low=4.0, high=40.0),
        window=CUE,
        heads=lambda: classify(FISTS_FEET),
        budget_ms=25.0,
        arrays=lambda: no_training(len(EEGMMIDB_CHANNELS)),
        experiment="imagery",
        recipe="eegmmidb_eegnet.toml",
    ),
)
