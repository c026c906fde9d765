"""Reads arrays that were published as pickles, and executes nothing of them.

THINGS-EEG2 is published as ``np.save`` of a dictionary, which numpy writes as a pickle; a pickle is a program, and may
do anything when it is loaded. This reader understands the few words in which numpy spells arrays, data types and
scalars, and makes them itself out of the bytes; not even numpy's own functions are called by the file. Any other word
is refused by name before anything is made of it. Beside arrays a file may hold dictionaries, lists, tuples, strings,
bytes and numbers. It is the only place in the project where a pickle is opened.
"""

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.lib import format as npy

from rtdecode.errors import ConfigError

#: Numbers, truth values and text; objects are read too, but only as lists of what is itself allowed.
_PLAIN_DTYPE = re.compile(r"([biufc]([1-9]|1[0-9]|3[0-2])|[US](0|[1-9][0-9]{0,6}))\Z")
_OBJECT_DTYPE = re.compile(r"O[48]?\Z")
_MODULES = ("numpy.core.", "numpy._core.")
_DEEPEST = 32


#: The instructions of pickles that arrays, dictionaries, lists, text and numbers are made of, by what follows each:
#: nothing, so many bytes, bytes counted by a number of so many bytes, or so many lines of text.
_BARE = frozenset(b"N(.t)\x85\x86\x87\x88\x89]aeld}suRb\x93\x94")
_FIXED = {**dict.fromkeys(b"K\x80qh", 1), ord("M"): 2, **dict.fromkeys(b"Jrj", 4), **dict.fromkeys(b"G\x95", 8)}
_COUNTED = {**dict.fromkeys(b"CU\x8a\x8c", 1), **dict.fromkeys(b"BTX", 4), **dict.fromkeys(b"\x8e\x8d\x96", 8)}
_LINES = {**dict.fromkeys(b"IFLSVpg", 1), ord("c"): 2}
#: Places in a pickle's memory, which is as large as the highest of them.
_MOST_PLACES = 1 << 20
_LONGEST_LINE = 1 << 20


class _RefusedError(Exception):
    """The file holds something that is not an array."""


class _Word:
    """What a word of a pickle stands for: it can be called, and nothing else can be done to it."""

    __slots__ = ("make", "name")
    name: str
    make: Callable[..., Any]

    def __init__(self, name: str, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "make", make)

    def __call__(self, *args: Any) -> Any:
        return self.make(*args)

    def __setstate__(self, state: object) -> NoReturn:
        raise _RefusedError(f"it changes {self.name}")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise _RefusedError(f"it changes {self.name}")


class _Dtype:
    """A data type as a pickle spells it, checked."""

    __slots__ = ("order", "text")

    def __init__(self, text: object = "", *_: object) -> None:
        if not isinstance(text, str) or not (_PLAIN_DTYPE.match(text) or _OBJECT_DTYPE.match(text)):
            raise _RefusedError(f"it has the data type {text!r}; expected numbers, text or lists")
        self.text, self.order = text, "="

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), "<" | ">" | "|" | "=" as order, None, None, None, int(), int(), int()):
                self.order = order
            case _:
                raise _RefusedError(f"it has a data type with fields or metadata: {state!r:.200}")

    @property
    def is_object(self) -> bool:
        return self.text.startswith("O")

    def dtype(self) -> np.dtype[Any]:
        """The data type itself; never an object."""
        return np.dtype(self.text).newbyteorder(">" if self.order == ">" else "<")


class _Array:
    """An array as a pickle spells it: made when its state comes, and never changed afterwards."""

    __slots__ = ("done", "value")

    def __init__(self, subtype: object, shape: object, _: object = b"b") -> None:
        if not isinstance(subtype, _Word) or subtype.name != "numpy.ndarray" or shape != (0,):
            raise _RefusedError("it begins an array in a way that numpy does not")
        self.value: Any = None
        self.done = False

    def __setstate__(self, state: object) -> None:
        if self.done:
            raise _RefusedError("it changes an array that is made")
        self.done = True
        match state:
            case (int(), tuple() as shape, _Dtype() as dtype, bool() | int() as fortran, bytes() | list() as data):
                self.value = _filled(shape, dtype, bool(fortran), data)
            case _:
                raise _RefusedError("it holds an array whose state is not numpy's")


