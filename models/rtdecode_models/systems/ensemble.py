"""Several classifiers as one, by the average of their probabilities."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rtdecode_models.systems.encoder import Encoder


class Ensemble(Encoder):
    """Several classifiers as one: logits are the logarithm of the members' mean probabilities.

    Parameters
    ----------
    members : sequence of Encoder
        Each has an output ``logits`` of shape (batch, classes).
    """

    outputs = ("logits",)

    def __init__(self, members: Sequence[Encoder]) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs at least one member")
        self.members = nn.ModuleList(members)

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """Logits (batch, classes): their softmax is the mean of the members' softmax."""
        return {"logits": average([member(window, subject)["logits"] for member in self.members])}

    def deploy(self, subject: int | None = None) -> nn.Module:
        """The same of the members' own deployments."""
        return _Deployed([member for member in self.members if isinstance(member, Encoder)], subject).eval()


class _Deployed(nn.Module):
    def __init__(self, members: Sequence[Encoder], subject: int | None) -> None:
        super().__init__()
        self.places = [member.outputs.index("logits") for member in members]
        self.members = nn.ModuleList(member.deploy(subject) for member in members)

    def forward(self, window: Tensor) -> tuple[Tensor, ...]:
        """The mean probabilities' logarithm, alone in a tuple."""
        given = [member(window)[place] for member, place in zip(self.members, self.places, strict=True)]
        return (average(given),)


def average(logits: Sequence[Tensor]) -> Tensor:
    """Logarithm of the mean of several softmaxes, each from logits (batch, classes)."""
    logs = torch.stack([torch.log_softmax(each, dim=-1) for each in logits])
    # log(mean(exp)) with the largest taken out first, written out so that the ONNX graph holds plain operators.
    largest = logs.amax(dim=0)
    return largest + (logs - largest).exp().mean(dim=0).log()
