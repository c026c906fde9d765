"""What every encoder here is: a module from conditioned windows to named outputs, and its form without a subject."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """Base of the published encoders.

    Windows come as the daemon cuts them, (batch, time, channels); what the paper calls (channels, time) is transposed
    inside, so that the ONNX graph does it too.

    Attributes
    ----------
    outputs : tuple of str
        Names of the outputs, in the order in which they are exported: ``embedding``, ``logits``, or more of them.
    """

    outputs: tuple[str, ...] = ()

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """Encode windows.

        Parameters
        ----------
        window : Tensor of float32, shape (batch, time, channels)
            Conditioned.
        subject : Tensor of int64, shape (batch,), optional
            Whose they are, by the order of the training data's subjects. None where the encoder knows one subject only,
            or none.

        Returns
        -------
        dict of str to Tensor
            At least `outputs`, each of shape (batch, ...); while training, further ones for the losses.
        """
        raise NotImplementedError

    def deploy(self, subject: int | None = None) -> nn.Module:
        """A module for export, from a window alone to the tuple of `outputs`, in evaluation mode.

        An encoder with something to fold (a subject's matrix, a merger whose weights depend on positions only) gives
        another module with the same numbers; `self` stays as it was.

        Parameters
        ----------
        subject : int, optional
            Whose; None for an encoder that knows no subjects.
        """
        return Deployed(self, subject).eval()


class Deployed(nn.Module):
    """An encoder for one subject, with a window as its only input.

    Parameters
    ----------
    encoder : Encoder
        Runs unchanged.
    subject : int or None
        The subject that it is always told.
    """

    subject: Tensor | None

    def __init__(self, encoder: Encoder, subject: int | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.outputs = encoder.outputs
        self.register_buffer("subject", None if subject is None else torch.tensor([subject]))

    def forward(self, window: Tensor) -> tuple[Tensor, ...]:
        """Outputs in the encoder's order, each of shape (batch, ...); exported for a batch of one."""
        subject = None if self.subject is None else self.subject.expand(len(window))
        given: Mapping[str, Tensor] = self.encoder(window, subject)
        return tuple(given[name] for name in self.outputs)
