"""The thread behind a FieldTrip source: waits for samples and events, fetches them, and finds the buffer again."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, Full, Queue

import numpy as np
from numpy.typing import NDArray

from rtdecode import hostclock
from rtdecode.errors import SourceError, StreamNotFoundError
from rtdecode.sources.fieldtrip_client import NEVER, Client
from rtdecode.sources.fieldtrip_wire import Block, Event, Header, MalformedError

#: The longest that one request waits for samples; a buffer that answers no sooner is asked again.
WAIT_S = 0.2
#: Bytes of samples, and events, that are fetched by one request.
BLOCK_BYTES, EVENTS = 4 << 20, 1000
#: Seconds between two attempts to connect.
RETRY_S = 0.1
#: Things that may wait for the reader. What is beyond them waits on the buffer.
WAITING = 64
#: Samples by which a buffer is known again after a loss.
TAIL = 32
#: After a loss, how far the counter may be from where it would be expected, in seconds, where the tail cannot tell.
ASTRAY_S = 1.0
#: By how many seconds of samples the counter may be ahead of the time that has passed; beyond, it is another count.
AHEAD_S = 3600.0


@dataclass(frozen=True, slots=True)
class Samples:
    """What one request fetched: values, index of the first by the buffer's counter, host time when it was here.

    The count `counted` was there at host time `seen`: what the clock is fitted to. All events that had been put by
    host time `complete` came before it.
    """

    values: NDArray[np.generic]
    first: int
    counted: int
    seen: float
    arrived: float
    complete: float


@dataclass(frozen=True, slots=True)
class Quiet:
    """No samples came; all events that had been put by host time `complete` came before it."""

    complete: float


@dataclass(frozen=True, slots=True)
class Events:
    """Events, in the order in which they were put, and how many samples there were when they were seen."""

    events: tuple[Event, ...]
    counted: int


@dataclass(frozen=True, slots=True)
class Hole:
    """Samples `begin` to `stop` were no longer on the buffer when they were asked for."""

    begin: int
    stop: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The buffer is gone, for this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Changed:
    """The buffer is something else now, as the error says."""

    error: SourceError


@dataclass(frozen=True, slots=True)
class Back:
    """The buffer was found again. Its counter goes on, or began anew: then `begin` is the first sample that is read."""

    anew: bool
    begin: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more will come; with an error where the buffer came back as something else."""

    error: Exception | None = None


Item = Samples | Quiet | Events | Hole | Lost | Changed | Back | Ended


class _RestartedError(Exception):
    """The counter went back or far ahead, or the samples are no longer what the header said."""


