"""What `rtdecode zoo --check` found, as cells of a table and as the page ``docs/models/README.md``."""

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rtdecode_models.zoo.check import Row
from rtdecode_models.zoo.entry import Entry

#: Of the table, left to right.
HEADINGS = (
    *("system", "parameters", "published", "parity", "p50 ms", "live in the daemon", "budget"),
    *("of ceiling", "ridge's or baseline's"),
)

#: Seeds that a score is the mean of where nothing is said.
SEEDS = 3

_INTRO = """\
# Published systems

Each is one file under `models/rtdecode_models/systems/`, written from its paper, in the configuration that was
published; each can be trained by a recipe, exported to a bundle, and run in the daemon. This page is written by

    rtdecode zoo --check --page docs/models/README.md

which builds every system with weights at random, exports it, compares onnxruntime with PyTorch, times the daemon's own
engine, and runs the bundle in a daemon on simulated noise over LSL, at the true number of channels and the true rate.

- *parameters*: trained numbers of this project's file; *published*: what the paper or its code has, where it is known.
- *parity*: largest absolute difference of any output between PyTorch and onnxruntime, fp32.
- *p50 ms*: of the encoder alone, one thread unless the card says otherwise, a window every 20 ms.
- *live in the daemon*: windows that were published inside the budget, of all; 99th percentile from the arrival of a
  window's newest sample to its publication.
- *of ceiling*: score on a **simulated** experiment as a share of what an ideal decoder scores that knows how the data
  were made, mean over three seeds (starred: of fewer); beside it the same share for ridge regression (retrieval) or the
  baseline that the card names. [simulated.md](../simulated.md) has the experiments, the scores and their spread. No
  figure here is of a brain; [results.md](../results.md) has those that are.

The probing of intracranial sites is no encoder, and so no row: [site-probing.md](site-probing.md).

"""


def cells(entry: Entry, row: Row) -> tuple[str, ...]:
    """One system's line, as text."""
    return (
        row.name,
        f"{row.parameters:,}",
        "not known" if entry.published is None else f"{entry.published:,}",
        f"{row.parity:.1e}",
        f"{row.p50_ms:.2f}",
        _lived(row),
        f"{entry.budget_ms:g} ms",
        share(row.result, "share"),
        share(row.result, "baseline_share"),
    )


def write_page(path: Path, entries: Sequence[Entry], rows: Sequence[Row]) -> None:
    """Write the page: what the columns mean, the table, and on what it was measured."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    for entry, row in zip(entries, rows, strict=True):
        name, *others = cells(entry, row)
        lines.append("| " + " | ".join([f"[{name}]({entry.card})", *others]) + " |")
    needs = [f"- `{entry.name}`: {entry.hardware}" for entry in entries if entry.hardware != "2 CPU cores"]
    where = (
        f"\nMeasured on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, {platform.system()} "
        f"{platform.machine()}, "
        f"Python {platform.python_version()}, onnxruntime {version('onnxruntime')}, torch {version('torch')}.\n"
    )
    more = "\nNeed more than 2 CPU cores for the budget on their card:\n\n" + "\n".join(needs) + "\n" if needs else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_INTRO + "\n".join(lines) + "\n" + where + more, encoding="utf-8")


def _lived(row: Row) -> str:
    if row.live is None:
        return "not run"
    verdict = "yes" if row.live.good else "NO"
    return f"{verdict}: {row.live.met}/{row.live.windows}, p99 {row.live.p99_ms:.1f} ms"


def share(result: Mapping[str, Any], key: str) -> str:
    """A share of the ceiling in two digits, starred where it is of few seeds; a dash where none was measured."""
    value = result.get(key)
    few = "*" if len(result.get("seeds", ())) < SEEDS else ""
    return f"{value:.2f}{few}" if isinstance(value, float) else "-"
