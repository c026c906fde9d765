"""Memory that a server on the same machine sees too (POSIX shared memory, on Linux)."""

import mmap
import os
import secrets
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import ProviderError

#: Where ``shm_open`` keeps its objects (shm_overview(7)).
FOLDER: Final = Path("/dev/shm")


class SharedRegion:
    """A region of this process's own: readable by no other user, and without a name once `unlink` was called.

    Parameters
    ----------
    size : int
        Bytes.

    Raises
    ------
    ProviderError
        The system has no such memory, or not so much.
    """

    def __init__(self, size: int) -> None:
        self.name = f"rtdecode-{os.getpid()}-{secrets.token_hex(8)}"
        self.size = size
        self._path = FOLDER / self.name
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(file, 0, size)  # memory that is not there is an error now, not a signal later
                self._map = mmap.mmap(file, size)
            except OSError:
                self.unlink()
                raise
            finally:
                os.close(file)
        except OSError as error:
            raise ProviderError(
                f"{size / 1e6:.1f} MB of shared memory are not to be had in {FOLDER}: {error.strerror}; expected Linux "
                'and room there, or shared_memory = "off"'
            ) from error

    @property
    def key(self) -> str:
        """By what another process opens it (``shm_open``)."""
        return f"/{self.name}"

    def array(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[np.floating]) -> NDArray[np.floating]:
        """A part of it as an array."""
        count = int(np.prod(shape))
        found: NDArray[np.floating] = np.frombuffer(self._map, dtype, count, offset).reshape(shape)
        return found

    def unlink(self) -> None:
        """Take its name away: who has it keeps it, and it is gone with the last of them. Safe to call twice."""
        self._path.unlink(missing_ok=True)
