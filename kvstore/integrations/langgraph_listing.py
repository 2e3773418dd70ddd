"""A list of checkpoints under way: what it has in hand, and what it asks the store for."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kvstore.integrations.langgraph_drafts import Place, Saved
from kvstore.namespace import is_text

__all__ = ["Newest"]

_NAME: Final = re.compile("[A-Za-z_][A-Za-z0-9_]*")  # what is no syntax in a path


@dataclass(slots=True)
class Newest:
    """The checkpoints of a place, the newest first, read by pages.

    Attributes:
        filter: what their metadata must equal, as Python compares; what is missing is `None`.
        before: the id in front of which the next page begins; `None`: the end.
        only: just this id, which need not be there.
        page: those in hand.
    """

    place: Place
    filter: Mapping[str, Any]
    before: str | None
    only: str | None
    page: deque[Saved] = field(default_factory=deque)
    is_over: bool = False

    def takes(self, saved: Saved) -> bool:
        """Whether one is asked for."""
        is_before = self.only is None or self.before is None or saved.id < self.before
        return is_before and all(
            saved.metadata.get(key) == wanted for key, wanted in self.filter.items()
        )

    @property
    def wanted(self) -> dict[str, Any] | None:
        """What the store can tell of it, in its own words; it lets through what it cannot."""
        told = [
            {f"metadata.{key}": {"$in": [value, bool(value)] if value in (0, 1) else [value]}}
            for key, value in self.filter.items()
            if type(value) in (str, int, float) and _NAME.fullmatch(key) and _is_plain(value)
        ]
        return {"$or": [{"$and": told}, {"sealed": True}]} if told else None


def _is_plain(value: str | float) -> bool:
    """Whether a filter of the store takes a value."""
    if isinstance(value, str):
        return is_text(value)
    return -(2**63) <= value < 2**63
