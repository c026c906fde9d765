"""What the engines for GPUs do on a machine without one, and what of them is checked there all the same."""

import ctypes
import importlib.util
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest
from onnx import helper

from rtdecode.encode.bound import BoundRun
from rtdecode.encode.bundle import Bundle, write_bundle
from rtdecode.encode.cuda import Cuda, load_runtime
from rtdecode.encode.engines import make_engine
from rtdecode.encode.onnx import OnnxEngine, import_onnxruntime
from rtdecode.encode.providers import PROVIDERS, check_options
from rtdecode.encode.tensorrt_build import build_engine
from rtdecode.encode.tensorrt_native import TensorRtEngine
from rtdecode.errors import BundleError, EngineError, ProviderError

SHAPE = (bundles.TIME, bundles.CHANNELS)
WEIGHTS = {"y": np.random.default_rng(3).standard_normal((bundles.TIME * bundles.CHANNELS, 4)).astype(np.float32)}


@pytest.fixture
def trt() -> Any:
    """TensorRT's bindings; those of TensorRT for RTX read and build without a GPU."""
    for name in ("tensorrt", "tensorrt_rtx_bindings"):
        if importlib.util.find_spec(name) is not None:
            return importlib.import_module(name)
    return pytest.skip("not run: pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings")


@pytest.fixture
def cudart() -> Any:
    try:
        return load_runtime()
    except ProviderError as error:
        return pytest.skip(f"not run: {error}")


# --- buffers that stay ------------------------------------------------------------------------------------------------


def test_bound_buffers_stay_where_they_are() -> None:
    runtime = import_onnxruntime()
    session = runtime.InferenceSession(bundles.linear(WEIGHTS), providers=["CPUExecutionProvider"])
    run = BoundRun(runtime, session, ("x", (1, *SHAPE)), {"y": ((1, 4), np.dtype(np.float32))})
    before = run.addresses
    for n in range(3):
        window = np.full((1, *SHAPE), n, np.float32)
        np.testing.assert_allclose(run(window)["y"][0], window.ravel() @ WEIGHTS["y"], rtol=1e-4)
    assert run.addresses == before
    assert not run.pinned
    run.close()
    run.close()


def test_an_engine_says_that_its_buffers_are_bound() -> None:
    assert dict(OnnxEngine(bundles.linear(WEIGHTS), bind=True).info.more)["buffers"] == "bound, not pinned"
    assert "buffers" not in dict(OnnxEngine(bundles.linear(WEIGHTS)).info.more)


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_every_option_is_one_that_the_runtimes_own_library_knows(name: str) -> None:
    library = Path(import_onnxruntime().__file__).parent / "capi" / f"libonnxruntime_providers_{name}.so"
    if not library.exists():
        pytest.skip(f"not run: this onnxruntime has no {library.name} (onnxruntime-gpu has)")
    text = library.read_bytes()
    assert [key for key in PROVIDERS[name].options if b"\0" + key.encode() + b"\0" not in text] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trt_cuda_graph_enable": True}, "'tensorrt-native' has no option 'trt_cuda_graph_enable'"),
        ({"cuda_graph": 1}, "expected bool"),
        ({"workspace_mb": "1"}, "expected int"),
    ],
)
def test_native_options_are_checked_before_anything_is_loaded(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ProviderError, match=message):
        TensorRtEngine(bundles.linear(WEIGHTS), options=options)
    assert check_options(PROVIDERS["tensorrt-native"], {"cuda_graph": False}) == {"cuda_graph": "False"}


# --- without a GPU ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "b", *bundles.parts())


def test_native_tensorrt_that_cannot_be_had_says_what_to_install_or_falls_back(bundle: Bundle) -> None:
    """Whether its bindings are missing, or there and no GPU; where there is one, it runs."""
    refused = ""
    try:
        make_engine(bundle, provider="tensorrt-native").close()
    except ProviderError as error:
        refused = str(error)
    info = make_engine(bundle, provider="tensorrt-native", fallback="allow").info
    assert info.asked == "tensorrt-native"
    assert info.fell_back == (info.provider == "cpu") == bool(refused)
    assert not refused or "rtdecode[gpu,tensorrt]" in refused


def test_the_cuda_runtime_says_that_there_is_no_gpu(cudart: Any) -> None:
    count = ctypes.c_int()
    if cudart.cudaGetDeviceCount(ctypes.byref(count)) == 0:
        pytest.skip("not run: there is a GPU")
    with pytest.raises(ProviderError, match="there is no GPU to be had: cudaGetDeviceCount failed with"):
        Cuda(library=cudart)


def test_an_engine_is_built_from_the_file_in_its_own_precision(trt: Any) -> None:
    plan, timings = build_engine(trt, bundles.linear(WEIGHTS))
    assert len(plan) > 1000
    again, _ = build_engine(trt, bundles.linear(WEIGHTS), timings=timings, optimization_level=0)
    assert len(again) > 1000


def test_a_file_that_tensorrt_does_not_take_is_refused_with_its_words(trt: Any) -> None:
    unknown = bundles.model([helper.make_node("Det", ["x"], ["y"])], {"y": (1,)})
    with pytest.raises(BundleError, match=r"does not take the ONNX file: .*Det"):
        build_engine(trt, bytes(unknown.SerializeToString()))


# --- with one ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_pinned_memory_and_captured_copies_give_back_what_they_got() -> None:
    try:
        cuda = Cuda()
    except (ProviderError, EngineError) as error:
        pytest.skip(f"not run: {error}")
    stream, device = cuda.stream(), cuda.allocate(64)
    (there, one), (back, two) = (cuda.pinned((16,), np.dtype(np.float32)) for _ in range(2))

    def copies() -> None:
        cuda.to_device(device, there, stream)
        cuda.to_host(back, device, stream)

    graph = cuda.capture(stream, copies)
    for n in range(3):
        there[:] = n
        cuda.launch(graph, stream)
        cuda.wait(stream)
        np.testing.assert_array_equal(back, there)
    cuda.free_graph(graph)
    cuda.free(device)
    cuda.free_stream(stream)
    for address in (one, two):
        cuda.free_pinned(address)
