"""`rtdecode train` as real processes: killed and gone on with, interrupted, shared by two, and what they leave."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install rtdecode[train]")
pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install rtdecode[train]")

import train_kit as kit  # noqa: E402
import typer  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from rtdecode.errors import ConfigError  # noqa: E402
from rtdecode_models.cli import train  # noqa: E402
from rtdecode_models.training.checkpoint import Trained  # noqa: E402
from rtdecode_models.training.run import run  # noqa: E402

#: Everything on one process's thread, and no GPU.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def command(recipe, data, out, *more):
    return ["train", str(recipe), "--data", str(data), "--out", str(out), "--device", "cpu", *more]


def weights(folder):
    return load_file(folder / "weights.safetensors")


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def wait_until(process, happened):
    """Look, until it has happened or the process is gone; then say whether it has."""
    while process.poll() is None and not happened():
        time.sleep(0.02)
    return happened()


@pytest.mark.timeout(600)  # processes that begin slowly where much else runs
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_killed_and_interrupted_and_gone_on_with_to_the_same_weights(tmp_path, data):
    """kill -9 in the middle, then Ctrl-C in the middle, then to the end: bit for bit what one run gives."""
    training = {
        "epochs": 16,
        "batch_size": 20,
        "learning_rate": 1e-3,
        "schedule": {"kind": "cosine"},
        "augment": [{"kind": "mixup", "per": "window"}],
        "save_minutes": 0.0,  # after every batch
    }
    table = kit.table(data=kit.write_arrays(data), training=training, seeds=[0])
    recipe = kit.write_recipe(tmp_path / "r.toml", table)
    out = tmp_path / "out"
    state = out / "resume" / "seed-0.safetensors"
    python = [sys.executable, "-m", "rtdecode", *command(recipe, data, out)]

    first = subprocess.Popen(python, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    assert wait_until(first, state.exists), first.communicate()[1]
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert not (out / "weights.safetensors").exists()
    killed = state.read_bytes()

    second = subprocess.Popen(python, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    assert wait_until(second, lambda: state.read_bytes() != killed), second.communicate()[1]
    second.send_signal(signal.SIGINT)
    said = second.communicate()[1]
    assert second.returncode == 130, said
    assert "Run the same command again to go on from here" in said
    assert "Traceback" not in said
    assert not (out / "weights.safetensors").exists()

    [(_, metrics)] = run([recipe], data=data, out=out, device="cpu")
    assert len(metrics["learning_curves"][0]["loss"]) == 16
    assert not state.parent.exists(), "what a finished training leaves is the checkpoint"
    assert {path.name for path in out.iterdir()} == {
        *("weights.safetensors", "windows.safetensors", "checkpoint.json", "metrics.json"),
        *("learning_curves.png", "retrieval_curve.png"),
    }
    run([recipe], data=data, out=tmp_path / "whole", device="cpu")
    assert equal(weights(out), weights(tmp_path / "whole"))


@pytest.mark.timeout(600)
def test_two_processes_train_what_one_trains(tmp_path, data):
    """torchrun's environment, gloo: half of each batch in each process, and the contrast is over the whole batch."""
    table = kit.table(
        data=kit.write_arrays(data),
        model={"system": "ubp", "dropout": 0.0},
        loss=[
            {"kind": "infonce", "target": "image", "scale": "encoder", "normalise": "target"},
            {"kind": "mse", "target": "image", "weight": 0.1},
        ],
        training={
            "epochs": 3,
            "batch_size": 20,
            "learning_rate": 1e-3,
            "optimiser": "adamw",
            "clip_norm": 0.5,
            "augment": [{"kind": "noise"}],
            "early_stopping": {"monitor": "top1", "patience": 2},
        },
        split={"test": {"by": "session", "names": ["c"]}, "validation": {"by": "session", "names": ["b"]}},
        seeds=[0],
    )
    recipe = kit.write_recipe(tmp_path / "r.toml", table)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "rtdecode", *command(recipe, data, tmp_path / "two", "--json")],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1, "one of the two speaks"
    run([recipe], data=data, out=tmp_path / "one", device="cpu")
    two, one = weights(tmp_path / "two"), weights(tmp_path / "one")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6)
    assert not equal(one, kit_initial(recipe, data, tmp_path))
    curves = [
        json.loads((tmp_path / each / "metrics.json").read_text())["learning_curves"][0] for each in ("one", "two")
    ]
    assert curves[1]["loss"] == pytest.approx(curves[0]["loss"], rel=1e-4)


def kit_initial(recipe, data, folder):
    """The weights as they are at first: a training whose rate is next to nothing."""
    still = recipe.with_name("still.toml")
    still.write_text(recipe.read_text().replace("0.001", "1e-12"))
    run([still], data=data, out=folder / "still", device="cpu")
    return weights(folder / "still")


def test_a_bad_recipe_is_told_before_anything_is_read(tmp_path):
    recipe = kit.write_recipe(tmp_path / "r.toml", kit.table(training={"epohcs": 1}))
    given = CliRunner().invoke(app(), command(recipe, tmp_path / "nowhere", tmp_path / "out")[1:])
    assert isinstance(given.exception, ConfigError)
    assert "`epohcs`" in str(given.exception)
    assert given.exception.exit_code == 2
    assert not (tmp_path / "out").exists()


def app():
    """The verb alone, as the entry point gives it."""
    alone = typer.Typer()
    alone.command()(train)
    return alone


def test_selecting_keeps_the_table_and_the_setting(tmp_path, data):
    table = kit.table(
        data=kit.write_arrays(data),
        seeds=[0],
        leave_one_out={"validation": "session"},
        loss=[{"kind": "cross_entropy"}],
        model={"system": "simpleconv", "width": 2, "n_blocks": 1, "kernel": 3},
        training={"epochs": 1, "batch_size": 20},
        select={"vary": [{"key": "model.width", "values": [2, 3]}]},
    )
    recipe = kit.write_recipe(tmp_path / "r.toml", table)
    [(folder, metrics)] = run([recipe], data=data, out=tmp_path / "out", select=True, device="cpu")
    rows = metrics["selection"]
    assert {row["setting"]["model.width"] for row in rows} == {2, 3}
    assert rows[0]["ensemble"]["nll"] <= rows[1]["ensemble"]["nll"]
    assert Trained.load(folder).checkpoint.recipe.model.options["width"] == rows[0]["setting"]["model.width"]
    assert (folder / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_each_test_has_a_checkpoint_and_all_together_a_summary(tmp_path, data):
    table = kit.table(
        data=kit.write_arrays(data),
        seeds=[0],
        split={},
        leave_one_out={"test": "session"},
        training={"epochs": 1, "batch_size": 20},
    )
    given = run([kit.write_recipe(tmp_path / "r.toml", table)], data=data, out=tmp_path / "out", device="cpu")
    assert [folder.name for folder, _ in given] == ["a", "b", "c"]
    summary = json.loads((tmp_path / "out" / "metrics.json").read_text())
    top1 = summary["tasks"]["embedding/image"]["top1"]
    found = [metrics["test"]["tasks"]["embedding/image"]["scores"]["top1"]["mean"] for _, metrics in given]
    assert list(top1["by_test"].values()) == found
    assert top1["mean"] == pytest.approx(sum(found) / 3)
    assert all(Trained.load(folder).checkpoint.name == "kit" for folder, _ in given)
