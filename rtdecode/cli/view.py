"""How the demo looks: a live picture in a terminal, plain lines elsewhere."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rtdecode.demo.tally import STAGES, STATUSES, Tally, Trial

#: Widest that the picture gets.
WIDTH = 100

_STAGE_TEXT = {
    "transport": "sample taken → acquire has it",
    "bus": "acquire → decode",
    "condition": "filters, window complete",
    "encode": "encoder",
    "publish": "heads, message, socket",
    "total": "arrived → published",
    "from_sample": "sample taken → published",
}
_MARKS = {"hit": ("✓", "bold green"), "near": ("•", "yellow"), "miss": ("✗", "red"), "none": ("–", "dim")}


@dataclass(frozen=True, slots=True)
class Scene:
    """What does not change while the demo runs.

    Parameters
    ----------
    stream : str
        What comes in: ``64 channels at 250 Hz``.
    transport : str
        ``lsl`` or ``local``.
    why_local : str
        Why it is not LSL; empty where it is.
    bundle : str
        First digits of its id.
    engine : str
        What the encoder runs on.
    emoji : mapping of str to str
        Name -> emoji.
    seconds : float
        How long the demo runs.
    """

    stream: str
    transport: str
    why_local: str
    bundle: str
    engine: str
    emoji: Mapping[str, str]
    seconds: float

    def label(self, name: str | None) -> str:
        """Emoji and name."""
        if name is None:
            return "?"
        return f"{self.emoji.get(name, '')} {name}".strip()

    @property
    def route(self) -> str:
        """Which way the samples take."""
        return "over LSL" if self.transport == "lsl" else "in process"


def verdict(trial: Trial) -> str:
    """``hit``, ``near`` (among the others), ``miss``, or ``none`` where nothing was decoded."""
    if not trial.names or trial.truth is None:
        return "none"
    return "miss" if trial.rank is None else "hit" if trial.rank == 1 else "near"


def picture(scene: Scene, tally: Tally, elapsed: float, note: str = "") -> RenderableType:
    """Everything at a glance, at most `WIDTH` columns wide."""
    lower = Table.grid(expand=True)
    lower.add_column(ratio=9)
    lower.add_column(ratio=11)
    lower.add_row(_right_panel(tally), _latency_panel(tally))
    return Group(_head(scene, tally, elapsed, note), _trial_panel(scene, tally), lower)


def _head(scene: Scene, tally: Tally, elapsed: float, note: str) -> RenderableType:
    way = Text.assemble(
        (f"{scene.stream} {scene.route}", "bold"), " → acquire → decode → publish → this view", style="default"
    )
    grid = Table.grid(expand=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right")
    grid.add_row(way, f"{min(elapsed, scene.seconds):.0f} of {scene.seconds:.0f} s")
    rate = f"{tally.windows / elapsed:.1f} windows/s" if elapsed > 1 else ""
    grid.add_row(Text(f"bundle {scene.bundle} on {scene.engine}", style="dim"), Text(rate, style="dim"))
    if scene.why_local:
        grid.add_row(Text(f"not over LSL: {scene.why_local}", style="yellow"), "")
    if note:
        grid.add_row(Text(note, style="yellow"), "")
    bar = ProgressBar(total=scene.seconds, completed=min(elapsed, scene.seconds), complete_style="cyan", width=None)
    title = Text.assemble(
        (" rtdecode demo ", "bold"), ("· ", "dim"), ("SIMULATED subject", "bold magenta"), " looking at things "
    )
    return Panel(Group(grid, bar), title=title, title_align="left", border_style="cyan", width=None)


def _trial_panel(scene: Scene, tally: Tally) -> RenderableType:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=22, no_wrap=True)
    table.add_column(width=3, justify="right")
    table.add_column(width=20, no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(width=6, justify="right")
    table.add_row(
        Text("shown", style="bold"),
        "",
        Text("decoded", style="bold"),
        Text("cosine to each thing's embedding", style="dim"),
        "",
    )
    latest = next((trial for trial in reversed(tally.trials) if trial.names), None)
    if latest is None:
        table.add_row(Text("waiting for the first window", style="dim"), "", "", "", "")
    for at in range(tally.k):
        table.add_row(*_answer_row(scene, latest, at) if latest else ("",) * 5)
    table.add_row("", "", "", "", "")
    before = _history(scene, tally, WIDTH - 8)
    return Panel(Group(table, before), border_style="dim")


def _answer_row(scene: Scene, trial: Trial, at: int) -> tuple[RenderableType, ...]:
    mark, colour = _MARKS[verdict(trial)]
    shown: RenderableType = ""
    if at == 0:
        shown = Text.assemble((mark, colour), " ", (scene.label(trial.truth), "bold"))
    elif at == 1:
        shown = Text(_remark(trial), style=colour if verdict(trial) != "miss" else "dim")
    if at >= len(trial.names):
        return (shown, "", "", "", "")
    name, score = trial.names[at], trial.scores[at]
    right = name == trial.truth
    style = "bold green" if right else "default"
    # cosines below 0 have no bar
    bar = ProgressBar(total=1.0, completed=max(0.0, score), complete_style="green" if right else "blue", width=None)
    return (
        shown,
        Text(f"{at + 1}", style=style),
        Text(scene.label(name), style=style, overflow="ellipsis"),
        bar,
        Text(f"{score:.2f}", style=style),
    )


def _remark(trial: Trial) -> str:
    if trial.none_of_these:
        return "  none of these?"
    match verdict(trial):
        case "hit":
            return "  right"
        case "near":
            return f"  right at place {trial.rank}"
        case _:
            return "  not among the five"


def _history(scene: Scene, tally: Tally, room: int) -> Text:
    """The trials before the latest, newest first, as many as fit."""
    line = Text("before  ", style="dim")
    for trial in reversed(tally.trials[:-1]):
        mark, colour = _MARKS[verdict(trial)]
        answer = scene.emoji.get(trial.names[0], trial.names[0]) if trial.names else trial.status
        shown = scene.emoji.get(trial.truth or "", "?")
        part = Text.assemble((mark, colour), shown, *(() if verdict(trial) == "hit" else (("→", "dim"), answer)), "  ")
        if cell_len(line.plain) + cell_len(part.plain) > room:
            break
        line.append_text(part)
    return line


def _right_panel(tally: Tally) -> RenderableType:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(justify="right", no_wrap=True)
    for label, k in (("top-1", 1), (f"top-{tally.k}", tally.k)):
        share = tally.share(k)
        table.add_row(
            Text(label, style="bold"),
            "–" if share is None else f"{share:4.0%}",
            ProgressBar(total=1.0, completed=share or 0.0, complete_style="green", width=None),
            Text(f"chance {tally.chance(k):.1%}", style="dim"),
        )
    p = tally.p_value(1)
    low, high = wilson_text(tally)
    lines = [
        Text(f"{tally.hits(1)} of {tally.decoded} right; by guessing p {p_text(p)}", style="dim"),
        Text(f"95 % interval of top-1: {low} to {high}", style="dim"),
        Text(""),
        _status_line(tally),
    ]
    return Panel(
        Group(table, *lines), title="[bold]how often right[/]", title_align="left", border_style="dim", height=12
    )


def wilson_text(tally: Tally) -> tuple[str, str]:
    """The interval's bounds in per cent."""
    low, high = tally.summary()["top1_interval_95"]
    return f"{low:.0%}", f"{high:.0%}"


