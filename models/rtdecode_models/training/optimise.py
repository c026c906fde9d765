"""The optimiser of a recipe, and which parameters it decays, slows down or leaves alone."""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
from torch import Tensor, nn

from rtdecode.errors import ConfigError
from rtdecode_models.training.training_spec import Training


class Lamb(torch.optim.Optimizer):
    """LAMB: AdamW whose step is scaled, layer by layer, to the norm of the weights.

    You et al. 2020 (arXiv:1904.00962), algorithm 2, with phi the identity; where a norm is 0 the ratio is 1.

    Parameters
    ----------
    params : iterable
        Parameters, or groups of them.
    lr, betas, eps, weight_decay
        As AdamW's.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step along the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        first, second = group["betas"]
        gradient = cast(Tensor, parameter.grad)
        state["step"] += 1
        state["exp_avg"].lerp_(gradient, 1 - first)
        state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        step = float(state["step"])
        mean, square = state["exp_avg"] / (1 - first**step), state["exp_avg_sq"] / (1 - second**step)
        update = mean / (square.sqrt() + group["eps"]) + group["weight_decay"] * parameter
        weight, change = parameter.norm(), update.norm()
        ratio = torch.where((weight > 0) & (change > 0), weight / change, torch.ones_like(weight))
        parameter.sub_(group["lr"] * ratio * update)


def make_optimiser(module: nn.Module, training: Training) -> torch.optim.Optimizer:
    """The recipe's optimiser over the parameters that are trained; each group knows its full rate as ``base_lr``.

    Raises
    ------
    ConfigError
        Nothing is left to train, or a group's pattern matches no parameter.
    """
    groups = parameter_groups(module, training)
    rate, betas = training.learning_rate, training.betas
    match training.optimiser:
        case "adam":
            return torch.optim.Adam(groups, lr=rate, betas=betas)
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate, betas=betas)
        case "lamb":
            return Lamb(groups, lr=rate, betas=betas)


def parameter_groups(module: nn.Module, training: Training) -> list[dict[str, Any]]:
    """Parameters by learning rate and weight decay, in the order of the module.

    Patterns are of the encoder's own names, as `freeze` has them; a loss's parameters begin with ``objective.``.
    """
    used: set[str] = set()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        rate, decay = training.learning_rate, training.weight_decay
        plain = name.removeprefix("network.")
        for group in training.groups:
            if any(fnmatchcase(plain, pattern) for pattern in group.parameters):
                used.update(pattern for pattern in group.parameters if fnmatchcase(plain, pattern))
                rate = rate if group.learning_rate is None else group.learning_rate
                decay = decay if group.weight_decay is None else group.weight_decay
        # a bias, a norm's gain and a temperature are vectors or single numbers; what mixes features is a matrix
        if parameter.ndim < 2 and not training.decay_vectors:
            decay = 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    missing = [pattern for group in training.groups for pattern in group.parameters if pattern not in used]
    if missing:
        raise ConfigError(f"training.groups names {missing[0]!r}, which matches no trained parameter")
    if not groups:
        raise ConfigError("model.freeze leaves no parameter to train")
    return [
        {"params": members, "lr": rate, "base_lr": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]


def freeze(module: nn.Module, patterns: Sequence[str]) -> int:
    """Keep the parameters that match as they are; how many numbers that holds back.

    Raises
    ------
    ConfigError
        A pattern matches no parameter.
    """
    held = 0
    for pattern in patterns:
        found = [parameter for name, parameter in module.named_parameters() if fnmatchcase(name, pattern)]
        if not found:
            names = ", ".join(sorted({name.split(".")[0] for name, _ in module.named_parameters()}))
            raise ConfigError(f"model.freeze names {pattern!r}, which matches no parameter; they begin with {names}")
        held += sum(parameter.numel() for parameter in found if parameter.requires_grad)
        for parameter in found:
            parameter.requires_grad_(False)
    return held


def train_mode(module: nn.Module) -> None:
    """Training mode, except where all parameters are frozen: there neither dropout nor batch statistics move."""
    module.train()
    for part in module.modules():
        own = list(part.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            part.eval()
