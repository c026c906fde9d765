"""``rtdecode bundle inspect|verify``, as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import bundles
import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from rtdecode.cli.bundle import bundle_app
from rtdecode.encode.bundle import Bundle, write_bundle


def run(*arguments: object) -> Result:
    return CliRunner().invoke(bundle_app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "good.zip"
    write_bundle(path, *bundles.parts())
    return path


def test_inspect_says_what_the_bundle_is(good: Path) -> None:
    result = run("inspect", good)
    assert result.exit_code == 0
    bundle = Bundle.open(good)
    delay = bundle.conditioner().group_delay * 1e3
    for part in (
        bundle.id, "3 (eeg in V)", "E0 E1 E2", "100 Hz", "filter low=1.0 high=20.0", f"group delay  {delay:.1f} ms",
        "0.2 s every 0.05 s, 20 samples", "6 items of width 8, best 3, none of these below 0.1",
        "fists, feet; temperature 2",
        "3 windows, tolerance 0.0001, with a raw stream", "top1: 0.5", "seed: 0", "encoder.onnx", "clamp limit=2.5",
    ):  # fmt: skip
        assert part in result.output


def test_inspect_for_programs(good: Path) -> None:
    said = json.loads(run("inspect", good, "--json").output)
    bundle = Bundle.open(good)
    assert said["id"] == bundle.id
    assert said["contract"]["sfreq"] == 100
    assert said["conditioning"]["group_delay_s"] == bundle.conditioner().group_delay > 0
    assert said["windows"][0]["samples"] == 20
    assert said["heads"][0]["gallery_items"] == 6
    assert {name: file["sha256"] for name, file in said["files"].items()} == dict(bundle.files)


def test_what_a_bundle_says_is_text_not_markup(tmp_path: Path) -> None:
    manifest, files = bundles.parts()
    write_bundle(tmp_path / "b", msgspec.structs.replace(manifest, name="[red]x[/red] [/]"), files)
    assert "[red]x[/red] [/]" in run("inspect", tmp_path / "b").output


def test_verify_prints_each_check_with_its_figure(good: Path) -> None:
    result = run("verify", good)
    assert result.exit_code == 0
    for part in ("hashes  ", "manifest  ", "encoder  ", "golden windows  ", "golden raw stream  "):
        assert f"ok     {part}" in result.output
    assert "on cpu: 20 samples of 3 channels" in result.output
    assert "(allowed 0.0001)" in result.output


def damaged(tmp_path: Path, what: str) -> Path:
    manifest, files = bundles.parts()
    path = tmp_path / "b"
    if what == "hashes":
        write_bundle(path, manifest, files)
        rows = path / "gallery" / "rows.npy"
        rows.write_bytes(rows.read_bytes()[:-1] + b"\xff")
        return path
    changes: dict[str, Any] = {
        "manifest": {"gallery/rows.npy": np.ones((6, 5), np.float32)},
        "encoder": {"encoder.onnx": bundles.linear({"embedding": np.ones((42, 8), np.float32)}, 14, 3)},
        "golden windows": {"golden/logits.npy": np.ones((3, 2), np.float32)},
        "golden raw stream": {"golden/raw.npy": np.ones((200, 3), np.float32)},
    }
    bundles.write_raw(path, manifest, files | changes[what])
    return path


@pytest.mark.parametrize("what", ["hashes", "manifest", "encoder", "golden windows", "golden raw stream"])
def test_verify_names_the_check_that_failed(tmp_path: Path, what: str) -> None:
    path = damaged(tmp_path, what)
    result = run("verify", path)
    assert result.exit_code == 5
    assert f"failed {what}  " in result.output
    said = json.loads(run("verify", path, "--json").output)
    assert said["ok"] is False
    assert [check["name"] for check in said["checks"] if not check["ok"]] == [what]
    assert next(check["error"] for check in said["checks"] if not check["ok"]).startswith(str(path))


def test_verify_on_a_provider_that_is_not_there(good: Path) -> None:
    result = run("verify", good, "--provider", "warp")
    assert result.exit_code == 6
    assert "known are tensorrt, cuda, tensorrt-native, openvino, cpu" in result.output


def test_the_command_ends_with_a_message_and_no_traceback(tmp_path: Path) -> None:
    path = damaged(tmp_path, "hashes")
    done = subprocess.run(
        [sys.executable, "-m", "rtdecode", "bundle", "inspect", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 5
    assert "gallery/rows.npy was changed" in done.stderr
    assert "Traceback" not in done.stderr
