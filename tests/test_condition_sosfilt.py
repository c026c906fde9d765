"""The short way into scipy's second-order sections gives the bytes of the public function."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given
from scipy import signal

from rtdecode.stream import filters


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 40), st.integers(1, 4))
def test_the_short_way_is_the_public_one(seed: int, channels: int, time: int, order: int) -> None:
    rng = np.random.default_rng(seed)
    sos = signal.butter(order, [1.0, 40.0], "bandpass", fs=250.0, output="sos")
    x = rng.standard_normal((time, channels))
    state = rng.standard_normal((channels, len(sos), 2))
    expected, after = signal.sosfilt(sos, x, axis=0, zi=state.transpose(1, 2, 0))
    for run in (filters._sosfilt, filters._sosfilt_public):  # type: ignore[attr-defined]  # imported from scipy
        rows, own = np.array(x.T, order="C"), state.copy()
        run(sos, rows, own)
        np.testing.assert_array_equal(rows.T, expected)
        np.testing.assert_array_equal(own.transpose(1, 2, 0), after)
