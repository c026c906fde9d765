"""Pickled arrays: what numpy writes is read, and nothing else is: not named, not called, not built."""

import collections
import contextlib
import datetime
import io
import os
import pickle
import struct
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from rtdecode.errors import ConfigError
from rtdecode_models.data.pickled_array import read_pickled


def written(path, value, protocol=None):
    """As ``np.save`` writes it, or as a bare pickle of that protocol."""
    if protocol is None:
        np.save(path, value, allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(value, protocol))
    return path


def same(one, other):
    if isinstance(other, np.ndarray):
        return isinstance(one, np.ndarray) and one.dtype == other.dtype and one.tobytes() == other.tobytes()
    if isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in other)
    return one == other and type(one) is type(other)


THINGS = {
    "preprocessed_eeg_data": np.random.default_rng(0).standard_normal((3, 2, 4, 5)),
    "ch_names": ["Pz", "O1", "Oz", "O2"],
    "times": np.linspace(-0.2, 0.79, 5),
}


@pytest.mark.parametrize("protocol", [None, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["f4", "f8", ">f8", "i2", "?", "U3", "S2", "c8"])
def test_what_numpy_writes_is_read_byte_for_byte(tmp_path, protocol, kind):
    value = THINGS | {"preprocessed_eeg_data": np.arange(24).reshape(2, 3, 4).astype(kind)}
    assert same(read_pickled(written(tmp_path / "a.npy", value, protocol)), value)


@pytest.mark.parametrize("protocol", [2, 3])
def test_files_of_older_versions_of_numpy_are_read(tmp_path, protocol):
    """Published files name ``numpy.core``, today's numpy ``numpy._core``."""
    path = written(tmp_path / "a.npy", THINGS | {"n": np.float32(2.5)}, protocol)
    old = path.read_bytes().replace(b"numpy._core.", b"numpy.core.")
    assert b"numpy.core." in old
    path.write_bytes(old)
    assert same(read_pickled(path), THINGS | {"n": np.float32(2.5)})


def test_fortran_order_scalars_and_rows_of_objects(tmp_path):
    value = {
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "n": np.float64(2.5),
        "t": (1, None, True, "x"),
        "empty": np.empty((0, 3)),
    }
    read = read_pickled(written(tmp_path / "a.npy", value))
    np.testing.assert_array_equal(read["f"], value["f"])
    assert read["n"] == 2.5
    assert read["t"] == (1, None, True, "x")
    assert read["empty"].shape == (0, 3)
    objects = np.array(["Pz", "Oz"], dtype=object)
    assert read_pickled(written(tmp_path / "b.npy", {"ch_names": objects})) == {"ch_names": ["Pz", "Oz"]}


KINDS = st.sampled_from([np.dtype("f4"), np.dtype("i8"), np.dtype(">i2")])


@given(some.arrays(KINDS, some.array_shapes(max_dims=4, max_side=4)))  # type: ignore[arg-type]
def test_any_array_comes_back(tmp_path_factory, array):
    path = written(tmp_path_factory.mktemp("a") / "a.npy", {"x": array, "again": [array, array]})
    assert same(read_pickled(path)["x"], array)


class Bomb:
    """Leaves a file behind if it is ever executed."""

    def __init__(self, how):
        self.how = how

    def __reduce__(self):
        return self.how


class Plain:
    pass


@pytest.mark.parametrize("protocol", [None, 0, 1, 2, 4, 5])
@pytest.mark.parametrize(
    ("function", "named"),
    [(os.system, "system"), (subprocess.call, "call"), (eval, "eval"), (getattr, "getattr"), (open, "open")],
)
def test_a_program_is_refused_by_name_and_not_run(tmp_path, protocol, function, named):
    left = tmp_path / "executed"
    argument = f"touch {left}" if function is not eval else f"open({str(left)!r}, 'w')"
    arguments = (str(left), "w") if function is open else (argument,)
    path = written(tmp_path / "a.npy", {"x": Bomb((function, arguments))}, protocol)
    with pytest.raises(ConfigError, match=rf"a.npy is refused: it names .*{named}.*nothing of it was executed"):
        read_pickled(path)
    assert not left.exists()


@pytest.mark.parametrize(
    "value",
    [
        collections.OrderedDict(a=1),
        datetime.date(2020, 1, 1),
        Plain(),
        np.datetime64("2020-01-01"),
        np.random.default_rng(0),
        np.ma.masked_array([1, 2], [False, True]),
        np.zeros(2, [("a", "f8")]),
        {1, 2},
        np.ndarray,
        np.dtype("f8"),
        np.array([[Plain()]], dtype=object),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("protocol", [None, 2, 4, 5])
def test_harmless_objects_are_refused_too(tmp_path, value, protocol):
    with pytest.raises(ConfigError, match=r"a\.npy is refused: it "):
        read_pickled(written(tmp_path / "a.npy", {"x": value}, protocol))


def word(name):
    module, _, own = name.rpartition(".")
    return f"c{module}\n{own}\n".encode()


RECONSTRUCT = word("numpy._core.multiarray._reconstruct")
NDARRAY, DTYPE = word("numpy.ndarray"), word("numpy.dtype")
F8 = DTYPE + b"(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
HOSTILE = {
    "shape larger than the bytes": RECONSTRUCT
    + b"("
    + NDARRAY
    + b"(I0\ntS'b'\ntR(I1\n(I99999999999\nt"
    + F8
    + b"I00\nC\x08AAAAAAAAtb.",
    "begins with a large shape": RECONSTRUCT + b"(" + NDARRAY + b"(I99999999999\ntS'b'\ntR.",
    "begins another type": RECONSTRUCT + b"(" + DTYPE + b"(I0\ntS'b'\ntR.",
    "never filled": RECONSTRUCT + b"(" + NDARRAY + b"(I0\ntS'b'\ntR.",
    "filled with itself": RECONSTRUCT
    + b"("
    + NDARRAY
    + b"(I0\ntS'b'\ntRp1\n(I1\n(I1\nt"
    + DTYPE
    + b"(S'O'\ntRI00\n(lp2\ng1\natb.",
    "filled twice": RECONSTRUCT
    + b"("
    + NDARRAY
    + b"(I0\ntS'b'\ntR"
    + (b"(I1\n(I1\nt" + F8 + b"I00\nC\x08AAAAAAAAtb") * 2
    + b".",
    "negative shape": RECONSTRUCT + b"(" + NDARRAY + b"(I0\ntS'b'\ntR(I1\n(I-1\nt" + F8 + b"I00\nC\x08AAAAAAAAtb.",
    "a word is changed": NDARRAY + b"}S'name'\nS'x'\nsb.",
    "slots of a word are changed": NDARRAY + b"(N}S'make'\nS'x'\nstb.",
    "ndarray is called": NDARRAY + b"((I9999999999\nttR.",
    "a type is made anew": b"\x80\x02" + NDARRAY + b"(t\x81.",
    "fields in a data type": DTYPE + b"(S'f8'\nI0\nI1\ntR(I3\nS'<'\nN(S'a'\nt}NI-1\nI-1\nI0\ntb.",
    "a data type by name": DTYPE + b"(S'float64, object'\ntR.",
    "a scalar of objects": word("numpy._core.multiarray.scalar") + b"(" + DTYPE + b"(S'O8'\ntRS'x'\ntR.",
    "a codec": word("_codecs.encode") + b"(V<x>\nS'idna'\ntR.",
    "outside itself": b"Pelsewhere\n.",
    "an extension": b"\x82\x01.",
    "a list in itself": b"(lp1\ng1\na.",
    "nested deeply": b"(l" * 5000 + b"a" * 4999 + b".",
    "a dotted word": b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.",
    "the same dotted": b"\x80\x04\x8c\x16numpy._core.multiarray\x8c\x18_reconstruct.__globals__\x93.",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_pickles_are_refused(tmp_path, what):
    path = tmp_path / "a.npy"
    path.write_bytes(HOSTILE[what])
    with pytest.raises(ConfigError, match=r"a\.npy (is refused|cannot be read)"):
        read_pickled(path)


def test_repeats_of_repeats_cost_nothing(tmp_path):
    """Thirty lists of two, each of the one before: a thousand million values, if each were made anew."""
    value: object = "x"
    for _ in range(30):
        value = [value, value]
    assert read_pickled(written(tmp_path / "a.npy", {"x": value}))["x"][0][1] is not None


@pytest.mark.parametrize("cut", [0, 5, 9, 60, 200, -1])
def test_a_damaged_file_says_so(tmp_path, cut):
    path = written(tmp_path / "a.npy", THINGS)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ConfigError, match=r"a\.npy (cannot be read|is refused)"):
        read_pickled(path)


def test_a_plain_array_and_a_missing_file(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(ConfigError, match=r"a\.npy is a plain array of float64; expected a dictionary"):
        read_pickled(tmp_path / "a.npy")
    with pytest.raises(ConfigError, match=r"b\.npy does not exist"):
        read_pickled(tmp_path / "b.npy")


@given(st.data())
def test_a_flipped_byte_never_does_more_than_fail(tmp_path_factory, data):
    """Whatever a damaged file says, it is read or refused with our own error."""
    buffer = io.BytesIO()
    np.save(buffer, np.array(THINGS, object), allow_pickle=True)
    content = bytearray(buffer.getvalue())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("a") / "a.npy"
    path.write_bytes(content)
    with contextlib.suppress(ConfigError):
        read_pickled(path)


def test_huge_lengths_fail_before_memory_does(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.")
    with pytest.raises(
        ConfigError, match=r"a\.npy is refused: it promises 1152921504606846976 bytes, more than it has"
    ):
        read_pickled(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "pickled",
    [b"Nr\xff\xff\xff\xff.", b"Np99999999\n.", b"Np1_0\n.", b"\x80\x04\x95\0\0\0\0\x01\0\0\0N."],
    ids=["a place far away", "the same in text", "no number", "a frame"],
)
def test_no_file_of_ten_bytes_takes_all_memory(tmp_path, pickled):
    (tmp_path / "a.npy").write_bytes(pickled)
    with pytest.raises(ConfigError, match=r"a\.npy is refused: it (asks for memory for|promises)"):
        read_pickled(tmp_path / "a.npy")
