"""The one monotonic clock that all ages are measured with: liblsl's, or `time.perf_counter` where liblsl is absent."""

import time
from collections.abc import Callable


def _choose() -> tuple[Callable[[], float], str]:
    try:
        from pylsl import local_clock
    except (ImportError, RuntimeError, OSError):  # no pylsl, or a pylsl that found no liblsl binary
        return time.perf_counter, "perf_counter"
    return local_clock, "lsl"


#: Seconds on the host's monotonic clock, and the clock's name (``lsl`` or ``perf_counter``).
now, CLOCK_NAME = _choose()
