"""How often a decoder was right, where markers tell the truth."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from scipy.special import betainc

from rtdecode.encode.manifest import ClassifyHead, HeadSpec, RetrieveHead
from rtdecode.heads.outputs import HeadOutput
from rtdecode.stream.window import matches


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """What came of all windows whose truth was known.

    `chance` is that of one guess among equally likely names, `chance_topk` that of k; `p_value` is the one-sided
    binomial probability of as many `top1` hits or more by guessing.
    """

    windows: int
    top1: float
    topk: float
    k: int
    chance: float
    chance_topk: float
    p_value: float


@dataclass
class Score:
    """Counts right and wrong answers of one head.

    Parameters
    ----------
    head : HeadSpec
        What the bundle says of it.
    names : sequence of str
        Names of the classes or of the gallery's items.
    """

    head: HeadSpec
    names: Sequence[str]
    hits: int = 0
    hits_topk: int = 0
    total: int = 0
    confusion: Counter[tuple[str, str]] = field(default_factory=Counter)

    def truth(self, marker: str) -> str | None:
        """The name that a marker's value stands for, or None.

        For classes the head's own rules say it; for a gallery it is the item named by the value, or by its part after
        the last slash (``concept/apple``).
        """
        if isinstance(self.head, ClassifyHead):
            for name, patterns in self.head.markers.items():
                if matches(marker, patterns):
                    return name
            return marker if marker in self.names else None
        if marker in self.names:
            return marker
        last = marker.rpartition("/")[2]
        return last if last in self.names else None

    def add(self, marker: str, output: HeadOutput) -> bool | None:
        """Count one window. Returns whether its best answer was right, or None where the truth is not known."""
        truth = self.truth(marker)
        if truth is None:
            return None
        answers = _answers(output)
        if not answers:
            return None
        self.total += 1
        self.hits += answers[0] == truth
        self.hits_topk += truth in answers[: self.k]
        self.confusion[truth, answers[0]] += 1
        return answers[0] == truth

    @property
    def k(self) -> int:
        """How many answers count for `topk`."""
        return self.head.k if isinstance(self.head, RetrieveHead) else 1

    def accuracy(self) -> Accuracy | None:
        """The result so far, or None before the first window with a known truth."""
        if not self.total:
            return None
        chance = 1 / len(self.names)
        return Accuracy(
            windows=self.total,
            top1=self.hits / self.total,
            topk=self.hits_topk / self.total,
            k=self.k,
            chance=chance,
            chance_topk=min(1.0, self.k / len(self.names)),
            p_value=binomial_tail(self.hits, self.total, chance),
        )


def binomial_tail(hits: int, total: int, p: float) -> float:
    """Probability of `hits` or more successes in `total` independent trials of probability `p`."""
    # As an incomplete beta function, which no number of trials overflows (Abramowitz and Stegun, eq. 26.5.24).
    return float(betainc(hits, total - hits + 1, p)) if hits > 0 else 1.0


def _answers(output: HeadOutput) -> tuple[str, ...]:
    if output.retrieval is not None:
        return output.retrieval.names
    return (output.label.best,) if output.label is not None else ()
