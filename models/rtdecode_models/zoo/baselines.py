"""Baselines: CSP and LDA, LDA on log powers, CCA."""

from rtdecode.encode.manifest import ClassifyHead, Contract, ContractChannel
from rtdecode.stream.steps import Conditioning, Filter
from rtdecode.stream.window import Locked
from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.cca import CCA, CCAConfig
from rtdecode_models.systems.csp_lda import CSPLDA, CSPConfig
from rtdecode_models.systems.lda import LDA, LDAConfig
from rtdecode_models.zoo.entry import Entry
from rtdecode_models.zoo.motor_imagery import CUE, EEGMMIDB, EEGMMIDB_CHANNELS, FISTS_FEET, Heads, classify

#: SSVEP exoskeleton (Kalunga et al., Neurocomputing 2016): 8 occipital channels at 256 Hz.
SSVEP_CHANNELS = ("Oz", "O1", "O2", "PO3", "POz", "PO7", "PO8", "PO4")
SSVEP = Contract(
    channels=tuple(ContractChannel(name=name, type="eeg", unit="V") for name in SSVEP_CHANNELS), sfreq=256.0
)
#: Label -> frequency in Hz of the light that is looked at.
FLICKER = {"13 Hz": 13.0, "17 Hz": 17.0, "21 Hz": 21.0}
#: From two seconds after a trial's start, when the response has settled, to its end.
TRIAL = Locked(tmin=2.0, tmax=5.0, markers=tuple(FLICKER), name="trial")
#: Softens nothing and sharpens correlations, which lie between 0 and 1; a choice, not a calibration.
CCA_TEMPERATURE = 0.05

RHYTHMS = Conditioning(stream=(Filter(low=7.0, high=30.0),))


def _eegmmidb() -> Shape:
    return Shape(CUE.n_samples(160.0), len(EEGMMIDB_CHANNELS), 160.0, 1, EEGMMIDB_CHANNELS, {"label": 2})


def _ssvep() -> Shape:
    return Shape(TRIAL.n_samples(256.0), len(SSVEP_CHANNELS), 256.0, 1, SSVEP_CHANNELS, {"label": len(FLICKER)})


def _cca_heads() -> Heads:
    markers: dict[str, tuple[str, ...]] = {label: (label,) for label in FLICKER}
    return (ClassifyHead(output="logits", labels=tuple(FLICKER), temperature=CCA_TEMPERATURE, markers=markers),), {}


ENTRIES = (
    Entry(
        name="csp-lda",
        title="CSP, log variance, LDA",
        paper="10.1109/MSP.2008.4408441",
        card="baselines.md",
        build=lambda: CSPLDA(CSPConfig(), _eegmmidb()),
        published=None,
        counted="6 filters of 64 channels, and LDA of 6 features and 2 classes",
        parameters=398,
        contract=EEGMMIDB,
        conditioning=RHYTHMS,
        window=CUE,
        heads=lambda: classify(FISTS_FEET),
        budget_ms=25.0,
        experiment="imagery",
        recipe="eegmmidb_csp_lda.toml",
    ),
    Entry(
        name="lda",
        title="LDA on log powers",
        paper="10.1016/j.neuroimage.2010.06.048",
        card="baselines.md",
        build=lambda: LDA(LDAConfig(features="log_power", stretches=1), _eegmmidb()),
        published=None,
        counted="LDA of 64 features and 2 classes",
        parameters=130,
        contract=EEGMMIDB,
        conditioning=RHYTHMS,
        window=CUE,
        heads=lambda: classify(FISTS_FEET),
        budget_ms=25.0,
        experiment="imagery",
        recipe="zoo/lda.toml",
    ),
    Entry(
        name="cca",
        title="CCA for SSVEP",
        paper="10.1109/TBME.2006.886577",
        card="baselines.md",
        build=lambda: CCA(CCAConfig(frequencies=tuple(FLICKER.values())), _ssvep()),
        published=0,
        counted="nothing is trained",
        parameters=0,
        contract=SSVEP,
        conditioning=Conditioning(stream=(Filter(low=5.0, high=45.0),)),
        window=TRIAL,
        heads=_cca_heads,
        budget_ms=25.0,
        experiment="ssvep",
        recipe="zoo/cca.toml",
    ),
)
