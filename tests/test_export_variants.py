"""Precisions of one network: what computes in which, how far each drifts, what is refused, what the report says."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="exporting needs torch: pip install rtdecode[train]")
pytest.importorskip("onnxscript", reason="exporting needs onnxscript: pip install rtdecode[train]")
pytest.importorskip("onnxruntime", reason="exporting needs an inference runtime: pip install rtdecode[cpu]")

import ml_dtypes
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from rtdecode.encode.bundle import Bundle
from rtdecode.encode.consistency import MAX_TOLERANCE
from rtdecode.encode.engines import make_engine
from rtdecode.encode.golden import check_golden
from rtdecode.encode.manifest import ClassifyHead, Contract, ContractChannel, EmbeddingHead, RetrieveHead
from rtdecode.encode.variant import check_variant
from rtdecode.errors import BundleError, ConfigError, EngineError, GoldenError
from rtdecode.stream.steps import Conditioning
from rtdecode.stream.window import Sliding
from rtdecode_export.bundle import beside, export_bundle
from rtdecode_export.drift import FLOORS, LIMITS, Drift, crossed, golden_tolerance, measure
from rtdecode_export.onnx import run_model
from rtdecode_export.precision import lower, rounded
from rtdecode_export.quantise import quantise
from rtdecode_export.variants import Precision

TIME, CHANNELS = 20, 4
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")


class Network(torch.nn.Module):
    """One of everything that precision treats differently: products, a square, a softmax, both kinds of norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(CHANNELS, 8, (1, 5))
        self.norm = torch.nn.LayerNorm(8)
        self.query = torch.nn.Linear(8, 8)
        self.out = torch.nn.Linear(8, 6)
        self.logits = torch.nn.Linear(6, 3)

    def forward(self, window):
        hidden = torch.relu(self.conv(window.transpose(1, 2)[:, :, None])).squeeze(2).transpose(1, 2)
        hidden = self.norm(hidden)
        weights = torch.softmax(self.query(hidden) @ hidden.transpose(1, 2), dim=-1)
        embedding = torch.nn.functional.normalize(self.out((weights @ hidden).mean(1)), dim=1)
        return embedding, self.logits(embedding * embedding)


