"""What a conditioning chain may consist of, as it is declared in a bundle's manifest.

Stream steps are causal and stateful and run once per sample, in the declared order; window steps run once per window.
Arrays (matrices, statistics) are named here and lie beside the manifest as ``.npy`` files.
"""

from typing import Literal

import msgspec


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="step", omit_defaults=True):
    """Base of all steps; the JSON key ``step`` says which one."""


# --- stream steps -----------------------------------------------------------------------------------------------------


class Pick(Step, frozen=True, kw_only=True, tag="pick"):
    """Keep these channels, in this order."""

    channels: tuple[str, ...]


class Reference(Step, frozen=True, kw_only=True, tag="reference"):
    """Subtract the mean of the reference channels from every channel; no channels named means the average of all."""

    channels: tuple[str, ...] = ()


class Bipolar(Step, frozen=True, kw_only=True, tag="bipolar"):
    """Replace the channels by differences ``anode - cathode``, named ``anode-cathode``."""

    pairs: tuple[tuple[str, str], ...]


class Laplacian(Step, frozen=True, kw_only=True, tag="laplacian"):
    """Subtract from each named channel the mean of its neighbours; channels not named are dropped.

    Those that stay keep the order in which they come in.
    """

    neighbours: dict[str, tuple[str, ...]]


class Matrix(Step, frozen=True, kw_only=True, tag="matrix"):
    """Multiply by a fixed matrix from training or from the recording device.

    `array` names a float64 array of shape (channels out, channels in). `channels` names the outputs; empty where they
    are the inputs.
    """

    array: str
    kind: Literal["compensation", "ssp", "mvnn", "euclidean_alignment", "interpolation", "spatial"]
    channels: tuple[str, ...] = ()


class Scale(Step, frozen=True, kw_only=True, tag="scale"):
    """Subtract a centre and divide by a scale, per channel, both from training data.

    `center` and `scale` name float64 arrays of shape (channels,). `kind` says what they are: mean and standard
    deviation, or median and interquartile range.
    """

    center: str
    scale: str
    kind: Literal["standard", "robust"] = "standard"


class Notch(Step, frozen=True, kw_only=True, tag="notch"):
    """Second-order IIR notches at `freq` Hz and its harmonics (`harmonics` counts them, the first included).

    `quality` is each notch's frequency divided by its width at -3 dB.
    """

    freq: float
    quality: float = 30.0
    harmonics: int = 1


class Filter(Step, frozen=True, kw_only=True, tag="filter"):
    """Butterworth filter in second-order sections: high-pass, low-pass or band-pass, by which edges (Hz) are given."""

    low: float | None = None
    high: float | None = None
    order: int = 4


class Resample(Step, frozen=True, kw_only=True, tag="resample"):
    """Causal polyphase FIR resampling to `sfreq` Hz, by a whole factor or a rational one, with its anti-alias filter.

    `half_width` (3 to 64) is half the filter's length, in periods of the lower of the two rates: the group delay is
    that long, and the pass band ends at ``0.5 - 1.01 / half_width`` of that rate (0.3 of it by default). `sfreq` is at
    most four times the rate that comes in; at that very rate the step does nothing.
    """

    sfreq: float
    half_width: float = 5.0


class RunningAlignment(Step, frozen=True, kw_only=True, tag="running_alignment"):
    """Euclidean alignment (He and Wu, IEEE TBME 2020) with a running mean covariance.

    The matrix is renewed after every `block_s` seconds, counted from the start of the segment; `half_life_s` is how
    long it takes to forget half; `start` names the covariance (channels, channels) to begin with, from training.
    """

    start: str
    half_life_s: float = 60.0
    block_s: float = 1.0


StreamStep = Pick | Reference | Bipolar | Laplacian | Matrix | Scale | Notch | Filter | Resample | RunningAlignment


# --- window steps -----------------------------------------------------------------------------------------------------


class Baseline(Step, frozen=True, kw_only=True, tag="baseline"):
    """Subtract from each channel its mean over [tmin, tmax) seconds, relative to the window's anchor."""

    tmin: float
    tmax: float


class WindowScale(Step, frozen=True, kw_only=True, tag="window_scale"):
    """Scale each channel by its own statistics over the window: z-score, median/IQR, or largest magnitude."""

    method: Literal["zscore", "robust", "maxabs"] = "zscore"


class Clamp(Step, frozen=True, kw_only=True, tag="clamp"):
    """Limit every value to [-limit, limit]."""

    limit: float


WindowStep = Baseline | WindowScale | Clamp


class Conditioning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole chain."""

    stream: tuple[StreamStep, ...] = ()
    window: tuple[WindowStep, ...] = ()
