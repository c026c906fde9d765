"""The bundle of ``rtdecode chaos`` (``python -m`` this module): its encoder tells what it saw."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, checker, helper

from rtdecode.chaos import BUNDLE
from rtdecode.chaos.truth import CYCLE, HOP_S, LENGTH, LENGTH_S, NAMES, SFREQ, UNIT, WITNESS, samples
from rtdecode.encode.bundle import write_bundle
from rtdecode.encode.manifest import (
    FORMAT,
    VERSION,
    Contract,
    ContractChannel,
    EmbeddingHead,
    Encoder,
    Golden,
    Manifest,
)
from rtdecode.stream.steps import Conditioning
from rtdecode.stream.window import Locked, Sliding


def graph() -> ModelProto:
    """The encoder: slices, steps and sums of a window of shape (1, time, channels), joined to one vector."""

    def cut(source: str, out: str, axis: int, begin: int, end: int) -> list[object]:
        names = [f"{out}.{part}" for part in ("begin", "end", "axis")]
        values = (begin, end, axis)
        constants = [
            helper.make_node("Constant", [], [name], value=helper.make_tensor(name, TensorProto.INT64, [1], [value]))
            for name, value in zip(names, values, strict=True)
        ]
        return [*constants, helper.make_node("Slice", [source, *names], [out])]

    over_time = helper.make_node(
        "Constant", [], ["time"], value=helper.make_tensor("time", TensorProto.INT64, [1], [1])
    )
    flat = helper.make_node("Constant", [], ["row"], value=helper.make_tensor("row", TensorProto.INT64, [2], [1, -1]))
    said = ("first", "last", "least", "most", "min life", "max life")
    nodes = [
        over_time,
        flat,
        *cut("x", "count", 2, 0, 1),
        *cut("x", "life", 2, 1, 2),
        *cut("x", "patterns", 2, 2, len(NAMES)),
        *cut("count", "first", 1, 0, 1),
        *cut("count", "last", 1, LENGTH - 1, LENGTH),
        *cut("count", "before", 1, 0, LENGTH - 1),
        *cut("count", "after", 1, 1, LENGTH),
        helper.make_node("Sub", ["after", "before"], ["steps"]),
        helper.make_node("ReduceMin", ["steps", "time"], ["least"]),
        helper.make_node("ReduceMax", ["steps", "time"], ["most"]),
        helper.make_node("ReduceMin", ["life", "time"], ["min life"]),
        helper.make_node("ReduceMax", ["life", "time"], ["max life"]),
        helper.make_node("ReduceSum", ["patterns", "time"], ["sums"]),
        helper.make_node("Concat", [*said, "sums"], ["all"], axis=2),
        helper.make_node("Reshape", ["all", "row"], ["witness"]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "witness",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, LENGTH, len(NAMES)])],
            [helper.make_tensor_value_info("witness", TensorProto.FLOAT, [1, len(WITNESS)])],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    checker.check_model(model)
    return model


def expected(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the encoder gives for windows of shape (n, time, channels), shape (n, 12)."""
    steps = np.diff(windows[:, :, 0], axis=1)
    ends = [
        windows[:, 0, 0],
        windows[:, -1, 0],
        steps.min(1),
        steps.max(1),
        windows[:, :, 1].min(1),
        windows[:, :, 1].max(1),
    ]
    return np.column_stack([*ends, windows[:, :, 2:].sum(axis=1)]).astype(np.float32)


def main(out: Annotated[Path, typer.Option(help="Where it is written: a folder or a zip.")] = BUNDLE) -> None:
    """Write the bundle that ``rtdecode chaos`` decodes with."""
    raw = samples(0, 3 * LENGTH, 1)
    starts = (0, 25, CYCLE - 1)
    windows = np.stack([raw[start : start + LENGTH] for start in starts])
    manifest = Manifest(
        format=FORMAT,
        version=VERSION,
        name="witness",
        created="2026-01-01T00:00:00Z",
        contract=Contract(
            channels=tuple(ContractChannel(name=name, type="eeg", unit=UNIT) for name in NAMES), sfreq=SFREQ
        ),
        conditioning=Conditioning(stream=(), window=()),
        windows=(
            Sliding(length=LENGTH_S, hop=HOP_S, name="sliding"),
            Locked(tmin=0.0, tmax=LENGTH_S, markers=("n*",), name="locked"),
        ),
        encoder=Encoder(file="encoder.onnx", input="x", outputs=("witness",)),
        heads=(EmbeddingHead(output="witness"),),
        golden=Golden(
            windows="golden/windows.npy",
            outputs={"witness": "golden/witness.npy"},
            tolerance=0.0,
            raw="golden/raw.npy",
            raw_starts=starts,
        ),
    )
    files: dict[str, bytes | NDArray[Any]] = {
        "encoder.onnx": bytes(graph().SerializeToString()),
        "golden/windows.npy": windows,
        "golden/witness.npy": expected(windows),
        "golden/raw.npy": raw,
    }
    write_bundle(out, manifest, files)
    typer.echo(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
