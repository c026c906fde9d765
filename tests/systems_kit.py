"""What tests of systems are fed with: windows of noise, and trials with a gallery of maps."""

import numpy as np

from rtdecode_models.data.trials import Gallery, Trials


def windows(n, n_times, n_channels, scale=1.0):
    """Windows (n, n_times, n_channels) of white noise, float32."""
    drawn = np.random.default_rng(1).standard_normal((n, n_times, n_channels))
    return (scale * drawn).astype(np.float32)


def trials(n=6, side=32, classes=3):
    """Trials of one session, of as many stimuli, each with a map for a target."""
    rng = np.random.default_rng(2)
    zeros = np.zeros(n, np.int64)
    maps = rng.uniform(0, 1, (n, side, side)).astype(np.float32)
    return Trials(
        x=windows(n, 40, 4),
        sfreq=100.0,
        subject=zeros,
        session=zeros,
        subjects=("a",),
        sessions=("s",),
        labels={"label": np.arange(n) % classes},
        classes={"label": tuple("abcdef"[:classes])},
        item=np.arange(n),
        gallery=Gallery(tuple(f"p{row}" for row in range(n)), {"saliency": maps}),
    )
