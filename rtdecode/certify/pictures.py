"""The certificate's two pictures: how long windows took, and when. Drawn by matplotlib, without a display.

Nothing else of the package imports this file, and this file imports matplotlib: no daemon ever does.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from rtdecode.certify.analysis import MOMENTS, STAGES, Series

#: Kinds of windows that are drawn; more would be too small to see.
DRAWN = 6

_COLOURS = {
    "acquire": "#8ea9c9",
    "bus": "#5f7fb0",
    "condition": "#4aa6a0",
    "encode": "#e2994a",
    "publish": "#b978b0",
    "deliver": "#7f7fa5",
}
_PROCESSING, _END_TO_END, _MISSED, _INK = "#2f6db3", "#9aa7b8", "#cf3d3d", "#243040"
_DRAWN_TIMES = (
    ("end_to_end", _END_TO_END, "sample taken to subscriber"),
    ("processing", _PROCESSING, "arrived to published"),
)
_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a94a3",
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": "#556070",
    "ytick.color": "#556070",
    "axes.grid": True,
    "grid.color": "#e7eaee",
    "axes.axisbelow": True,
    "legend.frameon": False,
}

#: Points of the timeline's medians at most, and dots that are drawn one by one.
_BINS = 150


def draw(folder: Path, series: Sequence[Series], budgets: Mapping[str, float | None], require: float) -> list[Path]:
    """Write ``histogram.png`` and ``timeline.png``; where there are no decoded windows, nothing.

    Parameters
    ----------
    folder : Path
        Where to.
    series : sequence of Series
        The measured windows; the first `DRAWN` kinds are drawn.
    budgets : mapping of str to float or None
        By pipeline, in milliseconds.
    require : float
        Share that is required.
    """
    mpl.use("agg")
    drawn = [one for one in series if one.distribution("end_to_end") is not None][:DRAWN]
    if not drawn:
        return []
    paths = [folder / "histogram.png", folder / "timeline.png"]
    with mpl.rc_context(_STYLE):
        _histograms(drawn, budgets, require).savefig(paths[0], dpi=150)
        _timelines(drawn, budgets).savefig(paths[1], dpi=150)
    return paths


def _histograms(drawn: Sequence[Series], budgets: Mapping[str, float | None], require: float) -> Figure:
    figure = Figure(figsize=(10, 3.3 * len(drawn)), layout="constrained")
    axes = np.atleast_2d(figure.subplots(len(drawn), 2, squeeze=False))
    for (left, right), one in zip(axes, drawn, strict=True):
        _histogram(left, one, budgets[one.pipeline])
        _tail(right, one, budgets[one.pipeline], require)
    return figure


def _histogram(axis: Axes, one: Series, budget: float | None) -> None:
    times = {name: _times(one, name) for name in ("end_to_end", "processing")}
    every = np.concatenate(list(times.values()))
    low, high = max(1e-3, every.min() * 0.9), every.max() * 1.1
    if high / low > 20:
        edges = np.geomspace(low, high, 80)
        axis.set_xscale("log")
    else:
        edges = np.linspace(low, high, 80)
    for name, colour, label in _DRAWN_TIMES:
        axis.hist(times[name], edges.tolist(), color=colour, alpha=0.75, label=label)
    found = one.distribution("processing")
    assert found is not None
    for share in (0.5, 0.99):
        at = (found.at(share), 0.99)
        axis.axvline(at[0], color=_PROCESSING, lw=0.9, ls=":")
        axis.annotate(f" p{share * 100:g}", at, xycoords=("data", "axes fraction"), fontsize=7.5, va="top")
    _plain_ticks(axis)
    _budget(axis, budget)
    axis.set_xlabel("ms")
    axis.set_ylabel("windows")
    axis.set_title(f"{one.pipeline}, {one.window}", loc="left", fontweight="bold")


def _tail(axis: Axes, one: Series, budget: float | None, require: float) -> None:
    """The share of windows that took longer than so many milliseconds."""
    for name, colour, label in _DRAWN_TIMES:
        times = np.sort(_times(one, name))
        beyond = np.arange(len(times), 0, -1) / len(times)
        axis.step(times, beyond, where="post", color=colour, lw=1.6, label=label)
    axis.set_xscale("log")
    axis.set_yscale("log")
    _plain_ticks(axis)
    axis.axhline(1 - require, color=_MISSED, lw=0.8, ls="--")
    axis.annotate(
        f"{100 * (1 - require):.3g} % may miss",
        (0.01, 1 - require),
        xycoords=("axes fraction", "data"),
        fontsize=7.5,
        color=_MISSED,
        va="bottom",
    )
    _budget(axis, budget)
    axis.set_xlabel("ms")
    axis.set_ylabel("share of windows that took longer")
    axis.legend(fontsize=7.5, loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=2, borderpad=0.0)


def _timelines(drawn: Sequence[Series], budgets: Mapping[str, float | None]) -> Figure:
    figure = Figure(figsize=(10, 4.6 * len(drawn)), layout="constrained")
    axes = figure.subplots(2 * len(drawn), 1, squeeze=False, sharex=True, height_ratios=[1.0, 0.8] * len(drawn))[:, 0]
    begin = min(np.nanmin(one.moments[:, MOMENTS.index("due")]) for one in drawn)
    for n, one in enumerate(drawn):
        seconds = one.moments[:, MOMENTS.index("due")] - begin
        _dots(axes[2 * n], one, seconds, budgets[one.pipeline])
        _layers(axes[2 * n + 1], one, seconds)
    axes[-1].set_xlabel("seconds")
    return figure


def _dots(axis: Axes, one: Series, seconds: np.ndarray, budget: float | None) -> None:
    took = one.stage("processing")
    good = one.good & ~np.isnan(took)
    size = 7.0 if len(seconds) < 2000 else 3.0
    axis.scatter(seconds[good], took[good], s=size, color=_PROCESSING, lw=0, alpha=0.6, rasterized=True)
    late = one.missed & ~np.isnan(took)
    axis.scatter(seconds[late], took[late], s=14, color=_MISSED, lw=0, label="out of budget", zorder=3)
    lost = one.missed & np.isnan(took)
    for at in seconds[lost]:
        axis.axvline(at, color=_MISSED, lw=0.7, alpha=0.6)
    decoded = took[~np.isnan(took)]
    if decoded.max() > 20 * np.median(decoded):
        axis.set_yscale("log")
    if budget is not None and budget < 1.3 * decoded.max():
        axis.axhline(budget, color=_MISSED, lw=0.9, ls="--")
    axis.set_ylabel("arrived to published, ms")
    axis.set_title(f"{one.pipeline}, {one.window}: each window", loc="left", fontweight="bold")
    if late.any():
        axis.legend(fontsize=8, loc="upper right")


def _layers(axis: Axes, one: Series, seconds: np.ndarray) -> None:
    """Medians of the stages, one upon the other."""
    edges = np.linspace(seconds.min(), seconds.max() + 1e-9, max(2, min(_BINS, len(seconds) // 5) + 1))
    place = np.digitize(seconds, edges) - 1
    centres, rows = [], []
    for n in range(len(edges) - 1):
        inside = place == n
        row = [one.stage(name)[inside] for name in STAGES]
        if all(np.isfinite(values).any() for values in row):
            centres.append((edges[n] + edges[n + 1]) / 2)
            rows.append([float(np.nanmedian(values)) for values in row])
    if len(rows) < 2:
        rows, centres = rows * 2, [float(edges[0]), float(edges[-1])][: 2 * len(rows)]
    if rows:
        axis.stackplot(
            centres, np.clip(np.array(rows).T, 0, None), labels=list(STAGES), colors=[_COLOURS[name] for name in STAGES]
        )
    axis.set_ylabel("stages, medians, ms")
    axis.legend(fontsize=7.5, ncols=len(STAGES), loc="lower right", bbox_to_anchor=(1.0, 0.99), borderpad=0.0)


def _budget(axis: Axes, budget: float | None) -> None:
    """The budget, where it lies near enough to be seen without hiding the rest."""
    low, high = axis.get_xlim()
    if budget is None:
        return
    if low <= budget <= 1.3 * high:
        axis.axvline(budget, color=_MISSED, lw=1.2, ls="--")
        label, at = f" budget {budget:g} ms", budget
        axis.annotate(label, (at, 0.9), xycoords=("data", "axes fraction"), fontsize=7.5, color=_MISSED, va="top")
    else:
        side, where = ("right", 0.99) if budget > high else ("left", 0.01)
        axis.annotate(
            f"budget {budget:g} ms {'→' if budget > high else '←'}",
            (where, 0.62),
            xycoords="axes fraction",
            fontsize=7.5,
            color=_MISSED,
            ha=side,
        )


def _plain_ticks(axis: Axes) -> None:
    """Numbers as people write them, and no more than there is room for."""
    if axis.get_xscale() == "log":
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
    axis.yaxis.set_minor_formatter("")


def _times(one: Series, name: str) -> np.ndarray:
    times = one.stage(name)
    return times[~np.isnan(times)]
