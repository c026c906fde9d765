"""Engines: one set of laws over all of them, what they refuse, and which provider really runs."""

import contextlib
import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import bundles
import msgspec
import numpy as np
import onnx
import pytest
from bundles import CHANNELS, TIME
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from rtdecode.encode.bundle import Bundle, write_bundle
from rtdecode.encode.engine import Engine
from rtdecode.encode.engines import make_engine
from rtdecode.encode.golden import check_conditioning, check_golden, compare
from rtdecode.encode.onnx import OnnxEngine
from rtdecode.encode.onnxfile import check_self_contained
from rtdecode.encode.openvino import OpenVinoEngine
from rtdecode.encode.providers import PROVIDERS, check_options, engine_cache_key
from rtdecode.encode.tensorrt_native import TensorRtEngine
from rtdecode.errors import BundleError, EncodeError, EngineError, GoldenError, ProviderError

triton_kit: Any = None
if importlib.util.find_spec("grpc") is not None:
    triton_kit = importlib.import_module("triton_kit")

RNG = np.random.default_rng(1)
WEIGHTS = {
    "embedding": RNG.standard_normal((TIME * CHANNELS, 8)).astype(np.float32),
    "logits": RNG.standard_normal((TIME * CHANNELS, 2)).astype(np.float32),
}
WINDOWS = RNG.standard_normal((4, TIME, CHANNELS)).astype(np.float32)


def served(data: bytes) -> Engine:
    """A model that a Triton server has loaded, in its Python backend."""
    assert SERVING
    engine: Engine = SERVING[0].load(data)
    return engine


ENGINES: dict[str, Callable[[bytes], Engine]] = {
    "onnxruntime": OnnxEngine,
    "onnxruntime, fallen back": lambda data: OnnxEngine(data, provider="openvino", fallback="allow"),
    "onnxruntime, two spinning threads": lambda data: OnnxEngine(data, threads=2, spinning=True),
    "onnxruntime, bound": lambda data: OnnxEngine(data, bind=True),
    "openvino": OpenVinoEngine,
    "triton": served,
    "cuda": lambda data: OnnxEngine(data, provider="cuda"),
    "cuda, captured": lambda data: OnnxEngine(data, provider="cuda", options={"enable_cuda_graph": True}),
    "tensorrt": lambda data: OnnxEngine(data, provider="tensorrt"),
    "tensorrt, captured": lambda data: OnnxEngine(data, provider="tensorrt", options={"trt_cuda_graph_enable": True}),
    "tensorrt-native": TensorRtEngine,
    "tensorrt-native, not captured": lambda data: TensorRtEngine(data, options={"cuda_graph": False}),
}
#: What an engine needs that is not everywhere.
GPU = frozenset(name for name in ENGINES if name.startswith(("cuda", "tensorrt")))
MARKS = dict.fromkeys(GPU, pytest.mark.gpu) | {"triton": pytest.mark.triton}


def has_gpu() -> bool:
    """Whether the driver's own tool lists a GPU."""
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


