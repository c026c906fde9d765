"""The samples behind an LSL source: pulled by whoever reads, watched and found again by threads."""

import math
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from rtdecode import hostclock
from rtdecode.errors import SourceError, StreamNotFoundError
from rtdecode.signal import Notice, SourceState
from rtdecode.sources.base import MUCH
from rtdecode.sources.change import ChangedError
from rtdecode.sources.lsl_directory import Directory
from rtdecode.sources.lsl_links import Ended, Event, Link, Reopened, Samples
from rtdecode.sources.lsl_search import Search, same_identity
from rtdecode.sources.lsl_streams import LOOK_S, Puller, StreamQuery, describe_stream, pylsl

#: Samples taken by one pull at most.
PULL = 4096
#: A pull of samples returns after this, to look for markers; and without any, to look whether to end.
_POLL_S, _POLL_ALONE_S = 0.02, 0.1
#: How often is looked whether the stream is lost, or its reader is elsewhere.
_WATCH_S = 0.05
#: The same where a process reads many streams, each every tenth of a second at least: for the thread that stands in.
_WATCH_MANY_S = 1.0
#: How often is looked for a second sender that answers to the same description.
_LOOK_AROUND_S = 5.0
#: A stream that is silent for so long is looked for, in case its sender went without a word (a cable, a power cut).
_SILENT_S = 2.0
#: Samples that may lie unread, in seconds, before the source gives up.
_UNREAD_S = 60.0


