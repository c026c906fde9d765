"""The encoder's output as it is."""

from typing import Literal

import numpy as np

from rtdecode.encode.engine import Outputs
from rtdecode.errors import EncodeError
from rtdecode.heads.outputs import HeadOutput


class Embedding:
    """Gives one output of the encoder as an array.

    Parameters
    ----------
    output : str
        Which one. The array has the same name in the message.
    """

    kind: Literal["embedding"] = "embedding"
    names: tuple[str, ...] = ()

    def __init__(self, output: str) -> None:
        self._output = output

    def __call__(self, outputs: Outputs) -> HeadOutput:
        """The output; `EncodeError` where it is missing or not finite."""
        if self._output not in outputs:
            raise EncodeError(f"the encoder gave no output {self._output!r}, only {', '.join(outputs)}")
        array = outputs[self._output]
        if not np.isfinite(array).all():
            raise EncodeError(f"the encoder's output {self._output!r} has NaN or Inf")
        return HeadOutput(arrays={self._output: array})
