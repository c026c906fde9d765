"""The account: what is due and what is out are counted apart."""

import itertools
import subprocess
import sys
from pathlib import Path

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


def test_an_account_that_finds_no_room_is_told_once_and_ends_nothing(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from rtdecode.daemon.progress import Progress, ProgressFile\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "file = ProgressFile(Path(sys.argv[1]))\n"
        "file.save(Progress(run=1, due=7))\n"
        "assert file.load().due == 7\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))\n"
        "for due in range(8, 11):\n"
        "    file.save(Progress(run=1, due=due))\n"
        "    print(file.news())\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "file.save(Progress(run=1, due=11))\n"
        "assert file.load().due == 11\n"
        "print(file.news())\n"
    )
    path = tmp_path / "p.progress"
    said = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    told, *silent = said.stdout.split("\n")
    assert str(path) in told
    assert "decoding goes on" in told
    assert not any(silent)
    assert path.stat().st_size >= 65_536  # reserved, so that a disk that fills up later has room for it
