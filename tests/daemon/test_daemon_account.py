"""The account: what is due and what is out are counted apart."""

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given

from rtdecode.daemon.progress import Account, Progress
from rtdecode.decoder import Result, Status
from rtdecode.signal import Marker


def result(n: int, marker: Marker | None = None) -> Result:
    return Result("locked" if marker else "sliding", 0, n, 50, 250.0, Status.OK, marker=marker)


def total(account: Account) -> int:
    return sum(account.progress.counts.values())


def test_a_window_that_is_forgotten_shows() -> None:
    account = Account(Progress(run=1))
    items = account.take([result(0), result(25)], 0)
    assert isinstance(items[0], Result)
    account.settle(items[0], "ok", met=True)
    assert account.progress.due == 2
    assert total(account) == 1
    assert [owed.start for owed in account.progress.owed] == [25]


def test_a_window_that_is_doubled_shows() -> None:
    account = Account(Progress(run=1))
    account.take([result(0)], 0)
    account.settle(result(0), "ok", met=None)
    with pytest.raises(StopIteration):
        account.settle(result(0), "ok", met=None)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.data())
def test_whatever_a_process_left_the_next_settles_exactly(sizes: list[int], data: st.DataObject) -> None:
    """Entries of several windows each, settled in any order, cut off anywhere, by a log that kept any part."""
    count = itertools.count()
    entries = [
        [result(n, Marker(n / 10, "a") if n % 3 == 0 else None) for n in itertools.islice(count, k)] for k in sizes
    ]
    first = Account(Progress(run=1))
    taken = data.draw(st.integers(0, len(entries)))
    due = [item for seq in range(taken) for item in first.take(entries[seq], seq)]
    out = data.draw(st.lists(st.sampled_from(due), unique_by=id)) if due else []
    for item in out:
        assert isinstance(item, Result)
        first.settle(item, "ok", met=None)

    second = Account(first.progress)
    oldest = data.draw(st.integers(0, taken))
    forsaken: list[Result] = []
    rest = []
    for seq in range(oldest, len(entries)):
        if seq >= taken:
            forsaken += second.forsaken(Status.SKIPPED, "gone")
        rest += second.take(entries[seq], seq)
    forsaken += second.forsaken(Status.SKIPPED, "gone")
    for item in [*rest, *forsaken]:
        assert isinstance(item, Result)
        second.settle(item, item.status, met=None)
    everything = sum(sizes)
    starts = sorted(item.start for item in [*out, *rest, *forsaken])
    assert starts == list(range(everything))
    assert second.progress.due == total(second) == everything
    assert second.progress.owed == []
