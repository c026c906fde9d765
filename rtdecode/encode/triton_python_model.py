"""A bundle's encoder behind Triton's Python backend: copied into a model repository as ``model.py``, and run there.

Each window is run by itself, in a batch of one as the bundle was tested: what it gives does not depend on which windows
the server puts beside it. The model's parameters name the threads; an instance on a GPU runs on CUDA.

Tensors cross over by DLPack: older releases of the backend are built for NumPy 1, and answer with nothing under
NumPy 2.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils  # Triton's own: it is there alone


class TritonPythonModel:
    """What the Python backend asks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the encoder that lies beside this file."""
        config = json.loads(args["model_config"])
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = int(config["parameters"]["threads"]["string_value"])
        settings.inter_op_num_threads = 1
        settings.use_deterministic_compute = True
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        provider: Any = "CPUExecutionProvider"
        if args["model_instance_kind"] == "GPU":
            options = {"device_id": args["model_instance_device_id"], "use_tf32": "0"}
            provider = ("CUDAExecutionProvider", options)
            settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        self.session = onnxruntime.InferenceSession(
            str(Path(args["model_repository"]) / args["model_version"] / "encoder.onnx"),
            settings,
            providers=[provider],
            enable_fallback=False,
        )
        self.input = self.session.get_inputs()[0].name
        self.outputs = [one["name"] for one in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request."""
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        """The outputs of a request's windows, or the error of the first that has one."""
        windows = np.from_dlpack(pb_utils.get_input_tensor_by_name(request, self.input))
        try:
            rows = [self.session.run(self.outputs, {self.input: windows[n : n + 1]}) for n in range(len(windows))]
        except Exception as error:  # onnxruntime's errors share no class; one window's failure is not the model's
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"onnxruntime: {error}"))
        tensors = [
            pb_utils.Tensor.from_dlpack(name, np.concatenate([row[n] for row in rows]).astype(np.float32))
            for n, name in enumerate(self.outputs)
        ]
        return pb_utils.InferenceResponse(output_tensors=tensors)
