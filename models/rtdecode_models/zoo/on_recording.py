"""Du-IN and BrainBERT as bundles for the contacts of a recording at hand, with weights at random.

They show that a recording's names, types, units and rate get through the chain to the encoder and back; what they
decode means nothing, and their names say so.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rtdecode.encode.manifest import ClassifyHead, Contract, HeadSpec
from rtdecode.errors import ConfigError
from rtdecode.result import Result, Status
from rtdecode.stream.fit import standard_statistics
from rtdecode.stream.steps import Conditioning, Resample, Scale, StreamStep
from rtdecode.stream.window import Locked, Sliding, WindowSpec
from rtdecode_export.bundle import ExportReport, export_bundle
from rtdecode_models.data.fitting import CENTER, SCALE
from rtdecode_models.data.recordings import Recording, contract_of, cut, read_recording
from rtdecode_models.data.shape import Shape
from rtdecode_models.sites.contacts import Referencing, contacts_of, referencing_step, sites
from rtdecode_models.systems.registry import build
from rtdecode_models.zoo import brainbert, du_in

#: Windows that travel in the bundle, and those of them that its piece of recording holds.
GOLDEN, RAW = 3, 1


def du_in_for(
    recording: Path,
    out: Path,
    contacts: Sequence[str],
    markers: Sequence[str],
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> ExportReport:
    """Du-IN for the first ten bipolar channels of some contacts, around some markers.

    Parameters
    ----------
    recording : Path
        At 1000 Hz.
    out : Path
        A folder, or a file ending in ``.zip``; replaced where it is a bundle.
    contacts, markers : sequence of str
        Patterns (shell wildcards).
    options : mapping, optional
        Of `rtdecode_models.systems.du_in.WordsConfig`; the published size where not given.
    seed : int
        Of the weights.
    """
    filters = du_in.CONDITIONING.stream[1:-1]
    window = around(du_in.WORD, markers)
    heads = (ClassifyHead(output="logits", labels=du_in.WORDS),)
    return _bundle(recording, out, "du-in", options or {}, "bipolar", contacts, 10, filters, None, window, heads, seed)


def brainbert_for(
    recording: Path,
    out: Path,
    contacts: Sequence[str],
    *,
    hop: float = 0.5,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> ExportReport:
    """BrainBERT for all of some contacts that have a Laplacian, resampled to 2048 Hz.

    Parameters
    ----------
    recording : Path
        Of any rate from 512 Hz up.
    out : Path
        A folder, or a file ending in ``.zip``; replaced where it is a bundle.
    contacts : sequence of str
        Patterns (shell wildcards).
    hop : float
        Seconds from one window to the next.
    options : mapping, optional
        Of `rtdecode_models.systems.brainbert.ProbeConfig`; the small size where not given.
    seed : int
        Of the weights.
    """
    filters = (Resample(sfreq=brainbert.CONTRACT.sfreq),)
    chosen = options or {"size": "small"}
    heads, _ = brainbert.heads()
    window = Sliding(length=5.0, hop=hop)
    scale = brainbert.UNIT
    return _bundle(
        recording, out, "brainbert", chosen, "laplacian", contacts, None, filters, scale, window, heads, seed
    )


def around(window: Locked, markers: Sequence[str]) -> Locked:
    """The same window around other markers."""
    return Locked(tmin=window.tmin, tmax=window.tmax, markers=tuple(markers), name=window.name)


def _bundle(
    recording: Path,
    out: Path,
    system: str,
    options: Mapping[str, Any],
    referencing: Referencing,
    contacts: Sequence[str],
    n: int | None,
    filters: Sequence[StreamStep],
    scale: float | None,
    window: WindowSpec,
    heads: Sequence[HeadSpec],
    seed: int,
) -> ExportReport:
    """The bundle; channels are scaled by `scale`, or to the windows' own standard deviation where it is None."""
    read = read_recording(recording.parent, recording.name)
    whole = contract_of(read.info)
    names = [channel.name for channel in whole.channels]
    found = sites(referencing, [name for name in names if any(fnmatchcase(name, one) for one in contacts)])
    if len(found) < (n or 1):
        raise ConfigError(
            f"{recording.name} has {len(found)} {referencing} channels of {', '.join(contacts)}; needs {n}"
        )
    chosen = dict(list(found.items())[:n])
    steps = (referencing_step(referencing, chosen), *filters)
    unscaled, sfreq = _windows(read, whole, Conditioning(stream=steps), {}, window)
    center, deviation = np.zeros(len(chosen)), np.full(len(chosen), scale or 1.0)
    if scale is None:
        center, deviation = standard_statistics(np.stack([result.outputs["window"] for result in unscaled]))
    arrays = {CENTER: center, SCALE: deviation}
    conditioning = Conditioning(stream=(*steps, Scale(center=CENTER, scale=SCALE)))
    results, _ = _windows(read, whole, conditioning, arrays, window)

    windows = np.stack([result.outputs["window"] for result in results])
    shape = Shape(
        n_times=windows.shape[1],
        n_channels=windows.shape[2],
        sfreq=sfreq,
        channels=tuple(chosen),
        classes={"label": next(len(head.labels) for head in heads if isinstance(head, ClassifyHead))},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build(system, options, shape)
    needed = contacts_of(chosen, names)
    by_name = {channel.name: channel for channel in whole.channels}
    return export_bundle(
        encoder.deploy(),
        out=out,
        name=f"{system} (untrained) on {recording.name}",
        contract=Contract(channels=tuple(by_name[name] for name in needed), sfreq=whole.sfreq),
        conditioning=conditioning,
        arrays=arrays,
        windows=[window],
        heads=heads,
        outputs=encoder.outputs,
        real_windows=windows,
        raw=_raw(read, needed, results[RAW - 1], whole.sfreq),
        raw_starts=tuple(result.start for result in results[:RAW]),
        provenance={"weights": f"at random, seed {seed}: nothing was trained", "recording": read.sha256},
        overwrite=True,
    )


def _windows(
    read: Recording,
    contract: Contract,
    conditioning: Conditioning,
    arrays: Mapping[str, NDArray[Any]],
    window: WindowSpec,
) -> tuple[list[Result], float]:
    """The recording's first usable windows, and their rate."""
    results = cut(read, contract, conditioning, arrays, [window])
    usable = [result for result in results if result.status == Status.OK][:GOLDEN]
    if not usable:
        reasons = sorted({f"{result.status}: {result.reason}" for result in results}) or ["none was due"]
        raise ConfigError(f"{read.name} has no usable window; {'; '.join(reasons)}")
    return usable, usable[0].sfreq


def _raw(read: Recording, needed: Sequence[str], last: Result, sfreq: float) -> NDArray[np.float32]:
    """The recording's beginning, as far as a window reaches, of the contacts alone."""
    columns = [read.info.names.index(name) for name in needed]
    samples = np.concatenate([batch.chunk.samples[:, columns] for batch in read.batches if batch.chunk is not None])
    stop = int(np.ceil((last.start + last.length) * sfreq / last.sfreq)) + 1
    return np.ascontiguousarray(samples[:stop])
