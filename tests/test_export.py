"""Export: parity with PyTorch, what is refused, and a bundle that the daemon's own parts accept and run."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="exporting needs torch: pip install rtdecode[train]")
pytest.importorskip("onnxscript", reason="exporting needs onnxscript: pip install rtdecode[train]")
pytest.importorskip("onnxruntime", reason="exporting needs an inference runtime: pip install rtdecode[cpu]")

import torch

from rtdecode.encode.bundle import Bundle
from rtdecode.encode.engines import make_engine
from rtdecode.encode.golden import check_golden
from rtdecode.encode.manifest import ClassifyHead, Contract, ContractChannel, EmbeddingHead
from rtdecode.errors import BundleError, ConfigError, EngineError, GoldenError
from rtdecode.signal import Channel
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.steps import Conditioning, Filter, Matrix
from rtdecode.stream.window import Sliding
from rtdecode_export.bundle import GOLDEN_WINDOWS, check_arguments, export_bundle
from rtdecode_export.onnx import run_onnx, run_torch, to_onnx
from rtdecode_export.sources import Given, arguments_of
from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.ensemble import Ensemble
from rtdecode_models.systems.simpleconv import EEGSimpleConv, SimpleConvConfig

NAMES = ("C3", "Cz", "C4")
CONTRACT = Contract(channels=tuple(ContractChannel(name=name, type="eeg", unit="V") for name in NAMES), sfreq=100.0)
CHAIN = Conditioning(stream=(Filter(low=4.0, high=30.0), Matrix(array="mix.npy", kind="spatial")))
ARRAYS = {"mix.npy": 1e5 * np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]}
TIME, STARTS = 80, (0, 50, 120)


def _ensemble():
    torch.manual_seed(0)
    config = SimpleConvConfig(width=4, n_blocks=1, kernel=4, dropout=0.5)
    members = [EEGSimpleConv(config, Shape(TIME, 3, 100.0, classes={"label": 2})) for _ in range(3)]
    for member in members:  # statistics of batch norm that are not those of a new network
        member.train()(torch.randn(16, TIME, 3) * 2 + 1)
    return Ensemble(members)


def _arguments(**changes):
    rng = np.random.default_rng(1)
    raw = (1e-5 * rng.standard_normal((300, 3))).astype(np.float32)
    channels = [Channel(name, "eeg", "V") for name in NAMES]
    conditioned = Conditioner(CHAIN.stream, channels, 100.0, ARRAYS).push(raw)
    real = np.stack([conditioned[start : start + TIME] for start in (*STARTS, *range(200, 220))])
    return {
        "module": _ensemble(),
        "name": "test",
        "contract": CONTRACT,
        "conditioning": CHAIN,
        "arrays": ARRAYS,
        "windows": [Sliding(length=0.8, hop=0.1)],
        "heads": [ClassifyHead(output="logits", labels=("a", "b"))],
        "outputs": ["logits"],
        "real_windows": real,
        "raw": raw,
        "raw_starts": STARTS,
        **changes,
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "bundle.zip"
    arguments = _arguments(files={"recipe.json": b"{}\n"}, metrics={"chance": 0.5}, provenance={"data": "noise"})
    return arguments, out, export_bundle(**arguments, out=out)


def test_the_daemons_parts_accept_the_bundle(exported):
    arguments, out, report = exported
    bundle = Bundle.open(out)
    assert bundle.id == report.bundle_id
    engine = make_engine(bundle)
    check_golden(bundle, engine)
    arguments["module"].eval()
    with torch.no_grad():
        expected = arguments["module"](torch.from_numpy(arguments["real_windows"]))["logits"].numpy()
    given = np.stack([engine.finish(window, 0)["logits"] for window in arguments["real_windows"]])
    engine.close()
    np.testing.assert_allclose(given, expected, atol=1e-5)
    assert bundle.read("recipe.json") == b"{}\n"
    assert bundle.manifest.metrics == {"chance": 0.5}
    assert bundle.manifest.provenance["data"] == "noise"
    assert bundle.manifest.provenance["torch"] == torch.__version__


def test_the_report_says_what_was_measured(exported):
    arguments, out, report = exported
    assert report.windows == len(arguments["real_windows"]) == 23
    assert 0 <= report.errors["logits"] < 1e-5
    assert 0 <= report.engine_errors["logits"] < 1e-5
    assert report.parameters == sum(parameter.numel() for parameter in arguments["module"].parameters())
    inside = json.loads(Bundle.open(out).read("export.json"))
    assert inside["errors"] == report.errors
    assert inside["tolerance"] == 1e-4
    assert len(Bundle.open(out).array("golden_windows.npy")) == GOLDEN_WINDOWS


def test_exporting_leaves_the_module_in_its_mode():
    module = _ensemble().train()
    to_onnx(module, (TIME, 3), ["logits"])
    assert module.training
    assert all(member.training for member in module.members)


def test_several_outputs_and_dictionaries():
    class Two(torch.nn.Module):
        def forward(self, window):
            return {"mean": window.mean(1), "last": window[:, -1] * 2}

    windows = np.random.default_rng(2).standard_normal((3, 10, 4)).astype(np.float32)
    graph = to_onnx(Two(), (10, 4), ["mean", "last"])
    given = run_onnx(graph, windows, ["mean", "last"])
    np.testing.assert_allclose(given["mean"], windows.mean(1), atol=1e-6)
    np.testing.assert_allclose(given["last"], windows[:, -1] * 2, atol=1e-6)
    assert run_torch(Two(), windows, ["mean", "last"])["last"].shape == (3, 4)


class _Deviant(torch.nn.Module):
    """What PyTorch computes differs from what it exports by `shift`: an exporter that got an operator wrong."""

    def __init__(self, shift):
        super().__init__()
        self.shift = shift

    def forward(self, window):
        logits = window.mean(1)[:, :2]
        return logits if torch.compiler.is_exporting() else logits + self.shift


def test_numbers_that_differ_are_refused_and_nothing_is_written(tmp_path):
    out = tmp_path / "bundle"
    with pytest.raises(GoldenError, match=r"'logits' differs by 0\.001 .* at most 0\.0001"):
        export_bundle(**_arguments(module=_Deviant(1e-3)), out=out)
    assert not out.exists()
    export_bundle(**_arguments(module=_Deviant(5e-7)), out=out)
    assert out.exists()


def test_a_module_that_cannot_be_exported_is_named():
    class Undecided(torch.nn.Module):
        def forward(self, window):
            return window.mean(1) if window.sum() > 0 else window[:, 0]

    with pytest.raises(EngineError, match="Undecided cannot be exported"):
        to_onnx(Undecided(), (10, 4), ["logits"])


def test_an_existing_bundle_is_replaced_only_when_asked(tmp_path):
    arguments = _arguments(module=_Deviant(0.0))
    out = tmp_path / "bundle"
    first = export_bundle(**arguments, out=out)
    with pytest.raises(BundleError, match="is there already"):
        export_bundle(**arguments, out=out)
    arguments["name"] = "second"
    assert export_bundle(**arguments, out=out, overwrite=True).bundle_id != first.bundle_id
    assert Bundle.open(out).manifest.name == "second"


def _nan(windows):
    windows = windows.copy()
    windows[4, 0, 0] = np.nan
    return windows


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda a: {"real_windows": a["real_windows"].astype(float)}, BundleError, "float64"),
        (lambda a: {"real_windows": a["real_windows"][:0]}, BundleError, "at least one"),
        (lambda a: {"real_windows": _nan(a["real_windows"])}, BundleError, "real window 4 holds NaN"),
        (lambda _: {"raw_starts": ()}, BundleError, "go together"),
        (lambda _: {"raw": None}, BundleError, "go together"),
        (lambda _: {"raw_starts": range(30)}, BundleError, "30 raw starts are given for 23"),
        (lambda _: {"raw_starts": (0, 51, 120)}, GoldenError, "condition"),
        (lambda _: {"files": {"encoder.onnx": b""}}, BundleError, "'encoder.onnx' is taken"),
        (lambda _: {"outputs": ["a", "b"]}, EngineError, "outputs"),
        (lambda _: {"heads": [EmbeddingHead(output="embedding")]}, BundleError, "embedding"),
        (lambda _: {"windows": [Sliding(length=0.9, hop=0.1)]}, BundleError, "80|90"),
        (lambda _: {"arrays": {}}, BundleError, "mix"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, change, error, says):
    arguments = _arguments(module=_Deviant(0.0))
    with pytest.raises(error, match=says) as raised:
        export_bundle(**(arguments | change(arguments)), out=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    assert not re.search(r"[.]bundle[.]|/tmp\w{8}/", str(raised.value)), "it names a folder that is gone"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("no-such-folder", "neither a folder nor package.module:function"),
        ("no_such_module_here:make", "cannot be imported"),
        ("json:no_such_function", "json has no no_such_function"),
        ("sys:path", "is no function but a list"),
        ("os:getpid", "returned a int"),
        ("os:environ.copy", "neither a folder"),
    ],
)
def test_sources_that_are_none(source, says):
    with pytest.raises(ConfigError, match=says):
        arguments_of(source, Given())


@pytest.mark.parametrize(
    ("gives", "says"),
    [
        (lambda x: x.argmax(1), r"'embedding' is int64 of shape \(1, 3\)"),
        (lambda x: x.mean(), r"'embedding' is float32 of shape \(\)"),
        (lambda x: x.repeat(2, 1, 1), r"expected float32 of shape \(1, ...\)"),
        (lambda x: x / 0.0, "holds NaN or Inf on window 0, in PyTorch already"),
    ],
)
def test_outputs_that_no_head_can_take_are_named(gives, says):
    class Network(torch.nn.Module):
        def forward(self, window):
            return gives(window)

    with pytest.raises(EngineError, match=says):
        run_torch(Network(), np.zeros((2, 5, 3), np.float32), ["embedding"])


def test_what_a_module_of_ones_own_raises_is_named(tmp_path, monkeypatch):
    (tmp_path / "raising_network.py").write_text("def make():\n    raise ZeroDivisionError('bang')\n")
    (tmp_path / "raising_module.py").write_text("import json\njson.nothing\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"make raised ZeroDivisionError: bang \(.*raising_network.py, line 2\)"):
        arguments_of("raising_network:make", Given())
    with pytest.raises(ConfigError, match=r"raising_module cannot be imported: AttributeError: .*nothing"):
        arguments_of("raising_module:make", Given())


def test_a_failed_export_says_so_in_one_line(capfd):
    class Branches(torch.nn.Module):
        def forward(self, window):
            return window if window.sum() > 0 else -window

    with pytest.raises(EngineError, match="Branches cannot be exported to ONNX"):
        to_onnx(Branches(), (5, 3), ["embedding"])
    assert capfd.readouterr() == ("", "")


def test_a_place_that_cannot_be_written_is_found_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    arguments = _arguments() | {"module": None}
    with pytest.raises(ConfigError, match=r"file.bundle.* cannot be written: .*file is no folder"):
        export_bundle(**arguments, out=tmp_path / "file" / "bundle")


def test_a_function_must_return_the_arguments():
    arguments = _arguments()
    check_arguments(arguments, "m:f")
    with pytest.raises(ConfigError, match="m:f returned 'out'"):
        check_arguments(arguments | {"out": 1}, "m:f")
    del arguments["contract"]
    with pytest.raises(ConfigError, match="m:f did not return contract"):
        check_arguments(arguments, "m:f")


def test_a_model_of_ones_own_on_the_command_line(tmp_path):
    """A file beside the user; the bundle it gives opens; a bad tolerance ends with the exit code of bundles."""
    (tmp_path / "mine.py").write_text(
        "import numpy as np, torch\n"
        "from rtdecode.encode.manifest import Contract, ContractChannel, EmbeddingHead\n"
        "from rtdecode.stream.steps import Conditioning\n"
        "from rtdecode.stream.window import Sliding\n"
        "class Mean(torch.nn.Module):\n"
        "    def forward(self, window):\n"
        "        return window.mean(1) + (0 if torch.compiler.is_exporting() else 1e-6)\n"
        "def make():\n"
        "    channels = tuple(ContractChannel(name=name, type='eeg', unit='V') for name in ('Cz', 'Pz'))\n"
        "    return dict(module=Mean(), name='mean', contract=Contract(channels=channels, sfreq=100.0),\n"
        "        conditioning=Conditioning(), arrays={}, windows=[Sliding(length=0.2, hop=0.1)],\n"
        "        heads=[EmbeddingHead(output='mean')], outputs=['mean'],\n"
        "        real_windows=np.random.default_rng(0).standard_normal((4, 20, 2)).astype('f4'))\n"
    )
    command = [sys.executable, "-m", "rtdecode", "export", "mine:make", "--out", "b.zip", "--json", "--latency", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert Bundle.open(tmp_path / "b.zip").id == report["bundle_id"]
    bad = subprocess.run(
        [*command, "--tolerance", "1e-7", "--overwrite"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert bad.returncode == GoldenError.exit_code
    assert "differs by" in bad.stderr
    assert "Traceback" not in bad.stderr
    assert Bundle.open(tmp_path / "b.zip").id == report["bundle_id"], "a refused export must leave the old bundle"
