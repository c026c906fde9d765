"""The verb ``rtdecode probe-sites``."""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from rtdecode.errors import ConfigError

if TYPE_CHECKING:
    from rtdecode_models.sites.selection import Selection

#: Rows of the table that is printed; the file has them all.
_SHOWN = 20


def probe_sites(
    recordings: Annotated[list[Path], typer.Argument(help="Recordings of one person, with the same contacts.")],
    features: Annotated[
        Path,
        typer.Option(
            help="Features: a .tsv or .csv whose first column is the marker; or .npz with features and names, or with "
            "features and sfreq for a row every 1/sfreq seconds."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The selection, as JSON.")],
    contacts: Annotated[
        list[str] | None, typer.Option(help='Patterns of the contacts to look at, such as "L\'*"; all by default.')
    ] = None,
    reference: Annotated[
        Literal["bipolar", "laplacian", "none"],
        typer.Option(help="Each contact against the next on its shaft, against both neighbours, or as recorded."),
    ] = "bipolar",
    notch: Annotated[float | None, typer.Option(help="Mains frequency in Hz, taken out with its harmonics.")] = None,
    band: Annotated[str | None, typer.Option(help="Band-pass in Hz, such as 70,150 for high gamma.")] = None,
    measure: Annotated[
        Literal["mean", "power"], typer.Option(help="What of the signal counts: its mean, or its log power.")
    ] = "power",
    times: Annotated[
        str,
        typer.Option(
            help="Seconds after a stimulus between which the signal is averaged; or lags, with features/sfreq."
        ),
    ] = "0,0.1,0.2,0.3,0.4,0.5",
    correction: Annotated[
        Literal["fdr", "max"],
        typer.Option(help="What is held below LEVEL: the share of false sites, or the chance of any (max statistic)."),
    ] = "fdr",
    level: Annotated[float, typer.Option(help="Between 0 and 1.")] = 0.05,
    permutations: Annotated[int | None, typer.Option(min=1, help="By default as many as so many sites need.")] = None,
    folds: Annotated[int, typer.Option(min=2, help="Of the cross-validation.")] = 5,
    n: Annotated[
        int | None, typer.Option("-n", min=1, help="Select so many of those that respond, best first.")
    ] = None,
    regions: Annotated[
        Path | None, typer.Option(help="A table with columns name and region, as a BIDS electrodes.tsv.")
    ] = None,
    region: Annotated[list[str] | None, typer.Option(help="Select from this region; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the folds and permutations.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the selection as one line of JSON.")] = False,
) -> None:
    """Score each intracranial site against stimulus features, and write those that respond as a bundle's contract.

    Example: rtdecode probe-sites words.vhdr --features words.tsv --band 70,150 --notch 50 -n 10 --out sites.json
    """
    import msgspec

    from rtdecode_models.sites.features import read_features, read_regions
    from rtdecode_models.sites.selection import Settings, select_sites, write_selection

    if region and regions is None:
        raise ConfigError("--region needs --regions TABLE, which says where each contact lies")
    if out.is_dir() or not out.absolute().parent.is_dir():  # found before the long part
        raise ConfigError(f"--out {out} cannot be written: expected a file, in a folder that is there")
    settings = Settings(
        contacts=tuple(contacts or ("*",)),
        referencing=reference,
        notch=notch,
        band=_band(band),
        measure=measure,
        edges=_numbers("--times", times),
        folds=folds,
        correction=correction,
        level=level,
        permutations=permutations,
        seed=seed,
        n=n,
        wanted=tuple(region or ()),
    )
    quiet = as_json or not sys.stderr.isatty()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as bar:

        def progress(total: int) -> Callable[[], object]:
            task = bar.add_task("permutations", total=total)
            return lambda: bar.advance(task)

        selection = select_sites(
            recordings,
            read_features(features),
            settings,
            file=features.name,
            regions=None if regions is None else read_regions(regions),
            progress=progress,
        )
    write_selection(out, selection)
    if as_json:
        typer.echo(msgspec.json.encode(selection).decode())
    else:
        _print(selection, out, Console(highlight=False))


def _numbers(key: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise ConfigError(f"{key} {text}: expected numbers with commas between them, such as 0,0.1,0.2")
    return numbers


def _band(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    edges = _numbers("--band", text)
    if len(edges) != 2 or not 0 < edges[0] < edges[1]:
        raise ConfigError(f"--band {text}: expected a low and a higher edge in Hz, such as 70,150")
    return edges[0], edges[1]


def _print(selection: "Selection", out: Path, console: Console) -> None:
    """The best sites, what was selected, and how a recipe spells it."""
    from rtdecode_models.sites.selection import as_toml

    settings = selection.settings
    controlled = "false discovery rate" if settings.correction == "fdr" else "chance of any false site"
    table = Table(title=f"{len(selection.sites)} sites, {selection.features['rows']} rows of features")
    for heading in (
        "site",
        "region",
        "r, held out",
        "seconds",
        "p",
        "q" if settings.correction == "fdr" else "p of all",
    ):
        table.add_column(heading)
    for site in selection.sites[:_SHOWN]:
        seconds = "" if site.best_s is None else f"{site.best_s[0]:g} to {site.best_s[1]:g}"
        style = "bold" if site.selected else None if site.responds else "dim"
        cells = (escape(site.name), escape(site.region), f"{site.score:.3f}", seconds, f"{site.p:.4f}")
        table.add_row(*cells, f"{site.level:.4f}", style=style)
    console.print(table)
    responding = sum(site.responds for site in selection.sites)
    console.print(f"{responding} respond ({controlled} {settings.level:g}, {selection.permutations} permutations).")
    if selection.contract is None:
        console.print("None is selected: the file has all scores, and no contract.", markup=False)
    else:
        console.print(f"Selected: {', '.join(selection.selected)}", markup=False)
        console.print("In a recipe's or a manifest's conditioning:", markup=False)
        for step in selection.conditioning.stream:
            console.print(as_toml(step), markup=False, soft_wrap=True)
    console.print(f"written: {out}", markup=False)
