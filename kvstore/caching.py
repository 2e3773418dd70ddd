"""A cache of results that is bounded in bytes, not only in entries.

`functools.lru_cache` keeps whatever it is asked for: sixteen thousand labels of a megabyte each,
if somebody sends them. What is long is rare and is computed anew.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

__all__ = ["LONGEST", "Known", "LongError", "cache_short"]

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


def _length(argument: Any) -> int:
    """Count characters; every part of a tuple counts for one more."""
    if isinstance(argument, (str, bytes)):
        return len(argument)
    if isinstance(argument, (tuple, list)):
        return len(argument) + sum(map(_length, argument))
    return 1
