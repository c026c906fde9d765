"""The samples at which windows are due, told beforehand, are those at which they are due."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import hypothesis.strategies as st
from hypothesis import assume, given

from rtdecode.config import PipelineConfig
from rtdecode.daemon.grid import due_grid
from rtdecode.decoder import Decoder
from rtdecode.signal import Channel
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.steps import Filter, Resample, StreamStep
from rtdecode.stream.window import Locked, Sliding, WindowSpec

SFREQ = 1200.0
CHANNELS = (Channel("a", "mag", "T"),)

chains: st.SearchStrategy[list[StreamStep]] = st.sampled_from(
    [
        [],
        [Filter(low=1.0, high=40.0, order=2)],
        [Resample(sfreq=120.0)],
        [Resample(sfreq=500.0)],
        [Resample(sfreq=250.0), Resample(sfreq=100.0)],
        [Resample(sfreq=500.0), Resample(sfreq=400.0)],
    ]
)


def grid(chain: list[StreamStep], windows: list[WindowSpec], **settings: Any) -> tuple[Conditioner, tuple[int, int]]:
    conditioner = Conditioner(chain, CHANNELS, SFREQ, {})
    decoder = cast("Decoder", SimpleNamespace(windows=tuple(windows), conditioner=conditioner))
    return conditioner, due_grid(decoder, PipelineConfig(bundle=Path("b"), publish="tcp://127.0.0.1:0", **settings))


@given(chains, st.integers(1, 60), st.integers(1, 100))
def test_windows_are_due_where_the_grid_says(chain: list[StreamStep], hop: int, length: int) -> None:
    sfreq = Conditioner(chain, CHANNELS, SFREQ, {}).sfreq
    conditioner, (every, first) = grid(chain, [Sliding(length=length / sfreq, hop=hop / sfreq)])
    assume(every)
    for k in range(30):
        at = first + k * every
        assert conditioner.outputs_before(at) >= length + k * hop
        assert conditioner.outputs_before(at - 1) < length + k * hop


def test_where_there_is_a_grid_and_where_there_is_none() -> None:
    sliding = Sliding(length=1.0, hop=0.05)
    assert grid([], [sliding])[1] == (60, 1200)
    assert grid([Resample(sfreq=120.0)], [sliding])[1] == (60, 1191)
    assert grid([], [Sliding(length=1.0, hop=0.0501)])[1] == (0, 0)
    assert grid([], [sliding, Sliding(length=1.0, hop=0.1, name="other")])[1] == (0, 0)
    assert grid([], [Locked(markers=("x",), tmin=0.0, tmax=1.0)])[1] == (0, 0)
    # 42 raw samples are 17.5 at 500 Hz, and 14 at 400 Hz.
    assert grid([Resample(sfreq=500.0), Resample(sfreq=400.0)], [Sliding(length=1.0, hop=0.035)])[1] == (0, 0)
