"""Du-IN: words from stereotactic EEG, and the codes of its tokenizer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.manifest import ClassifyHead, Contract, ContractChannel, EmbeddingHead, HeadSpec
from rtdecode.stream.steps import Bipolar, Conditioning, Filter, Notch, Scale
from rtdecode.stream.window import Locked
from rtdecode_models.data.fitting import CENTER, SCALE
from rtdecode_models.data.shape import Shape
from rtdecode_models.sites.contacts import bipolar_pairs
from rtdecode_models.systems.du_in import DuIn, WordsConfig
from rtdecode_models.systems.du_in_tokenizer import DuInTokenizer, TokenizerConfig
from rtdecode_models.zoo.entry import Entry

#: Two shafts of six contacts: ten bipolar channels, as many as the paper selects of each person.
CONTACTS = tuple(f"{shaft}{number}" for shaft in "AB" for number in range(1, 7))
CONTRACT = Contract(
    channels=tuple(ContractChannel(name=name, type="seeg", unit="V") for name in CONTACTS), sfreq=1000.0
)
PAIRS = bipolar_pairs(CONTACTS)

#: As many as the paper's 61, by number: which words they are does not matter to an encoder that was not trained.
WORDS = tuple(f"word-{number:02d}" for number in range(1, 62))
WORD = Locked(tmin=-0.5, tmax=2.5, markers=("word-*",), name="word")
SHAPE = Shape(
    n_times=WORD.n_samples(CONTRACT.sfreq),
    n_channels=len(PAIRS),
    sfreq=CONTRACT.sfreq,
    channels=tuple(f"{anode}-{cathode}" for anode, cathode in PAIRS),
    classes={"label": len(WORDS)},
)

#: Mains and its harmonics inside the band are notched; the scale is the training data's, not the whole set's.
CONDITIONING = Conditioning(
    stream=(
        Bipolar(pairs=PAIRS),
        Notch(freq=50.0, harmonics=3),
        Filter(low=0.5, high=200.0),
        Scale(center=CENTER, scale=SCALE),
    )
)

Heads = tuple[tuple[HeadSpec, ...], Mapping[str, bytes | NDArray[Any]]]


def no_training() -> dict[str, NDArray[np.float64]]:
    """What the chain names where nothing was trained: 50 uV become 1."""
    return {CENTER: np.zeros(len(PAIRS)), SCALE: np.full(len(PAIRS), 5e-5)}


def words() -> Heads:
    """One head that names the word."""
    return (ClassifyHead(output="logits", labels=WORDS, markers={word: (word,) for word in WORDS}),), {}


def codes() -> Heads:
    """One head that hands on the 30 codes of a window."""
    return (EmbeddingHead(output="codes"),), {}


ENTRIES = (
    Entry(
        name="du-in",
        title="Du-IN",
        paper="2405.11459",
        card="du-in.md",
        build=lambda: DuIn(WordsConfig(), SHAPE),
        published=4_380_000,
        counted="paper, with codebook and contrastive parts that no word passes through; 4.18 M by its layers",
        parameters=4_182_813,
        contract=CONTRACT,
        conditioning=CONDITIONING,
        window=WORD,
        heads=words,
        budget_ms=25.0,
        arrays=no_training,
        experiment="words",
        recipe="du_in_words.toml",
    ),
    Entry(
        name="du-in-tokenizer",
        title="Du-IN VQ-VAE",
        paper="2405.11459",
        card="du-in.md",
        build=lambda: DuInTokenizer(TokenizerConfig(), SHAPE),
        published=None,
        counted="with the decoder, which is not exported; the codebook of 131,072 numbers is not trained by gradient",
        parameters=5_776_410,
        contract=CONTRACT,
        conditioning=CONDITIONING,
        window=WORD,
        heads=codes,
        budget_ms=25.0,
        arrays=no_training,
        recipe="du_in_tokenizer.toml",
    ),
)