def _made(value: Any) -> _Array:
    """An array or a scalar behind the same stand-in, so that a file cannot reach it."""
    array = _Array(_Word("numpy.ndarray", _no_call), (0,))
    array.value, array.done = value, True
    return array


def _filled(shape: tuple[Any, ...], dtype: _Dtype, fortran: bool, data: Any) -> Any:
    """An array out of bytes; of objects, their list, or the one object where the shape is ()."""
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape):
        raise _RefusedError(f"it holds an array of shape {shape!r:.200}")
    if dtype.is_object:
        if not isinstance(data, list) or len(data) != math.prod(shape) or len(shape) > 1:
            raise _RefusedError(f"it holds {shape} objects; expected one, or a row of them")
        return data if shape else data[0]
    kind = dtype.dtype()
    if not isinstance(data, bytes | bytearray) or len(data) != math.prod(shape) * kind.itemsize:
        raise _RefusedError(f"it holds an array of shape {shape} and {kind} whose bytes are too few or too many")
    if not len(data):
        return np.empty(shape, kind)
    return np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")


def _from_buffer(data: object, dtype: object, shape: object, order: object, axes: object = None) -> Any:
    """Numpy's words for an array in one block (pickle protocol 5)."""
    if not isinstance(dtype, _Dtype) or dtype.is_object or not isinstance(shape, tuple) or order not in ("C", "F"):
        raise _RefusedError("it holds an array whose parts are not numpy's")
    if axes is not None:
        raise _RefusedError("it holds an array whose axes are in an order of their own; save it as a plain one")
    return _made(_filled(shape, dtype, order == "F", data))


def _scalar(dtype: object, data: object = b"") -> Any:
    if not isinstance(dtype, _Dtype) or dtype.is_object:
        raise _RefusedError("it holds a scalar that is no number")
    return _made(_filled((), dtype, False, data)[()])


def _encode(text: object, encoding: object) -> bytes:
    """Bytes, as older pickles spell them."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _RefusedError("it encodes what is not bytes")
    return text.encode("latin-1")


def _no_call(*_: object) -> NoReturn:
    raise _RefusedError("it makes an array in a way that numpy does not")


class _Reader(pickle.Unpickler):
    """Knows numpy's words alone."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a word, or a refusal."""
        word = f"{module}.{name}"
        for room in _MODULES:
            word = word.replace(room, "numpy.", 1) if word.startswith(room) else word
        makers: dict[str, Callable[..., Any]] = {
            "numpy.multiarray._reconstruct": _Array,
            "numpy.multiarray.scalar": _scalar,
            "numpy.numeric._frombuffer": _from_buffer,
            "numpy.ndarray": _no_call,
            "numpy.dtype": _Dtype,
            "_codecs.encode": _encode,
        }
        if word not in makers:
            raise _RefusedError(f"it names {module}.{name}, which is no part of an array; nothing of it was executed")
        return _Word(word, makers[word])

    def persistent_load(self, pid: Any) -> NoReturn:
        """Nothing lies outside the file."""
        raise _RefusedError("it refers to something outside of itself")


