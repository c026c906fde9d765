"""A bundle is written where nobody looks, opened again and run as the daemon runs it, before it goes to its place."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.arrays import read_array
from rtdecode.encode.bundle import Bundle, write_bundle
from rtdecode.encode.engines import make_engine
from rtdecode.encode.golden import check_conditioning, check_golden
from rtdecode.encode.manifest import HeadSpec, Manifest, RetrieveHead
from rtdecode.errors import BundleError, GoldenError, RtdecodeError
from rtdecode_export.drift import Drift, measure
from rtdecode_export.report import Variant


def galleries(heads: Sequence[HeadSpec], files: Mapping[str, bytes | NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The galleries that heads name, by file name; raise `BundleError` where one is not among the files."""
    found: dict[str, NDArray[Any]] = {}
    for head in heads:
        if isinstance(head, RetrieveHead):
            if head.embeddings not in files:
                raise BundleError(
                    f"the head of {head.output!r} names {head.embeddings!r}, which is not among the files"
                )
            value = files[head.embeddings]
            found[head.embeddings] = read_array(value, head.embeddings) if isinstance(value, bytes) else value
    return found


def refuse_above(tolerance: float, drifts: Sequence[Drift], where: str) -> None:
    """Raise `GoldenError` where an output is further from PyTorch's than `tolerance`."""
    for drift in drifts:
        if not drift.max_abs <= tolerance:
            raise GoldenError(
                f"output {drift.output!r} differs by {drift.max_abs:.3g} on window {drift.worst_window} between "
                f"PyTorch and {where}; at most {tolerance:.3g} is accepted. Nothing that large is rounding: look for "
                "layers that behave differently in evaluation mode, or for an operator that the exporter replaced"
            )


@contextmanager
def named(place: Path) -> Iterator[Path]:
    """A folder that is gone afterwards, to try a bundle in; an error names the place that the bundle was meant for."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / "bundle"
        try:
            yield scratch
        except RtdecodeError as error:
            if str(scratch) not in str(error):
                raise
            raise type(error)(str(error).replace(str(scratch), str(place))) from error


def run_bundle(
    scratch: Path,
    manifest: Manifest,
    contents: Mapping[str, bytes | NDArray[Any]],
    golden: Mapping[str, NDArray[np.float32]],
    variant: Variant,
    tolerance: float,
) -> dict[str, float]:
    """Write a bundle, open it and run it as the daemon does: output -> largest absolute error on the golden windows.

    One that this machine has no kernels for is written, opened and its conditioning checked; its report says so.
    """
    bundle = write_bundle(scratch, manifest, contents)
    if not variant.runs_here:
        check_conditioning(bundle)
        return {}
    found = _as_the_daemon_does(bundle, golden)
    rows = np.arange(len(next(iter(golden.values()))))
    drifts = measure(
        golden, found, rows, "the daemon's engine", manifest.heads, galleries(manifest.heads, contents), {}
    )
    if variant.precision == "fp32":
        refuse_above(tolerance, drifts, "the daemon's engine, on the golden windows")
    return {drift.output: drift.max_abs for drift in drifts}


def _as_the_daemon_does(bundle: Bundle, golden: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Run the golden windows through the daemon's own engine, and its own check of them."""
    engine = make_engine(bundle)
    try:
        check_golden(bundle, engine)
        rows = [engine.finish(window, 0) for window in bundle.array(bundle.manifest.golden.windows)]
    finally:
        engine.close()
    return {name: np.stack([row[name] for row in rows]) for name in golden}
