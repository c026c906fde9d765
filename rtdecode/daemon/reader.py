"""One source in *acquire*'s hands: what it gives goes to the recorder, to the subscribers and into the log, at once.

What it has to say about itself, and about the session, goes out as events on its own topic.
"""

import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import structlog
import zmq

from rtdecode import hostclock
from rtdecode.config import Config
from rtdecode.daemon import bus
from rtdecode.daemon.account import SourceAccount
from rtdecode.daemon.arrival import NextArrival
from rtdecode.daemon.lane import Lanes
from rtdecode.daemon.log import ReplayLog
from rtdecode.daemon.recording import ERRORS, Recording
from rtdecode.errors import ProcessError
from rtdecode.signal import Batch, Chunk, Notice, SourceState, StreamInfo
from rtdecode.sources.base import Gathering, Peeking, Source
from rtdecode.wire.framing import encode
from rtdecode.wire.messages import Event

#: Longest wait for samples before a request to stop is looked at; and how often a source is read that has none.
READ_TIMEOUT_S = 0.1

#: A read that took so much longer than it was asked to says that we were held up, not that the source was silent.
HELD_UP_S = 0.1

#: Samples by which no window is due are handed on together, those of so many seconds at most; and so long before the
#: decoders want them, since that takes a while.
GATHER_S, HAND_ON_S = 0.1, 0.001

#: States of a source that its user should see in the log at a glance.
TROUBLE = frozenset({SourceState.STALLED, SourceState.RECOVERING, SourceState.CHANGED})

#: Decoders that may follow a source, those on other machines included.
FOLLOWERS = 64


