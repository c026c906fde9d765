"""Encoding on a shared Triton server: its protocol, its death and return, and what stands in meanwhile."""

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import bundles
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("grpc", reason='not run: needs grpcio (pip install "rtdecode[triton]")')

import triton_kit

from rtdecode import hostclock
from rtdecode.encode.bundle import Bundle, write_bundle
from rtdecode.encode.engines import make_engine
from rtdecode.encode.kserve import TritonServer, read_answer
from rtdecode.encode.onnx import Fallback
from rtdecode.encode.protobuf import NotProtobufError, bytes_field, fields, integers, number_field, packed_field
from rtdecode.encode.shared_region import FOLDER, SharedRegion
from rtdecode.encode.triton import TritonEngine
from rtdecode.encode.triton_link import FEW_SLOTS, SLOTS, TritonLink
from rtdecode.encode.triton_repository import ModelSettings, write_model
from rtdecode.errors import BundleError, EncodeError, EngineError, GoldenError, ProviderError

PYTHON = ModelSettings("python")


def served(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that needs a server, and has it reported as not run where there is none."""
    marked: Callable[..., None] = pytest.mark.skipif(triton_kit.ROOT is None, reason=triton_kit.WHY_NOT)(test)
    needy: Callable[..., None] = pytest.mark.triton(marked)
    return needy


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "b", *bundles.parts())


@pytest.fixture(scope="module")
def windows(bundle: Bundle) -> NDArray[np.float32]:
    return bundle.array(bundle.manifest.golden.windows)


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> TritonServer:
    monkeypatch.setattr("rtdecode.encode.triton_link.OPEN_S", 0.2)
    return TritonServer(f"127.0.0.1:{triton_kit.free_port()}", "test", timeout_s=0.2)


def engine_of(bundle: Bundle, server: TritonServer, fallback: Fallback = "forbid") -> TritonEngine:
    engine = make_engine(bundle, triton=server, fallback=fallback)
    assert isinstance(engine, TritonEngine)
    return engine


# --- without a server -------------------------------------------------------------------------------------------------


@given(st.text(max_size=300), st.binary(max_size=300), st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_messages_are_written_as_protobuf_writes_them(name: str, raw: bytes, dims: list[int]) -> None:
    written = packed_field(1, dims) + number_field(2, 1) + bytes_field(8, name) + bytes_field(9, raw)
    read = onnx.TensorProto.FromString(written)
    assert (list(read.dims), read.data_type, read.name, read.raw_data) == (dims, 1, name, raw)
    for data in (written, read.SerializeToString()):  # several integers in one field, and a field for each
        found = [one for number, value in fields(memoryview(data)) if number == 1 for one in integers(value)]
        assert found == dims


@given(st.binary(max_size=80))
def test_an_answer_that_is_none_is_an_error_of_ours(data: bytes) -> None:
    try:
        read_answer(data)
    except NotProtobufError:
        return


def test_no_server_is_an_error_or_the_cpu(bundle: Bundle, windows: NDArray[np.float32], nobody: TritonServer) -> None:
    with pytest.raises(
        ProviderError, match=rf"'test' on the Triton server {nobody.url} cannot be used: .*UNAVAIL|DEADL"
    ):
        engine_of(bundle, nobody)
    engine = engine_of(bundle, nobody, "allow")
    try:
        assert (engine.info.provider, engine.info.asked, engine.info.fell_back) == ("cpu", "triton", True)
        expected = make_engine(bundle).finish(windows[0], 0)
        np.testing.assert_array_equal(engine.finish(windows[0], 0)["logits"], expected["logits"])
        assert [(one.event, one.details["stands_in"]) for one in engine.news()] == [("server lost", True)]
        assert engine.news() == []
    finally:
        engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.finish(windows[0], 0)


def test_tls_files_that_are_not_there_are_named(bundle: Bundle, nobody: TritonServer, tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match=r"ca\.pem cannot be read"):
        engine_of(bundle, replace(nobody, tls=True, ca=tmp_path / "ca.pem"))


@pytest.mark.skipif(not FOLDER.is_dir(), reason="not run: the system has no POSIX shared memory")
def test_a_shared_region_is_this_users_own_and_leaves_no_name() -> None:
    region = SharedRegion(4096)
    path = FOLDER / region.name
    assert path.stat().st_mode & 0o777 == 0o600
    array = region.array(64, (2, 3), np.dtype("<f4"))
    array[:] = 1
    region.unlink()
    region.unlink()
    assert not path.exists()
    assert array.sum() == 6
    with pytest.raises(ProviderError, match="shared memory are not to be had"):
        SharedRegion(1 << 62)


# --- with a server ----------------------------------------------------------------------------------------------------


def written(root: Path, bundle: Bundle) -> Path:
    write_model(bundle.onnx_bytes(), root, "test", PYTHON)
    other = bundles.parts(seed=1)[1]["encoder.onnx"]
    assert isinstance(other, bytes)
    write_model(other, root, "other", PYTHON)
    write_model(bundles.linear({"embedding": np.ones((30, 8), np.float32)}, time=10), root, "shorter", PYTHON)
    return root


@pytest.fixture(scope="module")
def server(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[triton_kit.Server]:
    folder = tmp_path_factory.mktemp("triton")
    one = triton_kit.Server(folder, written(folder / "models", bundle))
    try:
        one.start()
        yield one
    finally:
        one.close()


@pytest.fixture
def own(bundle: Bundle, tmp_path: Path) -> Iterator[triton_kit.Server]:
    """A server that may be killed."""
    write_model(bundle.onnx_bytes(), tmp_path / "models", "test", PYTHON)
    one = triton_kit.Server(tmp_path, tmp_path / "models")
    try:
        one.start()
        yield one
    finally:
        one.close()


@served
@pytest.mark.parametrize("shared_memory", ["on", "off", "auto"])
def test_a_server_gives_what_the_bundle_gives(
    bundle: Bundle, windows: NDArray[np.float32], server: triton_kit.Server, shared_memory: str
) -> None:
    engine = engine_of(bundle, TritonServer(server.url, "test", shared_memory=shared_memory))
    here = make_engine(bundle)
    try:
        info = engine.info
        assert info.runtime.startswith("triton 2.")
        assert (info.provider, info.fell_back, info.input_shape) == ("triton", False, windows.shape[1:])
        more = dict(info.more)
        assert (more["model"], more["version"], more["shared_memory"]) == ("test", "1", int(shared_memory != "off"))
        kept = [engine.finish(window, 0) for window in windows]
        for outputs, window in zip(kept, windows, strict=True):
            for name, expected in here.finish(window, 0).items():
                np.testing.assert_array_equal(outputs[name], expected)
        assert not list(FOLDER.glob("rtdecode-*")) or shared_memory == "off"
    finally:
        engine.close()


@served
@pytest.mark.parametrize(
    ("model", "version", "error", "message"),
    [
        ("nothing", "", ProviderError, "'nothing' on the Triton server .* (is not ready|cannot be used)"),
        ("test", "7", ProviderError, "'test' version 7 on the Triton server"),
        ("other", "", GoldenError, "is not the bundle's encoder: .*golden window"),
        ("shorter", "", BundleError, "has no output logits; it has embedding"),
    ],
)
@pytest.mark.parametrize("fallback", ["forbid", "allow"])
def test_another_model_is_refused(
    bundle: Bundle, server: triton_kit.Server, model: str, version: str, error: type, message: str, fallback: Fallback
) -> None:
    """Also where the CPU may stand in: for a server that is not there, not for one that holds something else."""
    if fallback == "allow" and error is ProviderError:
        engine = engine_of(bundle, TritonServer(server.url, model, version), fallback)
        assert engine.info.fell_back
        engine.close()
        return
    with pytest.raises(error, match=message):
        engine_of(bundle, TritonServer(server.url, model, version), fallback)


@served
def test_a_window_without_time_is_not_sent(
    bundle: Bundle, windows: NDArray[np.float32], server: triton_kit.Server
) -> None:
    engine = engine_of(bundle, TritonServer(server.url, "test"))
    try:
        engine.allow(hostclock.now() - 1)
        with pytest.raises(EncodeError, match="no time was left"):
            engine.finish(windows[0], 0)
        engine.finish(windows[0], 0)  # what was allowed was the one window's
        assert engine.news() == []
    finally:
        engine.close()


@served
def test_a_server_that_is_killed_fails_windows_until_it_is_back(
    bundle: Bundle, windows: NDArray[np.float32], own: triton_kit.Server
) -> None:
    """Killed while windows are on their way; each gives what it should or fails, and none waits for the server."""
    expected = [make_engine(bundle).finish(window, 0)["logits"] for window in windows]
    engine = engine_of(bundle, TritonServer(own.url, "test", timeout_s=2.0))
    failed = 0

    def turn(n: int) -> bool:
        nonlocal failed
        try:
            outputs = engine.finish(windows[n % 3], n)
        except EncodeError:
            failed += 1
            return False
        np.testing.assert_array_equal(outputs["logits"], expected[n % 3])
        return True

    try:
        assert all(turn(n) for n in range(10))
        killing = threading.Thread(target=own.kill)
        killing.start()
        n = 10
        while turn(n):
            n += 1
        killing.join()
        assert not any(turn(n) for n in range(10))
        assert [one.event for one in engine.news()] == ["server lost"]
        own.start()
        for n in triton_kit.until(30):
            if turn(n):
                break
        assert all(turn(n) for n in range(10))
        assert [one.event for one in engine.news()] == ["server back"]
        assert failed >= 11
    finally:
        engine.close()


@served
def test_the_cpu_stands_in_and_says_so(bundle: Bundle, windows: NDArray[np.float32], own: triton_kit.Server) -> None:
    engine = engine_of(bundle, TritonServer(own.url, "test"), "allow")
    try:
        first = engine.finish(windows[0], 0)
        assert (engine.info.provider, engine.info.fell_back) == ("triton", False)
        own.kill()
        for window in windows:
            engine.finish(window, 0)
        assert (engine.info.provider, engine.info.asked, engine.info.fell_back) == ("cpu", "triton", True)
        np.testing.assert_array_equal(engine.finish(windows[0], 0)["logits"], first["logits"])
        assert [one.details["stands_in"] for one in engine.news()] == [True]
        own.start()
        for _ in triton_kit.until(30):
            engine.finish(windows[0], 0)
            if engine.info.provider == "triton":
                break
        assert not engine.info.fell_back
    finally:
        engine.close()


@served
def test_a_server_that_hangs_costs_no_more_than_the_deadline_and_nothing_stale(
    bundle: Bundle, windows: NDArray[np.float32], own: triton_kit.Server
) -> None:
    expected = [make_engine(bundle).finish(window, 0)["logits"] for window in windows]
    engine = engine_of(bundle, TritonServer(own.url, "test", timeout_s=30.0))
    try:
        for n in range(FEW_SLOTS + 1):  # one window at a time is lost, and what it was written to is not used again
            own.pause()
            engine.allow(hostclock.now() + 0.1)
            with pytest.raises(EncodeError, match=r"did not answer within|no time was left"):
                engine.finish(windows[n % 3], 0)
            own.resume()
            np.testing.assert_array_equal(engine.finish(windows[(n + 1) % 3], 0)["logits"], expected[(n + 1) % 3])
        assert engine.news() == []
        own.pause()
        for _ in triton_kit.until(30):
            engine.allow(hostclock.now() + 0.2)
            with pytest.raises(EncodeError):
                engine.finish(windows[0], 0)
            if told := engine.news():
                break
        assert [one.event for one in told] == ["server lost"]
        own.resume()
        for n in triton_kit.until(30):
            try:
                found = engine.finish(windows[n % 3], 0)["logits"]
            except EncodeError:
                continue
            np.testing.assert_array_equal(found, expected[n % 3])
            break
    finally:
        engine.close()


@served
def test_a_server_that_comes_back_with_another_model_stays_out(
    bundle: Bundle, windows: NDArray[np.float32], own: triton_kit.Server
) -> None:
    engine = engine_of(bundle, TritonServer(own.url, "test"), "allow")
    try:
        own.kill()
        other = bundles.parts(seed=1)[1]["encoder.onnx"]
        assert isinstance(other, bytes)
        (own.repository / "test" / "1" / "encoder.onnx").write_bytes(other)
        own.start()
        events: list[str] = []
        for _ in triton_kit.until(30):
            engine.finish(windows[0], 0)
            assert engine.info.provider == "cpu"
            events += [one.event for one in engine.news()]
            if "server refused" in events:
                break
        assert events == ["server lost", "server refused"]
    finally:
        engine.close()


@served
@pytest.mark.skipif(shutil.which("openssl") is None, reason="not run: needs openssl to make a certificate")
def test_a_server_proves_who_it_is(
    bundle: Bundle, windows: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a certificate of the authority that the configuration names; and this side to the server."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=IP:127.0.0.1",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    write_model(bundle.onnx_bytes(), tmp_path / "models", "test", PYTHON)
    options = ["--grpc-use-ssl=true", "--grpc-use-ssl-mutual=true", f"--grpc-root-cert={certificate}"]
    options += [f"--grpc-server-cert={certificate}", f"--grpc-server-key={key}"]
    one = triton_kit.Server(tmp_path, tmp_path / "models", *options)
    known = TritonServer(one.url, "test", tls=True, ca=certificate, certificate=certificate, key=key)
    try:
        one.start(known)
        engine = engine_of(bundle, known)
        np.testing.assert_array_equal(
            engine.finish(windows[0], 0)["logits"], make_engine(bundle).finish(windows[0], 0)["logits"]
        )
        engine.close()
        unproven = replace(known, certificate=None, key=None)
        monkeypatch.setattr("rtdecode.encode.triton_link.OPEN_S", 1.0)
        for stranger in (replace(known, ca=None), unproven, replace(unproven, tls=False, ca=None)):
            with pytest.raises(ProviderError, match="cannot be used"):
                engine_of(bundle, stranger)
    finally:
        one.close()


@served
def test_a_window_that_fails_there_is_that_windows_failure(tmp_path: Path) -> None:
    """The model looks up a row that is not there, for one window; the next one is fine, however many fail."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Cast", ["top"], ["index"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["index", "one"], ["indices"]),
        helper.make_node("Gather", ["table", "indices"], ["row"]),
    ]
    weights = {"table": np.arange(8, dtype=np.float32).reshape(4, 2), "one": np.array([1])}
    data = bytes(bundles.model(nodes, {"row": (1, 2)}, weights).SerializeToString())
    write_model(data, tmp_path / "models", "rows", PYTHON)
    one = triton_kit.Server(tmp_path, tmp_path / "models")
    shape = (bundles.TIME, bundles.CHANNELS)
    try:
        one.start()
        link = TritonLink(TritonServer(one.url, "rows"), ["row"])
        for _ in range(SLOTS + 1):
            with pytest.raises(
                EncodeError, match=r"window at sample 99: triton .* failed: the server could not encode"
            ):
                link.finish(np.full(shape, 50, np.float32), 99)
        np.testing.assert_array_equal(link.finish(np.full(shape, 3, np.float32), 100)["row"], [6, 7])
        link.close()
    finally:
        one.close()
