"""One trunk for all subjects behind a front of each: any system here becomes the shared part of a cross-subject model.

The family of MindEye2 (Scotti et al., ICML 2024, arXiv 2403.11207: a ridge front), MindBridge (Wang et al., CVPR 2024,
arXiv 2404.07850: pooling and a bottleneck), STTM (Wang et al., 2024, arXiv 2403.06361: shallow subject adapters and a
deep shared decoder) and FLEEG (2023, arXiv 2308.11636: a site's own part before the shared one). Trained jointly; a new
subject gets a front, and the trunk stays: see `rtdecode_models.systems.adaptation`.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, cast

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from rtdecode.errors import ConfigError
from rtdecode_models.data.shape import Shape
from rtdecode_models.data.trials import Trials
from rtdecode_models.systems import registry
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.systems.fronts import BottleneckFront, Front, check_channels
from rtdecode_models.systems.options import read_options

#: Where parameters and buffers of the shared part stand, by name.
TRUNK = "trunk."


class CrossSubjectConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `CrossSubject`.

    Parameters
    ----------
    trunk : str
        The system behind the fronts, as in a recipe.
    options : dict
        The trunk's own.
    front : str
        ``linear``, or ``bottleneck`` for a maximum over neighbours and a residual bottleneck before it.
    flat : bool
        The front takes the whole window at once and gives the trunk one sample, as for fMRI; else it takes channels.
    width : int
        Virtual channels, which the trunk is built for; 0 for as many as windows have channels, or 1024 where `flat`.
    pooled : int
        Numbers that the maximum of the bottleneck front leaves; 0 for as many as a window has.
    bottleneck : int
        Width of its residual branch.
    dropout : float
        Behind a flat bottleneck front.
    channels : tuple of int
        How many channels each subject has, in the order of the data's subjects: windows are as wide as the widest, and
        of each the first ones are taken. Empty where all have all.
    train : str
        ``all``; or ``front``: the trunk is another training's (``init``) and stays as it is. With ``all`` and
        ``init``, fronts begin anew on a trunk that is trained already: reset-tuning, as
        MindBridge calls it.
    """

    trunk: str
    options: dict[str, Any] = {}
    front: Literal["linear", "bottleneck"] = "linear"
    flat: bool = False
    width: int = 0
    pooled: int = 0
    bottleneck: int = 128
    dropout: float = 0.5
    channels: tuple[int, ...] = ()
    train: Literal["all", "front"] = "all"


