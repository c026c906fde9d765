"""The Head protocol: from the encoder's outputs to what is published."""

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.engine import Outputs
from rtdecode.errors import EncodeError
from rtdecode.heads.outputs import HeadOutput

Kind = Literal["embedding", "retrieval", "label"]


class Head(Protocol):
    """Turns one window's outputs into a result. Keeps no state between windows."""

    @property
    def kind(self) -> Kind:
        """What it gives; the pipeline's topic ends in the kind of its first head."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the gallery's items or of the classes; empty for an embedding."""
        ...

    def __call__(self, outputs: Outputs) -> HeadOutput:
        """The result of one window.

        Raises
        ------
        EncodeError
            The outputs are not what the head was made for, or not finite.
        """
        ...


def embedding_of(outputs: Outputs, name: str, width: int) -> NDArray[np.float32]:
    """One output, flat; `EncodeError` where it is missing, of another width, or not finite."""
    if name not in outputs:
        raise EncodeError(f"the encoder gave no output {name!r}, only {', '.join(outputs)}")
    flat = outputs[name].reshape(-1)
    if len(flat) != width:
        raise EncodeError(f"the encoder's output {name!r} has {len(flat)} values; expected {width}")
    if not np.isfinite(flat).all():
        raise EncodeError(f"the encoder's output {name!r} has NaN or Inf")
    return flat
