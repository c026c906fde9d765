"""HiSTN: ratings of valence and of arousal, one network for each."""

from rtdecode.encode.manifest import ClassifyHead, Contract, ContractChannel
from rtdecode.stream.steps import Conditioning, Filter, WindowScale
from rtdecode.stream.window import Sliding
from rtdecode_models.systems.histn import ELECTRODES, HiSTN, HiSTNConfig
from rtdecode_models.zoo.entry import Entry

#: The Emotiv EPOC, as in DREAMER.
EPOC = Contract(channels=tuple(ContractChannel(name=name, type="eeg", unit="V") for name in ELECTRODES), sfreq=128.0)
#: Ratings from 1 to 5.
RATINGS = ("1", "2", "3", "4", "5")


def _entry(scale: str) -> Entry:
    return Entry(
        name=f"histn-{scale}",
        title=f"HiSTN, {scale}",
        paper="2408.15255",
        card="histn.md",
        build=lambda: HiSTN(HiSTNConfig(label=scale), len(RATINGS)),
        published=1_181,
        counted='derived from the layer table; the paper says "approximately 1,000"',
        parameters=1_181,
        contract=EPOC,
        # The amplifier has an offset of some millivolts, which the largest magnitude would be of.
        conditioning=Conditioning(stream=(Filter(low=0.5),), window=(WindowScale(method="maxabs"),)),
        window=Sliding(length=1.0, hop=0.25, name=scale),
        heads=lambda: ((ClassifyHead(output="logits", labels=RATINGS),), {}),
        budget_ms=20.0,
        experiment="emotion" if scale == "valence" else "emotion-arousal",
        recipe="histn_dreamer.toml",
    )


ENTRIES = (_entry("valence"), _entry("arousal"))
