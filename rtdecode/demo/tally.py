"""What came of a demo: counts, hits, latencies; fed with messages, read by the view and the summary."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np

from rtdecode.score import binomial_tail
from rtdecode.wire.messages import Health, Ledger, Status, Window

STATUSES: tuple[str, ...] = get_args(Status)

#: Stage -> the two moments of the ledger that it lies between, in the order in which they pass.
STAGES: dict[str, tuple[str, str]] = {
    "transport": ("stamp", "arrived"),
    "bus": ("arrived", "received"),
    "condition": ("received", "due"),
    "encode": ("due", "encoded"),
    "publish": ("encoded", "published"),
    "total": ("arrived", "published"),
    "from_sample": ("stamp", "published"),
}


@dataclass(frozen=True, slots=True)
class Trial:
    """One window as a viewer sees it.

    Parameters
    ----------
    truth : str or None
        What was shown, by its marker.
    names : tuple of str
        Decoded, best first; empty where nothing was.
    scores : tuple of float
        Of those.
    none_of_these : bool
        Whether the best score was below the calibrated threshold.
    status : str
        Of the window.
    reason : str
        Why it is not `ok`.
    total_ms : float
        From arrival to publication; NaN where unknown.
    """

    truth: str | None
    names: tuple[str, ...]
    scores: tuple[float, ...]
    none_of_these: bool
    status: str
    reason: str
    total_ms: float

    @property
    def rank(self) -> int | None:
        """Place of the truth among the answers, from 1; None where it is not there."""
        return self.names.index(self.truth) + 1 if self.truth in self.names else None


@dataclass
class Tally:
    """Counts the windows of one pipeline.

    Parameters
    ----------
    items : int
        Size of the gallery, for chance.
    budget_ms : float
        Allowed time from arrival to publication.
    k : int
        Answers that each window gives.
    health : Health or None
        The daemon's own count, the latest that came.
    """

    items: int
    budget_ms: float
    k: int = 5
    health: Health | None = None
    statuses: Counter[str] = field(default_factory=Counter)
    trials: list[Trial] = field(default_factory=list)
    _ms: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    _met: list[bool] = field(default_factory=list)

    def add(self, window: Window) -> Trial:
        """Count a window."""
        for stage, between in STAGES.items():
            took = _between(window.ledger, *between)
            if not math.isnan(took):
                self._ms[stage].append(took)
        if window.ledger.met is not None:
            self._met.append(window.ledger.met)
        marker = "" if window.marker is None else window.marker.value
        found = window.retrieval
        trial = Trial(
            truth=marker.partition("concept/")[2] or None,
            names=() if found is None else found.names,
            scores=() if found is None else found.scores,
            none_of_these=found is not None and found.none_of_these is True,
            status=window.status,
            reason=window.reason,
            total_ms=_between(window.ledger, *STAGES["total"]),
        )
        self.statuses[window.status] += 1
        self.trials.append(trial)
        return trial

    @property
    def windows(self) -> int:
        """All windows that came."""
        return len(self.trials)

    @property
    def accounted(self) -> bool:
        """Whether there were windows, and just as many of each status as the daemon counted."""
        if self.health is None or not self.trials:
            return False
        counted = {status: n for status, n in self.health.counts.items() if n}
        return counted == dict(self.statuses) and self.health.due == self.windows

    @property
    def decoded(self) -> int:
        """Windows with an answer."""
        return sum(bool(trial.names) for trial in self.trials)

    def hits(self, k: int) -> int:
        """Windows whose truth was among the first k answers."""
        return sum(trial.rank is not None and trial.rank <= k for trial in self.trials)

    def share(self, k: int) -> float | None:
        """Hits as a share of the windows with an answer; None before the first."""
        return self.hits(k) / self.decoded if self.decoded else None

    def chance(self, k: int) -> float:
        """What guessing would give."""
        return min(1.0, k / self.items)

    def p_value(self, k: int) -> float | None:
        """One-sided binomial probability of so many hits by guessing; None before the first answer."""
        return binomial_tail(self.hits(k), self.decoded, self.chance(k)) if self.decoded else None

    @property
    def met(self) -> float | None:
        """Share of the windows that met the budget; None where none was measured."""
        return sum(self._met) / len(self._met) if self._met else None

    def latency(self, stage: str) -> tuple[float, float] | None:
        """p50 and p99 of a stage in milliseconds; None where it was never measured."""
        took = self._ms[stage]
        return (float(np.percentile(took, 50)), float(np.percentile(took, 99))) if took else None

    def summary(self) -> dict[str, Any]:
        """The figures, for ``--json``."""
        return {
            "windows": self.windows,
            "statuses": {status: self.statuses[status] for status in STATUSES},
            "due": None if self.health is None else self.health.due,
            "decoded": self.decoded,
            "top1": _rounded(self.share(1)),
            "top5": _rounded(self.share(self.k)),
            "chance": _rounded(self.chance(1)),
            "chance_top5": _rounded(self.chance(self.k)),
            "p_value": self.p_value(1),
            "top1_interval_95": [round(bound, 4) for bound in wilson(self.hits(1), self.decoded)],
            "none_of_these": sum(trial.none_of_these for trial in self.trials),
            "latency_ms": {
                stage: {"p50": round(both[0], 3), "p99": round(both[1], 3)}
                for stage in STAGES
                if (both := self.latency(stage)) is not None
            },
            "budget_ms": self.budget_ms,
            "met": _rounded(self.met),
        }


def wilson(hits: int, total: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, Journal of the American Statistical Association 1927); (0, 1) of nothing."""
    if not total:
        return 0.0, 1.0
    z = 1.959964
    share = hits / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def _between(ledger: Ledger, begin: str, end: str) -> float:
    first, last = getattr(ledger, begin), getattr(ledger, end)
    return math.nan if first is None or last is None else (last - first) * 1e3


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)
