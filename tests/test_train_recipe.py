"""Recipes: what is accepted, and that everything else is refused with its place."""

import copy
import math
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch: pip install rtdecode[train]")

from rtdecode.errors import ConfigError
from rtdecode.stream.steps import Filter
from rtdecode_models.data.spec import Recordings
from rtdecode_models.data.splits import Held
from rtdecode_models.training.losses_classify import CrossEntropySpec
from rtdecode_models.training.losses_contrastive import BiMixCoSpec, InfoNCESpec
from rtdecode_models.training.recipe import Init, parse_recipe, read_recipe, variants
from rtdecode_models.training.schedule import Cosine
from rtdecode_models.training.tasks import Classes, Retrieval
from rtdecode_models.training.training_spec import Mixup

GOOD = tomllib.loads("""
name = "r"
seeds = [1, 2]
[data]
kind = "recordings"
window = { tmin = 0.5, tmax = 2.0 }
[data.subjects]
s1 = ["a.edf", "b.edf", "c.edf"]
[data.labels]
left = ["L*"]
right = ["R"]
[[data.conditioning.stream]]
step = "filter"
low = 8.0
high = 30.0
[split]
test = { by = "session", names = ["c.edf"] }
[leave_one_out]
validation = "session"
[model]
system = "simpleconv"
width = 12
freeze = ["stem.*"]
[[loss]]
kind = "cross_entropy"
smoothing = 0.1
[training]
optimiser = "adamw"
schedule = { kind = "cosine", warmup = 0.1 }
augment = [{ kind = "mixup", alpha = 0.2 }]
[[select.vary]]
key = "data.conditioning.stream.0"
values = [{ low = 7.0 }, { high = 20.0 }]
[[select.vary]]
key = "model.width"
values = [4, 8, 16]
""")

RETRIEVAL = {"kind": "infonce", "target": "image"}


def test_a_good_recipe():
    recipe = parse_recipe(GOOD, "r.toml")
    assert isinstance(recipe.data, Recordings)
    assert recipe.data.conditioning is not None
    assert recipe.data.labels == {"left": ("L*",), "right": ("R",)}
    assert recipe.data.conditioning.stream == (Filter(low=8.0, high=30.0),)
    assert recipe.split.test == Held(by="session", names=("c.edf",))
    assert recipe.model.system == "simpleconv"
    assert recipe.model.options == {"width": 12}
    assert recipe.model.freeze == ("stem.*",)
    assert isinstance(recipe.losses[0], CrossEntropySpec)
    assert recipe.losses[0].smoothing == 0.1
    assert recipe.training.schedule == Cosine(warmup=0.1)
    assert recipe.training.augment == (Mixup(alpha=0.2),)
    assert recipe.tasks == (Classes(),)


def test_what_is_scored_follows_from_the_losses_unless_it_is_said():
    losses = [
        {**RETRIEVAL, "normalise": "none", "weight": 0.99},
        {"kind": "mse", "target": "image"},
        {"kind": "mse", "target": "text", "output": "words"},
        {"kind": "cross_entropy", "label": "subject", "output": "subject_logits"},
        {"kind": "own"},
    ]
    recipe = parse_recipe({**GOOD, "loss": losses}, "r.toml")
    assert isinstance(recipe.losses[0], InfoNCESpec)
    assert recipe.tasks == (
        Retrieval(metric="dot"),
        Retrieval(output="words", target="text", standardised=True),
    )
    said = parse_recipe({**GOOD, "loss": losses, "score": [{"kind": "classify", "label": "colour"}]}, "r.toml")
    assert said.tasks == (Classes(label="colour"),)
    assert parse_recipe({**GOOD, "loss": [{"kind": "own"}]}, "r.toml").tasks == ()


