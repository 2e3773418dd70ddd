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

CONTEXT_HITS: Final = 1_000  # by their own words, the best; what stands around them is looked at
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
    spread = 1 + 2 * context * _WEIGHT
    found = []
    for at in sorted(_around(rows, hits, context)):
        row = rows[at]
        if not row.length:
            continue
        counts = [float(count) for count in row.counts]
        length = float(row.length)
        for near in _window(rows, at, context):
            if near != at:
                length += _WEIGHT * rows[near].length
                counts = [
                    count + _WEIGHT * more
                    for count, more in zip(counts, rows[near].counts, strict=True)
                ]
        weight = weights.weigh(counts, length / spread)
        if weight:
            found.append(Hit(weights.score(weight), row.place, row.id))
    return sorted(found, key=lambda hit: (-hit.score, hit.place))


def _around(rows: Sequence[Neighbour], hits: Collection[Place], context: int) -> Iterator[int]:
    """Yield where in a list the hits are, and their neighbours, each once."""
    seen: set[int] = set()
    for at, row in enumerate(rows):
        if row.place in hits:
            for near in _window(rows, at, context):
                if near not in seen:
                    seen.add(near)
                    yield near


def _window(rows: Sequence[Neighbour], at: int, context: int) -> Iterator[int]:
    """Yield where the neighbours of an item are, and itself: in its namespace, before and after."""
    path = rows[at].place[0]
    for near in range(max(0, at - context), min(len(rows), at + context + 1)):
        if rows[near].place[0] == path:
            yield near


def with_tail(head: list[Hit], ranking: Ranking, wanted: int) -> list[Hit]:
    """Let those hits of a ranking follow that a better one does not reach: so many in all."""
    hits = head[:wanted]
    seen = {hit.place for hit in head}
    last = hits[-1].score if hits else 1.0
    for hit in ranking(wanted + len(head)) if len(hits) < wanted else ():
        if len(hits) < wanted and hit.place not in seen:
            hits.append(hit._replace(score=min(last, hit.score)))
    return hits
