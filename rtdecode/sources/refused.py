"""What a source refused: each one is counted, and now and then told."""

import math

from rtdecode import hostclock
from rtdecode.signal import Notice

#: Seconds between two notices: whoever floods a socket does not flood the log.
EVERY_S = 1.0


class Refusals:
    """Counts what was refused.

    Attributes
    ----------
    total : int
        How many.
    why : str
        Of the last one.
    """

    def __init__(self) -> None:
        self.total = 0
        self.why = ""
        self._told = 0  # of `total`
        self._told_at = -math.inf

    def add(self, why: str, *, tell: bool = True) -> list[Notice]:
        """One more; what there is to say now, of all since it was last said."""
        self.total += 1
        self.why = why
        now = hostclock.now()
        if not tell or now - self._told_at < EVERY_S:
            return []
        n, self._told, self._told_at = self.total - self._told, self.total, now
        text = f"a message: {why}" if n == 1 else f"{n} messages; the last: {why}"
        return [Notice("refused", f"refused {text}", details={"n": n, "total": self.total})]
