"""The verb ``rtdecode bundle compile``."""

import math
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from rtdecode.errors import ConfigError


def compile_verb(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle: a folder or a .zip file.")],
    out: Annotated[Path | None, typer.Option(help="Where the new bundle goes; in its own place if not given.")] = None,
    hop: Annotated[
        float | None, typer.Option(help="Split it for a window every so many seconds, instead of its own windows.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Split a bundle's encoder into what can run while samples come and what needs the whole window.

    The result is checked against whole windows on this machine before it is written. Where nothing can be split, the
    bundle says why, and is run on whole windows.

    Example: rtdecode bundle compile fists-feet.zip --hop 0.05
    """
    from rtdecode_export.cli import require_export_packages

    require_export_packages()
    if hop is not None and not 0 < hop < math.inf:
        raise ConfigError(f"--hop is {hop}; expected seconds above 0")
    from rtdecode_export.incremental.recompile import compile_bundle
    from rtdecode_export.incremental.words import in_words

    made = compile_bundle(bundle, out, hop)
    split = made.manifest.encoder.incremental
    if json:
        told = {"bundle": made.source, "id": made.id, "incremental": split}
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        return
    typer.echo(f"{made.source}  {made.id[:12]}")
    for line in in_words(split):
        typer.echo(line)
