"""Filters as SQL conditions on an item's `value`, and searches for a part of its text.

The conditions are upper bounds: they let pass whatever `kvstore.filters.matches` does, and
sometimes more; it has the last word on each row that comes back. Where `jsonb` could mean
something else (numbers beyond 53 bits, names that look like the codec's tag), a condition gives
up and lets everything pass. A value with an escaped NUL, which no `jsonb` can hold, always passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import NoneType
from typing import Any, Final

import orjson

from kvstore import codec
from kvstore.filters import And, Compare, Contains, Exists, Filter, In, Leaf, Not, Or
from kvstore.paths import Path
from kvstore.sql import FALSE, TRUE, Sql, all_of, any_of

__all__ = ["compile_filter", "compile_text", "is_exact", "json_path"]

_TAG = re.compile(r"\$+bytes")  # the codec's
_EXACT = 2**53  # beyond it, an integer and a float are told apart otherwise than in Python
_MOST_OPERANDS = 200  # of $in
_MOST_PARAMS = 2_000  # of a filter; the server takes 32,767
_SIGN: Final = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_PLAIN_TEXT = re.compile(r"[a-z ]+")


def compile_filter(node: Filter) -> Sql:
    """Translate a filter to a condition that holds for everything that passes; never NULL."""
    condition, _ = _compile(node)
    if condition == TRUE or len(condition.params) > _MOST_PARAMS:
        return TRUE
    if condition == FALSE:
        return FALSE
    return Sql(r"(strpos(items.value, '\u0000') > 0 OR ") + condition + Sql(")")


def is_exact(node: Filter) -> bool:
    """Whether only values with an escaped NUL can pass the condition wrongly."""
    condition, exact = _compile(node)
    return exact and len(condition.params) <= _MOST_PARAMS


def compile_text(folded: str | None) -> Sql:
    """Require what an item must have if its key or its value's text contains a folded text.

    Only plain letters are looked for; of the letters that fold to them none is ASCII.
    """
    if folded is None or not _PLAIN_TEXT.fullmatch(folded):
        return TRUE
    return Sql(
        "(octet_length(items.value) <> length(items.value)"
        " OR octet_length(items.key) <> length(items.key)"
        ' OR strpos(lower(items.value COLLATE "C"), ?) > 0'
        ' OR strpos(lower(items.key COLLATE "C"), ?) > 0)',
        (folded, folded),
    )


def _compile(node: Filter) -> tuple[Sql, bool]:
    match node:
        case And(parts):
            return _combine(all_of, parts)
        case Or(parts):
            return _combine(any_of, parts)
        case Not(part):
            inner, exact = _compile(part)
            return (Sql(f"(NOT {inner.text})", inner.params), True) if exact else (TRUE, False)
    path = json_path(node.path)
    condition = None if path is None else _leaf(node, path)
    return (TRUE, False) if condition is None else (condition, True)


def _combine(join: Any, parts: Iterable[Filter]) -> tuple[Sql, bool]:
    compiled = [_compile(part) for part in parts]
    conditions = [condition for condition, _ in compiled]
    if TRUE in conditions and join is any_of:
        return TRUE, all(exact for _, exact in compiled)
    return join(conditions), all(exact for _, exact in compiled)


# What a path leads to, or NULL. The path is strict: a member of an object alone, an element of a
# list alone. The CASE keeps the server from parsing what it cannot.
_FOUND = (
    r"jsonb_path_query_first(CASE WHEN strpos(items.value, '\u0000') = 0"
    " THEN items.value::jsonb END, ?::text::jsonpath, '{}', TRUE)"
)


def _leaf(node: Leaf, path: str) -> Sql | None:
    """Translate one condition, or give up."""
    match node:
        case Exists():
            return Sql(f"({_FOUND} IS NOT NULL)", (path,))
        case Compare(_, "eq", operand):
            return _equal(node.path, path, operand)
        case Compare(_, op, operand):
            return _compare(path, op, operand)
        case In(_, operands) if len(operands) <= _MOST_OPERANDS and all(map(_is_safe, operands)):
            if not operands:
                return FALSE
            wanted = [codec.encode(operand).decode() for operand in operands]
            return Sql(f"coalesce({_FOUND} = ANY (?::text[]::jsonb[]), FALSE)", (path, wanted))
        case Contains(_, operand) if _is_safe(operand):
            element = codec.encode(operand).decode()
            in_list = Sql(
                f"EXISTS (SELECT 1 FROM jsonb_array_elements({_FOUND}) AS element"  # noqa: S608
                " WHERE element.value = ?::text::jsonb)",
                (path, element),
            )
            in_text = FALSE
            if isinstance(operand, str):
                in_text = Sql(f"strpos({_FOUND} #>> '{{}}', ?) > 0", (path, operand))
            return Sql(
                f"(CASE jsonb_typeof({_FOUND}) WHEN 'array' THEN {in_list.text}"
                f" WHEN 'string' THEN {in_text.text} ELSE FALSE END)",
                (path, *in_list.params, *in_text.params),
            )
    return None


def _equal(segments: Path, path: str, operand: object) -> Sql | None:
    """Compare for equality; most rows fail by a look for the member's text, and are not parsed.

    Values are written by one encoder, without spaces, so an object with this member contains
    just this text.
    """
    if not _is_safe(operand):
        return None
    wanted = codec.encode(operand).decode()
    exact = Sql(f"coalesce({_FOUND} = ?::text::jsonb, FALSE)", (path, wanted))
    name = segments[-1]
    if not isinstance(name, str) or not isinstance(operand, (str, bool, NoneType)):
        return exact
    member = codec.encode({name: operand}).decode()[1:-1]
    return Sql(f"(strpos(items.value, ?) > 0 AND {exact.text})", (member, *exact.params))


def _compare(path: str, op: str, operand: object) -> Sql | None:
    if not _is_safe(operand):
        return None
    sign = _SIGN[op]
    match operand:
        case str():
            kind, found, wanted = "string", f"{_FOUND} #>> '{{}}' COLLATE \"C\"", "?::text"
            said: Any = operand
        case bool():
            kind, found, wanted = "boolean", _FOUND, "?::text::jsonb"
            said = codec.encode(operand).decode()
        case int() | float():
            kind, found, wanted = "number", _FOUND, "?::text::jsonb"
            said = codec.encode(operand).decode()
        case _:
            return FALSE  # what has no order
    return Sql(
        f"(CASE jsonb_typeof({_FOUND}) WHEN '{kind}' THEN ({found}) {sign} {wanted}"
        " ELSE FALSE END)",
        (path, path, said),
    )


def _is_safe(operand: object) -> bool:
    """Whether `jsonb` compares with an operand as Python does."""
    match operand:
        case bool() | None:
            return True
        case int() | float():
            return abs(operand) < _EXACT
        case str():
            return "\x00" not in operand
        case list():
            return all(map(_is_safe, operand))
        case dict():
            return all("\x00" not in name and _is_safe(each) for name, each in operand.items())
    return True  # bytes, which are written in base64


def json_path(path: Path) -> str | None:
    """Write a path in the server's language, or `None` if it cannot say it for sure."""
    written = "strict $"
    for segment in path:
        if isinstance(segment, int):
            written += f"[{segment}]" if segment >= 0 else f"[last - {-1 - segment}]"
        elif isinstance(segment, str) and not _TAG.fullmatch(segment) and "\x00" not in segment:
            written += f".{orjson.dumps(segment).decode()}"
        else:
            return None
    return written
