"""Prefixes that several engines of one process share, because they hear the same samples."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet, WeakValueDictionary

import msgspec

from rtdecode.encode.manifest import Split
from rtdecode.encode.prefix import PrefixStream, session
from rtdecode.encode.prefix_member import Member, Run
from rtdecode.stream.steps import WindowStep

#: Seconds by which an engine may be behind another and still find what that has had run.
HISTORY_S = 2.0

Key = tuple[str, ...]


class Prefix:
    """The first part of an encoder, and the engines whose samples it runs on.

    Parameters
    ----------
    data : bytes
        The ONNX file.
    split : Split
        Its layout.
    shape : tuple of int
        (time, channels) of a window.
    sfreq : float
        Rate of the samples, in Hz.
    threads : int
        Threads inside one operator.
    what : str
        The file, for messages.
    key : tuple of str
        What all that share it have in common.
    """

    def __init__(
        self,
        data: bytes,
        split: Split,
        shape: tuple[int, int],
        sfreq: float,
        threads: int,
        what: str,
        *,
        spinning: bool = False,
        key: Key = (),
    ) -> None:
        self.key = key
        #: Samples of a window.
        self.length = shape[0]
        self.members: WeakSet[Member] = WeakSet()
        self._split = split
        self._session: Any = session(data, what, threads, spinning=spinning)
        self._channels = shape[1]
        self._kept = shape[0] + round(HISTORY_S * sfreq)

    def stream(self, samples: int) -> PrefixStream:
        """A stream that is nobody else's, which keeps the positions of so many samples."""
        return PrefixStream(self._session, self._split, self._channels, samples)

    def run(self, first_index: int) -> Run:
        """One that others may share, from this sample on."""
        return Run(self.stream(self._kept), first_index, self._kept)

    def runs(self) -> list[Run]:
        """Those that are in use, the oldest first."""
        return sorted({one.run for one in self.members if one.run is not None}, key=lambda run: run.serial)


class PrefixPool:
    """Finds the prefix that another engine of this process has already. For one thread."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[Key, Prefix] = WeakValueDictionary()

    def get(self, key: Key) -> Prefix | None:
        """The one that was put there, while an engine has it."""
        return self._known.get(key)

    def put(self, prefix: Prefix) -> Prefix:
        """Keep one for others; the one that is there already, where there is one."""
        return self._known.setdefault(prefix.key, prefix)


@dataclass(frozen=True, slots=True)
class Company:
    """Where an engine looks for others that hear what it hears.

    Parameters
    ----------
    pool : PrefixPool
        Of its process.
    heard : str
        Names the conditioned samples. Engines of one name compare them; a name for too much costs time, nothing else.
    name : str
        Of the engine's owner, for the others' descriptions.
    """

    pool: PrefixPool
    heard: str
    name: str


def key_of(
    split: Split,
    sums: str,
    steps: Sequence[WindowStep],
    shape: tuple[int, int],
    sfreq: float,
    threads: int,
    spinning: bool,
    heard: str,
) -> Key:
    """What engines must have in common to share a prefix: with `heard`, all that its positions are made of.

    Parameters
    ----------
    split : Split
        The layout of the prefix.
    sums : str
        SHA-256 of its file.
    steps : sequence of WindowStep
    shape : tuple of int
        (time, channels) of a window.
    sfreq : float
        Rate of the samples, in Hz.
    threads, spinning
        Of the session.
    heard : str
        As for `Company`.
    """
    layout = (split.block, split.stride, split.states, split.boundary, steps, shape, sfreq, threads, spinning)
    return sums, hashlib.sha256(msgspec.json.encode(layout)).hexdigest(), heard
