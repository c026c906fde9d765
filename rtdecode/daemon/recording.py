"""The recorder as a session's configuration wants it."""

import contextlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from rtdecode.config import Config
from rtdecode.config.many import label
from rtdecode.daemon.control import Status, ask, control_endpoints
from rtdecode.errors import ConfigError, RtdecodeError
from rtdecode.record.names import Entities
from rtdecode.record.recorder import Recorder
from rtdecode.record.results import ResultRecorder
from rtdecode.record.session import About
from rtdecode.record.settings import Settings
from rtdecode.signal import Batch, Notice, Origin, StreamInfo
from rtdecode.wire.clock import clock_id, utc_anchor
from rtdecode.wire.endpoint import check_endpoint
from rtdecode.wire.messages import Event
from rtdecode.wire.payload import to_json

#: Events that say that something is not recorded, or worse.
ERRORS = frozenset({"error", "recording failed", "samples not recorded"})

#: Seconds that a pipeline may take to say where it publishes.
_PATIENCE_S = 1.0

#: Seconds that the first file may take, before the session begins all the same.
_FIRST_FILE_S = 30.0

#: Seconds that the last results may take to come, once everything is decoded.
_LAST_RESULTS_S = 2.0


class Recording:
    """What *acquire* records: batches, its events, and what the pipelines publish.

    Parameters
    ----------
    config : Config
        With a section ``[recording]``.
    info : StreamInfo
        What the source declares.
    origins : sequence of Origin
        The streams behind it.
    source : str
        Its name, where it is one of several: part of the file's name (``acq-``).
    """

    def __init__(self, config: Config, info: StreamInfo, origins: tuple[Origin, ...], source: str = "") -> None:
        wanted = config.recording
        assert wanted is not None
        entities = Entities(
            subject=wanted.subject,
            session=wanted.session,
            task=wanted.task,
            acquisition=acquisition(config, source),
            run=wanted.run,
        )
        settings = Settings(
            folder=wanted.dir,
            entities=entities,
            flush_s=wanted.flush_s,
            sync_s=wanted.sync_s,
            min_free=round(wanted.min_free_mb * 1e6),
            queue=round(wanted.queue_mb * 1e6),
            start=wanted.start,
        )
        self._wanted = wanted.start
        self._recorder = Recorder(info, origins, settings, _about(config, source))
        self._results: ResultRecorder | None = None
        pipelines = tuple(name for name, pipeline in config.pipelines.items() if pipeline.source == source)
        if wanted.results and pipelines:
            self._results = ResultRecorder(self._recorder, pipelines, _publishers(config))

    def must_begin(self) -> None:
        """Wait until the first file is begun, where one is to be from the start.

        Raises
        ------
        ConfigError
            It cannot be.
        """
        refusal = self._recorder.refusal(_FIRST_FILE_S) if self._wanted else ""
        if refusal:
            self._recorder.stop()  # nothing has come, so nothing is lost
            raise ConfigError(
                f"recording.dir: {refusal}; a session that is to be recorded does not begin without: expected a folder "
                "that takes files, or `start = false`"
            )

    @property
    def lost(self) -> int:
        """Samples that were not recorded; final after `close`."""
        return self._recorder.lost

    def put(self, batch: Batch) -> None:
        """Record a batch; never waits."""
        self._recorder.put(batch)

    def event(self, event: Event) -> None:
        """Record one of *acquire*'s own events; never waits."""
        self._recorder.event(to_json(event, {}).decode(), event.stamp)

    def notices(self) -> list[Notice]:
        """What there is to say since the last call."""
        return self._recorder.notices()

    def record(self, on: bool) -> dict[str, Any]:
        """Start or stop; what the control socket answers."""
        if on:
            self._recorder.start()
        else:
            self._recorder.stop()
        return {"recording": on}

    def status(self) -> dict[str, Any]:
        """For the control socket."""
        missed = {} if self._results is None else {"results_missed": sum(self._results.missed.values())}
        return self._recorder.status() | missed

    def close(self) -> list[Notice]:
        """Write what is left and close the file; what there is to say about it."""
        if self._results is not None:
            self._results.close(_LAST_RESULTS_S)
        self._recorder.close()
        return self._recorder.notices()


def acquisition(config: Config, source: str) -> str:
    """The label ``acq-`` of a source's files: the configured one, and the letters and digits of the source's name."""
    assert config.recording is not None
    return config.recording.acquisition + label(source)


def _about(config: Config, source: str) -> About:
    wanted = config.recording
    assert wanted is not None
    host, utc = utc_anchor()
    names: Mapping[str, str | int | None] = {
        "subject": wanted.subject,
        "session": wanted.session,
        "task": wanted.task,
        "acquisition": acquisition(config, source),
        "run": wanted.run,
    }
    writer = f"rtdecode {version('rtdecode')}"
    text = ""
    with contextlib.suppress(OSError):  # it was read a moment ago, and is told here for people
        text = config.path.read_text(encoding="utf-8")
    return About(
        file={"datetime": datetime.fromtimestamp(utc, UTC).isoformat(), "writer": writer}
        | {key: str(value) for key, value in names.items() if value not in ("", None)},
        session={
            "writer": writer,
            "clock_id": clock_id(),
            "utc_anchor": f"{host!r} {utc!r}",
            "config": text,
        },
    )


def _publishers(config: Config) -> Callable[[str], str | None]:
    """Where a pipeline publishes: as configured, or as it says itself where that leaves the port open."""
    control = control_endpoints(config)

    def where(name: str) -> str | None:
        wanted = config.pipelines[name].publish
        with contextlib.suppress(ConfigError):
            return check_endpoint(wanted)
        try:
            answer = ask(control[name], Status(pipeline=name), _PATIENCE_S, name)
        except RtdecodeError:  # not there yet, or not any more
            return None
        found = answer.get("publish")
        return found if isinstance(found, str) else None

    return where
