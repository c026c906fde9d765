"""From a pipeline's configuration and a bundle to a decoder that was checked on this machine."""

from dataclasses import dataclass
from pathlib import Path

from rtdecode import hostclock
from rtdecode.config import PipelineConfig
from rtdecode.config.handling import handling
from rtdecode.config.server import triton_server
from rtdecode.daemon.shelf import Shelf
from rtdecode.decoder import Decoder
from rtdecode.encode.bundle import Bundle
from rtdecode.encode.engine import Engine
from rtdecode.encode.engines import make_engine
from rtdecode.encode.golden import check_golden
from rtdecode.encode.incremental import IncrementalEngine
from rtdecode.encode.prefix_pool import PrefixPool
from rtdecode.encode.variant import check_variant
from rtdecode.signal import StreamInfo
from rtdecode.wire.clock import clock_id, utc_anchor
from rtdecode.wire.messages import Description, WireChannel
from rtdecode.wire.results import ResultWriter

#: Runs of an encoder that are timed before the first window, for the budget's first predictions.
FIRST_RUNS = 5


@dataclass(frozen=True, slots=True)
class Opened:
    """A bundle that was checked on this machine, and what runs it.

    Parameters
    ----------
    bundle : Bundle
    engine : Engine
    first_runs : tuple of float
        Seconds that the encoder took, once warm.
    """

    bundle: Bundle
    engine: Engine
    first_runs: tuple[float, ...] = ()


@dataclass(slots=True)
class Model:
    """One bundle at work.

    Parameters
    ----------
    path : Path
        Where it was opened.
    opened : Opened
    decoder : Decoder
    writer : ResultWriter
    variant : Opened or None
        The cheaper bundle for the same windows.
    """

    path: Path
    opened: Opened
    decoder: Decoder
    writer: ResultWriter
    variant: Opened | None = None

    @property
    def bundle(self) -> Bundle:
        """The bundle."""
        return self.opened.bundle

    @property
    def engine(self) -> Engine:
        """What runs its encoder."""
        return self.opened.engine

    def join(self, prefixes: PrefixPool) -> None:
        """Share the prefixes of these engines, where they hear the same."""
        for opened in (self.opened, self.variant):
            if opened is not None and isinstance(opened.engine, IncrementalEngine):
                opened.engine.join(prefixes)

    def what_runs(self) -> dict[str, str | int | tuple[int, ...]]:
        """What runs the encoder, and with whom it shares its prefix."""
        shares = self.engine.sharing() if isinstance(self.engine, IncrementalEngine) else {}
        return {**self.engine.info.describe(), **shares}

    def close(self) -> None:
        """Let go of the runtimes."""
        self.opened.engine.close()
        if self.variant is not None:
            self.variant.engine.close()

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
            interpolated=self.decoder.interpolated,
            conditioned_sfreq=conditioner.sfreq,
            group_delay=conditioner.group_delay,
            bundle=self.bundle.id[:12],
            variant="" if self.variant is None else self.variant.bundle.id[:12],
            engine=self.what_runs(),
            items=tuple(self.decoder.heads[0].names),
            clock=hostclock.CLOCK_NAME,
            clock_id=clock_id(),
            utc_anchor=utc_anchor(),
        )


def verified(path: Path, pipeline: PipelineConfig, shelf: Shelf | None = None, name: str = "") -> Opened:
    """Open a bundle, start its engine, and run its golden windows, for the pipeline of this name.

    With a `shelf`, what another pipeline of this process has read, and proven, is not read and proven again; and where
    it hears the same samples, the prefix of an incremental encoder runs once for both.

    Raises
    ------
    BundleError
        The bundle is damaged, or (`GoldenError`) does not give what it should on this machine.
    EngineError
        The runtime or the provider is not to be had.
    """
    shelf = Shelf() if shelf is None else shelf
    bundle = shelf.bundle(path)
    engine = make_engine(
        bundle,
        provider=pipeline.provider,
        fallback=pipeline.fallback,
        threads=pipeline.threads,
        warmup=pipeline.warmup,
        options=pipeline.options,
        triton=triton_server(pipeline),
        incremental=pipeline.incremental,
        windows=pipeline.window_specs(),
        company=shelf.company(bundle, pipeline, name),
    )
    try:
        if not shelf.proven(bundle, pipeline):
            check_golden(bundle, engine)
            shelf.prove(bundle, pipeline)
            engine.restart(0)
        first_runs = _timed(bundle, engine) if pipeline.budget_ms is not None else ()
    except BaseException:
        engine.close()
        raise
    return Opened(bundle, engine, first_runs)


def _timed(bundle: Bundle, engine: Engine) -> tuple[float, ...]:
    """Seconds that each of a few runs takes."""
    windows = bundle.array(bundle.manifest.golden.windows)
    seconds = []
    for n in range(FIRST_RUNS):
        window = windows[n % len(windows)]
        engine.restart(0)
        engine.begin(0, window[:0])
        engine.advance(window, 0)
        engine.catch_up()
        began = hostclock.now()
        engine.finish(window, 0)
        seconds.append(hostclock.now() - began)
    engine.restart(0)
    return tuple(seconds)


def build(
    path: Path,
    name: str,
    pipeline: PipelineConfig,
    info: StreamInfo,
    opened: Opened | None = None,
    shelf: Shelf | None = None,
) -> Model:
    """A model for a stream.

    Parameters
    ----------
    path : Path
        The bundle.
    name : str
        The pipeline.
    pipeline : PipelineConfig
        Its configuration; names the variant.
    info : StreamInfo
        What the stream declares.
    opened : Opened, optional
        What `verified` gave for `path`.
    shelf : Shelf, optional
        As for `verified`.

    Raises
    ------
    ContractError
        The stream is not what the bundle decodes.
    BundleError, EngineError
        As for `verified`, of the bundle or its variant; or the variant is not for the same windows.
    """
    opened = opened if opened is not None else verified(path, pipeline)
    variant = None
    try:
        if pipeline.variant is not None:
            check_variant(opened.bundle, Bundle.open(pipeline.variant))
            # A server has the bundle's encoder; the cheaper one, for when time is short, does without it.
            here = pipeline.model_copy(update={"engine": "local", "triton": None})
            variant = verified(pipeline.variant, here, shelf, f"{name} (variant)")
        decoder = make_decoder(opened, variant, pipeline, info)
    except BaseException:
        opened.engine.close()
        if variant is not None:
            variant.engine.close()
        raise
    variant_id = "" if variant is None else variant.bundle.id
    writer = ResultWriter(name, opened.bundle.id, decoder, pipeline.budget_ms, variant_id)
    return Model(path, opened, decoder, writer, variant)


def make_decoder(opened: Opened, variant: Opened | None, pipeline: PipelineConfig, info: StreamInfo) -> Decoder:
    """A decoder at the start of a stream; raises `ContractError`."""
    return Decoder.from_bundle(
        opened.bundle,
        info,
        opened.engine,
        channels=pipeline.channels,
        windows=pipeline.window_specs(),
        clock=hostclock.now,
        variant=None if variant is None else (variant.bundle, variant.engine),
        handling=handling(pipeline),
    )
