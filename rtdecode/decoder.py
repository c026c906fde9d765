"""The pipeline: samples and markers in, one result for every due window out.

No socket, no file, no thread, and no clock of its own: a live daemon, a replay, a batch over a thousand sessions and a
test all drive the same `Decoder`.

    push -> pick -> condition -> window -> encode -> head -> Result
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.bundle import Bundle
from rtdecode.encode.contract import check_contract
from rtdecode.encode.engine import Engine
from rtdecode.errors import ConfigError, EncodeError
from rtdecode.heads.base import Head
from rtdecode.heads.build import build_heads
from rtdecode.heads.outputs import HeadOutput
from rtdecode.result import Result, Status, Timing
from rtdecode.signal import Channel, Chunk, Marker, StreamInfo
from rtdecode.stream.condition import Conditioner, window_conditioner
from rtdecode.stream.intake import Intake
from rtdecode.stream.segment import Due
from rtdecode.stream.steps import WindowStep
from rtdecode.stream.window import WindowSpec

__all__ = ["Decoder", "Result", "Status", "Timing"]

#: Seconds of conditioned samples kept beyond the longest window: how long a marker may come after its samples.
HISTORY_S = 10.0


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

    Raises
    ------
    ConfigError
        A sliding window hops by less than a sample.

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
    ) -> None:
        for window in windows:
            if (fault := window.fault(conditioner.sfreq)) is not None:
                raise ConfigError(fault)
        self.conditioner = conditioner
        self.engine = engine
        self.heads = tuple(heads)
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
            listener=engine,
            history_s=history_s,
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
        clock, history_s
            As for the class.

        Raises
        ------
        ContractError
            The stream does not meet the contract: the channel, unit or rate at fault is named.
        ConfigError
            `windows` are not as long as the bundle's, or one hops by less than a sample.
        """
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
        return [self._result(due) for due in self._intake.push(chunk, markers, marker_watermark)]

    def lost(self, reason: str) -> None:
        """Say that samples between the last chunk and the next were lost on our side: they count as `skipped`."""
        self._intake.lost(reason)

    def finish(self) -> list[Result]:
        """Give what is still due, now that the stream has ended; windows whose samples never came are `gap`."""
        return [self._result(due) for due in self._intake.finish()]

    # --- out ----------------------------------------------------------------------------------------------------------

    def _result(self, due: Due) -> Result:
        name = due.spec.name
        at = self._clock()
        status, reason = Status.OK, ""
        outputs: Mapping[str, NDArray[np.float32]] = {}
        heads: tuple[HeadOutput, ...] = ()
        encoded = math.nan
        if due.samples is None:
            status, reason = Status(due.flaw or "failed"), due.reason
        else:
            try:
                outputs = self.engine.finish(self._window_steps[name](due.samples), due.start)
                encoded = self._clock()
                heads = tuple(head(outputs) for head in self.heads)
            except EncodeError as error:
                status, reason, outputs, heads = Status.FAILED, str(error), {}, ()
        return self._count(
            Result(
                window=name,
                segment=due.segment,
                start=due.start,
                length=self._lengths[name],
                sfreq=self.conditioner.sfreq,
                status=status,
                reason=reason,
                marker=due.marker,
                outputs=outputs,
                heads=heads,
                timing=Timing(due.stamp, due.arrived, at, encoded),
            )
        )

    def _count(self, result: Result) -> Result:
        self.counts[result.status] += 1
        return result


def _no_clock() -> float:
    return math.nan