def read_pickled(path: Path) -> Any:
    """Read what ``np.save`` wrote of a dictionary or list, or ``pickle.dump`` of the same, without executing it.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict, list, ndarray or other plain value
        Arrays may be read-only. An array of objects comes as a list.

    Raises
    ------
    ConfigError
        The file is missing, damaged, or holds anything but arrays, dictionaries, lists, text and numbers.
    """
    try:
        with path.open("rb") as file:
            _skip_npy_header(file, path)
            _check_instructions(file, path.stat().st_size)
            return _plain(_Reader(file).load(), {}, 0)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; is the data folder right?") from error
    except _RefusedError as error:
        raise ConfigError(f"{path} is refused: {error}. Expected arrays, dictionaries, lists, text, numbers") from error
    except ConfigError:
        raise
    except Exception as error:  # a damaged pickle shows as almost any error
        raise ConfigError(
            f"{path} cannot be read ({type(error).__name__}: {error}); expected what np.save writes; copy it again"
        ) from error


def _skip_npy_header(file: BinaryIO, path: Path) -> None:
    """Go to the pickle: behind the header of an ``.npy``, or to the very beginning of a pickle without one."""
    begins = file.read(len(npy.MAGIC_PREFIX))
    file.seek(0)
    if begins != npy.MAGIC_PREFIX:
        return
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    _, _, dtype = read(file)
    if dtype != np.dtype(object):
        raise ConfigError(f"{path} is a plain array of {dtype}; expected a dictionary, as THINGS-EEG2 is published")


def _check_instructions(file: BinaryIO, size: int) -> None:
    """Refuse, before anything is loaded, instructions that arrays need not, and lengths beyond the end of the file.

    A pickle of ten bytes can otherwise ask for all the memory there is. The file stays where it was.
    """
    start = file.tell()
    while True:
        code = file.read(1)
        if not code:
            raise _RefusedError("it ends in the middle")
        instruction = code[0]
        if instruction in _FIXED:
            number = int.from_bytes(file.read(_FIXED[instruction]), "little")
            if code == b"r" and number > _MOST_PLACES:
                raise _RefusedError(f"it asks for memory for {number} values")
            if code == b"\x95" and number > size - file.tell():
                raise _RefusedError(f"it promises {number} bytes, more than it has")
        elif instruction in _COUNTED:
            number = int.from_bytes(file.read(_COUNTED[instruction]), "little")
            if number > size - file.tell():
                raise _RefusedError(f"it promises {number} bytes, more than it has")
            file.seek(number, io.SEEK_CUR)
        elif instruction in _LINES:
            lines = [file.readline(_LONGEST_LINE) for _ in range(_LINES[instruction])]
            if not all(line.endswith(b"\n") for line in lines):
                raise _RefusedError("it has a line without an end")
            if code == b"p" and not (lines[0].strip().isdigit() and int(lines[0]) <= _MOST_PLACES):
                raise _RefusedError(f"it asks for memory for {lines[0]!r:.40} values")
        elif instruction not in _BARE:
            name = next((op.name for op in pickletools.opcodes if op.code.encode("latin-1") == code), repr(code))
            raise _RefusedError(f"it has the instruction {name}, which no array needs")
        if code == b".":
            break
    file.seek(start)


def _plain(value: Any, made: dict[int, Any], depth: int) -> Any:
    """Stand-ins replaced by what they stand for; each value once, so that repeats cost nothing."""
    if depth > _DEEPEST:
        raise _RefusedError(f"it is nested more than {_DEEPEST} deep")
    if value is None or isinstance(value, str | bytes | int | float | complex | np.ndarray | np.generic):
        return value
    if not isinstance(value, _Array | dict | list | tuple):
        what = value.name if isinstance(value, _Word) else f"a {type(value).__name__.strip('_').lower()}"
        raise _RefusedError(f"it holds {what} by itself")
    if id(value) not in made:
        match value:
            case _Array():
                if not value.done:
                    raise _RefusedError("it holds an array that was never filled")
                made[id(value)] = _plain(value.value, made, depth + 1)
            case dict():
                made[id(value)] = {
                    _plain(key, made, depth + 1): _plain(item, made, depth + 1) for key, item in value.items()
                }
            case list():
                made[id(value)] = [_plain(item, made, depth + 1) for item in value]
            case tuple():
                made[id(value)] = tuple(_plain(item, made, depth + 1) for item in value)
    return made[id(value)]
