"""Whether TensorRT takes what is exported: from a list, always; by its own parser, where its wheels are installed."""

import importlib.util

import numpy as np
import pytest

pytest.importorskip("torch", reason="exporting needs torch: pip install rtdecode[train]")
pytest.importorskip("onnxscript", reason="exporting needs onnxscript: pip install rtdecode[train]")
pytest.importorskip("onnxruntime", reason="exporting needs an inference runtime: pip install rtdecode[cpu]")

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from rtdecode_export.onnx import to_onnx
from rtdecode_export.precision import lower
from rtdecode_export.quantise import quantise
from rtdecode_export.report import tensorrt_words
from rtdecode_export.tensorrt_check import LIST_OF, OPERATORS, OperatorCheck, TensorRT, check_operators, check_tensorrt

HAS_PARSER = importlib.util.find_spec("tensorrt_rtx_bindings") is not None
PARSER = pytest.mark.skipif(
    not HAS_PARSER, reason="not run: pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings"
)


def graph(nodes, constants=()):
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        "g",
        [value("window", TensorProto.FLOAT, [1, 6, 4])],
        [value("y", TensorProto.FLOAT, None)],
        list(constants),
    )
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)], ir_version=10
    )


def test_every_operator_of_a_graph_is_looked_up():
    nodes = [
        helper.make_node("Relu", ["window"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Unique", ["b"], ["c"]),
        helper.make_node("Gelu", ["c"], ["d"], domain="com.microsoft"),
        helper.make_node("MaxPool", ["d"], ["e", "places"], kernel_shape=[2]),
        helper.make_node("DequantizeLinear", ["bias", "scale"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.zeros(2, np.int32), "bias"),
        numpy_helper.from_array(np.ones((), np.float32), "scale"),
    ]
    found = check_operators(graph(nodes, constants))
    assert found["Relu"] == OperatorCheck(count=2)
    assert {name: operator.problem for name, operator in found.items() if operator.problem} == {
        "Unique": "not in the list",
        "Gelu": "of the domain 'com.microsoft'",
        "MaxPool": "gives indices, which are not taken",
        "DequantizeLinear": "dequantises int32; only 8 and 4 bits are taken",
    }


def test_the_report_names_what_is_not_taken_and_what_was_not_parsed():
    good = TensorRT(operators={"Relu": OperatorCheck(count=1)})
    assert good.taken
    assert tensorrt_words(good) == (
        f"1 of 1 operators are taken, says the list of {LIST_OF}; not parsed: the bindings are not installed"
    )
    bad = TensorRT(operators={"Unique": OperatorCheck(count=1, problem="not in the list")})
    assert not bad.taken
    assert "0 of 1 operators are taken" in tensorrt_words(bad)
    assert "not taken: Unique (not in the list)" in tensorrt_words(bad)
    refused = TensorRT(operators=good.operators, parser="P 1", problems=("Relu r: no", "more"))
    assert not refused.taken
    assert tensorrt_words(refused).endswith("P 1 does not parse it: Relu r: no")


class Everything(torch.nn.Module):
    """What the published encoders are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 8, (1, 5))
        self.depthwise = torch.nn.Conv2d(8, 8, (4, 1), groups=8)
        self.norm = torch.nn.BatchNorm1d(8)
        self.group = torch.nn.GroupNorm(2, 8)
        self.attention = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.glu = torch.nn.Conv1d(8, 16, 3, padding=1)
        self.out = torch.nn.Linear(8, 5)

    def forward(self, window):
        hidden = self.depthwise(self.conv(window.transpose(1, 2).unsqueeze(1))).squeeze(2)
        hidden = torch.nn.functional.elu(self.group(self.norm(hidden)))
        hidden = torch.nn.functional.glu(self.glu(hidden), dim=1)
        hidden = torch.nn.functional.avg_pool1d(hidden, 2)
        hidden = torch.nn.functional.gelu(self.attention(hidden.transpose(1, 2)).mean(1))
        logits = self.out(hidden)
        return torch.nn.functional.normalize(logits, dim=1), torch.log_softmax(logits, 1)


@PARSER
def test_the_parser_takes_every_precision_of_what_encoders_are_made_of():
    data = to_onnx(Everything(), (20, 4), ["embedding", "logits"]).data
    windows = np.random.default_rng(0).standard_normal((4, 20, 4)).astype(np.float32)
    graphs = {"fp32": data, "fp16": lower(data, "fp16"), "bf16": lower(data, "bf16"), "int8": quantise(data, windows)}
    for precision, onnx_bytes in graphs.items():
        checked = check_tensorrt(onnx_bytes)
        assert checked.parser.startswith("TensorRT for RTX ")
        assert checked.taken, f"{precision}: {tensorrt_words(checked)}"


@PARSER
def test_the_parser_refuses_what_the_list_refuses():
    data = to_onnx(Everything(), (20, 4), ["embedding", "logits"]).data
    windows = np.random.default_rng(0).standard_normal((4, 20, 4)).astype(np.float32)
    checked = check_tensorrt(quantise(data, windows, "dynamic"))
    assert checked.operators["MatMulInteger"].problem == "not in the list"
    assert any(problem.startswith("MatMulInteger") for problem in checked.problems)


@PARSER
def test_the_list_is_the_parsers_own():
    trt = pytest.importorskip("tensorrt_rtx_bindings")
    if f"TensorRT for RTX {trt.__version__}" != LIST_OF:
        pytest.skip(f"not run: the list is of {LIST_OF}, installed is {trt.__version__}")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    names = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert {name for name in names if parser.supports_operator(name)} == OPERATORS
