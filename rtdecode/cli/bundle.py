"""``rtdecode bundle inspect|verify``: what a bundle is, and whether this machine decodes with it as it should."""

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rtdecode.encode.bundle import Bundle
from rtdecode.encode.manifest import ClassifyHead, HeadSpec, RetrieveHead, Split, describe
from rtdecode.encode.verify import Check, verify_bundle
from rtdecode.stream.window import describe_window

bundle_app = typer.Typer(no_args_is_help=True, help="Look into a bundle, or check it on this machine.")

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle: a folder or a .zip file.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


@bundle_app.command()
def inspect(bundle: BundlePath, json: AsJson = False) -> None:
    """Say what a bundle is: its contract, conditioning, windows, heads, metrics, provenance and files.

    Its hashes and its consistency are checked on the way; the encoder is not run.

    Example: rtdecode bundle inspect fists-feet.zip
    """
    opened = Bundle.open(bundle)
    if json:
        sys.stdout.write(msgspec.json.encode(summary(opened)).decode() + "\n")
        return
    Console(highlight=False).print(_overview(opened))
    Console(highlight=False).print(_files(opened))


@bundle_app.command()
def verify(
    bundle: BundlePath,
    json: AsJson = False,
    provider: Annotated[str, typer.Option(help="tensorrt, cuda, openvino or cpu.")] = "cpu",
    allow_fallback: Annotated[bool, typer.Option(help="Let the CPU stand in for the provider.")] = False,
) -> None:
    """Check a bundle on this machine: hashes, manifest, ONNX shapes, golden windows and golden raw stream.

    Ends with the exit code of the first check that failed (5 where the bundle is at fault, 6 for the provider).

    Example: rtdecode bundle verify fists-feet.zip --provider cpu
    """
    console = Console(highlight=False)
    checks = []
    for check in verify_bundle(bundle, provider=provider, fallback="allow" if allow_fallback else "forbid"):
        checks.append(check)
        if not json:
            _print_check(console, check)
    errors = [check.error for check in checks if check.error is not None]
    if json:
        listed = [
            {"name": check.name, "ok": check.ok, "figure": check.figure, "error": str(check.error or "")}
            for check in checks
        ]
        sys.stdout.write(
            msgspec.json.encode({"bundle": str(bundle), "ok": not errors, "checks": listed}).decode() + "\n"
        )
    if errors:
        raise typer.Exit(errors[0].exit_code)


def summary(bundle: Bundle) -> dict[str, Any]:
    """Everything about a bundle that a program may want to know, as plain values."""
    manifest = bundle.manifest
    conditioner = bundle.conditioner()
    return {
        "name": manifest.name,
        "id": bundle.id,
        "source": bundle.source,
        "created": manifest.created,
        "contract": msgspec.to_builtins(manifest.contract),
        "conditioning": {
            **msgspec.to_builtins(manifest.conditioning),
            "sfreq": conditioner.sfreq,
            "channels": [channel.name for channel in conditioner.channels],
            "group_delay_s": conditioner.group_delay,
            "delays": [msgspec.to_builtins(delay) for delay in conditioner.delays],
        },
        "windows": [
            {**msgspec.to_builtins(window), "samples": window.n_samples(conditioner.sfreq)}
            for window in manifest.windows
        ],
        "encoder": msgspec.to_builtins(manifest.encoder),
        "heads": [_head(bundle, head) for head in manifest.heads],
        "golden_windows": len(bundle.array(manifest.golden.windows)),
        "golden_raw": manifest.golden.raw is not None,
        "tolerance": manifest.golden.tolerance,
        "metrics": manifest.metrics,
        "provenance": manifest.provenance,
        "files": {name: {"bytes": bundle.sizes[name], "sha256": digest} for name, digest in bundle.files.items()},
    }


def _head(bundle: Bundle, head: HeadSpec) -> dict[str, Any]:
    described: dict[str, Any] = msgspec.to_builtins(head)
    if isinstance(head, RetrieveHead):
        items, width = bundle.array(head.embeddings).shape
        described |= {"gallery_items": items, "width": width}
    return described


def _overview(bundle: Bundle) -> Table:
    manifest = bundle.manifest
    conditioner = bundle.conditioner()
    contract = manifest.contract
    kinds = sorted({(channel.type, channel.unit) for channel in contract.channels})
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")

    def row(key: str, value: str) -> None:
        # What a bundle says is text, never markup.
        table.add_row(key, Text(value))

    row("bundle", f"{manifest.name}  ({bundle.source})")
    row("id", bundle.id)
    row("created", manifest.created)
    row("channels", f"{len(contract.channels)} ({', '.join(f'{kind} in {unit}' for kind, unit in kinds)})")
    row("", " ".join(channel.name for channel in contract.channels))
    row("rate", f"{contract.sfreq:g} Hz, conditioned {conditioner.sfreq:g} Hz")
    for step, delay in zip(manifest.conditioning.stream, conditioner.delays, strict=True):
        row("stream step", f"{_step(step)}  delay {delay.seconds * 1e3:.1f} ms")
    for window_step in manifest.conditioning.window:
        row("window step", _step(window_step))
    row("group delay", f"{conditioner.group_delay * 1e3:.1f} ms at {conditioner.reference:.3g} Hz")
    for window in manifest.windows:
        row("window", f"{describe_window(window)}, {window.n_samples(conditioner.sfreq)} samples")
    split = manifest.encoder.incremental
    row("encoder", f"{manifest.encoder.file}, {manifest.encoder.precision} -> {', '.join(manifest.encoder.outputs)}")
    if isinstance(split, Split):
        row("while samples come", describe(split, conditioner.sfreq))
    elif split is not None:
        row("while samples come", f"nothing: {split.reason}")
    for head in manifest.heads:
        row("head", _head_line(bundle, head))
    golden = manifest.golden
    raw = "with" if golden.raw is not None else "without"
    row("golden", f"{len(bundle.array(golden.windows))} windows, tolerance {golden.tolerance:g}, {raw} a raw stream")
    for key, value in manifest.metrics.items():
        row("metric", f"{key}: {_plain(value)}")
    for key, value in manifest.provenance.items():
        row("provenance", f"{key}: {_plain(value)}")
    return table


def _head_line(bundle: Bundle, head: HeadSpec) -> str:
    if isinstance(head, RetrieveHead):
        items, width = bundle.array(head.embeddings).shape
        threshold = "no threshold" if head.threshold is None else f"none of these below {head.threshold:.3g}"
        return f"retrieve by {head.metric}: {items} items of width {width}, best {head.k}, {threshold}"
    if isinstance(head, ClassifyHead):
        return f"classify: {', '.join(head.labels)}; temperature {head.temperature:g}"
    return f"embedding: {head.output}"


def _step(step: msgspec.Struct) -> str:
    values = msgspec.to_builtins(step)
    name = values.pop("step")
    return " ".join([name, *(f"{key}={_plain(value)}" for key, value in values.items())])


def _plain(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 400 else text[:400] + "..."


def _files(bundle: Bundle) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("file")
    table.add_column("bytes", justify="right")
    table.add_column("sha256", overflow="fold")
    for name, digest in bundle.files.items():
        table.add_row(Text(name), f"{bundle.sizes[name]}", digest[:16])
    return table


def _print_check(console: Console, check: Check) -> None:
    mark = "[green]ok[/]    " if check.ok else "[red]failed[/]"
    console.print(mark, f"[bold]{check.name}[/]", end="  ")
    console.print(str(check.error) if check.error is not None else check.figure, markup=False, soft_wrap=True)
