"""Which training a state belongs to."""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch

if TYPE_CHECKING:
    from rtdecode_models.training.fit import Job


def identity(job: "Job", processes: int = 1, notes: Mapping[str, Any] | None = None) -> str:
    """SHA-256 of all that the weights depend on: recipe, seed, data, version of torch, number of processes.

    Parameters
    ----------
    job : Job
        The training.
    processes : int
        That share it.
    notes : mapping, optional
        What `make_network` took over from another checkpoint, with its hash.
    """
    recipe = job.recipe
    training = msgspec.structs.replace(recipe.training, save_minutes=0.0)
    parts = (recipe.model, recipe.loss, training, job.seed, job.name, str(torch.__version__), processes)
    digest = hashlib.sha256(msgspec.json.encode(parts))
    if notes:
        digest.update(msgspec.json.encode(notes))
    for trials in (job.train, job.validation):
        if trials is not None:
            digest.update(f"{trials.x.shape}{sorted(trials.labels)}".encode())
            for values in (trials.x, trials.subject, *(trials.labels[name] for name in sorted(trials.labels))):
                digest.update(np.ascontiguousarray(values).data)
            if trials.item is not None and trials.gallery is not None:
                digest.update(np.ascontiguousarray(trials.item).data)
                for name in sorted(trials.gallery.embeddings):
                    digest.update(np.ascontiguousarray(trials.gallery.embeddings[name]).data)
    return digest.hexdigest()