class Reader:
    """Reads one source. One thread reads; another may answer for it.

    Parameters
    ----------
    config : Config
        The whole configuration.
    name : str
        The source; empty where it is the only one.
    source : Source
        Not yet open.
    alone : bool
        Whether the one who reads waits for this source, and not for others besides.
    """

    def __init__(self, config: Config, name: str, source: Source, *, alone: bool = True) -> None:
        self.name = name
        #: Whether nothing more will come.
        self.over = False
        #: Who follows, and who ever did: the latter are what a recording that is played waits for.
        self.followers: set[str] = set()
        self.asked_for: set[str] = set()
        #: When somebody last asked for samples.
        self.asked = hostclock.now()
        self.recording: Recording | None = None
        self.events = 0
        #: Of this process, where that says more than the source's state.
        self.phase = ""
        self._config = config
        self._stall_s = config.inputs[name].stall_s
        self._source = source
        self._peek = source.waiting if isinstance(source, Peeking) else None
        self._gather = source.gather if alone and isinstance(source, Gathering) else None
        self._log = ReplayLog(config.bus.log_seconds, round(config.bus.log_mb * 1e6))
        self._run = secrets.randbits(32) or 1
        self._topics = bus.topic(bus.SAMPLES_TOPIC, name), bus.topic(bus.EVENT_TOPIC, name)
        self._logger = structlog.get_logger().bind(**({"source": name} if name else {}))
        self._account: SourceAccount | None = None
        self._watermark = float("-inf")
        self._markers = 0
        self._look_at = 0.0
        self._wanted = 0
        self._wants: dict[str, bus.Follow] = {}  # what each follower said last
        self._info: StreamInfo | None = None

    def open(self) -> None:
        """Open the source; may take a minute. Raises what the source raises."""
        self._info = self._source.open()

    @property
    def bytes_per_s(self) -> float:
        """Of its samples, once open."""
        assert self._info is not None
        return 4.0 * len(self._info.channels) * self._info.sfreq

    def close(self) -> None:
        """Let go of the source."""
        self._source.close()

    def begin(self, publisher: "zmq.Socket[Any]", lanes: Lanes | None, *, resumed: bool) -> None:
        """What it gives goes out by `publisher` and `lanes` from now on, and is recorded where that is asked for.

        Raises
        ------
        ConfigError
            It is to be recorded from the start, and no file can be begun; where the session has not `resumed`.
        """
        assert self._info is not None
        self._publisher, self._lanes = publisher, lanes
        if self._config.recording is not None:
            self.recording = Recording(self._config, self._info, self._source.origins, self.name)
            if not resumed:
                self.recording.must_begin()
        self.event("connected", f"reading {self._info.source}", {"source": self._info.source})

    def close_recording(self) -> None:
        """Write what is left of the recording."""
        if self.recording is not None:
            self._say(self.recording.close())

    def start(self) -> None:
        """Its samples are read from now on."""
        assert self._info is not None
        self.phase = ""
        self._account = SourceAccount(hostclock.now(), self._info.sfreq, self._stall_s)
        self._expected = NextArrival(1 / self._info.sfreq)

    # --- samples ------------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Take what is there, and wait for nothing.

        Where every decoder has said at which samples its windows are due, not before there are those, nor later than a
        tenth of a second: a chunk costs as much as a larger one, here and behind.
        """
        if self._peek is not None and hostclock.now() < self._look_at:
            n = self._peek()
            if not n or self._position[1] + n < self._wanted:
                return
        self.read(0.0)

    def _next_wanted(self) -> int:
        """The index up to which samples have to be there for the next window that is due of any decoder."""
        grids = [(one.every, one.first) for one in list(self._wants.values())]
        if not grids or not all(every for every, _ in grids):
            return 0
        at = self._position[1]
        return min(first + max(0, -(-(at + 1 - first) // every)) * every for every, first in grids)

    def read(self, timeout: float) -> None:
        """Take what is there as soon as something is, within `timeout` seconds."""
        assert self._account is not None
        asked = hostclock.now()
        timeout = min(self._account.wait(asked), timeout)
        batch = self._source.read(timeout)
        if batch is None:
            self._end_of_source("the source has ended")
            self.event("end", "the source has ended")
            self.over = True
            return
        self._hand_on(batch)
        now = hostclock.now()
        self._say(self._account.took(batch, now, held_up=now - asked > timeout + HELD_UP_S))
        self._look_at = now + min(READ_TIMEOUT_S, self._account.wait(now))
        self._wanted = self._next_wanted()
        if self._gather is not None and batch.chunk is not None and len(batch.chunk):
            missing = self._wanted - self._position[1]
            self._gather(self._together_until(batch.chunk, missing), missing)

    def _together_until(self, newest: Chunk, missing: int) -> float:
        """Host time up to which samples need not be handed on one by one; minus infinity where somebody waits for each.

        `missing`: samples behind the newest up to the one that makes a window due.

        They leave the sender's connection at once, so that none is lost with it. What is spared is the way from here
        to the decoders; and what is done for these early, shortly before a window's last samples, is soon done for
        those: the code and its data are in the caches.
        """
        if missing <= 0:
            return -math.inf
        lead = max((one.lead for one in list(self._wants.values())), default=math.inf)
        at = self._expected.earliest(newest, missing) - lead - HAND_ON_S
        return min(at, newest.arrived + GATHER_S) if at == at else -math.inf

    def _hand_on(self, batch: Batch) -> None:
        """A batch on its way: to the recorder, the subscribers, the log. First of all: nothing may hold samples up."""
        if self.recording is not None:
            self.recording.put(batch)
        # Before the first sample there is nothing that a watermark could complete.
        moved = batch.watermark > self._watermark and self._position != (0, 0)
        if batch.chunk is not None or batch.markers or moved:
            self._send(batch)
            self._watermark = max(self._watermark, batch.watermark)
            self._markers += len(batch.markers)

    def _send(self, batch: Batch, *, end: bool = False) -> None:
        now = hostclock.now()
        frames = bus.samples_frames(batch, self._run, self._log.next, self._position, now, end=end)
        self._publish([self._topics[0], *frames[1:]])
        self._log.append(frames, now)

    def _publish(self, frames: list[bytes]) -> None:
        if self._lanes is not None:
            self._lanes.send(frames)
        self._publisher.send_multipart(frames)

    @property
    def _position(self) -> tuple[int, int]:
        return (0, 0) if self._account is None else self._account.position

    # --- its end ------------------------------------------------------------------------------------------------------

    def fail(self, error: Exception) -> None:
        """Say why nothing more will come. After a bug that is all, for another process will go on."""
        self.phase = "failed"
        self._end_of_source(str(error))
        self.event("error", str(error), {"error": type(error).__name__})
        self.over = True

    def finish(self) -> None:
        """Say that nothing more will come, as the last entry of the log."""
        if self.phase != "failed":
            self.phase = "ended"
        self.over = True
        self._send(Batch(None, (), self._watermark), end=True)
        self.asked = hostclock.now()

    def _end_of_source(self, text: str) -> None:
        if self._account is not None:
            self._say(self._account.ended(text, hostclock.now()))

    # --- what happens -------------------------------------------------------------------------------------------------

    def attend(self) -> None:
        """Say what the recorder has to say."""
        if self.recording is not None:
            self._say(self.recording.notices())

    def _say(self, notices: Iterable[Notice]) -> None:
        for notice in notices:
            self.event(notice.event, notice.text, notice.details, trouble=notice.state in TROUBLE)

    def event(
        self,
        event: str,
        text: str,
        details: Mapping[str, str | int | float | bool | None] | None = None,
        *,
        trouble: bool = False,
    ) -> None:
        """Publish, record and log something."""
        message = Event(
            seq=self.events,
            publisher=self._run,
            origin="acquire",
            event=event,
            text=text,
            stamp=hostclock.now(),
            # A source's own numbers may be numpy's, which do not travel.
            details={k: v.item() if isinstance(v, np.float64) else v for k, v in (details or {}).items()},
        )
        self.events += 1
        self._publish([self._topics[1], *(bytes(frame) for frame in encode(bus.EVENT_TOPIC, message)[1:])])
        if self.recording is not None:
            self.recording.event(message)
        log = self._logger.error if event in ERRORS else self._logger.warning if trouble else self._logger.info
        log(text, about=event, **({"state": message.details["state"]} if event == "state" else {}))

    # --- answers ------------------------------------------------------------------------------------------------------

    def answer(self, request: bus.Info | bus.Since | bus.Follow | bus.Leave) -> tuple[bus.LogState, Sequence[bytes]]:
        """The log's answer to a question; raises `ProcessError` where too many follow."""
        state = bus.LogState(run=self._run, oldest=self._log.oldest, next=self._log.next, info=None)
        match request:
            case bus.Info():
                return msgspec.structs.replace(state, info=self._info), ()
            case bus.Since(seq=seq):
                self.asked = hostclock.now()
                entries = self._log.since(seq, min(request.max_bytes, bus.PAGE_BYTES))
                state = msgspec.structs.replace(
                    state,
                    first=entries[0].seq if entries else seq,
                    counts=tuple(len(entry.frames) for entry in entries),
                )
                return state, [frame for entry in entries for frame in entry.frames]
            case bus.Follow(name=name):
                if name not in self.followers and len(self.followers) >= FOLLOWERS:
                    raise ProcessError(f"{FOLLOWERS} decoders follow already; expected no more")
                self.asked = hostclock.now()
                self.followers.add(name)
                self._wants[name] = request
                if not request.remote:
                    self.asked_for.add(name)
            case bus.Leave(name=name):
                self.followers.discard(name)
                self._wants.pop(name, None)
        return state, ()

    def status(self) -> dict[str, Any]:
        """How it is going, for the control socket."""
        now = hostclock.now()
        source = {"state": SourceState.CONNECTING.value} if self._account is None else self._account.status(now)
        return {
            **source,
            **({"state": self.phase} if self.phase else {}),
            "source": None if self._info is None else self._info.source,
            "run": self._run,
            "segment": self._position[0],
            "next_index": self._position[1],
            "samples": 0 if self._account is None else self._account.samples,
            "markers": self._markers,
            "log": {"oldest": self._log.oldest, "next": self._log.next, "bytes": self._log.n_bytes},
            "decoders": sorted(self.followers),
            "recording": None if self.recording is None else self.recording.status(),
            "events": self.events,
        }
