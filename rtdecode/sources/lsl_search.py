"""Finding a lost LSL stream again, among all that answer to the same description."""

from typing import Any

from rtdecode.sources.lsl_directory import Directory
from rtdecode.sources.lsl_streams import LOOK_S, StreamQuery, pylsl, unique


def described(info: Any) -> dict[str, str]:
    """All that a stream says of who it is."""
    return {"name": info.name(), "type": info.type(), "source_id": info.source_id(), "host": info.hostname()}


def identity(info: Any) -> dict[str, str]:
    """By what a stream is known again: its `source_id`, or its host where it has none.

    With its name in any case, since some senders give all their streams one `source_id`.
    """
    unused = "host" if info.source_id() else "source_id"
    return {key: value for key, value in described(info).items() if key != unused}


def same_identity(one: Any, lost: Any) -> bool:
    """Whether `one` says that it is what was lost, as a sender does that was restarted."""
    return identity(lost).items() <= described(one).items()


class Search:
    """Looks for a stream that was lost. Those that were refused are passed over: each start of a sender is another.

    Parameters
    ----------
    query : StreamQuery
        What the configuration asks for; whatever else answers to it may stand in its place.
    lost : pylsl.StreamInfo
        What it was.
    directory : Directory, optional
        Looks in its place, where others look too.
    """

    def __init__(self, query: StreamQuery, lost: Any, directory: Directory | None = None) -> None:
        self._query = query
        self._directory = directory
        self._lost = lost
        self._refused: set[str] = set()

    def look(self) -> Any | None:
        """One that may be it, as soon as there is one; the one that it says it is, where there are several.

        None after `LOOK_S`, so that the caller can look whether to go on.
        """
        if self._directory is not None:
            found = self._directory.find(self._query)
        else:  # one more than are known, so that liblsl returns at once when another appears
            found = unique(pylsl().resolve_bypred(self._query.predicate, len(self._refused) + 1, LOOK_S))
        self._refused &= {one.uid() for one in found}  # what has gone is waited for no longer
        fresh = [one for one in found if one.uid() not in self._refused]
        return min(fresh, key=lambda one: not same_identity(one, self._lost), default=None)

    def refuse(self, info: Any) -> None:
        """Pass over this one from now on."""
        self._refused.add(info.uid())
