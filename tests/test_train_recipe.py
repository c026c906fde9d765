"""Recipes: what is accepted, and that everything else is refused with its place."""

import copy
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch: pip install rtdecode[train]")

from rtdecode.errors import ConfigError
from rtdecode.stream.steps import Filter
from rtdecode_models.training.recipe import parse_recipe, read_recipe, variants

GOOD = tomllib.loads("""
name = "r"
seeds = [1, 2]
[recordings]
train = ["a.edf", "b.edf"]
test = ["c.edf"]
[labels]
left = ["L*"]
right = ["R"]
[window]
tmin = 0.5
tmax = 2.0
[[conditioning.stream]]
step = "filter"
low = 8.0
high = 30.0
[[select.vary]]
key = "conditioning.stream.0"
values = [{ low = 7.0 }, { high = 20.0 }]
[[select.vary]]
key = "model.width"
values = [4, 8, 16]
""")


def test_a_good_recipe():
    recipe = parse_recipe(GOOD, "r.toml")
    assert recipe.markers == ("L*", "R")
    assert recipe.locked.n_samples(100) == 150
    assert recipe.conditioning.stream == (Filter(low=8.0, high=30.0),)


def _at(table, path, value):
    table = copy.deepcopy(table)
    at = table
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return table


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (["modle"], {}, "unknown field `modle`"),
        (["window", "tmix"], 1, r"`tmix`.*\$\.window"),
        (["window", "tmax"], "2", r"Expected `float`.*\$\.window\.tmax"),
        (["window", "tmax"], 0.1, "window ends at 0.1 s"),
        (["conditioning", "stream", 0, "step"], "fliter", r"fliter.*\$\.conditioning\.stream\[0\]"),
        (["conditioning", "stream", 0, "hi"], 1, r"`hi`.*\$\.conditioning\.stream\[0\]"),
        (["recordings", "train"], [], "recordings.train names no file"),
        (["recordings", "test"], ["b.edf"], r"\['b.edf'\].*must be unseen"),
        (["labels"], {"left": ["L"]}, "labels has 1 entries"),
        (["labels", "left"], [], "labels.left names no marker"),
        (["seeds"], [], "seeds is empty"),
        (["seeds"], [1, 1], "repeats a seed"),
        (["training"], {"epochs": 0}, "training.epochs is 0"),
        (["training"], {"batch_size": 1}, "training.batch_size is 1"),
        (["training"], {"learning_rate": 0}, "training.learning_rate is 0"),
        (["training"], {"drop_at": 1.5}, "training.drop_at is 1.5"),
        (["model"], {"width": 0}, "model.width is 0"),
        (["model"], {"dropout": 1.0}, "model.dropout is 1.0"),
        (["fit"], {"alignment_shrinkage": -0.1}, "fit.alignment_shrinkage is -0.1"),
        (["recordings", "train"], ["a.edf"], "select.vary leaves out one run"),
        (["select", "method"], "peek-at-the-test", r"\$\.select\.method"),
    ],
)
def test_bad_recipes_name_the_place(path, value, says):
    with pytest.raises(ConfigError, match=f"(?s)r.toml.*{says}"):
        parse_recipe(_at(GOOD, path, value), "r.toml")


def test_the_grid_is_a_product_and_tables_merge():
    recipe = parse_recipe(GOOD, "r.toml")
    tried = [parse_recipe(table, "variant") for _, table in variants(GOOD, recipe.select)]
    assert len(tried) == 6
    assert {(t.conditioning.stream[0], t.model.width) for t in tried} == {
        (Filter(low=low, high=high), width) for low, high in [(7.0, 30.0), (8.0, 20.0)] for width in (4, 8, 16)
    }
    assert "model" not in GOOD, "a variant changed the recipe itself"


@pytest.mark.parametrize("key", ["conditioning.stream.5", "conditioning.stream.x", "name.first", "seeds.7"])
def test_a_grid_over_no_place_is_refused(key):
    table = _at(GOOD, ["select"], {"vary": [{"key": key, "values": [{"low": 1.0}]}]})
    with pytest.raises(ConfigError, match=f"{key}.*no place"):
        list(variants(table, parse_recipe(table, "r.toml").select))


def test_every_setting_of_the_grid_is_checked_before_training(tmp_path):
    path = tmp_path / "r.toml"
    text = 'name="r"\nrecordings.train=["a","b"]\nlabels={l=["L"],r=["R"]}\nwindow={tmin=0.0,tmax=1.0}\n'
    path.write_text(text + '[[select.vary]]\nkey="model.width"\nvalues=[4, 0]\n')
    with pytest.raises(ConfigError, match=r"with model.width = 0: model.width is 0"):
        read_recipe(path)
    path.write_text(text + '[[select.vary]]\nkey="model.widht"\nvalues=[4]\n')
    with pytest.raises(ConfigError, match=r"`widht`.*\$\.model"):
        read_recipe(path)


@pytest.mark.parametrize(("content", "says"), [(b"name = ", "is not TOML"), (b"\xff\xfe", "is not TOML")])
def test_a_file_that_is_no_toml(tmp_path, content, says):
    path = tmp_path / "r.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        read_recipe(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere.toml cannot be read"):
        read_recipe(tmp_path / "nowhere.toml")


def test_the_recipes_in_the_repository_are_good():
    folder = Path(__file__).resolve().parents[1] / "models" / "recipes"
    recipes = [read_recipe(path)[0] for path in sorted(folder.glob("*.toml"))]
    assert recipes
