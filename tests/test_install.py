"""The built wheel in an environment of its own: what it weighs, what it can do, and what it says it lacks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from edfio import Edf, EdfSignal

ROOT = Path(__file__).resolve().parents[1]
LIMIT_MB = 400

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Installed:
    """An environment with the wheel and the `cpu` extra, and nothing of the source tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "venv" / "bin" / "python"

    def run(self, *args: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [str(self.python), *args],
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done

    def rtdecode(self, *args: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "rtdecode", *args, expect=expect)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    here = Installed(folder)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    built = subprocess.run(
        [*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], capture_output=True, text=True, check=False
    )
    if built.returncode and "hatchling" in built.stderr and "No matching distribution" in built.stderr:
        pytest.skip("no package index can be reached, so no wheel can be built and installed")
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("rtdecode-*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    here.run("-m", "pip", "--quiet", "install", "-c", str(ROOT / "constraints.txt"), f"{wheel}[cpu]")
    return here


def test_the_daemon_weighs_less_than_400_mb(installed: Installed) -> None:
    (site,) = (installed.folder / "venv" / "lib").glob("python*/site-packages")
    parts = {
        part.name: sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
        for part in site.iterdir()
        if part.is_dir() and not part.name.startswith(("pip", "setuptools"))
    }
    total_mb = sum(parts.values()) / 1e6
    assert total_mb < LIMIT_MB, sorted(parts.items(), key=lambda item: -item[1])[:10]
    assert not parts.keys() & {"mne", "torch", "matplotlib", "PyQt6"}


def test_the_three_packages_are_in_the_wheel(installed: Installed) -> None:
    code = (
        "import rtdecode, rtdecode_models, rtdecode_export, importlib.resources as r;"
        "print(*(r.files(p).joinpath(f).is_file() for p, f in [('rtdecode.demo', 'bundle.zip'), ('rtdecode', 'py.typed')]))"  # noqa: E501
    )
    assert installed.run("-c", code).stdout.split() == ["True", "True"]


def test_the_demo_runs_from_the_wheel(installed: Installed) -> None:
    done = installed.rtdecode("demo", "--seconds", "6", "--json")
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["windows"] == sum(summary["statuses"].values()) > 0


@pytest.mark.parametrize(
    ("verb", "extra"),
    [
        (["train", "recipe.toml", "--data", ".", "--out", "out"], "train"),
        (["export", "checkpoint", "--out", "out.zip"], "train"),
    ],
)
def test_verbs_that_need_more_say_what_to_install(installed: Installed, verb: list[str], extra: str) -> None:
    (installed.folder / "recipe.toml").write_text("")
    done = installed.rtdecode(*verb, expect=2)
    assert f"rtdecode[{extra}" in done.stderr
    assert "Traceback" not in done.stderr


def test_recordings_without_mne_say_what_to_install(installed: Installed) -> None:
    Edf([EdfSignal(np.arange(200.0), 100, label="Cz", physical_dimension="uV")]).write(installed.folder / "some.edf")
    done = installed.rtdecode("stream", "some.edf", expect=3)
    assert "rtdecode[files]" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_engine_says_which_to_install(installed: Installed) -> None:
    installed.run("-m", "pip", "--quiet", "uninstall", "--yes", "onnxruntime")
    try:
        done = installed.rtdecode(
            "bundle", "verify", "--json", str(ROOT / "rtdecode" / "demo" / "bundle.zip"), expect=6
        )
    finally:
        installed.run("-m", "pip", "--quiet", "install", "-c", str(ROOT / "constraints.txt"), "onnxruntime")
    said = done.stdout + done.stderr
    assert "rtdecode[cpu]" in said
    assert "rtdecode[gpu]" in said
    assert "Traceback" not in said
