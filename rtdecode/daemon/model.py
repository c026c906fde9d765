"""From a pipeline's configuration and a bundle to a decoder that was checked on this machine."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdecode import hostclock
from rtdecode.config import PipelineConfig
from rtdecode.decoder import Decoder
from rtdecode.encode.bundle import Bundle
from rtdecode.encode.engine import Engine, EngineInfo, Outputs
from rtdecode.encode.engines import make_engine
from rtdecode.encode.golden import check_golden
from rtdecode.errors import EncodeError
from rtdecode.signal import StreamInfo
from rtdecode.wire.clock import clock_id, utc_anchor
from rtdecode.wire.messages import Description, WireChannel
from rtdecode.wire.results import ResultWriter


class QuietEngine:
    """An engine that can listen without encoding, while filters settle on samples whose windows are out already.

    Parameters
    ----------
    engine : Engine
        Does the work while `quiet` is false.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.quiet = False

    @property
    def info(self) -> EngineInfo:
        """What really runs."""
        return self._engine.info

    def restart(self, first_index: int) -> None:
        """Forget all state."""
        self._engine.restart(first_index)

    def advance(self, samples: NDArray[np.float32], first_index: int) -> None:
        """Take conditioned samples."""
        self._engine.advance(samples, first_index)

    def finish(self, window: NDArray[np.float32], first_index: int) -> Outputs:
        """Encode one window, or fail while `quiet`."""
        if self.quiet:
            raise EncodeError("not encoded: the window was published before")
        return self._engine.finish(window, first_index)

    def close(self) -> None:
        """Let go of the runtime."""
        self._engine.close()


@dataclass(slots=True)
class Model:
    """One bundle at work.

    Parameters
    ----------
    path : Path
        Where it was opened.
    bundle : Bundle
    engine : QuietEngine
    decoder : Decoder
    writer : ResultWriter
    """

    path: Path
    bundle: Bundle
    engine: QuietEngine
    decoder: Decoder
    writer: ResultWriter

    def description(self, name: str, info: StreamInfo) -> Description:
        """What subscribers are told first."""
        conditioner = self.decoder.conditioner
        return Description(
            seq=0,
            pipeline=name,
            source=info.source,
            sfreq=info.sfreq,
            channels=tuple(
                WireChannel(name=channel.name, type=channel.type, unit=channel.unit, position=channel.position)
                for channel in info.channels
            ),
            declared_by_user=info.declared_by_user,
            conditioned_sfreq=conditioner.sfreq,
            group_delay=conditioner.group_delay,
            bundle=self.bundle.id[:12],
            engine=self.engine.info.describe(),
            items=tuple(self.decoder.heads[0].names),
            clock=hostclock.CLOCK_NAME,
            clock_id=clock_id(),
            utc_anchor=utc_anchor(),
        )


def verified(path: Path, pipeline: PipelineConfig) -> tuple[Bundle, QuietEngine]:
    """Open a bundle, start its engine, and run its golden windows.

    Raises
    ------
    BundleError
        The bundle is damaged, or (`GoldenError`) does not give what it should on this machine.
    EngineError
        The runtime or the provider is not to be had.
    """
    bundle = Bundle.open(path)
    engine = make_engine(
        bundle,
        provider=pipeline.provider,
        fallback=pipeline.fallback,
        threads=pipeline.threads,
        warmup=pipeline.warmup,
    )
    try:
        check_golden(bundle, engine)
    except BaseException:
        engine.close()
        raise
    return bundle, QuietEngine(engine)


def build(
    path: Path, name: str, pipeline: PipelineConfig, info: StreamInfo, opened: tuple[Bundle, QuietEngine] | None = None
) -> Model:
    """A model for a stream.

    Parameters
    ----------
    path : Path
        The bundle.
    name : str
        The pipeline.
    pipeline : PipelineConfig
        Its configuration.
    info : StreamInfo
        What the stream declares.
    opened : tuple, optional
        What `verified` gave for `path`.

    Raises
    ------
    ContractError
        The stream is not what the bundle decodes.
    BundleError, EngineError
        As for `verified`.
    """
    bundle, engine = opened if opened is not None else verified(path, pipeline)
    try:
        decoder = make_decoder(bundle, engine, pipeline, info)
    except BaseException:
        engine.close()
        raise
    return Model(path, bundle, engine, decoder, ResultWriter(name, bundle.id, decoder, pipeline.budget_ms))


def make_decoder(bundle: Bundle, engine: QuietEngine, pipeline: PipelineConfig, info: StreamInfo) -> Decoder:
    """A decoder at the start of a stream; raises `ContractError`."""
    return Decoder.from_bundle(
        bundle,
        info,
        engine,
        channels=pipeline.channels,
        windows=pipeline.window_specs(),
        clock=hostclock.now,
    )
