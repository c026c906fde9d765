"""Averaging of what several sites share, while each keeps its own part.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data" (AISTATS 2017, arXiv
1602.05629), algorithm 1, over named parameters only, as FLEEG (2023, arXiv 2308.11636) splits a network into a site's
front and a shared trunk.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from rtdecode.errors import ConfigError


def fedavg(states: Sequence[Mapping[str, Tensor]], trials: Sequence[int], shared: Sequence[str]) -> dict[str, Tensor]:
    """Means of the shared parameters and buffers over sites, weighted by their trials: sum_k (n_k / n) w_k.

    Parameters
    ----------
    states : sequence of mapping of str to Tensor
        Each site's ``state_dict``.
    trials : sequence of int
        How many each site trained on.
    shared : sequence of str
        Patterns of names (shell wildcards): ``trunk.*``. What matches none of them stays at its site.

    Returns
    -------
    dict of str to Tensor
        For ``load_state_dict(..., strict=False)`` at each site. Counters, which are whole numbers, are rounded.

    Raises
    ------
    ConfigError
        There is no site, trials are not one positive number a site, nothing is shared, or a site has something shared
        of another name or shape.
    """
    if not states or len(states) != len(trials) or any(n <= 0 for n in trials):
        raise ConfigError(f"{len(states)} sites gave {list(trials)} trials; expected one positive number for each site")
    names = [name for name in states[0] if any(fnmatchcase(name, pattern) for pattern in shared)]
    if not names:
        raise ConfigError(f"no parameter matches {', '.join(shared)}; there are {', '.join(list(states[0])[:3])}, ...")
    for site, state in enumerate(states):
        for name in names:
            if name not in state or state[name].shape != states[0][name].shape:
                raise ConfigError(f"site {site} has no {name} of shape {tuple(states[0][name].shape)}, which is shared")
    weights = torch.tensor(trials, dtype=torch.float64) / sum(trials)
    return {name: _mean([state[name] for state in states], weights) for name in names}


def _mean(values: Sequence[Tensor], weights: Tensor) -> Tensor:
    mean: Tensor = torch.tensordot(
        weights.to(values[0].device), torch.stack([value.double() for value in values]), dims=1
    )
    return (mean if values[0].is_floating_point() else mean.round()).to(values[0].dtype)
