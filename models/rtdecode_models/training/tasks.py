"""What an encoder's outputs are scored on: classes, or stimuli to be found in a gallery."""

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import ConfigError
from rtdecode_models.data.trials import Gallery, Trials
from rtdecode_models.training.losses import Spec
from rtdecode_models.training.losses_classify import CrossEntropySpec
from rtdecode_models.training.losses_contrastive import BiMixCoSpec, InfoNCESpec, SoftCLIPSpec
from rtdecode_models.training.losses_regress import CosineSpec, L2Spec, MSESpec, statistics


class Classes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="classify"):
    """The output's largest number says the class of a label.

    `ordered`: the classes have an order, as ratings have, and the two best answers are scored by it too (Seq2HR).
    """

    output: str = "logits"
    label: str = "label"
    ordered: bool = False

    @property
    def name(self) -> str:
        """As in ``metrics.json``."""
        return f"{self.output}/{self.label}"


class Retrieval(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="retrieve"
):
    """The output is nearest to the embedding of the stimulus.

    `metric` is the one that the loss used. `standardised`: the gallery is brought to z-scores with the training
    stimuli's mean and standard deviation first, as the loss did it.
    """

    output: str = "embedding"
    target: str = "image"
    metric: Literal["cosine", "dot"] = "cosine"
    standardised: bool = False

    @property
    def name(self) -> str:
        """As in ``metrics.json``."""
        return f"{self.output}/{self.target}"


Task = Classes | Retrieval


def tasks_of(losses: Sequence[Spec]) -> tuple[Task, ...]:
    """What these losses train, each output and target once; the first is what selection and reports go by."""
    found: dict[str, Task] = {}
    for loss in losses:
        task: Task | None = None
        match loss:
            case CrossEntropySpec(label=label) if label != "subject":
                task = Classes(output=loss.output, label=label, ordered=loss.gaussian is not None)
            case InfoNCESpec():
                # with targets of unit length, dot and cosine rank alike, whatever the output's length
                metric: Literal["cosine", "dot"] = "cosine" if loss.normalise in ("both", "target") else "dot"
                task = Retrieval(output=loss.output, target=loss.target, metric=metric)
            case SoftCLIPSpec() | BiMixCoSpec() | L2Spec() | CosineSpec():
                task = Retrieval(output=loss.output, target=loss.target)
            case MSESpec():
                task = Retrieval(output=loss.output, target=loss.target, standardised=loss.standardise)
            case _:
                pass
        if task is not None:
            found.setdefault(task.name, task)
    return tuple(found.values())


def check_tasks(tasks: Sequence[Task], trials: Trials) -> None:
    """Raise `ConfigError` where the trials lack a label or a target that is to be scored, or have but one class."""
    targets = trials.gallery.embeddings if trials.gallery is not None else {}
    for task in tasks:
        have, name = (trials.labels, task.label) if isinstance(task, Classes) else (targets, task.target)
        if name not in have:
            raise ConfigError(f"the score {task.name!r} names {name!r}; the data have {', '.join(have) or 'none'}")
        if isinstance(task, Classes):
            _check_classes(task, trials)


def _check_classes(task: Classes, trials: Trials) -> None:
    """What knows one class alone answers with it, whatever it sees: its score would be perfect, and mean nothing."""
    labels = trials.labels[task.label]
    there = np.unique(labels[labels >= 0])
    if len(there) < 2:
        names = trials.classes.get(task.label, ())
        only = ", ".join(repr(names[at]) if at < len(names) else str(at) for at in there) or "none"
        raise ConfigError(
            f"the score {task.name!r} tells classes apart, and the {len(trials)} trials that are trained on have only "
            f"{only}; expected two or more: look at the markers of [data] and at what [split] leaves to training"
        )


def gallery_rows(task: Retrieval, gallery: Gallery, training: Trials) -> NDArray[np.float32]:
    """What outputs are compared with: one row for each stimulus, shape (stimuli, width).

    Parameters
    ----------
    task : Retrieval
        What is scored.
    gallery : Gallery
        Whose stimuli.
    training : Trials
        What was trained on, for the standardisation.
    """
    rows = gallery.embeddings[task.target].reshape(len(gallery.names), -1).astype(np.float32)
    if not task.standardised:
        return rows
    centre, spread = statistics(training, task.target)
    return np.asarray((rows - centre.numpy()) / spread.numpy(), np.float32)
