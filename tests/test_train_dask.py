"""Recipes as tasks of a cluster: a real one, of processes on this machine, one of which is killed."""

import json
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install rtdecode[train]")
distributed = pytest.importorskip("distributed", reason="clusters need dask: pip install rtdecode[dask]")

import train_kit as kit  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from rtdecode.errors import ConfigError  # noqa: E402
from rtdecode_models.training import cluster as cluster_of_recipes  # noqa: E402
from rtdecode_models.training.parts import Workshop  # noqa: E402
from rtdecode_models.training.recipe import read_recipe  # noqa: E402
from rtdecode_models.training.run import open_data, run  # noqa: E402


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Two worker processes on the loopback, without a dashboard; their folders are this test's."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        worker_dashboard_address=None,
        local_directory=str(tmp_path / "dask"),
    ) as running:
        yield running


def scores(metrics):
    """What was measured, without what says where and when."""
    return json.loads(json.dumps({key: metrics[key] for key in ("held_out", "test", "learning_curves", "best_epochs")}))


@pytest.mark.timeout(600)  # processes that begin slowly where much else runs
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_cluster_gives_what_one_process_gives_and_survives_a_killed_worker(tmp_path, cluster):
    """Two recipes, three networks each; a worker is killed while it trains, after its network's state was written."""
    data = tmp_path / "data"
    data.mkdir()
    table = kit.table(
        data=kit.write_arrays(data),
        seeds=[0],
        leave_one_out={"validation": "session"},
        training={"epochs": 4, "batch_size": 30, "augment": [{"kind": "mixup"}], "save_minutes": 0.0},
    )
    recipes = [
        kit.write_recipe(tmp_path / f"{name}.toml", {**table, "name": name, **more})
        for name, more in {"one": {}, "two": {"loss": [{"kind": "mse", "target": "image"}]}}.items()
    ]
    killed: list[int] = []

    def kill_the_first_that_saves():
        states = list((tmp_path / "far").glob("*/resume/*.safetensors"))
        if states and not killed:
            pid = next(iter(cluster.workers.values())).pid
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
        return False

    far = run(
        recipes,
        data=data,
        out=tmp_path / "far",
        dask=cluster.scheduler_address,
        watch=kill_the_first_that_saves,
    )
    near = run(recipes, data=data, out=tmp_path / "near", device="cpu")
    assert killed
    assert not psutil.pid_exists(killed[0]) or psutil.Process(killed[0]).status() == psutil.STATUS_ZOMBIE
    assert [folder.name for folder, _ in far] == [folder.name for folder, _ in near] == ["one", "two"]
    for (there, measured), (here, expected) in zip(far, near, strict=True):
        assert scores(measured) == scores(expected)
        ours, theirs = (load_file(folder / "weights.safetensors") for folder in (here, there))
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
        assert not (there / "resume").exists()


def test_mistakes_on_a_worker_are_told_as_they_are_here(tmp_path):
    """What a worker gives back for a recipe that does not fit, without a cluster."""
    import msgspec

    from rtdecode_models.training.cluster import train_unit
    from rtdecode_models.training.units import units_of

    table = kit.table(data=kit.write_arrays(tmp_path), model={"system": "ubp", "width": 3})
    recipe, _ = read_recipe(kit.write_recipe(tmp_path / "r.toml", table))
    assert Workshop(lambda recipe: open_data(recipe, tmp_path)).source(recipe).sessions == ("a", "b", "c")
    unit = units_of(recipe, recipe.split)[0]
    weights, told = train_unit(msgspec.json.encode(unit), str(tmp_path), str(tmp_path / "resume"))
    assert weights == b""
    assert "unknown field `width`" in msgspec.json.decode(told)["error"]


@pytest.mark.parametrize("address", ["frob", "tcp://a:b", "frob://a:1"])
def test_an_address_that_is_none_is_told_before_there_is_a_client(tmp_path, monkeypatch, address):
    monkeypatch.setattr(distributed, "Client", None)
    recipe = kit.write_recipe(tmp_path / "r.toml", kit.table(data=kit.write_arrays(tmp_path)))
    with pytest.raises(ConfigError, match=f"no dask scheduler answers at {address}"):
        run([recipe], data=tmp_path, out=Path(tmp_path / "out"), dask=address)


def test_no_scheduler_at_the_address(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_of_recipes, "ANSWER", "1s")
    recipe = kit.write_recipe(tmp_path / "r.toml", kit.table(data=kit.write_arrays(tmp_path)))
    with pytest.raises(ConfigError, match=r"no dask scheduler answers at tcp://127.0.0.1:1"):
        run([recipe], data=tmp_path, out=Path(tmp_path / "out"), dask="tcp://127.0.0.1:1")
