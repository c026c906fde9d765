"""What to change to gain what: rules that look at what was measured, each with the figure that it rests on.

A rule that does not apply says nothing. A gain is what the measured figures allow at most, not a promise.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rtdecode.certify.advice_machine import Advice, machine_advice
from rtdecode.certify.analysis import Series
from rtdecode.certify.figures import Distribution
from rtdecode.certify.session import Measured
from rtdecode.certify.verdict import Judged
from rtdecode.config import PipelineConfig
from rtdecode.stream.window import Locked, Sliding, WindowSpec

#: Seconds by which markers have to be complete before a window is, so that it never waits for them.
_SPARE_S = 0.1

#: A share of the whole from which on something is worth a word, and milliseconds below which nothing is.
_LARGE, _SMALL_MS = 0.3, 0.5


@dataclass(frozen=True, slots=True)
class Facts:
    """One kind of window of one pipeline, and everything around it.

    Parameters
    ----------
    measured : Measured
    series : Series
    judged : Judged
    spec : WindowSpec
    stages : mapping of str to Distribution
        Of the series.
    """

    measured: Measured
    series: Series
    judged: Judged
    spec: WindowSpec
    stages: Mapping[str, Distribution]

    @property
    def pipeline(self) -> PipelineConfig:
        """Its configuration."""
        return self.measured.plan.config.pipelines[self.series.pipeline]

    @property
    def engine(self) -> dict[str, Any]:
        """What the pipeline says of its engine."""
        described = self.measured.described.get(self.series.pipeline)
        return {} if described is None else dict(described.engine)

    @property
    def encode_ms(self) -> float:
        """What one encode takes at the median, without the windows that wait before it."""
        counted = self.measured.counted.get(self.series.pipeline)
        found = {} if counted is None else counted.p50_ms
        return found.get("encode", self.stages["encode"].p50)

    def waited_ms(self, name: str) -> float:
        """Milliseconds for each window in which a process was ready to run and did not."""
        waited = self.measured.kernel.get("processes", {}).get(name, {}).get("waited_s", 0.0)
        return float(waited) * 1e3 / max(1, sum(self.judged.counts.values()))

    @property
    def idle_cores(self) -> float:
        """Cores that nobody used."""
        kernel = self.measured.kernel
        used: float = kernel.get("cpu_s", 0.0) / kernel["seconds"]
        return float(self.measured.machine.get("usable_cores") or 1) - used

    def say(self, rule: str, figure: str, change: str, gain: str, gain_ms: float | None = None) -> Advice:
        """Advice about this pipeline."""
        return Advice(rule, self.series.pipeline, figure, change, gain, gain_ms)


def advise(measured: Measured, series: list[Series], judged: Mapping[str, Judged]) -> list[Advice]:
    """All that applies, the largest gain first."""
    found: list[Advice] = list(machine_advice(measured))
    for one in series:
        stages = {name: one.distribution(name) for name in _STAGES}
        spec = next(spec for spec in measured.plan.windows(one.pipeline) if spec.name == one.window)
        known = {name: stage for name, stage in stages.items() if stage is not None}
        if len(known) == len(stages):
            facts = Facts(measured, one, judged[one.pipeline], spec, known)
            found += [advice for rule in RULES for advice in rule(facts)]
    once = {(one.rule, one.pipeline): one for one in reversed(found)}
    return sorted(once.values(), key=lambda one: (-(one.gain_ms or 0.0), one.rule, one.pipeline))


_STAGES = ("acquire", "bus", "condition", "encode", "publish", "deliver", "processing", "end_to_end", "overhead")


# --- the pipeline -----------------------------------------------------------------------------------------------------


def hop_shorter_than_encode(facts: Facts) -> Iterator[Advice]:
    """A sliding window comes more often than it can be encoded."""
    if not isinstance(facts.spec, Sliding):
        return
    hop_ms = facts.spec.hop * 1e3
    if facts.encode_ms < 0.9 * hop_ms:
        return
    wait = max(0.0, facts.stages["encode"].p50 - facts.encode_ms)
    yield facts.say(
        "hop",
        f"one window takes {facts.encode_ms:.2f} ms to encode, and one comes every {hop_ms:g} ms",
        f"a hop of {1.2 * facts.encode_ms / 1e3:.3g} s or more, a cheaper encoder, or on_late = 'variant' with one",
        f"windows no longer wait for each other: {wait:.2f} ms at the median, and more in the tail",
        wait,
    )


def threads(facts: Facts) -> Iterator[Advice]:
    """The encoder takes most of the time on one thread, and cores are idle."""
    whole, used = facts.encode_ms, int(facts.engine.get("threads", 1) or 0)
    free = int(facts.idle_cores)
    if facts.engine.get("provider") != "cpu" or not used or free < 1 or not _dominates(facts, whole):
        return
    more = min(used + free, 8)
    gain = whole * (1 - used / more)
    yield facts.say(
        "threads",
        f"the encoder takes {whole:.2f} of {facts.stages['processing'].p50:.2f} ms on {used} thread"
        f"{'s' * (used != 1)}, and {facts.idle_cores:.1f} cores were idle",
        f"threads = {more} for this pipeline; then certify again, since contended cores lengthen the tail",
        f"at most {gain:.2f} ms of the median, were all of it parallel",
        gain,
    )


def incremental(facts: Facts) -> Iterator[Advice]:
    """The encoder takes most of the time, and encodes whole windows though it might work while it listens."""
    whole, said = facts.encode_ms, str(facts.engine.get("incremental", ""))
    if not _dominates(facts, whole) or (said and not said.startswith("no: ")):
        return
    bundle = facts.measured.plan.bundles[facts.series.pipeline]
    figure = f"the encoder takes {whole:.2f} of {facts.stages['processing'].p50:.2f} ms, on whole windows"
    split = getattr(bundle.manifest.encoder, "incremental", None)
    at_finish = getattr(split, "at_finish", None)  # of its arithmetic, where it was split
    if facts.pipeline.incremental == "off" and at_finish is not None:
        gain = whole * (1 - at_finish)
        yield facts.say(
            "incremental",
            f"{figure}; {100 * (1 - at_finish):.0f} % of its arithmetic could be done before they end",
            "incremental = 'auto' for this pipeline",
            f"about {gain:.2f} ms of the median",
            gain,
        )
    elif split is None and facts.engine.get("provider") == "cpu":
        share = min(1.0, facts.spec.hop / facts.spec.duration) if isinstance(facts.spec, Sliding) else 0.0
        gain = whole * (1 - share)
        yield facts.say(
            "compile",
            f"{figure}; nobody has looked whether it can be split",
            f"rtdecode bundle compile {facts.pipeline.bundle} (docs/incremental.md)",
            f"at most {gain:.2f} ms of the median, were all of it convolutions over time",
            gain,
        )
    elif said:
        yield facts.say(
            "incremental",
            f"{figure}; it cannot work while it listens: {said.removeprefix('no: ')}",
            "what that says, in the bundle or in the configuration's windows",
            "docs/incremental.md says what it would be",
        )


def fell_back(facts: Facts) -> Iterator[Advice]:
    """Another provider runs than was asked for."""
    if facts.engine.get("fell_back"):
        yield facts.say(
            "fallback",
            f"{facts.engine.get('asked')} was asked for and {facts.engine.get('provider')} runs",
            f"what {facts.engine.get('asked')} needs on this machine (docs/engines.md), or fallback = 'forbid'",
            "not known before it runs there",
        )


def lateness(facts: Facts) -> Iterator[Advice]:
    """A marker-locked window waits for markers that may come late."""
    source = facts.measured.plan.config.source_of(facts.series.pipeline)
    lateness_s = float(getattr(source, "lateness_s", 0.0))
    enough = max(0.0, facts.spec.tmax - _SPARE_S) if isinstance(facts.spec, Locked) else math.inf
    if lateness_s <= enough:
        return
    waited = facts.series.between("arrived", "due")
    waited = waited[waited == waited]
    if not len(waited):
        return
    p50 = float(sorted(waited)[len(waited) // 2])
    if p50 < _LARGE * facts.stages["processing"].p50:
        return
    yield facts.say(
        "lateness",
        f"windows {facts.series.window!r} waited {p50:.1f} ms, complete; markers may come {lateness_s:g} s late",
        f"lateness_s = {enough:.4g} in the source, if markers are never later than that",
        f"{p50:.1f} ms of the median",
        p50,
    )


def chunks(facts: Facts) -> Iterator[Advice]:
    """The way into the daemon is mostly waiting for the chunk to be full."""
    acquire, whole = facts.stages["acquire"], facts.stages["end_to_end"]
    blocks = facts.measured.blocks
    if len(blocks) < 2 or acquire.p50 < max(_SMALL_MS, _LARGE * whole.p50):
        return
    n = sum(size for _, size in blocks) / len(blocks)
    if n < 2:
        return
    gain = acquire.p50 * (1 - max(1.0, n / 4) / n)
    yield facts.say(
        "chunk",
        f"{acquire.p50:.2f} of {whole.p50:.2f} ms pass before acquire has the newest sample; chunks hold {n:.0f}",
        f"chunks of {max(1, round(n / 4))} samples at the amplifier's software (here: --chunk)",
        f"about {gain:.2f} ms of the median, for four times as many chunks",
        gain,
    )


def conditioning(facts: Facts) -> Iterator[Advice]:
    """The filters take long."""
    took = facts.stages["condition"]
    if isinstance(facts.spec, Locked) or took.p50 < 1.0 or not _dominates(facts, took.p50):
        return
    yield facts.say(
        "conditioning",
        f"conditioning takes {took.p50:.2f} of {facts.stages['processing'].p50:.2f} ms",
        "smaller chunks, so that less is left to filter when a window ends; or fewer channels by channels = 'by-name'",
        f"at most {took.p50:.2f} ms of the median",
        took.p50,
    )


def delivery(facts: Facts) -> Iterator[Advice]:
    """The result takes long to the subscriber."""
    took = facts.stages["deliver"]
    if took.p50 < max(1.0, _LARGE * facts.stages["end_to_end"].p50):
        return
    yield facts.say(
        "delivery",
        f"the message takes {took.p50:.2f} ms from the daemon's socket to the subscriber",
        "publish over ipc:// where the subscriber is on this machine; a subscriber with a core to itself",
        f"at most {took.p50:.2f} ms of the median",
        took.p50,
    )


def variant(facts: Facts) -> Iterator[Advice]:
    """Windows miss their budget by the encoder, and nothing cheaper is there to make them."""
    missed = facts.judged.counted - facts.judged.good
    if not missed or facts.judged.budget_ms is None or facts.pipeline.on_late == "variant":
        return
    late = facts.series.missed & ~np.isnan(facts.series.stage("processing"))
    whole = float(np.median(facts.series.stage("processing")[late])) if late.any() else facts.judged.budget_ms
    part = float(np.median(facts.series.stage("encode")[late])) if late.any() else facts.encode_ms
    if part < _LARGE * whole:
        return
    yield facts.say(
        "variant",
        f"{missed} of {facts.judged.counted} windows missed {facts.judged.budget_ms:g} ms, in {facts.judged.bursts} "
        f"runs; the encoder takes {facts.encode_ms:.2f} ms",
        "on_late = 'variant' with a cheaper encoder for those (docs/budgets.md)",
        f"those of the {missed} that the variant can make in time",
    )


def waiting_for_a_core(facts: Facts) -> Iterator[Advice]:
    """The decoder is ready to run and does not."""
    waited = facts.waited_ms(facts.series.pipeline)
    if waited < max(_SMALL_MS, 0.1 * facts.stages["processing"].p50):
        return
    cores = int(facts.measured.machine.get("usable_cores") or 1)
    pinned = f"cpus = [{cores - 1}], kept free of others (isolcpus or cpusets), and a priority, "
    yield facts.say(
        "cores",
        f"the decoder waited {waited:.2f} ms for a core, for each window",
        f"{pinned if cores > 1 else 'a priority '}in [realtime.decode] (docs/daemon.md)",
        f"about {waited:.2f} ms on average, most of it in the tail",
        waited,
    )


def _dominates(facts: Facts, ms: float) -> bool:
    """Whether something is a large part of the processing."""
    return ms >= max(_SMALL_MS, _LARGE * facts.stages["processing"].p50)


#: In no order that matters.
RULES: tuple[Callable[[Facts], Iterator[Advice]], ...] = (
    hop_shorter_than_encode,
    threads,
    incremental,
    fell_back,
    lateness,
    chunks,
    conditioning,
    delivery,
    variant,
    waiting_for_a_core,
)
