"""What is told about a source: holes, segments, silence; each once, with its details."""

import numpy as np
import pytest

from rtdecode.daemon.account import SourceAccount
from rtdecode.signal import Batch, Chunk, Notice, SourceState

SFREQ = 100.0


def batch(
    first: int,
    n: int = 5,
    segment: int = 0,
    stamp: float | None = None,
    invalidates: int | None = None,
    *notices: Notice,
) -> Batch:
    stamps = (first / SFREQ if stamp is None else stamp) + np.arange(n) / SFREQ
    chunk = Chunk(np.zeros((n, 2), np.float32), stamps, first, segment, 0.0, 0.002, invalidates)
    return Batch(chunk, notices=notices)


def begun() -> SourceAccount:
    """A source that has given its first five samples."""
    account = SourceAccount(0.0, SFREQ)
    (first,) = account.took(batch(0), 0.05, held_up=False)
    assert (first.event, first.state) == ("state", SourceState.STREAMING)
    return account


def test_samples_that_follow_are_nothing_to_tell() -> None:
    account = begun()
    assert account.took(batch(5), 0.1, held_up=False) == []
    assert (account.position, account.samples) == ((0, 10), 10)


def test_a_hole_is_told_with_its_place_and_length() -> None:
    account = begun()
    (gap,) = account.took(batch(12), 0.1, held_up=False)
    assert gap.event == "gap"
    assert gap.details == {
        "segment": 0, "index": 12, "n": 7, "seconds": 0.07, "stamp": 0.12, "late": False, "invalidates": None
    }  # fmt: skip
    assert account.took(batch(17), 0.15, held_up=False) == []


def test_a_hole_that_was_found_late_says_from_where_on_samples_were_stamped_wrongly() -> None:
    account = begun()
    (gap,) = account.took(batch(9, invalidates=3), 0.1, held_up=False)
    assert (gap.details["n"], gap.details["late"], gap.details["invalidates"]) == (4, True, 3)
    assert "before index 3" in gap.text


def test_another_segment_is_told_with_how_long_after_the_last_it_begins() -> None:
    account = begun()
    (new,) = account.took(batch(0, segment=1, stamp=7.04), 7.1, held_up=False)
    assert new.event == "reconnect"
    assert new.details["segment"] == 1
    assert new.details["seconds"] == pytest.approx(7.0)
    assert new.details["uncertainty"] == 0.002


def test_what_a_source_says_comes_before_what_its_samples_say() -> None:
    account = begun()
    told = account.took(
        batch(
            0, 5, 1, 9.0, None,
            Notice("state", "lost", SourceState.RECOVERING),
            Notice("second sender", "two", details={"host": "b"}),
            Notice("state", "found", SourceState.STREAMING),
        ),
        9.1,
        held_up=False,
    )  # fmt: skip
    assert [notice.event for notice in told] == ["state", "second sender", "state", "reconnect"]
    assert [notice.state for notice in told] == ["recovering", None, "streaming", None]


def test_silence_is_a_stall_unless_it_was_us_who_slept() -> None:
    account = begun()
    assert account.wait(1.05) == pytest.approx(1.0)
    assert account.took(Batch(None), 60.0, held_up=True) == []
    assert account.wait(60.0) == 0.0  # look again at once
    (stalled,) = account.took(Batch(None), 60.0, held_up=True)  # a machine that is slow for ever hides nothing
    assert stalled.state is SourceState.STALLED
    assert account.status(61.0) == {
        "state": "stalled", "state_s": 1.0, "silent_s": pytest.approx(60.95), "stall_after_s": 2.0
    }  # fmt: skip


def test_the_end_is_told_once() -> None:
    account = begun()
    assert [notice.state for notice in account.ended("over", 1.0)] == [SourceState.ENDED]
    assert account.ended("over", 2.0) == []
