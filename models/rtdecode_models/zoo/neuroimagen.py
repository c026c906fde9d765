"""NeuroImagen: a caption's embedding and a saliency map from the response to a picture."""

from rtdecode.encode.manifest import Contract, ContractChannel, EmbeddingHead
from rtdecode.stream.steps import Clamp, Conditioning, Filter, WindowScale
from rtdecode.stream.window import Locked
from rtdecode_models.data.shape import Shape
from rtdecode_models.systems import neuroimagen
from rtdecode_models.zoo.entry import Entry

#: 128 active electrodes by their 10-5 names, in the order of the maker's montage.
CHANNELS = (
    "Fp1", "Fz", "F3", "F7", "F9", "FC5", "FC1", "C3", "T7", "CP5", "CP1", "Pz", "P3", "P7", "P9", "O1",
    "Oz", "O2", "P10", "P8", "P4", "CP2", "CP6", "T8", "C4", "Cz", "FC2", "FC6", "F10", "F8", "F4", "Fp2",
    "AF7", "AF3", "AFz", "F1", "F5", "FT7", "FC3", "C1", "C5", "TP7", "CP3", "P1", "P5", "PO7", "PO3", "Iz",
    "POz", "PO4", "PO8", "P6", "P2", "CPz", "CP4", "TP8", "C6", "C2", "FC4", "FT8", "F6", "F2", "AF4", "AF8",
    "AFF3h", "FFC1h", "FFC5h", "FT9", "FTT7h", "FCC3h", "CCP1h", "CCP5h", "TP9", "TPP7h", "CPP3h", "PPO3h",
    "PPO9h", "POO1", "PO9", "I1", "I2", "PO10", "POO2", "PPO10h", "PPO4h", "CPP4h", "TPP8h", "TP10", "CCP6h",
    "CCP2h", "FCC4h", "FTT8h", "FT10", "FFC6h", "FFC2h", "AFF4h", "AFp1", "AFF1h", "AFF5h", "FFT7h", "FFC3h",
    "FCC1h", "FCC5h", "TTP7h", "CCP3h", "CPP1h", "CPP5h", "TPP9h", "PPO5h", "PPO1h", "POO9h", "OI1h", "OI2h",
    "POO10h", "PPO2h", "PPO6h", "TPP10h", "CPP6h", "CPP2h", "CCP4h", "TTP8h", "FCC6h", "FCC2h", "FFC4h", "FFT8h",
    "AFF6h", "AFF2h", "AFp2",
)  # fmt: skip
CAP = Contract(channels=tuple(ContractChannel(name=name, type="eeg", unit="V") for name in CHANNELS), sfreq=1000.0)
#: 440 samples, from 20 ms after the picture appeared.
PICTURE = Locked(tmin=0.02, tmax=0.46, markers=("picture *",), name="picture")


ENTRIES = (
    Entry(
        name="neuroimagen",
        title="NeuroImagen, caption embedding and saliency map",
        paper="2308.02510",
        card="neuroimagen.md",
        build=lambda: neuroimagen.build({}, Shape(PICTURE.n_samples(CAP.sfreq), len(CHANNELS), CAP.sfreq, 1, CHANNELS)),
        published=None,
        counted="widths are not known, and were chosen here",
        parameters=5_207_617,
        contract=CAP,
        conditioning=Conditioning(
            stream=(Filter(low=1.0, high=95.0),), window=(WindowScale(method="zscore"), Clamp(limit=20.0))
        ),
        window=PICTURE,
        heads=lambda: ((EmbeddingHead(output="embedding"), EmbeddingHead(output="saliency")), {}),
        budget_ms=50.0,
        experiment="things-eeg",
        recipe="neuroimagen.toml",
    ),
)
