"""Contracts: which columns are decoded, and everything that keeps a stream from being decoded."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtdecode.encode.contract import ChannelRule, check_contract
from rtdecode.encode.manifest import Contract, ContractChannel
from rtdecode.errors import ContractError
from rtdecode.signal import Channel, StreamInfo

RULES: tuple[ChannelRule, ...] = ("strict", "by-name")
NAMES = ("Fz", "C3", "Cz", "C4", "Pz")


def contract(names: tuple[str, ...] = NAMES, sfreq: float = 160.0, **channel: str) -> Contract:
    fields = {"type": "eeg", "unit": "V"} | channel
    return Contract(channels=tuple(ContractChannel(name=name, **fields) for name in names), sfreq=sfreq)


def stream(names: tuple[str, ...] = NAMES, sfreq: float = 160.0, **channel: Any) -> StreamInfo:
    fields = {"type": "eeg", "unit": "V"} | channel
    return StreamInfo(tuple(Channel(name, **fields) for name in names), sfreq, "lsl:amp")


def message(info: StreamInfo, wanted: Contract | None = None, rule: Any = "strict") -> str:
    with pytest.raises(ContractError) as error:
        check_contract(info, wanted or contract(), rule)
    return str(error.value)


def with_others(info: StreamInfo, places: list[int], kind: str = "misc") -> StreamInfo:
    channels = list(info.channels)
    for number, place in enumerate(places):
        channels.insert(place, Channel(f"other {number}", kind, ""))
    return StreamInfo(tuple(channels), info.sfreq, info.source)


@given(places=st.lists(st.integers(0, 5), max_size=4), kind=st.sampled_from(["stim", "eog", "misc", "ecg"]))
def test_channels_that_are_no_data_ride_along(places: list[int], kind: str) -> None:
    info = with_others(stream(), places, kind)
    for rule in RULES:
        columns = check_contract(info, contract(), rule)
        assert tuple(info.channels[column].name for column in columns) == NAMES


@given(seed=st.integers(0, 10**6), extra=st.integers(0, 3))
def test_by_name_picks_whatever_the_order(seed: int, extra: int) -> None:
    names = [*NAMES, *(f"X{i}" for i in range(extra))]
    random.Random(seed).shuffle(names)
    info = stream(tuple(names))
    columns = check_contract(info, contract(), "by-name")
    assert tuple(names[column] for column in columns) == NAMES
    if tuple(names) == NAMES:
        assert check_contract(info, contract()) == (0, 1, 2, 3, 4)
    else:
        text = message(info)
        assert ("extra: " in text) == (extra > 0)
        assert ("order: " in text) == ([name for name in names if name in NAMES] != list(NAMES))


def test_missing_and_extra_channels_are_named() -> None:
    text = message(stream(("Fz", "C3", "Oz", "C4", "O2")))
    assert "missing: 2 channels (Cz, Pz)" in text
    assert "extra: 2 channels (Oz, O2)" in text
    assert 'channels = "by-name"' in text
    by_name = message(stream(("Fz", "C3", "Oz", "C4", "O2")), rule="by-name")
    assert "missing: 2 channels (Cz, Pz)" in by_name
    assert "extra" not in by_name


def test_a_name_that_differs_by_case_or_dots_is_suggested() -> None:
    """PhysioNet's EDF files write ``Cz..`` and ``Fc5.``; MNE's montages ``Cz`` and ``FC5``."""
    text = message(stream(("Fz..", "C3..", "Cz..", "C4..", "pz", "Oz")))
    assert "extra: 1 channel (Oz)" in text
    assert "spelling: 'Fz..' instead of 'Fz', " in text
    assert "'pz' instead of 'Pz'; names must agree to the letter" in text
    assert "missing" not in text
    assert "'MEG0111' instead of 'MEG 0111'" in message(stream(("MEG0111",)), contract(("MEG 0111",)))


def test_another_electrode_is_not_suggested() -> None:
    text = message(stream(("C5", "P1..", "DC1")), contract(("Fc5.", "P10", "C1..")))
    assert "missing: 3 channels (Fc5., P10, C1..)" in text
    assert "instead of" not in text


def test_another_montage_does_not_fill_the_screen() -> None:
    text = message(stream(tuple(f"MEG {n}" for n in range(366))), contract(tuple(f"E{n}" for n in range(64))))
    assert "missing: 64 channels (E0, E1, " in text
    assert "E19 and 44 more" in text
    assert "extra: 366 channels (MEG 0, " in text
    assert len(text) < 1000


def test_channels_without_names_are_to_be_declared() -> None:
    text = message(stream(("", "", "")))
    assert "names: 3 channels without a name" in text
    assert "[source.declare] names" in text
    assert "repeated" not in text
    assert "extra" not in text
    assert check_contract(stream((*NAMES, "")), contract(), "by-name") == (0, 1, 2, 3, 4)


def test_the_first_place_of_another_order_is_named() -> None:
    text = message(stream(("Fz", "C4", "Cz", "C3", "Pz")))
    assert "order: 'C4' stands where 'C3' should (channel 2 of the 5" in text
    assert "missing" not in text
    assert "extra" not in text


def test_a_repeated_name_is_named() -> None:
    assert "repeated: 1 channel (C3)" in message(stream((*NAMES, "C3")))
    assert "repeated: 1 channel (C3)" in message(stream((*NAMES, "C3")), rule="by-name")
    assert check_contract(stream((*NAMES, "X", "X")), contract(), "by-name") == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("rule", ["strict", "by-name"])
def test_a_unit_that_differs_or_is_not_declared(rule: str) -> None:
    assert "unit: T instead of V on 5 channels (Fz, C3, Cz, C4, Pz)" in message(stream(unit="T"), rule=rule)
    undeclared = message(stream(unit=""), rule=rule)
    assert "unit: none declared, or an unknown one, on 5 channels (Fz, C3, Cz, C4, Pz)" in undeclared
    assert '[source.declare] unit = "uV"' in undeclared
    meg = message(stream(unit="", type="mag"), contract(unit="T", type="mag"), rule)
    assert 'unit = "fT"' in meg


@pytest.mark.parametrize("rule", ["strict", "by-name"])
def test_a_type_that_differs(rule: str) -> None:
    assert "type: 'seeg' instead of 'eeg' on 5 channels" in message(stream(type="seeg"), rule=rule)
    # A channel of the contract that the stream calls no data is of the wrong type, not missing.
    text = message(stream(type="misc"), rule=rule)
    assert "type: 'misc' instead of 'eeg'" in text
    assert "missing" not in text


@pytest.mark.parametrize(
    ("sfreq", "fits"), [(160.0, True), (160.015, True), (159.985, True), (160.02, False), (250.0, False)]
)
def test_the_rate_must_agree_to_one_in_ten_thousand(sfreq: float, fits: bool) -> None:
    for rule in RULES:
        if fits:
            assert check_contract(stream(sfreq=sfreq), contract(), rule) == (0, 1, 2, 3, 4)
        else:
            assert f"rate: {sfreq:g} Hz; expected 160 Hz" in message(stream(sfreq=sfreq), rule=rule)


def test_a_rate_that_is_no_number_never_fits() -> None:
    for sfreq in (float("nan"), 0.0, float("inf")):
        assert "rate: " in message(stream(sfreq=sfreq))


def test_everything_is_named_at_once() -> None:
    channels = (
        Channel("C3", "eeg", ""), Channel("Fz", "eeg", "T"), Channel("Cz", "seeg", "V"), Channel("Q", "eeg", "V"),
    )  # fmt: skip
    text = message(StreamInfo(channels, 128.0, "lsl:amp"))
    assert text.startswith("the stream lsl:amp does not meet the bundle's contract")
    for part in (
        "rate: ",
        "missing: 2 channels (C4, Pz)",
        "extra: 1 channel (Q)",
        "order: 'C3'",
        "type: 'seeg'",
        "unit: T",
        "unit: none",
    ):
        assert part in text
