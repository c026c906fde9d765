"""What the windows of the measured span say: stages, and who was in time. Reads no clock."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from rtdecode.certify.figures import CONFIDENCE, SHARES, Distribution, bursts, distribution
from rtdecode.certify.listener import Seen
from rtdecode.wire.messages import Status

STATUSES: tuple[str, ...] = get_args(Status)

#: The ledger's moments, in the order in which they pass (docs/wire.md), and the subscriber's own.
MOMENTS = ("stamp", "arrived", "received", "due", "encoded", "published", "taken")

#: Stage -> the two moments that it lies between. They follow one another: together they are ``end_to_end``.
STAGES: dict[str, tuple[str, str]] = {
    "acquire": ("stamp", "arrived"),
    "bus": ("arrived", "received"),
    "condition": ("received", "due"),
    "encode": ("due", "encoded"),
    "publish": ("encoded", "published"),
    "deliver": ("published", "taken"),
}

#: What several stages take together: of ``processing`` the budget speaks.
SPANS: dict[str, tuple[str, str]] = {"processing": ("arrived", "published"), "end_to_end": ("stamp", "taken")}

#: What a machine could have brought in time; of the others samples were missing or bad, whatever the machine does.
COUNTED = frozenset({"ok", "late", "skipped", "failed"})


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """The windows of one kind that became due in the span, in order.

    Parameters
    ----------
    pipeline, window : str
        Which.
    locked : bool
        Whether they hang on markers.
    moments : ndarray of float64, shape (windows, 7)
        `MOMENTS` in host-clock seconds; NaN where one did not happen.
    statuses : tuple of str
        Of each.
    good : ndarray of bool, shape (windows,)
        Whether it came within its budget, with its result.
    """

    pipeline: str
    window: str
    locked: bool
    moments: NDArray[np.float64]
    statuses: tuple[str, ...]
    good: NDArray[np.bool_]

    def between(self, begin: str, end: str) -> NDArray[np.float64]:
        """Milliseconds from one moment to another, shape (windows,); NaN of windows without a result."""
        first, last = self.moments[:, MOMENTS.index(begin)], self.moments[:, MOMENTS.index(end)]
        decoded = ~np.isnan(self.moments[:, MOMENTS.index("encoded")])
        return np.asarray(np.where(decoded, (last - first) * 1e3, np.nan))

    def stage(self, name: str) -> NDArray[np.float64]:
        """One of `STAGES` or `SPANS`, or ``overhead``: processing without the encoder."""
        if name == "overhead":
            return np.asarray(self.between(*SPANS["processing"]) - self.between(*STAGES["encode"]))
        return self.between(*(STAGES | SPANS)[name])

    def distribution(self, name: str, confidence: float = CONFIDENCE) -> Distribution | None:
        """Of one stage; None where no window was decoded."""
        return distribution(self.stage(name), confidence)

    @property
    def counts(self) -> dict[str, int]:
        """How many of each status."""
        found = Counter(self.statuses)
        return {status: found[status] for status in STATUSES}

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Which windows a machine could have brought in time, shape (windows,)."""
        return np.array([status in COUNTED for status in self.statuses], bool)

    @property
    def missed(self) -> NDArray[np.bool_]:
        """Which of those it did not, shape (windows,)."""
        return np.asarray(self.counted & ~self.good)

    @property
    def bursts(self) -> int:
        """In how many runs of neighbours it missed them."""
        return bursts(self.missed[self.counted].tolist())


def series(windows: Iterable[Seen], begin: float, end: float) -> list[Series]:
    """The windows that became due in [begin, end), by pipeline and kind of window.

    One that no clock saw become due counts by its publication.
    """
    groups: dict[tuple[str, str], list[Seen]] = {}
    for window in windows:
        at = window.due if window.due is not None else window.published
        if at is not None and begin <= at < end:
            groups.setdefault((window.pipeline, window.window), []).append(window)
    return [_series(pipeline, name, found) for (pipeline, name), found in sorted(groups.items())]


def _series(pipeline: str, window: str, found: Sequence[Seen]) -> Series:
    moments = np.array(
        [[math.nan if (at := getattr(one, name)) is None else at for name in MOMENTS] for one in found], np.float64
    ).reshape(-1, len(MOMENTS))
    return Series(
        pipeline,
        window,
        any(one.locked for one in found),
        moments,
        tuple(one.status for one in found),
        np.array([in_time(one) for one in found], bool),
    )


def in_time(window: Seen) -> bool:
    """Whether a window came with its result, within its budget where it has one."""
    return window.status == "ok" and window.met is not False


@dataclass(frozen=True, slots=True)
class Bci2000:
    """The terms of BCI2000 (docs/certify.md), in milliseconds; jitter is a standard deviation.

    Parameters
    ----------
    block_ms, block_jitter_ms : float or None
        From one chunk's arrival to the next; None where no chunks were watched.
    block_samples : float or None
        In a chunk, on average.
    processing_ms, processing_jitter_ms : float
        From the newest sample's arrival to publication.
    output_ms, output_jitter_ms : float
        From publication to the subscriber's hands.
    system_ms, system_jitter_ms : float
        From the newest sample's stamp to the subscriber's hands.
    """

    block_ms: float | None
    block_jitter_ms: float | None
    block_samples: float | None
    processing_ms: float
    processing_jitter_ms: float
    output_ms: float
    output_jitter_ms: float
    system_ms: float
    system_jitter_ms: float


def bci2000(one: Series, blocks: Sequence[tuple[float, int]]) -> Bci2000 | None:
    """A series in BCI2000's terms; None where no window was decoded.

    Parameters
    ----------
    one : Series
    blocks : sequence of (float, int)
        Arrival and number of samples of the chunks of its source.
    """
    found = [one.distribution(name) for name in ("processing", "deliver", "end_to_end")]
    processing, output, system = found
    if processing is None or output is None or system is None:
        return None
    between = distribution(np.diff([at for at, _ in blocks]) * 1e3) if len(blocks) > 1 else None
    return Bci2000(
        None if between is None else between.mean,
        None if between is None else between.sd,
        None if between is None else float(np.mean([n for _, n in blocks])),
        processing.mean,
        processing.sd,
        output.mean,
        output.sd,
        system.mean,
        system.sd,
    )


def plain(found: Distribution | None) -> dict[str, Any] | None:
    """A distribution as it stands in the certificate."""
    if found is None:
        return None
    percentiles = {
        percent_name(one.share): {
            "ms": _rounded(one.ms),
            "upper_ms": None if one.upper_ms is None else _rounded(one.upper_ms),
            "windows_beyond": one.beyond,
            "supported": one.supported,
        }
        for one in found.percentiles
    }
    return {
        "windows": found.windows,
        "mean_ms": _rounded(found.mean),
        "sd_ms": _rounded(found.sd),
        "worst_ms": _rounded(found.worst),
        "percentiles": percentiles,
    }


def percent_name(share: float) -> str:
    """``p99.9`` of 0.999."""
    return f"p{share * 100:.10g}"


#: All percentiles' names.
PERCENTILES: Mapping[float, str] = {share: percent_name(share) for share in SHARES}


def _rounded(ms: float) -> float:
    return round(ms, 4)
