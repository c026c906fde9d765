"""At which samples a pipeline's windows are due, where that is a grid: others need not be handed on at once."""

from rtdecode.config import PipelineConfig
from rtdecode.decoder import Decoder
from rtdecode.stream.window import Sliding


def due_grid(decoder: Decoder, pipeline: PipelineConfig) -> tuple[int, int]:
    """At which raw samples of a segment windows are due: every so many, from which on; (0, 0) where that is no grid.

    It is one for a single sliding window that hops by whole samples, raw ones and conditioned ones, where nothing waits
    for markers. Conditioned samples are ``ceil(n * ratio)`` of n raw ones, step after step; so where a hop of h raw
    samples is a whole number of samples behind each step, each window is due h raw samples behind the one before.
    """
    window, conditioner = decoder.windows[0], decoder.conditioner
    if len(decoder.windows) > 1 or not isinstance(window, Sliding) or pipeline.blank:
        return 0, 0
    hop = window.step(conditioner.sfreq)
    raw = hop / conditioner.ratio
    if hop.denominator != 1 or raw.denominator != 1 or not conditioner.keeps_step(int(raw)):
        return 0, 0
    return int(raw), conditioner.last_without(window.n_samples(conditioner.sfreq)) + 1
