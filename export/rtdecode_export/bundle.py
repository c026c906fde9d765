"""A PyTorch module becomes a bundle: exported, checked on real windows, written, opened again and run."""

import inspect
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from rtdecode.encode.bundle import write_bundle
from rtdecode.encode.manifest import (
    VERSION,
    Contract,
    Encoder,
    Golden,
    HeadSpec,
    Manifest,
    Split,
    Unsplit,
)
from rtdecode.errors import BundleError, ConfigError
from rtdecode.signal import Channel
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.steps import Conditioning
from rtdecode.stream.window import WindowSpec
from rtdecode_export.incremental.compile import Compiled, compile_encoder
from rtdecode_export.onnx import INPUT, Graph, run_torch, to_onnx
from rtdecode_export.report import ExportReport as ExportReport
from rtdecode_export.report import Variant, markdown
from rtdecode_export.trial import galleries, named, refuse_above, run_bundle
from rtdecode_export.variants import PRECISIONS, Measurement, Precision, make_variant

#: How many of the real windows travel in the bundle.
GOLDEN_WINDOWS = 8


def export_bundle(
    module: torch.nn.Module,
    *,
    out: Path,
    name: str,
    contract: Contract,
    conditioning: Conditioning,
    arrays: Mapping[str, NDArray[Any]],
    windows: Sequence[WindowSpec],
    heads: Sequence[HeadSpec],
    outputs: Sequence[str],
    real_windows: NDArray[np.float32],
    raw: NDArray[np.float32] | None = None,
    raw_starts: Sequence[int] = (),
    files: Mapping[str, bytes | NDArray[Any]] | None = None,
    metrics: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    labels: Mapping[str, NDArray[np.int64]] | None = None,
    real: bool = True,
    tolerance: float = 1e-4,
    overwrite: bool = False,
    precisions: Sequence[Precision] = ("fp32",),
    accept_drift: bool = False,
    latency_runs: int = 0,
    incremental: bool = True,
) -> ExportReport:
    """Export a module to ONNX, prove parity on real windows, and write a bundle for each precision.

    Parameters
    ----------
    module : Module
        Maps (1, time, channels) to the outputs. Exported in evaluation mode for that one shape.
    out : Path
        A folder, or a file ending in ``.zip``.
    name : str
        The bundle's name.
    contract : Contract
        The stream it decodes.
    conditioning : Conditioning
        The chain that training used.
    arrays : mapping of str to ndarray
        The arrays that the chain names, by those names (``alignment.npy``).
    windows : sequence of WindowSpec
        The windows that a decoder cuts.
    heads : sequence of HeadSpec
        What becomes of the outputs; the first gives the kind of the published message.
    outputs : sequence of str
        Names of the module's outputs, in its order.
    real_windows : ndarray of float32, shape (n, time, channels)
        Conditioned windows of real data. All are compared; the first `GOLDEN_WINDOWS` (or as many as `raw_starts` has)
        become golden windows.
    raw : ndarray of float32, shape (samples, contract channels), optional
        A piece of recording from the start of a segment, in SI units, from which the daemon must cut the first golden
        windows itself.
    raw_starts : sequence of int
        Where they start, in conditioned samples.
    files : mapping of str to bytes or ndarray
        Further files: galleries, pictures, the recipe. By file name.
    metrics, provenance : mapping
        For the manifest. Versions and the date are added to the provenance.
    labels : mapping of str to ndarray of int64, shape (n,), optional
        Output name -> the right choice of each real window: a place among a classifier's labels or a row of the
        gallery; -1 where it is unknown.
    real : bool
        Whether `real_windows` are what they are called. The report says so where they are not.
    tolerance : float
        Largest absolute error between PyTorch and onnxruntime that is accepted in fp32.
    overwrite : bool
        Whether a bundle that lies at `out` may be replaced.
    precisions : sequence of {"fp32", "fp16", "bf16", "int8"}
        The first goes to `out`; each of the others beside it, as ``NAME.fp16.zip``, for the same windows and heads.
    accept_drift : bool
        Whether a precision that drifts beyond `rtdecode_export.drift.LIMITS` is written all the same.
    latency_runs : int
        Windows to time on this machine's CPU, 20 ms apart; 0 for none.
    incremental : bool
        Whether the encoder is split, where it can be, so that the daemon runs it on samples as they come.

    Returns
    -------
    ExportReport
        What was measured; of the first precision, with all in its table.

    Raises
    ------
    EngineError
        The module cannot be exported.
    GoldenError
        onnxruntime's numbers are further from PyTorch's than `tolerance`, a precision drifts beyond its limits, or a
        bundle does not pass its own check. Nothing is written then.
    BundleError
        `real_windows` or `raw` do not fit, or `out` exists.
    """
    labels = labels or {}
    _check_windows(real_windows, raw, raw_starts, labels)
    places = _places(out, precisions, overwrite, real=real)
    graph = to_onnx(module, (real_windows.shape[1], real_windows.shape[2]), outputs)
    expected = run_torch(module, real_windows, outputs)
    ground = Measurement(real_windows, expected, heads, galleries(heads, files or {}), labels)
    parity = ground.exact(graph)
    refuse_above(tolerance, parity, f"onnxruntime, on {len(real_windows)} {'real' if real else 'noise'} windows")
    made = {
        precision: make_variant(
            precision, graph, ground, parity, tolerance=tolerance, accept_drift=accept_drift, latency_runs=latency_runs
        )
        for precision in places
    }

    n_golden = min(len(real_windows), max(GOLDEN_WINDOWS, len(raw_starts)))
    golden = {name: value[:n_golden] for name, value in expected.items()}
    manifest = Manifest(
        format="rtdecode-bundle",
        version=VERSION,
        name=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        contract=contract,
        conditioning=conditioning,
        windows=tuple(windows),
        encoder=Encoder(file="encoder.onnx", input=INPUT, outputs=tuple(outputs)),
        heads=tuple(heads),
        golden=Golden(
            windows="golden_windows.npy",
            outputs={name: f"golden_{name}.npy" for name in outputs},
            tolerance=tolerance,
            raw=None if raw is None else "golden_raw.npy",
            raw_starts=tuple(int(start) for start in raw_starts),
        ),
        metrics=dict(metrics or {}),
        provenance=versions() | dict(provenance or {}),
    )
    variants = tuple(variant for _, variant in made.values())
    ready: list[_Ready] = []
    sfreq = _conditioned_sfreq(contract, conditioning, arrays)
    for precision, (encoder, variant) in made.items():
        compiled = (
            compile_encoder(encoder.data, windows, conditioning.window, sfreq, precision)
            if incremental
            else Compiled(Unsplit(reason="the export was told so"), {})
        )
        report = ExportReport(
            name=name,
            precision=precision,
            parameters=sum(parameter.numel() for parameter in module.parameters()),
            onnx_bytes=variant.onnx_bytes,
            opset=variant.opset,
            operators=variant.operators,
            windows=len(real_windows),
            real_windows=real,
            errors={drift.output: drift.max_abs for drift in parity},
            worst_windows={drift.output: drift.worst_window for drift in parity},
            tolerance=tolerance,
            nodes_before=graph.folded.before,
            nodes_after=graph.folded.after,
            folded=dict(graph.folded.operators),
            variants=variants,
            versions=versions(),
            not_run=(*_NEVER_RUN, *(() if real else ("real windows: none were given",))),
            incremental=compiled.split,
        )
        contents = _contents(encoder, report, arrays, real_windows[:n_golden], golden, raw, files or {}, compiled.files)
        own = _of_precision(manifest, variant, compiled.split)
        with named(places[precision]) as scratch:
            tried = run_bundle(scratch, own, contents, golden, variant, tolerance)
        ready.append(_Ready(places[precision], own, contents, msgspec.structs.replace(report, engine_errors=tried)))
    written = [write_bundle(one.place, one.manifest, one.contents, overwrite=overwrite) for one in ready]
    return msgspec.structs.replace(
        ready[0].report,
        bundle=str(out),
        bundle_id=written[0].id,
        bundles={precision: str(place) for precision, place in places.items()},
    )


