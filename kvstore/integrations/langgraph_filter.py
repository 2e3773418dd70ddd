"""LangGraph's filters in kvstore's language.

LangGraph's own stores disagree about the corners; here, in each of them:

- Operators are `$eq $ne $gt $gte $lt $lte`; others raise.
- `a.b` is first the field `b` of the object `a`, and then a field that is really called `a.b`.
- A missing field equals `None`; every other comparison with it is false, `$ne` included.
- Values of different types never compare, so a comparison never fails.
- A list equals a list element by element. An object must have the fields of the filter's object,
  recursively, and may have more; an empty one asks for nothing.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

import orjson

from kvstore.errors import InvalidFilterError

__all__ = ["translate"]

Spec = dict[str, Any]

_NO_KEY = re.compile(r"[\x00-\x1f\x7f'\"`\[\](){}]|^\$|^$")
_INTEGERS = range(-(2**63), 2**64)
_LARGEST: Final = sys.float_info.max
_NOTHING: Final[Spec] = {"$or": []}


def translate(filter: Mapping[str, Any] | None) -> Spec | None:
    """Return a filter of LangGraph's as one of kvstore's.

    Raises:
        InvalidFilterError: a key holds quotes, brackets or control characters, or an operator is
            not LangGraph's.
    """
    if not filter:
        return None
    return {"$and": [_field(name, spec) for name, spec in filter.items()]}


def _field(name: Any, spec: Any) -> Spec:
    if not isinstance(name, str) or _NO_KEY.search(name):
        raise InvalidFilterError(
            f"Invalid filter key: {name!r}; it has no quotes, brackets or control characters, and "
            "does not begin with a dollar sign"
        )
    literal = _condition((name,), spec)
    nested = tuple(name.split("."))
    if len(nested) == 1 or "" in nested:
        return literal
    there = {_path(nested): {"$exists": True}}
    return {
        "$or": [
            {"$and": [there, _condition(nested, spec)]},
            {"$and": [{"$not": there}, literal]},
        ]
    }


def _condition(path: tuple[str, ...], spec: Any) -> Spec:
    if not isinstance(spec, Mapping):
        return _operation(path, "$eq", spec)
    if any(isinstance(name, str) and name.startswith("$") for name in spec):
        return {"$and": [_operation(path, op, operand) for op, operand in spec.items()]}
    return {"$and": [_condition((*path, name), part) for name, part in spec.items()]}


def _operation(path: tuple[str, ...], op: Any, operand: Any) -> Spec:
    field, number = _path(path), _number(operand)
    match op:
        case "$eq" if operand is None:
            return {"$or": [{field: None}, {field: {"$exists": False}}]}
        case "$eq":
            return {field: {"$eq": operand}} if number is None else _equal(field, number)
        case "$ne":
            equal = _operation(path, "$eq", operand)
            return {"$and": [{field: {"$exists": True}}, {"$not": equal}]}
        case "$gt" | "$gte" | "$lt" | "$lte":
            return {field: {op: operand}} if number is None else _compared(field, op, number)
    raise InvalidFilterError(f"Unsupported operator: {op}; there are $eq $ne $gt $gte $lt $lte")


def _number(operand: Any) -> float | None:
    """Return a number that JSON does not hold as a float, and `None` for all else."""
    if isinstance(operand, int) and operand not in _INTEGERS:
        try:
            return float(operand)
        except OverflowError:
            return math.inf if operand > 0 else -math.inf
    return operand if isinstance(operand, float) and not math.isfinite(operand) else None


def _equal(field: str, number: float) -> Spec:
    return {field: {"$eq": number}} if math.isfinite(number) else _NOTHING


def _compared(field: str, op: str, number: float) -> Spec:
    if math.isfinite(number):
        return {field: {op: number}}
    is_true = number == (math.inf if op in ("$lt", "$lte") else -math.inf)
    return {field: {"$gte": -_LARGEST}} if is_true else _NOTHING  # any number, or none


def _path(segments: tuple[str, ...]) -> str:
    """Write a path with every name quoted."""
    try:
        return ".".join(orjson.dumps(segment).decode() for segment in segments)
    except TypeError as exc:
        raise InvalidFilterError(f"Invalid filter key: {segments!r} ({exc})") from None
