"""Options that no system can be built with, each refused by a line that names it."""

import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="systems need torch: pip install rtdecode[train]")

from rtdecode.errors import ConfigError
from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.registry import build
from rtdecode_models.training.network import make_system

SHAPE = Shape(
    n_times=250,
    n_channels=8,
    sfreq=250.0,
    channels=tuple("ABCDEFGH"),
    classes={"label": 2},
    targets={"image": (8,)},
    positions=np.random.default_rng(0).random((8, 2)),
)


@pytest.mark.parametrize(
    ("system", "options", "says"),
    [
        ("eegnet", {"dropout": math.nan}, "dropout is nan"),
        ("nice", {"dropout": math.nan}, "dropout is nan; expected finite numbers"),
        ("nice", {"baseline": math.inf}, "baseline is inf; expected finite numbers"),
        ("atm", {"subjects": -1}, "subjects is -1; expected 0 or more"),
        ("mixer", {"blocks": -1}, "blocks is -1; expected 0 or more"),
        ("mixer", {"blocks": 10**9}, "blocks is 1000000000; expected at most 1000"),
        ("simpleconv", {"n_blocks": 10**9}, "n_blocks is 1000000000; expected at most 1000"),
        ("brain-module", {"width": -1}, "width is -1; expected 1 or more"),
        ("brain-module", {"blocks": 0}, "blocks is 0; expected 1 or more"),
        ("brain-module", {"virtual": 0}, "virtual is 0; expected 1 or more"),
        ("brain-module", {"dilation_period": 0}, "dilation_period is 0; expected 1 or more"),
        ("simpleconv", {"width": 10**9 + 7}, "cannot be built with these options"),
    ],
)
def test_options_that_make_no_sense_are_named(system, options, says):
    with pytest.raises(ConfigError, match=rf"system '{system}'.*{says}"):
        build(system, options, SHAPE)


@pytest.mark.parametrize(
    ("system", "says"),
    [
        ("os:system", "'os:system', called with the options and the shape of the data, raised TypeError"),
        ("os:nothing", "'os:nothing' cannot be had: AttributeError"),
        ("nowhere.at.all:build", "cannot be had: ModuleNotFoundError"),
        ("math:dist", "raised TypeError"),
    ],
)
def test_a_builder_of_ones_own_that_fails_is_named(system, says):
    with pytest.raises(ConfigError, match=says):
        make_system(system, {}, SHAPE)
