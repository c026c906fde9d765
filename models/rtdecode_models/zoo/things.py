"""The streams of THINGS-EEG2 and THINGS-MEG, as their amplifiers gave them, and how they are conditioned live.

THINGS-EEG2: Gifford et al., "A large and rich EEG dataset for modeling human visual object recognition" (NeuroImage
2022). THINGS-MEG: Hebart et al., "THINGS-data, a multimodal collection of large-scale datasets for investigating object
representations in human brain and behavior" (eLife 2023).
"""

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.manifest import Contract, ContractChannel
from rtdecode.signal import Channel
from rtdecode.stream.steps import Baseline, Clamp, Conditioning, Filter, Matrix, Resample, Scale, StreamStep
from rtdecode.stream.window import Locked, Sliding
from rtdecode_models.data.fitting import MEDIAN, RANGE, WHITENING
from rtdecode_models.data.positions import positions_of
from rtdecode_models.data.shape import Shape

#: 63 electrodes of the 10-10 system at 1000 Hz; Fz was the reference.
EEG_CHANNELS = (
    "Fp1", "Fp2", "AF7", "AF3", "AFz", "AF4", "AF8", "F7", "F5", "F3", "F1", "F2", "F4", "F6", "F8",
    "FT9", "FT7", "FC5", "FC3", "FC1", "FCz", "FC2", "FC4", "FC6", "FT8", "FT10",
    "T7", "C5", "C3", "C1", "Cz", "C2", "C4", "C6", "T8",
    "TP9", "TP7", "CP5", "CP3", "CP1", "CPz", "CP2", "CP4", "CP6", "TP8", "TP10",
    "P7", "P5", "P3", "P1", "Pz", "P2", "P4", "P6", "P8", "PO7", "PO3", "POz", "PO4", "PO8", "O1", "Oz", "O2",
)  # fmt: skip
#: The 17 of them that UBP takes.
POSTERIOR = (
    "P7", "P5", "P3", "P1", "Pz", "P2", "P4", "P6", "P8", "PO7", "PO3", "POz", "PO4", "PO8", "O1", "Oz", "O2",
)  # fmt: skip
EEG_SUBJECTS, EEG_SFREQ = 10, 250.0

#: Sensors of a CTF helmet with 275 axial gradiometers, by region: rows of the left half, which the right one mirrors,
#: as the number of sensors in each row, and those of the midline.
_ROWS = {
    "C": (7, 5, 2, 2, 5, 3),
    "F": (4, 5, 5, 6, 6, 7),
    "O": (4, 4, 4, 4, 3),
    "P": (2, 3, 5, 5, 7),
    "T": (6, 7, 7, 7, 7),
}
_MIDLINE = {"C": 4, "F": 3, "O": 3, "P": 1}
#: Which three of the 275 a set of 272 lacks, and which one more a set of 271: a choice, see the model cards.
_LACKING, _LACKING_MORE = ("MLF25", "MRF43", "MRO13"), "MRO11"


def ctf_sensors() -> tuple[str, ...]:
    """Names of all 275."""
    halves = [
        f"M{side}{region}{row}{place}"
        for side in "LR"
        for region, rows in _ROWS.items()
        for row, n in enumerate(rows, 1)
        for place in range(1, n + 1)
    ]
    return (*halves, *(f"MZ{region}{place:02d}" for region, n in _MIDLINE.items() for place in range(1, n + 1)))


MEG_CHANNELS = tuple(name for name in ctf_sensors() if name not in _LACKING)
#: As many as UBP takes.
MEG_CHANNELS_271 = tuple(name for name in MEG_CHANNELS if name != _LACKING_MORE)
MEG_SUBJECTS, MEG_SFREQ = 4, 120.0

#: What a marker of an image reads: live, whatever follows ``image/`` is its name.
IMAGE = ("image/*",)


def eeg(channels: tuple[str, ...], sfreq: float = 1000.0) -> Contract:
    """A stream of these electrodes."""
    return Contract(channels=tuple(ContractChannel(name=name, type="eeg", unit="V") for name in channels), sfreq=sfreq)


def meg(channels: tuple[str, ...], sfreq: float = 1200.0) -> Contract:
    """A stream of these axial gradiometers, which MNE counts among the magnetometers: they give tesla."""
    return Contract(channels=tuple(ContractChannel(name=name, type="mag", unit="T") for name in channels), sfreq=sfreq)


#: 0.2 s for the baseline, and the second that the encoders see: 300 samples at 250 Hz.
EEG_WINDOW = Locked(tmin=-0.2, tmax=1.0, markers=IMAGE, name="image")
EEG_BASELINE = 0.2
EEG_CHAIN = Conditioning(
    stream=(Resample(sfreq=EEG_SFREQ), Matrix(array=WHITENING, kind="mvnn")),
    window=(Baseline(tmin=-0.2, tmax=0.0),),
)

#: 181 samples at 120 Hz, from -0.5 s to 1 s and the sample there.
MEG_WINDOW = Locked(tmin=-0.5, tmax=1.0 + 1 / MEG_SFREQ, markers=IMAGE, name="image")


def eeg_shape(channels: tuple[str, ...], width: int) -> Shape:
    """What a system is built for that reads `EEG_WINDOW` of these channels and gives embeddings of this width."""
    n_times = EEG_WINDOW.n_samples(EEG_SFREQ)
    return Shape(n_times, len(channels), EEG_SFREQ, EEG_SUBJECTS, channels, targets={"image": (width,)})


def meg_chain(sfreq: float, baseline: float) -> Conditioning:
    """Rate, median and interquartile range of the training windows, the baseline before onset, five of those ranges."""
    return Conditioning(
        stream=(Resample(sfreq=sfreq), Scale(center=MEDIAN, scale=RANGE, kind="robust")),
        window=(Baseline(tmin=-baseline, tmax=0.0), Clamp(limit=5.0)),
    )


def meg_sliding(length: float, hop: float) -> tuple[Sliding, Conditioning]:
    """Windows without an onset, and their chain: a high-pass in place of the baseline."""
    stream: tuple[StreamStep, ...] = (
        Filter(low=0.5),
        Resample(sfreq=MEG_SFREQ),
        Scale(center=MEDIAN, scale=RANGE, kind="robust"),
    )
    return Sliding(length=length, hop=hop), Conditioning(stream=stream, window=(Clamp(limit=5.0),))


def no_whitening(n_channels: int) -> dict[str, NDArray[np.float64]]:
    """What `EEG_CHAIN` names, where nothing was trained: 10 uV become 1, channels stay what they are."""
    return {WHITENING: 1e5 * np.eye(n_channels)}


def no_scaling(n_channels: int) -> dict[str, NDArray[np.float64]]:
    """What `meg_chain` names, where nothing was trained: 500 fT become 1."""
    return {MEDIAN: np.zeros(n_channels), RANGE: np.full(n_channels, 5e-13)}


def layout(channels: tuple[str, ...]) -> NDArray[np.float64]:
    """Where these CTF sensors are on the flat layout that MNE ships, scaled to [0, 1], shape (channels, 2)."""
    found = positions_of([Channel(name, "mag", "T") for name in channels])
    if found is None:
        raise RuntimeError("MNE's layout of the CTF helmet knows none of its sensors")
    return found
