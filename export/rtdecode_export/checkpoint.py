"""What `rtdecode train` wrote, as the arguments of `export_bundle`."""

from typing import Any

import msgspec

from rtdecode.encode.manifest import ClassifyHead
from rtdecode.stream.window import Sliding, WindowSpec
from rtdecode_models.training.checkpoint import Trained

#: What goes into the manifest; everything else that was measured lies in the bundle's ``metrics.json``.
_HEADLINES = ("task", "chance", "seeds", "train", "leave_one_run_out")
_OF_TEST = ("recordings", "by_label", "trials", "right", "right_by_seed", "accuracy", "labels", "confusion")


def checkpoint_arguments(trained: Trained, *, hop: float | None = None) -> dict[str, Any]:
    """The arguments of `export_bundle` for a trained classifier, except where it goes.

    Parameters
    ----------
    trained : Trained
        The checkpoint.
    hop : float, optional
        Seconds: besides the windows at markers, cut one of the same length this often, whatever the markers.
    """
    checkpoint = trained.checkpoint
    windows: list[WindowSpec] = [checkpoint.window]
    if hop is not None:
        windows.append(Sliding(length=checkpoint.window.duration, hop=hop))
    metrics = {key: trained.metrics[key] for key in _HEADLINES if key in trained.metrics}
    if "test" in trained.metrics:
        metrics["test"] = {key: trained.metrics["test"][key] for key in _OF_TEST}
    return {
        "module": trained.module.deploy(),
        "name": checkpoint.name,
        "contract": checkpoint.contract,
        "conditioning": checkpoint.conditioning,
        "arrays": dict(trained.arrays),
        "windows": windows,
        "heads": [
            ClassifyHead(
                output="logits",
                labels=tuple(checkpoint.labels),
                temperature=checkpoint.temperature,
                markers=checkpoint.labels,
            )
        ],
        "outputs": ["logits"],
        "real_windows": trained.windows,
        "raw": trained.raw if len(trained.raw) else None,
        "raw_starts": checkpoint.raw_starts,
        "files": {"metrics.json": _pretty(trained.metrics), "recipe.json": _pretty(checkpoint.recipe)},
        "metrics": metrics,
        "provenance": {"trained_with": checkpoint.provenance},
    }


def _pretty(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
