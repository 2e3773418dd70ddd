"""What the methods of a store take: their arguments, checked and normalised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from types import EllipsisType
from typing import Any, Final

from kvstore.errors import InvalidArgumentError, InvalidKeyError, InvalidNamespaceError
from kvstore.instants import Forever
from kvstore.namespace import address, check_key, check_label, is_text
from kvstore.types import Item, SearchQuery

__all__ = [
    "TTL",
    "Indexing",
    "LabelPattern",
    "Place",
    "check_count",
    "check_function",
    "check_keys",
    "check_label_pattern",
    "check_limit",
    "check_place",
    "check_query",
    "check_score",
    "check_seconds",
    "check_span",
    "check_version",
    "whole_query",
]

TTL = float | timedelta | Forever | None
Indexing = bool | Sequence[str] | None
LabelPattern = Sequence[str | EllipsisType]
Place = str | Item | tuple[Sequence[str], str]

_LONGEST_S: Final = 9e9  # what a float holds, a datetime reaches and a thread can wait
_MOST: Final = 2**62  # more than any store holds


def check_keys(keys: Iterable[str]) -> list[str]:
    """Return the distinct keys, in order."""
    if isinstance(keys, str):
        raise InvalidKeyError(f"keys is a collection of keys, not a str: write {[keys]!r}")
    if not isinstance(keys, Iterable):
        raise InvalidKeyError(f"keys is a collection of keys, not {type(keys).__name__}")
    given = list(keys)
    if set(map(type, given)) == {str} and is_text("".join(given)):  # all of them at once
        return list(dict.fromkeys(given))
    return list(dict.fromkeys(map(check_key, given)))


def check_count(number: int, name: str, least: int = 0) -> int:
    """Return a count, within what every backend can count to."""
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise InvalidArgumentError(f"{name} is an int of at least {least}, not {number!r}")
    return min(number, _MOST)


def check_function(fn: Any, taker: str) -> None:
    """Raise `InvalidArgumentError` unless a method is given something to call."""
    if not callable(fn):
        raise InvalidArgumentError(f"{taker} takes a function, not {type(fn).__name__}")


def check_seconds(number: float, name: str) -> None:
    """Raise `InvalidArgumentError` unless `number` is a positive number of seconds."""
    is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
    if not is_number or not 0 < number < _LONGEST_S:
        raise InvalidArgumentError(
            f"{name} is a positive number of seconds, less than three centuries, not {number!r}"
        )


def check_span(span: float | timedelta, name: str) -> int:
    """Return a span of time in microseconds; raise `InvalidArgumentError` if it is none."""
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    check_seconds(seconds, name)
    return max(1, round(seconds * 1e6))


def check_limit(limit: int | None) -> int | None:
    """Return a limit, or `None` for none."""
    # One less than what a store can count to: with an offset, too, it fits 64 bits
    return None if limit is None else min(check_count(limit, "limit"), _MOST - 1)


def check_version(if_version: int | None) -> None:
    """Require a version that an item may have, 0 for none, or `None`."""
    if if_version is not None:
        check_count(if_version, "if_version")


def check_place(
    place: Place | None, name: str, path: str, *, subtree: bool
) -> tuple[str, str] | None:
    """Return where a listing begins or ends: the path and the key of an item, there or not.

    Args:
        place: a key; or, where there are several namespaces, a namespace and a key, or an item.
        name: of the argument.
        path: of the namespace that is listed.
        subtree: whether the namespaces below it are, too.

    Raises:
        InvalidArgumentError: a key alone names no place, or the place is of another namespace.
    """
    if place is None:
        return None
    if isinstance(place, str):
        if subtree:
            raise InvalidArgumentError(
                f"{name} is a namespace and a key where subtree=True, such as (('users',), "
                f"{place!r}), or an item; with subtree=False, a key will do"
            )
        return path, check_key(place)
    there: Sequence[str]
    if isinstance(place, Item):
        there, key = place.namespace, place.key
    elif isinstance(place, tuple) and len(place) == 2:
        there, key = place
    else:
        raise InvalidArgumentError(
            f"{name} is a key, a tuple of a namespace and a key, or an item, "
            f"not {type(place).__name__}"
        )
    _, found = address(there)
    if not subtree and found != path:
        raise InvalidArgumentError(f"{name} is of another namespace than the one that is listed")
    return found, check_key(key)


def check_label_pattern(labels: LabelPattern, what: str) -> tuple[str | EllipsisType, ...]:
    """Return the labels of a namespace, `...` for any one."""
    if isinstance(labels, (str, bytes)) or not isinstance(labels, Sequence):
        raise InvalidNamespaceError(
            f"{what} is a sequence of labels such as ('users', ...), not {type(labels).__name__}"
        )
    for position, label in enumerate(labels):
        if label is not ...:
            check_label(label, f"label {position} of the {what}")
    return tuple(label if label is ... else str.__str__(label) for label in labels)


def whole_query(asked: SearchQuery) -> SearchQuery:
    """Return the arguments of a search: as they are, or those of the one that is its `query`."""
    query: Any = asked.query
    if not isinstance(query, SearchQuery):
        return asked
    if asked.vector is not None or asked != SearchQuery(asked.query):
        raise InvalidArgumentError("a SearchQuery says it all: put the other arguments into it")
    return query


def check_score(least: float | None) -> float | None:
    """Return the least score of a search, or raise `InvalidArgumentError` if it is no number."""
    if least is not None and (isinstance(least, bool) or not isinstance(least, (int, float))):
        raise InvalidArgumentError(f"min_score is a number, not {type(least).__name__}")
    if least != least:
        raise InvalidArgumentError("min_score is a number, not NaN")
    return least


def check_query(query: Any) -> None:
    """Raise `InvalidArgumentError` unless it is what a search may ask by words or by meaning."""
    if query is None:
        return
    if not isinstance(query, str):
        is_filter = isinstance(query, Mapping)
        cure = "; a filter is written search(namespace, filter={...})" if is_filter else ""
        raise InvalidArgumentError(f"query is a str, not {type(query).__name__}{cure}")
    if not is_text(query):
        raise InvalidArgumentError("query holds a lone surrogate, and no text does")
