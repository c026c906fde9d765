"""The ring against the plainest model of it: a list that remembers everything."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtdecode.stream.ring import Ring

MISSING = np.nan


@given(
    capacity=st.integers(1, 40),
    first=st.integers(0, 100),
    writes=st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=20),
    data=st.data(),
)
def test_ring_equals_a_list(capacity: int, first: int, writes: list[tuple[bool, int]], data: st.DataObject) -> None:
    ring = Ring(capacity, 2, np.float64, first)
    model: list[float] = []
    for skip, n in writes:
        if skip:
            ring.skip(n)
            model += [MISSING] * n
        else:
            rows = np.arange(len(model), len(model) + n, dtype=float)
            ring.write(np.stack([rows, -rows], axis=1))
            model += rows.tolist()
    assert ring.next_index == first + len(model)
    assert ring.oldest_index == max(first, ring.next_index - capacity)
    start = data.draw(st.integers(ring.oldest_index, ring.next_index))
    stop = data.draw(st.integers(start, ring.next_index))
    view = ring.view(start, stop)
    expected = np.array(model[start - first : stop - first])
    came = ~np.isnan(expected)
    assert view.flags.c_contiguous
    assert not view.flags.writeable
    np.testing.assert_array_equal(view[came, 0], expected[came])
    np.testing.assert_array_equal(view[came, 1], -expected[came])


def test_a_window_is_a_view_not_a_copy() -> None:
    ring = Ring(8, 1)
    ring.write(np.zeros((8, 1), np.float32))
    view = ring.view(2, 6)
    ring.write(np.ones((4, 1), np.float32))
    assert view[:2].sum() == 2


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (0, 4), (1, 13), (5, 4)])
def test_rows_that_are_not_there_are_refused(start: int, stop: int) -> None:
    ring = Ring(10, 1)
    ring.write(np.zeros((12, 1), np.float32))
    with pytest.raises(IndexError, match=r"ring holds \[2, 12\)"):
        ring.view(start, stop)
