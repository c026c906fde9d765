"""The Source protocol: what *acquire*, a replay and a test read from."""

from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from rtdecode.signal import Batch, Origin, StreamInfo


class Source(Protocol):
    """Samples and markers from somewhere.

    A source is opened by `open` (or ``with``), read until `read` returns None, and closed by `close`, which may be
    called from another thread or twice. Samples come as float32 in SI units, scaled in float64 with one cast.
    """

    def open(self) -> StreamInfo:
        """Connect, and say what will come. Raises `SourceError` (or a child of it) where that is impossible."""
        ...

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Once open: the streams behind it, as their senders declare them, the samples' own first.

        Empty where the source has nothing rawer than its chunks.
        """
        ...

    def read(self, timeout: float) -> Batch | None:
        """The next batch, as soon as one sample or marker is there.

        Parameters
        ----------
        timeout : float
            Seconds to wait. When nothing came, a batch without chunk and markers but with the watermark as it stands.

        Returns
        -------
        Batch or None
            None once the source has ended; every sample and marker has then been given.
        """
        ...

    def close(self) -> None:
        """Let go of everything. Safe to call twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


#: More samples than anybody waits for.
MUCH = 1 << 62


@runtime_checkable
class Gathering(Protocol):
    """A source that can give together what comes one by one, for one who does not need each at once."""

    def gather(self, until: float, most: int) -> None:
        """Samples that come up to this host time, or the next `most`, may be given together by the next `read`."""
        ...


@runtime_checkable
class Peeking(Protocol):
    """A source that tells cheaply whether `read` would give something, for one who reads many in turn."""

    def waiting(self) -> int:
        """How many samples there are to read; `MUCH` where something else is. Its silence shows at a `read` alone."""
        ...
