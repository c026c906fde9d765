"""A process's side of its supervisor: it beats, says that it leaves, and hears what it is to publish for the others.

    child -> supervisor   standard output, lines: READY..., BEAT, LEAVING, REFUSED {json}
    supervisor -> child   standard input, lines: one `News` each, as JSON; its end is the supervisor's

The supervisor has no socket: what it has to announce (a crash, a restart, a pipeline given up) it tells the processes
that are there, and they publish it.
"""

import contextlib
import os
import queue
import sys
from collections.abc import Sequence

import msgspec

from rtdecode import hostclock

#: Set by a supervisor that listens for beats.
BEATS = "RTDECODE_BEATS"

#: Seconds between two beats, at least.
BEAT_EVERY_S = 0.2

BEAT, LEAVING, REFUSED = "BEAT", "LEAVING", "REFUSED "

#: Longest line to a process, in bytes: what a pipe takes at once or not at all.
LINE_BYTES = 4096

#: Longest text of a `News`, so that its line stays below that.
TEXT_CHARS = 500


class News(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that its receiver is to publish as an event of its own.

    `event`: ``crashed``, ``restarted``, ``given up``, ``refused``, ``decoders ended``. `text`: for people. `details`:
    for programs.
    """

    event: str
    text: str
    details: dict[str, str | int | float | bool | None] = {}


class Supervised:
    """What a process says to its supervisor and hears from it. Without one, nothing.

    Parameters
    ----------
    beats : bool
        Whether a supervisor listens on our standard output.
    """

    def __init__(self, *, beats: bool = False) -> None:
        self._beats = beats
        self._next = 0.0
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        #: How often the supervisor has started this process again.
        self.restarts = 0
        if beats and sys.platform != "win32":
            # A supervisor that is stopped reads nothing. No main loop may wait for it.
            os.set_blocking(sys.stdout.fileno(), False)

    def attend(self) -> Sequence[News]:
        """Beat, once in every turn of the main loop, and give what is to be published."""
        if self._beats and (now := hostclock.now()) >= self._next:
            self._next = now + BEAT_EVERY_S
            self._say(BEAT)
        news: list[News] = []
        while not self._news.empty():  # nobody else takes any
            news.append(self._news.get_nowait())
        return news

    def leave(self) -> None:
        """The main loop is over: no beat follows."""
        if self._beats:
            self._say(LEAVING)

    def refused(self, news: News) -> bool:
        """Hand a refusal to the supervisor, that says it once for all processes; whether there is one."""
        if self._beats:
            self._say(REFUSED + msgspec.json.encode(news).decode())
        return self._beats

    def publish(self, news: News) -> None:
        """Give `news` out at the next `attend`."""
        self._news.put(news)

    def hear(self, line: bytes) -> None:
        """One line of the supervisor's. Called by the thread that reads them."""
        with contextlib.suppress(msgspec.DecodeError):  # another release's: nothing that we could say
            news = msgspec.json.decode(line, type=News)
            if news.event == "restarted":
                self.restarts = int(news.details.get("restarts") or 0)
            self.publish(news)

    @staticmethod
    def _say(line: str) -> None:
        with contextlib.suppress(OSError):  # full, or closed: the supervisor is stopped or gone
            os.write(sys.stdout.fileno(), line.encode() + b"\n")
