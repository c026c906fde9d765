"""Where compiled engines are kept: one folder for each combination, and none that somebody else could write to."""

import dataclasses
import os
from pathlib import Path

import bundles
import numpy as np
import pytest

from rtdecode.encode.engine_cache import (
    Platform,
    cache_options,
    cache_root,
    find_platform,
    kept_context,
    native_folder,
    parse_gpus,
    private_folder,
)
from rtdecode.encode.onnx import OnnxEngine
from rtdecode.errors import ProviderError

PLATFORM = Platform(onnxruntime="1.31.1", tensorrt="101601", gpu="NVIDIA H200 (9.0); ", driver="580.1")


@pytest.fixture
def environ(tmp_path):
    return {"XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_engines_and_timings_lie_in_one_private_folder_of_the_user(environ, tmp_path):
    options = cache_options(b"model", {"device_id": "0"}, "fp16", PLATFORM, environ)
    folder = Path(options["trt_engine_cache_path"])
    assert folder.parent == tmp_path / "cache" / "rtdecode" / "engines"
    assert options == {
        "device_id": "0",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(folder),
        "trt_dump_ep_context_model": "True",
        "trt_ep_context_file_path": str(folder / "context.onnx"),
        "trt_ep_context_embed_mode": "1",
    }
    assert kept_context(options) is None
    (folder / "context.onnx").touch()
    assert kept_context(options) == folder / "context.onnx"
    assert kept_context({}) is None
    assert [one.stat().st_mode & 0o777 for one in (folder, folder.parent)] == [0o700, 0o700]
    assert cache_options(b"model", {"device_id": "0"}, "fp16", PLATFORM, environ) == options


def test_everything_that_an_engine_depends_on_has_a_folder_of_its_own(environ):
    def folder(onnx=b"model", options=None, precision="fp16", platform=PLATFORM):
        return cache_options(onnx, options or {}, precision, platform, environ)["trt_engine_cache_path"]

    folders = [
        folder(),
        folder(onnx=b"other"),
        folder(options={"trt_builder_optimization_level": "5"}),
        folder(precision="bf16"),
        *(folder(platform=dataclasses.replace(PLATFORM, **{part: "other"})) for part in PLATFORM.__slots__),
    ]
    assert len(set(folders)) == len(folders) == 8
    assert folder(options={"trt_engine_cache_prefix": "p"}) == folders[0], "where engines lie does not change them"


def test_a_native_engine_has_a_folder_of_its_own(environ, monkeypatch):
    def folder(onnx=b"model", options=None, precision="fp16", tensorrt="11.4", gpu="H200 (9.0)", driver="580.1"):
        monkeypatch.setattr("rtdecode.encode.engine_cache._ask_driver", lambda: ([gpu], driver))
        return native_folder(onnx, options or {}, precision, tensorrt, environ)

    folders = [
        folder(),
        folder(onnx=b"other"),
        folder(options={"optimization_level": "5"}),
        folder(precision="bf16"),
        folder(tensorrt="11.5"),
        folder(gpu="H100 (9.0)"),
        folder(driver="590.1"),
    ]
    assert len(set(folders)) == len(folders)
    assert all(one.stat().st_mode & 0o777 == 0o700 for one in folders)
    assert folder(options={"cuda_graph": "False"}) == folders[0], "how it is run does not change it"
    monkeypatch.setattr("rtdecode.encode.engine_cache._ask_driver", lambda: None)
    assert native_folder(b"model", {}, "fp16", "11.4", environ) is None


def test_a_named_folder_is_the_root_and_no_cache_means_none(environ, tmp_path):
    named = {"trt_engine_cache_path": str(tmp_path / "mine")}
    found = cache_options(b"model", named, "fp32", PLATFORM, environ)
    assert Path(found["trt_engine_cache_path"]).parent == tmp_path / "mine"
    for options, platform in ((named | {"trt_engine_cache_enable": "False"}, PLATFORM), (named, None)):
        assert cache_options(b"model", options, "fp32", platform, environ) == {}
    assert not (tmp_path / "cache").exists()


def test_the_root_follows_the_users_environment():
    assert cache_root({"XDG_CACHE_HOME": "/var/cache/me"}) == Path("/var/cache/me/rtdecode/engines")
    for environ in ({}, {"XDG_CACHE_HOME": "not/absolute"}):
        assert cache_root(environ) == Path.home() / ".cache/rtdecode/engines"


@pytest.mark.parametrize("mode", [0o770, 0o755, 0o702])
def test_a_folder_that_others_may_enter_is_refused(tmp_path, mode):
    folder = tmp_path / "engines"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ProviderError, match=f"engines has mode 0{mode:o}; compiled engines are programs"):
        private_folder(folder)


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    folder = private_folder(tmp_path / "engines")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ProviderError, match=f"belongs to user {os.getuid()}"):
        private_folder(folder)


