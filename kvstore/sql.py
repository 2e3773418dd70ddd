"""Pieces of SQL with their parameters, so that the two cannot drift apart."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any

__all__ = ["FALSE", "NOTHING", "TRUE", "Sql", "all_of", "any_of"]

_PLACE = re.compile(r"\?\??")


@dataclass(frozen=True, slots=True)
class Sql:
    """A piece of a statement; the text holds a `?` for each parameter, in order."""

    text: str
    params: tuple[Any, ...] = ()

    @classmethod
    def of(cls, text: str, *parts: object) -> Sql:
        """Return a piece whose text has a `?` for each part: another piece, or a parameter."""
        begin, *rest = text.split("?")
        texts: list[str] = [begin]
        params: list[object] = []
        for part, after in zip(parts, rest, strict=True):
            if isinstance(part, Sql):
                texts += (part.text, after)
                params += part.params
            else:
                texts += ("?", after)
                params.append(part)
        return cls("".join(texts), tuple(params))

    def __add__(self, other: Sql) -> Sql:
        return Sql(f"{self.text} {other.text}", self.params + other.params)

    def render(self) -> str:
        """Return the text with numbered places, `$1` and so on, as PostgreSQL has them.

        An operator with a question mark is written with two.
        """
        numbers = count(1)
        return _PLACE.sub(
            lambda place: "?" if len(place[0]) == 2 else f"${next(numbers)}", self.text
        )


NOTHING = Sql("")
TRUE = Sql("TRUE")
FALSE = Sql("FALSE")


def all_of(parts: Iterable[Sql]) -> Sql:
    """Join conditions by AND."""
    return _join(parts, " AND ", TRUE)


def any_of(parts: Iterable[Sql]) -> Sql:
    """Join conditions by OR."""
    return _join(parts, " OR ", FALSE)


def _join(parts: Iterable[Sql], by: str, none: Sql) -> Sql:
    listed = list(parts)
    if len(listed) <= 1:
        return listed[0] if listed else none
    text = by.join(part.text for part in listed)
    return Sql(f"({text})", tuple(param for part in listed for param in part.params))
