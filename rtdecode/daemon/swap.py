"""Another bundle, made ready beside the one that decodes."""

import dataclasses
import math
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from rtdecode.config import PipelineConfig
from rtdecode.daemon.endpoints import Endpoints
from rtdecode.daemon.follow import Arrival, Lost, history
from rtdecode.daemon.model import Model, Opened, build, verified
from rtdecode.daemon.rpc import Caller, Client
from rtdecode.decoder import Result, Status
from rtdecode.errors import ProcessError
from rtdecode.signal import Batch, StreamInfo
from rtdecode.stream.incidents import WindowRef

#: Two conditioning chains may give the same window at other times. Windows of the samples this many seconds before the
#: switch are therefore encoded by the new bundle too, and compared with those that are out.
MARGIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Start:
    """Where the running decoder stood when the swap began.

    Parameters
    ----------
    entry : int
        Next entry of the log that it will take.
    base : int
        Offset of segment numbers.
    newest : float
        Stamp of its newest sample.
    """

    entry: int
    base: int
    newest: float


class Swap:
    """Loads, verifies and warms a bundle in a thread of its own, and feeds it what the running decoder has had.

    The owner gives every entry that it decodes meanwhile to `put`; once `done`, it takes the model with `finish`.

    Parameters
    ----------
    path : Path
        The new bundle.
    caller : Caller
        Who asked.
    name : str
        The pipeline.
    pipeline : PipelineConfig
    info : StreamInfo
        The stream.
    found : Endpoints
        Where *acquire*'s log is: the one that owns the pipeline's source.
    context : zmq.Context
    start : Start
    seconds : float, optional
        How far back to go; the whole log where None.
    admit : callable
        Called with the new bundle and its engine; raises where there is no room for it.
    """

    def __init__(
        self,
        path: Path,
        caller: Caller,
        *,
        name: str,
        pipeline: PipelineConfig,
        info: StreamInfo,
        found: Endpoints,
        context: "zmq.Context[Any]",
        start: Start,
        seconds: float | None,
        admit: Callable[[Opened], object],
    ) -> None:
        self.path = path
        self.caller = caller
        self.held: list[tuple[Result, float]] = []
        assert isinstance(pipeline.source, str)
        self._source = pipeline.source
        self._newest = start.newest
        self._entries: queue.SimpleQueue[Arrival | Lost] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._model: Model | None = None
        self._cancelled = threading.Event()

        def work() -> None:
            try:
                opened = verified(path, pipeline, name=name)
                try:
                    admit(opened)
                except BaseException:
                    opened.engine.close()
                    raise
                model = build(path, name, pipeline, info, opened)
                self._settle(model, context, found, start, seconds)
                self._model = model
            except BaseException as error:  # handed to the owner's thread, which raises or refuses
                self._error = error

        self._thread = threading.Thread(target=work, name="swap", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether `finish` will not wait."""
        return not self._thread.is_alive()

    def put(self, entry: Arrival | Lost, newest: float) -> None:
        """The running decoder has taken this entry; the stamp of its newest sample is now `newest`."""
        self._newest = newest
        self._entries.put(entry)

    def finish(self) -> Model:
        """Give the model, fed exactly what was `put`; `held` then has the results that it gave on the way.

        Raises
        ------
        RtdecodeError
            Why the bundle cannot be used.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._model is not None
        self._drain(self._model)
        # What happened on the way was told by the running decoder. What turned out to be wrong is not to be published.
        wrong = {one for incident in self._model.decoder.incidents() for one in incident.windows}
        self.held = [(_gap(one) if _ref(one) in wrong else one, received) for one, received in self.held]
        return self._model

    def cancel(self) -> None:
        """Give up; a model that is being fed is let go."""
        self._cancelled.set()
        self._thread.join()
        if self._model is not None:
            self._model.close()

    def _settle(
        self, model: Model, context: "zmq.Context[Any]", found: Endpoints, start: Start, seconds: float | None
    ) -> None:
        client = Client(context, found.log, "acquire")
        try:
            for batch in history(client, start.entry, start.base, start.newest, seconds, self._source):
                if self._cancelled.is_set():
                    raise ProcessError("the swap was given up: the process ends")
                self._feed(model, batch, math.nan)
        except BaseException:
            model.close()
            raise
        finally:
            client.close()
        self._drain(model)

    def _drain(self, model: Model) -> None:
        while not self._cancelled.is_set():
            try:
                entry = self._entries.get_nowait()
            except queue.Empty:
                return
            match entry:
                case Arrival():
                    self._feed(model, entry.batch, entry.received)
                case Lost():
                    model.decoder.lost(lost_reason(entry))

    def _feed(self, model: Model, batch: Batch, received: float) -> None:
        chunk = batch.chunk
        old = chunk is not None and len(chunk) > 0 and float(chunk.stamps[-1]) < self._newest - MARGIN_S
        items = model.decoder.advance(chunk, batch.markers, batch.watermark)
        if old:
            return
        for item in items:
            self.held.append((item if isinstance(item, Result) else model.decoder.encode(item), received))


def _ref(result: Result) -> WindowRef:
    return WindowRef(result.window, result.segment, result.start, result.marker)


def _gap(result: Result) -> Result:
    return dataclasses.replace(result, status=Status.GAP, reason="a hole was found late", outputs={}, heads=())


def lost_reason(lost: Lost) -> str:
    """Why windows are skipped where log entries were lost."""
    return f"{lost.stop - lost.first} chunks left the log before they were fetched"
