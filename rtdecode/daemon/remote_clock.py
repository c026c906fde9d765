"""Another machine's clock, measured over the connection that its samples come by."""

import math

import msgspec

from rtdecode import hostclock
from rtdecode.daemon import bus
from rtdecode.daemon.rpc import Client
from rtdecode.errors import ProcessError
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
