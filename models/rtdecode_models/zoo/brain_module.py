"""The brain module: MEG to image embeddings, on the whole response and on windows that slide."""

from functools import partial

from rtdecode.stream.steps import Conditioning
from rtdecode.stream.window import WindowSpec
from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.brain_module import BrainModule, BrainModuleConfig
from rtdecode_models.zoo.entry import Entry
from rtdecode_models.zoo.galleries import stand_in
from rtdecode_models.zoo.things import (
    MEG_CHANNELS,
    MEG_SFREQ,
    MEG_SUBJECTS,
    MEG_WINDOW,
    layout,
    meg,
    meg_chain,
    meg_sliding,
    no_scaling,
)

#: Width of CLIP's image embedding.
WIDTH = 768
#: Seconds from one sliding window to the next.
HOP = 0.025


def _build(n_times: int, latent: str) -> BrainModule:
    shape = Shape(
        n_times,
        len(MEG_CHANNELS),
        MEG_SFREQ,
        MEG_SUBJECTS,
        MEG_CHANNELS,
        targets={"image": (WIDTH,)},
        positions=layout(MEG_CHANNELS),
    )
    return BrainModule(BrainModuleConfig(latent=latent), shape)


def _entry(
    name: str,
    title: str,
    window: WindowSpec,
    conditioning: Conditioning,
    parameters: int,
    counted: str,
    budget_ms: float,
    latent: str = "image",
    recipe: str | None = None,
) -> Entry:
    return Entry(
        name=name,
        title=title,
        paper="2310.19812",
        card="brain-module.md",
        build=partial(_build, window.n_samples(MEG_SFREQ), latent),
        published=parameters,
        counted=counted,
        parameters=parameters,
        contract=meg(MEG_CHANNELS),
        conditioning=conditioning,
        window=window,
        heads=partial(stand_in, WIDTH, also=("latent",) if latent else ()),
        budget_ms=budget_ms,
        subject=0,
        arrays=partial(no_scaling, len(MEG_CHANNELS)),
        experiment="things-meg",
        recipe=recipe,
    )


def _sliding(name: str, length: float, parameters: int) -> Entry:
    window, conditioning = meg_sliding(length, HOP)
    counted = "derived from the layer table, the aggregation for this many samples"
    title = f"Brain module, windows of {1000 * length:g} ms"
    return _entry(name, title, window, conditioning, parameters, counted, budget_ms=50.0)


ENTRIES = (
    _entry(
        "brain-module",
        "Brain module, both heads",
        MEG_WINDOW,
        meg_chain(MEG_SFREQ, baseline=0.5),
        7_998_104,
        "derived from the layer table, 4 subjects",
        budget_ms=100.0,
        recipe="things_meg_brain_module.toml",
    ),
    _entry(
        "brain-module-retrieval",
        "Brain module, retrieval head alone",
        MEG_WINDOW,
        meg_chain(MEG_SFREQ, baseline=0.5),
        6_424_472,
        "6.4 M in the paper, this number from the layer table, 4 subjects",
        budget_ms=100.0,
        latent="",
    ),
    _sliding("brain-module-250ms", 0.25, 7_997_953),
    _sliding("brain-module-100ms", 0.1, 7_997_935),
)
