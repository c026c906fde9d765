"""The learning rate over a training, as a function of how much of it is done: nothing to remember, nothing to save."""

import math
from collections.abc import Iterator

import msgspec


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """Base: `warmup` is the share of the training over which the rate rises from 0, in a straight line."""

    warmup: float = 0.0

    def rules(self) -> Iterator[tuple[str, bool, str]]:
        """Key, whether it is fine, what was expected; `warmup` is checked with the recipe."""
        yield from ()

    def rest(self, done: float) -> float:
        """Factor on the learning rate when this share of what follows the warm-up is done."""
        raise NotImplementedError

    def factor(self, progress: float) -> float:
        """Factor on the learning rate when this share of the training is done."""
        if progress < self.warmup:
            return progress / self.warmup
        return self.rest((progress - self.warmup) / (1 - self.warmup))


class Constant(Schedule, frozen=True, kw_only=True, tag="constant"):
    """The same rate throughout."""

    def rest(self, done: float) -> float:
        """Always 1."""
        return 1.0


class Steps(Schedule, frozen=True, kw_only=True, tag="step"):
    """Multiplied by `factor_at` at each of these shares."""

    at: tuple[float, ...] = (0.8,)
    factor_at: float = 0.1

    def rules(self) -> Iterator[tuple[str, bool, str]]:
        """Steps are within the training."""
        yield "at", all(0 < share < 1 for share in self.at), f"is {list(self.at)}; expected shares between 0 and 1"
        yield "factor_at", 0 <= self.factor_at < math.inf, f"is {self.factor_at}; expected 0 or more"

    def rest(self, done: float) -> float:
        """A power of the factor."""
        # the last step before a share like 0.8 must not count as past it by rounding
        return self.factor_at ** sum(done >= share - 1e-9 for share in self.at)


class Cosine(Schedule, frozen=True, kw_only=True, tag="cosine"):
    """Half a cosine from 1 to `final` (Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5, without restarts)."""

    final: float = 0.0

    def rules(self) -> Iterator[tuple[str, bool, str]]:
        """The end is a factor."""
        yield "final", 0 <= self.final < math.inf, f"is {self.final}; expected 0 or more"

    def rest(self, done: float) -> float:
        """From 1 to `final`."""
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2


class OneCycle(Schedule, frozen=True, kw_only=True, tag="onecycle"):
    """Up from 1/`first` over `rise` of the training, then down to 1/(`first` `last`), both along half a cosine.

    Smith and Topin 2018 (arXiv:1708.07120), with the divisors that torch's OneCycleLR has; the momentum stays as it is.
    """

    rise: float = 0.3
    first: float = 25.0
    last: float = 1e4

    def rules(self) -> Iterator[tuple[str, bool, str]]:
        """There is a rise and a fall, and they are divisors."""
        yield "rise", 0 < self.rise < 1, f"is {self.rise}; expected a share between 0 and 1"
        yield "first", 1 <= self.first < math.inf, f"is {self.first}; expected a divisor, 1 or more"
        yield "last", 1 <= self.last < math.inf, f"is {self.last}; expected a divisor, 1 or more"

    def rest(self, done: float) -> float:
        """At most 1, the recipe's rate."""
        if done < self.rise:
            return _between(1 / self.first, 1.0, done / self.rise)
        return _between(1.0, 1 / (self.first * self.last), (done - self.rise) / (1 - self.rise))


AnySchedule = Constant | Steps | Cosine | OneCycle


def _between(start: float, stop: float, done: float) -> float:
    return stop + (start - stop) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
