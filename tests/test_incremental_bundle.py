"""Splits in bundles: made by export and by `bundle compile`, checked at the start, live and replayed alike."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from incremental_kit import Net
from onnx import ModelProto, helper
from test_end_to_end import identity, live_and_replay, make_bundle, make_recording
from typer.testing import CliRunner

from rtdecode.cli.main import build_app
from rtdecode.encode.arrays import read_array
from rtdecode.encode.bundle import Bundle, write_bundle
from rtdecode.encode.engine import Engine
from rtdecode.encode.engines import make_engine
from rtdecode.encode.incremental import IncrementalEngine
from rtdecode.encode.manifest import Split, Unsplit
from rtdecode.encode.onnx import OnnxEngine
from rtdecode.encode.prefix_pool import Company, PrefixPool
from rtdecode.errors import BundleError, GoldenError
from rtdecode.signal import Channel
from rtdecode.stream.window import Locked, Sliding, WindowSpec
from rtdecode_export.incremental.algebra import simplify
from rtdecode_export.incremental.graph import Source, Writer, read
from rtdecode_export.incremental.recompile import compile_bundle

SFREQ = 200.0
NAMES = ("C3", "Cz", "C4", "Pz")
WINDOWS: tuple[WindowSpec, ...] = (
    Locked(tmin=-0.1, tmax=0.9, markers=("T1", "T2")),
    Sliding(length=1.0, hop=0.1),
)


def convolutional(path: Path, channels: list[Channel], sfreq: float, windows: tuple[WindowSpec, ...]) -> Path:
    """The bundle of the end-to-end tests, with a convolutional encoder in place of the linear one."""
    linear = Bundle.open(make_bundle(path.with_name("linear"), channels, sfreq, windows))
    golden = linear.array(linear.manifest.golden.windows)
    net = Net(golden.shape[1], len(channels), 3, "x")
    net.x = net.add("Mul", [net.x, net.constant(1e5)])
    net.spatial(9, 3)
    net.x = net.add("Elu", [net.x])
    net.conv(3, 1, 1, (1, 1), 6)
    onnx = net.end("flat", "logits", 2)
    engine = OnnxEngine(onnx)
    files: dict[str, Any] = {name: linear.read(name) for name in linear.files if name != "manifest.json"}
    files["encoder.onnx"] = onnx
    files["golden/logits.npy"] = np.stack([engine.finish(window, 0)["logits"] for window in golden])
    write_bundle(path, linear.manifest, files)
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return convolutional(tmp_path / "bundle", [Channel(name, "eeg", "V") for name in NAMES], SFREQ, WINDOWS)


def words_of(engine: Engine) -> str:
    """What an engine says of working while it listens."""
    return str(dict(engine.info.more).get("incremental", ""))


def split_of(bundle: Bundle) -> Split:
    split = bundle.manifest.encoder.incremental
    assert isinstance(split, Split)
    return split


def test_a_bundle_is_split_by_its_verb_and_its_engine_says_so(bundle: Path, tmp_path: Path) -> None:
    before = make_engine(Bundle.open(bundle))
    assert words_of(before).startswith("no: the bundle has no split")
    out = tmp_path / "split.zip"
    found = CliRunner().invoke(build_app("bundle"), ["bundle", "compile", str(bundle), "--out", str(out), "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["incremental"]["kind"] == "split"
    split = Bundle.open(out)
    assert split_of(split).hop == 15
    engine = make_engine(split)
    assert f"block {split_of(split).block} samples" in words_of(engine)
    assert words_of(make_engine(split, incremental="off")) == ""
    windows = [Sliding(length=1.0, hop=0.017)]
    assert "whole number of positions" in words_of(make_engine(split, windows=windows))


def test_a_bundle_is_split_for_another_hop_in_its_own_place(bundle: Path) -> None:
    assert split_of(compile_bundle(bundle, hop=0.2)).hop == 30
    assert split_of(compile_bundle(bundle, hop=0.04)).hop == 6
    assert split_of(Bundle.open(bundle)).hop == 6


def test_a_first_layer_that_computes_something_else_is_refused(bundle: Path, tmp_path: Path) -> None:
    split = compile_bundle(bundle)
    files: dict[str, Any] = {name: split.read(name) for name in split.files if name != "manifest.json"}
    first = split_of(split).first
    assert first is not None
    files[first.weights] = np.float32(1.001) * read_array(files[first.weights], first.weights)
    changed = write_bundle(tmp_path / "changed", split.manifest, files)
    with pytest.raises(GoldenError, match="the incremental engine, against whole windows"):
        make_engine(changed)


def test_a_split_that_its_files_do_not_fit_is_refused(bundle: Path, tmp_path: Path) -> None:
    split = compile_bundle(bundle)
    encoder = split.manifest.encoder
    wrong = msgspec.structs.replace(split_of(split), block=split_of(split).block * 2)
    manifest = msgspec.structs.replace(split.manifest, encoder=msgspec.structs.replace(encoder, incremental=wrong))
    files: dict[str, Any] = {name: split.read(name) for name in split.files if name != "manifest.json"}
    with pytest.raises(BundleError, match=r"prefix\.onnx has .*says .*samples"):
        make_engine(write_bundle(tmp_path / "wrong", manifest, files))


def test_engines_of_one_process_share_a_prefix(bundle: Path) -> None:
    split, pool = compile_bundle(bundle), PrefixPool()
    engines = [
        make_engine(split, company=Company(pool, heard, name)) for heard, name in (("x", "a"), ("x", "b"), ("y", "c"))
    ]
    beside = []
    for engine in engines:
        assert isinstance(engine, IncrementalEngine)
        engine.restart(0)
        beside.append(engine.sharing()["prefix_shared_with"])
    assert beside == ["b", "a", ""]


def test_live_over_lsl_equals_replay_while_the_encoder_listens(tmp_path: Path, lsl_config: Path) -> None:
    recording, channels, sfreq = make_recording(tmp_path / "short.edf")
    bundle = convolutional(tmp_path / "bundle.zip", channels, sfreq, WINDOWS)
    assert split_of(compile_bundle(bundle)).share > 0.5
    live, replayed = live_and_replay(tmp_path, lsl_config, recording, bundle, 12)
    given, expected = set(map(identity, live)), set(map(identity, replayed))
    assert len(expected) == 13 + 111
    # A decoder that begins late catches up from the log, and its first results may be out before anybody listens.
    assert given <= expected
    assert max(expected) in given
    assert len(given) > 60


# --- algebra ----------------------------------------------------------------------------------------------------------


def computed(source: Source, window: np.ndarray[Any, np.dtype[np.float32]]) -> Any:
    writer = Writer(source)
    writer.inputs.append((source.input, source.shapes[source.input]))
    for node in source.nodes:
        writer.use(node)
    writer.outputs.extend((name, source.shapes[name]) for name in source.outputs)
    return OnnxEngine(writer.file("all"), warmup=0).finish(window, 0)["y"]


@pytest.mark.parametrize("mean", [4, 2])
def test_norms_and_means_go_into_a_convolution_where_that_pays(mean: int) -> None:
    net = Net(60, 3, 7)
    net.conv(5, 1, 1, (0, 0), 4)
    net.batch_normed()
    net.pool("AveragePool", mean, 3, (0, 0))
    net.batch_normed()
    source = read(net.end("flat"))
    less = simplify(source)
    kinds = [node.op_type for node in less.nodes]
    assert kinds.count("Conv") == 1
    assert "BatchNormalization" not in kinds
    assert "AveragePool" not in kinds
    window = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    np.testing.assert_allclose(computed(less, window), computed(source, window), rtol=0, atol=1e-6)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_an_elu_is_written_as_passes_over_vectors_and_gives_the_same(alpha: float) -> None:
    net = Net(60, 3, 7)
    net.x = net.add("Elu", [net.x], alpha=alpha)
    data = net.end("flat")
    source = read(data)
    writer = Writer(source)
    for node in source.nodes:
        writer.use(node)
    assert any(node.op_type == "Elu" for node in writer.nodes) == (alpha != 1.0)
    sizes = 10.0 ** np.random.default_rng(0).uniform(-30, 3, (60, 3))
    window = (sizes * np.random.default_rng(1).choice([-1, 1], (60, 3))).astype(np.float32)
    window[0] = 0.0, -0.0, -1.0
    expected = OnnxEngine(data, warmup=0).finish(window, 0)["y"]
    np.testing.assert_allclose(
        computed(source, window), expected, rtol=2e-7, atol=2e-7 * max(1.0, np.abs(expected).max())
    )


def test_a_mean_that_would_cost_more_stays() -> None:
    net = Net(60, 3, 7)
    net.conv(2, 1, 1, (0, 0), 4)
    net.pool("AveragePool", 9, 2, (0, 0))
    assert any(node.op_type == "AveragePool" for node in simplify(read(net.end("flat"))).nodes)


def test_an_encoder_that_nothing_can_be_split_of_says_why_in_its_bundle(bundle: Path, tmp_path: Path) -> None:
    opened = Bundle.open(bundle)
    model = ModelProto.FromString(opened.onnx_bytes())
    model.graph.node.insert(0, helper.make_node("Softmax", ["x"], ["soft"], axis=1))
    model.graph.node[1].input[0] = "soft"
    files: dict[str, Any] = {name: opened.read(name) for name in opened.files if name != "manifest.json"}
    files["encoder.onnx"] = onnx = model.SerializeToString()
    golden = opened.array(opened.manifest.golden.windows)
    files["golden/logits.npy"] = np.stack([OnnxEngine(onnx).finish(window, 0)["logits"] for window in golden])
    write_bundle(tmp_path / "soft", opened.manifest, files)
    split = compile_bundle(tmp_path / "soft")
    reason = split.manifest.encoder.incremental
    assert isinstance(reason, Unsplit)
    assert "Softmax over time" in reason.reason
    assert words_of(make_engine(split)) == f"no: {reason.reason}"