def p_text(p: float | None) -> str:
    """A p-value as people write it."""
    if p is None:
        return "unknown"
    return f"= {p:.3f}" if p >= 1e-3 else "< 1e-12" if p < 1e-12 else f"= {p:.0e}"


def _status_line(tally: Tally) -> Text:
    text = Text()
    for at, status in enumerate(STATUSES):
        count = tally.statuses[status]
        colour = "green" if status == "ok" and count else "yellow" if count else "dim"
        text.append(f"{status} {count}", style=colour)
        text.append("\n" if at == 2 else "   ")
    text.append(f"\n= {tally.windows} windows due, each with one message", style="dim")
    return text


def _latency_panel(tally: Tally) -> RenderableType:
    table = Table(box=None, expand=True, padding=(0, 1), pad_edge=False, header_style="dim")
    table.add_column("milliseconds", no_wrap=True)
    table.add_column("p50", justify="right", width=7)
    table.add_column("p99", justify="right", width=7)
    for stage in STAGES:
        both = tally.latency(stage)
        style = "bold" if stage == "total" else "default" if stage in _PARTS else "dim"
        cells = ("–", "–") if both is None else tuple(f"{ms:.2f}" for ms in both)
        table.add_row(Text(_STAGE_TEXT[stage], style=style), *(Text(cell, style=style) for cell in cells))
    met = tally.met
    text = Text()
    if met is not None:
        text.append(f"budget {tally.budget_ms:g} ms from arrival: ", style="dim")
        text.append(f"met {met:.1%}", style="green" if met == 1 else "yellow")
    return Panel(
        Group(table, Text(""), text), title="[bold]latency[/]", title_align="left", border_style="dim", height=12
    )


