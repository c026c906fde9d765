"""Where the processes of one session meet: a private folder of sockets, or a row of loopback ports."""

import dataclasses
import hashlib
import os
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rtdecode.config import Config
from rtdecode.config.processes import layout
from rtdecode.errors import ConfigError, ProcessError
from rtdecode.wire.endpoint import check_endpoint

#: Sockets of each *acquire*: samples, log, control.
_OF_ACQUIRE = ("samples", "log", "control")


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
        *acquire*'s publisher, its log, and its control socket; of the first, where several own sources.
    decoders : dict of str to str
        Each pipeline's control socket; the same for those that share a process.
    owners : dict of str to tuple of str
        By process, the same three of each *acquire*.
    sources : dict of str to str
        By source, which of these owns it.
    """

    folder: Path
    samples: str
    log: str
    acquire: str
    decoders: dict[str, str]
    owners: dict[str, tuple[str, str, str]]
    sources: dict[str, str]

    @property
    def all(self) -> tuple[str, ...]:
        """Every address."""
        return tuple(dict.fromkeys([*(one for row in self.owners.values() for one in row), *self.decoders.values()]))

    def at(self, owner: str) -> "Endpoints":
        """The same, with one *acquire*'s addresses in front."""
        samples, log, acquire = self.owners[owner]
        return dataclasses.replace(self, samples=samples, log=log, acquire=acquire)

    def of(self, source: str) -> "Endpoints":
        """The same, with the addresses in front of who owns a source."""
        return self.at(self.sources[source])


def endpoints(config: Config) -> Endpoints:
    """The addresses of the session that `config` describes. Creates nothing; see `prepare`."""
    folder = config.bus.dir or _runtime_root() / f"{config.session.name}-{_digest(config.path)}"
    tcp = config.bus.tcp
    if tcp is None and config.bus.dir is None and sys.platform != "linux":
        tcp = f"tcp://127.0.0.1:{20_000 + int(_digest(config.path), 16) % 20_000}"
    hosts = layout(config)
    names = [
        *(f"{kind}{host.name.removeprefix('acquire')}" for host in hosts.acquire for kind in _OF_ACQUIRE),
        *(f"{host.name}.control" for host in hosts.decode),
    ]
    if tcp is None:
        found = [f"ipc://{folder / name}" for name in names]
    else:
        base, _, port = tcp.rpartition(":")
        if int(port) + len(names) > 65_536:
            raise ConfigError(f"bus.tcp: {len(names)} ports from {port} on do not fit below 65536")
        found = [f"{base}:{int(port) + n}" for n in range(len(names))]
    for endpoint in found:
        if endpoint.startswith("tcp://") or folder.is_dir():
            check_endpoint(endpoint, bind=True)
    owners = {host.name: (found[3 * k], found[3 * k + 1], found[3 * k + 2]) for k, host in enumerate(hosts.acquire)}
    decoders = {
        name: endpoint
        for host, endpoint in zip(hosts.decode, found[3 * len(owners) :], strict=True)
        for name in host.members
    }
    sources = {source: host.name for host in hosts.acquire for source in host.members}
    ordered = {name: decoders[name] for name in config.pipelines}
    return Endpoints(folder, *owners["acquire"], ordered, owners, sources)


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
