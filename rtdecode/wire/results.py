"""A decoder's result as the message that is published for it: the same live and in a replay."""

import math

import numpy as np
from numpy.typing import NDArray

from rtdecode.decoder import Decoder, Result, Status
from rtdecode.heads.outputs import Label, Retrieval
from rtdecode.signal import Marker
from rtdecode.stream.incidents import WindowRef
from rtdecode.wire.messages import Ledger, Window, WireMarker, WireWindow


class ResultWriter:
    """Turns the results of one pipeline into messages.

    Parameters
    ----------
    pipeline : str
        The pipeline's name.
    bundle_id : str
        The bundle's id; its first 12 digits are published.
    decoder : Decoder
        Whose heads say what kind of message it is: the first one's kind.
    budget_ms : float, optional
        Allowed time from arrival to publication.
    variant_id : str
        Id of the variant's bundle.
    """

    def __init__(
        self, pipeline: str, bundle_id: str, decoder: Decoder, budget_ms: float | None = None, variant_id: str = ""
    ) -> None:
        self.pipeline = pipeline
        self.kind = decoder.heads[0].kind
        self.topic = f"{pipeline}.{self.kind}"
        self._bundle = bundle_id[:12]
        self._variant = variant_id[:12]
        self._budget_ms = budget_ms

    def write(
        self, result: Result, *, received: float | None = None, published: float | None = None
    ) -> tuple[Window, dict[str, NDArray[np.generic]]]:
        """The message of one result, and its arrays.

        Parameters
        ----------
        result : Result
            From `Decoder.push`.
        received : float, optional
            Host time at which the samples that made it due were in the decoder's hands.
        published : float, optional
            Host time now. With a budget and an arrival it settles whether the budget was met; a window that was decoded
            but not in time is published as `late`.

        Returns
        -------
        message : Window
            Its `seq` is 0: the publisher counts.
        arrays : dict of str to ndarray
            The encoder's outputs.
        """
        timing = result.timing
        met = None
        decided = self._budget_ms is not None and result.status is not Status.SKIPPED
        if decided and published is not None and math.isfinite(timing.arrived):
            met = (published - timing.arrived) * 1e3 <= (self._budget_ms or 0)
        status, reason = result.status, result.reason
        if status is Status.OK and met is False:
            status, reason = Status.LATE, f"published {(published or 0) - timing.arrived:.3f} s after its last sample"
        retrieval: Retrieval | None = None
        label: Label | None = None
        arrays: dict[str, NDArray[np.generic]] = dict(result.outputs)
        for head in result.heads:
            retrieval = retrieval or head.retrieval
            label = label or head.label
            arrays.update(head.arrays)
        marker = result.marker
        message = Window(
            seq=0,
            kind=self.kind,
            pipeline=self.pipeline,
            bundle=self._variant if result.variant else self._bundle,
            window=result.window,
            segment=result.segment,
            start=result.start,
            length=result.length,
            sfreq=result.sfreq,
            status=status.value,
            reason=reason,
            marker=None if marker is None else wire_marker(marker),
            retrieval=retrieval,
            label=label,
            quality=result.quality,
            variant=result.variant,
            fell_back=result.fell_back,
            ledger=Ledger(
                stamp=_known(timing.stamp),
                uncertainty=_known(timing.uncertainty),
                arrived=_known(timing.arrived),
                received=received,
                due=_known(timing.due),
                encoded=_known(timing.encoded),
                published=published,
                budget_ms=self._budget_ms,
                met=met,
            ),
        )
        return message, arrays


def wire_window(window: WindowRef) -> WireWindow:
    """A window that was given before, as an event names it."""
    marker = window.marker
    return WireWindow(
        window=window.window,
        segment=window.segment,
        start=window.start,
        marker=None if marker is None else wire_marker(marker),
    )


def wire_marker(marker: Marker) -> WireMarker:
    """A marker as messages hold it."""
    return WireMarker(stamp=marker.stamp, value=marker.value, stream=marker.stream)


def _known(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None
