"""The verb ``rtdecode export``."""

import contextlib
import importlib.util
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from rtdecode.errors import ConfigError

if TYPE_CHECKING:
    from rtdecode_export.report import ExportReport
    from rtdecode_export.variants import Precision

_NEEDED = ("torch", "onnx", "onnxscript", "onnxruntime", "safetensors")


def export(
    source: Annotated[
        str, typer.Argument(help="A checkpoint's folder, or package.module:name for a model of your own.")
    ],
    out: Annotated[Path, typer.Option(help="The bundle: a folder, or one file ending in .zip.")],
    tolerance: Annotated[
        float, typer.Option(help="Largest absolute error between PyTorch and onnxruntime that is accepted in fp32.")
    ] = 1e-4,
    precision: Annotated[
        str, typer.Option(help="fp32, fp16, bf16, int8, or several with commas; the first goes to --out.")
    ] = "fp32",
    accept_drift: Annotated[
        bool, typer.Option("--accept-drift", help="Write a precision that drifts from fp32 beyond its limits, too.")
    ] = False,
    latency: Annotated[int, typer.Option(help="Windows to time on this CPU, 20 ms apart; 0 for none.")] = 200,
    hop: Annotated[float | None, typer.Option(help="Of a checkpoint: also cut a window every so many seconds.")] = None,
    like: Annotated[
        Path | None, typer.Option(help="Of a module: a bundle whose stream, windows and heads it has.")
    ] = None,
    contract: Annotated[
        Path | None, typer.Option(help="Of a module: a TOML file that declares its stream, windows and heads.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The bundle's name.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Of a module: its weights, a safetensors file.")] = None,
    windows: Annotated[
        Path | None, typer.Option(help="Of a module: real conditioned windows, .npy of (n, time, channels).")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="With --windows: the right choice of each, .npy of whole numbers.")
    ] = None,
    layout: Annotated[
        str, typer.Option(help="Of a module: btc (batch, time, channels), bct, or b1ct with an axis of length 1.")
    ] = "btc",
    subject: Annotated[
        str | None, typer.Option(help="Of an encoder that knows several subjects: whose, by name or place.")
    ] = None,
    incremental: Annotated[
        bool, typer.Option(help="Split the encoder, where it can be, so that it runs on samples as they come.")
    ] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that lies there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one line of JSON.")] = False,
) -> None:
    """Turn a trained network into a bundle: ONNX, parity on real windows, golden windows, hashes, a report.

    Example: rtdecode export checkpoints/fists-feet --out fists-feet.zip

    package.module:name is a torch.nn.Module, a class or function that gives one without arguments (with --like or
    --contract), or a function that returns the keyword arguments of rtdecode_export.bundle.export_bundle, except out,
    tolerance, overwrite, precisions, accept_drift, latency_runs and incremental.

    With --precision fp32,fp16,int8 there are several bundles, NAME.zip, NAME.fp16.zip and NAME.int8.zip, each of which
    can be the variant of another.
    """
    require_export_packages()
    if hop is not None and not 0 < hop < math.inf:
        raise ConfigError(f"--hop is {hop}; expected seconds above 0")
    if not 0 <= tolerance < math.inf:
        raise ConfigError(f"--tolerance is {tolerance}; expected a largest error, 0 or more")
    if latency < 0:
        raise ConfigError(f"--latency is {latency}; expected a number of windows, or 0 for none")
    from rtdecode_export.bundle import export_bundle
    from rtdecode_export.sources import Given, arguments_of

    given = Given(
        hop=hop,
        like=like,
        contract=contract,
        name=name,
        weights=weights,
        windows=windows,
        labels=labels,
        layout=layout,
        subject=subject,
    )
    precisions = [cast("Precision", word.strip()) for word in precision.split(",")]  # export_bundle checks the words
    with contextlib.redirect_stdout(sys.stderr):  # what a module of one's own prints is no part of the report
        report = export_bundle(
            **arguments_of(source, given),
            out=out,
            tolerance=tolerance,
            overwrite=overwrite,
            precisions=precisions,
            accept_drift=accept_drift,
            latency_runs=latency,
            incremental=incremental,
        )
    if as_json:
        typer.echo(msgspec.json.encode(report).decode())
    else:
        _print(report)


def require_export_packages() -> None:
    """Raise `ConfigError` naming the extra to install where something that exporting needs is missing."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f'{", ".join(missing)} not installed; run: pip install "rtdecode[train,cpu,files]"')


def _print(report: "ExportReport") -> None:
    from rtdecode_export.incremental.words import in_words
    from rtdecode_export.report import not_run, tensorrt_words

    console = Console(highlight=False)
    table = Table(title=report.bundle, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("bundle id", report.bundle_id)
    table.add_row("parameters", f"{report.parameters:,}")
    table.add_row("ONNX", f"{report.onnx_bytes:,} bytes, opset {report.opset}, {sum(report.operators.values())} nodes")
    kind = "real windows" if report.real_windows else "windows of noise; no real windows were given"
    for name, error in report.errors.items():
        table.add_row(
            f"largest error of {name!r}",
            f"{error:.3g}, on window {report.worst_windows[name]} of {report.windows} {kind} "
            f"(at most {report.tolerance:.3g} is accepted)",
        )
    for variant in report.variants:
        latency = (
            "" if variant.latency is None else f", {variant.latency.p50_ms:.2f} ms (99 %: {variant.latency.p99_ms:.2f})"
        )
        table.add_row(variant.precision, f"{report.bundles[variant.precision]}: {variant.onnx_bytes:,} bytes{latency}")
        for drift in variant.drift:
            same = "" if drift.top1 is None else f", same first choice {drift.top1:.3f}"
            right = (
                "" if drift.accuracy is None else f", accuracy {drift.accuracy:.3f} (fp32 {drift.accuracy_fp32:.3f})"
            )
            figures = f"share {drift.share:.3g}, cosine at least {drift.cosine_min:.5f}{same}{right}"
            table.add_row("", f"{drift.output}: {figures}; {drift.how}")
        table.add_row("", f"TensorRT: {tensorrt_words(variant.tensorrt)}")
    for line in in_words(report.incremental):
        table.add_row("while samples come", line)
    for line in not_run(report):
        table.add_row("not run", line)
    console.print(table)
