"""A trained system on disk: weights as safetensors, everything else as JSON. No pickle.

::

    weights.safetensors      the networks' parameters: SEED.NAME
    windows.safetensors      what a bundle needs of the data: arrays of the chain, training windows and a piece of raw
                             recording, for everyone and for each subject; galleries; positions of the channels
    checkpoint.json          `Checkpoint`: recipe, contract, chain, provenance
    metrics.json             what was measured
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save
from safetensors.torch import load_file as load_weights
from safetensors.torch import save as save_weights
from torch import Tensor

from rtdecode.encode.manifest import Contract
from rtdecode.errors import ConfigError
from rtdecode.stream.steps import Conditioning
from rtdecode.stream.window import WindowSpec
from rtdecode_models.data.shape import Shape
from rtdecode_models.data.source import Deployed
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.systems.ensemble import Ensemble
from rtdecode_models.training.folder import write_whole
from rtdecode_models.training.network import make_system
from rtdecode_models.training.recipe import Recipe
from rtdecode_models.training.tasks import Task

FORMAT, VERSION = "rtdecode-checkpoint", 2
#: What is there for any subject; no subject may be called so.
EVERYONE = "everyone"


class ShapeTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`Shape` as JSON has it; positions lie beside it."""

    n_times: int
    n_channels: int
    sfreq: float
    n_subjects: int
    channels: tuple[str, ...]
    classes: dict[str, int]
    targets: dict[str, tuple[int, ...]]


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``checkpoint.json`` says.

    Parameters
    ----------
    name : str
        The recipe's name.
    recipe : Recipe
        As it was run, with the setting that was selected.
    contract, conditioning, window
        The stream, the chain, and what the daemon cuts.
    markers : dict of str to tuple of str
        Class or stimulus -> marker patterns.
    classes : dict of str to tuple of str
        Label -> names of its classes.
    shape : ShapeTable
        What the networks were built for.
    subjects : tuple of str
        Whose data were trained on, in the networks' order.
    seeds : tuple of int
        One network for each.
    best : int
        Place of the network that was best on the validation part; 0 where there was none.
    tasks : tuple of Task
        What they are scored on.
    temperature : float
        Divides the logits of the first task's ensemble; 1 where nothing was held out.
    gallery : tuple of str
        Names of the stimuli that a bundle chooses from: the candidates of the test, as its scores have them; without a
        test, those trained on.
    captions : tuple of str
        Of these stimuli, or none.
    raw_starts : dict of str to tuple of int
        Where the first windows of each deployment begin in its raw piece, in conditioned samples.
    provenance : dict
        Files with SHA-256, versions, the commit of the code.
    """

    format: Literal["rtdecode-checkpoint"] = "rtdecode-checkpoint"
    version: Literal[2] = 2
    name: str
    recipe: Recipe
    contract: Contract
    conditioning: Conditioning
    window: WindowSpec
    markers: dict[str, tuple[str, ...]]
    classes: dict[str, tuple[str, ...]]
    shape: ShapeTable
    subjects: tuple[str, ...]
    seeds: tuple[int, ...]
    best: int = 0
    tasks: tuple[Task, ...]
    temperature: float
    gallery: tuple[str, ...]
    captions: tuple[str, ...]
    raw_starts: dict[str, tuple[int, ...]]
    provenance: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A checkpoint with its arrays and its networks.

    Parameters
    ----------
    checkpoint : Checkpoint
        The JSON.
    networks : tuple of Encoder
        One for each seed, in evaluation mode.
    deployments : mapping of str to Deployed
        Subject -> what a bundle for it needs; ``everyone`` for any subject.
    galleries : mapping of str to ndarray of float32, shape (stimuli, width)
        Task -> what its output is compared with, as it was compared in the test.
    positions : ndarray, optional
        Of the channels.
    metrics : mapping
        ``metrics.json``.
    """

    checkpoint: Checkpoint
    networks: tuple[Encoder, ...]
    deployments: Mapping[str, Deployed]
    galleries: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    positions: NDArray[np.float64] | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def windows(self) -> NDArray[np.float32]:
        """Some of the training windows, (n, time, channels), by the chain for everyone."""
        return self.deployments[EVERYONE].windows

    @property
    def encoder(self) -> Encoder:
        """What a bundle runs: the ensemble of all seeds where the only output are logits, else one seed's network.

        That is the one that was best on the validation part; the first, where there was none.
        """
        if self.networks[0].outputs == ("logits",):
            return self.networks[0] if len(self.networks) == 1 else Ensemble(self.networks).eval()
        return self.networks[self.checkpoint.best]

    def deployment(self, subject: str | None) -> Deployed:
        """What a bundle for this subject needs.

        Raises
        ------
        ConfigError
            Nothing of this subject was trained on.
        """
        name = EVERYONE if subject is None else subject
        if name not in self.deployments:
            known = ", ".join(self.checkpoint.subjects)
            raise ConfigError(f"the checkpoint {self.checkpoint.name!r} knows no subject {name!r}; it knows {known}")
        return self.deployments[name]

    def save(self, folder: Path) -> None:
        """Write the four files, making the folder; whole, or what was there is left."""
        weights = {
            f"{seed}.{name}": value.contiguous().clone()
            for seed, network in zip(self.checkpoint.seeds, self.networks, strict=True)
            for name, value in network.state_dict().items()
        }
        arrays: dict[str, NDArray[Any]] = {f"gallery/{name}": rows for name, rows in self.galleries.items()}
        if self.positions is not None:
            arrays["positions"] = self.positions
        for name, deployed in self.deployments.items():
            arrays[f"deployment/{name}/windows"] = deployed.windows
            if deployed.raw is not None:
                arrays[f"deployment/{name}/raw"] = deployed.raw
            arrays |= {f"deployment/{name}/array/{key}": value for key, value in deployed.arrays.items()}
            arrays |= {f"deployment/{name}/label/{key}": value for key, value in deployed.labels.items()}
        write_whole(
            folder,
            {
                "weights.safetensors": save_weights(weights),
                # safetensors writes memory as it lies: an array in another order would come back scrambled
                "windows.safetensors": save({name: np.ascontiguousarray(a) for name, a in arrays.items()}),
                "metrics.json": pretty(self.metrics),
                "checkpoint.json": pretty(self.checkpoint),
            },
        )

    @classmethod
    def load(cls, folder: Path) -> "Trained":
        """Read what `save` wrote.

        Raises
        ------
        ConfigError
            The folder holds no checkpoint, or one that is damaged or of another version.
        """
        try:
            checkpoint = msgspec.json.decode((folder / "checkpoint.json").read_bytes(), type=Checkpoint)
            metrics = msgspec.json.decode((folder / "metrics.json").read_bytes(), type=dict[str, Any])
            arrays = load_file(folder / "windows.safetensors")
            positions = arrays.pop("positions", None)
            weights = load_weights(folder / "weights.safetensors")
            networks = tuple(_network(checkpoint, positions, weights, seed) for seed in checkpoint.seeds)
            deployments = _deployments(arrays, checkpoint.raw_starts)
        except OSError as error:
            raise ConfigError(
                f"{folder} holds no whole checkpoint: {error.filename or error}: {error.strerror or 'cannot be read'}; "
                "expected the folder that `rtdecode train` wrote"
            ) from error
        except (msgspec.MsgspecError, SafetensorError, KeyError, RuntimeError, TypeError) as error:
            raise ConfigError(f"the checkpoint in {folder} is damaged or of another version: {error}") from error
        galleries = {name[len("gallery/") :]: rows for name, rows in arrays.items() if name.startswith("gallery/")}
        return cls(checkpoint, networks, deployments, galleries, positions, metrics)


