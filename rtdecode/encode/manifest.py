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


class Boundary(_Part, frozen=True):
    """A tensor that goes from the prefix to the rest, `positions` rows of `features` numbers for a window.

    `stride`: samples from one position to the next. `delay`: with n positions due by the samples so far, those before
    n - delay are given. `left`, `right`: positions at a window's ends that padding touches.
    """

    positions: int
    features: int
    stride: int = 1
    delay: int = 0
    left: int = 0
    right: int = 0


class FirstLayer(_Part, frozen=True):
    """The rest's first layer, linear over positions x features: summed up as positions come.

    `weights`: float32 (positions x features + 1, width) in the ``.npy`` format, the last row what is added. `group`:
    positions that are multiplied at once, counted from a window's end, so that the sum always runs in one order.
    """

    weights: str
    width: int
    group: int


class Split(_Part, frozen=True, tag_field="kind", tag="split"):
    """An encoder in two: a prefix that runs on new samples only, in blocks, and the rest, when a window is whole.

    `prefix`, `rest`, `left`, `right`: ONNX files; the latter two make the positions that padding touches from a
    window's first `left_samples` or last `right_samples`. `block`: samples that the prefix takes at once; `stride`: a
    window begins at a position where it begins at a multiple of so many samples. `states`: shapes of what the prefix
    keeps. `takes_window`: whether the rest reads the window itself, too. `first`: a layer between the two, whose sums
    the rest takes in place of positions. `hop`: samples from one window to the next, as it was made for; None for
    marker-locked windows. `share`: of the encoder's arithmetic, what runs before a window is due; `at_finish` and
    `per_window`: what is left then, and what a window takes in all, as shares of the whole encoder's.
    """

    prefix: str
    rest: str
    block: int
    stride: int
    boundary: tuple[Boundary, ...]
    states: tuple[tuple[int, ...], ...]
    left: str | None = None
    left_samples: int = 0
    right: str | None = None
    right_samples: int = 0
    takes_window: bool = False
    first: FirstLayer | None = None
    hop: float | None = None
    share: float = 0.0
    at_finish: float = 1.0
    per_window: float = 1.0


def describe(split: Split, sfreq: float) -> str:
    """A split of an encoder of windows at `sfreq` Hz, in a few words."""
    ms = 1000 * split.block / sfreq
    return f"prefix {100 * split.share:.0f} % of arithmetic, block {split.block} samples ({ms:.3g} ms)"


class Unsplit(_Part, frozen=True, tag_field="kind", tag="whole"):
    """Why an encoder is run on whole windows."""

    reason: str


class Encoder(_Part, frozen=True):
    """The ONNX file: one input of shape (1, time, channels), one or more outputs of shape (1, ...).

    `incremental`: how it works while it listens, or why it does not; None where nobody looked.
    """

    file: str
    input: str
    outputs: tuple[str, ...]
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    incremental: Split | Unsplit | None = None


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
