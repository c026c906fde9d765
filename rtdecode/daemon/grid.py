"""At which samples a pipeline's windows are due, where that is a grid: others need not be handed on at once."""

from fractions import Fraction

from rtdecode.config import PipelineConfig
from rtdecode.decoder import Decoder
from rtdecode.stream.window import Sliding


def due_grid(decoder: Decoder, pipeline: PipelineConfig) -> tuple[int, int]:
    """At which raw samples of a segment windows are due: every so many, from which on; (0, 0) where that is no grid.

    It is one for a single sliding window that hops by whole samples, where conditioning keeps the rate and nothing
    waits for markers.
    """
    window, sfreq = decoder.windows[0], decoder.conditioner.sfreq
    if len(decoder.windows) > 1 or not isinstance(window, Sliding) or pipeline.blank or decoder.conditioner.ratio != 1:
        return 0, 0
    every = Fraction(window.hop).limit_denominator(1_000_000) * Fraction(sfreq).limit_denominator(1_000_000)
    return (int(every), window.n_samples(sfreq)) if every.denominator == 1 else (0, 0)
