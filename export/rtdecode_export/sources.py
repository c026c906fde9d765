"""What SOURCE of ``rtdecode export`` names, as the arguments of `export_bundle`."""

import importlib
import inspect
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rtdecode.encode.manifest import ClassifyHead, RetrieveHead
from rtdecode.errors import ConfigError, RtdecodeError
from rtdecode_export.bundle import check_arguments
from rtdecode_export.declared import like, noise_windows, read_declared, read_labels, read_windows
from rtdecode_export.module import load_weights, with_layout
from rtdecode_models.systems.encoder import Encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the command line gives besides SOURCE; None where it gives nothing.

    Parameters
    ----------
    hop : float
        Seconds: for a checkpoint, cut a further window this often.
    like, contract : Path
        For a module: a bundle whose contract, windows and heads it takes over; a TOML file that declares them.
    name : str
        The bundle's name.
    weights, windows, labels : Path
        For a module: its weights, real windows, and the right choice of each.
    layout : str
        For a module: what it is written for.
    subject : str
        For an encoder that knows several subjects: whose deployment, by place; of a checkpoint also by name.
    """

    hop: float | None = None
    like: Path | None = None
    contract: Path | None = None
    name: str | None = None
    weights: Path | None = None
    windows: Path | None = None
    labels: Path | None = None
    layout: str = "btc"
    subject: str | None = None


def arguments_of(source: str, given: Given) -> dict[str, Any]:
    """The arguments of `export_bundle` for a checkpoint's folder, or for what ``package.module:name`` names.

    Raises
    ------
    ConfigError
        It is neither, does not give what is needed, or was given what is for another kind of source.
    """
    if Path(source).is_dir():
        arguments = _checkpoint(Path(source), given)
    else:
        found = _find(source)
        if isinstance(found, torch.nn.Module):
            arguments = _module(source, found, given)
        else:
            _refuse(given, source, "names its windows and heads itself", allowed=("name",))
            arguments = _mapping(source, found)
    return arguments | ({} if given.name is None else {"name": given.name})


def _checkpoint(folder: Path, given: Given) -> dict[str, Any]:
    from rtdecode_export.checkpoint import checkpoint_arguments
    from rtdecode_models.training.checkpoint import Trained

    _refuse(given, str(folder), "is a checkpoint, which has all of it", allowed=("name", "hop", "subject"))
    trained = Trained.load(folder)
    subject: str | int | None = given.subject
    if given.subject is not None and given.subject.isdigit() and given.subject not in trained.checkpoint.subjects:
        subject = int(given.subject)
    return checkpoint_arguments(trained, hop=given.hop, subject=subject)


def _module(source: str, module: torch.nn.Module, given: Given) -> dict[str, Any]:
    if given.hop is not None:
        raise ConfigError(f"--hop is for checkpoints; declare the windows of {source} in --contract FILE.toml")
    if (given.like is None) == (given.contract is None):
        raise ConfigError(
            f"{source} is a module; expected one of --like BUNDLE and --contract FILE.toml, which declare its stream, "
            "conditioning, windows, outputs and heads"
        )
    if given.weights is not None:
        load_weights(module, given.weights)
    if isinstance(module, Encoder):
        module = module.eval().deploy(None if given.subject is None else _place(given.subject))
    elif given.subject is not None:
        raise ConfigError(f"--subject is for encoders of rtdecode_models; {source} is a {type(module).__name__}")
    declared = like(given.like) if given.like is not None else read_declared(given.contract or Path())
    arguments = {"name": source.partition(":")[2]} | declared | {"module": with_layout(module, given.layout)}
    if given.windows is not None:
        # The windows of a bundle like this one were cut from its raw piece; these were not.
        arguments |= {"real_windows": read_windows(given.windows), "raw": None, "raw_starts": ()}
    elif "real_windows" not in arguments:
        keys = ("contract", "conditioning", "arrays", "windows")
        arguments |= {"real_windows": noise_windows(*(arguments[key] for key in keys)), "real": False}
    if given.labels is not None:
        if given.windows is None:
            raise ConfigError("--labels names the right choices of --windows, which are not given")
        choosing = [head.output for head in arguments["heads"] if isinstance(head, ClassifyHead | RetrieveHead)]
        if not choosing:
            raise ConfigError("--labels are for a head that chooses, and only embeddings are declared")
        arguments["labels"] = {choosing[0]: read_labels(given.labels)}
    return arguments


def _place(subject: str) -> int:
    if not subject.isdigit():
        raise ConfigError(f"--subject is {subject!r}; expected the subject's place, 0 for the first")
    return int(subject)


def _refuse(given: Given, source: str, why: str, *, allowed: tuple[str, ...]) -> None:
    """Raise `ConfigError` where something was given that this kind of source has no use for."""
    defaults = Given()
    for name in given.__slots__:
        if name not in allowed and getattr(given, name) != getattr(defaults, name):
            raise ConfigError(f"--{name} has no meaning here: {source} {why}")


def _find(source: str) -> object:
    """What ``package.module:name`` names: a module (made, if a class or a function gives one), or a mapping."""
    place, colon, name = source.partition(":")
    if not colon or not all(part.isidentifier() for part in [*place.split("."), name]):
        raise ConfigError(
            f"{source!r} is neither a folder nor package.module:function; expected what `rtdecode train` wrote, a "
            "torch.nn.Module, or a function that returns one or the arguments of export_bundle"
        )
    here = str(Path.cwd())
    if here not in sys.path:  # as `python -m` does, so that a file beside the user is found
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(place)
    except Exception as error:  # not only that it is not there: whatever it does as it is imported
        raise ConfigError(f"{source}: {place} cannot be imported: {type(error).__name__}: {error}") from error
    try:
        found = getattr(module, name)
    except AttributeError as error:
        raise ConfigError(f"{source}: {place} has no {name}") from error
    if isinstance(found, torch.nn.Module):
        return found
    if not callable(found):
        raise ConfigError(f"{source} is no function but a {type(found).__name__}")
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise ConfigError(
            f"{source} cannot be called without arguments: {error}; name a function that makes it"
        ) from error
    try:
        return found()
    except RtdecodeError:
        raise
    except Exception as error:  # whatever the user's own code raises
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise ConfigError(
            f"{source} raised {type(error).__name__}: {error} ({where.filename}, line {where.lineno})"
        ) from error


def _mapping(source: str, given: object) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"{source} returned a {type(given).__name__}; expected a torch.nn.Module, or a mapping: export_bundle's "
            "arguments"
        )
    check_arguments(given, source)
    return dict(given)
