"""Modules of one's own: layouts, weights, contracts declared or taken over, and what a deployed graph may not hold."""

import dataclasses
import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="exporting needs torch: pip install rtdecode[train]")
pytest.importorskip("onnxscript", reason="exporting needs onnxscript: pip install rtdecode[train]")
pytest.importorskip("onnxruntime", reason="exporting needs an inference runtime: pip install rtdecode[cpu]")

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from rtdecode.encode.bundle import Bundle, items_json
from rtdecode.encode.manifest import ContractChannel, EmbeddingHead, GalleryItem, RetrieveHead
from rtdecode.encode.variant import check_variant
from rtdecode.errors import BundleError, ConfigError, EngineError
from rtdecode.stream.steps import Filter, Matrix
from rtdecode.stream.window import Sliding
from rtdecode_export.bundle import export_bundle
from rtdecode_export.declared import NOISE_WINDOWS
from rtdecode_export.fold import check_deployable, computing, fold
from rtdecode_export.module import load_weights, with_layout
from rtdecode_export.onnx import largest_errors, run_onnx, run_torch, to_onnx
from rtdecode_export.sources import Given, arguments_of
from rtdecode_models.systems.encoder import Encoder

TOML = """
outputs = ["embedding"]
[contract]
sfreq = 100.0
channels = ["Cz", "Pz", {name = "Oz", type = "seeg", unit = "V"}]
[[conditioning.stream]]
step = "filter"
low = 4.0
high = 30.0
[[windows]]
window = "sliding"
length = 0.2
hop = 0.1
[[heads]]
kind = "embedding"
output = "embedding"
"""

MINE = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.out = torch.nn.Linear(3, 2)
    def forward(self, window):
        return self.out(window.mean(1))
class Sized(Net):
    def __init__(self, width):
        super().__init__()
instance = Net()
def made():
    return Net()
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with a package of the user's own and a declared contract, in which the user is."""
    (tmp_path / "mine_of_the_test.py").write_text(MINE)
    (tmp_path / "contract.toml").write_text(TOML)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("mine_of_the_test", None)


# --- sources ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Net", "instance", "made"])
def test_a_class_an_instance_and_a_function_are_modules(mine, name):
    given = arguments_of(f"mine_of_the_test:{name}", Given(contract=mine / "contract.toml"))
    assert type(given["module"]).__name__ == "Net"
    assert given["name"] == name
    assert [channel.type for channel in given["contract"].channels] == ["eeg", "eeg", "seeg"]
    assert given["contract"].channels[0] == ContractChannel(name="Cz", type="eeg", unit="V")
    assert given["conditioning"].stream == (Filter(low=4.0, high=30.0),)
    assert given["windows"] == (Sliding(length=0.2, hop=0.1),)
    assert given["heads"] == (EmbeddingHead(output="embedding"),)


def test_without_real_windows_the_report_says_so_and_what_is_like_another_can_stand_in_for_it(mine):
    given = arguments_of("mine_of_the_test:Net", Given(contract=mine / "contract.toml", name="first"))
    assert given["real_windows"].shape == (NOISE_WINDOWS, 20, 3)
    report = export_bundle(**given, out=mine / "first.zip")
    assert not report.real_windows
    assert "real windows: none were given" in report.not_run
    bundle = Bundle.open(mine / "first.zip")
    assert "**no real windows were given**" in bundle.read("export.md").decode()

    second = arguments_of("mine_of_the_test:instance", Given(like=mine / "first.zip", name="second"))
    np.testing.assert_array_equal(second["real_windows"], bundle.array("golden_windows.npy"))
    assert second["heads"] == bundle.manifest.heads
    report = export_bundle(**second, out=mine / "second.zip")
    assert report.real_windows
    check_variant(bundle, Bundle.open(mine / "second.zip"))


