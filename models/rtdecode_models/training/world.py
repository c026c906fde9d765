"""Several processes that train one network: torch's own distributed data parallel, as `torchrun` starts it."""

import copy
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rtdecode.errors import ConfigError
from rtdecode_models.systems.encoder import Encoder


@dataclass(frozen=True, slots=True)
class World:
    """The processes.

    Parameters
    ----------
    rank, size : int
        Which one this is, of how many.
    device : device
        Where this one computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    @property
    def gpus(self) -> list[torch.device]:
        """The GPU of this process, if it has one: where there is a generator beside the CPU's."""
        return [self.device] if self.device.type == "cuda" else []

    def part(self, n: int) -> slice:
        """Rows of a batch of `n` that are this process's; `n` is a multiple of `size`."""
        each = n // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def largest(self, value: int) -> int:
        """The largest of all processes' values, so that all take the same turn."""
        if self.size == 1:
            return value
        shared = torch.tensor(value, device=self.device)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return int(shared)

    def from_all(self, value: Tensor) -> list[Tensor]:
        """Every process's tensor, all of one shape, in the order of ranks."""
        if self.size == 1:
            return [value]
        here = value.to(self.device)
        given = [torch.empty_like(here) for _ in range(self.size)]
        dist.all_gather(given, here)
        return [each.to(value.device) for each in given]

    def of_first(self, value: Tensor) -> Tensor:
        """The first process's tensor, in all of them; its own where there is one."""
        if self.size == 1:
            return value
        shared = value.to(self.device)
        dist.broadcast(shared, 0)
        return shared.to(value.device)


def enter(device: str = "auto") -> World:
    """Find the place of this process, by the environment that `torchrun` sets; one process alone without it.

    Parameters
    ----------
    device : str
        ``cpu``, ``cuda`` or ``cuda:1``; ``auto``: a GPU where there is one.

    Raises
    ------
    ConfigError
        It is none of these, or not there.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    place = _device(device)
    if size == 1:
        return World(device=place)
    gpu = place.type == "cuda"
    if gpu:
        place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if gpu else "gloo")
    return World(int(os.environ["RANK"]), size, place)


def _device(text: str) -> torch.device:
    there = torch.cuda.device_count()
    if text == "auto":
        return torch.device("cuda" if there else "cpu")
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", text)
    if match is None:
        raise ConfigError(f"the device is {text!r}; expected cpu, cuda, cuda:0 and so on, or auto")
    if text != "cpu" and int(match[1] or 0) >= there:
        raise ConfigError(f"the device is {text!r}, and torch finds {there} GPUs here; expected cpu or auto")
    return torch.device(text)


def leave(world: World) -> None:
    """Part from the other processes."""
    if world.size > 1:
        dist.destroy_process_group()


def synchronised(network: Encoder) -> Encoder:
    """A copy whose batch statistics are those of all processes' parts together; torch has that for GPUs alone.

    A copy, since systems fold and look for batch normalisation as they built it; names of parameters are the same.
    """
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))  # type: ignore[no-untyped-call]
    return cast(Encoder, converted)


def gathered(outputs: Mapping[str, Tensor], world: World) -> dict[str, Tensor]:
    """Outputs of the whole batch, in its order, from each process's part of it; gradients find their way back.

    A scalar (a loss that the module gives itself, a temperature) becomes the mean over the processes.
    """
    together = {}
    for name, value in outputs.items():
        every = cast(Tensor, _Gather.apply(value[None] if value.ndim == 0 else value, world))  # type: ignore[no-untyped-call]
        together[name] = every.mean() if value.ndim == 0 else every
    return together


class _Gather(torch.autograd.Function):
    """Concatenates over processes; the gradient of a part is the sum of what all processes have for it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, world: World) -> Tensor:
        ctx.world = world
        return torch.cat(world.from_all(value.contiguous()))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        world: World = ctx.world
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total[world.part(len(total))], None
