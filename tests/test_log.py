"""The log between acquire and decode: what is in it, what leaves it, and what a reader gets."""

import threading

import hypothesis.strategies as st
from hypothesis import given

from rtdecode.daemon.log import Entry, ReplayLog

sizes = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 8)), max_size=60)


def fill(max_seconds: float, max_bytes: int, messages: list[tuple[int, int]]) -> tuple[ReplayLog, list[bytes]]:
    log = ReplayLog(max_seconds, max_bytes)
    time = 0.0
    sent = []
    for n, (size, wait) in enumerate(messages):
        time += wait
        body = n.to_bytes(2, "big") + bytes(size)
        sent.append(body)
        entry = log.append((body,), time)
        assert entry.seq == n
    return log, sent


@given(sizes, st.integers(1, 30), st.integers(1, 300))
def test_holds_exactly_the_newest_that_fit(messages: list[tuple[int, int]], seconds: int, n_bytes: int) -> None:
    log, sent = fill(seconds, n_bytes, messages)
    entries = log.since(0)
    assert [entry.seq for entry in entries] == list(range(log.oldest, log.next))
    assert [entry.frames[0] for entry in entries] == sent[log.oldest :]
    assert log.next == len(sent)
    assert log.n_bytes == sum(len(body) for body in sent[log.oldest :])
    if len(entries) > 1:
        assert log.n_bytes <= n_bytes
        assert entries[-1].time - entries[0].time <= seconds
    if log.oldest:  # what left had to leave: with it, one of the bounds was exceeded at that moment or is now
        times = [sum(wait for _, wait in messages[: n + 1]) for n in range(len(messages))]
        gone = log.oldest - 1
        assert any(
            sum(len(body) for body in sent[gone : newest + 1]) > n_bytes or times[newest] - times[gone] > seconds
            for newest in range(gone + 1, len(sent))
        )


@given(sizes, st.integers(-5, 80))
def test_since_gives_a_suffix_from_the_asked_number_on(messages: list[tuple[int, int]], seq: int) -> None:
    log, _ = fill(20, 200, messages)
    assert log.since(seq) == [entry for entry in log.since(0) if entry.seq >= seq]


@given(sizes, st.integers(1, 120))
def test_pages_put_together_are_the_whole(messages: list[tuple[int, int]], page: int) -> None:
    log, _ = fill(1e9, 10**9, messages)
    whole: list[Entry] = []
    while True:
        entries = log.since(len(whole), max_bytes=page)
        if not entries:
            break
        assert len(entries) == 1 or sum(entry.n_bytes for entry in entries) <= page
        whole += entries
    assert whole == log.since(0)
    assert len(whole) == len(messages)


def test_a_reader_beside_the_writer_sees_no_hole() -> None:
    log = ReplayLog(1e9, 2000)
    stop = threading.Event()
    holes = []

    def read() -> None:
        while not stop.is_set():
            seqs = [entry.seq for entry in log.since(0)]
            if seqs and seqs != list(range(seqs[0], seqs[-1] + 1)):
                holes.append(seqs)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20_000):
        log.append((b"x" * 10,), 0.0)
    stop.set()
    reader.join()
    assert not holes


def test_an_empty_log_says_so() -> None:
    log = ReplayLog(1.0, 100)
    assert (log.oldest, log.next, log.since(0)) == (0, 0, [])


def test_one_message_larger_than_the_bound_stays() -> None:
    log = ReplayLog(1.0, 10)
    log.append((bytes(5),), 0.0)
    log.append((bytes(50),), 0.0)
    assert [entry.seq for entry in log.since(0)] == [1]