class DataLink(Link):
    """Pulls samples: in the reader's own thread while it reads, since every hand-over between threads costs time.

    liblsl forgets what it holds once it notices that the sender is gone. So while the reader is elsewhere, this link's
    thread takes what comes; and it finds the stream again when it is lost.

    Parameters
    ----------
    validate : callable
        Called with a reopened stream's description; raises `ChangedError` where it is not what it was.
    end_when_lost : bool
        A lost stream ends the source at once.
    """

    def __init__(
        self,
        query: StreamQuery,
        events: "SimpleQueue[Event]",
        timeout_s: float,
        validate: Callable[[Any], None],
        end_when_lost: bool,
        directory: Directory | None = None,
    ) -> None:
        super().__init__(query, events, timeout_s, directory=directory)
        self._validate = validate
        self._end_when_lost = end_when_lost
        self._pulling = threading.Lock()
        self._puller: Puller | None = None
        self._put = self._taken = 0  # samples; one is written under the lock alone, the other by the reader alone
        self._arrived = math.inf
        #: Whether markers come beside the samples, for which the reader looks now and then.
        self.with_markers = False
        #: Samples that come up to this host time may be given together, and no more than so many.
        self.gather = -math.inf, 0
        self._known: set[str] = set()
        #: Lost, or to be stopped.
        self._wanted = threading.Event()

    def start(self) -> None:
        """Begin to watch the stream."""
        self._begin()
        super().start()
        if self.directory is not None:
            self.directory.watch(self)

    def close(self) -> None:
        """Stop the threads and let go of the inlet. Safe to call twice."""
        if self.directory is not None:
            self.directory.leave(self)
        self.stop.set()
        self._wanted.set()
        super().close()

    @property
    def waiting(self) -> int:
        """Samples that are here; `MUCH` where something else is. That a stream is lost shows at a pull alone."""
        if not self.events.empty():
            return MUCH
        inlet = self.inlet
        return 0 if self._puller is None or inlet is None else int(inlet.samples_available())

    def _targets(self) -> list[Callable[[], None]]:
        return [*super()._targets(), *([self._look_around] if self.directory is None else [])]

    def _begin(self) -> None:
        self._arrived = hostclock.now()
        self._puller = Puller(self.inlet, PULL)

    def next(self, timeout: float) -> Event | None:
        """The next event, in the order in which things came; None where there is none within `timeout` seconds."""
        deadline, left = hostclock.now() + timeout, timeout
        poll = _POLL_S if self.with_markers else _POLL_ALONE_S
        while True:
            if self._puller is None:  # lost: the thread looks for it
                return self._queued(max(0.0, left))
            with self._pulling:
                # What the thread took came before what is pulled now.
                event = self._queued() or self._pull(min(poll, max(0.0, left)), *self.gather)
            if event is not None or left <= 0:
                return event
            left = deadline - hostclock.now()

    def _queued(self, timeout: float | None = None) -> Event | None:
        if timeout is None and self.events.empty():  # far cheaper than to be told so by an exception
            return None
        try:
            event = self.events.get(block=timeout is not None, timeout=timeout)
        except Empty:
            return None
        if isinstance(event, Samples):
            self._taken += len(event.stamps)
        return event

    def _pull(self, timeout: float, until: float = -math.inf, most: int = 0) -> Samples | None:
        """Under the lock: what is there, as soon as something is, and what else comes until then, up to `most`."""
        if self._puller is None or self.stop.is_set():
            return None
        values, stamps = self._puller.pull(timeout, until, most)
        arrived = self._puller.arrived
        if self._puller.lost:
            self._puller = None
            self._wanted.set()
        if not len(stamps):
            return None
        self._arrived = arrived
        return Samples(values, stamps, arrived)

    def _run(self) -> None:
        while not self._idle():
            if self._puller is None:
                if self._end_when_lost:
                    self.events.put(Ended())
                    return
                if not self._recover():
                    return
            elif self._pulling.acquire(blocking=False):
                try:
                    self._stand_in()
                finally:
                    self._pulling.release()

    def _idle(self) -> bool:
        """Wait until there may be something to do; whether the end has come."""
        if self.directory is None:
            return self.stop.wait(_WATCH_S)
        self._wanted.wait(_WATCH_MANY_S)
        self._wanted.clear()
        return self.stop.is_set()

    def _stand_in(self) -> None:
        """Take what has come while the reader is elsewhere."""
        samples = self._pull(0.0)
        if samples is not None:
            self._put += len(samples.stamps)
            self.events.put(samples)
        if self._put - self._taken > _UNREAD_S * self.info.nominal_srate():
            raise SourceError(
                f"{self._put - self._taken} samples of the LSL stream with {self.query} lie unread; "
                "the process that reads them is too slow or has stopped"
            )

    def _recover(self) -> bool:
        """Look for the stream until it is back as it was; False where it is not, in time."""
        self._say(SourceState.RECOVERING, f"the LSL stream {self.info.name()!r} is lost; looking for it")
        began = hostclock.now()
        deadline = began + self.timeout_s
        search = Search(self.query, self.info, self.directory)
        refused: SourceError | None = None
        while not self.stop.is_set() and hostclock.now() < deadline:
            found = search.look()
            if found is None or self.stop.is_set():
                continue
            try:
                self.attach(found, self._validate, 2.0)
            except StreamNotFoundError:
                continue
            except SourceError as error:
                search.refuse(found)
                if str(error) != str(refused):  # somebody works on it: the time runs from here
                    deadline = hostclock.now() + self.timeout_s
                    self._say(
                        SourceState.CHANGED, str(error), **(error.details if isinstance(error, ChangedError) else {})
                    )
                refused = error
            else:
                took = hostclock.now() - began
                text = f"the LSL stream {self.info.name()!r} is found again after {took:.3g} s"
                self.events.put(Reopened(self.info, self.offset))
                self._say(SourceState.STREAMING, text, found_s=took)
                self._begin()
                return True
        self.events.put(Ended(refused))
        return False

    def _look_around(self) -> None:
        """See now and then whether there is a second sender, and whether ours has gone without a word."""
        looked = hostclock.now()
        while not self.stop.wait(0.5):
            if self._puller is not None and (self.silent or hostclock.now() - looked > _LOOK_AROUND_S):
                self.seen(pylsl().resolve_bypred(self.query.predicate, 2, LOOK_S))
                looked = hostclock.now()

    @property
    def silent(self) -> bool:
        """Whether nothing has come for so long that its sender may have gone without a word."""
        return self._puller is not None and hostclock.now() - self._arrived > _SILENT_S

    def seen(self, streams: list[Any]) -> None:
        """These answer to the description now: ours, and others."""
        if self._puller is None:
            return
        ours, silent = self.info, self.silent
        found = {one.uid(): one for one in streams}
        others = [one for uid, one in found.items() if uid != ours.uid()]
        for one in others:
            if one.uid() not in self._known:
                self._twin(one)
        self._known &= found.keys()
        self._known |= {one.uid() for one in others}
        gone = silent and ours.uid() not in found and any(same_identity(one, ours) for one in others)
        with self._pulling:
            if gone and ours is self.info:
                self._puller = None
                self._wanted.set()

    def _twin(self, info: Any) -> None:
        text = (
            f"a second LSL stream has {self.query}: {describe_stream(info)}; the first stays in use. Set `source_id`, "
            "so that the session cannot go on with the wrong one"
        )
        self.events.put(Notice("second sender", text, details={"source_id": info.source_id(), "host": info.hostname()}))

    def _say(self, state: SourceState, text: str, **details: str | int | float | bool | None) -> None:
        self.events.put(Notice("state", text, state, details))
