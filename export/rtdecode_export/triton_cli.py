"""The verb ``rtdecode bundle triton``."""

import re
from pathlib import Path
from typing import Annotated, Literal

import typer


def triton_verb(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle: a folder or a .zip file.")],
    out: Annotated[Path, typer.Option(help="The server's model repository: a folder.")],
    model: Annotated[str | None, typer.Option(help="Name of the model there; the bundle's if not given.")] = None,
    backend: Annotated[
        Literal["onnxruntime", "python"],
        typer.Option(help="onnxruntime: batches are encoded at once; python: each window by itself."),
    ] = "onnxruntime",
    max_batch: Annotated[int, typer.Option(help="Windows in one batch; 0: one at a time.")] = 8,
    delay_us: Annotated[int, typer.Option(help="How long a window may wait for others, in microseconds.")] = 0,
    instances: Annotated[int, typer.Option(help="Copies of the model that run side by side.")] = 1,
    threads: Annotated[int, typer.Option(help="Threads inside one operator, on the CPU.")] = 1,
    gpu: Annotated[bool, typer.Option("--gpu", help="The model runs on the GPU.")] = False,
) -> None:
    """Write a bundle's encoder into the model repository of a Triton server.

    Pipelines with engine = "triton" send their windows to it, and check it against the bundle when they start.

    Example: rtdecode bundle triton gaze.zip --out models
    """
    from rtdecode_export.cli import require_export_packages

    require_export_packages()
    from rtdecode.encode.bundle import Bundle
    from rtdecode.encode.triton_repository import ModelSettings, write_model
    from rtdecode_export.batched import with_batch_axis

    settings = ModelSettings(backend, max_batch, delay_us, instances, gpu, threads)
    opened = Bundle.open(bundle)
    if model is None:
        model = re.sub(r"[^A-Za-z0-9_.-]+", "-", opened.manifest.name).strip("-.") or "encoder"
    note = f"{opened.manifest.name}, bundle {opened.id[:12]}; written by rtdecode bundle triton"
    folder = write_model(opened.onnx_bytes(), out, model, settings, note=note, batched=with_batch_axis)
    typer.echo(f"{folder}  {opened.id[:12]}")
