"""Bundle v1: what ``manifest.json`` says."""

from typing import Any, Final, Literal

import msgspec

from rtdecode.stream.steps import Conditioning
from rtdecode.stream.window import WindowSpec

FORMAT: Final = "rtdecode-bundle"
VERSION: Final = 1


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ContractChannel(_Part, frozen=True):
    """A channel that the decoder needs: its name, MNE channel type and SI unit."""

    name: str
    type: str
    unit: str


class Contract(_Part, frozen=True):
    """What a stream must offer: these channels, in this order, at this rate (Hz)."""

    channels: tuple[ContractChannel, ...]
    sfreq: float


class Encoder(_Part, frozen=True):
    """The ONNX file: one input of shape (1, time, channels), one or more outputs of shape (1, ...)."""

    file: str
    input: str
    outputs: tuple[str, ...]
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"


class GalleryItem(_Part, frozen=True):
    """One thing that can be retrieved. `picture` names a file of the bundle."""

    name: str
    picture: str | None = None
    caption: str | None = None
    emoji: str | None = None


class RetrieveHead(_Part, frozen=True, tag_field="kind", tag="retrieve"):
    """Exact top-k over a gallery.

    `items` names a JSON file of `GalleryItem`; `embeddings` a float32 array of shape (items, width). `threshold`: a
    best score below it reads "none of these"; None where it was not calibrated.
    """

    output: str
    items: str
    embeddings: str
    metric: Literal["cosine", "dot"] = "cosine"
    k: int = 5
    threshold: float | None = None


class ClassifyHead(_Part, frozen=True, tag_field="kind", tag="classify"):
    """Probabilities: softmax(logits / temperature). `labels` maps markers to classes: label name -> marker patterns."""

    output: str
    labels: tuple[str, ...]
    temperature: float = 1.0
    markers: dict[str, tuple[str, ...]] = {}


class EmbeddingHead(_Part, frozen=True, tag_field="kind", tag="embedding"):
    """The encoder's output as it is."""

    output: str


HeadSpec = RetrieveHead | ClassifyHead | EmbeddingHead


class Golden(_Part, frozen=True):
    """Windows with known outputs, run at every start.

    `windows`: float32 (n, time, channels), as they enter the encoder. `outputs`: output name -> float32 (n, ...).
    `tolerance`: largest allowed error as a share of the expected output's largest magnitude, for this precision.
    `raw` (optional): float32 (samples, contract channels) from the start of a segment, whose conditioned windows start
    at `raw_starts` (conditioned samples) and must equal the first windows of `windows`.
    """

    windows: str
    outputs: dict[str, str]
    tolerance: float
    raw: str | None = None
    raw_starts: tuple[int, ...] = ()


class Manifest(_Part, frozen=True):
    """The whole of ``manifest.json``. Hashes stand beside it, in ``SHA256SUMS``."""

    format: Literal["rtdecode-bundle"]
    version: int
    name: str
    created: str
    contract: Contract
    conditioning: Conditioning
    windows: tuple[WindowSpec, ...]
    encoder: Encoder
    heads: tuple[HeadSpec, ...]
    golden: Golden
    metrics: dict[str, Any] = {}
    provenance: dict[str, Any] = {}
