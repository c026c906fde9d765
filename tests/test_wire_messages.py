"""Messages as frames, as payload bytes, as JSON and against their schema: laws, and input that means harm."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rtdecode.errors import WireError
from rtdecode.wire.framing import DTYPES, check_pipeline_name, decode, encode, topic_of
from rtdecode.wire.messages import (
    Array,
    Description,
    Event,
    Health,
    Label,
    Ledger,
    Message,
    Retrieval,
    Samples,
    Window,
    WireChannel,
    WireMarker,
)
from rtdecode.wire.payload import data_status, from_json, payload, payload_digest, to_json
from rtdecode.wire.report import LossReport, read_report, write_report
from rtdecode.wire.schema import schema

SCHEMA_FILE = Path(__file__).parents[1] / "docs" / "wire.schema.json"

numbers = st.floats(allow_nan=False, allow_infinity=False)
optional_numbers = st.none() | numbers
counts = st.integers(0, 2**53)
text = st.text(max_size=20)
pipelines = st.from_regex(r"[\w-]{1,12}", fullmatch=True)
markers = st.builds(WireMarker, stamp=numbers, value=text, stream=text)
common = {"seq": counts, "publisher": counts, "retained": st.booleans()}
retrievals = st.builds(
    Retrieval,
    indices=st.lists(counts, max_size=3).map(tuple),
    names=st.lists(text, max_size=3).map(tuple),
    scores=st.lists(numbers, max_size=3).map(tuple),
    margin=numbers,
    none_of_these=st.none() | st.booleans(),
)
labels = st.builds(
    Label,
    names=st.lists(text, max_size=3).map(tuple),
    probabilities=st.lists(numbers, max_size=3).map(tuple),
    best=text,
)
ledgers = st.builds(
    Ledger,
    **dict.fromkeys(("stamp", "arrived", "received", "due", "encoded", "published", "budget_ms"), optional_numbers),
    met=st.none() | st.booleans(),
)
windows = st.builds(
    Window,
    **common,
    kind=st.sampled_from(["embedding", "retrieval", "label"]),
    pipeline=pipelines,
    bundle=text,
    window=text,
    segment=counts,
    start=counts,
    length=counts,
    sfreq=numbers,
    status=st.sampled_from(["ok", "late", "skipped", "gap", "artifact", "failed"]),
    reason=text,
    marker=st.none() | markers,
    retrieval=st.none() | retrievals,
    label=st.none() | labels,
    ledger=ledgers,
)
events = st.builds(
    Event,
    **common,
    origin=pipelines,
    event=text,
    text=text,
    stamp=numbers,
    details=st.dictionaries(text, st.none() | st.booleans() | counts | numbers | text, max_size=3),
)
channels = st.builds(
    WireChannel, name=text, type=text, unit=text, position=st.none() | st.tuples(numbers, numbers, numbers)
)
descriptions = st.builds(
    Description,
    **common,
    pipeline=pipelines,
    source=text,
    sfreq=numbers,
    channels=st.lists(channels, max_size=3).map(tuple),
    declared_by_user=st.lists(text, max_size=2).map(tuple),
    conditioned_sfreq=numbers,
    group_delay=numbers,
    bundle=text,
    engine=st.dictionaries(text, text | counts | st.lists(counts, max_size=3).map(tuple), max_size=3),
    items=st.lists(text, max_size=3).map(tuple),
    clock=text,
    clock_id=text,
    utc_anchor=st.tuples(numbers, numbers),
)
healths = st.builds(
    Health,
    **common,
    pipeline=pipelines,
    due=counts,
    counts=st.dictionaries(text, counts, max_size=3),
    dropped=counts,
    uptime_s=numbers,
)
samples = st.builds(
    Samples,
    **common,
    segment=counts,
    first_index=counts,
    arrived=numbers,
    markers=st.lists(markers, max_size=3).map(tuple),
    watermark=numbers,
    end=st.booleans(),
)
messages = st.one_of(windows, events, descriptions, healths, samples)
any_array = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
named_arrays = st.dictionaries(text, any_array, max_size=3)


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """Same names in the same order, same dtypes, shapes and bytes (NaN included)."""
    return list(left) == list(right) and all(
        left[n].dtype == right[n].dtype and left[n].shape == right[n].shape and left[n].tobytes() == right[n].tobytes()
        for n in left
    )


def described(message: Message, arrays: dict[str, Any]) -> Message:
    return msgspec.structs.replace(
        message, arrays=tuple(Array(name=n, dtype=a.dtype.str, shape=a.shape) for n, a in arrays.items())
    )


def plain_window(**changes: Any) -> Window:
    fields: dict[str, Any] = {
        "seq": 1,
        "kind": "retrieval",
        "pipeline": "gaze",
        "bundle": "0123456789ab",
        "window": "sliding",
        "segment": 2,
        "start": 300,
        "length": 100,
        "sfreq": 100.0,
        "status": "ok",
        "retrieval": Retrieval(indices=(1, 0), names=("cup", "dog"), scores=(0.75, 0.5), margin=0.25),
        "ledger": Ledger(stamp=12.5),
    }
    return Window(**fields | changes)


EMBEDDING = {"embedding": np.arange(6, dtype="<f4").reshape(2, 3)}


# Frames


@given(messages, named_arrays)
@settings(max_examples=150)
def test_what_is_encoded_is_decoded(message: Message, arrays: dict[str, Any]) -> None:
    topic, decoded, read = decode([bytes(frame) for frame in encode(topic_of(message), message, arrays)])
    assert topic == topic_of(message)
    assert decoded == described(message, arrays)
    assert same(read, arrays)


@given(any_array)
@settings(max_examples=50)
def test_any_layout_and_byte_order_arrives_as_the_same_numbers(array: Any) -> None:
    strange = np.asfortranarray(array.astype(array.dtype.newbyteorder(">")))[..., ::-1] if array.ndim else array
    frames = encode("gaze.retrieval", plain_window(), {"x": strange})
    read = decode([bytes(frame) for frame in frames])[2]["x"]
    assert read.dtype.str in DTYPES
    np.testing.assert_array_equal(read, strange)


def test_arrays_are_views_on_both_sides_and_read_only_on_arrival() -> None:
    array = np.arange(5, dtype="<f4")
    frames = encode("gaze.retrieval", plain_window(), {"x": array})
    assert np.shares_memory(np.frombuffer(frames[2], "<f4"), array)
    read = decode(frames)[2]["x"]
    assert np.shares_memory(read, array)
    with pytest.raises(ValueError, match="read-only"):
        read[0] = 1


def test_an_unaligned_frame_gives_an_aligned_array() -> None:
    array = np.arange(5, dtype="<f8")
    *rest, frame = encode("gaze.retrieval", plain_window(), {"x": array})
    raw = np.empty(41, np.uint8)
    raw[1:] = np.frombuffer(frame, np.uint8)
    read = decode([*rest, raw[1:].data])[2]["x"]
    assert read.flags.aligned
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a\n", "ä!", "x" * 65])
def test_names_that_break_a_topic_are_refused(name: str) -> None:
    with pytest.raises(WireError, match="cannot stand in a topic"):
        check_pipeline_name(name)
    with pytest.raises(WireError, match="cannot stand in a topic"):
        topic_of(plain_window(pipeline=name))


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([True]), np.array([1j]), np.array([None])])
def test_dtypes_outside_the_list_do_not_leave(array: Any) -> None:
    with pytest.raises(WireError, match=r"array 'x' has dtype .*; the wire carries"):
        encode("gaze.retrieval", plain_window(), {"x": array})


def test_values_that_msgpack_cannot_hold_and_foreign_topics_do_not_leave() -> None:
    with pytest.raises(WireError, match="Window message cannot be written"):
        encode("gaze.retrieval", plain_window(sfreq=np.float32(1)))
    with pytest.raises(WireError, match="Window message cannot be written"):
        encode("gaze.retrieval", plain_window(seq=2**64))
    with pytest.raises(WireError, match=r"goes out as 'gaze\.retrieval'"):
        encode("gaze.label", plain_window())


def harm(**array: Any) -> list[bytes]:
    """Frames whose header describes one array wrongly."""
    good = {"name": "x", "dtype": "<f4", "shape": [2, 3]} | array
    header = msgspec.to_builtins(plain_window()) | {"arrays": [good]}
    return [b"gaze.retrieval", msgspec.msgpack.encode(header), bytes(24)]


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ([], "got 0 frame"),
        ([b"gaze.retrieval"], "got 1 frame"),
        ([b"\xff\xfe", b"\x80"], "not UTF-8"),
        ([b"gaze.retrieval", b""], "truncated"),
        ([b"gaze.retrieval", b"\xc1"], "no message"),
        ([b"gaze.retrieval", b"\x91" * 100_000], "no message"),
        ([b"gaze.retrieval", b"\x82\xa1v\x01\xa6arrays\xdd\xff\xff\xff\xff"], "truncated"),
        ([b"gaze.retrieval", b"\x82\xa1v\x01\xa4type\xa2no"], "Invalid value 'no'"),
        ([b"gaze.retrieval", b"\x81\xa1v\x02"], "wire version 2, this rtdecode reads version 1"),
        ([b"gaze.retrieval", b"\x81\xa1w\x02"], "missing required field `v`"),
        ([b"nose.retrieval", *harm()[1:]], r"topic 'nose\.retrieval' does not belong"),
        (harm()[:2], "describes 1 array.*0 frame"),
        ([*harm(), b""], "describes 1 array.*2 frame"),
        ([*harm()[:2], bytes(23)], "takes 24 bytes, its frame 23"),
        (harm(dtype="|O"), r"dtype '\|O'"),
        (harm(dtype=">f4"), "dtype '>f4'"),
        (harm(dtype="<f4,<f4"), "dtype"),
        (harm(shape=[-2, -3]), "impossible shape"),
        (harm(shape=[2**63, 2]), "impossible shape"),
        (harm(shape=[1] * 40 + [6]), "impossible shape"),
        (harm(shape=[6, 2**30]), "takes 25769803776 bytes"),
        ([*harm(shape=[0, 2**40, 2**40])[:2], b""], "impossible shape"),
        (harm(shape=[2.5]), "Expected `int`"),
    ],
)
def test_harmful_frames_are_refused_and_named(frames: list[bytes], says: str) -> None:
    with pytest.raises(WireError, match=says):
        decode(frames)


def test_two_arrays_of_one_name_are_refused() -> None:
    one = {"name": "x", "dtype": "<f4", "shape": [1]}
    header = msgspec.to_builtins(plain_window()) | {"arrays": [one, one]}
    with pytest.raises(WireError, match="two arrays are called 'x'"):
        decode([b"gaze.retrieval", msgspec.msgpack.encode(header), bytes(4), bytes(4)])


def read_or_refuse(frames: list[bytes]) -> None:
    """The whole contract towards strangers: a sound message or a `WireError`."""
    try:
        topic, message, arrays = decode(frames)
    except WireError:
        return
    assert topic == topic_of(message)
    assert [(a.name, a.dtype, a.shape) for a in message.arrays] == [
        (n, a.dtype.str, a.shape) for n, a in arrays.items()
    ]


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_random_frames_are_read_or_refused(frames: list[bytes]) -> None:
    read_or_refuse(frames)


field_names = st.sampled_from(sorted({name for kind in (Window, Event, Samples) for name in kind.__struct_fields__}))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | text | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(field_names | text, inner, max_size=4),
    max_leaves=8,
)


@given(messages, st.dictionaries(field_names | st.just("type"), values, max_size=3), st.lists(st.binary(), max_size=2))
@settings(max_examples=200)
def test_headers_with_wrong_values_are_read_or_refused(
    message: Message, changes: dict[str, Any], more: list[bytes]
) -> None:
    header = msgspec.msgpack.encode(msgspec.to_builtins(message) | changes)
    read_or_refuse([topic_of(message).encode(), header, *more])


@given(messages, named_arrays, st.data())
@settings(max_examples=300)
def test_damaged_frames_are_read_or_refused(message: Message, arrays: dict[str, Any], data: st.DataObject) -> None:
    frames = [bytes(frame) for frame in encode(topic_of(message), message, arrays)]
    which = data.draw(st.integers(0, len(frames) - 1))
    frame = bytearray(frames[which])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(0, len(frame) - 1)))
        frame[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    frames[which] = bytes(frame)
    read_or_refuse(data.draw(st.permutations(frames)) if data.draw(st.booleans()) else frames)


@given(st.binary(max_size=30) | st.binary(max_size=30).map(lambda tail: b"\x02" + tail))
def test_loss_reports_are_read_or_ignored(frame: bytes) -> None:
    report = read_report(frame)
    assert report is None or isinstance(report.missed, int)
    assert read_report(write_report(LossReport(7, 3))) == LossReport(7, 3)


# Payload


@given(windows, named_arrays)
def test_the_payload_is_the_same_on_every_way_through(window: Window, arrays: dict[str, Any]) -> None:
    digest = payload_digest(window, arrays)
    _, decoded, read = decode([bytes(frame) for frame in encode(topic_of(window), window, arrays)])
    from_line, from_arrays = from_json(to_json(window, arrays))
    assert isinstance(decoded, Window)
    assert isinstance(from_line, Window)
    assert payload_digest(decoded, read) == payload_digest(from_line, from_arrays) == digest


@pytest.mark.parametrize(
    "changes",
    [
        {"pipeline": "other"},
        {"bundle": "ffffffffffff"},
        {"seq": 9, "publisher": 4, "retained": True},
        {"marker": WireMarker(stamp=1.0, value="7")},
        {"reason": "late by 3 ms", "status": "late"},
        {"ledger": Ledger(stamp=99.0, budget_ms=5.0, met=False)},
    ],
)
def test_what_tells_of_one_run_is_not_in_the_payload(changes: dict[str, Any]) -> None:
    assert payload(plain_window(**changes), EMBEDDING) == payload(plain_window(), EMBEDDING)


@pytest.mark.parametrize(
    ("changes", "arrays"),
    [
        ({"window": "locked"}, EMBEDDING),
        ({"segment": 3}, EMBEDDING),
        ({"start": 301}, EMBEDDING),
        ({"length": 101}, EMBEDDING),
        ({"status": "artifact"}, EMBEDDING),
        ({"retrieval": None}, EMBEDDING),
        ({"retrieval": Retrieval(indices=(1, 0), names=("cup", "dog"), scores=(0.75, 0.5), margin=0.0)}, EMBEDDING),
        ({"label": Label(names=("a",), probabilities=(1.0,), best="a")}, EMBEDDING),
        ({}, {}),
        ({}, {"embedding": EMBEDDING["embedding"].reshape(3, 2)}),
        ({}, {"embedding": EMBEDDING["embedding"].view("<i4")}),
        ({}, {"embedding": np.nextafter(EMBEDDING["embedding"], np.float32(9))}),
        ({}, {"logits": EMBEDDING["embedding"]}),
    ],
)
def test_what_was_decoded_is_in_the_payload(changes: dict[str, Any], arrays: dict[str, Any]) -> None:
    assert payload(plain_window(**changes), arrays) != payload(plain_window(), EMBEDDING)


def test_the_order_in_which_arrays_were_given_does_not_matter() -> None:
    one, two = np.zeros(2, np.float32), np.ones(2, np.float32)
    assert payload(plain_window(), {"a": one, "b": two}) == payload(plain_window(), {"b": two, "a": one})


def test_windows_that_were_never_decoded_have_no_payload() -> None:
    skipped = plain_window(status="skipped", retrieval=None)
    given_up = plain_window(status="late", retrieval=None)
    for window in (skipped, given_up):
        assert payload_digest(window, {}) is None
        assert json.loads(to_json(window, {}))["payload_sha256"] is None
        with pytest.raises(WireError, match="has no payload"):
            payload(window, {})
    assert data_status(plain_window(status="late"), {}) == "ok"
    assert payload_digest(plain_window(status="gap", retrieval=None), {}) is not None


# JSON and its schema


@given(messages, named_arrays)
@settings(max_examples=150)
def test_a_line_of_json_brings_the_message_back(message: Message, arrays: dict[str, Any]) -> None:
    line = to_json(message, arrays)
    assert b"\n" not in line
    read, read_arrays = from_json(line)
    assert read == described(message, arrays)
    assert same(read_arrays, arrays)


@given(windows, named_arrays, st.data())
@settings(max_examples=100)
def test_damaged_lines_are_read_or_refused(window: Window, arrays: dict[str, Any], data: st.DataObject) -> None:
    line = bytearray(to_json(window, arrays))
    at = data.draw(st.integers(0, len(line) - 1))
    line[at : at + 1] = data.draw(st.binary(max_size=2))
    try:
        from_json(bytes(line))
    except WireError:
        return


def test_a_line_whose_payload_was_changed_is_refused() -> None:
    line = json.loads(to_json(plain_window(), EMBEDDING))
    with pytest.raises(WireError, match="window 2/301 does not have the payload"):
        from_json(json.dumps(line | {"start": 301}))
    with pytest.raises(WireError, match="wire version 2"):
        from_json(json.dumps(line | {"v": 2}))
    with pytest.raises(WireError, match="Expected `object`, got `array`"):
        from_json("[]")


def test_without_arrays_their_shapes_remain() -> None:
    line = json.loads(to_json(plain_window(), EMBEDDING, with_arrays=False))
    assert line["arrays"] == {"embedding": {"dtype": "<f4", "shape": [2, 3]}}


def test_the_published_schema_is_the_code() -> None:
    fresh = json.loads(json.dumps(schema()))
    assert json.loads(SCHEMA_FILE.read_text()) == fresh, "run: python -m rtdecode.wire.schema > docs/wire.schema.json"


@given(messages, named_arrays)
@settings(max_examples=50)
def test_every_header_satisfies_the_schema(message: Message, arrays: dict[str, Any]) -> None:
    header = msgspec.msgpack.decode(encode(topic_of(message), message, arrays)[1])
    jsonschema.Draft202012Validator(schema()).validate(header)


@pytest.mark.parametrize("changes", [{"v": 2}, {"status": "fine"}, {"type": "event"}, {"start": "0"}])
def test_the_schema_refuses_what_the_reader_refuses(changes: dict[str, Any]) -> None:
    header = msgspec.to_builtins(plain_window()) | changes
    assert not jsonschema.Draft202012Validator(schema()).is_valid(header)
    with pytest.raises(WireError):
        decode([b"gaze.retrieval", msgspec.msgpack.encode(header)])