class CrossSubject(Encoder):
    """The fronts and the trunk; outputs are the trunk's.

    Parameters
    ----------
    config : CrossSubjectConfig
        Its options.
    shape : Shape
        Of the data.
    """

    def __init__(self, config: CrossSubjectConfig, shape: Shape) -> None:
        super().__init__()
        self.config = config
        self.n_times, self.n_channels = shape.n_times, shape.n_channels
        self.width = config.width or (1024 if config.flat else shape.n_channels)
        channels = check_channels(config.channels, shape.n_subjects, shape.n_channels)
        self.fronts = nn.ModuleList(self._front(n) for n in channels)
        self.trunk = registry.build(config.trunk, config.options, self._trunk_shape(shape))
        self.outputs = self.trunk.outputs
        if config.train == "front":
            self.trunk.requires_grad_(False)

    def _front(self, n_channels: int) -> Front:
        config, n_times = self.config, self.n_times
        if config.front == "linear":
            return Front(n_times, n_channels, self.width, config.flat)
        pooled = config.pooled or (self.n_channels * n_times if config.flat else self.n_channels)
        return BottleneckFront(n_times, n_channels, self.width, config.flat, pooled, config.bottleneck, config.dropout)

    def _trunk_shape(self, shape: Shape) -> Shape:
        """Of what the fronts give; sensors keep their positions where there is a virtual channel for each."""
        same = not self.config.flat and self.width == shape.n_channels
        return replace(
            shape,
            n_times=1 if self.config.flat else shape.n_times,
            n_channels=self.width,
            n_subjects=1,
            channels=shape.channels if same else tuple(f"virtual {k}" for k in range(self.width)),
            positions=shape.positions if same else None,
        )

    def front(self, subject: int | None) -> Front:
        """A subject's front; None is the only one there is.

        Raises
        ------
        ConfigError
            There is no such subject, or several and none was named.
        """
        if subject is None and len(self.fronts) > 1:
            raise ConfigError(f"the encoder knows {len(self.fronts)} subjects; say whose windows these are")
        at = subject or 0
        if not 0 <= at < len(self.fronts):
            raise ConfigError(f"subject {at} is not one of the {len(self.fronts)} that the encoder knows")
        return cast(Front, self.fronts[at])

    def add_subject(self, n_channels: int | None = None) -> int:
        """A further front, as before any training; its index is returned. `n_channels`: all that windows have."""
        front = self._front(n_channels or self.n_channels).to(next(self.parameters()))
        self.fronts.append(front)
        return len(self.fronts) - 1

    def virtual(self, window: Tensor, subject: Tensor | None = None) -> Tensor:
        """What the trunk sees, (batch, samples, width), of windows (batch, time, channels)."""
        if subject is None:
            virtual: Tensor = self.front(None)(window)
            return virtual
        order = subject.argsort(stable=True)
        pieces = [self.front(int(at))(window[subject == at]) for at in torch.unique(subject)]
        return torch.cat(pieces)[order.argsort()]

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """Encode windows (batch, time, channels), each behind the front of its subject."""
        given: dict[str, Tensor] = self.trunk(self.virtual(window, subject))
        return given

    def prepare(self, trials: Trials) -> None:
        """Let the trunk prepare from what it will see of these trials, without dropout."""
        was_training = self.training
        self.eval()
        with torch.no_grad():
            pieces = [
                self.virtual(torch.from_numpy(part.x), torch.from_numpy(part.subject)).numpy()
                for part in (
                    trials.take(rows) for rows in np.array_split(np.arange(len(trials)), -(-len(trials) // 256))
                )
            ]
        self.train(was_training)
        self.trunk.prepare(replace(trials, x=np.concatenate(pieces)))

    def train(self, mode: bool = True) -> "CrossSubject":
        """As every module; a trunk that stays as it is also stays in evaluation mode."""
        super().train(mode)
        if self.config.train == "front":
            self.trunk.eval()
        return self

    def start_from(self, weights: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Take over a trunk; fronts stay as they are, since they are other subjects'.

        Raises
        ------
        ConfigError
            The trunk is another one.
        """
        own = {name: value for name, value in self.state_dict().items() if name.startswith(TRUNK)}
        wrong = [name for name in own if name not in weights or weights[name].shape != own[name].shape]
        if wrong:
            raise ConfigError(
                f"the weights to start from have no {wrong[0]} of shape {tuple(own[wrong[0]].shape)}; expected a "
                f"cross-subject model with the same trunk, {self.config.trunk}, of the same size"
            )
        self.load_state_dict({name: weights[name] for name in own}, strict=False)
        return tuple(own)

    def deploy(self, subject: int | None = None) -> nn.Module:
        """A subject's front, and the trunk as it is deployed; the window has that subject's channels."""
        return _Deployed(copy.deepcopy(self.front(subject)), self.trunk.deploy(None)).eval()


class _Deployed(nn.Module):
    def __init__(self, front: Front, trunk: nn.Module) -> None:
        super().__init__()
        self.front, self.trunk = front, trunk

    def forward(self, window: Tensor) -> tuple[Tensor, ...]:
        given: tuple[Tensor, ...] = self.trunk(self.front(window))
        return given


def build(options: Mapping[str, Any], shape: Shape) -> CrossSubject:
    """A `CrossSubject` for this shape of data; see `CrossSubjectConfig` for the options."""
    return CrossSubject(read_options(options, CrossSubjectConfig), shape)
