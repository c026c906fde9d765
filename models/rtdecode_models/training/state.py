"""What a broken-off training goes on from: one safetensors file, renamed into place when it is whole."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rtdecode.errors import ConfigError

_MODULE, _OPTIMISER, _BEST, _RANDOM = "module.", "optimiser.", "best.", "random."


class Position(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How far a training is, apart from its tensors.

    Parameters
    ----------
    identity : str
        Hash of everything that the weights depend on; another training does not go on from here.
    epoch, at, step : int
        The epoch, the next batch in it, and the next step of the whole training.
    sums : dict of str to float
        Of the losses over this epoch's batches so far, by windows.
    windows : int
        How many windows those were.
    curves : dict of str to list of float
        What was measured at the end of each epoch.
    best, best_epoch : float, int
        Of what early stopping watches, and when; -1 before there was one.
    finished : bool
        The tensors are the final weights and nothing else.
    """

    identity: str
    epoch: int = 0
    at: int = 0
    step: int = 0
    sums: dict[str, float] = msgspec.field(default_factory=dict)
    windows: int = 0
    curves: dict[str, list[float | None]] = msgspec.field(default_factory=dict)
    best: float = 0.0
    best_epoch: int = -1
    finished: bool = False


class State(msgspec.Struct, kw_only=True):
    """A position with its tensors, by what they belong to."""

    position: Position
    module: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    best: dict[str, Tensor]
    random: dict[str, Tensor]


def write_state(path: Path, state: State) -> None:
    """Write it whole, or leave what was there."""
    parts = {_MODULE: state.module, _OPTIMISER: state.optimiser, _BEST: state.best, _RANDOM: state.random}
    tensors = {
        prefix + name: value.detach().cpu().contiguous().clone()  # tied weights would share memory
        for prefix, part in parts.items()
        for name, value in part.items()
    }
    whole = save(tensors, metadata={"position": msgspec.json.encode(state.position).decode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with scratch.open("wb") as file:
            file.write(whole)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise


def read_state(path: Path, identity: str) -> State | None:
    """What `write_state` wrote; None where there is nothing.

    Raises
    ------
    ConfigError
        It is of another training, or damaged.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            position = msgspec.json.decode(file.metadata()["position"], type=Position)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, msgspec.MsgspecError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged ({error}); remove it, and that network is trained anew") from error
    if position.identity != identity:
        raise ConfigError(
            f"{path} belongs to another training: the recipe, the data, the weights that it begins with or the version "
            f"of torch have changed since. Remove {path.parent} to begin anew, or choose another folder"
        )

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    return State(
        position=position, module=part(_MODULE), optimiser=part(_OPTIMISER), best=part(_BEST), random=part(_RANDOM)
    )


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's memory, by parameter and name: ``3.exp_avg``."""
    state: Mapping[int, Mapping[str, Any]] = optimiser.state_dict()["state"]
    return {f"{at}.{name}": torch.as_tensor(value) for at, own in state.items() for name, value in own.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The other way round."""
    state: dict[int, dict[str, Tensor]] = {}
    for place, value in tensors.items():
        at, _, name = place.partition(".")
        state.setdefault(int(at), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
