"""The folder of a checkpoint: one training has it, nothing in it is half written, and another recipe's is not lost."""

import errno
import json
import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch: pip install rtdecode[train]")

import train_kit as kit

from rtdecode.errors import ConfigError
from rtdecode_models.training.folder import claimed, folders_of, plain, write_whole
from rtdecode_models.training.run import run


@pytest.mark.skipif(sys.platform == "win32", reason="locks of folders")
def test_one_training_has_a_folder(tmp_path):
    refused = pytest.raises(ConfigError, match=r"another training is writing to .*out; wait for it")
    with claimed(tmp_path / "out", "r"), refused:
        claimed(tmp_path / "out", "r").__enter__()
    with claimed(tmp_path / "out", "r"):
        assert list((tmp_path / "out").iterdir()) == []


def test_a_file_or_another_recipes_checkpoint_is_no_folder_for_it(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=r"--out .*file.* cannot be written"):
            claimed(place, "r").__enter__()
    (tmp_path / "checkpoint.json").write_text(json.dumps({"name": "mine", "more": 1}))
    with pytest.raises(ConfigError, match="holds the checkpoint of another recipe, 'mine'; this one is 'r'"):
        claimed(tmp_path, "r").__enter__()
    with claimed(tmp_path, "mine"):
        pass


def test_a_wrong_folder_is_found_before_data_are_read(tmp_path):
    (tmp_path / "file").touch()
    recipe = kit.write_recipe(tmp_path / "r.toml", kit.table(data=kit.write_arrays(tmp_path)))
    for array in tmp_path.glob("*.npy"):
        array.unlink()
    with pytest.raises(ConfigError, match=r"--out .*file cannot be written"):
        run([recipe], data=tmp_path, out=tmp_path / "file", device="cpu")


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../../x", ".hidden", "resume"])
def test_names_stay_inside_their_folder(tmp_path, name):
    place = (tmp_path / plain(name)).resolve()
    assert place.parent == tmp_path.resolve()


def test_names_that_would_share_a_folder_are_refused(tmp_path):
    assert folders_of(["a", "b c"], tmp_path, "session") == [tmp_path / "a", tmp_path / "b_c"]
    for names in (["a/b", "a_b"], ["x", "resume"]):
        with pytest.raises(ConfigError, match=r"the session .* would be written to .*, which is taken"):
            folders_of(names, tmp_path, "session")


@pytest.mark.parametrize("full_at", [1, 2])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, full_at):
    write_whole(tmp_path, {"weights": b"old", "checkpoint.json": b"old"})
    synced = []

    def fsync(descriptor):
        synced.append(descriptor)
        if len(synced) == full_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=rf"No space left.*{('weights', 'checkpoint.json')[full_at - 1]}"):
        write_whole(tmp_path, {"weights": b"new", "checkpoint.json": b"new"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "weights": b"old",
        "checkpoint.json": b"old",
    }


def test_files_of_two_trainings_are_never_taken_for_one(tmp_path, monkeypatch):
    """Broken off between two renames: the file by which the others are found is not there."""
    write_whole(tmp_path, {"weights": b"old", "checkpoint.json": b"old"})
    replace = Path.replace
    done: list[object] = []

    def once(self, target):
        if done:
            raise KeyboardInterrupt
        done.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", once)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path, {"weights": b"new", "checkpoint.json": b"new"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"weights": b"new"}