def arguments(**changes):
    torch.manual_seed(0)
    channels = tuple(ContractChannel(name=f"E{i}", type="eeg", unit="V") for i in range(CHANNELS))
    return {
        "module": Network(),
        "name": "several",
        "contract": Contract(channels=channels, sfreq=100.0),
        "conditioning": Conditioning(),
        "arrays": {},
        "windows": [Sliding(length=0.2, hop=0.1)],
        "heads": [ClassifyHead(output="logits", labels=("a", "b", "c")), EmbeddingHead(output="embedding")],
        "outputs": ["embedding", "logits"],
        "real_windows": np.random.default_rng(0).standard_normal((40, TIME, CHANNELS)).astype(np.float32),
        "labels": {"logits": np.arange(40) % 3 - (np.arange(40) > 35)},
        **changes,
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    given = arguments()
    out = tmp_path_factory.mktemp("variants") / "several.zip"
    return given, export_bundle(**given, out=out, precisions=PRECISIONS, latency_runs=3)


def opened(report, precision):
    return Bundle.open(report.bundles[precision])


def variant(report, precision):
    return next(one for one in report.variants if one.precision == precision)


def types_of(data):
    """Operator -> types of what its nodes give."""
    model = onnx.ModelProto.FromString(data)
    types = {value.name: value.type.tensor_type.elem_type for value in [*model.graph.value_info, *model.graph.output]}
    found: dict[str, set[int]] = {}
    for node in model.graph.node:
        found.setdefault(node.op_type, set()).update(types[name] for name in node.output)
    return found


# --- the bundles ------------------------------------------------------------------------------------------------------


def test_each_precision_is_a_bundle_beside_the_first_that_can_stand_in_for_it(exported):
    _, report = exported
    names = {precision: Path(place).name for precision, place in report.bundles.items()}
    assert names == {"fp32": "several.zip", "fp16": "several.fp16.zip", "bf16": "several.bf16.zip",
                     "int8": "several.int8.zip"}  # fmt: skip
    first = opened(report, "fp32")
    assert first.id == report.bundle_id
    for precision in PRECISIONS:
        bundle = opened(report, precision)
        assert bundle.manifest.encoder.precision == precision
        assert bundle.manifest.golden.tolerance == variant(report, precision).golden_tolerance
        check_variant(first, bundle)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_daemons_engine_runs_it_within_its_golden_tolerance(exported, precision):
    _, report = exported
    bundle = opened(report, precision)
    engine = make_engine(bundle)
    agreements = check_golden(bundle, engine)
    engine.close()
    assert {agreement.what for agreement in agreements} == {"embedding", "logits"}
    assert engine.info.precision == precision


def test_what_this_machine_cannot_run_is_said(exported):
    _, report = exported
    bf16 = variant(report, "bf16")
    assert not bf16.runs_here
    assert bf16.latency is None
    assert re.search(r"onnxruntime \S+, CPU has no bf16 kernel for Conv", bf16.not_run[0])
    assert {drift.how for drift in bf16.drift} == {"float32, each result rounded to bf16"}
    with pytest.raises(EngineError, match=r"has no kernel on 'cpu' .* name another provider, or a bundle in fp32"):
        make_engine(opened(report, "bf16"))


@pytest.mark.parametrize(("precision", "half"), [("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16)])
def test_products_are_half_and_norms_softmax_and_reductions_are_not(exported, precision, half):
    _, report = exported
    data = opened(report, precision).onnx_bytes()
    types = types_of(data)
    for operator in ("Conv", "MatMul", "Gemm", "Relu"):
        assert types[operator] == {half}
    for operator in ("LayerNormalization", "Softmax", "ReduceMean", "ReduceL2", "Div", "Mul"):
        assert types[operator] == {TensorProto.FLOAT}, operator
    model = onnx.ModelProto.FromString(data)
    ends = [*model.graph.input, *model.graph.output]
    assert {value.type.tensor_type.elem_type for value in ends} == {TensorProto.FLOAT}
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert half in weights.values()
    onnx.checker.check_model(model, full_check=True)


def test_drift_is_what_the_engines_differ_by(exported):
    given, report = exported
    engines = {precision: make_engine(opened(report, precision)) for precision in ("fp32", "fp16", "int8")}
    windows = given["real_windows"]
    outputs = {
        precision: np.stack([engine.finish(window, 0)["embedding"] for window in windows])
        for precision, engine in engines.items()
    }
    for engine in engines.values():
        engine.close()
    for precision, rows in (("fp16", slice(None)), ("int8", slice(1, None, 2))):
        here = [d for d in variant(report, precision).drift if d.output == "embedding" and d.how.endswith("CPU")]
        errors = np.abs(outputs[precision] - outputs["fp32"])[rows]
        assert here[0].windows == len(errors)
        assert here[0].max_abs == pytest.approx(errors.max(), abs=2e-6)
        assert here[0].share == pytest.approx(errors.max() / np.abs(outputs["fp32"][rows]).max(), rel=1e-2)
        cosines = (outputs[precision] * outputs["fp32"]).sum(1)[rows]  # both are unit vectors
        assert here[0].cosine_min == pytest.approx(cosines.min(), abs=1e-3)


def test_int8_is_measured_on_windows_that_did_not_set_its_scales(exported):
    given, report = exported
    assert "scales from 20 real windows, measured on 20 others" in variant(report, "int8").method
    windows = given["real_windows"].copy()
    data = opened(report, "fp32").onnx_bytes()
    assert quantise(data, windows[::2]) == opened(report, "int8").onnx_bytes()
    graph = onnx.ModelProto.FromString(quantise(data, 10 * windows[::2])).graph
    first = next(node for node in graph.node if node.op_type == "QuantizeLinear" and "scale" in node.input[1])
    scale = next(numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name == first.input[1])
    np.testing.assert_allclose(scale, np.abs(10 * windows[::2]).max() / 127, rtol=0.01)


def test_the_report_lies_in_each_bundle(exported):
    _, report = exported
    for precision in PRECISIONS:
        bundle = opened(report, precision)
        inside = json.loads(bundle.read("export.json"))
        assert inside["precision"] == precision
        assert [one["precision"] for one in inside["variants"]] == list(PRECISIONS)
        assert inside["errors"] == report.errors
        text = bundle.read("export.md").decode()
        assert f"# Export of several, {precision}" in text
        assert "PyTorch against onnxruntime on 40 real windows" in text
        for other in PRECISIONS:
            assert re.search(rf"^\| {other} \| logits \|", text, re.MULTILINE)
        assert re.search(r"^- bf16: onnxruntime .* has no bf16 kernel", text, re.MULTILINE)
    assert variant(report, "int8").latency.runs == 3
    assert variant(report, "fp16").drift[1].accuracy_fp32 is not None


def test_no_trace_of_where_it_was_exported_is_left(exported):
    _, report = exported
    for precision in PRECISIONS:
        data = opened(report, precision).onnx_bytes()
        assert b"test_export_variants" not in data
        assert str(Path(__file__).parent).encode() not in data


# --- precisions -------------------------------------------------------------------------------------------------------


def linear(weight):
    """A float32 graph: the window, flattened, times a matrix."""
    nodes = [
        helper.make_node("Reshape", ["window", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["out"]),
    ]
    n = TIME * CHANNELS
    constants = [numpy_helper.from_array(np.array([1, n]), "shape"), numpy_helper.from_array(weight, "weight")]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("window", TensorProto.FLOAT, [1, TIME, CHANNELS])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, weight.shape[1]])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", np.float16), ("bf16", ml_dtypes.bfloat16)])
def test_rounding_is_that_of_the_type(precision, dtype):
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((TIME * CHANNELS, 5)).astype(np.float32)
    windows = rng.standard_normal((6, TIME, CHANNELS)).astype(np.float32)
    given = run_model(rounded(linear(weight), precision), windows, ["out"], as_written=True)["out"]
    flat = windows.reshape(6, -1).astype(dtype).astype(np.float32)
    expected = (flat @ weight.astype(dtype).astype(np.float32)).astype(dtype).astype(np.float32)
    step = np.abs(expected) * float(ml_dtypes.finfo(dtype).eps)
    assert (np.abs(given - expected) <= step).all(), "the sums' last float32 bits may decide a rounding, no more"
    assert (given == expected).mean() > 0.8
    assert (given.astype(dtype).astype(np.float32) == given).all()


def test_a_weight_that_fp16_cannot_hold_is_named():
    weight = np.full((TIME * CHANNELS, 2), 7e4, np.float32)
    with pytest.raises(EngineError, match=r"'weight' reaches 7e\+04, more than fp16 holds"):
        lower(linear(weight), "fp16")
    lower(linear(weight), "bf16")


def test_a_constant_that_half_precision_does_not_hold_is_used_in_float32():
    graph = onnx.ModelProto.FromString(linear(np.ones((TIME * CHANNELS, 2), np.float32)))
    graph.graph.node[1].output[0] = "product"
    graph.graph.node.append(helper.make_node("Max", ["product", "least"], ["out"]))
    for least, half in ((-1e9, False), (1e-12, False), (0.5, True)):
        del graph.graph.initializer[2:]
        graph.graph.initializer.append(numpy_helper.from_array(np.array([least], np.float32), "least"))
        given = types_of(lower(graph.SerializeToString(), "fp16"))
        assert given["Max"] == {TensorProto.FLOAT16 if half else TensorProto.FLOAT}


def test_a_product_that_is_an_output_is_used_further_in_half_and_in_float32():
    rng = np.random.default_rng(5)
    graph = onnx.ModelProto.FromString(linear(rng.standard_normal((TIME * CHANNELS, 3)).astype(np.float32)))
    graph.graph.initializer.append(numpy_helper.from_array(np.eye(3, dtype=np.float32), "eye"))
    graph.graph.node.append(helper.make_node("MatMul", ["out", "eye"], ["same"]))
    graph.graph.node.append(helper.make_node("Softmax", ["out"], ["shares"]))
    value = helper.make_tensor_value_info
    graph.graph.output.extend(value(name, TensorProto.FLOAT, [1, 3]) for name in ("same", "shares"))
    lowered = lower(graph.SerializeToString(), "fp16")
    assert types_of(lowered)["MatMul"] == {TensorProto.FLOAT16}
    windows = rng.standard_normal((2, TIME, CHANNELS)).astype(np.float32)
    given = run_model(lowered, windows, ["out", "same", "shares"])
    np.testing.assert_array_equal(given["same"], given["out"])
    exponentials = np.exp(given["out"] - given["out"].max(1, keepdims=True))
    np.testing.assert_allclose(given["shares"], exponentials / exponentials.sum(1, keepdims=True), rtol=1e-5)


def test_a_network_without_weights_has_nothing_for_int8():
    graph = onnx.ModelProto.FromString(linear(np.ones((TIME * CHANNELS, 2), np.float32)))
    del graph.graph.node[1]
    graph.graph.node[0].output[0] = "out"
    with pytest.raises(EngineError, match="no convolution or matrix product with weights"):
        quantise(graph.SerializeToString(), np.ones((1, TIME, CHANNELS), np.float32))


def test_dynamic_int8_finds_its_scales_in_each_window():
    rng = np.random.default_rng(4)
    weight = rng.standard_normal((TIME * CHANNELS, 5)).astype(np.float32)
    windows = (
        rng.standard_normal((4, TIME, CHANNELS)).astype(np.float32) * np.array([1, 10, 100, 1000.0])[:, None, None]
    )
    windows = windows.astype(np.float32)
    exact = windows.reshape(4, -1) @ weight
    static, dynamic = (
        run_model(quantise(linear(weight), windows, method), windows, ["out"])["out"]
        for method in ("static", "dynamic")
    )
    shares = [np.abs(given - exact).max(1) / np.abs(exact).max(1) for given in (static, dynamic)]
    assert (shares[1] < 0.05).all()
    assert shares[0][0] > 0.2, "one scale for windows of a thousandfold range leaves nothing of the smallest"


# --- refusals ---------------------------------------------------------------------------------------------------------


class Faint(torch.nn.Module):
    """Its weights are among the least numbers of fp16, which have one digit."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((CHANNELS, 3), 1e-7))

    def forward(self, window):
        return 1e7 * (window.mean(1) @ self.weight)


FAINT = {"outputs": ["logits"], "heads": [ClassifyHead(output="logits", labels=("a", "b", "c"))]}


def test_a_precision_beyond_its_limits_is_refused_unless_it_is_accepted(tmp_path):
    given = arguments(module=Faint(), **FAINT)
    out = tmp_path / "faint"
    with pytest.raises(GoldenError, match=r"fp16 drifts from fp32 by more than its limits: logits: off by"):
        export_bundle(**given, out=out, precisions=["fp32", "fp16"])
    assert list(tmp_path.iterdir()) == [], "a refused precision must leave nothing of the others"
    report = export_bundle(**given, out=out, precisions=["fp32", "fp16"], accept_drift=True)
    assert any("off by" in words for words in variant(report, "fp16").beyond_limits)
    assert (tmp_path / "faint.fp16").is_dir()


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"precisions": ["int8"], "real": False}, ConfigError, "int8 takes its scales from real windows"),
        ({"precisions": ["fp32", "fp8"]}, ConfigError, "precisions are fp32, fp8; expected some of fp32, fp16"),
        ({"precisions": ["fp16", "fp16"]}, ConfigError, "each once"),
        ({"precisions": []}, ConfigError, "precisions are none"),
        ({"labels": {"logits": np.zeros(3, np.int64)}}, BundleError, r"labels of 'logits' are int64 of shape \(3,\)"),
        ({"labels": {"logits": np.zeros(40)}}, BundleError, "float64 of shape"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, error, says):
    with pytest.raises(error, match=says):
        export_bundle(**(arguments(module=Faint(), **FAINT) | change), out=tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_taken_is_found_before_the_work(tmp_path):
    (tmp_path / "bundle.int8.zip").write_bytes(b"mine")

    def never(*_):
        raise AssertionError("the network was run")

    module = Faint()
    module.register_forward_pre_hook(never)
    given = arguments(module=module, **FAINT)
    with pytest.raises(BundleError, match=r"bundle\.int8\.zip is there already"):
        export_bundle(**given, out=tmp_path / "bundle.zip", precisions=["fp32", "int8"])


def test_further_precisions_lie_beside_the_first():
    assert beside(Path("a/mine.v2.zip"), "fp16") == Path("a/mine.v2.fp16.zip")
    assert beside(Path("a/mine.v2"), "int8") == Path("a/mine.v2.int8")


# --- drift, by hand ---------------------------------------------------------------------------------------------------


def test_drift_by_hand():
    exact = np.array([[4, 0, 0, 0, 0, 0], [0, 3, 2, 1, 0.5, 0.2], [0, 0, 5, 0, 0, 0]], np.float32)
    given = exact.copy()
    given[1] = [2, 1, 2.1, 2.2, 2.3, 2.4]  # the first choice of window 1 falls to the last place
    heads = [ClassifyHead(output="y", labels=tuple("abcdef"))]
    found = measure(
        {"y": exact}, {"y": given[1:]}, np.array([1, 2]), "by hand", heads, {}, {"y": np.array([0, 1, -1])}
    )[0]
    assert (found.windows, found.worst_window) == (2, 1)
    assert found.max_abs == pytest.approx(2.2)
    assert found.share == pytest.approx(2.2 / 5)
    cosine = float(exact[1] @ given[1] / np.linalg.norm(exact[1]) / np.linalg.norm(given[1]))
    assert found.cosine_min == pytest.approx(cosine)
    assert found.cosine_mean == pytest.approx((cosine + 1) / 2)
    assert (found.top1, found.top5) == (0.5, 0.5)
    assert (found.accuracy, found.accuracy_fp32) == (0.0, 1.0), "the label of window 2 is not known"


def test_retrieval_chooses_by_the_gallerys_metric():
    gallery = np.array([[1, 0], [0.1, 0.1]], np.float32)
    exact, given = np.array([[1, 0.9]], np.float32), np.array([[1, 0.2]], np.float32)
    heads = (
        (RetrieveHead(output="y", items="items.json", embeddings="e.npy", metric="cosine"), 0.0),
        (RetrieveHead(output="y", items="items.json", embeddings="e.npy", metric="dot"), 1.0),
    )
    for head, same in heads:
        found = measure({"y": exact}, {"y": given}, np.array([0]), "", [head], {"e.npy": gallery}, {})[0]
        assert found.top1 == same
        assert found.top5 is None


def _drift(**changes):
    base: dict[str, Any] = {"output": "y", "how": "", "windows": 10, "max_abs": 0.0, "share": 0.0, "worst_window": 0}
    base |= {"cosine_min": 1.0, "cosine_mean": 1.0, "top1": 1.0}
    return Drift(**(base | changes))


def test_limits_are_crossed_one_by_one_and_a_single_tie_is_none():
    limits = LIMITS["fp16"]
    assert crossed(_drift(), limits) == []
    assert crossed(_drift(top1=0.9), limits) == [], "one window of ten"
    assert len(crossed(_drift(top1=0.8), limits)) == 1
    assert len(crossed(_drift(share=0.02, cosine_min=0.5, top1=0.5), limits)) == 3
    assert len(crossed(_drift(share=float("nan"), cosine_min=float("nan")), limits)) == 2


def test_golden_tolerance_has_a_margin_a_floor_and_a_cap():
    assert golden_tolerance("fp32", [_drift(share=0.5)], 1e-4) == 1e-4
    assert golden_tolerance("fp16", [_drift(share=1e-6)], 1e-4) == FLOORS["fp16"]
    assert golden_tolerance("fp16", [_drift(share=0.003), _drift(share=0.001)], 1e-4) == 0.006
    assert golden_tolerance("fp16", [_drift(share=0.009)], 1e-4) == LIMITS["fp16"].share
    assert golden_tolerance("fp16", [_drift(share=0.1)], 1e-4) == 0.2, "accepted beyond the limits"
    assert golden_tolerance("fp16", [_drift(share=0.4)], 1e-4) == MAX_TOLERANCE