def test_initial_weights_are_named_by_a_folder_or_in_full():
    def init(value):
        return parse_recipe({**GOOD, "model": {"system": "du-in", "init": value}}, "r.toml").model.init

    assert init("folder") == Init(checkpoint="folder")
    assert init({"checkpoint": "folder", "prefix": "encoder.", "skip": ["head.*"]}).skip == ("head.*",)


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
        (["data", "window", "tmix"], 1, r"`tmix`.*\$\.data\.window"),
        (["data", "window", "tmax"], "2", r"Expected `float`.*\$\.data\.window\.tmax"),
        (["data", "kind"], "recordnigs", r"recordnigs.*\$\.data\.kind"),
        (["data", "conditioning", "stream", 0, "step"], "fliter", r"fliter.*\$\.data\.conditioning\.stream\[0\]"),
        (["data", "conditioning", "stream", 0, "hi"], 1, r"`hi`.*\$\.data\.conditioning\.stream\[0\]"),
        (["split", "test"], {"by": "sesion"}, r"sesion.*\$\.split\.test\.by"),
        (["seeds"], [], "seeds is empty"),
        (["seeds"], [1, 1], "repeats a seed"),
        (["model"], {"width": 1}, "missing required field `system`"),
        (["model", "init"], {"checkpoint": "x", "form": 1}, r"`form`.*\$\.model\.init"),
        (["loss"], [RETRIEVAL, {"kind": "infonse"}], r"loss\[1\].*infonse"),
        (["loss"], [{**RETRIEVAL, "temperature": 1}], r"loss\[0\].*`temperature`"),
        (["loss"], [{**RETRIEVAL, "scale": "raw", "init": -1.0}], r"loss\[0\].*above 0"),
        (["training"], {"epochs": 0}, "training.epochs is 0"),
        (["training"], {"batch_size": 1}, "training.batch_size is 1"),
        (["training"], {"learning_rate": 0}, "training.learning_rate is 0"),
        (["training"], {"weight_decay": -1}, "training.weight_decay is -1"),
        (["training"], {"betas": [0.9, 1.0]}, "training.betas are"),
        (["training"], {"clip_norm": 0}, "training.clip_norm is 0"),
        (["training"], {"threads": 0}, "training.threads is 0"),
        (["training"], {"schedule": {"kind": "cosine", "warmup": 1.0}}, "training.schedule.warmup is 1"),
        (["training"], {"schedule": {"kind": "cosin"}}, r"cosin.*\$\.training\.schedule"),
        (["training"], {"augment": [{"kind": "mixup", "alpha": 0}]}, r"training.augment\[0\].alpha is 0"),
        (["training"], {"augment": [{"kind": "noise", "share": 2}]}, r"training.augment\[0\].share is 2"),
        (["training"], {"augment": [{"kind": "noise", "stop": 0}]}, r"training.augment\[0\] counts from 0"),
        (["training"], {"early_stopping": {"monitor": "loss"}}, "training.early_stopping needs trials to watch"),
        (["training"], {"early_stopping": {"monitor": "train_loss", "patience": 0}}, "patience is 0"),
        (["training"], {"groups": [{"parameters": ["x"], "learning_rate": 0}]}, r"groups\[0\].learning_rate is 0"),
        (["seeds"], [-1], r"seeds are \[-1\]"),
        (["seeds"], [2**70], "expected 0 to 2"),
        (["split", "seed"], -1, r"seed is -1; expected 0 or more.*\$\.split"),
        (["loss"], [{**RETRIEVAL, "weight": math.nan}], r"loss\[0\].*weight is nan"),
        (["loss"], [{"kind": "blur_prior:UncertaintyBlur", "start": "x"}], r"loss\[0\].*\$\.start"),
        (["loss"], [{"kind": "cross_entropy", "smoothing": 2.0}], "smoothing is 2.0"),
        (["loss"], [{"kind": "cross_entropy", "class_weights": [1.0, -1.0]}], "class_weights are"),
        (["loss"], [{"kind": "cross_entropy", "class_weights": [0.0, 0.0]}], "not all of them 0"),
        (["training"], {"learning_rate": 1e300}, r"training.learning_rate is 1e\+300"),
        (["training"], {"weight_decay": math.inf}, "training.weight_decay is inf"),
        (["training"], {"threads": 10**6}, "training.threads is 1000000"),
        (["training"], {"save_minutes": math.nan}, "training.save_minutes is nan"),
        (["training"], {"schedule": {"kind": "cosine", "final": math.nan}}, "training.schedule.final is nan"),
        (["training"], {"schedule": {"kind": "step", "at": [2.0]}}, r"training.schedule.at is \[2.0\]"),
        (["training"], {"schedule": {"kind": "onecycle", "rise": 1.0}}, "training.schedule.rise is 1.0"),
        (["training"], {"schedule": {"kind": "onecycle", "first": 0.0}}, "training.schedule.first is 0.0"),
        (["training"], {"augment": [{"kind": "shift", "seconds": -1}]}, r"augment\[0\].seconds is -1"),
        (["training"], {"augment": [{"kind": "shift", "seconds": math.inf}]}, r"augment\[0\].seconds is inf"),
        (["training"], {"augment": [{"kind": "noise", "sd": math.nan}]}, r"augment\[0\].sd is nan"),
        (["training"], {"groups": [{"parameters": ["x"], "weight_decay": -1}]}, r"groups\[0\].weight_decay is -1"),
        (["select", "vary", 0, "values"], [], r"select.vary\[0\].values is empty"),
        (["leave_one_out"], {}, "select.vary needs leave_one_out.validation or split.validation"),
        (["select", "monitor"], "the-test", r"\$\.select\.monitor"),
    ],
)
def test_bad_recipes_name_the_place(path, value, says):
    with pytest.raises(ConfigError, match=f"(?s)r.toml.*{says}"):
        parse_recipe(_at(GOOD, path, value), "r.toml")


def test_a_blend_is_what_bimixco_is_for():
    table = {**GOOD, "loss": [{"kind": "bimixco", "target": "image", "stop": 0.33}]}
    assert isinstance(parse_recipe(table, "r.toml").losses[0], BiMixCoSpec)
    with pytest.raises(ConfigError, match=r"training\.augment has no mixup, which the loss bimixco is made for"):
        parse_recipe({**table, "training": {}}, "r.toml")


def test_the_grid_is_a_product_and_tables_merge():
    recipe = parse_recipe(GOOD, "r.toml")
    tried = [parse_recipe(table, "variant") for _, table in variants(GOOD, recipe.select)]
    assert len(tried) == 6
    assert {(t.data.conditioning and t.data.conditioning.stream[0], t.model.options["width"]) for t in tried} == {
        (Filter(low=low, high=high), width) for low, high in [(7.0, 30.0), (8.0, 20.0)] for width in (4, 8, 16)
    }
    assert GOOD["model"]["width"] == 12, "a variant changed the recipe itself"


@pytest.mark.parametrize("key", ["data.conditioning.stream.5", "data.conditioning.stream.x", "name.first", "seeds.7"])
def test_a_grid_over_no_place_is_refused(key):
    table = _at(GOOD, ["select"], {"vary": [{"key": key, "values": [{"low": 1.0}]}]})
    with pytest.raises(ConfigError, match=f"{key}.*no place"):
        list(variants(table, parse_recipe(table, "r.toml").select))


def test_every_setting_of_the_grid_is_checked_before_training(tmp_path):
    path = tmp_path / "r.toml"
    text = (
        'name="r"\ndata={kind="simulated",experiment="words"}\nmodel={system="eegnet"}\n'
        'leave_one_out={validation="session"}\n[[loss]]\nkind="cross_entropy"\n'
    )
    path.write_text(text + '[[select.vary]]\nkey="training.epochs"\nvalues=[4, 0]\n')
    with pytest.raises(ConfigError, match=r"with training.epochs = 0: training.epochs is 0"):
        read_recipe(path)
    path.write_text(text + '[[select.vary]]\nkey="training.epohcs"\nvalues=[4]\n')
    with pytest.raises(ConfigError, match=r"`epohcs`.*\$\.training"):
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
    recipes = [read_recipe(path)[0] for path in sorted(folder.rglob("*.toml"))]
    assert recipes
