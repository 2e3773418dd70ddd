"""Filters as SQL conditions on a row's `value`.

SQLite's JSON functions do most of the work. Where they could mean something else than
`kvstore.filters.matches` does (lists, objects, bytes, odd names, integers beyond 63 bits, an old
SQLite whose JSON numbers are inexact), the condition calls `matches` itself, as `kvstore_match`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, get_args

from kvstore import codec
from kvstore.caching import Same, cache_short
from kvstore.filters import And, Compare, Contains, Exists, Filter, In, Leaf, Not, Or, matches
from kvstore.ordering import Order, place_of
from kvstore.paths import Path
from kvstore.patterns import escape
from kvstore.sql import FALSE, TRUE, Sql, all_of, any_of
from kvstore.sqlite import driver

__all__ = [
    "CAN_DECLARE",
    "compile_filter",
    "compile_order",
    "give_place",
    "is_exact_number",
    "json_path",
    "match_filter",
]

_EXACT_JSON = driver.VERSION >= (3, 53, 0)  # parses every number to the nearest double
CAN_DECLARE = _EXACT_JSON
_SAFE_NAME = re.compile(r'(?!\$+bytes\Z)[^"\\\x00-\x1f]+')  # and not the codec's tag for bytes
_EXACT_FLOATS = 2.0**53  # beyond it an integer of the value may equal a float that it is not
_PLAIN_NUMBERS = 1e15  # from some number on, floats are written with an exponent
_FEW_OPERANDS = 4  # of $in, that are compared one by one; more are looked up
_LONG_MEMBER = 1_000  # characters that are looked for of a longer one
_MOST_PARAMS = 500  # of a filter; SQLite's expressions nest to a depth of 1,000
_LONG_SPEC = 10_000  # characters of a filter that is written out
_HAS_NUL = r"value GLOB '*\u0000*'"  # takes half the time of instr
_LEAVES: Final[dict[str, Any]] = {kind.__name__: kind for kind in get_args(Leaf)}
_SQL_OPERATOR: Final = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def compile_filter(node: Filter) -> Sql:
    """Translate a filter; the result is 0 or 1, never NULL."""
    return _COMPILED(node)


def _translate(node: Filter) -> Sql:
    condition, call = _compile(node), _call(node)
    if len(condition.params) > _MOST_PARAMS:
        return call
    if condition in (TRUE, FALSE, call):
        return condition
    # SQLite takes the head of a name that holds a NUL for the name. In this form, and not as a
    # CASE, it looks for one at most once in a row and evaluates no part in vain.
    exact = Sql(
        f"(({condition.text} AND NOT {_HAS_NUL}) OR ({_HAS_NUL} AND {call.text}))",
        (*condition.params, *call.params),
    )
    parts = node.parts if isinstance(node, And) else (node,)
    return all_of([*filter(None, map(_member, parts)), exact])


def _is_short(condition: Sql) -> bool:
    texts = (part for part in condition.params if isinstance(part, str))
    return len(condition.text) + sum(map(len, texts)) <= _LONG_SPEC


_COMPILED = Same(_translate, _is_short)


def _compile(node: Filter) -> Sql:
    """Translate a filter for values in which no name holds a NUL."""
    match node:
        case And(parts):
            return all_of(map(_compile, parts))
        case Or(parts):
            return any_of(map(_compile, parts))
        case Not(part):
            inner = _compile(part)
            return Sql(f"(NOT {inner.text})", inner.params)
    path = json_path(node.path) if _EXACT_JSON else None
    condition = None if path is None else _leaf(node, path)
    return _call(node) if condition is None else condition


_ORDER_RANK = (
    "CASE json_type(value, ?) WHEN 'null' THEN 0 WHEN 'true' THEN 1 WHEN 'false' THEN 1"
    " WHEN 'integer' THEN 2 WHEN 'real' THEN 2 WHEN 'text' THEN 3 WHEN 'array' THEN 4"
    " WHEN 'object' THEN 4 END"
)
# A text as bytes, as a function of Python's gives it: some drivers cut a text off at a NUL
_ORDER_SCALAR = (
    "CASE json_type(value, ?) WHEN 'array' THEN NULL WHEN 'object' THEN NULL"
    " WHEN 'text' THEN CAST(json_extract(value, ?) AS BLOB) ELSE json_extract(value, ?) END"
)


def compile_order(orders: Sequence[Order], subtree: bool) -> Sql:
    """Translate what items are ordered by, as `kvstore.ordering` has it."""
    terms: list[Sql] = []
    for order in orders:
        way = " DESC" if order.descends else ""
        if isinstance(order.by, str):
            if order.by == "expires_at":
                terms.append(Sql("expires_at IS NULL"))
            terms.append(Sql(order.by + way))
            if order.by == "key" and not subtree:  # no two are equal
                return _listed(terms)
            continue
        rank, scalar = _order_of(order.by)
        terms += [Sql(f"({rank.text}) IS NULL", rank.params)]
        terms += [Sql(f"{each.text}{way}", each.params) for each in (rank, scalar)]
    return _listed([*terms, Sql("version DESC")])


def _listed(terms: Sequence[Sql]) -> Sql:
    params = tuple(param for term in terms for param in term.params)
    return Sql(", ".join(term.text for term in terms), params)


def _order_of(path: Path) -> tuple[Sql, Sql]:
    """Return what gives the rank of a value's type, and what gives the value."""
    at = json_path(path) if _EXACT_JSON else None
    spec = codec.encode(list(path)).decode()
    called = [Sql(f"kvstore_place(?, value, {part})", (spec,)) for part in (0, 1)]
    if at is None:
        return called[0], called[1]
    own = Sql(_ORDER_RANK, (at,)), Sql(_ORDER_SCALAR, (at, at, at))
    first, second = (
        Sql(
            f"CASE WHEN {_HAS_NUL} THEN {call.text} ELSE {each.text} END",
            (*call.params, *each.params),
        )
        for call, each in zip(called, own, strict=True)
    )
    return first, second


