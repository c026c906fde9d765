"""Random encoders, and the engine that runs a cut of one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from rtdecode.encode.arrays import read_array
from rtdecode.encode.first_layer import FirstSums
from rtdecode.encode.incremental import IncrementalEngine
from rtdecode.encode.manifest import Split
from rtdecode.encode.onnx import OnnxEngine
from rtdecode.encode.prefix import session
from rtdecode.encode.prefix_pool import Prefix
from rtdecode.stream.early_steps import EarlySteps
from rtdecode.stream.steps import WindowStep
from rtdecode.stream.window import Locked, WindowSpec
from rtdecode_export.incremental.compile import Compiled


class Net:
    """A graph that is put together layer by layer; ``x`` is the tensor so far, of shape (1, channels, length)."""

    def __init__(self, time: int, channels: int, seed: int, window: str = "window") -> None:
        self.rng = np.random.default_rng(seed)
        self.time, self.inputs, self.window = time, channels, window
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, NDArray[Any]] = {}
        self.channels, self.length = channels, time
        self.x = self.add("Transpose", [window], perm=[0, 2, 1])

    def add(self, operator: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> str:
        names = [f"t{len(self.nodes)}_{n}" for n in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names[0]

    def weight(self, *shape: int, scale: float | None = None) -> str:
        name = f"w{len(self.weights)}"
        fan = float(np.prod(shape[1:])) if len(shape) > 1 else 1.0
        self.weights[name] = (self.rng.standard_normal(shape) * (scale or fan**-0.5)).astype(np.float32)
        return name

    def integers(self, *values: int) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.array(values, np.int64)
        return name

    def conv(self, kernel: int, stride: int, dilation: int, pads: tuple[int, int], out: int) -> None:
        names = [self.x, self.weight(out, self.channels, kernel), self.weight(out, scale=0.1)]
        self.x = self.add("Conv", names, strides=[stride], dilations=[dilation], pads=list(pads))
        self.channels = out
        self.length = (self.length + sum(pads) - dilation * (kernel - 1) - 1) // stride + 1

    def pool(self, operator: str, kernel: int, stride: int, pads: tuple[int, int]) -> None:
        self.x = self.add(operator, [self.x], kernel_shape=[kernel], strides=[stride], pads=list(pads))
        self.length = (self.length + sum(pads) - kernel) // stride + 1

    def gelu(self) -> None:
        half, one, root = (self.constant(v) for v in (0.5, 1.0, 2**0.5))
        curve = self.add("Add", [self.add("Erf", [self.add("Div", [self.x, root])]), one])
        self.x = self.add("Mul", [self.add("Mul", [self.x, curve]), half])

    def constant(self, value: float) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.array(value, np.float32)
        return name

    def residual(self, dilation: int) -> None:
        before = self.x
        self.conv(3, 1, dilation, (dilation, dilation), self.channels)
        self.x = self.add("Add", [self.x, before])

    def gated(self) -> None:
        self.conv(3, 1, 1, (1, 1), 2 * self.channels)
        self.channels //= 2
        left = self.add("Split", [self.x, self.integers(self.channels, self.channels)], 2, axis=1)
        self.x = self.add("Mul", [left, self.add("Sigmoid", [left.replace("_0", "_1")])])

    def normed(self) -> None:
        turned = self.add("Transpose", [self.x], perm=[0, 2, 1])
        scale, shift = self.weight(self.channels), self.weight(self.channels)
        self.x = self.add(
            "Transpose", [self.add("LayerNormalization", [turned, scale, shift], axis=-1)], perm=[0, 2, 1]
        )

    def batch_normed(self) -> None:
        names = [self.weight(self.channels) for _ in range(4)]
        self.weights[names[3]] = np.abs(self.weights[names[3]]) + 0.5
        self.x = self.add("BatchNormalization", [self.x, *names])

    def spatial(self, kernel: int, stride: int) -> None:
        """As EEG networks have it: over time for each channel, then over channels."""
        maps = 3
        image = self.add("Unsqueeze", [self.x, self.integers(1)])
        wide = self.add("Conv", [image, self.weight(maps, 1, 1, kernel)], strides=[1, stride])
        tall = self.add("Conv", [self.add("Elu", [wide]), self.weight(4, maps, self.channels, 1)])
        self.x = self.add("Squeeze", [tall, self.integers(2)])
        self.channels, self.length = 4, (self.length - kernel) // stride + 1

    def sliced(self, start: int, stop: int) -> None:
        names = [self.x, self.integers(start), self.integers(stop), self.integers(2)]
        self.x = self.add("Slice", names)
        self.length = stop - start

    def padded(self, before: int, after: int) -> None:
        self.x = self.add("Pad", [self.x, self.integers(0, 0, before, 0, 0, after), self.constant(0.3)])
        self.length += before + after

    def end(self, how: str, output: str = "y", width: int = 5) -> bytes:
        if how == "mean":
            flat, n = self.add("ReduceMean", [self.x, self.integers(2)], keepdims=0), self.channels
        else:
            if how == "attention":
                self.x = self.add("Mul", [self.x, self.add("Softmax", [self.x], axis=2)])
            flat, n = self.add("Reshape", [self.x, self.integers(1, -1)]), self.channels * self.length
        hidden = self.add("Gemm", [flat, self.weight(width, n), self.weight(width)], transB=1)
        self.nodes.append(helper.make_node("Tanh", [hidden], [output]))
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info(self.window, TensorProto.FLOAT, (1, self.time, self.inputs))],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, (1, width))],
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return bytes(model.SerializeToString())


LAYERS = ("conv", "average", "max", "elu", "gelu", "residual", "gated", "normed", "batch", "slice", "pad", "spatial")


@st.composite
def nets(draw: st.DrawFn, time: int, channels: int, stride: int = 2) -> bytes:
    """An encoder of random layers, whose positions lie at most `stride` samples apart for each layer."""
    net = Net(time, channels, draw(st.integers(0, 2**32 - 1)))
    for layer in draw(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=5)):
        step = draw(st.integers(1, stride)) if net.length >= 12 else 1
        pads = draw(st.sampled_from([(0, 0), (0, 0), (1, 1), (2, 0), (0, 1)]))
        match layer:
            case "conv" if net.length > 6:
                net.conv(draw(st.integers(1, 3)), step, draw(st.integers(1, 2)), pads, draw(st.integers(1, 4)))
            case "average" | "max" if net.length > 6:
                operator = "AveragePool" if layer == "average" else "MaxPool"
                net.pool(operator, 3, step, (min(pads[0], 1), min(pads[1], 1)))
            case "elu":
                net.x = net.add("Elu", [net.x])
            case "gelu":
                net.gelu()
            case "residual":
                net.residual(draw(st.integers(1, 2)))
            case "gated":
                net.gated()
            case "normed":
                net.normed()
            case "batch":
                net.batch_normed()
            case "slice" if net.length > 8:
                net.sliced(draw(st.integers(0, 3)), net.length - draw(st.integers(0, 2)))
            case "pad":
                net.padded(draw(st.integers(0, 2)), draw(st.integers(0, 2)))
            case "spatial" if net.length > 8:
                net.spatial(draw(st.integers(1, 4)), step)
    return net.end(draw(st.sampled_from(["flat", "flat", "mean", "attention"])))


def engine_of(
    compiled: Compiled,
    onnx: bytes,
    windows: Sequence[WindowSpec],
    steps: Sequence[WindowStep],
    sfreq: float,
    prefix: Prefix | None = None,
) -> IncrementalEngine:
    """The engine of a split, with a prefix that others have, too, or one of its own."""
    split, files = compiled.split, compiled.files
    assert isinstance(split, Split)
    info = OnnxEngine(onnx, warmup=0).info
    length = info.input_shape[0]
    sessions = [
        None if name is None else session(files[name], name, 1) for name in (split.rest, split.left, split.right)
    ]
    layer = None
    if split.first is not None:
        layer = FirstSums(split.first, split.boundary[0], read_array(files[split.first.weights], "weights"))
    return IncrementalEngine(
        split,
        prefix or prefix_of(compiled, info.input_shape, sfreq),
        *sessions,
        layer=layer,
        steps=EarlySteps(steps, sfreq, next((one.tmin for one in windows if isinstance(one, Locked)), 0.0), length),
        windows=windows,
        sfreq=sfreq,
        whole=info,
        words="",
        same="this" if prefix is not None else "",
    )


def prefix_of(compiled: Compiled, shape: tuple[int, int], sfreq: float) -> Prefix:
    """The prefix of a split."""
    assert isinstance(compiled.split, Split)
    return Prefix(compiled.files[compiled.split.prefix], compiled.split, shape, sfreq, 1, "prefix")
