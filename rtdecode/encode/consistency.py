"""Whether the parts of a bundle fit each other: what can be told without the inference runtime."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.manifest import ClassifyHead, GalleryItem, Manifest, RetrieveHead, Split
from rtdecode.errors import BundleError
from rtdecode.signal import DATA_TYPES
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.steps import Matrix, RunningAlignment, Scale

#: What a contract's channels may be measured in; everything is SI by the time it is compared.
UNITS = frozenset({"V", "T", "T/m", "V/m^2", "M", "1"})

#: Golden outputs may be off by this share at most: beyond it, they would show nothing.
MAX_TOLERANCE = 0.5


def array_files(manifest: Manifest) -> tuple[str, ...]:
    """Every ``.npy`` file that a manifest names, each once."""
    return tuple(dict.fromkeys(name for _, name, is_array in _named_files(manifest) if is_array))


def plain_files(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    """Every file that a manifest names, with its place in the manifest."""
    return tuple((place, name) for place, name, _ in _named_files(manifest))


def _named_files(manifest: Manifest) -> Iterable[tuple[str, str, bool]]:
    yield "$.encoder.file", manifest.encoder.file, False
    if isinstance(split := manifest.encoder.incremental, Split):
        for key in ("prefix", "rest", "left", "right"):
            if (name := getattr(split, key)) is not None:
                yield f"$.encoder.incremental.{key}", name, False
        if split.first is not None:
            yield "$.encoder.incremental.first.weights", split.first.weights, False
    for i, step in enumerate(manifest.conditioning.stream):
        place = f"$.conditioning.stream[{i}]"
        if isinstance(step, Matrix):
            yield f"{place}.array", step.array, True
        elif isinstance(step, Scale):
            yield f"{place}.center", step.center, True
            yield f"{place}.scale", step.scale, True
        elif isinstance(step, RunningAlignment):
            yield f"{place}.start", step.start, True
    for i, head in enumerate(manifest.heads):
        if isinstance(head, RetrieveHead):
            yield f"$.heads[{i}].items", head.items, False
            yield f"$.heads[{i}].embeddings", head.embeddings, True
    yield "$.golden.windows", manifest.golden.windows, True
    for output, name in manifest.golden.outputs.items():
        yield f"$.golden.outputs.{output}", name, True
    if manifest.golden.raw is not None:
        yield "$.golden.raw", manifest.golden.raw, True


def check_manifest(manifest: Manifest, where: str) -> None:
    """Raise `BundleError` with everything in a manifest that contradicts itself, each with its place."""
    problems = [
        *_contract_problems(manifest),
        *_window_problems(manifest),
        *_head_problems(manifest),
        *_golden_problems(manifest),
    ]
    if problems:
        raise BundleError(f"{where}: manifest.json: " + "; ".join(problems))


def _contract_problems(manifest: Manifest) -> Iterable[str]:
    contract = manifest.contract
    if not contract.channels:
        yield "$.contract.channels is empty"
    if not contract.sfreq > 0:
        yield f"$.contract.sfreq is {contract.sfreq}; expected a rate in Hz"
    yield from _repeated("$.contract.channels", [channel.name for channel in contract.channels])
    for i, channel in enumerate(contract.channels):
        if channel.unit not in UNITS:
            yield f"$.contract.channels[{i}].unit is {channel.unit!r}; expected one of {', '.join(sorted(UNITS))}"
    if contract.channels and not any(channel.type in DATA_TYPES for channel in contract.channels):
        yield f"$.contract.channels has no data channel; expected a type of {', '.join(sorted(DATA_TYPES))}"


def _window_problems(manifest: Manifest) -> Iterable[str]:
    if not manifest.windows:
        yield "$.windows is empty"
    yield from _repeated("$.windows", [window.name for window in manifest.windows])


def _head_problems(manifest: Manifest) -> Iterable[str]:
    outputs = manifest.encoder.outputs
    if not outputs:
        yield "$.encoder.outputs is empty"
    if not manifest.heads:
        yield "$.heads is empty"
    yield from _repeated("$.encoder.outputs", outputs)
    for kind in (RetrieveHead, ClassifyHead):
        if sum(isinstance(head, kind) for head in manifest.heads) > 1:
            yield f"$.heads has several of kind {kind.__struct_config__.tag!r}; a window's message has room for one"
    for i, head in enumerate(manifest.heads):
        if head.output not in outputs:
            yield f"$.heads[{i}].output is {head.output!r}; the encoder gives {', '.join(outputs)}"
        if isinstance(head, RetrieveHead):
            if head.k < 1:
                yield f"$.heads[{i}].k is {head.k}; expected 1 or more"
        elif isinstance(head, ClassifyHead):
            if not head.labels:
                yield f"$.heads[{i}].labels is empty"
            yield from _repeated(f"$.heads[{i}].labels", head.labels)
            if not head.temperature > 0:
                yield f"$.heads[{i}].temperature is {head.temperature}; expected a number above 0"
            if unknown := sorted(set(head.markers) - set(head.labels)):
                yield f"$.heads[{i}].markers names {', '.join(unknown)}, which are no labels"


def _golden_problems(manifest: Manifest) -> Iterable[str]:
    golden = manifest.golden
    if missing := [output for output in manifest.encoder.outputs if output not in golden.outputs]:
        yield f"$.golden.outputs lacks {', '.join(missing)}"
    if extra := [output for output in golden.outputs if output not in manifest.encoder.outputs]:
        yield f"$.golden.outputs names {', '.join(extra)}, which the encoder does not give"
    if not 0 <= golden.tolerance <= MAX_TOLERANCE:
        yield f"$.golden.tolerance is {golden.tolerance}; expected 0 to {MAX_TOLERANCE}"
    if (golden.raw is None) != (not golden.raw_starts):
        yield "$.golden.raw and $.golden.raw_starts belong together; one of them is missing"
    starts = golden.raw_starts
    if any(start < 0 for start in starts) or list(starts) != sorted(set(starts)):
        yield f"$.golden.raw_starts is {list(starts)}; expected sample indices that increase"


def _repeated(place: str, names: Sequence[str]) -> Iterable[str]:
    if twice := sorted(name for name, n in Counter(names).items() if n > 1):
        yield f"{place} has {', '.join(map(repr, twice))} more than once"


def check_arrays(
    manifest: Manifest,
    arrays: Mapping[str, NDArray[Any]],
    items: Mapping[str, tuple[GalleryItem, ...]],
    conditioner: Conditioner,
    where: str,
) -> None:
    """Raise `BundleError` where windows, golden arrays, gallery and labels do not fit each other, naming both sides."""
    time = _window_length(manifest, conditioner, where)
    channels = len(conditioner.channels)
    windows = _golden_windows(manifest, arrays, time, channels, where)
    for output, name in manifest.golden.outputs.items():
        array = _float32(arrays[name], f"{where}: {name}")
        if array.ndim < 2 or len(array) != len(windows):
            raise BundleError(
                f"{where}: {name} (golden output {output!r}) has shape {array.shape}; "
                f"expected {len(windows)} rows, one for each golden window"
            )
    _check_raw(manifest, arrays, len(windows), where)
    for head in manifest.heads:
        width = math.prod(arrays[manifest.golden.outputs[head.output]].shape[1:])
        if isinstance(head, RetrieveHead):
            check_gallery(head, arrays[head.embeddings], items[head.items], width, where)
        elif isinstance(head, ClassifyHead):
            check_labels(head, width, where)


def _window_length(manifest: Manifest, conditioner: Conditioner, where: str) -> int:
    lengths = {window.name: window.n_samples(conditioner.sfreq) for window in manifest.windows}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise BundleError(
            f"{where}: windows differ in length at {conditioner.sfreq:g} Hz: {listed} samples; expected one"
        )
    time = next(iter(lengths.values()))
    if time < 1:
        raise BundleError(f"{where}: a window has {time} samples at {conditioner.sfreq:g} Hz; expected 1 or more")
    for window in manifest.windows:
        if (fault := window.fault(conditioner.sfreq)) is not None:
            raise BundleError(f"{where}: {fault}")
    return time


def _golden_windows(
    manifest: Manifest, arrays: Mapping[str, NDArray[Any]], time: int, channels: int, where: str
) -> NDArray[Any]:
    name = manifest.golden.windows
    windows = _float32(arrays[name], f"{where}: {name}")
    if windows.ndim != 3 or windows.shape[1:] != (time, channels) or not len(windows):
        raise BundleError(
            f"{where}: {name} has shape {windows.shape}; expected (windows, {time}, {channels}): "
            f"{time} samples of {channels} channels, which is what conditioning and windows give"
        )
    return windows


def _check_raw(manifest: Manifest, arrays: Mapping[str, NDArray[Any]], n_windows: int, where: str) -> None:
    golden = manifest.golden
    if golden.raw is None:
        return
    raw = _float32(arrays[golden.raw], f"{where}: {golden.raw}")
    channels = len(manifest.contract.channels)
    if raw.ndim != 2 or raw.shape[1] != channels or not len(raw):
        raise BundleError(
            f"{where}: {golden.raw} has shape {raw.shape}; expected (samples, {channels}), the contract's channels"
        )
    if len(golden.raw_starts) > n_windows:
        raise BundleError(
            f"{where}: $.golden.raw_starts has {len(golden.raw_starts)} entries; there are {n_windows} golden windows"
        )


def check_gallery(
    head: RetrieveHead, embeddings: NDArray[Any], items: Sequence[GalleryItem], width: int, where: str
) -> None:
    """Raise `BundleError` unless a gallery has one row an item, as wide as the encoder's embedding."""
    _float32(embeddings, f"{where}: {head.embeddings}")
    if embeddings.ndim != 2 or embeddings.shape[1] != width:
        raise BundleError(
            f"{where}: the gallery {head.embeddings} has shape {embeddings.shape}, so width {embeddings.shape[-1]}; "
            f"the encoder's output {head.output!r} has width {width}: "
            "make the gallery with the encoder's own target space"
        )
    if len(embeddings) != len(items):
        raise BundleError(
            f"{where}: the gallery {head.embeddings} has {len(embeddings)} rows and {head.items} {len(items)} items"
        )
    if not len(items):
        raise BundleError(f"{where}: the gallery {head.embeddings} is empty")


def check_labels(head: ClassifyHead, width: int, where: str) -> None:
    """Raise `BundleError` unless there is one label a logit."""
    if len(head.labels) != width:
        raise BundleError(
            f"{where}: {len(head.labels)} labels ({', '.join(head.labels)}); the encoder's output {head.output!r} "
            f"gives {width} logits"
        )


def _float32(array: NDArray[Any], where: str) -> NDArray[Any]:
    if array.dtype != np.float32:
        raise BundleError(f"{where} holds {array.dtype}; expected float32")
    return array
