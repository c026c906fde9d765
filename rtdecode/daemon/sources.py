"""From the configuration's ``[source]`` or ``[sources]`` to what *acquire* reads in real time."""

import dataclasses
import math
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rtdecode import hostclock
from rtdecode.config import FieldTripConfig, LslConfig, RecordingConfig, SimulatedConfig, SourceConfig, ZmqConfig
from rtdecode.daemon.remote import RemoteSource
from rtdecode.signal import Batch, Origin, StreamInfo
from rtdecode.sources.base import Source
from rtdecode.sources.fieldtrip import FieldTripSource
from rtdecode.sources.recording import RecordingSource
from rtdecode.sources.simulated import SimulatedSource
from rtdecode.sources.zmq_source import ZmqSource
from rtdecode.wire.clock import clock_id

if TYPE_CHECKING:
    from rtdecode.sources.lsl_directory import Directory

#: Chunks per second of a paced recording, as an amplifier hands them over.
CHUNK_RATE = 50.0


def make_sources(configs: Mapping[str, SourceConfig]) -> dict[str, Source]:
    """The sources of one process, by name, not yet open. Several LSL streams are looked for together."""
    lsl = {name: config for name, config in configs.items() if isinstance(config, LslConfig)}
    made = _lsl_together(lsl) if len(lsl) > 1 else {}
    return {name: made[name] if name in made else make_source(config) for name, config in configs.items()}


def make_source(config: SourceConfig) -> Source:
    """The source that the configuration names, not yet open."""
    match config:
        case SimulatedConfig():
            return SimulatedSource(
                seed=config.seed,
                subject=config.subject,
                sfreq=config.sfreq,
                soa=config.soa,
                seconds=config.seconds,
                speed=config.speed,
            )
        case RecordingConfig():
            return PacedRecording(config)
        case LslConfig():
            return _lsl(config)
        case ZmqConfig():
            return _zmq(config)
        case FieldTripConfig():
            return _fieldtrip(config)


def _lsl_together(configs: Mapping[str, LslConfig]) -> dict[str, Source]:
    from rtdecode.sources.lsl_directory import Directory

    directory = Directory()
    return {name: _lsl(config, directory) for name, config in configs.items()}


def _lsl(config: LslConfig, directory: "Directory | None" = None) -> Source:
    # Imported here: liblsl is loaded by a session that reads from it, and by no other.
    from rtdecode.sources.lsl import LslSource, MarkerQuery

    return LslSource(
        name=config.name,
        type=config.type,
        source_id=config.source_id,
        markers=[MarkerQuery(one.name, one.type, one.source_id) for one in config.markers],
        declare=config.declare.declare(),
        triggers=[trigger.rule() for trigger in config.triggers],
        timeout_s=config.timeout_s,
        lateness_s=config.lateness_s,
        end_when_lost=config.end_when_lost,
        directory=directory,
    )


def _zmq(config: ZmqConfig) -> Source:
    triggers = [trigger.rule() for trigger in config.triggers]
    if config.format == "rtdecode":
        return RemoteSource(
            config.endpoint, triggers=triggers, timeout_s=config.timeout_s, end_when_lost=config.end_when_lost
        )
    return ZmqSource(
        config.endpoint,
        bind=config.bind,
        pattern=config.pattern,
        topic=config.topic,
        stream=config.stream,
        declare=config.declare.declare(),
        triggers=triggers,
        timeout_s=config.timeout_s,
        lateness_s=config.lateness_s,
        end_when_lost=config.end_when_lost,
        clock=clock_id(),
    )


def _fieldtrip(config: FieldTripConfig) -> Source:
    return FieldTripSource(
        config.host,
        config.port,
        sensors=config.sensors,
        declare=config.declare.declare(),
        triggers=[trigger.rule() for trigger in config.triggers],
        events=config.events,
        timeout_s=config.timeout_s,
        lateness_s=config.lateness_s,
        catch_up_s=config.catch_up_s,
        end_when_lost=config.end_when_lost,
    )


class PacedRecording:
    """A recording that comes as a live stream would: each chunk when its last sample is due.

    At speed 1 samples and markers are stamped on the host clock, so that the ledger tells true ages. At another speed
    no clock fits them: they keep the recording's own time, and have no time of arrival.

    Parameters
    ----------
    config : RecordingConfig
        Which file, and how fast.
    """

    def __init__(self, config: RecordingConfig) -> None:
        self._config = config
        self._recording = self._source(None)
        self._closed = threading.Event()
        self._next: Batch | None = None
        self._began = math.nan

    def _source(self, chunk: int | None) -> RecordingSource:
        config = self._config
        return RecordingSource(
            config.path,
            declare=config.declare.declare(),
            triggers=[trigger.rule() for trigger in config.triggers],
            chunk=chunk,
            stream=config.stream,
            markers=config.markers,
        )

    def open(self) -> StreamInfo:
        """Open the file; its first sample is due at the first `read`."""
        with self._recording as whole:
            sfreq = whole.info.sfreq
        self._recording = self._source(max(1, round(sfreq / CHUNK_RATE)))
        info = self._recording.open()
        self._zero = self._recording.zero
        self._next = self._recording.read()
        self._began = math.nan
        return info

    @property
    def origins(self) -> tuple[Origin, ...]:
        """None: nothing is rawer than its chunks."""
        return ()

    def read(self, timeout: float) -> Batch | None:
        """The next chunk, once it is due; an empty batch where it is not within `timeout` seconds."""
        batch = self._next
        if batch is None or self._closed.is_set():
            return None
        if math.isnan(self._began):
            self._began = hostclock.now()
        newest = 0.0 if batch.chunk is None else float(batch.chunk.stamps[-1]) - self._zero
        wait = self._began + newest / self._config.speed - hostclock.now()
        if wait > 0 and (self._closed.wait(min(wait, timeout)) or wait > timeout):
            return None if self._closed.is_set() else Batch(None)
        self._next = self._recording.read()
        return self._on_host_clock(batch) if self._config.speed == 1.0 else _without_arrival(batch)

    def _on_host_clock(self, batch: Batch) -> Batch:
        chunk, shift = batch.chunk, self._began - self._zero
        if chunk is not None:
            chunk = dataclasses.replace(chunk, stamps=chunk.stamps + shift, arrived=hostclock.now())
        markers = [dataclasses.replace(marker, stamp=marker.stamp + shift) for marker in batch.markers]
        return Batch(chunk, markers, batch.watermark + shift)

    def close(self) -> None:
        """Close the file; a `read` that waits in another thread returns."""
        self._closed.set()
        self._recording.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _without_arrival(batch: Batch) -> Batch:
    """A batch of a recorded session arrived when it was recorded, not now."""
    if batch.chunk is None:
        return batch
    return dataclasses.replace(batch, chunk=dataclasses.replace(batch.chunk, arrived=math.nan))