SERVING: "list[triton_kit.Server]" = []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The server that `served` speaks to."""
    folder = tmp_path_factory.mktemp("triton")
    (folder / "models").mkdir()
    one = triton_kit.Server(folder, folder / "models", "--model-control-mode=explicit")
    try:
        one.start()
        SERVING.append(one)
        yield
    finally:
        SERVING.clear()
        one.close()


@pytest.fixture(params=[pytest.param(name, marks=MARKS.get(name, ())) for name in ENGINES])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[[bytes], Engine]]:
    if request.param == "openvino" and importlib.util.find_spec("openvino") is None:
        pytest.skip('not run: openvino is not installed (pip install "rtdecode[openvino]")')
    if request.param == "triton":
        if triton_kit is None or triton_kit.ROOT is None:
            pytest.skip("not run: needs a Triton server (make test-triton)")
        request.getfixturevalue("server")
    if request.param in GPU and not has_gpu():
        pytest.skip(f"not run: {request.param} needs an NVIDIA GPU")
    made: list[Engine] = []

    def make(data: bytes) -> Engine:
        made.append(ENGINES[request.param](data))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def identical(one: Mapping[str, NDArray[np.float32]], other: Mapping[str, NDArray[np.float32]]) -> bool:
    return list(one) == list(other) and all(one[name].tobytes() == other[name].tobytes() for name in one)


# --- laws of every engine ---------------------------------------------------------------------------------------------


def test_outputs_are_what_the_model_computes(make: Callable[[bytes], Engine]) -> None:
    engine = make(bundles.linear(WEIGHTS))
    for window in WINDOWS:
        outputs = engine.finish(window, 0)
        assert set(outputs) == set(WEIGHTS)
        for name, weight in WEIGHTS.items():
            exact = window.ravel().astype(np.float64) @ weight
            assert outputs[name].shape == exact.shape
            assert outputs[name].dtype == np.float32
            np.testing.assert_allclose(outputs[name], exact, rtol=0, atol=1e-5 * np.abs(exact).max())


def test_info_says_what_runs(make: Callable[[bytes], Engine]) -> None:
    info = make(bundles.linear(WEIGHTS)).info
    assert info.input_shape == (TIME, CHANNELS)
    assert dict(info.output_shapes) == {"embedding": (8,), "logits": (2,)}
    assert info.input_name == "x"
    assert info.runtime.split()[0] in {"onnxruntime", "openvino", "triton", "tensorrt"}
    assert info.fell_back == (info.provider != info.asked)
    assert msgspec.json.decode(msgspec.json.encode(info.describe()), type=dict[str, str | int | tuple[int, ...]])


def test_the_same_window_gives_the_same_bytes(make: Callable[[bytes], Engine]) -> None:
    """Whatever came before, however the memory lies, and whether or not it may be written."""
    engine = make(bundles.linear(WEIGHTS))
    first = [engine.finish(window, 0) for window in WINDOWS]
    ring = np.zeros((TIME + 7, CHANNELS + 2), np.float32)
    for index in (3, 1, 0, 2):
        view = ring[5 : 5 + TIME, 1 : 1 + CHANNELS]
        view[:] = WINDOWS[index]
        view.flags.writeable = False
        assert identical(engine.finish(view, 5), first[index])
        engine.restart(100)
        engine.advance(WINDOWS[0], 100)
        assert identical(engine.finish(np.asfortranarray(WINDOWS[index]), 100), first[index])
    assert identical(make(bundles.linear(WEIGHTS)).finish(WINDOWS[0], 0), first[0])


def test_outputs_belong_to_the_caller(make: Callable[[bytes], Engine]) -> None:
    """Also where an output is the input itself, or a constant of the model."""
    constant = np.arange(3, dtype=np.float32).reshape(1, 3)
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Identity", ["c"], ["constant"]),
        helper.make_node("Flatten", ["x"], ["flat"]),
    ]
    shapes = {"same": (1, TIME, CHANNELS), "constant": (1, 3), "flat": (1, TIME * CHANNELS)}
    engine = make(bundles.model(nodes, shapes, {"c": constant}).SerializeToString())
    window = WINDOWS[0].copy()
    outputs = engine.finish(window, 0)
    kept = {name: output.copy() for name, output in outputs.items()}
    for output in engine.finish(WINDOWS[1], 0).values():
        output[:] = -1
    window[:] = 7
    assert identical(outputs, kept)
    np.testing.assert_array_equal(outputs["same"], WINDOWS[0])
    np.testing.assert_array_equal(engine.finish(WINDOWS[0], 0)["constant"], constant[0])


def test_a_window_that_does_not_fit_is_that_windows_failure(make: Callable[[bytes], Engine]) -> None:
    engine = make(bundles.linear(WEIGHTS))
    before = engine.finish(WINDOWS[0], 0)
    for window in (WINDOWS[0][:-1], WINDOWS[0].T, WINDOWS[0].astype(np.float64), WINDOWS):
        with pytest.raises(EncodeError, match=r"window at sample 42 .*takes float32 of shape \(20, 3\)"):
            engine.finish(window, 42)
    assert identical(engine.finish(WINDOWS[0], 0), before)


def test_an_output_that_is_not_finite_is_that_windows_failure(make: Callable[[bytes], Engine]) -> None:
    engine = make(
        bundles.model([helper.make_node("Sqrt", ["x"], ["root"])], {"root": (1, TIME, CHANNELS)}).SerializeToString()
    )
    with pytest.raises(EncodeError, match=r"window at sample 7: the encoder's output 'root' has NaN or Inf"):
        engine.finish(-np.abs(WINDOWS[0]), 7)
    np.testing.assert_allclose(engine.finish(np.full_like(WINDOWS[0], 4), 8)["root"], 2)


def test_half_and_double_precision_outputs_become_float32(make: Callable[[bytes], Engine]) -> None:
    for kind in (TensorProto.FLOAT16, TensorProto.DOUBLE):
        nodes = [helper.make_node("Cast", ["x"], ["y"], to=kind)]
        engine = make(bundles.model(nodes, {"y": (1, TIME, CHANNELS)}, output_type=kind).SerializeToString())
        output = engine.finish(WINDOWS[0], 0)["y"]
        assert output.dtype == np.float32
        np.testing.assert_allclose(output, WINDOWS[0], rtol=1e-3)


def test_a_closed_engine_says_so(make: Callable[[bytes], Engine]) -> None:
    engine = make(bundles.linear(WEIGHTS))
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.finish(WINDOWS[0], 0)


def test_a_failure_at_run_time_is_that_windows_failure() -> None:
    """onnxruntime looks up a row that is not there, for one window; the next one is fine."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Cast", ["top"], ["index"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["index", "one"], ["indices"]),
        helper.make_node("Gather", ["table", "indices"], ["row"]),
    ]
    weights = {"table": np.arange(8, dtype=np.float32).reshape(4, 2), "one": np.array([1])}
    engine = OnnxEngine(bundles.model(nodes, {"row": (1, 2)}, weights).SerializeToString())
    with pytest.raises(EncodeError, match=r"window at sample 99: onnxruntime .* failed"):
        engine.finish(np.full((TIME, CHANNELS), 50, np.float32), 99)
    np.testing.assert_array_equal(engine.finish(np.full((TIME, CHANNELS), 3, np.float32), 100)["row"], [6, 7])


