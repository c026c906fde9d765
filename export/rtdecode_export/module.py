"""A module of someone else's, fed as the daemon feeds it: its layout, its weights."""

from pathlib import Path
from typing import Final, Literal, get_args

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rtdecode.errors import ConfigError

Layout = Literal["btc", "bct", "b1ct"]

#: What a network may be written for: (batch, time, channels), (batch, channels, time), (batch, 1, channels, time).
LAYOUTS: Final[tuple[Layout, ...]] = get_args(Layout)

#: How many names an error lists.
_LISTED: Final = 5


class Transposed(nn.Module):
    """A network of another layout, with the daemon's windows as its input.

    Parameters
    ----------
    network : Module
        Maps (batch, channels, time) or (batch, 1, channels, time).
    plane : bool
        Whether it wants the axis of length 1.
    """

    def __init__(self, network: nn.Module, *, plane: bool) -> None:
        super().__init__()
        self.network = network
        self.plane = plane

    def forward(self, window: Tensor) -> object:
        """Outputs of the network for a window of shape (batch, time, channels)."""
        turned = window.transpose(1, 2)
        return self.network(turned.unsqueeze(1) if self.plane else turned)


def with_layout(module: nn.Module, layout: str) -> nn.Module:
    """The module as one that maps (batch, time, channels), the transposition in its graph.

    Raises
    ------
    ConfigError
        The layout is none of `LAYOUTS`.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"the layout is {layout!r}; expected one of {', '.join(LAYOUTS)}")
    return module if layout == "btc" else Transposed(module, plane=layout == "b1ct")


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a safetensors file into a module, every name and shape as the module has them.

    Raises
    ------
    ConfigError
        The file cannot be read, lacks a name, has one too many, or a tensor of another shape.
    """
    try:
        given = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; expected the weights as a safetensors file") from error
    wanted = module.state_dict()
    problems = []
    if missing := sorted(wanted.keys() - given.keys()):
        problems.append(f"it lacks {_some(missing)}")
    if extra := sorted(given.keys() - wanted.keys()):
        problems.append(f"the module has no {_some(extra)}")
    problems += [
        f"{name} has shape {tuple(given[name].shape)} and the module's {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & given.keys())
        if given[name].shape != wanted[name].shape
    ][:_LISTED]
    if problems:
        raise ConfigError(
            f"{path} does not fit {type(module).__name__}: {'; '.join(problems)}. Build the module as it was trained, "
            "or rename the tensors"
        )
    module.load_state_dict(given)


def _some(names: list[str]) -> str:
    listed = ", ".join(names[:_LISTED])
    return listed if len(names) <= _LISTED else f"{listed} and {len(names) - _LISTED} more"
