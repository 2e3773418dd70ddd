"""How far a watch is: a version, or one for each root where roots count versions of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Position", "Positions", "is_ahead", "is_behind"]


class Positions:
    """How far a watch over several roots is, where each counts versions of its own.

    Args:
        roots: the version up to which it has all, by root.
        least: the same of roots that are not among these.
        trail: changes after that, each with its root and version.
        upto: how many of them it has, too.
    """

    __slots__ = ("_roots", "_trail", "_upto", "least")

    def __init__(
        self,
        roots: Mapping[str, int],
        least: int = 0,
        trail: Sequence[tuple[str, int]] = (),
        upto: int = 0,
    ) -> None:
        self.least = least
        self._roots = roots
        self._trail = trail  # shared by the changes of a page, so that none has a copy
        self._upto = upto

    @property
    def roots(self) -> Mapping[str, int]:
        """The version up to which it has all, by root."""
        return {**self._roots, **dict(self._trail[: self._upto])} if self._upto else self._roots

    def under(self, root: str) -> int:
        """Return the version up to which it has all under a root."""
        return self.roots.get(root, self.least)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Positions) and self.roots == other.roots

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return Positions, (dict(self.roots), self.least)


Position = int | Positions


def is_behind(position: Position, begin: Position) -> bool:
    """Whether a position is one after which the kept history does not hold everything.

    Args:
        position: of a watch.
        begin: of the history.
    """
    if isinstance(position, Positions) and isinstance(begin, Positions):
        here = position.roots
        return any(here.get(root, position.least) < kept for root, kept in begin.roots.items())
    assert isinstance(position, int)
    assert isinstance(begin, int)
    return position < begin


def is_ahead(position: Position, newest: Position) -> bool:
    """Whether a position is one that the store has not come to yet.

    Args:
        position: of a watch.
        newest: of the store.
    """
    if isinstance(position, Positions) and isinstance(newest, Positions):
        return position.least > newest.least or is_behind(newest, position)
    return is_behind(newest, position)
