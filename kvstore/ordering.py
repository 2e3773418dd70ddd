"""The order of an unranked search, where the caller names one.

Values of a field are ordered by their JSON types, and within them: null, booleans, numbers,
strings, then all else, which has no order. What is missing comes last, in either direction. Where
all that was named is equal, the latest write comes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import nlargest, nsmallest
from operator import itemgetter
from typing import Any

from kvstore.errors import InvalidArgumentError
from kvstore.filters import json_type
from kvstore.paths import EACH, MISSING, Path, PathError, parse_path, resolve
from kvstore.types import Item

__all__ = ["COLUMNS", "Order", "first_items", "parse_order", "place_of"]

COLUMNS = ("key", "created_at", "updated_at", "expires_at", "version")
_RANKS = {"null": 0, "bool": 1, "number": 2, "string": 3}
_LAST_RANK = 4


@dataclass(frozen=True, slots=True)
class Order:
    """One thing to order by.

    Attributes:
        by: one of `COLUMNS`, or a path into the value.
        descends: whether the greatest comes first.
    """

    by: str | Path
    descends: bool


def parse_order(order_by: str | Sequence[str] | None) -> tuple[Order, ...]:
    """Parse what a search is to be ordered by, the most important first.

    Raises:
        InvalidArgumentError: it is neither a name, nor a path, nor a list of them.
    """
    if order_by is None:
        return ()
    names = [order_by] if isinstance(order_by, str) else order_by
    if not isinstance(names, (list, tuple)):
        raise InvalidArgumentError(
            f"order_by is a name, a path or a list of them, not {type(order_by).__name__}"
        )
    return tuple(map(_parse, names))


def _parse(name: str) -> Order:
    if not isinstance(name, str):
        raise InvalidArgumentError(
            f"order_by takes names such as 'key' and paths such as '$.score', "
            f"not {type(name).__name__}"
        )
    descends = name.startswith("-")
    what = name[1:] if descends else name
    if what in COLUMNS:
        return Order(what, descends)
    try:
        path = parse_path(what)
    except PathError as exc:
        raise InvalidArgumentError(f"order_by: {exc}") from None
    if EACH in path:
        raise InvalidArgumentError("order_by takes a path to one place, without '[*]'")
    return Order(path, descends)


def place_of(value: Any, path: Path) -> tuple[int, Any] | None:
    """Return what a value is ordered by: the rank of a type, and what is of it; `None`: missing."""
    found = resolve(value, path)
    if found is MISSING:
        return None
    rank = _RANKS.get(json_type(found), _LAST_RANK)
    return rank, found if 0 < rank < _LAST_RANK else 0


def first_items(items: Iterable[Item], orders: Sequence[Order], most: int) -> list[Item]:
    """Return the first items in an order, those that are equal in the order in which they come."""
    found = list(items)
    for order in reversed(orders):
        placed = [(_place(item, order), item) for item in found]
        present = [pair for pair in placed if pair[0] is not None]
        # The last order to be applied is the first one named: only there, the first few will do.
        wanted = most if order is orders[0] else len(present)
        if 4 * wanted < len(present):
            pick = nlargest if order.descends else nsmallest
            present = pick(wanted, present, key=itemgetter(0))  # stable, as a sort is
        else:
            present.sort(key=itemgetter(0), reverse=order.descends)
        missing = [item for place, item in placed if place is None]
        found = [*(item for _, item in present), *missing]
    return found[:most]


def _place(item: Item, order: Order) -> Any:
    if isinstance(order.by, str):
        return getattr(item, order.by)
    return place_of(item.value, order.by)
