"""The context of an item: what stands before and after it, as in a chat, a log or a text in pieces.

The words of an item's neighbours, in the order of keys, count for it too, at a lower weight. That
is done when a search runs and not when an item is written: so nothing has to be kept right by the
writes, deletes and expiries of neighbours, and no write costs more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from kvstore.ranking import Hit, Ranking, WordWeights

__all__ = ["CONTEXT_HITS", "Neighbour", "in_context", "with_tail"]

CONTEXT_HITS: Final = 300  # by their own words, the best; what stands around them is looked at
_WEIGHT = 0.5  # of a neighbour's words, against the item's own

Place = tuple[str, str]


class Neighbour(NamedTuple):
    """A live item, and what it holds of a query's words.

    Attributes:
        place: path and key.
        counts: how often it holds each word that `WordWeights.found` names.
        length: of its entry; 0: it has none, and is never found itself.
        id: its row in the backend.
    """

    place: Place
    counts: Sequence[int]
    length: int
    id: int = 0


def in_context(
    items: Iterable[Neighbour], hits: Collection[Place], context: int, weights: WordWeights
) -> list[Hit]:
    """Rank the items around some hits by the words of each, and of its neighbours.

    Args:
        items: the hits, and of each at least twice `context` neighbours on either side, in any
            order.
        hits: the places of items that hold a word themselves.
        context: how many neighbours on each side count.
        weights: of the words.
    """
    rows = sorted(items)
    held = [[(word, count) for word, count in enumerate(row.counts) if count] for row in rows]
    spread = 1 + 2 * context * _WEIGHT
    found = []
    for at, (begin, end) in _windows(rows, hits, context):
        row = rows[at]
        if not row.length:
            continue
        counts = [0.0] * len(row.counts)
        length = row.length * (1 - _WEIGHT)
        for near in range(begin, end):
            length += _WEIGHT * rows[near].length
            for word, count in held[near]:
                counts[word] += count if near == at else _WEIGHT * count
        weight = weights.weigh(counts, length / spread)
        found.append(Hit(weights.score(weight), row.place, row.id))
    return sorted(found, key=lambda hit: (-hit.score, hit.place))


def _windows(
    rows: Sequence[Neighbour], hits: Collection[Place], context: int
) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield where in a list the hits and their neighbours are, and where those of each are."""
    first = last = 0  # of the namespace
    is_near = -1  # a hit makes rows up to here candidates
    windows: dict[int, tuple[int, int]] = {}
    for at, row in enumerate(rows):
        if at >= last:
            first = last = at
            while last < len(rows) and rows[last].place[0] == row.place[0]:
                last += 1
        if row.place in hits:
            for near in range(max(first, at - context, is_near + 1), min(last, at + context + 1)):
                windows[near] = max(first, near - context), min(last, near + context + 1)
                is_near = near
    yield from windows.items()


def with_tail(head: list[Hit], ranking: Ranking, wanted: int) -> list[Hit]:
    """Let those hits of a ranking follow that a better one does not reach: so many in all."""
    hits = head[:wanted]
    seen = {hit.place for hit in head}
    last = hits[-1].score if hits else 1.0
    for hit in ranking(wanted + len(head)) if len(hits) < wanted else ():
        if len(hits) < wanted and hit.place not in seen:
            hits.append(hit._replace(score=min(last, hit.score)))
    return hits