def test_files_beside_a_contract_are_read(mine):
    embeddings = np.eye(2, dtype=np.float32)
    np.save(mine / "mix.npy", np.eye(3))
    np.save(mine / "words.npy", embeddings)
    (mine / "words.json").write_bytes(items_json([GalleryItem(name="a", picture="a.png"), GalleryItem(name="b")]))
    (mine / "a.png").write_bytes(b"picture")
    text = TOML.replace(
        'kind = "embedding"', 'kind = "retrieve"\nitems = "words.json"\nembeddings = "words.npy"\nk = 1'
    )
    text = text.replace(
        "[[windows]]", '[[conditioning.stream]]\nstep = "matrix"\narray = "mix.npy"\nkind = "spatial"\n[[windows]]'
    )
    (mine / "contract.toml").write_text('name = "words"\n' + text)
    given = arguments_of("mine_of_the_test:Net", Given(contract=mine / "contract.toml"))
    assert given["name"] == "words"
    assert given["conditioning"].stream[1] == Matrix(array="mix.npy", kind="spatial")
    np.testing.assert_array_equal(given["arrays"]["mix.npy"], np.eye(3))
    assert given["heads"] == (RetrieveHead(output="embedding", items="words.json", embeddings="words.npy", k=1),)
    assert given["files"]["a.png"] == b"picture"
    np.testing.assert_array_equal(given["files"]["words.npy"], embeddings)


def test_real_windows_and_their_labels_come_from_files(mine):
    np.save(mine / "windows.npy", np.ones((4, 20, 3)))
    np.save(mine / "labels.npy", np.array([0, 1, -1, 0], np.int16))
    text = TOML.replace('kind = "embedding"', 'kind = "classify"\nlabels = ["a", "b"]')
    (mine / "classes.toml").write_text(text)
    files = Given(contract=mine / "classes.toml", windows=mine / "windows.npy", labels=mine / "labels.npy")
    given = arguments_of("mine_of_the_test:Net", files)
    assert given["real_windows"].dtype == np.float32
    assert given["real_windows"].shape == (4, 20, 3)
    assert {name: values.tolist() for name, values in given["labels"].items()} == {"embedding": [0, 1, -1, 0]}
    assert given.get("real", True)
    with pytest.raises(ConfigError, match="--labels are for a head that chooses"):
        arguments_of("mine_of_the_test:Net", dataclasses.replace(files, contract=mine / "contract.toml"))


@pytest.mark.parametrize(
    ("source", "given", "says"),
    [
        ("Net", {}, "expected one of --like BUNDLE and --contract FILE.toml"),
        ("Net", {"contract": "contract.toml", "like": "b.zip"}, "expected one of --like"),
        ("Sized", {"contract": "contract.toml"}, "cannot be called without arguments: missing a required .*'width'"),
        ("Net", {"contract": "none.toml"}, "none.toml cannot be read: No such file"),
        ("Net", {"contract": "contract.toml", "hop": 0.1}, "--hop is for checkpoints"),
        ("Net", {"contract": "contract.toml", "subject": "0"}, "--subject is for encoders of rtdecode_models"),
        ("Net", {"contract": "contract.toml", "layout": "tbc"}, "layout is 'tbc'; expected one of btc, bct, b1ct"),
        ("Net", {"contract": "contract.toml", "labels": "labels.npy"}, "--labels names the right choices of --windows"),
        ("Net", {"contract": "contract.toml", "weights": "none.safetensors"}, "none.safetensors cannot be read"),
        ("Net", {"contract": "contract.toml", "windows": "none.npy"}, "none.npy cannot be read"),
    ],
)
def test_what_a_module_lacks_or_cannot_use_is_named(mine, source, given, says):
    paths = {name: mine / value if name not in ("hop", "subject", "layout") else value for name, value in given.items()}
    with pytest.raises(ConfigError, match=says):
        arguments_of(f"mine_of_the_test:{source}", Given(**paths))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("sfreq = 100.0", "sfreqs = 100.0"), r"contract.toml: .*\$.contract"),
        (('kind = "embedding"', 'kind = "regress"'), r"\$.heads\[0\]"),
        (("[[windows]]", '[[conditioning.stream]]\nstep = "matrix"\nkind = "spatial"\narray = "none.npy"\n[[windows]]'),
         "names 'none.npy', which cannot be read beside it"),
        (("high = 30.0", "high = 60.0"), "conditioning cannot be built"),
        (("[contract]", "[contract"), "contract.toml: "),
    ],
)  # fmt: skip
def test_a_contract_that_is_wrong_names_the_place(mine, change, says):
    (mine / "contract.toml").write_text(TOML.replace(*change))
    with pytest.raises(ConfigError, match=says):
        arguments_of("mine_of_the_test:Net", Given(contract=mine / "contract.toml"))


