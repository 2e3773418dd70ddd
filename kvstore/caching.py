"""A cache of results that is bounded in bytes, not only in entries.

`functools.lru_cache` keeps whatever it is asked for: sixteen thousand labels of a megabyte each,
if somebody sends them. What is long is rare and is computed anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["LONGEST", "Known", "Same", "cache_short"]

K = TypeVar("K")
T = TypeVar("T")

LONGEST = 256  # characters of an argument


def cache_short(
    maxsize: int, longest: int = LONGEST
) -> Callable[[Callable[[K], T]], Callable[[K], T]]:
    """Remember a pure function's results, but those for long arguments; see `Known`."""
    return lambda function: Known(function, maxsize, longest).__getitem__


class Known(dict[K, T]):
    """What a function gives, by its argument; a loop looks many up by `known.__getitem__`.

    A hit costs less than one of `lru_cache` behind a function of Python's.

    Args:
        function: a pure one.
        maxsize: how many results; beyond, all are forgotten.
        longest: characters of an argument, with the parts of a tuple, that is remembered.
    """

    def __init__(
        self, function: Callable[[K], T], maxsize: int = 65_536, longest: int = LONGEST
    ) -> None:
        super().__init__()
        self._function = function
        self._maxsize = maxsize
        self._longest = longest

    def __missing__(self, key: K) -> T:
        result = self._function(key)
        if _length(key) <= self._longest:
            if len(self) >= self._maxsize:
                self.clear()
            self[key] = result
        return result


class Same(Generic[K, T]):
    """What a function makes of an object, remembered as long as it is given the very same one.

    For what cannot be hashed, or is equal to what it is not the same as, such as 1 and True.

    Args:
        function: a pure one, of what never changes.
        is_short: whether a result, and with it its argument, is short enough to be kept.
        maxsize: how many results; beyond, all are forgotten.
    """

    def __init__(
        self, function: Callable[[K], T], is_short: Callable[[T], bool], maxsize: int = 256
    ) -> None:
        self._function = function
        self._is_short = is_short
        self._maxsize = maxsize
        self._kept: dict[int, tuple[K, T]] = {}  # by id; no other object has that of one kept here

    def __call__(self, argument: K) -> T:
        """Return what the function makes of an object."""
        kept = self._kept.get(id(argument))
        if kept is not None:
            return kept[1]
        result = self._function(argument)
        if self._is_short(result):
            if len(self._kept) >= self._maxsize:
                self._kept = {}
            self._kept[id(argument)] = argument, result
        return result


def _length(argument: Any) -> int:
    """Count characters; every part of a tuple counts for one more."""
    if isinstance(argument, (str, bytes)):
        return len(argument)
    if isinstance(argument, (tuple, list)):
        return len(argument) + sum(map(_length, argument))
    return 1
