"""Which windows have become due, as far as a swap of bundles needs to know."""

from collections import deque
from collections.abc import Iterable

from rtdecode.result import Result, Task

Key = tuple[str | int | float, ...]

#: Windows that are remembered for a process after this one.
KEPT = 1024


class Published:
    """Windows that are out, or are about to be.

    Two bundles may cut other windows, or give the same ones a little earlier or later.
    """

    def __init__(self, remembered: int = 8192) -> None:
        self._keys: set[Key] = set()
        self._order: deque[Key] = deque()
        self._remembered = remembered
        self._newest: dict[str, tuple[int, float]] = {}

    def note(self, item: Result | Task) -> None:
        """`item` is due, and will be out."""
        key = _key(item)
        if key not in self._keys:
            self._keys.add(key)
            self._order.append(key)
            if len(self._order) > self._remembered:
                self._keys.discard(self._order.popleft())
        self._newest[item.window] = max(self._newest.get(item.window, (-1, 0.0)), _end(item))

    @property
    def newest(self) -> list[Key]:
        """The newest ones."""
        return list(self._order)[-KEPT:]

    def recall(self, keys: Iterable[Key]) -> None:
        """These are out, as a process before this one knew."""
        for key in keys:
            self._keys.add(key)
            self._order.append(key)

    def __contains__(self, item: Result | Task) -> bool:
        return _key(item) in self._keys

    def follows(self, result: Result) -> bool:
        """Whether a result that another decoder gave from samples that are decoded already is nevertheless owed.

        One that hangs on a marker is, where its marker's window is not out. A sliding one is, where it ends after the
        last that is out.
        """
        if result in self:
            return False
        if result.marker is not None:
            return True
        newest = self._newest.get(result.window, max(self._newest.values(), default=(-1, 0.0)))
        return _end(result) > newest


def _key(item: Result | Task) -> Key:
    marker = item.marker
    if marker is not None:
        return (item.segment, item.window, marker.stamp, marker.value, marker.stream)
    return (item.segment, item.window, round(item.start / item.sfreq, 6))


def _end(item: Result | Task) -> tuple[int, float]:
    return (item.segment, round((item.start + item.length) / item.sfreq, 6))