def give_place(spec: str, value: str, part: int) -> Any:
    """Return what a stored value is ordered by: one part of its `place_of`."""
    place = place_of(codec.decode(value.encode()), tuple(codec.decode(spec.encode())))
    if place is None or (part and place[0] not in (1, 2, 3)):
        return None
    found = place[part]
    if isinstance(found, str):
        return found.encode()
    return float(found) if isinstance(found, int) and found >= 2**63 else found


def _leaf(node: Leaf, path: str) -> Sql | None:
    """Translate one condition, or give up."""
    match node:
        case Exists():
            return Sql("(json_type(value, ?) IS NOT NULL)", (path,))
        case Compare(_, op, operand):
            return _compare(path, op, operand)
        case In(_, operands) if len(operands) > _FEW_OPERANDS:
            return _among(path, operands)
        case In(_, operands):
            parts = [_compare(path, "eq", operand) for operand in operands]
            known = [part for part in parts if part is not None]
            return any_of(known) if len(known) == len(parts) else None
        case Contains(_, str(operand)):
            return Sql(
                "(CASE json_type(value, ?)"
                " WHEN 'text' THEN instr(json_extract(value, ?), ?) > 0"
                " WHEN 'array' THEN EXISTS (SELECT 1 FROM json_each(items.value, ?) AS element"
                " WHERE element.type = 'text' AND element.value = ?)"
                " ELSE 0 END)",
                (path, path, operand, path, operand),
            )
    return None


def _among(path: str, operands: tuple[Any, ...]) -> Sql | None:
    """Look up what is at a path among many scalars, by their types; SQLite keeps those sorted."""
    texts: list[str] = []
    numbers: list[float] = []
    words: set[str] = set()  # json_type's for those that are types of their own
    for operand in operands:
        match operand:
            case None:
                words.add("null")
            case bool():
                words.add("true" if operand else "false")
            case str():
                if "\0" not in operand:  # what holds one is not compared here
                    texts.append(operand)
            case _ if is_exact_number(operand):
                numbers.append(operand)
            case _:
                return None
    branches = [f" WHEN '{word}' THEN 1" for word in sorted(words)]
    params: list[Any] = [path]
    for kinds, some in ((("text",), texts), (("integer", "real"), numbers)):
        if some:
            listed = "json_extract(value, ?) IN (SELECT value FROM json_each(?))"
            branches += [f" WHEN '{kind}' THEN {listed}" for kind in kinds]
            params += (path, codec.encode(some).decode()) * len(kinds)
    if not branches:
        return FALSE
    return Sql(f"(CASE json_type(value, ?){''.join(branches)} ELSE 0 END)", tuple(params))


