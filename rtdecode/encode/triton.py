"""The engine that encodes on a shared Triton server, as long as there is one.

Windows go over one `TritonLink` at a time, each with the time that is left of its deadline. When the link is lost, a
thread opens another, with growing pauses; the model is checked against the bundle each time, by its shapes and its
golden windows. Meanwhile windows fail, or are encoded here where that was allowed: none waits for the server's return.
"""

import contextlib
import dataclasses
import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rtdecode import hostclock
from rtdecode.encode.engine import Engine, EngineInfo, News, Outputs, StatelessEngine
from rtdecode.encode.triton_link import TritonLink, of_the_server
from rtdecode.errors import EncodeError, EngineError, ProviderError, RtdecodeError

#: Pauses between attempts to reach a server that is gone: doubled from the first to the last.
FIRST_PAUSE_S: Final = 0.1
LAST_PAUSE_S: Final = 5.0

#: A link that was lost while no window was due is noticed within this time.
LOOK_S: Final = 0.5


class TritonEngine(StatelessEngine):
    """Encodes whole windows on a Triton server, or here where the server cannot and that is allowed.

    Parameters
    ----------
    open_link : callable
        Opens a link whose model was checked against the bundle; raises `RtdecodeError`.
    limit_s : float
        How long the server may have for one window at most.
    local : Engine or None
        What stands in; None where nothing may.

    Raises
    ------
    ProviderError
        There is no server, and nothing may stand in.
    BundleError
        The server's model is not the bundle's, whatever may stand in.
    """

    def __init__(self, open_link: Callable[[], TritonLink], limit_s: float, local: Engine | None) -> None:
        self._open_link = open_link
        self._limit_s = limit_s
        self._local = local
        self._local_s = 0.0 if local is None else _seconds(local)
        self._link: TritonLink | None = None  # the encoding thread's
        self._fresh: TritonLink | None = None  # the keeper's, until the other takes it
        self._retired: deque[TritonLink] = deque()
        self._news: deque[News] = deque()
        self._telling = threading.Lock()
        self._mourned: TritonLink | None = None
        self._reason = ""
        self._until = math.inf
        self._closed = threading.Event()
        self._wanted = threading.Event()
        try:
            self._link = self._opened()
        except ProviderError as error:
            if local is None:
                raise
            self._reason = str(error)
            self._news.append(News("server lost", f"{error}; the CPU stands in", {"stands_in": True}))
        self._info = self._told()
        self._keeper = threading.Thread(target=self._keep, name="triton", daemon=True)
        self._keeper.start()

    @property
    def info(self) -> EngineInfo:
        """What encoded the last window; before there is one, what would encode it."""
        return self._info

    def news(self) -> list[News]:
        """What happened to the server since the last call."""
        told = []
        while self._news:
            told.append(self._news.popleft())
        return told

    def allow(self, until: float) -> None:
        """The next window is of no use after this host time (infinity: whenever it comes)."""
        self._until = until

    def finish(self, window: NDArray[np.float32], first_index: int) -> Outputs:
        """Encode one window, on the server or, where that fails and is allowed, here; see `Engine.finish`."""
        if self._closed.is_set():
            raise EngineError("the engine was closed; make a new one")
        until, self._until = self._until, math.inf
        link = self._current()
        reason = self._reason
        if link is not None:
            link.until = until - self._local_s
            try:
                outputs = link.finish(window, first_index)
            except EncodeError as error:
                if not of_the_server(error):
                    raise  # the window's own fault: it would be the same here
                reason = str(error.__cause__)
                if link.lost:
                    self._lost(link)
                elif link.worn:
                    self._wanted.set()
            else:
                self._info = link.info
                return outputs
        if self._local is None:
            raise EncodeError(f"window at sample {first_index}: {reason}")
        began = hostclock.now()
        outputs = self._local.finish(window, first_index)
        self._local_s = max(0.9 * self._local_s, hostclock.now() - began)
        self._info = _standing_in(self._local.info)
        return outputs

    def close(self) -> None:
        """Let go of the server and the stand-in. Safe to call twice."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._wanted.set()
        self._keeper.join(LOOK_S)  # which lets go of the links, and may have to wait for a server
        if self._local is not None:
            self._local.close()

    # --- the link, as the thread that encodes sees it -----------------------------------------------------------------

    def _current(self) -> TritonLink | None:
        """The link to use; None where there is none."""
        if (fresh := self._fresh) is not None:
            self._fresh = None
            lost = self._link is None or self._link is self._mourned
            if self._link is not None:
                self._retired.append(self._link)
            if lost:
                text = f"{fresh.info.runtime} encodes again: its model gives what the bundle expects"
                self._news.append(News("server back", text, dict(fresh.info.more)))
            self._link = fresh
        elif self._link is not None and self._link.lost:
            self._lost(self._link)
        return self._link

    def _lost(self, link: TritonLink) -> None:
        self._tell(link)
        self._retired.append(link)
        self._link = None
        self._wanted.set()

    def _tell(self, link: TritonLink) -> None:
        """Say once that a link is lost, whichever thread sees it first."""
        with self._telling:
            if self._mourned is link:
                return
            self._mourned = link
            self._reason = f"the Triton server is gone: {link.broken or 'the connection was lost'}"
            stands_in = self._local is not None
            meanwhile = "the CPU stands in" if stands_in else "windows fail until it is back"
            self._news.append(News("server lost", f"{self._reason}; {meanwhile}", {"stands_in": stands_in}))

    def _told(self) -> EngineInfo:
        if self._link is not None:
            return self._link.info
        assert self._local is not None
        return _standing_in(self._local.info)

    # --- the link, as the thread that keeps it sees it ----------------------------------------------------------------

    def _keep(self) -> None:
        """Have a link that works, until the engine is closed."""
        pause, told = FIRST_PAUSE_S, ""
        while not self._closed.is_set():
            self._wanted.wait(LOOK_S)
            self._wanted.clear()
            while self._retired:
                self._retired.popleft().close()
            link = self._link
            if self._fresh is not None or not (link is None or link.lost or link.worn) or self._closed.is_set():
                continue
            if link is not None and link.lost:
                self._tell(link)
            try:
                self._fresh = self._opened()
            except RtdecodeError as error:
                self._reason = f"the Triton server is not back: {error}"
                # A model that is not the bundle's is news; a server that is still not there is not.
                if not isinstance(error, ProviderError) and str(error) != told:
                    told = str(error)
                    self._news.append(News("server refused", told))
                self._closed.wait(pause)
                pause = min(2 * pause, LAST_PAUSE_S)
                self._wanted.set()
            else:
                pause, told = FIRST_PAUSE_S, ""
        for link in (*self._retired, self._link, self._fresh):
            if link is not None:
                link.close()

    def _opened(self) -> TritonLink:
        link = self._open_link()
        link.limit_s = self._limit_s
        return link


def _standing_in(info: EngineInfo) -> EngineInfo:
    return dataclasses.replace(info, asked="triton")


def _seconds(engine: Engine) -> float:
    """What one window takes the engine, once warm."""
    zeros = np.zeros(engine.info.input_shape, np.float32)
    began = hostclock.now()
    with contextlib.suppress(EncodeError):  # an encoder may have no answer for zeros
        engine.finish(zeros, 0)
    return hostclock.now() - began
