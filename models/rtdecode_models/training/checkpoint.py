"""A trained classifier on disk: weights as safetensors, everything else as JSON. No pickle.

::

    weights.safetensors      the members' parameters, member by member
    windows.safetensors      arrays of the chain, the training windows, and a piece of raw recording
    checkpoint.json          `Checkpoint`: recipe, contract, chain, provenance
    metrics.json             what was measured
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_weights
from safetensors.torch import save_file as save_weights

from rtdecode.encode.manifest import Contract
from rtdecode.errors import ConfigError
from rtdecode.stream.steps import Conditioning
from rtdecode.stream.window import Locked
from rtdecode_models.systems.ensemble import Ensemble
from rtdecode_models.systems.shape import Shape
from rtdecode_models.systems.simpleconv import EEGSimpleConv, SimpleConvConfig
from rtdecode_models.training.recipe import Recipe

FORMAT, VERSION = "rtdecode-checkpoint", 1
_ARRAY = "array."


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``checkpoint.json`` says.

    Parameters
    ----------
    name : str
        The recipe's name.
    model : dict
        Keywords of `SimpleConvConfig`, and ``n_times`` and ``n_channels`` of a window; the same for each member.
    n_members : int
        Networks whose probabilities are averaged.
    temperature : float
        Divides the ensemble's logits; fitted to held-out training runs, 1 where there was only one run.
    raw_starts : tuple of int
        Where the first training windows begin in the raw piece, in conditioned samples.
    """

    format: Literal["rtdecode-checkpoint"] = "rtdecode-checkpoint"
    version: Literal[1] = 1
    name: str
    recipe: Recipe
    contract: Contract
    conditioning: Conditioning
    window: Locked
    labels: dict[str, tuple[str, ...]]
    model: dict[str, Any]
    n_members: int
    temperature: float
    raw_starts: tuple[int, ...]
    provenance: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A checkpoint with its arrays and its network.

    Parameters
    ----------
    checkpoint : Checkpoint
        The JSON.
    module : Ensemble
        In evaluation mode.
    arrays : mapping of str to ndarray
        What the conditioning chain names.
    windows : ndarray of float32, shape (n, time, channels)
        The training windows, as they entered the network; the first ones lie in `raw`.
    raw : ndarray of float32, shape (samples, channels)
        The beginning of the first training recording.
    metrics : mapping
        ``metrics.json``.
    """

    checkpoint: Checkpoint
    module: Ensemble
    arrays: Mapping[str, NDArray[np.float64]]
    windows: NDArray[np.float32]
    raw: NDArray[np.float32]
    metrics: Mapping[str, Any]

    def save(self, folder: Path) -> None:
        """Write the four files, making the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(
            {name: value.contiguous() for name, value in self.module.state_dict().items()},
            folder / "weights.safetensors",
        )
        arrays = {_ARRAY + name: array for name, array in self.arrays.items()} | {
            "windows": self.windows,
            "raw": self.raw,
        }
        # safetensors writes memory as it lies: an array in another order would come back scrambled.
        save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, folder / "windows.safetensors")
        (folder / "checkpoint.json").write_bytes(_pretty(self.checkpoint))
        (folder / "metrics.json").write_bytes(_pretty(self.metrics))

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
            tensors = load_file(folder / "windows.safetensors")
            module = build(checkpoint)
            module.load_state_dict(load_weights(folder / "weights.safetensors"))
            windows, raw = tensors.pop("windows"), tensors.pop("raw")
        except OSError as error:
            raise ConfigError(
                f"{folder} holds no whole checkpoint: {error.filename or error}: {error.strerror or 'cannot be read'}; "
                "expected the folder that `rtdecode train` wrote"
            ) from error
        except (msgspec.MsgspecError, SafetensorError, KeyError, RuntimeError, TypeError) as error:
            raise ConfigError(f"the checkpoint in {folder} is damaged or of another version: {error}") from error
        arrays = {name.removeprefix(_ARRAY): value for name, value in tensors.items()}
        return cls(checkpoint, module, arrays, windows, raw, metrics)


def build(checkpoint: Checkpoint) -> Ensemble:
    """The network that a checkpoint describes, with weights at random."""
    options = dict(checkpoint.model)
    n_times, n_channels = options.pop("n_times"), options.pop("n_channels")
    shape = Shape(n_times, n_channels, 0.0, classes={"label": len(checkpoint.labels)})
    module = Ensemble([EEGSimpleConv(SimpleConvConfig(**options), shape) for _ in range(checkpoint.n_members)])
    module.eval()
    return module


def _pretty(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
