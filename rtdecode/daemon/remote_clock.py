"""Another machine's clock, measured over the connection that its samples come by."""

import math
import threading
from collections import deque

import msgspec

from rtdecode import hostclock
from rtdecode.clock.offset import ClockOffset
from rtdecode.daemon import bus
from rtdecode.daemon.rpc import Client
from rtdecode.errors import ProcessError, RtdecodeError
from rtdecode.signal import Offset

#: The other clock is asked so many times in a row, every so many seconds; the quickest answer counts.
PINGS, PING_EVERY_S = 8, 5.0


def measure(client: Client, timeout: float) -> tuple[Offset, str]:
    """Ask for the time over there, as NTP does (RFC 5905, section 8).

    Returns
    -------
    offset : Offset
        Of the quickest answer; its uncertainty is half of what the way there and back took.
    clock : str
        Name of the clock over there.

    Raises
    ------
    ProcessError
        No answer, or none of this version.
    """
    best: tuple[Offset, str] | None = None
    for _ in range(PINGS):
        sent = hostclock.now()
        result, _ = client.ask(bus.Clock(), timeout)
        came = hostclock.now()
        try:
            there = msgspec.convert(result, bus.Reading)
        except msgspec.ValidationError as error:
            raise ProcessError(f"the other clock answers in another version's words: {error}") from None
        offset = ((sent - there.received) + (came - there.answered)) / 2
        uncertainty = max(0.0, ((came - sent) - (there.answered - there.received)) / 2)
        if math.isfinite(offset) and (best is None or uncertainty < best[0].uncertainty):
            best = Offset(0, came, offset, uncertainty), there.clock
    if best is None:
        raise ProcessError("the other clock tells no time")
    return best


class RemoteClock:
    """Where the other host's clock stands; asked in a thread beside, unless it is this host's own.

    Parameters
    ----------
    own : str
        Name of this host's clock.
    timeout : float
        Seconds that an answer may take.
    """

    def __init__(self, own: str, timeout: float) -> None:
        self._own = own
        self._timeout = timeout
        self._offset = ClockOffset()
        self._shared = False
        self._hosts = 0  # how many have been begun: a measurement of one says nothing about the next
        self._measured: deque[tuple[int, Offset]] = deque()
        self._first: list[Offset] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, client: Client) -> None:
        """Another process, maybe on another host; raises `ProcessError` where it does not say what time it is."""
        self._hosts += 1
        first, name = measure(client, self._timeout)
        self._shared = name == self._own
        self._offset = ClockOffset(same_host=self._shared)
        self._first = []
        if not self._shared:
            self._offset.measured(first.time, first.value, first.uncertainty)
            self._first.append(first)

    def listen(self, client: Client) -> None:
        """Ask now and then; the client is the thread's from here on."""
        self._thread = threading.Thread(target=self._listen, args=(client,), name="remote-clock", daemon=True)
        self._thread.start()

    def _listen(self, client: Client) -> None:
        try:
            while not self._stop.wait(PING_EVERY_S):
                if self._shared:
                    continue
                host = self._hosts
                try:
                    self._measured.append((host, measure(client, self._timeout)[0]))
                except RtdecodeError:
                    continue  # gone, or not to be understood: the reader finds that out, and says it
        finally:
            client.close()

    def take(self) -> list[Offset]:
        """What was measured since the last call; from here on it counts."""
        taken, self._first = self._first, []
        while self._measured:
            host, one = self._measured.popleft()
            if host == self._hosts and not self._shared:
                self._offset.measured(one.time, one.value, one.uncertainty)
                taken.append(one)
        return taken

    def to_host(self, stamp: float) -> float:
        """Host time, over here, of a moment over there."""
        return self._offset.to_host(stamp)

    @property
    def uncertainty(self) -> float:
        """Seconds by which `to_host` may be wrong."""
        return self._offset.uncertainty

    def close(self) -> bool:
        """Ask no more; whether it was listened to."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        return self._thread is not None