def member_weights(folder: Path, seed: int | None, own: int) -> dict[str, Tensor]:
    """One network's weights of a checkpoint: of `seed`, or where that is None of seed `own`, or else of its first.

    Raises
    ------
    ConfigError
        There is no such checkpoint, or no such network in it.
    """
    try:
        seeds = msgspec.json.decode((folder / "checkpoint.json").read_bytes(), type=Checkpoint).seeds
        wanted = seed if seed is not None else own if own in seeds else seeds[0]
        if wanted not in seeds:
            raise ConfigError(f"model.init: {folder} has no network of seed {wanted}; it has {list(seeds)}")
        with safe_open(folder / "weights.safetensors", framework="pt") as file:
            prefix = f"{wanted}."
            return {
                name.removeprefix(prefix): file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118
                if name.startswith(prefix)
            }
    except OSError as error:
        raise ConfigError(f"model.init: {folder} holds no checkpoint: {error.strerror or error}") from error
    except (msgspec.MsgspecError, SafetensorError) as error:
        raise ConfigError(
            f"model.init: the checkpoint in {folder} is damaged or of another version: {error}"
        ) from error


def table_of(shape: Shape) -> ShapeTable:
    """A shape as JSON has it."""
    return ShapeTable(
        n_times=shape.n_times,
        n_channels=shape.n_channels,
        sfreq=shape.sfreq,
        n_subjects=shape.n_subjects,
        channels=shape.channels,
        classes=dict(shape.classes),
        targets={name: tuple(rows) for name, rows in shape.targets.items()},
    )


def starts_of(deployments: Mapping[str, Deployed]) -> dict[str, tuple[int, ...]]:
    """`Checkpoint.raw_starts`."""
    return {name: tuple(int(start) for start in each.raw_starts) for name, each in deployments.items()}


def deployments_of(everyone: Deployed, subjects: Sequence[tuple[str, Deployed]]) -> dict[str, Deployed]:
    """`Trained.deployments`."""
    return {EVERYONE: everyone, **dict(subjects)}


def pretty(value: Any) -> bytes:
    """JSON to be read by people too."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _network(
    checkpoint: Checkpoint, positions: NDArray[np.float64] | None, weights: Mapping[str, Tensor], seed: int
) -> Encoder:
    """One network, from its weights."""
    table = checkpoint.shape
    shape = Shape(
        n_times=table.n_times,
        n_channels=table.n_channels,
        sfreq=table.sfreq,
        n_subjects=table.n_subjects,
        channels=table.channels,
        classes=table.classes,
        targets=table.targets,
        positions=positions,
    )
    network = make_system(checkpoint.recipe.model.system, checkpoint.recipe.model.options, shape)
    prefix = f"{seed}."
    network.load_state_dict(
        {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    )
    return network.eval()


def _deployments(arrays: Mapping[str, NDArray[Any]], starts: Mapping[str, tuple[int, ...]]) -> dict[str, Deployed]:
    found = {}
    for name, raw_starts in starts.items():
        prefix = f"deployment/{name}/"
        own = {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
        chain = {key.removeprefix("array/"): value for key, value in own.items() if key.startswith("array/")}
        labels = {key.removeprefix("label/"): value for key, value in own.items() if key.startswith("label/")}
        found[name] = Deployed(chain, own["windows"], own.get("raw"), raw_starts, labels)
    return found
