"""When samples that have not come yet can be here, by the stamps and delays of those that have."""

import math

from rtdecode.signal import Chunk

#: How fast the quickest delivery is forgotten, in seconds for each chunk.
FORGOTTEN_S = 1e-5

#: Delays of live samples, in seconds. Beyond them stamps are not of this host's clock.
DELAYS_S = (-0.01, 1.0)


class NextArrival:
    """Foresees arrivals on one stream.

    Parameters
    ----------
    period : float
        Seconds from one sample to the next.
    """

    def __init__(self, period: float) -> None:
        self._period = period
        self._quickest = math.inf

    def earliest(self, newest: Chunk, missing: float) -> float:
        """Host time before which the sample `missing` places behind a chunk's last is not here; NaN where not known.

        That is by its stamp and by the quickest delivery so far; to be asked for each chunk that comes.
        """
        delay = newest.arrived - float(newest.stamps[-1])
        if not DELAYS_S[0] < delay < DELAYS_S[1]:
            return math.nan
        self._quickest = min(delay, self._quickest + FORGOTTEN_S)
        return float(newest.stamps[-1]) + missing * self._period + self._quickest
