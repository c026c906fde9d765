"""Declared units to SI."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rtdecode.errors import SourceError
from rtdecode.sources.declare import Declare, RawChannel, describe
from rtdecode.sources.units import channel_type, si_unit, to_si


@pytest.mark.parametrize(
    ("declared", "unit", "factor"),
    [
        ("V", "V", 1.0), ("volts", "V", 1.0), ("mV", "V", 1e-3), ("millivolts", "V", 1e-3), ("uV", "V", 1e-6),
        ("\u00b5V", "V", 1e-6), ("\u03bcV", "V", 1e-6), ("microvolts", "V", 1e-6), ("MicroVolts", "V", 1e-6),
        (" uV ", "V", 1e-6), ("nV", "V", 1e-9), ("T", "T", 1.0), ("mT", "T", 1e-3), ("fT", "T", 1e-15),
        ("pT", "T", 1e-12), ("femtotesla", "T", 1e-15), ("T/m", "T/m", 1.0), ("T/cm", "T/m", 1e2),
        ("fT/cm", "T/m", 1e-13), ("none", "1", 1.0),
    ],
)  # fmt: skip
def test_known_units(declared: str, unit: str, factor: float) -> None:
    found, by = si_unit(declared)
    assert found == unit
    assert by == pytest.approx(factor, rel=1e-15)


@pytest.mark.parametrize("declared", ["", "furlong", "MV", "vu", "n/a", "unknown", "mA", "%"])
def test_unknown_units_stay_unknown(declared: str) -> None:
    assert si_unit(declared) == ("", 1.0)


def test_channel_types_of_lsl_and_edf() -> None:
    assert [channel_type(t) for t in ("EEG", "Trigger", "MEGGRAD", "", "Bananas")] == [
        "eeg",
        "stim",
        "grad",
        "",
        "misc",
    ]


@given(arrays(np.float32, (5, 3), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)))
def test_si_float32_passes_bit_for_bit(samples: np.ndarray) -> None:
    given = to_si(samples, np.ones(3))
    assert given.tobytes() == samples.tobytes()
    assert not np.shares_memory(given, samples)


@given(arrays(np.int32, (5, 3)), arrays(np.float64, (3,), elements=st.sampled_from([1e-6, 1e-3, 1.0, 1e-13])))
def test_scaling_is_in_float64_with_one_cast(samples: np.ndarray, scales: np.ndarray) -> None:
    expected = [[np.float32(float(x) * float(s)) for x, s in zip(row, scales, strict=True)] for row in samples]
    np.testing.assert_array_equal(to_si(samples, scales), np.array(expected, np.float32))


def test_the_user_fills_in_what_is_open_and_is_named_for_it() -> None:
    raw = [RawChannel(), RawChannel(), RawChannel("", "stim")]
    found = describe(raw, Declare("uV", ["A", "B", "T"], "seeg"), "amp")
    assert [(c.name, c.type, c.unit) for c in found.channels] == [
        ("A", "seeg", "V"),
        ("B", "seeg", "V"),
        ("T", "stim", "1"),
    ]
    np.testing.assert_allclose(found.scales, [1e-6, 1e-6, 1.0])
    assert found.declared_by_user == ("names of 3 channels", "type of 2 channels: seeg", "unit of 2 channels: uV")


@pytest.mark.parametrize("unit", ["", "uV", "mV", "counts"])
def test_trigger_codes_are_never_scaled(unit: str) -> None:
    """Some senders call every channel "microvolts", the trigger channel too."""
    found = describe([RawChannel("A", "EEG", "uV"), RawChannel("T", "Trigger", unit)], Declare(), "amp")
    assert found.channels[1].unit == "1"
    np.testing.assert_allclose(found.scales, [1e-6, 1.0])


def test_undeclared_stays_undeclared() -> None:
    found = describe([RawChannel("A", "EEG", ""), RawChannel("B", "EEG", "counts")], Declare(), "amp")
    assert [c.unit for c in found.channels] == ["", ""]
    assert found.declared_by_user == ()


@pytest.mark.parametrize(
    ("raw", "declare", "message"),
    [
        (RawChannel("A", "eeg", "V"), Declare(unit="uV"), "declares its unit as 'V'.*'uV'"),
        (RawChannel("A", "eeg", "V"), Declare(names=["B"]), "'A' by the stream and 'B'"),
        (RawChannel("A", "eeg", "V"), Declare(names=["A", "B"]), "has 1 channels.*has 2"),
        (RawChannel("A"), Declare(unit="furlong"), "'furlong'.*expected V, mV"),
        (RawChannel("A"), Declare(type="banana"), "'banana'.*expected eeg"),
    ],
)
def test_a_declaration_never_overrules_the_stream(raw: RawChannel, declare: Declare, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        describe([raw], declare, "amp")


def test_channels_of_one_name_are_refused() -> None:
    with pytest.raises(SourceError, match="more than one channel named 'A'"):
        describe([RawChannel("A"), RawChannel("A")], Declare(), "amp")
