"""Geometric ML on EEG: the denoiser of single channels, and the classifier on the graph of the montage."""

from rtdecode.encode.manifest import ClassifyHead, EmbeddingHead
from rtdecode.stream.steps import Conditioning, Filter, WindowScale
from rtdecode.stream.window import Locked, Sliding
from rtdecode_models.data.shape import Shape
from rtdecode_models.systems import denoiser, geometric
from rtdecode_models.systems.histn import ELECTRODES
from rtdecode_models.zoo.entry import Entry
from rtdecode_models.zoo.histn import EPOC

#: What was seen and thought of, by the codes of MindBigData's files.
THOUGHTS = {"digit": ("[0-9]",), "no digit": ("-1",)}
SECONDS = 2.0


def _shape() -> Shape:
    n_times = round(SECONDS * EPOC.sfreq)
    return Shape(n_times, len(ELECTRODES), EPOC.sfreq, 1, ELECTRODES, {"label": len(THOUGHTS)})


ENTRIES = (
    Entry(
        name="geometric-denoiser",
        title="Geometric ML on EEG, denoiser of single channels",
        paper="2502.05334",
        card="geometric.md",
        build=lambda: denoiser.build({}, _shape()),
        published=None,
        counted="widths are not known, and were chosen here",
        parameters=98_595,
        contract=EPOC,
        conditioning=Conditioning(stream=(Filter(low=0.5),)),
        window=Sliding(length=SECONDS, hop=0.5, name="clean"),
        heads=lambda: ((EmbeddingHead(output="denoised"),), {}),
        budget_ms=30.0,
        experiment="artifacts",
    ),
    Entry(
        name="geometric",
        title="Geometric ML on EEG, graph convolution after Ricci flow",
        paper="2502.05334",
        card="geometric.md",
        build=lambda: geometric.build({}, _shape()),
        published=None,
        counted="widths are not known, and were chosen here",
        parameters=8_580,
        contract=EPOC,
        conditioning=Conditioning(stream=(Filter(low=0.5),), window=(WindowScale(method="zscore"),)),
        window=Locked(tmin=0.0, tmax=SECONDS, markers=("[0-9]", "-1"), name="thought"),
        experiment="emotion",
        recipe="geometric.toml",
        heads=lambda: (
            (
                ClassifyHead(output="logits", labels=tuple(THOUGHTS), markers=dict(THOUGHTS)),
                EmbeddingHead(output="embedding"),
            ),
            {},
        ),
        budget_ms=20.0,
    ),
)
