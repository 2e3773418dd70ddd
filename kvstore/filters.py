"""Filters over values: Mongo's language, the part that fits.

A filter is parsed once into a tree. `matches` defines what the tree means; backends translate
the tree into their own language and fall back to `matches` where that could differ.
Types are JSON's: a number equals a number whatever its Python type, `True` is not `1`, and a
comparison of different types is false.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

import orjson

from kvstore import codec
from kvstore.caching import Known
from kvstore.errors import InvalidFilterError, ValueEncodingError
from kvstore.paths import EACH, MISSING, Path, PathError, parse_path, resolve

__all__ = [
    "ALL",
    "And",
    "Compare",
    "Contains",
    "Exists",
    "Filter",
    "In",
    "Leaf",
    "Not",
    "Or",
    "best_lookup",
    "comparisons",
    "json_mark",
    "json_type",
    "matches",
    "parse_filter",
    "same_json",
]

T = TypeVar("T")

CompareOp = Literal["eq", "gt", "gte", "lt", "lte"]


@dataclass(frozen=True, slots=True)
class Compare:
    """What is at `path` compares so with `operand`; different types never do."""

    path: Path
    op: CompareOp
    operand: Any


@dataclass(frozen=True, slots=True)
class In:
    """What is at `path` equals one of `operands`, whose marks it holds to look among them."""

    path: Path
    operands: tuple[Any, ...]
    marks: frozenset[Hashable] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "marks", frozenset(map(json_mark, self.operands)))


@dataclass(frozen=True, slots=True)
class Contains:
    """The list at `path` has an element, or the string at `path` a part, equal to `operand`."""

    path: Path
    operand: Any


@dataclass(frozen=True, slots=True)
class Exists:
    """There is something (`null` included) at `path`."""

    path: Path


@dataclass(frozen=True, slots=True)
class And:
    """All parts hold; with no parts, true."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part holds; with no parts, false."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Filter


Leaf = Compare | In | Contains | Exists
Filter = Leaf | And | Or | Not

ALL: Final = And(())
_MAX_DEPTH = 64
_AS_IT_IS = (  # no objects are written that come back as something else
    orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)


def comparisons(filter: Filter) -> int:
    """Count the values that one item is compared with, at most."""
    match filter:
        case In(operands=operands):
            return len(operands)
        case And(parts=parts) | Or(parts=parts):
            return sum(map(comparisons, parts))
        case Not(part=part):
            return comparisons(part)
    return 1


def best_lookup(
    parts: Sequence[Filter],
    find: Callable[[Filter], T | None],
    within: Callable[[Sequence[Compare]], T | None],
) -> T | None:
    """Choose how to look up what may pass all of some filters, where scalars are kept in order.

    By an equality if there is one, else by all bounds of a path together, else by what exists.

    Args:
        parts: the filters.
        find: how to look up what may pass one of them; `None`: that cannot be told.
        within: as `find`, of what may lie within some bounds of one path.
    """
    ranges: dict[Path, list[Compare]] = {}
    last = None
    for part in parts:
        if isinstance(part, Compare) and part.op != "eq":
            ranges.setdefault(part.path, []).append(part)
            continue
        found = find(part)
        if found is not None and not isinstance(part, Exists):
            return found
        last = last or found
    return next(filter(None, map(within, ranges.values())), last)


def parse_filter(spec: Mapping[str, Any] | None) -> Filter:
    """Parse a filter; `None` and `{}` let everything pass.

    One that was parsed lately is the same object, so that what is made of it can be kept (`Same`).

    Raises:
        InvalidFilterError: not a mapping, an unknown operator, a malformed path, an operand of
            the wrong kind, or nesting deeper than 64 levels.
    """
    if spec is None:
        return ALL
    try:
        said = orjson.dumps(spec, option=_AS_IT_IS)
    except TypeError:  # more than JSON, which may be right nevertheless
        return _parse_all(spec, 0)
    return _parse_all(spec, 0) if b"null" in said else _PARSED[said]  # which may be a NaN


def _parse_said(said: bytes) -> Filter:
    return _parse_all(orjson.loads(said), 0)


_PARSED = Known(_parse_said, 256)


def _parse_all(spec: Any, depth: int) -> Filter:
    if not isinstance(spec, Mapping):
        raise InvalidFilterError(
            f"a filter is a mapping such as {{'status': 'open'}}, not {type(spec).__name__}"
        )
    if depth > _MAX_DEPTH:
        raise InvalidFilterError(f"the filter nests deeper than {_MAX_DEPTH} levels")
    parts: list[Filter] = []
    for name, operand in spec.items():
        if not isinstance(name, str):
            raise InvalidFilterError(f"a filter's key is a str, not {type(name).__name__}")
        if name in ("$and", "$or"):
            branches = tuple(_parse_all(each, depth + 1) for each in _operands(name, operand))
            parts.append(And(branches) if name == "$and" else _either(branches))
        elif name == "$not":
            parts.append(Not(_parse_all(operand, depth + 1)))
        elif name.startswith("$") and not name.startswith(("$.", "$[")):
            raise InvalidFilterError(
                f"unknown operator {name!r}; at this place there are $and, $or, $not and paths "
                f"(quote a field that begins with a dollar: '\"{name}\"')"
            )
        else:
            parts.append(_parse_field(_path(name), name, operand, depth + 1))
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _either(branches: tuple[Filter, ...]) -> Filter:
    """Return that one of some filters holds; equalities of one path become one look-up."""
    wanted: dict[Path, list[Any]] = {}
    others: list[Filter] = []
    for branch in branches:
        match branch:
            case Compare(path, "eq", operand):
                wanted.setdefault(path, []).append(operand)
            case In(path, operands):
                wanted.setdefault(path, []).extend(operands)
            case _:
                others.append(branch)
    equal: list[Filter] = [
        In(path, tuple(some)) if len(some) != 1 else Compare(path, "eq", some[0])
        for path, some in wanted.items()
    ]
    parts = (*equal, *others)
    return parts[0] if len(parts) == 1 else Or(parts)


