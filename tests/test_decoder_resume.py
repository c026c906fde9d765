"""A decoder that goes on where another one was cut off: the windows of one that never was, but for those it names."""

import math
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_decoder import CHANNELS, SFREQ, Tape, TapEngine, payloads, tapes

from rtdecode.decoder import Decoder, Result, Status
from rtdecode.signal import Chunk
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.handling import Blank, Handling
from rtdecode.stream.window import Sliding

AWAY = "nobody was there"


def make(window: Sliding, handling: Handling) -> Decoder:
    return Decoder(
        columns=[0, 1, 2],
        channels=CHANNELS,
        n_stream_channels=3,
        sfreq=SFREQ,
        conditioner=Conditioner((), CHANNELS, SFREQ, {}),
        window_steps=(),
        windows=[window],
        engine=TapEngine(),
        heads=(),
        history_s=1e3,
        handling=handling,
    )


def chunks_of(tape: Tape, size: int) -> list[Chunk]:
    return [
        Chunk(p.samples[at : at + size], p.stamps[at : at + size], p.first_index + at, p.segment)
        for p in tape.pieces
        for at in range(0, len(p.stamps), size)
    ]


def segments_of(chunks: Sequence[Chunk]) -> list[tuple[int, int, int]]:
    """Number, first index and index behind the last sample of each."""
    found: dict[int, tuple[int, int, int]] = {}
    for one in chunks:
        first = found.get(one.segment, (0, one.first_index))[1]
        found[one.segment] = (one.segment, first, one.stop_index)
    return list(found.values())


def play(decoder: Decoder, chunks: Sequence[Chunk], lag: float) -> list[Result]:
    return [result for one in chunks for result in decoder.push(one, (), float(one.stamps[-1]) - lag)]


@settings(deadline=None, max_examples=100)
@given(
    tape=tapes(),
    window=st.builds(Sliding, length=st.sampled_from([0.05, 0.2, 0.31]), hop=st.sampled_from([0.02, 0.05, 0.333])),
    blank=st.sampled_from([None, "hold", "linear", "zero"]),
    lag=st.sampled_from([0.0, 0.2]),
    data=st.data(),
)
def test_resumed_anywhere_each_window_comes_once_as_it_would_have_or_says_why_not(
    tape: Tape, window: Sliding, blank: str | None, lag: float, data: st.DataObject
) -> None:
    blanks = () if blank is None else (Blank(("*",), -0.02, 0.05, blank, ()),)  # type: ignore[arg-type]
    handling = Handling(blanks=blanks)
    chunks = chunks_of(tape, data.draw(st.integers(5, 60)))
    cut = data.draw(st.integers(1, len(chunks)))
    # Where the next one begins to read: what was taken already is read again, or some has left the log.
    back = data.draw(st.integers(0, len(chunks)))

    uninterrupted = make(window, handling)
    uninterrupted.push(None, tape.markers)
    expected = play(uninterrupted, chunks, lag) + uninterrupted.finish()

    first = make(window, handling)
    first.push(None, tape.markers)
    given = play(first, chunks[:cut], lag)
    begun = segments_of([one for one in chunks[:cut] if one.segment >= first.segment])
    second = make(window, handling)
    second.push(None, tape.markers)
    resumed: list[Result] = []
    again = 0
    if back < cut:  # read again from there up to anywhere before the cut, and on from the cut
        oldest = chunks[back]
        for segment, start, stop in begun:
            if segment == oldest.segment:
                stop = min(stop, oldest.first_index)
            if segment <= oldest.segment and stop > start:
                resumed += second.resume(segment, start, stop, AWAY)
        again = data.draw(st.integers(back + 1, cut))
        resumed += play(second, chunks[back:again], lag)
    if again < cut:
        for segment, start, stop in begun:
            if segment >= second.segment:
                resumed += second.resume(segment, start, stop, AWAY)
    resumed += play(second, chunks[cut:], lag) + second.finish()

    frontier = max(((one.segment, one.start) for one in given), default=(-1, -1))
    news = [one for one in resumed if (one.segment, one.start) > frontier]
    ids = [(one.segment, one.start) for one in [*given, *news]]
    assert len(ids) == len(set(ids))
    assert set(ids) >= {(one.segment, one.start) for one in expected}
    # Beyond those that were due, none but such as the second says were cut short where it was not there.
    extra = {(one.segment, one.start) for one in news} - {(one.segment, one.start) for one in expected}
    assert all(one.status is not Status.OK for one in news if (one.segment, one.start) in extra)
    wanted = payloads(expected)
    for one in news:
        if one.status is Status.OK:
            assert payloads([one]) <= wanted
    assert payloads(given) <= wanted


def test_the_windows_that_end_where_nobody_was_are_skipped_and_say_why() -> None:
    decoder = make(Sliding(length=0.1, hop=0.1), Handling())
    found = decoder.resume(3, 0, 25, AWAY)
    assert [(one.segment, one.start, one.status, one.reason) for one in found] == [
        (3, 0, Status.SKIPPED, AWAY),
        (3, 10, Status.SKIPPED, AWAY),
    ]
    samples = np.zeros((25, 3), np.float32)
    stamps = 10 + np.arange(25) / SFREQ
    later = decoder.push(Chunk(samples, stamps, 25, 3), (), math.inf)
    assert [(one.start, one.status) for one in later] == [
        (20, Status.SKIPPED),
        (30, Status.OK),
        (40, Status.OK),
    ]
