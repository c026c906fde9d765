"""What a certification comes to, as one JSON object: everything that the table, the page and the pictures show."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from rtdecode.certify.advice import advise
from rtdecode.certify.analysis import SPANS, STAGES, Series, bci2000, plain, series
from rtdecode.certify.session import Measured
from rtdecode.certify.verdict import Judged, Rule, accounts, as_dict, judge, losses, whole

FORMAT, VERSION = "rtdecode-certificate", 1

#: A stand-in whose median chunk leaves later than so many chunks' length does not keep pace.
_LATE_CHUNKS = 1.0


def certificate(measured: Measured, rule: Rule) -> tuple[dict[str, Any], list[Series]]:
    """The certificate, and the windows that it speaks of."""
    plan = measured.plan
    found = series(measured.windows, measured.begin, measured.end)
    budgets = plan.budgets
    judged = {name: judge([one for one in found if one.pipeline == name], budgets[name], rule) for name in plan.bundles}
    accounted = {
        name: accounts((one for one in measured.windows if one.pipeline == name), measured.counted.get(name))
        for name in plan.bundles
    }
    played = plan.config.paced
    lost = losses(measured.events, measured.begin, measured.end, played=played)
    partial = "" if played and not measured.interrupted else measured.ended_early
    verdict = whole(judged, accounted, measured.faults, lost, partial or _out_of_pace(measured))
    pipelines = {name: _pipeline(measured, name, judged[name], found, rule) for name in plan.bundles}
    for name, one in accounted.items():
        pipelines[name]["accounts"] = {
            "taken": one.taken,
            "published": one.said,
            "before": one.before,
            "problems": list(one.problems),
        }
    return {
        "format": FORMAT,
        "version": VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "verdict": verdict.verdict.value,
        "reasons": verdict.reasons,
        "rule": {"require": rule.require, "confidence": rule.confidence, "text": str(rule)},
        "config": str(plan.config.path),
        "notes": plan.notes,
        "load": str(measured.load),
        "seconds": round(measured.seconds, 3),
        "asked_seconds": measured.asked_s,
        "interrupted": measured.interrupted,
        "ended_early": measured.ended_early,
        "clock": sorted({one.clock for one in measured.described.values()}),
        "pipelines": pipelines,
        "lost": lost,
        "faults": measured.faults,
        "sender": measured.sender,
        "advice": [one.as_dict() for one in advise(measured, found, judged)],
        "machine": measured.machine,
        "kernel": measured.kernel,
        "before": measured.before,
    }, found


def _out_of_pace(measured: Measured) -> str:
    """Why the stand-in was no amplifier; empty where it was."""
    late = measured.sender.get("p50_ms", 0.0)
    for standin in measured.plan.standins.values():
        chunk_ms = 1e3 * standin.chunk / standin.sfreq
        if late > _LATE_CHUNKS * chunk_ms:
            return f"the sender did not keep pace: half of its {chunk_ms:g} ms chunks left more than {late:.1f} ms late"
    return ""


def _pipeline(measured: Measured, name: str, judged: Judged, found: list[Series], rule: Rule) -> dict[str, Any]:
    described = measured.described.get(name)
    return {
        **as_dict(judged),
        "bundle": {
            "name": measured.plan.bundles[name].manifest.name,
            "id": measured.plan.bundles[name].id,
            "path": str(measured.plan.config.pipelines[name].bundle),
        },
        "stream": None if described is None else msgspec.to_builtins(described),
        "engine": None if described is None else msgspec.to_builtins(described.engine),
        "kinds": {one.window: _kind(measured, one, rule) for one in found if one.pipeline == name},
    }


def _kind(measured: Measured, one: Series, rule: Rule) -> dict[str, Any]:
    """One kind of window: every stage, and BCI2000's terms."""
    names = [*STAGES, *SPANS, "overhead"]
    terms = bci2000(one, measured.blocks)
    return {
        "locked": one.locked,
        "windows": one.counts,
        "stages": {name: plain(one.distribution(name, rule.confidence)) for name in names},
        "bci2000": None
        if terms is None
        else {key: None if value is None else round(value, 4) for key, value in _fields(terms).items()},
    }


def _fields(terms: Any) -> dict[str, float | None]:
    return {name: getattr(terms, name) for name in terms.__slots__}
