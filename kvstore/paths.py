"""Paths into a value: `user.tags[0]`, `"a.b".c`, `chunks[*].text`.

Segments are names joined by dots; `[2]` is an element of a list, `[-1]` its last, and `[*]` all of
them. A name that holds a dot, a bracket or a quote is written as a JSON string. A `$` in front
stands for the value itself, `$.user.tags[0]`; a name that is one is quoted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

from kvstore.caching import cache_short

__all__ = [
    "EACH",
    "MISSING",
    "Path",
    "PathError",
    "Segment",
    "parse_path",
    "resolve",
    "resolve_all",
]


class _Each:
    def __repr__(self) -> str:
        return "[*]"


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


EACH: Final = _Each()  # the segment that stands for every element of a list
MISSING: Final = _Missing()  # what a path that leads nowhere gives: `None` is a value

Segment = str | int | _Each
Path = tuple[Segment, ...]

_NAME = re.compile(r'"(?:[^"\\]|\\.)*"|[^.\["][^.\[]*', re.DOTALL)
_SUBSCRIPT = re.compile(r"\[(?:(-?[0-9]{1,9})|(\*))\]")


class PathError(ValueError):
    """A path does not parse; callers raise their own error from it."""


@cache_short(1024)
def parse_path(text: str) -> Path:
    """Parse a path into its segments.

    Raises:
        PathError: an empty name, an unclosed quote, a malformed subscript or a lone surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PathError(f"the path {text!r} holds a lone surrogate") from None
    segments: list[Segment] = []
    position = 2 if text.startswith("$.") else 1 if text.startswith("$[") else 0
    expect_name = not text.startswith("[", position)
    while True:
        if expect_name:
            name = _NAME.match(text, position)
            if name is None:
                raise PathError(
                    f"the path {text!r} has no name at position {position}; "
                    "quote a name that is empty or holds a dot, a bracket or a quote: '\"a.b\".c'"
                )
            segments.append(_name(name[0], text))
            position = name.end()
        while subscript := _SUBSCRIPT.match(text, position):
            segments.append(EACH if subscript[2] else int(subscript[1]))
            position = subscript.end()
        if position == len(text):
            return tuple(segments)
        if text[position] != ".":
            raise PathError(
                f"the path {text!r} goes wrong at position {position}: "
                "a subscript is '[2]', '[-1]' or '[*]', and names are joined by dots"
            )
        position += 1
        expect_name = True


def _name(written: str, text: str) -> str:
    if not written.startswith('"'):
        return written
    try:
        name: str = orjson.loads(written)
    except orjson.JSONDecodeError:
        raise PathError(f"the path {text!r} has a quoted name that is no JSON string") from None
    return name


def resolve(value: Any, path: Path) -> Any:
    """Return what a path (without `[*]`) leads to, or `MISSING`."""
    for segment in path:
        if isinstance(segment, str):
            if not isinstance(value, dict) or segment not in value:
                return MISSING
        elif not isinstance(value, list) or not -len(value) <= segment < len(value):  # type: ignore[operator]
            return MISSING
        value = value[segment]
    return value


def resolve_all(value: Any, path: Path) -> Iterator[Any]:
    """Yield everything that a path leads to, in the order of the value."""
    if not path:
        yield value
        return
    segment, rest = path[0], path[1:]
    if segment is EACH:
        if isinstance(value, list):
            for element in value:
                yield from resolve_all(element, rest)
    else:
        found = resolve(value, (segment,))
        if found is not MISSING:
            yield from resolve_all(found, rest)
