"""Model repositories for a Triton server, and encoders that take batches."""

from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest
from onnx import helper
from typer.testing import CliRunner

from rtdecode.cli.main import build_app
from rtdecode.encode.bundle import Bundle, write_bundle
from rtdecode.encode.onnx import import_onnxruntime
from rtdecode.encode.triton_repository import ModelSettings, model_config, write_model
from rtdecode.errors import BundleError, ConfigError
from rtdecode_export.batched import with_batch_axis

PYTHON = ModelSettings("python")
SHAPE = (bundles.TIME, bundles.CHANNELS)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "b", *bundles.parts())


def test_a_repository_says_what_the_bundle_says(bundle: Bundle, tmp_path: Path) -> None:
    settings = ModelSettings("onnxruntime", max_batch=0, threads=2)
    folder = write_model(bundle.onnx_bytes(), tmp_path, "gaze", settings, note="a\nbundle")
    assert (folder / "1" / "model.onnx").read_bytes() == bundle.onnx_bytes()
    assert (folder / "config.pbtxt").read_text().splitlines() == [
        "# a bundle",
        'name: "gaze"',
        'backend: "onnxruntime"',
        "max_batch_size: 0",
        'input [ { name: "x" data_type: TYPE_FP32 dims: [ 1, 20, 3 ] } ]',
        'output [ { name: "embedding" data_type: TYPE_FP32 dims: [ 1, 8 ] } ]',
        'output [ { name: "logits" data_type: TYPE_FP32 dims: [ 1, 2 ] } ]',
        "instance_group [ { count: 1 kind: KIND_CPU } ]",
        'parameters { key: "intra_op_thread_count" value: { string_value: "2" } }',
    ]
    with pytest.raises(ConfigError, match="is there already"):
        write_model(bundle.onnx_bytes(), tmp_path, "gaze", settings)
    for name in ("", "../gaze", ".gaze", "a b"):
        with pytest.raises(ConfigError, match="expected letters"):
            write_model(bundle.onnx_bytes(), tmp_path, name, settings)
    with pytest.raises(ConfigError, match="instances is 0"):
        ModelSettings(instances=0)


@pytest.mark.parametrize("settings", [PYTHON, ModelSettings(delay_us=500, gpu=True, instances=2)])
def test_a_models_configuration_is_tritons_own_message(bundle: Bundle, tmp_path: Path, settings: ModelSettings) -> None:
    """Read by the class that Triton's client has of it."""
    model_config_pb2: Any = pytest.importorskip(
        "tritonclient.grpc.model_config_pb2", reason="not run: needs tritonclient[grpc]"
    )
    from google.protobuf import text_format

    folder = write_model(bundle.onnx_bytes(), tmp_path, "m", settings, batched=bytes)
    config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert [(one.name, list(one.dims)) for one in config.input] == [("x", [20, 3])]
    assert [(one.name, list(one.dims)) for one in config.output] == [("embedding", [8]), ("logits", [2])]
    assert config.max_batch_size == 8
    assert config.dynamic_batching.default_queue_policy.allow_timeout_override
    assert config.dynamic_batching.max_queue_delay_microseconds == settings.delay_us
    assert config.instance_group[0].count == settings.instances


def test_names_are_quoted() -> None:
    assert r'name: "a\"b\\"' in model_config('a"b\\', (), (), PYTHON)


# --- batches ----------------------------------------------------------------------------------------------------------


def test_a_batch_gives_what_its_windows_give() -> None:
    """Also where a shape is written down for one window."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["image"]),
        helper.make_node("Reshape", ["image", "flat"], ["rows"]),
        helper.make_node("MatMul", ["rows", "weights"], ["y"]),
    ]
    weights: dict[str, Any] = {
        "shape": np.array([1, 1, *SHAPE]),
        "flat": np.array([1, -1]),
        "weights": np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32),
    }
    alone = bytes(bundles.model(nodes, {"y": (1, 4)}, weights).SerializeToString())
    session = import_onnxruntime().InferenceSession(with_batch_axis(alone), providers=["CPUExecutionProvider"])
    windows = np.random.default_rng(1).standard_normal((5, *SHAPE)).astype(np.float32)
    (found,) = session.run(None, {"x": windows})
    np.testing.assert_allclose(found, windows.reshape(5, -1) @ weights["weights"], rtol=1e-3, atol=1e-4)
    assert session.get_inputs()[0].shape == ["batch", *SHAPE]


def test_an_encoder_that_mixes_windows_is_refused() -> None:
    softmax = bundles.model([helper.make_node("Softmax", ["x"], ["y"], axis=0)], {"y": (1, *SHAPE)})
    with pytest.raises(BundleError, match="'y' is another where several windows are encoded at once; expected --max-b"):
        with_batch_axis(bytes(softmax.SerializeToString()))


def test_an_encoder_that_takes_one_window_only_is_refused() -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["values"]),
        helper.make_node("MatMul", ["values", "weights"], ["sum"]),
        helper.make_node("Reshape", ["sum", "one"], ["y"]),
    ]
    weights: dict[str, Any] = {
        "flat": np.array([60]),
        "weights": np.ones((60, 1), np.float32),
        "one": np.array([1, 1]),
    }
    data = bytes(bundles.model(nodes, {"y": (1, 1)}, weights).SerializeToString())
    with pytest.raises(BundleError, match="does not take several windows at once"):
        with_batch_axis(data)


def test_the_verb_writes_a_repository(bundle: Bundle, tmp_path: Path) -> None:
    """Of the bundle's own name, with batches; and says what is in the way."""
    app, run = build_app("bundle"), CliRunner().invoke
    done = run(app, ["bundle", "triton", bundle.source, "--out", str(tmp_path), "--max-batch", "4"])
    assert done.exit_code == 0, done.output
    config = (tmp_path / "test" / "config.pbtxt").read_text()
    assert "max_batch_size: 4\n" in config
    assert f"# test, bundle {bundle.id[:12]}; written by" in config
    assert (tmp_path / "test" / "1" / "model.onnx").read_bytes() == with_batch_axis(bundle.onnx_bytes())
    again = run(app, ["bundle", "triton", bundle.source, "--out", str(tmp_path)])
    assert isinstance(again.exception, ConfigError)
    python = ["--model", "slow", "--backend", "python"]
    assert run(app, ["bundle", "triton", bundle.source, "--out", str(tmp_path), *python]).exit_code == 0
    assert {one.name for one in (tmp_path / "slow" / "1").iterdir()} == {"encoder.onnx", "model.py"}