# --- ONNX files that are refused --------------------------------------------------------------------------------------


def relu(**options: Any) -> bytes:
    shape = options.get("input_shape", (1, TIME, CHANNELS))
    return bytes(bundles.model([helper.make_node("Relu", ["x"], ["y"])], {"y": shape}, **options).SerializeToString())


def external() -> bytes:
    proto = onnx.load_from_string(bundles.linear(WEIGHTS))
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "../../etc/passwd"), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return bytes(proto.SerializeToString())


def hidden_external() -> bytes:
    """The same, in the constant of a branch."""
    tensor = onnx.load_from_string(external()).graph.initializer[0]
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["b"], value=tensor)], "branch", [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, (1, 8))],
    )  # fmt: skip
    nodes = [helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)]
    return bytes(bundles.model(nodes, {"y": (1, 8)}, {"yes": np.array(True)}).SerializeToString())


def compiled() -> bytes:
    node = helper.make_node(
        "EPContext", ["x"], ["y"], domain="com.microsoft", ep_cache_context="engine.bin", embed_mode=0
    )
    return bytes(bundles.model([node], {"y": (1, 8)}).SerializeToString())


def two_inputs() -> bytes:
    proto = onnx.load_from_string(relu())
    proto.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, (1,)))
    return bytes(proto.SerializeToString())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            relu(input_shape=(1, "time", CHANNELS)),
            r"input 'x' is float32 of shape \(1, time, 3\).*without dynamic axes",
        ),
        (relu(input_shape=("batch", TIME, CHANNELS)), r"\(batch, 20, 3\)"),
        (relu(input_shape=(2, TIME, CHANNELS)), r"\(2, 20, 3\)"),
        (relu(input_shape=(TIME, CHANNELS)), r"\(20, 3\); expected .*\(1, time, channels\)"),
        (relu(input_type=TensorProto.DOUBLE, output_type=TensorProto.DOUBLE), "input 'x' is float64"),
        (
            bundles.model(
                [helper.make_node("NonZero", ["x"], ["y"])], {"y": (3, "n")}, output_type=TensorProto.INT64
            ).SerializeToString(),
            "output 'y' is tensor.int64.",
        ),
        (two_inputs(), "inputs"),
        (external(), "'embedding.weight' lie in another file"),
        (hidden_external(), "'embedding.weight' lie in another file"),
        (compiled(), "EPContext"),
        (b"", "no ONNX file"),
        (b"hello world", "no ONNX file"),
        (relu()[:-5], "no ONNX file"),
        (relu().replace(b"Relu", b"Rule"), "does not load the ONNX file"),
    ],
)
def test_an_unfit_onnx_file_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        OnnxEngine(data)


