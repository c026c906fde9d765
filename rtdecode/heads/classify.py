"""Classification: probabilities with a declared temperature."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.engine import Outputs
from rtdecode.heads.base import embedding_of
from rtdecode.heads.outputs import HeadOutput, Label


class Classify:
    """Class probabilities: softmax(logits / temperature), computed in float64.

    Parameters
    ----------
    labels : sequence of str
        Class names, in the order of the logits.
    output : str
        The encoder's output that is the logits.
    temperature : float
        Above 1 softens, below 1 sharpens; see `rtdecode.heads.calibrate.calibrate_temperature`.

    Raises
    ------
    ValueError
        There are no labels, or the temperature is not above 0.
    """

    kind: Literal["label"] = "label"

    def __init__(self, labels: Sequence[str], *, output: str = "logits", temperature: float = 1.0) -> None:
        if not labels:
            raise ValueError("no labels; expected one for each logit")
        if not (np.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature = {temperature}; expected a number above 0")
        self.names = tuple(labels)
        self.temperature = temperature
        self._output = output

    def __call__(self, outputs: Outputs) -> HeadOutput:
        """The probabilities for one window; `EncodeError` where the logits are missing, too many or not finite."""
        probabilities = softmax(embedding_of(outputs, self._output, len(self.names)), self.temperature)
        return HeadOutput(
            label=Label(
                names=self.names,
                probabilities=tuple(probabilities.tolist()),
                best=self.names[int(probabilities.argmax())],
            )
        )


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities along the last axis, of logits of any size.

    The largest logit is subtracted first, so that no exponential overflows.
    """
    logits = logits.astype(np.float64)
    powers = np.exp((logits - logits.max(axis=-1, keepdims=True)) / temperature)
    probabilities: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities
