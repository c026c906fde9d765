"""The pictures beside a checkpoint, for names that a picture could take for formulas."""

import pytest

pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install rtdecode[train]")

from rtdecode_models.training.figures import chance_text, draw_figures, learning_curves


def metrics(name, labels):
    scored = {
        "kind": "classify",
        "trials": 24,
        "labels": labels,
        "confusion": [[11, 1], [0, 12]],
        "chance": {"accuracy": 0.5},
        "ensemble": {"accuracy": 0.958, "accuracy_95": [0.798, 0.993]},
    }
    return {
        "name": name,
        "learning_curves": [{"loss": [0.7, 0.6, 0.5]}],
        "best_epochs": [2],
        "test": {"tasks": {"logits/label": scored}},
    }


def test_names_with_dollars_are_drawn_as_they_are(tmp_path):
    written = draw_figures(metrics("costs $\\frac b$", ["$\\x$", "b"]), tmp_path)
    assert [path.name for path in written] == ["learning_curves.png", "confusion.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def test_epochs_are_whole():
    axes = learning_curves(metrics("r", ["a", "b"])).axes[0]
    assert axes.get_xlabel() == "epoch"
    assert all(tick == round(tick) for tick in axes.get_xticks())


def test_a_constant_answer_is_named_beside_chance_where_it_is_right_more_often():
    scored = {"chance": {"accuracy": 0.25, "top1": 0.1}, "majority": 0.4}
    assert chance_text(scored, "accuracy") == "0.250, majority 0.400"
    assert chance_text(scored, "top1") == "0.100"
    assert chance_text(scored | {"majority": 0.25}, "accuracy") == "0.250"