def test_what_is_like_no_bundle_is_refused(mine):
    with pytest.raises(BundleError):
        arguments_of("mine_of_the_test:Net", Given(like=mine / "contract.toml"))


# --- layout and weights -----------------------------------------------------------------------------------------------


class Ordered(torch.nn.Module):
    """Tells its axes apart: a running sum over time, weighted by channel."""

    weights: torch.Tensor

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout = layout
        self.register_buffer("weights", torch.arange(1.0, 4.0))

    def forward(self, window):
        shapes = {"btc": (1, 7, 3), "bct": (1, 3, 7), "b1ct": (1, 1, 3, 7)}
        assert tuple(window.shape) == shapes[self.layout]
        rows = window if self.layout == "btc" else window.reshape(1, 3, 7).transpose(1, 2)
        return (torch.cumsum(rows, 1) * self.weights)[:, -2:].flatten(1)


def test_another_layout_is_transposed_inside_the_graph():
    windows = np.random.default_rng(0).standard_normal((3, 7, 3)).astype(np.float32)
    expected = (np.cumsum(windows, 1) * np.arange(1, 4))[:, -2:].reshape(3, -1)
    for layout in ("btc", "bct", "b1ct"):
        given = run_torch(with_layout(Ordered(layout), layout), windows, ["out"])["out"]
        np.testing.assert_allclose(given, expected, rtol=1e-5)
    graph = to_onnx(with_layout(Ordered("b1ct"), "b1ct"), (7, 3), ["out"])
    np.testing.assert_allclose(run_onnx(graph, windows, ["out"])["out"], expected, rtol=1e-5)