#: Stages that add up to the total.
_PARTS = ("bus", "condition", "encode", "publish")


# --- plain ------------------------------------------------------------------------------------------------------------


def opening_line(scene: Scene) -> str:
    """First line where there is no terminal."""
    local = f" (not over LSL: {scene.why_local})" if scene.why_local else ""
    return (
        f"SIMULATED subject, {scene.stream} {scene.route}{local} -> acquire -> decode -> publish; "
        f"bundle {scene.bundle} on {scene.engine}; {scene.seconds:g} s"
    )


def plain_line(trial: Trial, elapsed: float) -> str:
    """One window, without control characters or pictures."""
    marks = {"hit": "right", "near": f"place {trial.rank}", "miss": "missed", "none": trial.status}
    answers = ", ".join(f"{name} {score:.2f}" for name, score in zip(trial.names, trial.scores, strict=True))
    took = "" if math.isnan(trial.total_ms) else f"  {trial.total_ms:.2f} ms"
    none = " (none of these?)" if trial.none_of_these else ""
    said = answers or trial.reason
    return f"{elapsed:5.1f} s  {marks[verdict(trial)]:8s} shown {trial.truth}: {said}{none}{took}"


def closing_lines(scene: Scene, tally: Tally, *, latency: bool) -> list[str]:
    """The summary, as plain lines; with the latencies, unless the picture has just shown them."""
    counts = " + ".join(f"{tally.statuses[status]} {status}" for status in STATUSES)
    lines = [f"{tally.windows} windows = {counts}"]
    for k in (1, tally.k):
        share = tally.share(k)
        said = "nothing was decoded" if share is None else f"{share:.1%} ({tally.hits(k)} of {tally.decoded})"
        lines.append(f"top-{k}: {said}; chance {tally.chance(k):.2%}, by guessing p {p_text(tally.p_value(k))}")
    low, high = wilson_text(tally)
    lines.append(f"95 % interval of top-1: {low} to {high}")
    for stage in STAGES if latency else ():
        both = tally.latency(stage)
        if both is not None:
            lines.append(f"{stage:12s} p50 {both[0]:8.2f} ms  p99 {both[1]:8.2f} ms  ({_STAGE_TEXT[stage]})")
    if tally.met is not None:
        lines.append(f"budget of {tally.budget_ms:g} ms met by {tally.met:.1%} of the windows")
    lines.append(f"All of this is simulated, {scene.route}; nothing was measured on anybody.")
    return lines
