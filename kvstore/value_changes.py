"""The atomic changes of one value, each as a pure function that a `Mutate` may run anywhere."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from kvstore.errors import ValueEncodingError, ValueTypeError
from kvstore.filters import json_type
from kvstore.paths import MISSING, Path, resolve

__all__ = ["ChangeOfValue", "append", "increment", "pop"]

ChangeOfValue = Callable[[Any], tuple[Any, Any]]
"""From the present value (`MISSING`: absent) to the new one (`MISSING`: leave it) and an answer."""


def increment(where: str, amount: float, field: Path | None, initial: float) -> ChangeOfValue:
    """Return the change that adds `amount` to a number, or to the number at `field`."""

    def change(value: Any) -> tuple[Any, Any]:
        if field is None:
            total = _sum(initial if value is MISSING else value, amount, where)
            return total, total
        root = {} if value is MISSING else value
        present = resolve(root, field)
        total = _sum(initial if present is MISSING else present, amount, f"{where}, {field!r}")
        _assign(root, field, total, where)
        return root, total

    return change


def _sum(present: Any, amount: float, where: str) -> Any:
    if json_type(present) != "number":
        raise ValueTypeError(
            f"increment needs a number, and {where} is of type {json_type(present)}"
        )
    try:
        return present + amount
    except OverflowError:  # a float and an int beyond its range
        raise ValueEncodingError(f"the sum for {where} does not fit 64 bits") from None


def _assign(root: Any, field: Path, leaf: Any, where: str) -> None:
    """Set what a path leads to, making the objects on the way that are missing."""
    parent = root
    for segment, following in pairwise(field):
        inner = resolve(parent, (segment,))
        if inner is MISSING and isinstance(parent, dict) and isinstance(following, str):
            inner = parent[segment] = {}
        parent = inner
    last = field[-1]
    if not (isinstance(parent, dict) if isinstance(last, str) else _holds(parent, last)):
        raise ValueTypeError(
            f"{where} has no place for the field {field!r}: a part is missing "
            "or is neither an object nor a list"
        )
    parent[last] = leaf


def _holds(parent: Any, index: Any) -> bool:
    return resolve(parent, (index,)) is not MISSING


def append(where: str, values: list[Any], max_length: int | None) -> ChangeOfValue:
    """Return the change that adds `values` to the end of a list; it answers the new length."""

    def change(value: Any) -> tuple[Any, Any]:
        present = _list([] if value is MISSING else value, "append", where)
        present.extend(values)
        if max_length is not None and len(present) > max_length:
            del present[: len(present) - max_length]
        return present, len(present)

    return change


def pop(where: str, index: int, default: Any) -> ChangeOfValue:
    """Return the change that takes one element out of a list; it answers the element."""

    def change(value: Any) -> tuple[Any, Any]:
        present = _list([] if value is MISSING else value, "pop", where)
        if not -len(present) <= index < len(present):
            return MISSING, default
        taken = present.pop(index)
        return present, taken

    return change


def _list(present: Any, what: str, where: str) -> list[Any]:
    if not isinstance(present, list):
        raise ValueTypeError(f"{what} needs a list, and {where} is of type {json_type(present)}")
    return present
