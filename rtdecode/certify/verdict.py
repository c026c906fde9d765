"""PASS, FAIL or INCONCLUSIVE, by a rule that is written down (docs/certify.md). Arithmetic alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rtdecode.certify.analysis import STATUSES, Series
from rtdecode.certify.figures import lower_bound, upper_bound, windows_needed
from rtdecode.certify.listener import Counted, Seen, Told

#: Events that say that samples, or windows, were lost on the way, or that a process was.
LOSSES = frozenset({"gap", "lost", "reconnect", "invalidated", "samples not recorded", "recording failed"})
CRASHES = frozenset({"crashed", "given up", "restarted", "restart"})


class Verdict(StrEnum):
    """What it comes to."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True)
class Rule:
    """What is required.

    Parameters
    ----------
    require : float
        Share of the windows that must come within their budget.
    confidence : float
        Of the bounds by which that is shown, or refuted.
    """

    require: float
    confidence: float

    def __str__(self) -> str:
        share, sure = f"{100 * self.require:.10g} %", f"{100 * self.confidence:.10g} %"
        return (
            f"PASS: with {sure} confidence at least {share} of each pipeline's windows come within its budget, nothing "
            f"is lost, no process fails, and all counters add up. FAIL: with {sure} confidence they do not, or one of "
            "the others is not so. INCONCLUSIVE: neither is shown."
        )


@dataclass(frozen=True, slots=True)
class Judged:
    """One pipeline's verdict.

    Parameters
    ----------
    verdict : Verdict
    budget_ms : float or None
    counts : dict of str to int
        Windows of the span by status.
    counted, good, bursts : int
        Those that count, those of them that came in time, and the runs of neighbours in which the others did not.
    lower, upper : float
        Bounds on the share.
    reasons : tuple of str
        Why it is not PASS.
    """

    verdict: Verdict
    budget_ms: float | None
    counts: dict[str, int]
    counted: int
    good: int
    bursts: int
    lower: float
    upper: float
    reasons: tuple[str, ...] = ()

    @property
    def share(self) -> float | None:
        """Of the windows that count, those that came in time; None where none counts."""
        return self.good / self.counted if self.counted else None


def judge(series: Sequence[Series], budget_ms: float | None, rule: Rule) -> Judged:
    """The verdict on one pipeline's windows, of all its kinds together."""
    counts = {status: sum(one.counts[status] for one in series) for status in STATUSES}
    counted = sum(int(one.counted.sum()) for one in series)
    good = sum(int((one.counted & one.good).sum()) for one in series)
    lower, upper = lower_bound(good, counted, rule.confidence), upper_bound(good, counted, rule.confidence)
    verdict, reasons = Verdict.PASS, []
    if budget_ms is None:
        verdict = Verdict.INCONCLUSIVE
        reasons.append("it has no budget: set budget_ms in the configuration, or give --budget-ms")
    elif counted and upper < rule.require:
        verdict = Verdict.FAIL
        reasons.append(
            f"{good} of {counted} windows came within {budget_ms:g} ms: with {rule.confidence:.10g} confidence at most "
            f"{100 * upper:.4g} %, and {100 * rule.require:.10g} % are required"
        )
    elif lower < rule.require:
        verdict = Verdict.INCONCLUSIVE
        reasons.append(
            f"{good} of {counted} windows came within {budget_ms:g} ms, which shows {100 * lower:.4g} % "
            f"and not {100 * rule.require:.10g} %; {more_windows(counted - good, counted, rule)}"
        )
    bursts = sum(one.bursts for one in series)
    return Judged(verdict, budget_ms, counts, counted, good, bursts, lower, upper, tuple(reasons))


def more_windows(missed: int, windows: int, rule: Rule) -> str:
    """How many windows would show what these do not, were they to go on as they did."""
    if not missed:
        return f"{windows_needed(rule.require, rule.confidence)} windows without a miss would: measure longer"
    if not windows or missed / windows >= 1 - rule.require:
        return (
            "the share that was seen is below what is required, and too few windows came to refute it: measure longer"
        )
    low = high = windows
    share = 1 - missed / windows
    while lower_bound(round(share * high), high, rule.confidence) < rule.require:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        enough = lower_bound(round(share * middle), middle, rule.confidence) >= rule.require
        low, high = (low, middle) if enough else (middle, high)
    return f"about {high} windows with as few misses would: measure longer"


