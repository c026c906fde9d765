"""An ONNX file that takes batches of windows, from one that takes one window: for a server that gathers them."""

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, numpy_helper

from rtdecode.errors import BundleError

#: What the batch's axis is called.
AXIS = "batch"

#: Windows of the check, and how far a window's numbers may be from those it gives alone, as a share of the largest.
_CHECKED = 3
_TOLERANCE = 1e-4


def with_batch_axis(data: bytes) -> bytes:
    """Give an encoder's input and outputs a batch axis of any size.

    The first axis of input and outputs becomes free, and so does the first size of every constant shape that a reshape
    writes as 1. Whether that was enough is not proven from the graph but tried: a batch of random windows has to give
    what each window gives alone.

    Parameters
    ----------
    data : bytes
        An ONNX file that takes one window, of shape (1, time, channels).

    Returns
    -------
    bytes
        The same for shape (batch, time, channels).

    Raises
    ------
    BundleError
        The graph mixes windows of a batch, or does not take several.
    """
    model = ModelProto.FromString(data)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = AXIS
    del model.graph.value_info[:]  # what was known of the values between holds for one window
    _free_shapes(model)
    made = bytes(model.SerializeToString())
    _try(data, made)
    return made


def _free_shapes(model: ModelProto) -> None:
    """Constant shapes of reshapes that begin with 1 begin with 0: the size of the reshaped value's own first axis."""
    wanted = {node.input[1] for node in model.graph.node if node.op_type == "Reshape" and len(node.input) > 1}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] in wanted:
            for attribute in node.attribute:
                _free(attribute.t)
    for tensor in model.graph.initializer:
        if tensor.name in wanted:
            _free(tensor)


def _free(tensor: TensorProto) -> None:
    shape = numpy_helper.to_array(tensor).copy()
    if shape.ndim == 1 and len(shape) and shape[0] == 1:
        shape[0] = 0
        tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))


def _try(alone: bytes, together: bytes) -> None:
    """Raise `BundleError` unless a batch gives what its windows give alone."""
    from rtdecode.encode.onnx import import_onnxruntime

    runtime = import_onnxruntime()
    one = runtime.InferenceSession(alone, providers=["CPUExecutionProvider"])
    _, time, channels = one.get_inputs()[0].shape
    windows = np.random.default_rng(0).standard_normal((_CHECKED, time, channels)).astype(np.float32)
    name = one.get_inputs()[0].name
    try:
        onnx.checker.check_model(together)
        several = runtime.InferenceSession(together, providers=["CPUExecutionProvider"])
        found = several.run(None, {name: windows})
    except Exception as error:  # onnxruntime's and onnx's exceptions share no base
        raise BundleError(f"the encoder does not take several windows at once: {error}; {_INSTEAD}") from error
    for n, value in enumerate(one.get_outputs()):
        expected = np.concatenate([one.run([value.name], {name: window[None]})[0] for window in windows])
        scale = float(np.abs(expected).max()) or 1.0
        if found[n].shape != expected.shape or not np.abs(found[n] - expected).max() <= _TOLERANCE * scale:
            raise BundleError(
                f"the encoder's output {value.name!r} is another where several windows are encoded at once; {_INSTEAD}"
            )


_INSTEAD = "expected --max-batch 0 (one window at a time), or --backend python (each by itself)"
