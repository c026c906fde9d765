"""A PyTorch module becomes a bundle: exported, checked on real windows, written, opened again and run."""

import inspect
import platform
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from rtdecode.encode.bundle import Bundle, write_bundle
from rtdecode.encode.engines import make_engine
from rtdecode.encode.golden import check_golden
from rtdecode.encode.manifest import VERSION, Contract, Encoder, Golden, HeadSpec, Manifest
from rtdecode.errors import BundleError, ConfigError, GoldenError
from rtdecode.stream.steps import Conditioning
from rtdecode.stream.window import WindowSpec
from rtdecode_export.onnx import INPUT, Graph, largest_errors, run_onnx, run_torch, to_onnx

#: How many of the real windows travel in the bundle.
GOLDEN_WINDOWS = 8


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an export did and measured; ``export.json`` of the bundle.

    Parameters
    ----------
    bundle : str
        The folder or zip file; empty in ``export.json``, which may be moved.
    bundle_id : str
        SHA-256 of its list of hashes; empty in ``export.json``, which is one of the hashed files.
    parameters : int
        Trained numbers of the module.
    onnx_bytes : int
        Size of the ONNX file.
    opset : int
        ONNX operator set.
    operators : dict
        Operator -> count.
    windows : int
        Real windows that PyTorch and onnxruntime were compared on.
    errors : dict
        Output -> largest absolute difference between the two.
    tolerance : float
        The largest that was allowed.
    engine_errors : dict
        Output -> largest absolute difference between PyTorch and the daemon's own engine, on the golden windows, after
        the bundle was written and opened again. Empty in ``export.json``.
    """

    bundle: str = ""
    bundle_id: str = ""
    parameters: int
    onnx_bytes: int
    opset: int
    operators: dict[str, int]
    windows: int
    errors: dict[str, float]
    tolerance: float
    engine_errors: dict[str, float] = {}


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
    tolerance: float = 1e-4,
    overwrite: bool = False,
) -> ExportReport:
    """Export a module to ONNX, prove parity on real windows, and write the bundle.

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
    tolerance : float
        Largest absolute error between PyTorch and onnxruntime that is accepted.
    overwrite : bool
        Whether a bundle that lies at `out` may be replaced.

    Returns
    -------
    ExportReport
        What was measured.

    Raises
    ------
    EngineError
        The module cannot be exported.
    GoldenError
        onnxruntime's numbers are further from PyTorch's than `tolerance`, or the bundle does not pass its own check.
    BundleError
        `real_windows` or `raw` do not fit, or `out` exists.
    """
    _check_windows(real_windows, raw, raw_starts)
    graph = to_onnx(module, (real_windows.shape[1], real_windows.shape[2]), outputs)
    expected = run_torch(module, real_windows, outputs)
    errors = largest_errors(expected, run_onnx(graph, real_windows, outputs))
    _refuse_above(tolerance, errors, f"onnxruntime, on {len(real_windows)} real windows")

    report = ExportReport(
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        onnx_bytes=len(graph.data),
        opset=graph.opset,
        operators=dict(graph.operators),
        windows=len(real_windows),
        errors=errors,
        tolerance=tolerance,
    )
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
    contents = _contents(graph, report, arrays, real_windows[:n_golden], golden, raw, files or {})
    with tempfile.TemporaryDirectory() as scratch:
        trial = write_bundle(Path(scratch) / "bundle", manifest, contents)
        engine_errors = _run_as_the_daemon_does(trial, golden, tolerance)
    bundle = write_bundle(out, manifest, contents, overwrite=overwrite)
    return msgspec.structs.replace(report, bundle=str(out), bundle_id=bundle.id, engine_errors=engine_errors)


def check_arguments(given: Mapping[str, Any], where: str) -> None:
    """Raise `ConfigError` unless these can be the arguments of `export_bundle` that a model's own function returns."""
    parameters = inspect.signature(export_bundle).parameters
    allowed = parameters.keys() - {"out", "tolerance", "overwrite"}
    required = {name for name in allowed if parameters[name].default is inspect.Parameter.empty}
    if unknown := sorted(given.keys() - allowed):
        raise ConfigError(f"{where} returned {unknown[0]!r}, which export_bundle does not take")
    if missing := sorted(required - given.keys()):
        raise ConfigError(f"{where} did not return {', '.join(missing)}, which export_bundle needs")


def versions() -> dict[str, str]:
    """What the bundle was made with, for its provenance."""
    packages = ("rtdecode", "torch", "onnx", "onnxscript", "onnxruntime", "numpy", "scipy")
    return {"python": platform.python_version()} | {package: version(package) for package in packages}


def _check_windows(windows: NDArray[np.float32], raw: NDArray[np.float32] | None, raw_starts: Sequence[int]) -> None:
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


def _refuse_above(tolerance: float, errors: Mapping[str, float], where: str) -> None:
    for name, error in errors.items():
        if not error <= tolerance:
            raise GoldenError(
                f"output {name!r} differs by {error:.3g} between PyTorch and {where}; at most {tolerance:.3g} is "
                "accepted. Nothing that large is rounding: look for layers that behave differently in evaluation mode, "
                "or for an operator that the exporter replaced"
            )


def _contents(
    graph: Graph,
    report: ExportReport,
    arrays: Mapping[str, NDArray[Any]],
    windows: NDArray[np.float32],
    golden: Mapping[str, NDArray[np.float32]],
    raw: NDArray[np.float32] | None,
    files: Mapping[str, bytes | NDArray[Any]],
) -> dict[str, bytes | NDArray[Any]]:
    """Every file of the bundle except the manifest and the hashes."""
    contents: dict[str, bytes | NDArray[Any]] = {
        "encoder.onnx": graph.data,
        "export.json": msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n",
        "golden_windows.npy": windows,
    }
    contents |= {f"golden_{name}.npy": value for name, value in golden.items()}
    if raw is not None:
        contents["golden_raw.npy"] = np.asarray(raw, dtype=np.float32)
    for extra in (arrays, files):
        clash = sorted(contents.keys() & extra.keys())
        if clash:
            raise BundleError(f"the file name {clash[0]!r} is taken by the export itself; choose another")
        contents |= extra
    return contents


def _run_as_the_daemon_does(
    bundle: Bundle, golden: Mapping[str, NDArray[np.float32]], tolerance: float
) -> dict[str, float]:
    """Run the golden windows through the daemon's own engine, and its own check of them."""
    engine = make_engine(bundle)
    try:
        check_golden(bundle, engine)
        rows = [engine.finish(window, 0) for window in bundle.array(bundle.manifest.golden.windows)]
    finally:
        engine.close()
    errors = largest_errors(golden, {name: np.stack([row[name] for row in rows]) for name in golden})
    _refuse_above(tolerance, errors, "the daemon's engine, on the golden windows")
    return errors
