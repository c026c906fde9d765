"""Small bundles for tests: an ONNX file of one matrix product per output, with everything around it."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from rtdecode.encode.arrays import array_bytes
from rtdecode.encode.bundle import items_json
from rtdecode.encode.manifest import (
    FORMAT,
    VERSION,
    ClassifyHead,
    Contract,
    ContractChannel,
    EmbeddingHead,
    Encoder,
    GalleryItem,
    Golden,
    Manifest,
    RetrieveHead,
)
from rtdecode.signal import Channel
from rtdecode.stream.condition import Conditioner, WindowConditioner
from rtdecode.stream.steps import Clamp, Conditioning, Filter, Matrix, Scale
from rtdecode.stream.window import Sliding

TIME, CHANNELS, WIDTH, LABELS, ITEMS = 20, 3, 8, 2, 6
SFREQ = 100.0


def model(
    nodes: Sequence[NodeProto],
    outputs: Mapping[str, Sequence[int | str]],
    weights: Mapping[str, NDArray[Any]] | None = None,
    *,
    input_shape: Sequence[int | str] = (1, TIME, CHANNELS),
    input_type: int = TensorProto.FLOAT,
    output_type: int = TensorProto.FLOAT,
) -> ModelProto:
    """An ONNX model with the input ``x``."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", input_type, input_shape)],
        [helper.make_tensor_value_info(name, output_type, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def linear(weights: Mapping[str, NDArray[np.float32]], time: int = TIME, channels: int = CHANNELS) -> bytes:
    """An ONNX file that multiplies the flattened window by one matrix for each output."""
    nodes = [helper.make_node("Flatten", ["x"], ["flat"])]
    nodes += [helper.make_node("MatMul", ["flat", f"{name}.weight"], [name]) for name in weights]
    proto = model(
        nodes,
        {name: (1, weight.shape[1]) for name, weight in weights.items()},
        {f"{name}.weight": weight for name, weight in weights.items()},
        input_shape=(1, time, channels),
    )
    return bytes(proto.SerializeToString())


def parts(seed: int = 0) -> tuple[Manifest, dict[str, bytes | NDArray[Any]]]:
    """A whole bundle: filter, matrix and scaling, a clamp, three heads, golden windows with their raw stream."""
    rng = np.random.default_rng(seed)
    names = [f"E{i}" for i in range(CHANNELS)]
    arrays: dict[str, NDArray[np.float64]] = {
        "conditioning/align.npy": np.eye(CHANNELS) + 0.1 * rng.standard_normal((CHANNELS, CHANNELS)),
        "conditioning/center.npy": np.zeros(CHANNELS),
        "conditioning/scale.npy": np.full(CHANNELS, 1e-5),
    }
    steps = (
        Filter(low=1.0, high=20.0),
        Matrix(array="conditioning/align.npy", kind="euclidean_alignment"),
        Scale(center="conditioning/center.npy", scale="conditioning/scale.npy"),
    )
    window = Sliding(length=TIME / SFREQ, hop=0.05)
    raw = (1e-5 * rng.standard_normal((200, CHANNELS))).astype(np.float32)
    starts = (0, 40, 95)
    conditioned = Conditioner(steps, [Channel(name, "eeg", "V") for name in names], SFREQ, arrays).push(raw)
    clamp = WindowConditioner((Clamp(limit=2.5),), SFREQ, 0.0, CHANNELS, TIME)
    windows = np.stack([clamp(conditioned[start : start + TIME]) for start in starts])
    weights = {
        "embedding": rng.standard_normal((TIME * CHANNELS, WIDTH)).astype(np.float32),
        "logits": rng.standard_normal((TIME * CHANNELS, LABELS)).astype(np.float32),
    }
    flat = windows.reshape(len(windows), -1).astype(np.float64)
    manifest = Manifest(
        format=FORMAT,
        version=VERSION,
        name="test",
        created="2026-01-01T00:00:00Z",
        contract=Contract(
            channels=tuple(ContractChannel(name=name, type="eeg", unit="V") for name in names), sfreq=SFREQ
        ),
        conditioning=Conditioning(stream=steps, window=(Clamp(limit=2.5),)),
        windows=(window,),
        encoder=Encoder(file="encoder.onnx", input="x", outputs=("embedding", "logits")),
        heads=(
            RetrieveHead(
                output="embedding", items="gallery/items.json", embeddings="gallery/rows.npy", k=3, threshold=0.1
            ),
            ClassifyHead(
                output="logits", labels=("fists", "feet"), temperature=2.0, markers={"fists": ("T1",), "feet": ("T2",)}
            ),
            EmbeddingHead(output="embedding"),
        ),
        golden=Golden(
            windows="golden/windows.npy",
            outputs={"embedding": "golden/embedding.npy", "logits": "golden/logits.npy"},
            tolerance=1e-4,
            raw="golden/raw.npy",
            raw_starts=starts,
        ),
        metrics={"top1": 0.5},
        provenance={"seed": seed},
    )
    items = [GalleryItem(name=f"thing {i}", emoji="🙂") for i in range(ITEMS - 1)]
    items.append(GalleryItem(name="a picture", picture="gallery/pictures/5.png", caption="five"))
    files: dict[str, bytes | NDArray[Any]] = {
        "encoder.onnx": linear(weights),
        "gallery/items.json": items_json(items),
        "gallery/rows.npy": rng.standard_normal((ITEMS, WIDTH)).astype(np.float32),
        "gallery/pictures/5.png": b"\x89PNG not really",
        "golden/windows.npy": windows,
        "golden/raw.npy": raw,
        **{f"golden/{name}.npy": (flat @ weight).astype(np.float32) for name, weight in weights.items()},
        **arrays,
    }
    return manifest, files


def write_raw(path: Path, manifest: Any, files: Mapping[str, bytes | NDArray[Any]]) -> Path:
    """Write a folder with honest hashes but no other check, so that a wrong bundle can be made."""
    contents = {name: data if isinstance(data, bytes) else array_bytes(data, name) for name, data in files.items()}
    contents["manifest.json"] = manifest if isinstance(manifest, bytes) else msgspec.json.encode(manifest)
    contents["SHA256SUMS"] = "".join(
        f"{hashlib.sha256(contents[name]).hexdigest()}  {name}\n" for name in sorted(contents)
    ).encode()
    for name, data in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path
