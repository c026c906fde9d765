"""Where sensors are on a flat layout scaled to [0, 1], for encoders that merge channels by position.

Names are looked up first, since they are the same live: the published layouts of CTF and Elekta (MEGIN) helmets and of
the 10-05 system, which MNE ships. Where a montage has other names, the positions that the recording
gives are flattened.
"""

import importlib.util
import re
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal import Channel

#: Both coordinates of a sensor whose place is not known, as channel mergers take it.
MISSING = -0.1

#: As MNE calls them.
_LAYOUTS = ("CTF275.lay", "Vectorview-all.lout", "EEG1005.lay")
#: A layout is taken where it knows this share of the channels at least.
_ENOUGH = 0.5
#: Middle of a head, in metres and head coordinates: what scalp and helmet are flattened around.
_CENTRE = np.array([0.0, 0.0, 0.04])
_ON_A_SPHERE = frozenset({"eeg", "mag", "grad", "ref_meg"})


def positions_of(channels: Sequence[Channel]) -> NDArray[np.float64] | None:
    """Positions of channels, shape (channels, 2), each axis scaled to [0, 1] over those that are known.

    Parameters
    ----------
    channels : sequence of Channel
        Conditioned channels. Names count as `plain` makes them: ``Fc5.``, ``EEG FC5`` and ``FC5`` are one;
        ``MLC11-2622`` is ``MLC11``.

    Returns
    -------
    ndarray of float64 or None
        `MISSING` where a place is not known; None where none is.
    """
    found = _by_name([channel.name for channel in channels])
    if found is None:
        found = _by_place(channels)
    known = np.asarray(np.isfinite(found).all(axis=1))
    if not known.any():
        return None
    low, high = found[known].min(axis=0), found[known].max(axis=0)
    scaled = (found - low) / np.where(high > low, high - low, 1.0)
    return np.where(known[:, np.newaxis], scaled, MISSING)


def plain(name: str) -> str:
    """What the spellings of one sensor's name share."""
    name = re.sub(r"-\d+$", "", name.strip())
    return "".join(letter for letter in name.casefold().removeprefix("eeg ") if letter.isalnum())


def _by_name(names: Sequence[str]) -> NDArray[np.float64] | None:
    """From the layout that knows most of the names, if one knows enough of them; NaN for the others."""
    if importlib.util.find_spec("mne") is None:
        return None
    best: NDArray[np.float64] | None = None
    for layout in _LAYOUTS:
        places = _layout(layout)
        found = np.array([places.get(plain(name), (np.nan, np.nan)) for name in names])
        n = np.isfinite(found).all(axis=1).sum()
        if n >= _ENOUGH * len(names) and (best is None or n > np.isfinite(best).all(axis=1).sum()):
            best = found
    return best


@cache
def _layout(name: str) -> Mapping[str, tuple[float, float]]:
    import mne

    layout = mne.channels.read_layout(name)
    return {
        plain(channel): (float(x), float(y)) for channel, (x, y) in zip(layout.names, layout.pos[:, :2], strict=True)
    }


def _by_place(channels: Sequence[Channel]) -> NDArray[np.float64]:
    """From places in the head: scalp and helmet rolled out around the vertex, electrodes in the brain seen from above.

    Rolled out, the distance from the middle is the angle from the vertex (azimuthal equidistant).
    """
    flat = np.full((len(channels), 2), np.nan)
    for row, channel in enumerate(channels):
        if channel.position is None:
            continue
        if channel.type not in _ON_A_SPHERE:
            flat[row] = channel.position[:2]
            continue
        x, y, z = np.asarray(channel.position) - _CENTRE
        across = np.hypot(x, y)
        angle = np.arctan2(across, z)
        flat[row] = (0.0, 0.0) if across == 0 else (angle * x / across, angle * y / across)
    return flat
