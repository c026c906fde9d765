"""The network of a recipe: built for the shape of the data, with weights at random or from another checkpoint."""

import hashlib
import importlib
import traceback
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from rtdecode.errors import ConfigError, RtdecodeError
from rtdecode_models.data.shape import Shape
from rtdecode_models.data.trials import Trials
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.systems.registry import build
from rtdecode_models.training.recipe import Init, Recipe


def make_system(system: str, options: Mapping[str, Any], shape: Shape) -> Encoder:
    """An encoder by a name of the registry, or by ``package.module:function`` with the same arguments.

    Raises
    ------
    ConfigError
        There is none, or it refuses the options or the shape.
    """
    if ":" not in system:
        return build(system, options, shape)
    place, _, function = system.partition(":")
    try:
        builder = getattr(importlib.import_module(place), function)
    except Exception as error:  # not only that it is not there: whatever it does as it is imported
        raise ConfigError(f"model.system {system!r} cannot be had: {type(error).__name__}: {error}") from error
    try:
        made = builder(options, shape)
    except RtdecodeError:
        raise
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigError(f"model (system {system!r}): {error}") from error
    except Exception as error:  # whatever the user's own code raises
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise ConfigError(
            f"model.system {system!r}, called with the options and the shape of the data, raised "
            f"{type(error).__name__}: {error} ({where.filename}, line {where.lineno})"
        ) from error
    if not isinstance(made, Encoder):
        raise ConfigError(
            f"model.system {system!r} gave a {type(made).__name__}; expected a rtdecode_models.systems.encoder.Encoder"
        )
    return made


def make_network(recipe: Recipe, shape: Shape, seed: int) -> tuple[Encoder, dict[str, Any]]:
    """The recipe's network, from torch's generator, and what was taken over from elsewhere."""
    network = make_system(recipe.model.system, recipe.model.options, shape)
    notes: dict[str, Any] = {}
    if recipe.model.init is not None:
        notes["init"] = start(network, recipe.model.init, seed)
    return network, notes


def start(network: Encoder, init: Init, seed: int) -> dict[str, Any]:
    """Take over another checkpoint's weights; what was taken and what was not.

    Raises
    ------
    ConfigError
        There is no such checkpoint or network in it, or nothing of it fits.
    """
    from rtdecode_models.training.checkpoint import member_weights

    weights = member_weights(Path(init.checkpoint), init.seed, seed)
    offered: dict[str, Tensor] = {}
    for name, value in weights.items():
        renamed = init.to + name.removeprefix(init.prefix)
        if name.startswith(init.prefix) and not any(fnmatchcase(renamed, pattern) for pattern in init.skip):
            offered[renamed] = value
    if not offered:
        raise ConfigError(f"model.init: no parameter of {init.checkpoint} begins with {init.prefix!r}")
    taken = network.start_from(offered)
    own = network.state_dict()
    return {
        "checkpoint": init.checkpoint,
        "taken": sorted(taken),
        "at_random": sorted(name for name in own if name not in taken),
        "left_behind": sorted(name for name in offered if name not in taken),
        "sha256": _hash({name: own[name] for name in taken}),
    }


def check_strangers(network: Encoder, system: str, trials: Trials, strangers: Sequence[str]) -> None:
    """Ask a network for somebody whom it was not built for, as the test will.

    Parameters
    ----------
    network : Encoder
        Before it is trained, on the CPU.
    system : str
        Its name.
    trials : Trials
        What it is trained on.
    strangers : sequence of str
        Subjects that are validated or tested on and not trained on.

    Raises
    ------
    ConfigError
        It has a part of its own for each subject, and none for another.
    """
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            network(torch.from_numpy(trials.x[:1]), torch.tensor([len(trials.subjects)]))
    except (ConfigError, IndexError) as error:
        raise ConfigError(
            f"the system {system!r} has a part of its own for each subject that it is trained on "
            f"({', '.join(trials.subjects)}), and [split] holds {', '.join(strangers)} out for validation or test; "
            "hold sessions or trials of the same subjects out"
        ) from error
    network.train(was_training)


def _hash(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of the tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
