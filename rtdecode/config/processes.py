"""Which process owns which sources, and which runs which pipelines. It depends on the file and the machine alone."""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass

from rtdecode.config.sections import Config

#: Sources that one *acquire* owns unless it is told otherwise.
SOURCES_EACH = 64

#: Pipelines up to which each has a process of its own.
PIPELINES_APART = 8


@dataclass(frozen=True, slots=True)
class Host:
    """One process.

    Parameters
    ----------
    name : str
        ``acquire``; a pipeline that has it for itself; ``acquire.2`` or ``decode.2`` (no pipeline's name has a dot).
    members : tuple of str
        Its sources, or its pipelines.
    """

    name: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The processes of a session.

    Parameters
    ----------
    acquire, decode : tuple of Host
        Those that own sources, and those that run pipelines.
    """

    acquire: tuple[Host, ...]
    decode: tuple[Host, ...]

    def acquire_of(self, source: str) -> Host:
        """Who owns a source."""
        return next(host for host in self.acquire if source in host.members)

    def decode_of(self, pipeline: str) -> Host:
        """Who runs a pipeline."""
        return next(host for host in self.decode if pipeline in host.members)

    @property
    def shared(self) -> bool:
        """Whether pipelines share a process."""
        return any(len(host.members) > 1 for host in self.decode)


def layout(config: Config) -> Layout:
    """The processes that a configuration gives. Neighbours share one, and all pipelines of a source where it can be."""
    wanted = config.processes
    sources = list(config.inputs)
    acquire = _rows([[source] for source in sources], wanted.acquire or -(-len(sources) // SOURCES_EACH))
    of_source: dict[str, list[str]] = {source: [] for source in sources}
    for name, pipeline in config.pipelines.items():
        assert isinstance(pipeline.source, str)
        of_source[pipeline.source].append(name)
    n = len(config.pipelines)
    n_decode = min(n, wanted.decode or (n if n <= PIPELINES_APART else os.cpu_count() or 1))
    together = [names for names in of_source.values() if names]
    if n_decode > len(together):
        together = [[name] for name in config.pipelines]
    decode = _rows(together, n_decode) if n else []
    return Layout(
        tuple(Host(_numbered("acquire", k), row) for k, row in enumerate(acquire)),
        tuple(Host(row[0] if len(row) == 1 else f"decode.{k + 1}", row) for k, row in enumerate(decode)),
    )


def _numbered(kind: str, k: int) -> str:
    return kind if k == 0 else f"{kind}.{k + 1}"


def _rows(groups: Sequence[Sequence[str]], n: int) -> list[tuple[str, ...]]:
    """Groups in `n` rows of about the same number of groups, in their order; none is empty."""
    n = min(n, len(groups))
    cuts = [round(k * len(groups) / n) for k in range(n + 1)]
    return [tuple(name for group in groups[begin:stop] for name in group) for begin, stop in itertools.pairwise(cuts)]
