"""A cache of results that is bounded in bytes, not only in entries.

`functools.lru_cache` keeps whatever it is asked for: sixteen thousand labels of a megabyte each,
if somebody sends them. What is long is rare and is computed anew.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Generic, TypeVar, TypeVarTuple

__all__ = ["LONGEST", "Known", "LongError", "Same", "cache_short"]

K = TypeVar("K")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

LONGEST = 256  # characters of all arguments together


class LongError(Exception):
    """Carries a result past the cache, which keeps nothing of a call that raised."""

    def __init__(self, result: Any) -> None:
        self.result = result


def cache_short(
    maxsize: int, longest: int = LONGEST, *, typed: bool = False
) -> Callable[[Callable[[*Ts], T]], Callable[[*Ts], T]]:
    """Remember a pure function's results, but those for long arguments.

    A hit costs what it costs `lru_cache`, and a call; the length is looked at on a miss.

    Args:
        maxsize: how many results, at most.
        longest: characters of the arguments, with the parts of tuples, that are remembered.
        typed: whether 1 and 1.0 are different arguments.
    """

    def decorate(function: Callable[[*Ts], T]) -> Callable[[*Ts], T]:
        @functools.lru_cache(maxsize, typed)
        def remembered(*args: *Ts) -> T:
            result = function(*args)
            if sum(map(_length, args)) > longest:
                raise LongError(result)
            return result

        @functools.wraps(function)
        def call(*args: *Ts) -> T:
            try:
                # What cannot be hashed raises TypeError, as of any cache.
                return remembered(*args)
            except LongError as exc:
                result: T = exc.result
                return result

        return call

    return decorate


class Known(dict[K, T]):
    """What a function gives, by its argument: `map(known.__getitem__, ...)` looks many up.

    A hit costs a tenth of what it costs `cache_short`, as no function of Python's is called.

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