@settings(max_examples=200)
@given(st.one_of(st.binary(max_size=60), st.tuples(st.integers(0, 400), st.integers(1, 255))))
def test_a_damaged_onnx_file_is_an_error_of_ours(damage: bytes | tuple[int, int]) -> None:
    """The protobuf reader reads anything: it accepts, or raises `BundleError`."""
    if isinstance(damage, tuple):
        data = bytearray(hidden_external())
        data[damage[0] % len(data)] ^= damage[1]
        damage = bytes(data)
    with contextlib.suppress(BundleError):
        check_self_contained(damage, "the file")


def test_an_honest_model_with_branches_is_accepted() -> None:
    proto = onnx.load_from_string(hidden_external())
    for attribute in proto.graph.node[0].attribute:
        tensor = attribute.g.node[0].attribute[0].t
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.ones((1, 8), np.float32), "b"))
    check_self_contained(proto.SerializeToString(), "the file")


# --- providers --------------------------------------------------------------------------------------------------------


@pytest.fixture
def available() -> list[str]:
    runtime = pytest.importorskip("onnxruntime")
    return list(runtime.get_available_providers())


@pytest.mark.parametrize("name", ["tensorrt", "cuda", "openvino"])
def test_a_provider_that_cannot_be_had_is_never_replaced_in_silence(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whether this onnxruntime lacks the provider, or has it and finds no GPU: it runs there, or it raises.

    Nothing goes to standard output, which may be a program's.
    """
    try:
        engine = OnnxEngine(bundles.linear(WEIGHTS), provider=name)
    except ProviderError as error:
        refused = str(error)
    else:
        assert engine.info.provider == name
        engine.close()
        return
    assert capfd.readouterr().out == ""
    assert f'"{name}" cannot be used' in refused
    assert f"rtdecode[{PROVIDERS[name].extra}]" in refused


@pytest.mark.parametrize("name", ["tensorrt", "cuda", "openvino"])
def test_a_fallback_that_was_allowed_is_declared(name: str, available: list[str]) -> None:
    engine = OnnxEngine(bundles.linear(WEIGHTS), provider=name, fallback="allow")
    assert engine.info.asked == name
    assert engine.info.fell_back == (engine.info.provider == "cpu")
    if PROVIDERS[name].runtime_name not in available:
        assert engine.info.fell_back
        assert engine.info.describe()["fell_back"] == 1
    assert engine.finish(WINDOWS[0], 0)["logits"].shape == (2,)


def test_the_cpu_is_the_cpu() -> None:
    info = OnnxEngine(bundles.linear(WEIGHTS)).info
    assert (info.provider, info.asked, info.fell_back) == ("cpu", "cpu", False)


def test_an_unknown_provider_lists_the_known() -> None:
    with pytest.raises(
        ProviderError,
        match=r"'tensort' is unknown; known are tensorrt, cuda, tensorrt-native, openvino, cpu \(did you mean",
    ):
        OnnxEngine(bundles.linear(WEIGHTS), provider="tensort")


@pytest.mark.parametrize(
    ("provider", "options", "message"),
    [
        ("cpu", {"device_id": 0}, "'cpu' has no option 'device_id'; it has none"),
        ("cuda", {"devise_id": 0}, r"no option 'devise_id'.*did you mean device_id"),
        ("cuda", {"device_id": "0"}, "'device_id' of provider 'cuda' is '0'; expected int"),
        ("cuda", {"device_id": True}, "expected int"),
        ("cuda", {"use_tf32": 1}, "expected bool"),
        ("cuda", {"cudnn_conv_algo_search": "BEST"}, "expected DEFAULT or HEURISTIC or EXHAUSTIVE"),
        ("tensorrt", {"trt_fp16_enable": True}, "no option 'trt_fp16_enable'"),
        ("openvino", {"hint": "FAST"}, "expected LATENCY or THROUGHPUT"),
    ],
)
def test_a_wrong_option_is_found_before_the_runtime_ignores_it(
    provider: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProviderError, match=message):
        OnnxEngine(bundles.linear(WEIGHTS), provider=provider, fallback="allow", options=options)


def test_options_reach_the_runtime_as_strings() -> None:
    options: dict[str, Any] = {"device_id": 1, "trt_engine_cache_enable": True, "trt_engine_cache_path": "engines"}
    assert check_options(PROVIDERS["tensorrt"], options) == {
        "device_id": "1", "trt_engine_cache_enable": "True", "trt_engine_cache_path": "engines",
    }  # fmt: skip


def test_no_runtime_says_which_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match=r'"rtdecode\[cpu\]".*"rtdecode\[gpu\]"') as error:
        OnnxEngine(bundles.linear(WEIGHTS))
    assert not isinstance(error.value, ProviderError)


def test_no_openvino_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ProviderError, match=r'"rtdecode\[openvino\]"'):
        OpenVinoEngine(bundles.linear(WEIGHTS))


def test_threads_must_be_some() -> None:
    with pytest.raises(EngineError, match="threads = 0"):
        OnnxEngine(bundles.linear(WEIGHTS), threads=0)


def test_a_compiled_engine_is_named_after_everything_it_depends_on() -> None:
    base: dict[str, Any] = {
        "onnx": b"model", "onnxruntime": "1.31.1", "tensorrt": "10.16", "gpu": "H200 (9.0)", "driver": "580.1",
        "precision": "fp16", "options": {"a": "1", "b": "2"},
    }  # fmt: skip
    keys = {engine_cache_key(**base)}
    for name, value in base.items():
        other = (
            value + b"!" if isinstance(value, bytes) else value | {"c": "3"} if isinstance(value, dict) else value + "!"
        )
        keys.add(engine_cache_key(**(base | {name: other})))
    assert len(keys) == len(base) + 1
    assert engine_cache_key(**(base | {"options": {"b": "2", "a": "1"}})) in keys


# --- an engine against its bundle -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "b", *bundles.parts())


def with_parts(tmp_path: Path, files: dict[str, Any], **changes: Any) -> Bundle:
    manifest, before = bundles.parts()
    return Bundle.open(bundles.write_raw(tmp_path, msgspec.structs.replace(manifest, **changes), before | files))


def test_a_bundles_engine_gives_its_golden_outputs(bundle: Bundle) -> None:
    agreements = check_golden(bundle, make_engine(bundle))
    assert [a.what for a in agreements] == ["embedding", "logits", "conditioning"]
    assert all(a.worst <= a.tolerance and a.windows == 3 for a in agreements)


def test_make_engine_picks_openvino_or_says_why_not(bundle: Bundle) -> None:
    if importlib.util.find_spec("openvino") is None:
        with pytest.raises(ProviderError, match=r"rtdecode\[openvino\]"):
            make_engine(bundle, provider="openvino")
        info = make_engine(bundle, provider="openvino", fallback="allow").info
        assert (info.provider, info.asked, info.fell_back) == ("cpu", "openvino", True)
    else:
        engine = make_engine(bundle, provider="openvino")
        assert engine.info.provider == "openvino"
        check_golden(bundle, engine)


@pytest.mark.parametrize(
    ("time", "channels", "message"),
    [
        (TIME + 1, CHANNELS, "takes windows of 21 samples of 3 channels; .* give 20 samples of 3 channels"),
        (TIME, CHANNELS + 1, "takes windows of 20 samples of 4 channels; .* give 20 samples of 3 channels"),
    ],
)
def test_an_encoder_for_other_windows_is_refused(tmp_path: Path, time: int, channels: int, message: str) -> None:
    weights = {name: np.ones((time * channels, weight.shape[1]), np.float32) for name, weight in WEIGHTS.items()}
    with pytest.raises(BundleError, match=f"encoder.onnx: .*{message}"):
        make_engine(with_parts(tmp_path, {"encoder.onnx": bundles.linear(weights, time, channels)}))


def test_an_encoder_with_another_input_or_other_outputs_is_refused(tmp_path: Path) -> None:
    manifest, _ = bundles.parts()
    encoder = msgspec.structs.replace(manifest.encoder, input="samples")
    with pytest.raises(BundleError, match=r"its input is 'x'; \$\.encoder\.input says 'samples'"):
        make_engine(with_parts(tmp_path / "input", {}, encoder=encoder))
    only = {"embedding": WEIGHTS["embedding"]}
    with pytest.raises(BundleError, match="has no output logits; it has embedding"):
        make_engine(with_parts(tmp_path / "missing", {"encoder.onnx": bundles.linear(only)}))
    wide = WEIGHTS | {"logits": np.ones((TIME * CHANNELS, 5), np.float32)}
    with pytest.raises(BundleError, match=r"'logits' has shape \(5,\); its golden output has \(2,\)"):
        make_engine(with_parts(tmp_path / "wide", {"encoder.onnx": bundles.linear(wide)}))


def test_an_encoder_that_is_no_model_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"encoder\.onnx: the ONNX file is no ONNX file"):
        make_engine(with_parts(tmp_path, {"encoder.onnx": b"hello"}))


def test_golden_windows_that_disagree_are_named(tmp_path: Path) -> None:
    _, files = bundles.parts()
    off = np.array(files["golden/logits.npy"])
    scale = np.abs(off).max()
    off[1, 0] += 0.5e-4 * scale
    near = with_parts(tmp_path / "near", {"golden/logits.npy": off})
    worst = next(a for a in check_golden(near, make_engine(near)) if a.what == "logits")
    assert worst.worst_window == 1
    assert worst.worst == pytest.approx(0.5e-4, rel=0.05)
    off[1, 0] += 2e-4 * scale
    far = with_parts(tmp_path / "far", {"golden/logits.npy": off})
    with pytest.raises(GoldenError, match=r"golden window 1: logits is off by 0\.00025 .*allowed is 0\.0001 \(1 of 3"):
        check_golden(far, make_engine(far))


def test_conditioning_that_disagrees_is_named(tmp_path: Path) -> None:
    _, files = bundles.parts()
    raw = np.array(files["golden/raw.npy"])
    raw[50:, 1] *= 1.01
    with pytest.raises(GoldenError, match=r"golden window [12]: conditioning is off by .*allowed is 1e-05 \(2 of 3"):
        check_conditioning(with_parts(tmp_path / "off", {"golden/raw.npy": raw}))
    with pytest.raises(GoldenError, match=r"gives 100 conditioned samples; the window at 95 ends at 115"):
        check_conditioning(with_parts(tmp_path / "short", {"golden/raw.npy": raw[:100]}))
    manifest, _ = bundles.parts()
    golden = msgspec.structs.replace(manifest.golden, raw=None, raw_starts=())
    assert check_conditioning(with_parts(tmp_path / "none", {}, golden=golden)) is None


def test_a_golden_window_that_cannot_be_encoded_is_named(tmp_path: Path) -> None:
    weights = {name: weight * np.float32(1e38) for name, weight in WEIGHTS.items()}
    broken = with_parts(tmp_path, {"encoder.onnx": bundles.linear(weights)})
    with pytest.raises(GoldenError, match=r"golden window 0 cannot be encoded .* has NaN or Inf"):
        check_golden(broken, make_engine(broken))


def test_comparison_is_by_the_largest_expected_value() -> None:
    expected = np.zeros((3, 2), np.float32)
    assert compare(expected, expected, 0, "x", "here").worst == 0
    expected[2, 1] = -100
    found = expected + np.float32(0.5)
    assert compare(found, expected, 0.005, "x", "here").worst == pytest.approx(0.005)
    with pytest.raises(GoldenError, match=r"off by 0\.005 "):
        compare(found, expected, 0.0049, "x", "here")
    found[1, 1] = np.nan
    with pytest.raises(GoldenError, match="golden window 1: x has NaN"):
        compare(found, expected, 0.5, "x", "here")
    with pytest.raises(GoldenError, match=r"shape \(3, 2\); expected \(2, 2\)"):
        compare(found, expected[:2], 0.5, "x", "here")


def test_the_runtime_is_told_to_send_nothing(tmp_path: Path) -> None:
    """onnxruntime's Linux builds open a telemetry store in the temporary folder when they may report their use."""
    model = tmp_path / "model.onnx"
    model.write_bytes(bundles.linear({"embedding": np.ones((bundles.TIME * bundles.CHANNELS, 2), np.float32)}))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    code = (
        "import os, sys; from rtdecode.encode.onnx import OnnxEngine; OnnxEngine(open(sys.argv[1], 'rb').read());"
        "sys.exit(os.environ['ORT_DISABLE_TELEMETRY'] != '1')"
    )
    env = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(
        [sys.executable, "-c", code, str(model)], env=env | {"TMPDIR": str(temporary)}, check=True, timeout=60
    )
    assert list(temporary.iterdir()) == []