@dataclass(frozen=True, slots=True)
class Accounts:
    """Whether every window is accounted for, of the whole session.

    Parameters
    ----------
    taken : dict of str to int
        Windows by status, as the subscriber took them.
    said : dict of str to int or None
        The same as the pipeline counted them; None where its last count did not come.
    before : int
        Windows that were out before the subscriber was there, by the number of its first one.
    problems : tuple of str
        What does not add up.
    """

    taken: dict[str, int]
    said: dict[str, int] | None
    before: int
    problems: tuple[str, ...]


def accounts(windows: Iterable[Seen], said: Counted | None) -> Accounts:
    """Hold what came against what a pipeline says that it published."""
    taken = dict.fromkeys(STATUSES, 0)
    before: int | None = None
    for window in windows:
        taken[window.status] += 1
        before = window.seq if before is None else before
    before = before or 0
    if said is None:
        return Accounts(taken, None, before, ("the pipeline's last count did not come",))
    problems = []
    theirs = {status: said.counts.get(status, 0) for status in STATUSES}
    if said.due != sum(theirs.values()):
        problems.append(f"the pipeline counted {said.due} due windows and {sum(theirs.values())} published ones")
    if said.pending:
        problems.append(f"{said.pending} windows were due and not published")
    # Of those that were out before, the number is known and not what became of them.
    problems += [
        f"{n} windows were published as {status}, and {taken[status]} came"
        for status, n in theirs.items()
        if n < taken[status] or (n > taken[status] and not before)
    ]
    if before and sum(theirs.values()) != sum(taken.values()) + before:
        problems.append(
            f"{sum(theirs.values())} windows were published, {before} before the subscriber was there, and "
            f"{sum(taken.values())} came"
        )
    if said.lost or said.malformed:
        problems.append(f"{said.lost} messages were lost on the way to the subscriber, {said.malformed} not readable")
    return Accounts(taken, theirs, before, tuple(problems))


@dataclass(slots=True)
class Whole:
    """The verdict on a session.

    Parameters
    ----------
    verdict : Verdict
    reasons : list of str
        Why it is not PASS.
    """

    verdict: Verdict
    reasons: list[str] = field(default_factory=list)


def whole(
    judged: Mapping[str, Judged],
    accounted: Mapping[str, Accounts],
    faults: Sequence[str],
    losses: Sequence[str],
    partial: str,
) -> Whole:
    """All pipelines and everything around them.

    Parameters
    ----------
    judged, accounted : mapping of str to Judged, Accounts
        By pipeline.
    faults, losses : sequence of str
        Processes that failed; samples, windows or recordings that were lost.
    partial : str
        Why less was measured than was asked for; empty where all was.
    """
    fails = [*faults, *losses]
    fails += [f"pipeline {name}: {text}" for name, one in accounted.items() for text in one.problems]
    fails += _reasons(judged, Verdict.FAIL)
    if fails:
        return Whole(Verdict.FAIL, fails)
    open_ones = ([f"not all was measured: {partial}"] if partial else []) + _reasons(judged, Verdict.INCONCLUSIVE)
    return Whole(Verdict.INCONCLUSIVE if open_ones else Verdict.PASS, open_ones)


def _reasons(judged: Mapping[str, Judged], verdict: Verdict) -> list[str]:
    return [
        f"pipeline {name}: {text}" for name, one in judged.items() if one.verdict is verdict for text in one.reasons
    ]


def losses(events: Iterable[Told], begin: float, end: float, *, played: bool) -> list[str]:
    """What was announced as lost in the span, each thing once; the holes of a recording are not ours."""
    found: dict[str, int] = {}
    for event in events:
        told = event.event in LOSSES - ({"gap", "reconnect", "invalidated"} if played else set())
        if (told and begin <= event.stamp < end) or event.event in CRASHES:
            text = f"{event.event}: {event.text}"
            found[text] = found.get(text, 0) + 1
    return list(found)


def as_dict(one: Judged) -> dict[str, Any]:
    """For the certificate."""
    return {
        "verdict": one.verdict.value,
        "reasons": list(one.reasons),
        "budget_ms": one.budget_ms,
        "windows": one.counts,
        "counted": one.counted,
        "in_budget": one.good,
        "missed": one.counted - one.good,
        "bursts_of_misses": one.bursts,
        "share": one.share,
        "lower": one.lower,
        "upper": one.upper,
    }
