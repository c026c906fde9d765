"""Prefixes that several engines of one process share, because they hear the same samples."""

from typing import Any

from rtdecode.encode.manifest import Split
from rtdecode.encode.prefix import Floats, PrefixStream, session
from rtdecode.stream.early_steps import EarlySteps

#: Seconds of the shared stream that are kept beyond a window.
HISTORY_S = 2.0


class Prefix:
    """The first part of an encoder, and the one stream of it that engines share.

    Engines that share one hear the same conditioned samples in lock-step: all of them hear a restart, or a piece of the
    stream, before any hears what follows it. The first to tell counts; what the others tell again is done already.

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
    ) -> None:
        self._split = split
        self._session: Any = session(data, what, threads, spinning=spinning)
        self._channels = shape[1]
        self._kept = shape[0] + round(HISTORY_S * sfreq)
        self._shared: PrefixStream | None = None

    def stream(self, samples: int) -> PrefixStream:
        """A stream of one's own, which keeps the positions of so many samples."""
        return PrefixStream(self._session, self._split, self._channels, samples)

    def share(self) -> PrefixStream:
        """The stream that all share."""
        if self._shared is None:
            self._shared = self.stream(self._kept)
        return self._shared

    def restart(self, first_index: int) -> None:
        """As `PrefixStream.restart`, of the shared one; nothing where it has just begun there."""
        shared = self.share()
        if not shared.first == shared.next == first_index:
            shared.restart(first_index)

    def push(self, samples: Floats, first_index: int, steps: EarlySteps) -> None:
        """As `PrefixStream.push`, of the shared one, after the window steps; what it has heard is not made again."""
        shared = self.share()
        if first_index + len(samples) > shared.next:
            shared.push(steps(samples), first_index)


class PrefixPool:
    """Finds the prefix that another engine has already.

    Two share one where the file is the same to the byte, the window steps are the same, and the caller says, by an
    identity of its own, that they hear the same conditioned samples.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], Prefix] = {}

    def get(self, key: tuple[str, ...]) -> Prefix | None:
        """The one that was put there."""
        return self._known.get(key)

    def put(self, key: tuple[str, ...], prefix: Prefix) -> Prefix:
        """Keep one for others."""
        return self._known.setdefault(key, prefix)
