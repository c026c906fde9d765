"""ezmsg: LSLInletUnit, ButterworthFilter, Window, and a unit that decodes, in one process.

Stamps stay on LSL's clock and are not processed (`processing_flags`): the sender is on this machine.
"""

from typing import Any

import ezmsg.core as ez
import numpy as np
import pylsl
from common import Decoder, Notes, read_spec
from ezmsg.lsl.inlet import LSLInfo, LSLInletSettings, LSLInletUnit
from ezmsg.sigproc.butterworthfilter import ButterworthFilter, ButterworthFilterSettings
from ezmsg.sigproc.window import Window, WindowSettings
from ezmsg.util.messages.axisarray import AxisArray


class DecodeSettings(ez.Settings):
    """The benchmark's."""

    spec: dict[str, Any]


class DecodeState(ez.State):
    """What it keeps."""

    decode: Any = None
    notes: Any = None


class Decode(ez.Unit):
    """Encodes each window, and notes its best items."""

    SETTINGS = DecodeSettings
    STATE = DecodeState

    INPUT = ez.InputStream(AxisArray)

    async def initialize(self) -> None:
        """Load."""
        self.STATE.decode, self.STATE.notes = Decoder(self.SETTINGS.spec), Notes(self.SETTINGS.spec)
        print("READY", flush=True)

    @ez.subscriber(INPUT)
    async def on_window(self, message: AxisArray) -> None:
        """Decode one."""
        items, scores = self.STATE.decode(np.asarray(message.data, np.float32))
        time = message.axes["time"]
        self.STATE.notes.add(time.value(len(message.data) - 1), pylsl.local_clock(), items, scores)


def main() -> None:
    """Decode until killed."""
    spec = read_spec()
    inlet = LSLInletUnit(LSLInletSettings(info=LSLInfo(name=spec["stream"]), use_lsl_clock=True, processing_flags=0))
    band = ButterworthFilter(
        ButterworthFilterSettings(order=spec["order"], cuton=spec["low"], cutoff=spec["high"], coef_type="sos")
    )
    window = Window(WindowSettings(window_dur=spec["length"], window_shift=spec["hop"], zero_pad_until="none"))
    decode = Decode(DecodeSettings(spec=spec))
    ez.run(
        components={"INLET": inlet, "BAND": band, "WINDOW": window, "DECODE": decode},
        connections=(
            (inlet.OUTPUT_SIGNAL, band.INPUT_SIGNAL),
            (band.OUTPUT_SIGNAL, window.INPUT_SIGNAL),
            (window.OUTPUT_SIGNAL, decode.INPUT),
        ),
    )


if __name__ == "__main__":
    main()
