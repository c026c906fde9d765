"""The certificate as a folder: ``certificate.json``, two pictures, and a page that holds it all and needs nothing."""

import base64
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from rtdecode.certify.analysis import STAGES, Series
from rtdecode.certify.style import CSS

#: Stages and spans in the order of the table, and what people call them.
NAMES = {
    "acquire": "sample taken → acquire has it",
    "bus": "acquire → decode",
    "condition": "filters, window complete",
    "encode": "its turn, encoder",
    "publish": "heads, message, socket",
    "deliver": "socket → subscriber",
    "processing": "arrived → published: the budget",
    "overhead": "the same, without the encoder",
    "end_to_end": "sample taken → subscriber",
}

_SAYS = {
    "PASS": "This machine serves this configuration in time.",
    "FAIL": "This machine does not serve this configuration as required.",
    "INCONCLUSIVE": "Neither is shown.",
}


def write_report(folder: Path, found: dict[str, Any], series: Sequence[Series]) -> None:
    """Write the folder.

    Parameters
    ----------
    folder : Path
        It is there.
    found : dict
        The certificate.
    series : sequence of Series
        The windows that it speaks of.
    """
    from rtdecode.certify.pictures import draw

    (folder / "certificate.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    budgets = {name: one["budget_ms"] for name, one in found["pipelines"].items()}
    pictures = draw(folder, series, budgets, found["rule"]["require"])
    (folder / "certificate.html").write_text(page(found, pictures), encoding="utf-8")


def page(found: dict[str, Any], pictures: Sequence[Path]) -> str:
    """The page; pictures are put into it."""
    body = [
        _head(found),
        *(_pipeline(name, one) for name, one in found["pipelines"].items()),
        *(_picture(path) for path in pictures),
        _advice(found["advice"]),
        _circumstances(found),
        _machine(found),
        _everything(found),
    ]
    title = f"{found['verdict']} · {Path(found['config']).name} · rtdecode certify"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def _head(found: dict[str, Any]) -> str:
    verdict = found["verdict"]
    reasons = "".join(f"<li>{escape(one)}</li>" for one in found["reasons"])
    partial = f"<p class=partial>Partial: {escape(found['ended_early'])}.</p>" if found["ended_early"] else ""
    return (
        f"<header class={verdict.lower()}><div class=verdict>{verdict}</div><div><h1>{_SAYS[verdict]}</h1>"
        f"<p>{escape(found['config'])} · {found['seconds']:.0f} s of {found['asked_seconds']:.0f} s · "
        f"load beside it: {escape(found['load'])} · {escape(found['created'])}</p></div></header>"
        f"{partial}{f'<ul class=reasons>{reasons}</ul>' if reasons else ''}"
        f"<p class=rule>{escape(found['rule']['text'])}</p>"
    )


def _pipeline(name: str, one: dict[str, Any]) -> str:
    engine = one["engine"] or {}
    what = f"bundle {one['bundle']['name']} {one['bundle']['id'][:12]}, {engine.get('runtime', '?')}, "
    what += f"{engine.get('provider', '?')}, {engine.get('threads', '?')} thread(s)"
    kinds = "".join(_kind(window, kind) for window, kind in one["kinds"].items())
    return (
        f"<section><h2>{escape(name)} <span class='badge {one['verdict'].lower()}'>{one['verdict']}</span></h2>"
        f"<p class=dim>{escape(what)}</p>{_cards(one)}{kinds}</section>"
    )


def _cards(one: dict[str, Any]) -> str:
    cards = []
    if one["budget_ms"] is not None and one["counted"]:
        cards.append(
            ("within budget", f"{100 * one['share']:.4g} %", f"{one['in_budget']} of {one['counted']} windows")
        )
        cards.append(("at least, by the bound", f"{100 * one['lower']:.4g} %", f"budget {one['budget_ms']:g} ms"))
        cards.append(("misses", str(one["missed"]), f"in {one['bursts_of_misses']} runs"))
    for window, kind in one["kinds"].items():
        for stage, label in (("processing", "arrived → published"), ("end_to_end", "sample → subscriber")):
            figures = kind["stages"][stage]
            if figures is not None:
                marks = figures["percentiles"]
                cards.append(
                    (f"{label}, p50", f"{marks['p50']['ms']:.2f} ms", f"p99 {marks['p99']['ms']:.2f} · {window}")
                )
    parts = [
        f"<div class=card><div class=label>{escape(label)}</div><div class=value>{escape(value)}</div>"
        f"<div class=dim>{escape(more)}</div></div>"
        for label, value, more in cards
    ]
    counts = " + ".join(f"{n} {status}" for status, n in one["windows"].items() if n) or "none"
    total = sum(one["windows"].values())
    problems = one["accounts"]["problems"]
    sums = "All counters add up." if not problems else "Counters do not add up: " + "; ".join(problems)
    return f"<div class=cards>{''.join(parts)}</div><p>{total} windows = {escape(counts)}. {escape(sums)}</p>"


def _kind(window: str, kind: dict[str, Any]) -> str:
    rows = [
        _row(stage, label, kind["stages"][stage]) for stage, label in NAMES.items() if kind["stages"][stage] is not None
    ]
    if not rows:
        return f"<h3>{escape(window)}</h3><p>No window was decoded.</p>"
    first = kind["stages"]["end_to_end"]
    heads = "".join(f"<th>{name}</th>" for name in ("stage", *first["percentiles"], "worst", "jitter (sd)"))
    legend = (
        "<p class=dim>Milliseconds. A figure in grey has too few windows behind it to be bounded; the small one below "
        "each is what the true percentile stays below, with the rule's confidence.</p>"
    )
    return (
        f"<h3>{escape(window)}</h3><table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f"{legend}{_terms(kind['bci2000'])}"
    )


def _row(stage: str, label: str, figures: dict[str, Any]) -> str:
    cells = [_figure(one, figures["windows"]) for one in figures["percentiles"].values()]
    kind = "" if stage in STAGES else " class=whole"
    return (
        f"<tr{kind}><th>{escape(label)}</th>{''.join(cells)}<td>{figures['worst_ms']:.3f}</td>"
        f"<td>{figures['sd_ms']:.3f}</td></tr>"
    )


def _figure(one: dict[str, Any], windows: int) -> str:
    """A percentile and its bound; how many windows lie beyond it is told where the pointer rests."""
    upper = "–" if one["upper_ms"] is None else f"{one['upper_ms']:.3f}"
    weak = "" if one["supported"] else " class=weak"
    beyond = f"{one['windows_beyond']} of {windows} windows lie beyond"
    return f"<td{weak} title='{beyond}'>{one['ms']:.3f}<small>{upper}</small></td>"


def _terms(terms: dict[str, float | None] | None) -> str:
    if terms is None:
        return ""
    pairs = (
        ("block duration", "block_ms", "block_jitter_ms"),
        ("processing latency", "processing_ms", "processing_jitter_ms"),
        ("output latency", "output_ms", "output_jitter_ms"),
        ("system latency", "system_ms", "system_jitter_ms"),
    )
    cells = "".join(
        f"<tr><th>{label}</th><td>{terms[mean]:.3f}</td><td>{terms[jitter]:.3f}</td></tr>"
        for label, mean, jitter in pairs
        if terms[mean] is not None
    )
    return (
        "<details open><summary>In BCI2000's terms</summary><table class=narrow><thead><tr><th>milliseconds</th>"
        f"<th>mean</th><th>jitter</th></tr></thead><tbody>{cells}</tbody></table></details>"
    )


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f"<section><img alt='{path.stem}' src='data:image/png;base64,{data}'></section>"


def _advice(advice: Sequence[dict[str, Any]]) -> str:
    if not advice:
        return "<section><h2>What to change</h2><p>No rule found anything.</p></section>"
    items = "".join(
        f"<li><div class=change>{escape(one['change'])}</div><div>{escape(one['figure'])}"
        f"{' · ' + escape(one['pipeline']) if one['pipeline'] else ''}</div>"
        f"<div class=gain>gains {escape(one['gain'])}</div></li>"
        for one in advice
    )
    return f"<section><h2>What to change</h2><ol class=advice>{items}</ol></section>"


def _circumstances(found: dict[str, Any]) -> str:
    sender = found["sender"]
    lines = list(found["notes"])
    if "p50_ms" in sender:
        lines.append(
            f"the sender sent {sender['samples']} samples; its chunks left {sender['p50_ms']:.3f} ms after their "
            f"newest sample at the median, {sender['worst_ms']:.3f} ms at worst, which counts as the first stage's"
        )
    lines += [f"lost: {one}" for one in found["lost"]] + [f"failed: {one}" for one in found["faults"]]
    items = "".join(f"<li>{escape(one)}</li>" for one in lines)
    return f"<section><h2>How it was measured</h2><ul>{items}</ul></section>" if lines else ""


def _machine(found: dict[str, Any]) -> str:
    machine, kernel = found["machine"], found["kernel"]
    said = {
        "host": machine.get("host"),
        "CPU": machine.get("cpu"),
        "cores": f"{machine.get('usable_cores')} usable of {machine.get('cores')}",
        "governor": machine.get("governor") or "not told",
        "kernel": f"{machine.get('system')} {machine.get('preempt')}",
        "virtual machine": "yes" if machine.get("virtual") else "no",
        "memory, swap": f"{machine.get('memory_gb', 0):.1f} GB, {machine.get('swap_gb', 0):.1f} GB",
        "limits": ", ".join(f"{key} {value}" for key, value in machine.get("limits", {}).items()),
        "clock": ", ".join(found["clock"]),
        "versions": ", ".join(
            [f"Python {machine.get('python')}", *(f"{key} {value}" for key, value in machine["packages"].items())]
        ),
        "other programs": f"{kernel.get('others_cores', 0):.2f} cores while measured, "
        f"{found['before'].get('others_cores', 0):.2f} before",
        "swapped, throttled, stolen": f"{kernel.get('swapped_pages', 0)} pages, {kernel.get('throttled_s', 0):.2f} s, "
        f"{kernel.get('steal_s', 0):.2f} s",
    }
    rows = "".join(f"<tr><th>{key}</th><td>{escape(str(value))}</td></tr>" for key, value in said.items())
    return f"<section><h2>The machine</h2><table class=plain>{rows}</table>{_processes(kernel)}</section>"


def _processes(kernel: dict[str, Any]) -> str:
    seconds = kernel.get("seconds") or 1.0
    rows = "".join(
        f"<tr><th>{escape(name)}</th>{_cells(one, seconds)}</tr>"
        for name, one in kernel.get("processes", {}).items()
        if one
    )
    heads = "<tr><th>process</th><th>cores</th><th>waited for a core, ms/s</th><th>taken off it</th></tr>"
    return f"<table class=narrow><thead>{heads}</thead><tbody>{rows}</tbody></table>" if rows else ""


def _cells(one: dict[str, float], seconds: float) -> str:
    found: Iterable[str] = (
        f"{one['cpu_s'] / seconds:.3f}",
        f"{1e3 * one['waited_s'] / seconds:.2f}",
        f"{one['switched']:.0f}",
    )
    return "".join(f"<td>{cell}</td>" for cell in found)


def _everything(found: dict[str, Any]) -> str:
    text = escape(json.dumps(found, indent=2, ensure_ascii=False))
    return f"<section><details><summary>certificate.json</summary><pre>{text}</pre></details></section>"
