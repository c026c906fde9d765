"""Arrays in ``.npy`` files, read without pickle and without trusting the header."""

import io
import math
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from rtdecode.errors import BundleError

#: What a bundle's arrays may be: samples, embeddings and golden outputs; matrices and statistics.
DTYPES = (np.dtype("<f4"), np.dtype("<f8"))


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
    file = io.BytesIO(data)
    try:
        version = npy.read_magic(file)
        if version not in {(1, 0), (2, 0)}:
            raise ValueError(f"version {version} of the format")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, TypeError, SyntaxError, EOFError, RecursionError, MemoryError) as error:
        raise BundleError(f"{where} is no .npy file that can be read: {error}") from error
    if dtype not in DTYPES:
        raise BundleError(f"{where} holds {dtype}; expected little-endian float32 or float64")
    if any(n < 0 for n in shape):
        raise BundleError(f"{where} declares the shape {shape}")
    if (length := len(data) - file.tell()) != (expected := math.prod(shape) * dtype.itemsize):
        raise BundleError(f"{where} has {length} bytes of data; its shape {shape} of {dtype} needs {expected}")
    flat = np.frombuffer(data, dtype, offset=file.tell())
    array = np.ascontiguousarray(flat.reshape(shape, order="F" if fortran else "C"), dtype=dtype.newbyteorder("="))
    check_finite(array, where)
    array.flags.writeable = False
    return array


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