class Link:
    """Follows one buffer.

    Parameters
    ----------
    client : Client
        Not yet connected.
    timeout_s : float
        How long to look for the buffer, and for a header on it.
    end_when_lost : bool
        End at the first loss.
    validate : callable
        Raises `SourceError` where a header that came back is another.
    events : bool
        Fetch events as well.
    retry_s : float
        Seconds between two attempts to connect.
    """

    def __init__(
        self,
        client: Client,
        timeout_s: float,
        end_when_lost: bool,
        validate: Callable[[Header], None],
        events: bool = True,
        retry_s: float = RETRY_S,
    ) -> None:
        self.items: Queue[Item] = Queue(WAITING)
        self.header: Header
        self.refused = self.reconnects = 0
        self.stop = threading.Event()
        self._client = client
        self._timeout_s = timeout_s
        self._end_when_lost = end_when_lost
        self._validate = validate
        self._events = events
        self._retry_s = retry_s
        self._tail: tuple[int, bytes] = (0, b"")
        self._seen = 0.0
        self._thread: threading.Thread | None = None

    @property
    def _where(self) -> str:
        return f"the FieldTrip buffer at {self._client.host}:{self._client.port}"

    # --- opening ------------------------------------------------------------------------------------------------------

    def open(self) -> Header:
        """Find the buffer and a header on it; what it holds by now is left where it is."""
        header = self.header = self._find()
        self._at, self._next_event = header.n_samples, header.n_events
        self._seen = hostclock.now()
        return header

    def start(self) -> None:
        """Begin to follow it, in a thread."""
        self._thread = threading.Thread(target=self._run, name="fieldtrip", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop. Safe to call twice, and from any thread."""
        self.stop.set()
        self._client.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5.0)
        self._client.close()

    def _find(self) -> Header:
        """Connect and read the header, again and again; tells the reader of one that is different."""
        deadline = hostclock.now() + self._timeout_s
        changed: SourceError | None = None
        why = "no answer"
        while True:
            try:
                self._client.connect()
                header = self._client.header()
                if header is not None:
                    refusal = self._refusal(header)
                    if refusal is None:
                        return header
                    if str(refusal) != str(changed):
                        self._put(Changed(refusal))
                    changed = refusal
                why = "it holds no header: nothing has been put into it yet"
            except MalformedError as error:
                self.refused += 1
                why = f"it does not speak the buffer's protocol ({error})"
            except OSError as error:
                why = error.strerror or str(error) or type(error).__name__
            if self.stop.wait(self._retry_s) or hostclock.now() > deadline:
                raise changed or StreamNotFoundError(
                    f"{self._where} was not found within {self._timeout_s:g} s: {why}; check host and port, and that "
                    "something is put into it"
                )

    def _refusal(self, header: Header) -> SourceError | None:
        if self._thread is None:
            return None  # the first one is taken as it is
        try:
            self._validate(header)
        except SourceError as error:
            return error
        return None

    # --- following ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        lost: str | None = None
        anew = False
        try:
            while not self.stop.is_set():
                try:
                    if lost is not None:
                        self._again(lost, anew)
                        lost, anew = None, False
                    self._follow()
                except _RestartedError as error:
                    lost, anew = str(error), True
                except MalformedError as error:
                    self.refused += 1
                    lost = f"it sent what is no answer: {error}"
                except OSError as error:
                    lost = error.strerror or str(error) or type(error).__name__
        except StreamNotFoundError:
            self._put(Ended())
        except Exception as error:  # told to the reader, who raises it
            self._put(Ended(error))

    def _follow(self) -> None:
        while not self.stop.is_set():
            asked = hostclock.now()
            counts = self._client.wait(self._at, self._next_event if self._events else NEVER, WAIT_S)
            seen = hostclock.now()
            if counts is None:
                raise _RestartedError("its header was taken away")
            n_samples, n_events = counts
            if n_samples < self._at:
                raise _RestartedError(f"its counter went back from {self._at} to {n_samples} samples")
            if n_samples - self._at > (seen - self._seen + AHEAD_S) * self.header.sfreq:
                raise _RestartedError(f"its counter jumped from {self._at} to {n_samples} samples")
            if n_events < self._next_event:
                self._next_event = 0
            if self._events:
                self._take_events(n_events)
            if n_samples > self._at:
                self._seen = seen
                self._take_samples(n_samples, seen, asked)
            else:
                self._put(Quiet(asked))

    def _take_samples(self, stop: int, seen: float, complete: float) -> None:
        frame = self.header.frame
        most = max(1, BLOCK_BYTES // frame)
        while self._at < stop and not self.stop.is_set():
            end = min(stop, self._at + most)
            block = self._checked(self._client.samples(self._at, end, frame))
            if block is None:
                oldest = self._oldest(lambda at: self._client.samples(at, at + 1, frame) is not None, self._at, stop)
                self._put(Hole(self._at, oldest))
                self._at = oldest
                continue
            begin, self._at = self._at, end
            n = min(TAIL, block.n_samples)
            self._tail = (end - n, block.data[-n * frame :])
            self._put(Samples(block.values, begin, stop, seen, hostclock.now(), complete))

    def _checked(self, block: Block | None) -> Block | None:
        header = self.header
        if block is not None and (block.n_channels, block.data_type) != (header.n_channels, header.data_type):
            raise _RestartedError(f"samples of {block.n_channels} channels in {block.data_type.name} came")
        return block

    def _take_events(self, stop: int) -> None:
        while self._next_event < stop and not self.stop.is_set():
            end = min(stop, self._next_event + EVENTS)
            events = self._client.events(self._next_event, end)
            if events is None:
                self._next_event = self._oldest(
                    lambda at: self._client.events(at, at + 1) is not None, self._next_event, stop
                )
                continue
            self._next_event = end
            self._put(Events(events, self._at))

    def _oldest(self, there: Callable[[int], bool], begin: int, stop: int) -> int:
        """The first index in (begin, stop] that the buffer still has, by halving; `stop` where it has none of them."""
        low, high = begin, stop
        while high - low > 1:
            middle = (low + high) // 2
            if there(middle):
                high = middle
            else:
                low = middle
        return high

    # --- after a loss -------------------------------------------------------------------------------------------------

    def _again(self, reason: str, anew: bool) -> None:
        """Find the buffer again, and say whether its counter goes on."""
        if self.stop.is_set():
            return
        self._client.close()
        self._put(Lost(reason))
        self.stop.wait(self._retry_s)
        if self._end_when_lost and not anew:
            raise StreamNotFoundError(reason)
        header = self.header = self._find()
        self.reconnects += 1
        goes_on = not anew and self._goes_on(header)
        if not goes_on:
            # What came since it was lost; a buffer that has been filled for hours is not read from its beginning.
            away = hostclock.now() - self._seen + ASTRAY_S
            self._at = max(0, header.n_samples - round(away * header.sfreq))
            self._next_event = 0 if self._at == 0 else header.n_events
        self._put(Back(not goes_on, self._at, reason))

    def _goes_on(self, header: Header) -> bool:
        """Whether this is the same run of the same counter: the last samples are still what they were.

        Where they are no longer on the buffer, or tell nothing (a constant), the counter must be about where it would
        be by now.
        """
        if header.n_samples < self._at or header.n_events < self._next_event:
            return False
        first, data = self._tail
        if data:
            block = self._client.samples(first, first + len(data) // header.frame, header.frame)
            if block is not None and block.data != data:
                return False
            if block is not None and data != data[: header.frame] * (len(data) // header.frame):
                return True
        due = self._at + (hostclock.now() - self._seen) * header.sfreq
        return abs(header.n_samples - due) <= ASTRAY_S * header.sfreq

    def _put(self, item: Item) -> None:
        while not self.stop.is_set():
            try:
                return self.items.put(item, timeout=0.1)
            except Full:
                continue

    def next(self, timeout: float) -> Item | None:
        """The next thing that came; None where nothing did within `timeout` seconds, or it was closed."""
        deadline = hostclock.now() + timeout
        while not self.stop.is_set():
            left = deadline - hostclock.now()
            try:
                return self.items.get(timeout=min(0.05, left)) if left > 0 else self.items.get_nowait()
            except Empty:
                if left <= 0:
                    return None
        return None
