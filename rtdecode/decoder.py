"""The pipeline: samples and markers in, one result for every due window out.

No socket, no file, no thread, and no clock of its own: a live daemon, a replay, a batch over a thousand sessions and a
test all drive the same `Decoder`.

    push -> pick -> condition -> window -> encode -> head -> Result

`push` does it all. A live process that may be behind does it in two steps: `advance` takes samples and says which
windows are due, `encode` or `skip` makes the result of one, in whatever order.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.bundle import Bundle
from rtdecode.encode.contract import check_contract
from rtdecode.encode.engine import Engine, Outputs
from rtdecode.encode.variant import check_variant
from rtdecode.errors import ConfigError, EncodeError
from rtdecode.heads.base import Head
from rtdecode.heads.build import build_heads
from rtdecode.heads.outputs import HeadOutput
from rtdecode.result import Result, Status, Task, Timing
from rtdecode.signal import Channel, Chunk, Marker, StreamInfo
from rtdecode.stream.condition import Conditioner, window_conditioner
from rtdecode.stream.handling import AS_IT_COMES, Handling
from rtdecode.stream.incidents import Incident
from rtdecode.stream.intake import Intake
from rtdecode.stream.segment import Due
from rtdecode.stream.steps import WindowStep
from rtdecode.stream.window import WindowSpec

__all__ = ["Decoder", "Result", "Status", "Task", "Timing"]

#: Seconds of conditioned samples kept beyond the longest window: how long a marker may come after its samples.
HISTORY_S = 10.0

_NO_OUTPUTS: Outputs = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Encoding:
    """An encoder, and what is made of its outputs.

    Parameters
    ----------
    engine : Engine
        Runs the encoder.
    heads : sequence of Head
        One for each result of a window.
    """

    engine: Engine
    heads: Sequence[Head]


class _Both:
    """Two engines that hear the same samples."""

    def __init__(self, one: Engine, other: Engine) -> None:
        self._engines = one, other

    def restart(self, first_index: int) -> None:
        """Forget all state."""
        for engine in self._engines:
            engine.restart(first_index)

    def advance(self, samples: NDArray[np.float32], first_index: int) -> None:
        """Take conditioned samples."""
        for engine in self._engines:
            engine.advance(samples, first_index)

    def begin(self, first_index: int, samples: NDArray[np.float32]) -> None:
        """A marker-locked window will be due."""
        for engine in self._engines:
            engine.begin(first_index, samples)


class Decoder:
    """Decodes one stream with one encoder.

    Parameters
    ----------
    columns : sequence of int
        Columns of the stream that the conditioning chain takes, in its order.
    channels : sequence of Channel
        Those channels.
    n_stream_channels : int
        Columns of the stream.
    sfreq : float
        The stream's rate in Hz.
    conditioner : Conditioner
        The stream steps.
    window_steps : sequence of WindowStep
        The window steps.
    windows : sequence of Sliding or Locked
        Which windows to cut; all as long as the encoder's input.
    engine : Engine
        Runs the encoder.
    heads : sequence of Head
        What is made of its outputs.
    clock : callable, optional
        Returns host-clock seconds, for `Result.timing`. Without one nothing is timed.
    history_s : float
        Seconds of conditioned samples kept beyond the longest window.
    variant : Encoding, optional
        A cheaper encoder of the same windows, for `encode`.
    handling : Handling
        What is done about samples that are missing, disturbed or bad.

    Raises
    ------
    ConfigError
        A sliding window hops by less than a sample, or `handling` does not fit the channels.

    Notes
    -----
    Two laws hold, whatever the timing. However the same samples are cut into chunks, and in whatever order markers come
    before the watermark passes them, the windows and their payloads are the same, byte for byte. And every due window
    gives exactly one result: a sliding window when its last sample is in (or has turned out to be missing), a
    marker-locked one when, besides, the watermark has passed its marker.
    """

    def __init__(
        self,
        *,
        columns: Sequence[int],
        channels: Sequence[Channel],
        n_stream_channels: int,
        sfreq: float,
        conditioner: Conditioner,
        window_steps: Sequence[WindowStep],
        windows: Sequence[WindowSpec],
        engine: Engine,
        heads: Sequence[Head],
        clock: Callable[[], float] | None = None,
        history_s: float = HISTORY_S,
        variant: Encoding | None = None,
        handling: Handling = AS_IT_COMES,
    ) -> None:
        for window in windows:
            if (fault := window.fault(conditioner.sfreq)) is not None:
                raise ConfigError(fault)
        self.conditioner = conditioner
        self.engine = engine
        self.heads = tuple(heads)
        self.variant = variant
        self.interpolated = handling.interpolation.bad if handling.interpolation is not None else ()
        self.windows = tuple(windows)
        self.counts: Counter[Status] = Counter()
        self._clock = clock if clock is not None else _no_clock
        self._window_steps = {
            window.name: window_conditioner(window_steps, window, conditioner) for window in self.windows
        }
        self._lengths = {window.name: window.n_samples(conditioner.sfreq) for window in self.windows}
        self._intake = Intake(
            columns=columns,
            channels=channels,
            n_stream_channels=n_stream_channels,
            sfreq=sfreq,
            conditioner=conditioner,
            windows=self.windows,
            listener=engine if variant is None else _Both(engine, variant.engine),
            history_s=history_s,
            handling=handling,
        )

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle,
        info: StreamInfo,
        engine: Engine,
        *,
        channels: Literal["strict", "by-name"] = "strict",
        windows: Sequence[WindowSpec] = (),
        clock: Callable[[], float] | None = None,
        history_s: float = HISTORY_S,
        variant: tuple[Bundle, Engine] | None = None,
        handling: Handling = AS_IT_COMES,
    ) -> Self:
        """Build the decoder that a bundle describes, for one stream.

        Parameters
        ----------
        bundle : Bundle
            The model.
        info : StreamInfo
            What the stream declares.
        engine : Engine
            Runs the bundle's encoder.
        channels : {"strict", "by-name"}
            Whether the stream must offer exactly the contract's channels in their order, or they are picked by name.
        windows : sequence of Sliding or Locked
            Instead of the bundle's own; of the same length.
        clock, history_s, handling
            As for the class.
        variant : tuple of Bundle and Engine, optional
            A cheaper bundle for the same windows, and what runs its encoder.

        Raises
        ------
        ContractError
            The stream does not meet the contract: the channel, unit or rate at fault is named.
        ConfigError
            `windows` are not as long as the bundle's, or one hops by less than a sample.
        BundleError
            The variant is not for the same windows: the difference is named.
        """
        if variant is not None:
            check_variant(bundle, variant[0])
        manifest = bundle.manifest
        columns = check_contract(info, manifest.contract, channels)
        picked = tuple(info.channels[at] for at in columns)
        conditioner = bundle.conditioner()
        expected = manifest.windows[0].n_samples(conditioner.sfreq)
        for window in windows:
            if (found := window.n_samples(conditioner.sfreq)) != expected:
                raise ConfigError(
                    f"window {window.name!r} has {found} samples at {conditioner.sfreq:g} Hz; the encoder of "
                    f"{bundle.source} takes {expected} ({expected / conditioner.sfreq:g} s)"
                )
        return cls(
            columns=columns,
            channels=picked,
            n_stream_channels=len(info.channels),
            sfreq=manifest.contract.sfreq,
            conditioner=conditioner,
            window_steps=manifest.conditioning.window,
            windows=windows or manifest.windows,
            engine=engine,
            heads=build_heads(bundle),
            clock=clock,
            history_s=history_s,
            handling=handling,
            variant=None if variant is None else Encoding(variant[1], build_heads(variant[0])),
        )

    # --- in -----------------------------------------------------------------------------------------------------------

    def push(
        self, chunk: Chunk | None, markers: Iterable[Marker] = (), marker_watermark: float = -math.inf
    ) -> list[Result]:
        """Take samples and markers; give the result of every window that this makes due.

        Parameters
        ----------
        chunk : Chunk or None
            The next samples. A jump in the index is a hole; another segment number a new segment.
        markers : iterable of Marker
            In any order, before or after their samples.
        marker_watermark : float
            Every marker with a stamp up to this one has been given by now. It never goes back; a marker that comes
            after the watermark has passed it gives `skipped: late marker`.

        Returns
        -------
        list of Result
            In the order in which the windows became due.

        Raises
        ------
        StampError
            Wrong shapes or types, stamps that do not increase, or an index that goes back.
        """
        markers = tuple(markers)
        if self._intake.hold(chunk, markers, marker_watermark):
            return []
        return [self._settled(due) for due in self._intake.push(chunk, markers, marker_watermark)]

    @property
    def segment(self) -> int:
        """The newest segment whose samples are decoded, not held by a blank; -1 before there is one."""
        return self._intake.segment

    @property
    def wanting(self) -> float:
        """Raw samples that have to come before a window can be due; minus infinity where a marker may say otherwise."""
        return self._intake.wanting

    def may_wait(self, patient: bool) -> None:
        """Whether samples by which no window is due may wait for the next ones, to be taken together."""
        self._intake.may_wait(patient)

    def lost(self, reason: str) -> None:
        """Say that samples between the last chunk and the next were lost on our side: they count as `skipped`."""
        self._intake.lost(reason)

    def finish(self) -> list[Result]:
        """Give what is still due, now that the stream has ended; windows whose samples never came are `gap`."""
        return [self._settled(due) for due in self._intake.finish()]

    def advance(
        self, chunk: Chunk | None, markers: Iterable[Marker] = (), marker_watermark: float = -math.inf
    ) -> list[Result | Task]:
        """Take samples and markers, as `push` does, and encode nothing.

        Returns
        -------
        list of Result or Task
            In the order in which the windows became due: the result of each that has a flaw, a task for each other.
            Each task wants one `encode` or `skip`. Its samples are a view that lasts until the next call that takes
            samples, unless it is told to `hold` them.
        """
        markers = tuple(markers)
        if self._intake.hold(chunk, markers, marker_watermark):
            return []
        found: list[Result | Task] = []
        several = self._intake.may_take_several(chunk)
        for due in self._intake.push(chunk, markers, marker_watermark):
            opened = self._open(due)
            if several and isinstance(opened, Task):  # more samples are taken before we return
                opened.hold()
            found.append(opened)
        return found

    def advance_to_end(self, *, interrupted: bool = False) -> list[Result | Task]:
        """As `finish`, and encode nothing. Sliding windows that had begun are `gap` if the stream was interrupted."""
        return [self._open(due) for due in self._intake.finish(interrupted=interrupted)]

    def resume(self, segment: int, first: int, stop: int, reason: str) -> list[Result]:
        """Go on where a decoder before this one left off, at the start or from samples that it had taken too.

        Parameters
        ----------
        segment : int
            The segment that it was in.
        first, stop : int
            The raw samples of it that the other one took and that are not here.
        reason : str
            Why; of windows that touch them, which are `skipped`.

        Returns
        -------
        list of Result
            Of the windows that end there. The other decoder knows which of them are out.
        """
        return [self._settled(due) for due in self._intake.resume(segment, first, stop, reason)]

    def incidents(self) -> list[Incident]:
        """What happened to the stream since the last call: holes and what they cost, windows that turned out wrong."""
        return self._intake.incidents()

    def catch_up(self) -> None:
        """Do what the encoder has put off; for when nothing else is to be done. Changes no result."""
        self.engine.catch_up()
        if self.variant is not None:
            self.variant.engine.catch_up()

    # --- out ----------------------------------------------------------------------------------------------------------

    def encode(self, task: Task, *, variant: bool = False) -> Result:
        """Encode a window that `advance` gave, by the variant if so wished."""
        by = self.variant if variant else None
        engine, heads_of = (self.engine, self.heads) if by is None else (by.engine, by.heads)
        due = task.due
        assert due.samples is not None
        outputs: Outputs = {}
        heads: tuple[HeadOutput, ...] = ()
        status, reason, encoded = Status.OK, "", math.nan
        try:
            encode = engine.finish if due.segment == self._intake.segment else engine.apart
            outputs = encode(self._window_steps[due.spec.name](due.samples), due.start)
            encoded = self._clock()
            heads = tuple(head(outputs) for head in heads_of)
        except EncodeError as error:
            status, reason, outputs, heads = Status.FAILED, str(error), {}, ()
        fell_back = engine.info.fell_back
        return self._result(
            due, task.at, status, reason, encoded, outputs, heads, variant=by is not None, fell_back=fell_back
        )

    def rehearse(self, result: Result) -> None:
        """Go through what `encode` does, with an earlier result: shortly before a window is due. Changes no result."""
        self.engine.rehearse()
        for head in self.heads:
            head(result.outputs)

    def skip(self, task: Task, reason: str) -> Result:
        """Give up a window that `advance` gave."""
        return self._result(task.due, task.at, Status.SKIPPED, reason)

    def withdraw(self, task: Task, reason: str) -> Result:
        """Take back a window that `advance` gave and that turned out to touch a hole."""
        return self._result(task.due, task.at, Status.GAP, reason)

    def _open(self, due: Due) -> Result | Task:
        at = self._clock()
        if due.samples is None:
            return self._result(due, at, Status(due.flaw or "failed"), due.reason)
        return Task(due, self._lengths[due.spec.name], self.conditioner.sfreq, at)

    def _settled(self, due: Due) -> Result:
        opened = self._open(due)
        return opened if isinstance(opened, Result) else self.encode(opened)

    def _result(
        self,
        due: Due,
        at: float,
        status: Status,
        reason: str = "",
        encoded: float = math.nan,
        outputs: Outputs = _NO_OUTPUTS,
        heads: tuple[HeadOutput, ...] = (),
        *,
        variant: bool = False,
        fell_back: bool = False,
    ) -> Result:
        self.counts[status] += 1
        return Result(
            window=due.spec.name,
            segment=due.segment,
            start=due.start,
            length=self._lengths[due.spec.name],
            sfreq=self.conditioner.sfreq,
            status=status,
            reason=reason,
            marker=due.marker,
            outputs=outputs,
            heads=heads,
            timing=Timing(due.stamp, due.arrived, at, encoded, due.uncertainty),
            variant=variant,
            fell_back=fell_back,
            quality=due.quality,
        )


def _no_clock() -> float:
    return math.nan