def test_weights_must_fit_to_the_last_name(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    wanted = {name: torch.full_like(value, 0.5) for name, value in module.state_dict().items()}
    save_file(wanted, tmp_path / "good.safetensors")
    load_weights(module, tmp_path / "good.safetensors")
    assert all((value == 0.5).all() for value in module.state_dict().values())
    bad = {name: value for name, value in wanted.items() if name != "1.bias"}
    bad |= {"head.bias": torch.zeros(1), "0.weight": torch.zeros(2, 4)}
    save_file(bad, tmp_path / "bad.safetensors")
    with pytest.raises(ConfigError) as error:
        load_weights(module, tmp_path / "bad.safetensors")
    for part in (
        "it lacks 1.bias",
        "the module has no head.bias",
        r"0.weight has shape (2, 4) and the module's (2, 3)",
    ):
        assert part in str(error.value)
    (tmp_path / "no.safetensors").write_bytes(b"pickle")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_weights(module, tmp_path / "no.safetensors")


# --- folding ----------------------------------------------------------------------------------------------------------


class Merger(torch.nn.Module):
    """Weights over channels that depend on no window, batch normalisation, dropout."""

    positions: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.scores = torch.nn.Parameter(torch.randn(16, 2048))
        self.register_buffer("positions", torch.randn(5, 2048))
        self.conv = torch.nn.Conv1d(16, 4, 3)
        self.norm = torch.nn.BatchNorm1d(4)
        self.drop = torch.nn.Dropout()

    def forward(self, window):
        merged = torch.softmax(self.scores @ self.positions.T, dim=-1) @ window.transpose(1, 2)
        return self.drop(self.norm(self.conv(merged))).mean(2)


def test_what_depends_on_no_window_is_computed_at_export():
    torch.manual_seed(0)
    module = Merger()
    module.train()(torch.randn(32, 20, 5) * 2 + 1)
    windows = np.random.default_rng(1).standard_normal((3, 20, 5)).astype(np.float32)
    graph = to_onnx(module, (20, 5), ["out"])
    errors = largest_errors(run_torch(module, windows, ["out"]), run_onnx(graph, windows, ["out"]))
    assert errors["out"] < 1e-5
    assert not {"Softmax", "BatchNormalization", "Dropout"} & graph.operators.keys()
    assert graph.folded.operators["Softmax"] == graph.folded.operators["BatchNormalization"] == 1
    assert graph.folded.after == sum(graph.operators.values()) < graph.folded.before
    assert len(graph.data) < 10_000, "the scores are still in the file"


def _graph(nodes, constants=(), elem=TensorProto.FLOAT, shape=(1, 4)):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", elem, shape)], [value("y", elem, shape)], list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_constants_that_would_only_grow_are_left_and_unused_ones_go():
    constants = [
        numpy_helper.from_array(np.ones((1, 1), np.float32), "one"),
        numpy_helper.from_array(np.array([1, 4]), "shape"),
        numpy_helper.from_array(np.ones(9, np.float32), "unused"),
    ]
    nodes = [
        helper.make_node("Neg", ["one"], ["minus"]),
        helper.make_node("Expand", ["minus", "shape"], ["wide"]),
        helper.make_node("Neg", ["x"], ["nobody"]),
        helper.make_node("Add", ["x", "wide"], ["y"]),
    ]
    model = _graph(nodes, constants)
    model.graph.node[3].metadata_props.add(key="stack_trace", value="/home/somebody/secret.py")
    fold(model)
    assert computing(model) == {"Expand": 1, "Add": 1}
    assert sorted(tensor.name for tensor in model.graph.initializer) == ["minus", "shape"]
    assert b"somebody" not in model.SerializeToString()
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (_graph([helper.make_node("RandomNormalLike", ["x"], ["y"])]), r"draws random numbers \(RandomNormalLike\)"),
        (_graph([helper.make_node("Dropout", ["x"], ["y"])]), "Dropout is in training mode"),
        (_graph([helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")]), "of the domain 'com.microsoft'"),
        (_graph([helper.make_node("Neg", ["x"], ["y"])], elem=TensorProto.DOUBLE), r"'x' is computed in float64"),
        (_graph([helper.make_node("Neg", ["x"], ["y"])], shape=(1, None)), "axis without fixed length"),
        (_graph([helper.make_node("Loop", ["x"], ["y"])]), r"decides while it runs \(Loop\)"),
        (_graph([helper.make_node("Neg", ["x"], ["y"])], [numpy_helper.from_array(np.zeros(2), "c")]),
         "constant 'c' is float64"),
    ],
)  # fmt: skip
def test_what_a_deployed_graph_may_not_hold(model, says):
    with pytest.raises(EngineError, match=f"Mine cannot be deployed: .*{says}"):
        check_deployable(model, "Mine")


def test_a_network_that_drops_out_in_evaluation_mode_is_refused():
    class Stubborn(torch.nn.Module):
        def forward(self, window):
            return torch.nn.functional.dropout(window.mean(1), training=True)

    with pytest.raises(EngineError, match="Stubborn cannot be deployed"):
        to_onnx(Stubborn(), (7, 3), ["out"])


def test_outputs_are_picked_by_name_and_parts_keep_their_mode():
    class Several(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = torch.nn.BatchNorm1d(3)

        def forward(self, window):
            return {"loss_own": window.sum(), "last": window[:, -1], "mean": window.mean(1)}

    module = Several().train()
    module.frozen.eval()
    windows = np.random.default_rng(2).standard_normal((2, 7, 3)).astype(np.float32)
    graph = to_onnx(module, (7, 3), ["mean", "last"])
    given = run_onnx(graph, windows, ["mean", "last"])
    np.testing.assert_allclose(given["mean"], windows.mean(1), atol=1e-6)
    np.testing.assert_allclose(given["last"], windows[:, -1])
    assert module.training
    assert not module.frozen.training
    with pytest.raises(EngineError, match="gives the outputs loss_own, last, mean; expected logits too"):
        run_torch(module, windows, ["logits"])


def test_one_subject_of_an_encoder_is_deployed():
    class PerSubject(Encoder):
        outputs = ("logits",)

        def __init__(self) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(torch.tensor([[0.0, 1.0], [5.0, 7.0]]))

        def forward(self, window, subject=None):
            assert subject is not None
            return {"logits": window.mean(1)[:, :2] + self.bias[subject], "extra": window}

    windows = np.random.default_rng(3).standard_normal((2, 7, 3)).astype(np.float32)
    deployed = PerSubject().deploy(1)
    graph = to_onnx(deployed, (7, 3), ["logits"])
    expected = windows.mean(1)[:, :2] + np.array([5.0, 7.0])
    np.testing.assert_allclose(run_onnx(graph, windows, ["logits"])["logits"], expected, atol=1e-5)
