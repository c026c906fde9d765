"""The one monotonic clock that all ages are measured with: liblsl's, or `time.perf_counter` where liblsl is absent."""

import sys
import time
from collections.abc import Callable


def _choose() -> tuple[Callable[[], float], str]:
    try:
        from pylsl import local_clock
    except (ImportError, RuntimeError, OSError):  # no pylsl, or a pylsl that found no liblsl binary
        return time.perf_counter, "perf_counter"
    return (time.monotonic if _same(local_clock) else local_clock), "lsl"


def _same(local_clock: Callable[[], float]) -> bool:
    """Whether Python reads the very clock that liblsl reads: on Linux both read CLOCK_MONOTONIC.

    It does so in a fifth of the time that a call into liblsl takes, and every sample's way passes here often. Looked at
    nevertheless, since a liblsl might be built otherwise.
    """
    if sys.platform != "linux":
        return False
    before, theirs, after = time.monotonic(), local_clock(), time.monotonic()
    return before - _ROUNDING_S <= theirs <= after + _ROUNDING_S


#: What two roundings of one reading may differ by, in seconds.
_ROUNDING_S = 1e-6

#: Seconds on the host's monotonic clock, and the clock's name (``lsl`` or ``perf_counter``).
now, CLOCK_NAME = _choose()
