"""The LSL streams that are visible, looked for once for all sources of a process.

Each search of liblsl is answered by every stream on the network: n sources that look each for itself, among n streams,
cost n² answers. Here one search serves all who ask while it is under way or waits to begin.
"""

import threading
from typing import Any, Protocol

from rtdecode import hostclock
from rtdecode.errors import SourceError
from rtdecode.sources.lsl_streams import LOOK_S, StreamQuery, found_one, none_found, pylsl, unique

#: How often is looked for second senders; and how often whether somebody misses his.
_LOOK_AROUND_S = 5.0
_TURN_S = 0.5


class Watched(Protocol):
    """A stream in use, that wants to know who else answers to its description."""

    query: StreamQuery

    @property
    def silent(self) -> bool:
        """Whether nothing has come for so long that its sender may have gone without a word."""
        ...

    def seen(self, found: list[Any]) -> None:
        """These answer to it now."""
        ...


class Directory:
    """Finds streams for several sources, each of which may ask from a thread of its own."""

    def __init__(self) -> None:
        self._looking = threading.Lock()
        self._began = float("-inf")
        self._visible: list[Any] = []
        self._watched: list[Watched] = []
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def visible(self) -> list[Any]:
        """All streams that answer to a search that begins now or later; takes `LOOK_S` or twice as long."""
        asked = hostclock.now()
        with self._looking:
            if self._began < asked:
                self._began = hostclock.now()
                self._visible = unique(pylsl().resolve_streams(LOOK_S))
            return self._visible

    def find(self, query: StreamQuery) -> list[Any]:
        """Those that match."""
        return [info for info in self.visible() if query.matches(info)]

    def resolve(self, query: StreamQuery, timeout: float) -> Any:
        """The one stream that matches, within `timeout` seconds; raises as `lsl_streams.resolve` does."""
        if not query.predicate:
            raise SourceError("no stream was asked for; set `name`, `type` or `source_id` of the source")
        deadline = hostclock.now() + timeout
        while True:
            if found := self.find(query):
                return found_one(found, query)
            if hostclock.now() >= deadline:
                raise none_found(query, timeout, self._visible)

    def watch(self, link: Watched) -> None:
        """Tell `link` now and then who answers to its description."""
        with self._looking:
            self._watched.append(link)
            if self._thread is None:
                self._thread = threading.Thread(target=self._look_around, name="lsl-directory", daemon=True)
                self._thread.start()

    def leave(self, link: Watched) -> None:
        """It is watched no longer."""
        if link in self._watched:
            self._watched.remove(link)
        if not self._watched:
            self._ending.set()

    def _look_around(self) -> None:
        looked = hostclock.now()
        while not self._ending.wait(_TURN_S):
            if hostclock.now() - looked > _LOOK_AROUND_S or any(link.silent for link in list(self._watched)):
                visible = self.visible()
                looked = hostclock.now()
                for link in list(self._watched):
                    link.seen([info for info in visible if link.query.matches(info)])
