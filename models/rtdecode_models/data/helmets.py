"""CTF and KIT recordings, which the daemon does not replay: read through MNE, for training alone."""

import hashlib
import warnings
from pathlib import Path

import numpy as np

from rtdecode.errors import RecordingError
from rtdecode.signal import Batch, Channel, Chunk, StreamInfo
from rtdecode.sources.mne_reader import FIFF_UNITS, sensor_position
from rtdecode_models.data.recordings import Recording

#: Ending -> MNE's reader.
READERS = {".ds": "read_raw_ctf", ".con": "read_raw_kit", ".sqd": "read_raw_kit"}


def read_helmet(path: Path) -> Recording:
    """Read a whole recording, without markers.

    Parameters
    ----------
    path : Path
        A CTF folder (``.ds``) or a KIT file (``.con``, ``.sqd``).

    Returns
    -------
    Recording
        In SI units, in chunks of a second. Its hash is that of all files that hold it.

    Raises
    ------
    RecordingError
        MNE is not there, or cannot read it.
    """
    try:
        import mne
    except ImportError as error:
        raise RecordingError(f'reading {path} needs MNE: pip install "rtdecode[files]"') from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            raw = getattr(mne.io, READERS[path.suffix])(path, preload=False, verbose="error")
            samples = np.ascontiguousarray(raw.get_data(verbose="error").T, np.float32)
        except Exception as error:  # damage shows as almost any error
            raise RecordingError(
                f"{path} cannot be read ({type(error).__name__}: {error}); copy it again from where it was recorded"
            ) from error
    to_head = raw.info["dev_head_t"]
    channels = tuple(
        Channel(name, kind, FIFF_UNITS.get(int(one["unit"]), ""), sensor_position(one, to_head))
        for name, kind, one in zip(raw.ch_names, raw.get_channel_types(), raw.info["chs"], strict=True)
    )
    sfreq = float(raw.info["sfreq"])
    raw.close()
    size = max(1, round(sfreq))
    batches = []
    for first in range(0, len(samples), size):
        stop = min(first + size, len(samples))
        stamps = np.arange(first, stop, dtype=np.float64) / sfreq
        watermark = float("inf") if stop == len(samples) else float(stamps[-1])
        batches.append(Batch(Chunk(samples[first:stop], stamps, first), (), watermark))
    info = StreamInfo(channels, sfreq, f"recording:{path.name}")
    return Recording(path.name, _sha256(path), info, tuple(batches))


def _sha256(path: Path) -> str:
    """Of a file, or of the files of a folder in the order of their names."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file()):
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
