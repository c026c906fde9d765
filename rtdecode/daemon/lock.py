"""One run of a session at a time, from before its first socket is bound until its folder is gone."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from rtdecode.errors import PortInUseError

if sys.platform != "win32":
    import fcntl

    @contextlib.contextmanager
    def locked(folder: Path) -> Iterator[None]:
        """Hold the session whose runtime folder this is; the kernel lets go with the process, however it ends.

        Raises
        ------
        PortInUseError
            Another run holds it.
        """
        path = folder / "run.lock"
        file = _open(path)
        try:
            os.ftruncate(file, 0)
            os.write(file, str(os.getpid()).encode())
            yield
        finally:
            if _is(path, file):  # the folder may be gone by now, and another run's
                path.unlink()
            os.close(file)

    def _open(path: Path) -> int:
        while True:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # which a run that ends may just have removed
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.read(file, 20).decode(errors="replace") or "unknown"
                os.close(file)
                raise PortInUseError(
                    f"this session runs already (process {holder}); end that one, or give this one another session.name"
                ) from None
            if _is(path, file):
                return file
            os.close(file)  # the run before us removed it between our two calls

    def _is(path: Path, file: int) -> bool:
        """Whether an open file is still the one of this name."""
        with contextlib.suppress(FileNotFoundError):
            return path.stat().st_ino == os.fstat(file).st_ino
        return False

else:

    @contextlib.contextmanager
    def locked(folder: Path) -> Iterator[None]:
        """Windows: nothing; the session's ports, which are bound first of all, hold it."""
        yield
