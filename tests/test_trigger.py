"""Trigger channels to markers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdecode.errors import SourceError
from rtdecode.signal import Channel, Chunk, Marker, StreamInfo
from rtdecode.sources.trigger import TriggerReader, TriggerRule, Triggers

SFREQ = 100.0
INFO = StreamInfo((Channel("E1", "eeg", "V"), Channel("STI", "stim", "1")), SFREQ, "test")

codes = st.lists(st.sampled_from([0.0, 0.0, 1.0, 5.0, 256.0, -1.0, math.nan]), min_size=1, max_size=60)
rules = st.builds(
    TriggerRule,
    st.just("STI"),
    mask=st.sampled_from([0xFF, 0xFFFF]),
    edge=st.sampled_from(["rising", "falling", "change"]),
    debounce_s=st.sampled_from([0.0, 0.02, 0.03]),
    delay_s=st.sampled_from([0.0, 0.05, -0.05]),
)


def chunk(values: list[float], first: int) -> Chunk:
    samples = np.column_stack([np.zeros(len(values)), values]).astype(np.float32)
    return Chunk(samples, (first + np.arange(len(values))) / SFREQ, first)


def by_definition(values: list[float], rule: TriggerRule) -> list[Marker]:
    """The rule's docstring, one sample at a time, looking ahead where it must."""
    hold = max(1, math.ceil(rule.debounce_s * SFREQ - 1e-6))
    filled: list[int] = []
    for value in values:
        code = (round(value) & rule.mask) if math.isfinite(value) else (filled[-1] if filled else 0)
        filled.append(code)
    state, markers, k = filled[0], [], 0
    while k < len(filled):
        if filled[k] == state:
            k += 1
            continue
        length = 1
        while k + length < len(filled) and filled[k + length] == filled[k]:
            length += 1
        if length >= hold:
            code = state if rule.edge == "falling" else filled[k]
            if code or rule.edge == "change":
                markers.append(Marker(k / SFREQ + rule.delay_s, str(code), "STI"))
            state = filled[k]
        k += length
    return markers


@given(codes, rules, st.data())
@settings(max_examples=200)
def test_markers_follow_the_definition_however_the_samples_are_cut(
    values: list[float], rule: TriggerRule, data: st.DataObject
) -> None:
    triggers = Triggers([rule], INFO)
    given_: list[Marker] = []
    passed = -math.inf
    begin = 0
    while begin < len(values):
        stop = data.draw(st.integers(begin + 1, len(values)))
        markers = triggers.feed(chunk(values[begin:stop], begin))
        assert all(marker.stamp > passed for marker in markers)  # none behind the watermark
        assert triggers.watermark >= passed
        given_ += markers
        passed = triggers.watermark
        begin = stop
    assert given_ == by_definition(values, rule)


def test_biosemi_status_sign_extended() -> None:
    status = np.array([0x3F0000, 0x3F0005, 0x3F0005, 0x3F0000], np.int64)
    extended = np.where(status & 0x200000, status - 0x400000, status)  # as a driver that extends the sign gives it
    for values in (status, extended, -0x1000000 + status):
        reader = TriggerReader(TriggerRule("Status", mask=0xFF), 2048.0)
        assert [m.value for m in reader.feed(values.astype(np.float32), np.arange(4) / 2048)] == ["5"]


def test_float_coded_values_are_rounded() -> None:
    reader = TriggerReader(TriggerRule("UPPT"), SFREQ)
    values = np.array([0.02, 4.9999, 5.0001, -0.01], np.float32)
    assert reader.feed(values, np.arange(4) / SFREQ) == [Marker(0.01, "5", "UPPT")]


def test_a_code_on_at_the_start_began_before_it() -> None:
    reader = TriggerReader(TriggerRule("STI"), SFREQ)
    assert reader.feed(np.array([7, 7, 0, 7], np.float32), np.arange(4) / SFREQ) == [Marker(0.03, "7", "STI")]


def test_a_hole_interrupts_a_code_that_has_not_lasted() -> None:
    triggers = Triggers([TriggerRule("STI", debounce_s=0.03)], INFO)
    assert triggers.feed(chunk([0, 5, 5], 0)) == []
    assert triggers.feed(chunk([5, 5], 50)) == []
    assert triggers.feed(chunk([5], 52)) == [Marker(0.5, "5", "STI")]


def test_another_segment_begins_anew() -> None:
    triggers = Triggers([TriggerRule("STI")], INFO)
    triggers.feed(chunk([0, 0], 0))
    again = chunk([5, 5, 0, 6], 0)
    segment = Chunk(again.samples, again.stamps + 9, 0, segment=1)
    assert [m.value for m in triggers.feed(segment)] == ["6"]


def test_a_channel_that_is_not_there_is_named() -> None:
    with pytest.raises(SourceError, match=r"no channel 'STI101'.*expected one of STI$"):
        Triggers([TriggerRule("STI101")], INFO)


@pytest.mark.parametrize("wrong", [{"mask": 0}, {"edge": "up"}, {"debounce_s": -1.0}, {"delay_s": math.nan}])
def test_rules_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(SourceError, match="trigger rule for channel 'STI'"):
        TriggerRule("STI", **wrong)  # type: ignore[arg-type]
