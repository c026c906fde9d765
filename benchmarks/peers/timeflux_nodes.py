"""The node of the timeflux graph that decodes."""

from time import time

import numpy as np
import pylsl
from common import Decoder, Notes
from timeflux.core.node import Node

#: timeflux moves stamps to the time of day by this difference, taken when its inlet is made.
OFFSET = time() - pylsl.local_clock()


class Decode(Node):
    """Encodes each window, and notes its best items."""

    def __init__(self, spec):
        self._decode, self._notes = Decoder(spec), Notes(spec)
        print("READY", flush=True)

    def update(self):
        """Decode one, where one is there."""
        if not self.i.ready():
            return
        items, scores = self._decode(self.i.data.to_numpy(np.float32))
        stamp = self.i.data.index[-1].timestamp() - OFFSET
        self._notes.add(stamp, pylsl.local_clock(), items, scores)
