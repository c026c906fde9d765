"""From a bundle to its heads."""

from rtdecode.encode.bundle import Bundle
from rtdecode.encode.manifest import ClassifyHead, HeadSpec, RetrieveHead
from rtdecode.heads.base import Head
from rtdecode.heads.classify import Classify
from rtdecode.heads.embedding import Embedding
from rtdecode.heads.retrieve import Retrieve


def build_heads(bundle: Bundle) -> tuple[Head, ...]:
    """The heads that a bundle declares, in its order. Reads nothing: a bundle's arrays and items are in memory."""
    return tuple(_build(bundle, spec) for spec in bundle.manifest.heads)


def _build(bundle: Bundle, spec: HeadSpec) -> Head:
    if isinstance(spec, RetrieveHead):
        return Retrieve(
            bundle.array(spec.embeddings),
            [item.name for item in bundle.items(spec)],
            output=spec.output,
            metric=spec.metric,
            k=spec.k,
            threshold=spec.threshold,
        )
    if isinstance(spec, ClassifyHead):
        return Classify(spec.labels, output=spec.output, temperature=spec.temperature)
    return Embedding(spec.output)
