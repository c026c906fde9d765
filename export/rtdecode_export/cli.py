"""The verb ``rtdecode export``."""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from rtdecode.errors import ConfigError

if TYPE_CHECKING:
    from rtdecode_export.bundle import ExportReport

_NEEDED = ("torch", "onnx", "onnxscript", "onnxruntime", "safetensors")


def export(
    source: Annotated[
        str, typer.Argument(help="A checkpoint's folder, or package.module:function for a model of your own.")
    ],
    out: Annotated[Path, typer.Option(help="The bundle: a folder, or one file ending in .zip.")],
    tolerance: Annotated[
        float, typer.Option(help="Largest absolute error between PyTorch and onnxruntime that is accepted.")
    ] = 1e-4,
    hop: Annotated[
        float | None, typer.Option(help="Also cut a window every so many seconds, whatever the markers.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that lies there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one line of JSON.")] = False,
) -> None:
    """Turn a trained network into a bundle: ONNX, parity on real windows, golden windows, hashes.

    Example: rtdecode export checkpoints/fists-feet --out fists-feet.zip

    A function named as package.module:function takes no arguments and returns the keyword arguments of
    rtdecode_export.bundle.export_bundle, except out, tolerance and overwrite.
    """
    require_export_packages()
    if hop is not None and not hop > 0:
        raise ConfigError(f"--hop is {hop}; expected seconds above 0")
    from rtdecode_export.bundle import export_bundle

    arguments = arguments_of(source, hop)
    report = export_bundle(**arguments, out=out, tolerance=tolerance, overwrite=overwrite)
    if as_json:
        typer.echo(msgspec.json.encode(report).decode())
    else:
        Console(highlight=False).print(_table(report))


def require_export_packages() -> None:
    """Raise `ConfigError` naming the extra to install where something that exporting needs is missing."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f'{", ".join(missing)} not installed; run: pip install "rtdecode[train,cpu,files]"')


def arguments_of(source: str, hop: float | None) -> dict[str, Any]:
    """The arguments of `export_bundle` for a checkpoint's folder or for ``package.module:function``.

    Raises
    ------
    ConfigError
        It is neither, or the function does not give what is needed.
    """
    if Path(source).is_dir():
        from rtdecode_export.checkpoint import checkpoint_arguments
        from rtdecode_models.training.checkpoint import Trained

        return checkpoint_arguments(Trained.load(Path(source)), hop=hop)
    place, colon, name = source.partition(":")
    if not colon or not all(part.isidentifier() for part in [*place.split("."), name]):
        raise ConfigError(
            f"{source!r} is neither a folder nor package.module:function; expected what `rtdecode train` wrote, or a "
            "function that returns the arguments of export_bundle"
        )
    if hop is not None:
        raise ConfigError(f"--hop is for checkpoints; {source} names its windows itself")
    return _call(source, place, name)


def _call(source: str, place: str, name: str) -> dict[str, Any]:
    here = str(Path.cwd())
    if here not in sys.path:  # as `python -m` does, so that a file beside the user is found
        sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(place), name)
    except ImportError as error:
        raise ConfigError(f"{source}: {place} cannot be imported: {error}") from error
    except AttributeError as error:
        raise ConfigError(f"{source}: {place} has no {name}") from error
    if not callable(function):
        raise ConfigError(f"{source} is no function but a {type(function).__name__}")
    given = function()
    if not isinstance(given, Mapping):
        raise ConfigError(f"{source} returned a {type(given).__name__}; expected a mapping, export_bundle's arguments")
    from rtdecode_export.bundle import check_arguments

    check_arguments(given, source)
    return dict(given)


def _table(report: "ExportReport") -> Table:
    table = Table(title=report.bundle, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("bundle id", report.bundle_id)
    table.add_row("parameters", f"{report.parameters:,}")
    table.add_row("ONNX", f"{report.onnx_bytes:,} bytes, opset {report.opset}, {sum(report.operators.values())} nodes")
    for name, error in report.errors.items():
        table.add_row(
            f"largest error of {name!r}",
            f"{error:.3g} on {report.windows} real windows (at most {report.tolerance:.3g} is accepted)",
        )
    return table
