"""What every encoder here is: a module from conditioned windows to named outputs, and its form without a subject."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rtdecode.errors import ConfigError
from rtdecode_models.data.trials import Trials


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
            At least `outputs`, each of shape (batch, ...); further ones for the losses. A stage that learns from losses
            of its own may give these alone while it trains.
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
        return Deployed(copy.deepcopy(self), subject).eval()

    def prepare(self, trials: Trials) -> None:
        """Set what is computed from the training trials before the first step, as the graph of their channels.

        Called once by the trainer; what is set lies in buffers, and so in checkpoints. Most encoders have nothing to
        set.

        Parameters
        ----------
        trials : Trials
            To train on; nothing else is looked at.

        Raises
        ------
        ConfigError
            They lack what it needs.
        """

    def start_from(self, weights: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Take over what a former stage of training has by the same name and in the same shape.

        Parameters
        ----------
        weights : mapping of str to Tensor
            Parameters and buffers of another encoder, as its ``state_dict`` names them.

        Returns
        -------
        tuple of str
            Names of this encoder's weights that were taken over; the others stay as they were.

        Raises
        ------
        ConfigError
            None fits: they are of something else.
        """
        own = self.state_dict()
        taken = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
        if not taken:
            raise ConfigError(
                f"nothing of the weights to start from fits {type(self).__name__}: they have {_some(weights)}, "
                f"it has {_some(own)}; expected a former stage of the same system and size"
            )
        self.load_state_dict(taken, strict=False)
        return tuple(taken)


def _some(weights: Mapping[str, Tensor]) -> str:
    names = [f"{name} {tuple(value.shape)}" for name, value in weights.items()]
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


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
