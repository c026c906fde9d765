"""Arrays in ``.npy`` files, read without pickle and without trusting the header."""

import ast
import io
import math
import struct
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from rtdecode.errors import BundleError

#: What a bundle's arrays may be: samples, embeddings and golden outputs; matrices and statistics.
DTYPES = (np.dtype("<f4"), np.dtype("<f8"))

#: Longest header; a plain array's has 118 bytes.
_MAX_HEADER = 10_000


def read_array(data: bytes, where: str) -> NDArray[Any]:
    """Read one ``.npy`` file.

    Parameters
    ----------
    data : bytes
        The whole file.
    where : str
        For the message.

    Returns
    -------
    ndarray of float32 or float64
        Read-only, C-contiguous, finite.

    Raises
    ------
    BundleError
        It is no ``.npy`` file, holds anything but little-endian float32 or float64 (so never a pickle), NaN or Inf, or
        its length is not what its header says.
    """
    try:
        shape, fortran, dtype, start = _read_header(data)
    except (ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError, struct.error) as error:
        raise BundleError(f"{where} is no .npy file that can be read: {error}") from error
    if dtype not in DTYPES:
        raise BundleError(f"{where} holds {dtype}; expected little-endian float32 or float64")
    if (length := len(data) - start) != (expected := math.prod(shape) * dtype.itemsize):
        raise BundleError(f"{where} has {length} bytes of data; its shape {shape} of {dtype} needs {expected}")
    flat = np.frombuffer(data, dtype, offset=start)
    array = np.ascontiguousarray(flat.reshape(shape, order="F" if fortran else "C"), dtype=dtype.newbyteorder("="))
    check_finite(array, where)
    array.flags.writeable = False
    return array


def _read_header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether in Fortran order, type, and where the data start, as numpy.lib.format describes versions 1 and 2.

    numpy's own reader also repairs headers of Python 2, by way of the tokenizer, and allocates what a header asks for.
    """
    if data[:6] != npy.MAGIC_PREFIX:
        raise ValueError("it does not begin as one")
    version = tuple(data[6:8])
    if version not in {(1, 0), (2, 0)}:
        raise ValueError(f"version {version} of the format; expected 1.0 or 2.0")
    size = 2 if version == (1, 0) else 4
    (length,) = struct.unpack_from("<H" if size == 2 else "<I", data, 8)
    start = 8 + size + length
    if length > _MAX_HEADER or start > len(data):
        raise ValueError(f"its header has {length} bytes")
    header = ast.literal_eval(data[8 + size : start].decode("latin-1"))
    if not isinstance(header, dict) or set(header) != {"shape", "fortran_order", "descr"}:
        raise ValueError("its header is no description of an array")
    shape = header["shape"]
    if not (isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)):
        raise ValueError(f"its header declares the shape {shape}")
    if not isinstance(header["descr"], str):
        raise ValueError("it holds a structure; expected plain numbers")
    return shape, header["fortran_order"] is True, np.dtype(header["descr"]), start


def check_finite(array: NDArray[Any], where: str) -> None:
    """Raise `BundleError` where a value is NaN or Inf, with its place."""
    finite = np.isfinite(array)
    if not finite.all():
        place = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise BundleError(f"{where} is {array[place]} at {place}; expected finite numbers")


def array_bytes(array: NDArray[Any], where: str) -> bytes:
    """Write one ``.npy`` file: little-endian, C-contiguous, never a pickle."""
    array = np.asarray(array)
    if array.dtype.newbyteorder("<") not in DTYPES:
        raise BundleError(f"{where} holds {array.dtype}; expected float32 or float64")
    file = io.BytesIO()
    npy.write_array(file, np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")), allow_pickle=False)
    return file.getvalue()