def is_exact_number(operand: object) -> bool:
    """Whether SQLite compares a number with others as Python does."""
    if isinstance(operand, float):
        return abs(operand) < _EXACT_FLOATS
    return isinstance(operand, int) and -(2**63) <= operand < 2**63


def _member(node: Filter) -> Sql | None:
    """Look for the text of a member that must be there; most rows fail here, and are not parsed.

    Values are written by one encoder, without spaces, so an object with this member contains
    just this text. GLOB goes from one quotation mark to the next; instr is slower at any length.
    The plus keeps SQLite from planning anew for each pattern.
    """
    if not isinstance(node, Compare) or node.op != "eq":
        return None
    name, operand = node.path[-1], node.operand
    if not isinstance(name, str) or isinstance(operand, (bytes, list, dict)):
        return None
    if isinstance(operand, (int, float)) and not isinstance(operand, bool):
        if not 0 < abs(operand) < _PLAIN_NUMBERS:  # 0 equals -0.0
            return None
        operand = int(operand) if operand == int(operand) else operand  # 7 begins 7.0, too
    text = codec.encode({name: operand}).decode()[1:-1]
    return Sql("value GLOB +?", (f"*{escape(text[:_LONG_MEMBER])}*",))


def _compare(path: str, op: str, operand: object) -> Sql | None:
    sign = _SQL_OPERATOR[op]
    match operand:
        case None if op == "eq":
            return Sql("((json_type(value, ?) = 'null') IS TRUE)", (path,))
        case bool():
            types = "'true', 'false'"
        case _ if is_exact_number(operand):
            types = "'integer', 'real'"
        case str():
            types = "'text'"
        case _:
            return None
    if op == "eq" and _says_its_type(operand):
        return Sql("((json_extract(value, ?) = ?) IS TRUE)", (path, operand))
    # The comparison first: it fails for most rows, and spares them the look at the type.
    text = f"((json_extract(value, ?) {sign} ? AND json_type(value, ?) IN ({types})) IS TRUE)"
    return Sql(text, (path, operand, path))


def _says_its_type(operand: object) -> bool:
    """Whether nothing else in JSON is extracted as what equals it, for SQLite.

    Lists and objects are extracted as their text, booleans as 0 and 1.
    """
    if isinstance(operand, str):
        return not operand.startswith(("[", "{"))
    return not isinstance(operand, bool) and operand not in (0, 1)


def json_path(path: Path) -> str | None:
    """Write a path in SQLite's language, or `None` if it cannot say it for sure."""
    written = "$"
    for segment in path:
        if isinstance(segment, int):
            written += f"[{segment}]" if segment >= 0 else f"[#{segment}]"
        elif isinstance(segment, str) and _SAFE_NAME.fullmatch(segment):
            written += f'."{segment}"'
        else:
            return None
    return written


def _call(node: Filter) -> Sql:
    """Let `matches` decide."""
    return Sql("kvstore_match(?, value)", (codec.encode(_dump(node)).decode(),))


def _dump(node: Filter) -> list[object]:
    """Write a filter as JSON."""
    match node:
        case And(parts):
            return ["and", *map(_dump, parts)]
        case Or(parts):
            return ["or", *map(_dump, parts)]
        case Not(part):
            return ["not", _dump(part)]
    said = (getattr(node, name) for name in node.__match_args__)
    return [type(node).__name__, *(list(each) if type(each) is tuple else each for each in said)]


def _load(said: list[Any]) -> Filter:
    """Read what `_dump` wrote."""
    match said:
        case ["and", *parts]:
            return And(tuple(map(_load, parts)))
        case ["or", *parts]:
            return Or(tuple(map(_load, parts)))
        case ["not", part]:
            return Not(_load(part))
    name, path, *rest = said
    leaf: Leaf = _LEAVES[name](tuple(path), *rest)
    return leaf


def match_filter(spec: str, value: str) -> bool:
    """Whether a stored value passes a filter written by `_call`."""
    parse = _parse_call if len(spec) <= _LONG_SPEC else _parse_long_call
    return matches(parse(spec), codec.decode(value.encode()))


@cache_short(256, _LONG_SPEC)
def _parse_call(spec: str) -> Filter:
    return _load(codec.decode(spec.encode()))


@cache_short(4, 16 * 2**20)  # else each row would parse it anew
def _parse_long_call(spec: str) -> Filter:
    return _parse_call(spec)
