"""Every claim that an entry makes, tried: parameters, export, parity, latency, and a live session in the daemon."""

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdecode.encode.bundle import Bundle
from rtdecode.errors import RtdecodeError
from rtdecode_export.latency import paced
from rtdecode_models.zoo.bundle import build, untrained
from rtdecode_models.zoo.entry import Entry
from rtdecode_models.zoo.live import Live, run_live

#: The largest absolute difference between PyTorch and onnxruntime that passes, in fp32.
PARITY = 1e-4
#: How many windows are timed.
TIMED = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What was seen of one system.

    Parameters
    ----------
    name : str
        The entry's.
    parameters, published : int or None
        Counted now, and as published.
    parity : float
        Largest absolute difference of any output between PyTorch and onnxruntime.
    p50_ms, p99_ms : float
        Of the encoder alone, paced, in the daemon's own engine.
    live : Live or None
        What the daemon gave; None where it was not asked for.
    fault : str
        What went wrong; empty where nothing did.
    result : mapping
        What the system scored on its simulated experiment; empty where it was not trained.
    """

    name: str
    parameters: int = 0
    published: int | None = None
    parity: float = math.nan
    p50_ms: float = math.nan
    p99_ms: float = math.nan
    live: Live | None = None
    fault: str = ""
    result: Mapping[str, Any]

    @property
    def good(self) -> bool:
        """Whether nothing went wrong and everything that was tried held."""
        return not self.fault


def check(
    entry: Entry,
    folder: Path,
    result: Mapping[str, Any],
    *,
    live_s: float | None,
    say: Callable[[str], None] = lambda _: None,
) -> Row:
    """Try one system.

    Parameters
    ----------
    entry : Entry
        Which.
    folder : Path
        Its bundle is written there, as ``NAME.zip``.
    result : mapping
        What it scored; passed on.
    live_s : float or None
        Seconds of a live session; None for none.
    say : callable
        Told what is being tried.
    """
    seen: dict[str, Any] = {"name": entry.name, "published": entry.published, "result": result}
    try:
        say("parameters")
        seen["parameters"] = sum(p.numel() for p in build(entry).parameters() if p.requires_grad)
        say("export and parity")
        out = folder / f"{entry.name}.zip"
        report = untrained(entry, out, overwrite=True)
        seen["parity"] = max(report.errors.values())
        say("latency")
        seen["p50_ms"], seen["p99_ms"] = latency(out, entry.threads)
        if live_s is not None:
            say("live")
            seen["live"] = run_live(out, entry.budget_ms, seconds=live_s, threads=entry.threads)
        seen["fault"] = "; ".join(_faults(entry, seen))
    except RtdecodeError as error:
        seen["fault"] = f"{type(error).__name__}: {error}"
    return Row(**seen)


def _faults(entry: Entry, seen: Mapping[str, Any]) -> list[str]:
    """What does not hold."""
    faults = []
    if seen["parameters"] != entry.parameters:
        faults.append(f"{seen['parameters']:,} parameters; the entry says {entry.parameters:,}")
    if not seen["parity"] <= PARITY:
        faults.append(f"onnxruntime differs from PyTorch by {seen['parity']:.2g}")
    live: Live | None = seen.get("live")
    if live is not None and not live.good:
        statuses = ", ".join(f"{count} {status}" for status, count in sorted(live.statuses.items()))
        faults.append(f"live: {live.met} of {live.windows} windows within {live.budget_ms:g} ms ({statuses})")
    return faults


def latency(bundle: Path, threads: int) -> tuple[float, float]:
    """Median and 99th percentile, in ms, of the daemon's engine on the bundle's golden windows, paced."""
    opened = Bundle.open(bundle)
    windows = opened.array(opened.manifest.golden.windows)
    took = paced(opened.onnx_bytes(), windows, TIMED, opened.manifest.encoder.precision, threads)
    return took.p50_ms, took.p99_ms


def scratch() -> "tempfile.TemporaryDirectory[str]":
    """A folder for bundles that nobody asked to keep."""
    return tempfile.TemporaryDirectory(prefix="rtdecode-zoo-")
