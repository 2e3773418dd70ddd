"""The text of a value: what its words are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["contains", "text_of"]


def text_of(value: Any) -> str:
    """Return the strings and numbers of a value, a line each, in order."""
    return "\n".join(_leaves(value))


def contains(value: Any, folded: str) -> bool:
    """Whether one of the value's strings or numbers contains a casefolded text."""
    return any(folded in leaf.casefold() for leaf in _leaves(value))


def _leaves(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case bool() | None | bytes():
            return
        case int() | float():
            yield str(value)
        case dict():
            for element in value.values():
                yield from _leaves(element)
        case list():
            for element in value:
                yield from _leaves(element)
