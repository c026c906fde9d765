"""Pictures beside a checkpoint: learning curves, and what the test gave. Drawn without a display."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colour-blind safe (Okabe and Ito): training, validation, chance, ceiling.
BLUE, ORANGE, GREY, GREEN = "#0072B2", "#D55E00", "#7F7F7F", "#009E73"


def draw_figures(metrics: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw what the metrics hold.

    Parameters
    ----------
    metrics : mapping
        ``metrics.json``.
    folder : Path
        Beside the checkpoint.

    Returns
    -------
    list of Path
        ``learning_curves.png``; ``confusion.png`` or ``retrieval_curve.png`` of the first output that was tested (of
        the validation part, where there was no test).
    """
    written = []
    if any(curves for curves in metrics["learning_curves"]):
        written.append(_write(learning_curves(metrics), folder / "learning_curves.png"))
    part = next((part for part in ("test", "validation") if metrics.get(part, {}).get("tasks")), None)
    if part is not None:
        name, scored = next(iter(metrics[part]["tasks"].items()))
        title = f"{metrics['name']}: {name}, {part}, {scored['trials']} trials"
        if scored["kind"] == "classify":
            written.append(_write(confusion(scored, title), folder / "confusion.png"))
        else:
            written.append(_write(retrieval_curve(scored, title), folder / "retrieval_curve.png"))
    return written


def learning_curves(metrics: Mapping[str, Any]) -> "Figure":
    """The objective by epoch, and beside it the first score of the validation part; one line for each seed."""
    runs = [curves for curves in metrics["learning_curves"] if curves]
    score = next((name for name in ("accuracy", "top1") if f"validation_{name}" in runs[0]), None)
    figure = _figure(1 if score is None else 2)
    axes = figure.subplots(1, 1 if score is None else 2, squeeze=False)[0]
    _lines(axes[0], runs, {"loss": (BLUE, "training"), "validation_loss": (ORANGE, "validation")})
    axes[0].set_ylabel("loss")
    if score is not None:
        _lines(axes[1], runs, {f"validation_{score}": (ORANGE, "validation")})
        axes[1].set_ylabel(score)
        axes[1].set_ylim(bottom=0)
        scored = next(iter(metrics["validation"]["tasks"].values()))
        axes[1].axhline(scored["chance"][score], color=GREY, linestyle="--", linewidth=1, label="chance")
        if chance_text(scored, score) != chance_text({"chance": scored["chance"]}, score):
            axes[1].axhline(scored["majority"], color=GREY, linestyle=":", linewidth=1, label="majority")
        axes[1].legend(frameon=False)
    axes[0].legend(frameon=False)
    for place, (each, best) in enumerate(zip(metrics["learning_curves"], metrics["best_epochs"], strict=True)):
        if each:
            label = "weights kept" if place == 0 else None
            axes[0].plot(best + 1, each["loss"][best], "o", color=BLUE, markersize=5, fillstyle="none", label=label)
    axes[0].legend(frameon=False)
    figure.suptitle(f"{metrics['name']}: {len(runs)} seeds" if len(runs) > 1 else metrics["name"], fontsize=11)
    return figure


def confusion(scored: Mapping[str, Any], title: str) -> "Figure":
    """Rows are the truth; each cell is a count, its colour the share of its row."""
    counts, labels = scored["confusion"], scored["labels"]
    figure = _figure(1, square=True)
    axes = figure.subplots()
    shares = [[n / max(sum(row), 1) for n in row] for row in counts]
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(image, ax=axes, label="share of the row", fraction=0.046, pad=0.04)
    if len(labels) <= 20:
        for row, values in enumerate(counts):
            for column, n in enumerate(values):
                ink = "white" if shares[row][column] > 0.6 else "black"
                axes.text(column, row, str(n), ha="center", va="center", color=ink, fontsize=9)
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
        axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    low, high = scored["ensemble"]["accuracy_95"]
    accuracy, chance = scored["ensemble"]["accuracy"], chance_text(scored, "accuracy")
    interval = f"95 %: {low:.3f} to {high:.3f}"
    axes.set_title(f"{title}\naccuracy {accuracy:.3f} ({interval}), chance {chance}", fontsize=10)
    return figure


def chance_text(scored: Mapping[str, Any], score: str) -> str:
    """The chance level of a score, and for accuracies of unbalanced classes the share of the most frequent one."""
    chance, majority = scored["chance"][score], scored.get("majority")
    if score != "accuracy" or majority is None or f"{majority:.3f}" == f"{chance:.3f}":
        return f"{chance:.3f}"
    return f"{chance:.3f}, majority {majority:.3f}"


def retrieval_curve(scored: Mapping[str, Any], title: str) -> "Figure":
    """Share of trials whose stimulus is among the k best, against chance and, where it is known, the ceiling."""
    curve, count = scored["topk_curve"], scored["candidates"]
    figure = _figure(1)
    axes = figure.subplots()
    ks = range(1, len(curve) + 1)
    axes.plot(ks, curve, color=BLUE, label="mean over seeds")
    axes.plot(ks, [k / count for k in ks], color=GREY, linestyle="--", linewidth=1, label="chance")
    for place, (name, (low, high)) in enumerate(scored["intervals"].items()):
        k = int(name.removeprefix("top").removesuffix("_95"))
        axes.errorbar(
            k,
            curve[k - 1],
            yerr=[[max(curve[k - 1] - low, 0)], [max(high - curve[k - 1], 0)]],
            color=BLUE,
            capsize=3,
            label="95 % over stimuli" if place == 0 else None,
        )
    for place, (name, known) in enumerate(scored.get("ceiling", {}).items()):
        if name.startswith("top"):
            label = "best possible" if place == 0 else None
            axes.plot(int(name[3:]), known["ceiling"], "_", color=GREEN, markersize=14, markeredgewidth=2, label=label)
    axes.set_xscale("log")
    axes.set_xticks([k for k in (1, 2, 5, 10, 20, 50, 100) if k <= len(curve)])
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.minorticks_off()
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("k")
    axes.set_ylabel(f"top k of {count} ({scored['metric']})")
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False)
    return figure


def _lines(axes: "Axes", runs: list[Mapping[str, list[float | None]]], what: Mapping[str, tuple[str, str]]) -> None:
    from matplotlib.ticker import MaxNLocator

    for name, (colour, label) in what.items():
        for place, curves in enumerate(run for run in runs if name in run):
            values = [float("nan") if value is None else value for value in curves[name]]
            axes.plot(
                range(1, len(values) + 1),
                values,
                color=colour,
                linewidth=1,
                alpha=0.8,
                marker="." if len(values) == 1 else None,
                label=label if place == 0 else None,
            )
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)


def _figure(panels: int, *, square: bool = False) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(5.5, 5) if square else (1 + 4.5 * panels, 3.6), layout="constrained")


def _write(figure: "Figure", path: Path) -> Path:
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # names of recipes, classes and sessions may have dollars in them
    figure.savefig(path, dpi=120)
    return path
