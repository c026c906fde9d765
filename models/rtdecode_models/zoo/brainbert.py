"""BrainBERT: features of intracranial electrodes, and a probe of them, in three sizes."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.manifest import ClassifyHead, Contract, ContractChannel, EmbeddingHead, HeadSpec
from rtdecode.stream.steps import Conditioning, Laplacian, Scale
from rtdecode.stream.window import Sliding
from rtdecode_models.data.fitting import CENTER, SCALE
from rtdecode_models.data.shape import Shape
from rtdecode_models.sites.contacts import sites
from rtdecode_models.systems.brainbert import BrainBert, ProbeConfig
from rtdecode_models.zoo.entry import Entry

#: One shaft of eight contacts: six of them have both neighbours, and so a Laplacian.
CONTACTS = tuple(f"A{number}" for number in range(1, 9))
CONTRACT = Contract(
    channels=tuple(ContractChannel(name=name, type="seeg", unit="V") for name in CONTACTS), sfreq=2048.0
)
ELECTRODES = sites("laplacian", CONTACTS)

#: What becomes 1, in V. Spectrograms are standardised anyway, but half precision holds neither the squares of
#: microvolts in volts nor those of hundreds of microvolts in microvolts.
UNIT = 1e-5
CONDITIONING = Conditioning(
    stream=(
        Laplacian(neighbours={name: contacts[1:] for name, contacts in ELECTRODES.items()}),
        Scale(center=CENTER, scale=SCALE),
    )
)
LABELS = ("no speech", "speech")


def scaled() -> dict[str, NDArray[np.float64]]:
    """What the chain names; nothing of it is trained."""
    return {CENTER: np.zeros(len(ELECTRODES)), SCALE: np.full(len(ELECTRODES), UNIT)}


def heads() -> tuple[tuple[HeadSpec, ...], Mapping[str, bytes | NDArray[Any]]]:
    """The probe, and the features that it looks at."""
    return (ClassifyHead(output="logits", labels=LABELS), EmbeddingHead(output="embedding")), {}


def _entry(
    size: Literal["large", "base", "small"], published: int, parameters: int, hop: float, budget_ms: float
) -> Entry:
    window = Sliding(length=5.0, hop=hop)
    shape = Shape(
        n_times=window.n_samples(CONTRACT.sfreq),
        n_channels=len(ELECTRODES),
        sfreq=CONTRACT.sfreq,
        channels=tuple(ELECTRODES),
        classes={"label": len(LABELS)},
    )
    return Entry(
        name=f"brainbert-{size}",
        title=f"BrainBERT, {size}",
        paper="2302.14367",
        card="brainbert.md",
        build=lambda: BrainBert(ProbeConfig(size=size, frozen=False), shape),
        published=published,
        counted="derived from the layers, with the pre-training head; here the probe stands in its place",
        parameters=parameters,
        contract=CONTRACT,
        conditioning=CONDITIONING,
        window=window,
        heads=heads,
        budget_ms=budget_ms,
        arrays=scaled,
        experiment="words" if size == "small" else None,
        recipe="brainbert_probe.toml",
        threads=2,
    )


ENTRIES = (
    _entry("small", 4_728_760, 4_565_137, hop=0.5, budget_ms=200.0),
    _entry("base", 21_919_528, 21_297_409, hop=1.0, budget_ms=700.0),
    _entry("large", 43_183_144, 42_561_025, hop=2.0, budget_ms=1400.0),
)