def _parse_field(path: Path, name: str, spec: Any, depth: int) -> Filter:
    """Parse what is said of one field: a plain value, or a mapping of operators."""
    if depth > _MAX_DEPTH:
        raise InvalidFilterError(f"the filter nests deeper than {_MAX_DEPTH} levels")
    if not isinstance(spec, Mapping) or not any(_is_operator(key) for key in spec):
        return Compare(path, "eq", _json(spec, name))
    parts = tuple(_parse_operator(path, name, op, operand, depth) for op, operand in spec.items())
    return parts[0] if len(parts) == 1 else And(parts)


def _is_operator(key: Any) -> bool:
    return isinstance(key, str) and key.startswith("$")


def _parse_operator(path: Path, name: str, op: Any, operand: Any, depth: int) -> Filter:
    match op:
        case "$eq" | "$gt" | "$gte" | "$lt" | "$lte":
            return Compare(path, op[1:], _json(operand, name))
        case "$ne":
            return Not(Compare(path, "eq", _json(operand, name)))
        case "$in":
            return In(path, tuple(_json(each, name) for each in _operands(op, operand)))
        case "$nin":
            return Not(In(path, tuple(_json(each, name) for each in _operands(op, operand))))
        case "$contains":
            return Contains(path, _json(operand, name))
        case "$exists":
            if not isinstance(operand, bool):
                raise InvalidFilterError(f"$exists of {name!r} takes True or False")
            return Exists(path) if operand else Not(Exists(path))
        case "$not":
            if not isinstance(operand, Mapping) or not any(_is_operator(key) for key in operand):
                raise InvalidFilterError(
                    f"$not of {name!r} takes operators such as {{'$gt': 3}}; use $ne for a value"
                )
            return Not(_parse_field(path, name, operand, depth + 1))
    raise InvalidFilterError(
        f"unknown operator {op!r} for {name!r}; there are $eq $ne $gt $gte $lt $lte $in $nin "
        "$exists $contains $not"
    )


def _path(name: str) -> Path:
    try:
        path = parse_path(name)
    except PathError as exc:
        raise InvalidFilterError(str(exc)) from None
    if EACH in path:
        raise InvalidFilterError(f"the path {name!r} has '[*]'; use $contains for 'any element'")
    return path


def _operands(op: str, operand: Any) -> list[Any]:
    if not isinstance(operand, (list, tuple, set, frozenset)):
        raise InvalidFilterError(f"{op} takes a list, not {type(operand).__name__}")
    return list(operand)


def _json(operand: Any, name: str) -> Any:
    """Return an operand as it would come back from the store."""
    try:
        return codec.decode(codec.encode(operand))
    except ValueEncodingError as exc:
        raise InvalidFilterError(f"the operand for {name!r} is no JSON: {exc}") from None


def json_type(value: Any) -> str:
    """Return JSON's name for the type: null, bool, number, string, bytes, list or object."""
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case str():
            return "string"
        case bytes():
            return "bytes"
        case list():
            return "list"
    return "object"


def same_json(left: Any, right: Any) -> bool:
    """Whether two values are the same JSON; `1` and `1.0` are, `True` and `1` are not."""
    kind = json_type(left)
    if kind != json_type(right):
        return False
    if kind == "list":
        return len(left) == len(right) and all(map(same_json, left, right))
    if kind == "object":
        return left.keys() == right.keys() and all(
            same_json(element, right[key]) for key, element in left.items()
        )
    return bool(left == right)


def json_mark(value: Any) -> Hashable:
    """Return what is equal for two values exactly if they are the same JSON, and can be hashed."""
    kind = json_type(value)
    if kind == "list":
        return kind, tuple(map(json_mark, value))
    if kind == "object":
        return kind, frozenset((key, json_mark(element)) for key, element in value.items())
    return kind, value


_ORDERED = frozenset({"number", "string", "bool"})
_ORDERS = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


def matches(node: Filter, value: Any) -> bool:
    """Whether a value passes a filter: the definition that every backend agrees with."""
    match node:
        case And(parts):
            return all(matches(part, value) for part in parts)
        case Or(parts):
            return any(matches(part, value) for part in parts)
        case Not(part):
            return not matches(part, value)
    found = resolve(value, node.path)
    if found is MISSING:
        return False
    match node:
        case Exists():
            return True
        case In():
            return json_mark(found) in node.marks
        case Contains(_, operand):
            if isinstance(found, list):
                return any(same_json(element, operand) for element in found)
            return isinstance(found, str) and isinstance(operand, str) and operand in found
        case Compare(_, op, operand):
            return _compare(op, found, operand)


def _compare(op: CompareOp, found: Any, operand: Any) -> bool:
    if op == "eq":
        return same_json(found, operand)
    kind = json_type(found)
    if kind not in _ORDERED or kind != json_type(operand):
        return False
    return bool(_ORDERS[op](found, operand))
