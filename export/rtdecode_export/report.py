"""What an export did and measured: ``export.json`` and ``export.md`` of a bundle."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from rtdecode.encode.manifest import Split, Unsplit
from rtdecode_export.drift import Drift
from rtdecode_export.incremental.words import in_words
from rtdecode_export.latency import Latency
from rtdecode_export.tensorrt_check import TensorRT


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One precision of an exported network.

    Parameters
    ----------
    precision : str
        ``fp32``, ``fp16``, ``bf16`` or ``int8``.
    method : str
        How the graph was made.
    onnx_bytes : int
        Size of the ONNX file.
    opset : int
        ONNX operator set.
    operators : dict
        Operator -> count.
    drift : tuple of Drift
        Each output against PyTorch's in float32; where two things computed it, once for each.
    golden_tolerance : float
        Of the bundle's golden windows, as a share of the largest value.
    beyond_limits : tuple of str
        Which limits the drift crosses; exported all the same only where that was asked for.
    latency : Latency or None
        On the CPU; None where it was not measured.
    tensorrt : TensorRT
        Whether TensorRT takes the graph.
    runs_here : bool
        Whether onnxruntime on the CPU of the machine that exported it runs the graph.
    not_run : tuple of str
        What was not run, and why.
    """

    precision: Literal["fp32", "fp16", "bf16", "int8"]
    method: str
    onnx_bytes: int
    opset: int
    operators: dict[str, int]
    drift: tuple[Drift, ...]
    golden_tolerance: float
    beyond_limits: tuple[str, ...] = ()
    latency: Latency | None = None
    tensorrt: TensorRT
    runs_here: bool = True
    not_run: tuple[str, ...] = ()


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an export did and measured; ``export.json`` of the bundle.

    Parameters
    ----------
    bundle : str
        The folder or zip file; empty in ``export.json``, which may be moved.
    bundle_id : str
        SHA-256 of its list of hashes; empty in ``export.json``, which is one of the hashed files.
    bundles : dict
        Precision -> folder or zip file, of all that were written; empty in ``export.json``.
    name : str
        The bundle's name.
    precision : str
        What this bundle's encoder computes in.
    parameters : int
        Trained numbers of the module.
    onnx_bytes : int
        Size of the ONNX file.
    opset : int
        ONNX operator set.
    operators : dict
        Operator -> count.
    windows : int
        Windows that PyTorch and onnxruntime were compared on.
    real_windows : bool
        Whether they are of real data. If not, nothing that was measured on them says how the network does on such.
    errors : dict
        Output -> largest absolute difference between the two, in fp32.
    worst_windows : dict
        Output -> the window on which it is.
    tolerance : float
        The largest that was allowed.
    engine_errors : dict
        Output -> largest absolute difference between PyTorch and the daemon's own engine, on the golden windows, after
        the bundle was written and opened again. Empty in ``export.json``.
    nodes_before, nodes_after : int
        Nodes of the graph as PyTorch gave it, and of the fp32 graph after folding.
    folded : dict
        Operator -> how many nodes of it were computed at export, merged into others or dropped.
    variants : tuple of Variant
        Every precision that was exported together, this bundle's among them.
    versions : dict
        What it was exported with.
    not_run : tuple of str
        What was not run or measured, and why.
    incremental : Split, Unsplit or None
        What of the encoder runs on samples as they come, in shares of its arithmetic; or why nothing does.
    """

    bundle: str = ""
    bundle_id: str = ""
    bundles: dict[str, str] = {}
    name: str = ""
    precision: str = "fp32"
    parameters: int
    onnx_bytes: int
    opset: int
    operators: dict[str, int]
    windows: int
    real_windows: bool = True
    errors: dict[str, float]
    worst_windows: dict[str, int]
    tolerance: float
    engine_errors: dict[str, float] = {}
    nodes_before: int
    nodes_after: int
    folded: dict[str, int]
    variants: tuple[Variant, ...]
    versions: dict[str, str]
    not_run: tuple[str, ...] = ()
    incremental: Split | Unsplit | None = None


def markdown(report: ExportReport) -> str:
    """The report for people."""
    kind = "real windows" if report.real_windows else "windows of noise: **no real windows were given**"
    lines = [
        f"# Export of {report.name}, {report.precision}",
        "",
        f"{report.parameters:,} parameters; ONNX operator set {report.opset}, {report.onnx_bytes:,} bytes.",
        "",
        "## Parity in fp32",
        "",
        f"PyTorch against onnxruntime on {report.windows} {kind}; at most {report.tolerance:g} was accepted.",
        "",
        *table(
            ("output", "largest error", "on window"),
            [(name, f"{error:.3g}", report.worst_windows[name]) for name, error in report.errors.items()],
        ),
        "",
        "## Precisions",
        "",
        "Each against PyTorch in fp32. *Share*: the largest error as a share of the output's largest magnitude.",
        "*Top 1*: how often the first choice is the same; *top 5*: how often it is among the first five. A",
        "checkpoint's windows are of its training: their accuracy says what a precision costs, not how it decodes.",
        "",
        *table(_DRIFT_HEAD, [row for variant in report.variants for row in drift_rows(variant)]),
        "",
        *(f"- {variant.precision}: {variant.method}" for variant in report.variants),
        "",
        *table(_SIZE_HEAD, [size_row(variant) for variant in report.variants]),
        "",
        "## TensorRT",
        "",
        *(f"- {variant.precision}: {tensorrt_words(variant.tensorrt)}" for variant in report.variants),
        "",
        "## Graph",
        "",
        f"PyTorch gave {report.nodes_before} nodes, of which {report.nodes_after} are left in fp32. Computed once and "
        f"for all, merged or dropped: {_counts(report.folded) or 'none'}.",
        "",
        f"In {report.precision}: {_counts(report.operators)}.",
        "",
        "## While samples come",
        "",
        *in_words(report.incremental),
        "",
        "## Versions",
        "",
        ", ".join(f"{name} {version}" for name, version in report.versions.items()),
        "",
        "## Not run",
        "",
        *(f"- {line}" for line in not_run(report)),
    ]
    return "\n".join(lines) + "\n"


_DRIFT_HEAD = (
    "precision", "output", "computed by", "windows", "largest error", "share", "cosine min", "mean", "top 1", "top 5",
    "accuracy (fp32)",
)  # fmt: skip
_SIZE_HEAD = ("precision", "ONNX bytes", "golden tolerance", "CPU p50 ms", "p99 ms", "beyond limits")


def drift_rows(variant: Variant) -> Iterable[tuple[str, ...]]:
    """Rows of the drift table."""
    for drift in variant.drift:
        accuracy = "" if drift.accuracy is None else f"{drift.accuracy:.3f} ({drift.accuracy_fp32:.3f})"
        yield (
            variant.precision,
            drift.output,
            drift.how,
            str(drift.windows),
            f"{drift.max_abs:.3g}",
            f"{drift.share:.3g}",
            f"{drift.cosine_min:.6f}",
            f"{drift.cosine_mean:.6f}",
            _share(drift.top1),
            _share(drift.top5),
            accuracy,
        )


def size_row(variant: Variant) -> tuple[str, ...]:
    """One row of sizes and latencies."""
    latency = variant.latency
    return (
        variant.precision,
        f"{variant.onnx_bytes:,}",
        f"{variant.golden_tolerance:.3g}",
        "not run" if latency is None else f"{latency.p50_ms:.2f}",
        "not run" if latency is None else f"{latency.p99_ms:.2f}",
        "; ".join(variant.beyond_limits) or "none",
    )


def tensorrt_words(check: TensorRT) -> str:
    """What the check found, in a sentence."""
    refused = [f"{name} ({operator.problem})" for name, operator in check.operators.items() if operator.problem]
    known = f"{len(check.operators) - len(refused)} of {len(check.operators)} operators are taken, says the list of "
    said = f"{known}{check.list_of}"
    if refused:
        said += f"; not taken: {', '.join(refused)}"
    if not check.parser:
        return f"{said}; not parsed: the bindings are not installed"
    if check.problems:
        return f"{said}; {check.parser} does not parse it: {check.problems[0]}"
    return f"{said}; {check.parser} parses it"


def not_run(report: ExportReport) -> list[str]:
    """Everything that was not run, for any precision."""
    return [*report.not_run, *(f"{variant.precision}: {why}" for variant in report.variants for why in variant.not_run)]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]


def _counts(operators: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in operators.items())


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
