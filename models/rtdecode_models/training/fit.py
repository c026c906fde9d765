"""Fit one network, the same way every time for the same seed, and go on from where a training was broken off."""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rtdecode.errors import ConfigError
from rtdecode_models.data.batch import Batch
from rtdecode_models.data.shape import Shape
from rtdecode_models.data.trials import Trials
from rtdecode_models.systems.closed import ClosedForm
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.training.augment import augment
from rtdecode_models.training.evaluate import task_scores
from rtdecode_models.training.identity import identity
from rtdecode_models.training.losses import Objective
from rtdecode_models.training.losses_classify import OwnSpec
from rtdecode_models.training.network import check_strangers, make_network
from rtdecode_models.training.optimise import freeze, make_optimiser, train_mode
from rtdecode_models.training.recipe import Recipe
from rtdecode_models.training.samples import Samples, batches, to_device
from rtdecode_models.training.state import (
    Position,
    State,
    optimiser_tensors,
    read_state,
    restore_optimiser,
    write_state,
)
from rtdecode_models.training.tasks import Task
from rtdecode_models.training.training_spec import Mixup
from rtdecode_models.training.world import World, gathered, synchronised

#: By epoch; None where a loss did not count yet.
Curves = dict[str, list[float | None]]
#: What is done between two batches.
GO_ON, SAVE, STOP = 0, 1, 2
#: Scores of which more is better; the others are losses.
RISING = ("accuracy", "top1", "top5", "mrr")


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """The training was told to stop, and its state lies where it goes on from."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a caller may want to know and to say.

    Parameters
    ----------
    epoch : callable
        Told after each epoch: what was measured.
    stop : callable
        Asked after each batch whether to write the state and end.
    folder : Path, optional
        Where states lie; None keeps none.
    """

    epoch: Callable[[Mapping[str, float]], None] = lambda _: None
    stop: Callable[[], bool] = lambda: False
    folder: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One network to be trained.

    Parameters
    ----------
    name : str
        Unlike any other of this training; its state has this name.
    recipe : Recipe
        How.
    seed : int
        Of initial weights, order, dropout and augmentation.
    train : Trials
        What it learns from.
    validation : Trials or None
        What early stopping watches.
    tasks : tuple of Task
        What is scored.
    shape : Shape
        Of the data.
    strangers : tuple of str
        Subjects that are validated or tested on and not trained on.
    """

    name: str
    recipe: Recipe
    seed: int
    train: Trials
    validation: Trials | None
    tasks: tuple[Task, ...]
    shape: Shape
    strangers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A trained network.

    Parameters
    ----------
    network : Encoder
        In evaluation mode, on the CPU.
    curves : mapping of str to list of float
        By epoch: ``loss``, the losses by place and kind, ``validation_loss`` and scores, ``learning_rate``.
    best_epoch : int
        Counted from 0; the last where nothing was watched.
    notes : mapping
        What was taken over from another checkpoint, what was frozen.
    """

    network: Encoder
    curves: Mapping[str, list[float | None]] = field(default_factory=dict)
    best_epoch: int = -1
    notes: Mapping[str, Any] = field(default_factory=dict)


def fit(job: Job, hooks: Hooks | None = None, world: World | None = None) -> Fitted:
    """Train one network.

    The same job, thread count and version of torch give the same weights on the CPU, also where the training was broken
    off in between; torch's global generator is left as it was.

    Raises
    ------
    ConfigError
        The recipe does not fit the data or the system, or the loss became NaN.
    Interrupted
        `Hooks.stop` said so.
    """
    world, hooks = world or World(), hooks or Hooks()
    torch.set_num_threads(job.recipe.training.threads)
    with torch.random.fork_rng(devices=world.gpus):
        torch.manual_seed(job.seed)
        network, notes = make_network(job.recipe, job.shape, job.seed)
        if isinstance(network, ClosedForm):
            network.fit(job.train)
            return Fitted(network.eval(), notes=notes)
        if not job.recipe.loss:
            raise ConfigError(f"the system {job.recipe.model.system!r} is trained by steps: declare a [[loss]]")
        network.prepare(job.train)
        if job.strangers:
            check_strangers(network, job.recipe.model.system, job.train, job.strangers)
        freeze(network, job.recipe.model.freeze)
        trained = synchronised(network) if world.size > 1 and world.gpus else network
        curves, best_epoch = _Fitting(job, trained, notes, hooks, world).run()
        if trained is not network:
            network.load_state_dict(trained.state_dict())
    return Fitted(network.cpu().eval(), curves, best_epoch, notes)


