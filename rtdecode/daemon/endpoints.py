"""Where the processes of one session meet: a private folder of sockets, or a row of loopback ports."""

import hashlib
import os
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rtdecode.config import Config
from rtdecode.errors import ConfigError, ProcessError
from rtdecode.wire.endpoint import check_endpoint


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The addresses that the processes of one session share.

    They depend on the configuration alone, so that a process that is started by itself finds the others, and so does
    ``rtdecode control``.

    Parameters
    ----------
    folder : Path
        The session's runtime folder: sockets, and each decoder's account of what it has published.
    samples, log, acquire : str
        *acquire*'s publisher, its log, and its control socket.
    decoders : dict of str to str
        Each pipeline's control socket.
    """

    folder: Path
    samples: str
    log: str
    acquire: str
    decoders: dict[str, str]

    @property
    def all(self) -> tuple[str, ...]:
        """Every address."""
        return (self.samples, self.log, self.acquire, *self.decoders.values())


def endpoints(config: Config) -> Endpoints:
    """The addresses of the session that `config` describes. Creates nothing; see `prepare`."""
    folder = config.bus.dir or _runtime_root() / f"{config.session.name}-{_digest(config.path)}"
    tcp = config.bus.tcp
    if tcp is None and config.bus.dir is None and sys.platform != "linux":
        tcp = f"tcp://127.0.0.1:{20_000 + int(_digest(config.path), 16) % 20_000}"
    names = list(config.pipelines)
    if tcp is None:
        found = [f"ipc://{folder / name}" for name in ("samples", "log", "control", *(f"{n}.control" for n in names))]
    else:
        base, _, port = tcp.rpartition(":")
        if int(port) + 3 + len(names) > 65_536:
            raise ConfigError(f"bus.tcp: {3 + len(names)} ports from {port} on do not fit below 65536")
        found = [f"{base}:{int(port) + n}" for n in range(3 + len(names))]
    for endpoint in found:
        if endpoint.startswith("tcp://") or folder.is_dir():
            check_endpoint(endpoint, bind=True)
    samples, log, acquire, *decoders = found
    return Endpoints(folder, samples, log, acquire, dict(zip(names, decoders, strict=True)))


def log_of(samples: str) -> str:
    """Where the questions go whose samples come from an address that is shared with other machines: the next port.

    Raises
    ------
    ConfigError
        There is none.
    """
    if samples.startswith("ipc://"):
        return f"{samples}.log"
    base, _, port = samples.rpartition(":")
    if not 0 < int(port) < 65_535:
        raise ConfigError(f"{samples} cannot be shared: the next port is needed too; choose a port from 1 to 65534")
    return f"{base}:{int(port) + 1}"


def prepare(found: Endpoints, *, private: bool) -> None:
    """Make the runtime folder, for this user alone.

    Parameters
    ----------
    found : Endpoints
        Whose folder.
    private : bool
        Refuse a folder that another user owns or can write to (one under a shared ``/tmp`` may be a trap). False where
        the configuration names the folder.

    Raises
    ------
    ProcessError
        The folder cannot be made, or is not safe to use.
    """
    folder = found.folder
    try:
        if private:
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folders = (folder.parent, folder) if private else ()
        states = [(one, one.lstat()) for one in folders]
    except OSError as error:
        raise ProcessError(f"the runtime folder {folder} cannot be made: {error.strerror}; set bus.dir") from None
    for one, state in states:
        if not stat.S_ISDIR(state.st_mode) or (hasattr(os, "getuid") and state.st_uid != os.getuid()):
            raise ProcessError(f"{one} belongs to another user; remove it, or set bus.dir")
        if sys.platform != "win32" and state.st_mode & 0o077:
            raise ProcessError(f"{one} is open to other users (mode {state.st_mode & 0o777:o}); expected 700")


def _runtime_root() -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and Path(base).is_dir():
        return Path(base) / "rtdecode"
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    return Path(tempfile.gettempdir()) / f"rtdecode-{user}"


def _digest(path: Path) -> str:
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
