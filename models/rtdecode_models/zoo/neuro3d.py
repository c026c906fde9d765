"""Neuro-3D: class, colour, geometry and appearance of an object."""

from rtdecode.encode.manifest import ClassifyHead, Contract, ContractChannel, EmbeddingHead
from rtdecode.stream.steps import Clamp, Conditioning, Filter, WindowScale
from rtdecode.stream.window import Locked
from rtdecode_models.data.shape import Shape
from rtdecode_models.systems import neuro3d
from rtdecode_models.zoo.entry import Entry

#: 64 sites of the 10-10 system, as on a common cap; which ones EEG-3D used is not known here.
CHANNELS = (
    "Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "F7", "F8", "T7", "T8", "P7", "P8",
    "Fz", "Cz", "Pz", "F1", "F2", "FC1", "FC2", "C1", "C2", "CP1", "CP2", "P1", "P2", "AF3", "AF4", "FC3",
    "FC4", "CP3", "CP4", "PO3", "PO4", "F5", "F6", "FC5", "FC6", "C5", "C6", "CP5", "CP6", "P5", "P6", "AF7",
    "AF8", "FT7", "FT8", "TP7", "TP8", "PO7", "PO8", "Fpz", "AFz", "FCz", "CPz", "POz", "Oz", "Iz", "TP9", "TP10",
)  # fmt: skip
CAP = Contract(channels=tuple(ContractChannel(name=name, type="eeg", unit="V") for name in CHANNELS), sfreq=500.0)
#: A marker names the class and the colour of the object whose picture appears: "class 12, colour 3".
CLASSES, COLOURS = 72, 6
LABELS = {f"class {number}": (f"class {number}, *",) for number in range(1, CLASSES + 1)}
#: The picture's second, then the video's six.
OBJECT = Locked(tmin=0.0, tmax=7.0, markers=("class *",), name="object")


def _shape() -> Shape:
    classes = {"label": CLASSES, "colour": COLOURS}
    return Shape(OBJECT.n_samples(CAP.sfreq), len(CHANNELS), CAP.sfreq, 1, CHANNELS, classes)


ENTRIES = (
    Entry(
        name="neuro3d",
        title="Neuro-3D, encoder",
        paper="2411.12248",
        card="neuro3d.md",
        build=lambda: neuro3d.build({}, _shape()),
        published=3_707_309,
        counted="derived from the layer table of the released code, 3.71 M",
        parameters=3_707_309,
        contract=CAP,
        conditioning=Conditioning(
            stream=(Filter(low=0.1, high=100.0, order=2),), window=(WindowScale(method="zscore"), Clamp(limit=20.0))
        ),
        window=OBJECT,
        heads=lambda: (
            (
                ClassifyHead(output="logits", labels=tuple(LABELS), markers=dict(LABELS)),
                EmbeddingHead(output="colour"),
                EmbeddingHead(output="geometry"),
                EmbeddingHead(output="appearance"),
            ),
            {},
        ),
        budget_ms=100.0,
        experiment="objects",
        recipe="neuro3d.toml",
    ),
)