class _Step(nn.Module):
    """A network and what it is trained for, as one module: from a batch to its losses."""

    def __init__(self, network: Encoder, objective: Objective, world: World) -> None:
        super().__init__()
        self.network, self.objective, self.world = network, objective, world

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        part = self.world.part(len(batch.window))
        outputs = {name: value.float() for name, value in self.network(batch.window[part], batch.subject[part]).items()}
        # Losses are in float32, whatever the network computes in: similarities divided by a small temperature need it.
        with torch.autocast(batch.window.device.type, enabled=False):
            if self.world.size > 1:
                outputs = gathered(outputs, self.world)
            return cast(dict[str, Tensor], self.objective(outputs, batch))


class _Fitting:
    """A training under way."""

    def __init__(self, job: Job, network: Encoder, notes: Mapping[str, Any], hooks: Hooks, world: World) -> None:
        training = job.recipe.training
        self.job, self.network, self.hooks, self.world, self.training = job, network, hooks, world, training
        mixed = any(isinstance(each, Mixup) for each in training.augment)
        self.samples = Samples(job.train, probabilities=mixed)
        self.watched = None if job.validation is None else Samples(job.validation, probabilities=mixed)
        self.step = _Step(network, Objective(job.recipe.losses, job.train), world).to(world.device)
        parallel = world.size > 1
        self.model: nn.Module = (
            DistributedDataParallel(self.step, find_unused_parameters=True) if parallel else self.step
        )
        self.optimiser = make_optimiser(self.step, training)
        self.generator = torch.Generator().manual_seed(job.seed)
        self.order_began = self.generator.get_state()
        if parallel:  # weights began the same in all processes; what is random within the network differs
            torch.manual_seed(job.seed + 1_000_003 * world.rank)
        self.identity = identity(job, world.size, notes) if hooks.folder is not None else ""
        self.position = Position(identity=self.identity)
        self.best: dict[str, Tensor] = {}
        self.saved = time.monotonic()

    @property
    def path(self) -> Path | None:
        return None if self.hooks.folder is None else self.hooks.folder / f"{self.job.name}.safetensors"

    def run(self) -> tuple[Curves, int]:
        """Train to the end; the learning curves, and the epoch whose weights the network has now."""
        at = self.position
        if self.path is not None and (state := read_state(self.path, self.identity)) is not None:
            self._restore(state)
            at = self.position
        while not at.finished and at.epoch < self.training.epochs:
            self._epoch()
            if self._patience_is_over():
                break
        if not at.finished:
            if self.best:
                self.network.load_state_dict(self.best)
            weights = self.network.state_dict()
            self.network.load_state_dict({name: self.world.of_first(value) for name, value in weights.items()})
            at.finished = True
            self.best = {}
            if self.path is not None and self.world.first:
                write_state(self.path, State(position=at, module=self._weights(), optimiser={}, best={}, random={}))
        return at.curves, at.best_epoch if at.best_epoch >= 0 else at.epoch - 1

    def _epoch(self) -> None:
        at = self.position
        if at.at == 0:
            self.order_began = self.generator.get_state()
        ahead = torch.Generator()
        ahead.set_state(self.order_began)
        order = batches(len(self.samples), self.training.batch_size, ahead, self.world.size)
        if at.at == 0:
            self.generator.set_state(ahead.get_state())
        total = self.training.epochs * len(order)
        train_mode(self.step)
        while at.at < len(order):
            self._batch(order[at.at], at.step / total)
            at.at, at.step = at.at + 1, at.step + 1
            self._listen()
        self._measure(self.training.schedule.factor((at.step - 1) / total))
        at.at, at.epoch, at.sums, at.windows = 0, at.epoch + 1, {}, 0
        self.hooks.epoch({name: curve[-1] for name, curve in at.curves.items() if curve[-1] is not None})

    def _batch(self, rows: Tensor, progress: float) -> None:
        batch = self.samples.batch(rows, progress)
        for what in self.training.augment:
            batch = augment(batch, what, self.samples.sfreq, self.samples.means, self.generator)
        batch = to_device(batch, self.world.device)
        rate = self.training.schedule.factor(progress)
        for group in self.optimiser.param_groups:
            group["lr"] = group["base_lr"] * rate
        self.optimiser.zero_grad()
        with torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.training.precision == "bf16"):
            terms = self.model(batch)
        if not torch.isfinite(terms["loss"]):
            raise ConfigError(
                f"the loss became {float(terms['loss'].detach())} in epoch {self.position.epoch} "
                f"({', '.join(f'{name} {float(value.detach()):.3g}' for name, value in terms.items())}); "
                "lower training.learning_rate, or set training.clip_norm"
            )
        if terms["loss"].requires_grad:
            terms["loss"].backward()
            if self.training.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.step.parameters(), self.training.clip_norm)
            self.optimiser.step()
        sums = self.position.sums
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach()) * len(rows)
        self.position.windows += len(rows)

    def _listen(self) -> None:
        """Write the state where it is time to, and end where that is asked for; all processes alike."""
        late = time.monotonic() - self.saved > 60 * self.training.save_minutes
        order = self.world.largest(STOP if self.hooks.stop() else SAVE if self.path is not None and late else GO_ON)
        if order != GO_ON:
            self._save()
        if order == STOP:
            raise Interrupted(self.job.name)

    def _measure(self, rate: float) -> None:
        """What this epoch was like, on the training and on the validation part; `rate` is the last step's factor."""
        at = self.position
        now = {name: value / at.windows for name, value in at.sums.items()}
        now["learning_rate"] = self.training.learning_rate * rate
        if self.watched is not None and self.job.validation is not None:
            self.step.eval()
            now |= self._validation_loss()
            if self.job.tasks:
                scores = task_scores(
                    self.network, self.job.validation, self.job.train, self.job.tasks[0], self.world.device
                )
                now |= {f"validation_{name}": value for name, value in scores.items()}
        for name, value in now.items():
            curve = at.curves.setdefault(name, [])
            # a loss that counts only from later on: not measured until then
            curve += [None] * (at.epoch - len(curve))
            curve.append(value)
        self._judge(now)

    def _validation_loss(self) -> dict[str, float]:
        """The objective on the validation part, in evaluation mode, with batches in their order.

        A system that computes its own losses only while it trains (since it masks or contaminates its windows) is asked
        as a copy in training mode, which leaves no trace in the network, and draws the same numbers after every epoch.
        """
        assert self.watched is not None
        network: Encoder = self.network
        n, total = len(self.watched), 0.0
        progress = (self.position.epoch + 1) / self.training.epochs
        parts = torch.tensor_split(torch.arange(n), max(1, round(n / self.training.batch_size)))
        own = any(isinstance(spec, OwnSpec) for spec in self.job.recipe.losses)
        with torch.no_grad(), torch.random.fork_rng(devices=self.world.gpus):
            torch.manual_seed(self.job.seed)
            for rows in parts:
                # every process sees the whole of it
                batch = to_device(self.watched.batch(rows, progress), self.world.device)
                outputs = network(batch.window, batch.subject)
                if own and not any(name.startswith("loss_") for name in outputs):
                    network = copy.deepcopy(self.network).train()
                    outputs = network(batch.window, batch.subject)
                total += float(self.step.objective(outputs, batch)["loss"]) * len(rows)
        return {"validation_loss": total / n}

    def _judge(self, now: Mapping[str, float]) -> None:
        """Keep the weights of the best epoch."""
        stopping, at = self.training.early_stopping, self.position
        if stopping is None:
            return
        name = "loss" if stopping.monitor == "train_loss" else f"validation_{stopping.monitor}"
        if name not in now:
            raise ConfigError(
                f"training.early_stopping watches {stopping.monitor!r}, which is not measured here; "
                f"there is {', '.join(key.removeprefix('validation_') for key in now if key.startswith('validation_'))}"
            )
        # Batch statistics may differ between processes, and so what they measured: the first one decides for all.
        measured = float(self.world.of_first(torch.tensor(now[name], dtype=torch.float64)))
        value = measured if stopping.monitor in RISING else -measured
        if at.best_epoch < 0 or value > at.best:
            at.best, at.best_epoch = value, at.epoch
            self.best = {key: tensor.detach().clone() for key, tensor in self.network.state_dict().items()}

    def _patience_is_over(self) -> bool:
        stopping, at = self.training.early_stopping, self.position
        return stopping is not None and at.epoch - 1 - at.best_epoch >= stopping.patience

    def _weights(self) -> dict[str, Tensor]:
        return dict(self.step.state_dict())

    def _save(self) -> None:
        if self.path is None:
            return
        random = {"order": self.order_began, "generator": self.generator.get_state()}
        generators = {"cpu": torch.get_rng_state()}
        for gpu in self.world.gpus:
            generators["cuda"] = torch.cuda.get_rng_state(gpu)
        for kind, own in generators.items():
            random |= {f"{kind}.{rank}": each for rank, each in enumerate(self.world.from_all(own))}
        if self.world.first:
            write_state(
                self.path,
                State(
                    position=self.position,
                    module=self._weights(),
                    optimiser=optimiser_tensors(self.optimiser),
                    best=self.best,
                    random=random,
                ),
            )
        self.saved = time.monotonic()

    def _restore(self, state: State) -> None:
        self.position = state.position
        self.step.load_state_dict(state.module)
        if state.position.finished:
            return
        restore_optimiser(self.optimiser, state.optimiser)
        self.best = {name: value.to(self.world.device) for name, value in state.best.items()}
        self.order_began = state.random["order"]
        self.generator.set_state(state.random["generator"])
        torch.set_rng_state(state.random[f"cpu.{self.world.rank}"])
        for gpu in self.world.gpus:
            torch.cuda.set_rng_state(state.random[f"cuda.{self.world.rank}"], gpu)