def test_a_link_is_no_folder_of_ones_own(tmp_path):
    private_folder(tmp_path / "elsewhere")
    (tmp_path / "engines").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ProviderError, match="is no folder or a link to one"):
        private_folder(tmp_path / "engines")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ProviderError, match="cannot be used: File exists"):
        private_folder(tmp_path / "file")


def test_what_others_could_replace_is_refused_and_a_sticky_folder_is_not(tmp_path):
    above = tmp_path / "shared"
    above.mkdir()
    folder = above / "engines"
    above.chmod(0o1777)
    private_folder(folder)
    above.chmod(0o777)
    with pytest.raises(ProviderError, match=r"can be replaced by others, who may write to .*shared"):
        private_folder(folder)


def test_content_that_came_from_elsewhere_is_refused(tmp_path):
    folder = private_folder(tmp_path / "engines")
    (folder / "own.engine").write_bytes(b"engine")
    private_folder(folder)
    (tmp_path / "outside").write_bytes(b"engine")
    (folder / "linked.engine").symlink_to(tmp_path / "outside")
    with pytest.raises(ProviderError, match=r"'linked.engine' in the engine cache .* is a link or another user's"):
        private_folder(folder)
    (folder / "linked.engine").unlink()
    (folder / "hard.engine").hardlink_to(tmp_path / "outside")
    with pytest.raises(ProviderError, match=r"'hard\.engine'"):
        private_folder(folder)


def test_gpus_are_read_from_the_drivers_tool():
    said = "NVIDIA H200, 9.0, 580.95.05\nNVIDIA RTX A6000, rev. 2, 8.6, 580.95.05\n"
    assert parse_gpus(said) == (["NVIDIA H200 (9.0)", "NVIDIA RTX A6000, rev. 2 (8.6)"], "580.95.05")
    for bad in ("", "No devices were found\n", "NVIDIA H200, , 580.1\n"):
        assert parse_gpus(bad) is None


@pytest.mark.gpu
def test_an_engine_is_kept_and_used_again(tmp_path, monkeypatch):
    """On a GPU: the first start builds, the second finds the engine, and both give the same."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if find_platform("", os.environ) is None:
        pytest.skip("not run: needs an NVIDIA GPU and TensorRT 10")
    weights = {"embedding": np.random.default_rng(0).standard_normal((bundles.TIME * bundles.CHANNELS, 8))}
    onnx = bundles.linear({name: weight.astype(np.float32) for name, weight in weights.items()})
    window = np.random.default_rng(1).standard_normal((bundles.TIME, bundles.CHANNELS)).astype(np.float32)
    outputs, times = [], []
    for _ in range(2):
        engine = OnnxEngine(onnx, provider="tensorrt")
        outputs.append(engine.finish(window, 0)["embedding"])
        engine.close()
        times.append({one.name: one.stat().st_mtime_ns for one in (tmp_path / "cache").rglob("*.engine")})
    assert times[0]
    assert times[1] == times[0], "the second start built an engine anew"
    np.testing.assert_array_equal(outputs[0], outputs[1])
