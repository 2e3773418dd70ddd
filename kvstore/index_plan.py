"""What a search index holds of an item: decided here once, for every backend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from kvstore.ranking import MOST_COUNTED
from kvstore.text import words_of

__all__ = ["Words"]


class Words:
    """The words of an item's texts, as an index counts them.

    Args:
        texts: of the item.
        path: of its namespace.

    Attributes:
        counts: how often each word is there.
        length: how many words there are, and those by which the namespace is found: for itself,
            and for each one in which it lies.
    """

    __slots__ = ("_all", "counts", "length")

    def __init__(self, texts: Iterable[str], path: str) -> None:
        self._all = words_of(texts)
        self.counts = Counter(self._all)
        if len(self._all) > MOST_COUNTED and max(self.counts.values()) > MOST_COUNTED:
            for word, count in self.counts.items():
                self.counts[word] = min(count, MOST_COUNTED)
            self._all = list(self.counts.elements())
        self.length = len(self._all) + 1 + path.count("\t")

    @property
    def text(self) -> str:
        """All of them, with spaces between; their order is of no matter."""
        return " ".join(self._all)
