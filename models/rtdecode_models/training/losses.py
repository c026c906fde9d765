"""The losses of a recipe: checked, built for some training trials, and summed."""

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
import torch
from torch import Tensor, nn

from rtdecode.errors import ConfigError
from rtdecode_models.data.batch import Batch
from rtdecode_models.data.trials import Trials
from rtdecode_models.training.losses_classify import CrossEntropy, CrossEntropySpec, Own, OwnSpec, class_weights
from rtdecode_models.training.losses_contrastive import (
    BiMixCo,
    BiMixCoSpec,
    InfoNCE,
    InfoNCESpec,
    SoftCLIP,
    SoftCLIPSpec,
)
from rtdecode_models.training.losses_regress import L2, MSE, Cosine, CosineSpec, L2Spec, MSESpec
from rtdecode_models.training.losses_spec import LossSpec

#: The losses that a recipe may name by one word.
KNOWN = InfoNCESpec | SoftCLIPSpec | BiMixCoSpec | MSESpec | L2Spec | CosineSpec | CrossEntropySpec | OwnSpec


class OtherSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A loss of a system's own, ``kind = "module:Class"`` under ``rtdecode_models.systems``, or of the user's own.

    Parameters
    ----------
    kind : str
        As the recipe has it.
    weight, start, stop : float
        As in `LossSpec`.
    options : mapping
        The table's other keys: the class's own.
    """

    kind: str
    weight: float = 1.0
    start: float = 0.0
    stop: float = 1.0
    options: Mapping[str, Any] = {}


Spec = LossSpec | OtherSpec


def parse_loss(table: Mapping[str, Any]) -> Spec:
    """Check one table ``[[loss]]``; raise `ConfigError` saying what is wrong with it."""
    kind = table.get("kind")
    if isinstance(kind, str) and ":" in kind:
        common = {key: table[key] for key in ("weight", "start", "stop") if key in table}
        own = {key: value for key, value in table.items() if key not in ("kind", *common)}
        spec: Spec = _converted({"kind": kind, "options": own, **common}, OtherSpec)
    else:
        spec = _converted(table, KNOWN)
    if not math.isfinite(spec.weight):
        raise ConfigError(f"weight is {spec.weight}; expected a number")
    if not 0 <= spec.start < spec.stop <= 1:
        raise ConfigError(f"counts from {spec.start} to {spec.stop}; expected shares of the training, 0 to 1, in order")
    if isinstance(spec, CrossEntropySpec) and spec.gaussian is not None and not spec.gaussian > 0:
        raise ConfigError(f"gaussian is {spec.gaussian}; expected a standard deviation above 0, in classes")
    if isinstance(spec, CrossEntropySpec) and not 0 <= spec.smoothing < 1:
        raise ConfigError(f"smoothing is {spec.smoothing}; expected a share from 0 to below 1")
    if isinstance(spec, CrossEntropySpec) and isinstance(spec.class_weights, tuple):
        weights = spec.class_weights
        if not all(0 <= weight < math.inf for weight in weights) or (weights and not any(weights)):
            raise ConfigError(f"class_weights are {list(weights)}; expected 0 or more, and not all of them 0")
    if isinstance(spec, InfoNCESpec) and spec.scale == "raw" and spec.init <= 0:
        raise ConfigError(f"init is {spec.init} with scale = 'raw'; expected a factor above 0")
    return spec


def _converted(table: Mapping[str, Any], kind: Any) -> Any:
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error)) from error


def make_loss(spec: Spec, trials: Trials) -> nn.Module:
    """One loss, for these training trials.

    Raises
    ------
    ConfigError
        The trials have no such label or target.
    """
    match spec:
        case OtherSpec():
            return _other(spec, trials)
        case OwnSpec():
            return Own(spec)
        case CrossEntropySpec():
            n_classes = _n_classes(spec.label, trials)
            return CrossEntropy(spec, n_classes, class_weights(spec, n_classes, trials))
        case InfoNCESpec() | SoftCLIPSpec() | BiMixCoSpec() | MSESpec() | L2Spec() | CosineSpec():
            return _towards_target(spec, trials)
    raise TypeError(f"{type(spec).__name__} is no loss of a recipe")


def _towards_target(
    spec: InfoNCESpec | SoftCLIPSpec | BiMixCoSpec | MSESpec | L2Spec | CosineSpec, trials: Trials
) -> nn.Module:
    have = trials.gallery.embeddings if trials.gallery is not None else {}
    if spec.target not in have:
        raise ConfigError(
            f"a loss names the target {spec.target!r}; the data's gallery has {', '.join(have) or 'none'}"
        )
    match spec:
        case InfoNCESpec():
            return InfoNCE(spec)
        case SoftCLIPSpec():
            return SoftCLIP(spec)
        case BiMixCoSpec():
            return BiMixCo(spec)
        case MSESpec():
            return MSE(spec, trials)
        case L2Spec():
            return L2(spec)
        case CosineSpec():
            return Cosine(spec)


def _n_classes(label: str, trials: Trials) -> int:
    if label == "subject":
        return len(trials.subjects)
    if label not in trials.labels:
        raise ConfigError(f"a loss names the label {label!r}; the data have {', '.join(trials.labels) or 'none'}")
    return len(trials.classes[label])


def _other(spec: OtherSpec, trials: Trials) -> nn.Module:
    """A class called with its options and the training trials."""
    module, _, name = spec.kind.partition(":")
    place = module if "." in module else f"rtdecode_models.systems.{module}"
    try:
        made = getattr(importlib.import_module(place), name)(spec.options, trials)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"the loss {spec.kind!r} cannot be had: {error}") from error
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        raise ConfigError(f"the loss {spec.kind!r}: {error}") from error
    if not isinstance(made, nn.Module):
        raise ConfigError(f"the loss {spec.kind!r} gave a {type(made).__name__}; expected a torch.nn.Module")
    return made


class Objective(nn.Module):
    """The sum of a recipe's losses.

    Parameters
    ----------
    specs : sequence of Spec
        In the recipe's order.
    trials : Trials
        What is trained on.
    """

    def __init__(self, specs: Sequence[Spec], trials: Trials) -> None:
        super().__init__()
        self.specs = tuple(specs)
        self.losses = nn.ModuleList([make_loss(spec, trials) for spec in specs])

    def forward(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """``loss``, the weighted sum of what counts at this point, and each such loss, as ``0 infonce``."""
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), device=batch.window.device)
        for place, (spec, loss) in enumerate(zip(self.specs, self.losses, strict=True)):
            last = spec.stop == 1.0 and batch.progress >= 1.0
            if spec.start <= batch.progress < spec.stop or last:
                value = cast(Tensor, loss(outputs, batch))
                terms[f"{place} {kind_of(spec)}"] = value
                total = total + spec.weight * value
        return {"loss": total} | terms


def kind_of(spec: Spec) -> str:
    """As the recipe spells it."""
    return spec.kind if isinstance(spec, OtherSpec) else str(type(spec).__struct_config__.tag)
