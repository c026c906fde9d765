"""What a process can be asked over its control socket."""

from typing import Any

import msgspec
import zmq

from rtdecode.config import Config
from rtdecode.daemon.endpoints import endpoints
from rtdecode.daemon.rpc import Client


class _Request(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="ask"
):
    pipeline: str = ""
    """Which of those that share a process (*decode* alone); all of them where empty, or the only one."""


class Status(_Request, tag="status", frozen=True, kw_only=True):
    """How is it going."""


class Stop(_Request, tag="stop", frozen=True, kw_only=True):
    """End as on SIGTERM: with everything published."""


class Swap(_Request, tag="swap", frozen=True, kw_only=True):
    """Decode with another bundle from the next chunk on (*decode* alone).

    `bundle` is an absolute path on the daemon's machine. The new decoder is fed from *acquire*'s log first, so that its
    filters have settled: the whole log, or its newest `seconds`.
    """

    bundle: str
    seconds: float | None = None


class Record(_Request, tag="record", frozen=True, kw_only=True):
    """Start recording, in a new file, or stop it (*acquire* alone)."""

    on: bool


Request = Status | Stop | Swap | Record


def ask(endpoint: str, request: Request, timeout: float, who: str = "the process") -> dict[str, Any]:
    """Ask one process.

    Raises
    ------
    RtdecodeError
        It does not answer (`ProcessError`), or refuses.
    """
    with zmq.Context() as context:
        client = Client(context, endpoint, who)
        try:
            return client.ask(request, timeout)[0]
        finally:
            client.close()


def control_endpoints(config: Config) -> dict[str, str]:
    """Control endpoint of *acquire* (``acquire``, ``acquire.2``...) and of every pipeline, by name."""
    found = endpoints(config)
    return {name: row[2] for name, row in found.owners.items()} | found.decoders


def control_endpoint(config: Config, pipeline: str) -> str:
    """Control endpoint of one pipeline; raises `ConfigError`, naming those there are."""
    config.pipeline(pipeline)
    return endpoints(config).decoders[pipeline]
