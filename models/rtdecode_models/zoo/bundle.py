"""A system of the zoo as a bundle, with weights at random: what it takes and gives, and how long that takes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rtdecode.errors import ConfigError
from rtdecode.result import Result, Status
from rtdecode_export.bundle import ExportReport, export_bundle
from rtdecode_models.data.recordings import Recording, cut
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.zoo.entry import Entry
from rtdecode_models.zoo.noise import NoiseSource, batches_of

#: Windows of noise that PyTorch and onnxruntime are compared on, and those of them that the raw piece holds.
WINDOWS, RAW_WINDOWS = 6, 2


def untrained(entry: Entry, out: Path, *, seed: int = 0, overwrite: bool = False) -> ExportReport:
    """Export a system as it is before any training; the bundle's name and provenance say so.

    Parameters
    ----------
    entry : Entry
        Which.
    out : Path
        A folder, or a file ending in ``.zip``.
    seed : int
        Of the weights and of the noise that its golden windows are cut from.
    overwrite : bool
        Whether a bundle that lies there may be replaced.
    """
    encoder = build(entry, seed)
    arrays = dict(entry.arrays())
    results, raw = windows_of(entry, seed, arrays)
    heads, files = entry.heads()
    last = results[RAW_WINDOWS - 1]
    needed = int(np.ceil((last.start + last.length) * entry.contract.sfreq / last.sfreq)) + 1
    return export_bundle(
        encoder.deploy(entry.subject),
        out=out,
        name=f"{entry.name} (untrained)",
        contract=entry.contract,
        conditioning=entry.conditioning,
        arrays=arrays,
        windows=[entry.window],
        heads=heads,
        outputs=encoder.outputs,
        real_windows=np.stack([result.outputs["window"] for result in results]),
        real=False,
        raw=raw[:needed],
        raw_starts=tuple(result.start for result in results[:RAW_WINDOWS]),
        files=files,
        provenance={"weights": f"at random, seed {seed}: nothing was trained", "windows": "cut from simulated noise"},
        overwrite=overwrite,
    )


def build(entry: Entry, seed: int = 0) -> Encoder:
    """The encoder in evaluation mode, the same for the same seed; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = entry.build()
    encoder.eval()
    return encoder


def windows_of(
    entry: Entry, seed: int, arrays: Mapping[str, NDArray[np.float64]]
) -> tuple[Sequence[Result], NDArray[np.float32]]:
    """Windows that the daemon's own chain cuts from noise, in order, and the noise, shape (samples, channels).

    Parameters
    ----------
    entry : Entry
        Whose stream, chain and window.
    seed : int
        Of the noise.
    arrays : mapping of str to ndarray
        What the chain names.

    Raises
    ------
    ConfigError
        The entry's window gives none.
    """
    seconds = entry.window.duration + 1.0 + WINDOWS * _spacing(entry)
    source = NoiseSource(entry.contract, [entry.window], seconds, seed)
    batches = batches_of(source)
    recording = Recording("noise", "", source.info, batches)
    results = cut(recording, entry.contract, entry.conditioning, arrays, [entry.window])
    usable = [result for result in results if result.status == Status.OK][:WINDOWS]
    if len(usable) < RAW_WINDOWS:
        statuses = sorted({f"{result.status}: {result.reason}" for result in results})
        raise ConfigError(f"{entry.name}: {seconds:g} s of noise give {len(usable)} usable windows; {statuses}")
    return usable, np.concatenate([batch.chunk.samples for batch in batches if batch.chunk is not None])


def _spacing(entry: Entry) -> float:
    """Seconds between two windows of noise."""
    return float(getattr(entry.window, "hop", 0.5))
