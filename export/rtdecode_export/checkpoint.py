"""What `rtdecode train` wrote, as the arguments of `export_bundle`."""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.manifest import ClassifyHead, EmbeddingHead, GalleryItem, HeadSpec, RetrieveHead
from rtdecode.errors import ConfigError
from rtdecode.stream.window import Sliding, WindowSpec
from rtdecode_models.training.checkpoint import Checkpoint, Trained, pretty
from rtdecode_models.training.tasks import Classes, Retrieval, Task

#: What goes into the manifest; everything else that was measured lies in the bundle's ``metrics.json``.
_HEADLINES = ("name", "system", "parameters", "data", "simulated", "split", "seeds", "ceiling", "calibration")
#: What is left out of a task's scores there.
_LONG = ("confusion", "topk_curve", "by_subject")


def checkpoint_arguments(
    trained: Trained, *, hop: float | None = None, subject: str | int | None = None
) -> dict[str, Any]:
    """The arguments of `export_bundle` for a checkpoint, except where it goes.

    The first output of each kind that was scored gets the head of its first task: classes with the calibrated
    temperature, or retrieval from the test's candidates by the metric of the loss. Other outputs are published as they
    are.

    Parameters
    ----------
    trained : Trained
        The checkpoint.
    hop : float, optional
        Seconds: besides the windows at markers, cut one of the same length this often, whatever the markers.
    subject : str or int, optional
        Whose deployment, by name or by place; of a checkpoint of one subject, that one.

    Raises
    ------
    ConfigError
        Nothing of this subject was trained on.
    """
    checkpoint = trained.checkpoint
    name = _subject(checkpoint, subject)
    deployed = trained.deployment(name)
    encoder = trained.encoder
    windows: list[WindowSpec] = [checkpoint.window]
    if hop is not None:
        windows.append(Sliding(length=checkpoint.window.duration, hop=hop))
    heads, files = _heads(trained, encoder.outputs)
    return {
        "module": encoder.deploy(None if name is None else checkpoint.subjects.index(name)),
        "name": checkpoint.name if name is None or len(checkpoint.subjects) == 1 else f"{checkpoint.name} ({name})",
        "contract": checkpoint.contract,
        "conditioning": checkpoint.conditioning,
        "arrays": dict(deployed.arrays),
        "windows": windows,
        "heads": heads,
        "outputs": list(encoder.outputs),
        "real_windows": deployed.windows,
        "labels": {
            task.output: deployed.labels[task.label]
            for task in reversed(checkpoint.tasks)  # an output's head is that of its first task
            if isinstance(task, Classes) and task.label in deployed.labels
        },
        "raw": deployed.raw,
        "raw_starts": deployed.raw_starts,
        "files": files | {"metrics.json": pretty(trained.metrics), "recipe.json": pretty(checkpoint.recipe)},
        "metrics": _headlines(trained.metrics),
        "provenance": {
            "trained_with": checkpoint.provenance,
            "subject": name,
            "seeds": checkpoint.seeds if _is_ensemble(trained) else checkpoint.seeds[checkpoint.best],
        },
    }


def _subject(checkpoint: Checkpoint, subject: str | int | None) -> str | None:
    """A subject's name; None for anyone, where there are several."""
    names = checkpoint.subjects
    if subject is None:
        return names[0] if len(names) == 1 else None
    if isinstance(subject, str) and subject in names:
        return subject
    if isinstance(subject, int) and 0 <= subject < len(names):
        return names[subject]
    raise ConfigError(
        f"--subject is {subject!r}; the checkpoint {checkpoint.name!r} knows "
        f"{', '.join(f'{place} ({name})' for place, name in enumerate(names))}"
    )


def _is_ensemble(trained: Trained) -> bool:
    return trained.encoder not in trained.networks


def _heads(trained: Trained, outputs: tuple[str, ...]) -> tuple[list[HeadSpec], dict[str, bytes | NDArray[np.float32]]]:
    """A head for each output, those that were scored first, in the order of the tasks; and the files that they name.

    A window's message has room for one label and one retrieval: further outputs of a kind are published as they are.
    """
    checkpoint = trained.checkpoint
    heads: dict[str, HeadSpec] = {}
    files: dict[str, bytes | NDArray[np.float32]] = {}
    for place, task in enumerate(checkpoint.tasks):
        kind = ClassifyHead if isinstance(task, Classes) else RetrieveHead
        if task.output not in outputs or task.output in heads or any(isinstance(head, kind) for head in heads.values()):
            continue
        if isinstance(task, Classes):
            heads[task.output] = _classify(checkpoint, task, checkpoint.temperature if place == 0 else 1.0)
        elif task.name in trained.galleries:
            heads[task.output] = _retrieve(task)
            files["items.json"] = pretty(_items(checkpoint))
            files[_rows_file(task)] = np.ascontiguousarray(trained.galleries[task.name])
    for output in outputs:
        heads.setdefault(output, EmbeddingHead(output=output))
    return list(heads.values()), files


def _classify(checkpoint: Checkpoint, task: Classes, temperature: float) -> ClassifyHead:
    labels = checkpoint.classes[task.label]
    markers = {name: checkpoint.markers[name] for name in labels if name in checkpoint.markers}
    return ClassifyHead(output=task.output, labels=labels, temperature=temperature, markers=markers)


def _retrieve(task: Retrieval) -> RetrieveHead:
    return RetrieveHead(output=task.output, items="items.json", embeddings=_rows_file(task), metric=task.metric)


def _rows_file(task: Task) -> str:
    return f"items_{task.name.replace('/', '_')}.npy"


def _items(checkpoint: Checkpoint) -> list[GalleryItem]:
    captions = checkpoint.captions or (None,) * len(checkpoint.gallery)
    return [GalleryItem(name=name, caption=caption) for name, caption in zip(checkpoint.gallery, captions, strict=True)]


def _headlines(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says of the metrics."""
    told = {key: metrics[key] for key in _HEADLINES if key in metrics}
    for part in ("held_out", "validation", "test"):
        if part not in metrics:
            continue
        tasks = metrics[part].get("tasks", {"first task": metrics[part]})
        told[part] = {
            name: {key: value for key, value in scored.items() if key not in _LONG} for name, scored in tasks.items()
        }
    return msgspec.to_builtins(told)  # type: ignore[no-any-return]
