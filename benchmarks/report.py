"""Write docs/performance.md from the results in benchmarks/results/*.json: every figure there comes from a file.

python benchmarks/report.py
python benchmarks/report.py --check    # whether the page is what the files give
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from figures import RESULTS

#: Ratios to the loop by hand, and what they are called.
RATIOS = {"p50_of_loop": "p50 / loop", "p99_of_loop": "p99 / loop", "cpu_of_loop": "CPU / loop"}
#: Forms of the encoder (`workload.Size.form`) in the order of the page: what is added to a title, and what is said.
FORMS = {
    "shape": ("", ""),
    "published": (
        ", the network as published",
        "The same with a plain export of the network as published, for all: it pools each channel before the "
        "convolution over channels. Where a window takes longer than a hop, results fall behind without end; their "
        "latencies tell of that alone.\n\n",
    ),
    "folded": (
        ", the published network folded",
        "The same with the network made two convolutions of before it is exported, as the zoo does it, for all: what "
        "the peers would do if their users folded by hand.\n\n",
    ),
}
PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
Report = dict[str, Any]

HEAD = """# Performance

<!-- Made by benchmarks/report.py from benchmarks/results/*.json. Change those, not this. -->

Latency is from the stamp of a window's newest sample to its result in hand: in the program itself for the peers, in a
subscriber in another process for rtdecode. All are paced as in real use, over LSL on the loopback. Intervals are
bootstraps over repeats; what was lost or wrong stands beside what was fast. Each table says where and when it was
measured and by which command. How the peers are written: `benchmarks/peers/`.
"""


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def number(value: float, digits: int = 3) -> str:
    """So many significant digits, without an exponent; what is no number as a dash."""
    if value != value:
        return "-"
    whole = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e" in whole else whole


def machine(report: Report) -> str:
    """Where and when, in one line."""
    here = report["machine"]
    return (
        f"{here['cpu']}, {here['cores']} cores, {here['kernel']}, governor {here['governor']}, load before "
        f"{here['load_before']}; Python {here['python']}, onnxruntime {here['onnxruntime']}; {here['date']}.\n"
    )


def with_interval(entry: Report) -> str:
    """A mean and the interval of it; of a single repeat there is none."""
    low, high = entry["interval"]
    if low == high:
        return number(entry["mean"])
    return f"{number(entry['mean'])} ({number(low)}-{number(high)})"


def latency(report: Report) -> str:
    """The side-by-side table of one size."""
    size, summary = report["size"], report["summary"]
    title, said = FORMS[size["form"]]
    quantiles = ("p50_ms", "p95_ms", "p99_ms", "p99.9_ms")
    rows = []
    for name, one in summary.items():
        ratios = [number(one[key]["mean"]) if key in one else "-" for key in RATIOS]
        cpu, memory = with_interval(one["cpu_with_subscriber_s"]), one["peak_mib"]
        checked = f"{one['right']}/{one['checked']}"
        rows.append([name, *(with_interval(one[q]) for q in quantiles), cpu, memory, one["missed"], checked, *ratios])
    header = ("", "p50 ms", "p95", "p99", "p99.9", "CPU-s", "MiB", "missed", "right", *RATIOS.values())
    losses = [_loss(name, one) for name, one in summary.items() if one.get("p50_of_loop", {}).get("mean", 0) > 1]
    versions = "; ".join(
        f"{name}: {', '.join(f'{k} {v}' for k, v in of.items())}" for name, of in report["versions"].items()
    )
    n = next(iter(summary.values()))["repeats"]
    return (
        f"## {size['channels']} channels at {size['sfreq']:g} Hz, {size['length_s']:g} s window every "
        f"{size['hop_s'] * 1e3:g} ms{title}\n\n"
        + said
        + f"Band-pass 0.5-40 Hz, encoder of NICE's shape, best 5 of {size['items']}; interleaved repeats: {n}, of "
        f"{report['seconds']:g} s. CPU of all processes of a system, rtdecode's subscriber included; memory is the sum "
        "of peaks, pages that are shared counted for each process. `right`: results that were checked, and are what "
        "the whole signal, filtered at once, gives.\n\n"
        + table(header, rows)
        + "\n"
        + _stages(report)
        + ("Slower than the loop by hand: " + "; ".join(losses) + ".\n\n" if losses else "")
        + machine(report)
        + f"\n`python benchmarks/latency.py --size {size['name']}`. {versions}.\n"
    )


def _stages(report: Report) -> str:
    """Where rtdecode's time goes."""
    found: dict[str, list[Report]] = {}
    for repeat in report["repeats"]:
        for name, one in repeat.items():
            if "stages_p50_ms" in one:
                found.setdefault(name, []).append(one["stages_p50_ms"])
    if not found:
        return ""
    rows = [
        [name, *(number(sum(one[stage] for one in ones) / len(ones)) for stage in ones[0])]
        for name, ones in found.items()
    ]
    header = ("", *next(iter(found.values()))[0])
    return "Where the time goes, by the messages' own ledgers, medians in ms:\n\n" + table(header, rows) + "\n"


def _loss(name: str, one: Report) -> str:
    return f"{name} ({number(one['p50_of_loop']['mean'])} times its p50)"


def scaling(report: Report) -> str:
    """One axis of growth."""
    names = [name for name in report["rows"][0] if name != "size"]
    header = ["channels", "Hz", "window s", "hop ms"]
    header += [f"{name}: {what}" for name in names for what in ("p50 ms", "p99", "CPU-s", "missed")]
    rows = []
    for row in report["rows"]:
        size = row["size"]
        line = [size["channels"], f"{size['sfreq']:g}", f"{size['length']:g}", f"{size['hop'] * 1e3:g}"]
        for name in names:
            one = row[name]
            line += [number(one["latency_ms"]["p50"]), number(one["latency_ms"]["p99"])]
            line += [number(one["cpu_s"] + one["subscriber_cpu_s"]), one["missed"]]
        rows.append(line)
    return (
        f"## Growth with the {report['what']}\n\nOne run of {report['seconds']:g} s each.\n\n"
        + table(header, rows)
        + f"\n{machine(report)}\n`python benchmarks/scaling.py --what {report['what']}`\n"
    )


def gallery(report: Report) -> str:
    """Search."""
    rows = [
        [f"{row['items']:,}", *(number(row[who][q]) for who in ("ours_ms", "numpy_ms") for q in ("p50", "p99"))]
        for row in report["rows"]
    ]
    header = ("items", "ours: p50 ms", "p99", "numpy: p50 ms", "p99")
    return (
        f"## Size of the gallery\n\nBest {report['top']} by cosine of rows of {report['width']} numbers, one thread. "
        "Ours gives the order of float64 scores, the line of numpy that of float32.\n\n"
        + table(header, rows)
        + f"\n{machine(report)}\n`python benchmarks/gallery.py`\n"
    )


def fanout(report: Report) -> str:
    """Publishing."""
    keys = ("send_ms", "first_ms", "last_ms")
    rows = [
        [row["subscribers"], number(row["cpu_ms_per_message"])]
        + [number(row[key][q]) for key in keys for q in ("p50", "p99")]
        + [row["lost"]]
        for row in report["rows"]
    ]
    header = ["subscribers", "CPU ms"]
    header += [f"{what}{q}" for what in ("send: ", "first has it: ", "last has it: ") for q in ("p50 ms", "p99 ms")]
    return (
        "## Subscribers\n\nOne window's message 20 times a second over TCP on the loopback; CPU of the publishing "
        "process for each message.\n\n"
        + table([*header, "lost"], rows)
        + f"\n{machine(report)}\n`python benchmarks/fanout.py`\n"
    )


def startup(report: Report) -> str:
    """Start and import."""

    def lines(key: str) -> list[list[str]]:
        return [[name, *(number(one[q]) for q in ("median", "least", "most"))] for name, one in report[key].items()]

    header = ("", "median s", "least", "most")
    return (
        f"## Start\n\nUntil READY, with the stream there, {report['repeats']} times in turns; rtdecode verifies its "
        "bundle by golden windows and warms up before it says so.\n\n"
        + table(header, lines("ready_s"))
        + "\nA fresh interpreter that imports:\n\n"
        + table(header, lines("import_s"))
        + f"\n{machine(report)}\n`python benchmarks/startup.py`\n"
    )


def history(report: Report) -> str:
    """Length of the session."""
    rows = [
        [row["minute"], number(row["cpu_s"]), row["windows"], number(row["resident_mib"])] for row in report["minutes"]
    ]
    return (
        "## Length of a session\n\nThe decoder of the 64-channel workload, as fast as it goes: CPU for each minute of "
        f"signal. The last takes {number(report['last_of_first'])} times the first.\n\n"
        + table(("minute", "CPU-s", "windows", "MiB"), rows)
        + f"\n{machine(report)}\n`python benchmarks/history.py`\n"
    )


def streams(report: Report) -> str:
    """How many streams one system sustains."""
    rows = []
    for run in report["runs"]:
        latencies = [number(run["ms"].get(q, float("nan"))) for q in ("p50", "p99")]
        end = [number(run["cores"]), run["wrong"], "yes" if run["sustained"] else "no"]
        rows.append([run["streams"], f"{100 * run['share']:.2f}", *latencies, *end])
    header = ("streams", "% in time", "p50 ms", "p99", "cores", "wrong", "sustained")
    return (
        f"### {report['system']}: {report['sustained']} streams\n\n"
        + table(header, rows)
        + f"\n{machine(report)}\n`python benchmarks/streams.py --system '{report['system']}'`\n"
    )


def replay(report: Report) -> str:
    """Faster than real time."""
    speed = report["times_real_time"]
    return (
        "## Replay\n\n125 s of 64 channels at 160 Hz, five networks as an ensemble, a window every 0.25 s: "
        f"{number(speed['median'])} times real time ({number(speed['least'])} to {number(speed['most'])}).\n\n"
        f"{machine(report)}\n`python benchmarks/replay.py`\n"
    )


#: Kind of report, and what becomes of it.
SECTIONS: dict[str, Callable[[Report], str]] = {
    "latency": latency,
    "streams": streams,
    "scaling": scaling,
    "gallery": gallery,
    "fanout": fanout,
    "startup": startup,
    "history": history,
    "replay": replay,
}


def page(folder: Path) -> str:
    """The page that the results in a folder give."""
    reports: dict[str, list[Report]] = {}
    for path in sorted(folder.glob("*.json")):
        report = json.loads(path.read_text())
        reports.setdefault(report.get("benchmark", "streams"), []).append(report)
    parts = [HEAD]
    for kind, section in SECTIONS.items():
        if kind == "streams" and kind in reports:
            parts.append(_streams_head(reports[kind]))
        parts += [section(report) for report in sorted(reports.get(kind, []), key=_place)]
    return "\n".join(parts)


def _place(report: Report) -> int:
    """Of a report among those of its kind, by the form of its encoder."""
    size = report.get("size", {})
    return list(FORMS).index(size["form"]) if "form" in size else 0


def _streams_head(reports: Sequence[Report]) -> str:
    first = reports[0]
    return (
        f"## Streams on one machine\n\nSustained: {100 * first['share']:g} % of the windows of all streams in hand "
        f"within {first['budget_ms']:g} ms of their newest sample's stamp; 64 channels at 250 Hz, a window every 100 "
        "ms. Senders and subscribers share the cores. Peers run one program for each stream.\n"
    )


def main() -> None:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where the page is another")
    options = parser.parse_args()
    text = page(RESULTS)
    if not options.check:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        sys.exit(f"{PAGE} is not what {RESULTS} gives: run python benchmarks/report.py")


if __name__ == "__main__":
    main()
