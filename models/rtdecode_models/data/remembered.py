"""What was costly to make, kept until it takes too much memory."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """The newest values, as many as fit.

    Parameters
    ----------
    limit : int
        Bytes in all. The value that was used longest ago is forgotten first; one that is larger is never kept.
    size : callable
        Bytes of a value.
    """

    def __init__(self, limit: int, size: Callable[[T], int]) -> None:
        self._limit, self._size = limit, size
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._held = 0

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of `key`, made where it is not remembered."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = make()
        size = self._size(value)
        if size <= self._limit:
            self._values[key] = value
            self._held += size
        while self._held > self._limit:
            _, old = self._values.popitem(last=False)
            self._held -= self._size(old)
        return value