#: What an export never runs, wherever it is done.
_NEVER_RUN = ("TensorRT engines and CUDA: exporting runs on the CPU",)


@dataclass(frozen=True, slots=True, eq=False)
class _Ready:
    """A bundle that passed, not yet in its place."""

    place: Path
    manifest: Manifest
    contents: Mapping[str, bytes | NDArray[Any]]
    report: ExportReport


def beside(out: Path, precision: str) -> Path:
    """Where the bundle of a further precision goes: ``mine.zip`` -> ``mine.fp16.zip``, ``mine`` -> ``mine.fp16``."""
    if out.suffix == ".zip":
        return out.with_suffix(f".{precision}.zip")
    return out.with_name(f"{out.name}.{precision}")


#: Arguments of `export_bundle` that the command line gives, not a model's own function.
_OF_THE_COMMAND = frozenset(
    {"out", "tolerance", "overwrite", "precisions", "accept_drift", "latency_runs", "incremental"}
)


def check_arguments(given: Mapping[str, Any], where: str) -> None:
    """Raise `ConfigError` unless these can be the arguments of `export_bundle` that a model's own function returns."""
    parameters = inspect.signature(export_bundle).parameters
    allowed = parameters.keys() - _OF_THE_COMMAND
    required = {name for name in allowed if parameters[name].default is inspect.Parameter.empty}
    if unknown := sorted(given.keys() - allowed):
        raise ConfigError(f"{where} returned {unknown[0]!r}, which export_bundle does not take")
    if missing := sorted(required - given.keys()):
        raise ConfigError(f"{where} did not return {', '.join(missing)}, which export_bundle needs")


def versions() -> dict[str, str]:
    """What the bundle was made with, for its provenance."""
    packages = ("rtdecode", "torch", "onnx", "onnxscript", "onnxruntime", "numpy", "scipy")
    return {"python": platform.python_version()} | {package: version(package) for package in packages}


def _check_windows(
    windows: NDArray[np.float32],
    raw: NDArray[np.float32] | None,
    raw_starts: Sequence[int],
    labels: Mapping[str, NDArray[np.int64]],
) -> None:
    if windows.ndim != 3 or windows.dtype != np.float32 or len(windows) == 0:
        raise BundleError(
            f"the real windows are {windows.dtype} of shape {windows.shape}; expected float32 (n, time, channels) "
            "with at least one window"
        )
    if not np.isfinite(windows).all():
        bad = int(np.flatnonzero(~np.isfinite(windows).all(axis=(1, 2)))[0])
        raise BundleError(f"real window {bad} holds NaN or Inf; expected conditioned data without artifacts")
    if (raw is None) != (len(raw_starts) == 0):
        raise BundleError("a raw golden recording and the starts of its windows go together; one of them is missing")
    if len(raw_starts) > len(windows):
        raise BundleError(f"{len(raw_starts)} raw starts are given for {len(windows)} real windows")
    for name, values in labels.items():
        if values.shape != (len(windows),) or not np.issubdtype(values.dtype, np.integer):
            raise BundleError(
                f"the labels of {name!r} are {values.dtype} of shape {values.shape}; expected whole numbers of shape "
                f"({len(windows)},), -1 where a label is unknown"
            )


def _places(out: Path, precisions: Sequence[Precision], overwrite: bool, *, real: bool) -> dict[Precision, Path]:
    """Where each precision's bundle goes; what cannot be made, or lies there already, is found before the work."""
    if not precisions or len(set(precisions)) != len(precisions) or not set(precisions) <= set(PRECISIONS):
        raise ConfigError(
            f"the precisions are {', '.join(precisions) or 'none'}; expected some of {', '.join(PRECISIONS)}, each once"
        )
    if "int8" in precisions and not real:
        raise ConfigError("int8 takes its scales from real windows, and none were given; give some (--windows)")
    places = {precision: beside(out, precision) if at else out for at, precision in enumerate(precisions)}
    for place in places.values():
        if os.path.lexists(place) and not overwrite:
            raise BundleError(f"{place} is there already; say so where it may be replaced (--overwrite)")
    there = next(parent for parent in out.absolute().parents if os.path.lexists(parent))
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigError(f"{out} cannot be written: {there} is no folder that can be written to; choose another")
    return places


def _conditioned_sfreq(contract: Contract, conditioning: Conditioning, arrays: Mapping[str, NDArray[Any]]) -> float:
    channels = tuple(Channel(channel.name, channel.type, channel.unit) for channel in contract.channels)
    return Conditioner(conditioning.stream, channels, contract.sfreq, arrays).sfreq


def _of_precision(manifest: Manifest, variant: Variant, split: Split | Unsplit) -> Manifest:
    """The manifest of one precision: all else is the same, so that one bundle can stand in for another."""
    return msgspec.structs.replace(
        manifest,
        encoder=msgspec.structs.replace(manifest.encoder, precision=variant.precision, incremental=split),
        golden=msgspec.structs.replace(manifest.golden, tolerance=variant.golden_tolerance),
    )


def _contents(
    graph: Graph,
    report: ExportReport,
    arrays: Mapping[str, NDArray[Any]],
    windows: NDArray[np.float32],
    golden: Mapping[str, NDArray[np.float32]],
    raw: NDArray[np.float32] | None,
    files: Mapping[str, bytes | NDArray[Any]],
    split: Mapping[str, bytes],
) -> dict[str, bytes | NDArray[Any]]:
    """Every file of the bundle except the manifest and the hashes."""
    contents: dict[str, bytes | NDArray[Any]] = {
        "encoder.onnx": graph.data,
        "export.json": msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n",
        "export.md": markdown(report).encode(),
        "golden_windows.npy": windows,
    }
    contents |= {f"golden_{name}.npy": value for name, value in golden.items()}
    if raw is not None:
        contents["golden_raw.npy"] = np.asarray(raw, dtype=np.float32)
    for extra in (split, arrays, files):
        clash = sorted(contents.keys() & extra.keys())
        if clash:
            raise BundleError(f"the file name {clash[0]!r} is taken by the export itself; choose another")
        contents |= extra
    return contents
