"""Ranking as pure functions: distances and weights to scores, rankings to one ranking, to a page.

A ranking is a list of hits, best first: by descending score, equal scores by place, so that every
page of it is the same list cut elsewhere.
"""

from __future__ import annotations

import math
import operator
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kvstore.embedding import numpy_or_none
from kvstore.filters import Filter

__all__ = [
    "MOST_COUNTED",
    "Hit",
    "Ranking",
    "Search",
    "WordWeights",
    "cosine_with",
    "cosines_of",
    "page_of",
    "rarity",
    "similarity",
]

SCORE_DIGITS = 6  # of a similarity: what float32 vectors can tell
RELEVANCE_DIGITS = 9  # of a score by words: what all machines agree on
MOST_COUNTED = 127  # of one word in one item: more of it weigh the same
_COMPARED_AT_ONCE = 2048  # vectors: numpy makes doubles of them
# Of the fusion, measured on talks, titles, paraphrases and keywords: see benchmarks/retrieval.md
FUSION_DEPTH = 100  # hits of each ranking that are fused; what comes after follows in its order
RANK_OFFSET = 20  # the k of reciprocal rank fusion
_UPPER_PART = 0.375  # of a ranking by meaning; what is below is as good as unrelated
_MOST_IN_CONTEXT = 2 / 3  # that words weigh where neighbours' count: those answer something soon


class Hit(NamedTuple):
    """An item that a search has found: its score, its place, and its row in the backend.

    In a ranking by meaning, the score is the cosine, which may be below 0.
    """

    score: float
    place: tuple[str, str]  # path and key
    id: int


Ranking = Callable[[int], list[Hit]]
"""From a count to so many of the best hits, or all there are; a shorter list begins a longer."""


@dataclass(frozen=True, slots=True)
class Search:
    """A ranked search, normalised; at least one of `vector` and `words` is there.

    Attributes:
        vector: of the query, unit length, float32; `None`: not by meaning.
        words: of the query; `None`: not by words.
        context: how many neighbours on each side count for an item, by words.
        signed: leave cosines below 0 as they are, for neighbours whose scores begin at -1.
        is_own: the vector comes from the caller, and not from the model.
    """

    filter: Filter
    limit: int
    offset: int
    subtree: bool
    min_score: float | None
    vector: bytes | None
    words: tuple[str, ...] | None
    context: int = 0
    signed: bool = False
    is_own: bool = False


def similarity(cosine: float) -> float:
    """Return a cosine to the digits that float32 vectors can tell."""
    return round(cosine, SCORE_DIGITS)


def cosine_with(vector: bytes) -> Callable[[bytes], float]:
    """Return what gives the cosine of a unit vector with others, all float32.

    It is summed in double precision, so that every backend has the same one to the last digit
    that is kept, whatever has found the other vector.
    """
    query = array("d", array("f", vector))

    def cosine(other: bytes) -> float:
        return similarity(sum(map(operator.mul, query, array("f", other))))

    return cosine


def cosines_of(vectors: Sequence[bytes], query: bytes) -> list[float]:
    """Return the cosines of unit vectors with a query, as `cosine_with` has them, but sooner."""
    np = numpy_or_none()
    if np is None or len(vectors) < 2:
        return list(map(cosine_with(query), vectors))
    wanted = np.frombuffer(query, dtype=np.float32).astype(np.float64)
    cosines: list[float] = []
    for at in range(0, len(vectors), _COMPARED_AT_ONCE):
        some = vectors[at : at + _COMPARED_AT_ONCE]
        matrix = np.frombuffer(b"".join(some), dtype=np.float32).reshape(len(some), -1)
        cosines += (matrix @ wanted).round(SCORE_DIGITS).tolist()
    return cosines


def rarity(entries: int, holding: int) -> float:
    """Return the weight of a word that so many of the entries hold: BM25's, and always above 0."""
    return math.log(1.0 + (max(entries, holding) - holding + 0.5) / (holding + 0.5))


class WordWeights:
    """What a query's words weigh in items: BM25, with k1 = 1.2 and b = 0.75.

    Every backend computes it by the same steps, so that scores agree to the last digit. The
    length of an entry is the number of its words, and of those that stand for its namespace.

    Args:
        words: of the query.
        holding: how many entries hold each of them.
        entries: how many there are.
        length: of all of them together.

    Attributes:
        found: those words that an entry holds, and what they weigh at most.
        mean: the mean length of an entry.
        most: what an item weighs at most that holds nothing but what is asked for.
    """

    def __init__(
        self, words: Sequence[str], holding: Sequence[int], entries: int, length: int
    ) -> None:
        weights = [2.2 * rarity(entries, number) for number in holding]
        self.found = [
            (word, weight)
            for word, weight, number in zip(words, weights, holding, strict=True)
            if number
        ]
        self.mean = length / entries if entries and length else 1.0
        self.most = sum(weights) or 1.0

    def weigh(self, counts: Iterable[float], length: float) -> float:
        """Return the weight of an item.

        Args:
            counts: how often it holds each word of `found`.
            length: of its entry.
        """
        norm = 0.3 + 0.9 * length / self.mean
        weight = 0.0
        for (_, most), count in zip(self.found, counts, strict=True):
            if count:
                weight += most / (1.0 + norm / count)
        return weight

    def score(self, weight: float) -> float:
        """Return the score of a weight: 0 to 1, in the same order.

        It is about the share of the query that an item answers, by the rarity of the words: one
        of mean length that holds each once scores 0.84, one that holds half of them 0.54, and a
        tenth, 0.13; a word that no item holds is a part of the query, too.
        """
        missing = max(0.0, 1.0 - weight / self.most)
        return round(1.0 - missing * missing * missing, RELEVANCE_DIGITS)


def page_of(search: Search, by_meaning: Ranking | None, by_words: Ranking | None) -> list[Hit]:
    """Return the page of hits that a search asks for, from one ranking or from two fused."""
    wanted = search.offset + search.limit
    if by_meaning is not None and by_words is not None:
        most = _MOST_IN_CONTEXT if search.context else 1.0
        hits = _fused(by_meaning, by_words, wanted, most)
    else:
        ranking = by_meaning or by_words
        assert ranking is not None
        hits = ranking(wanted)
    lowest = -1.0 if search.signed else 0.0
    page = [
        hit if lowest <= hit.score <= 1.0 else hit._replace(score=min(1.0, max(lowest, hit.score)))
        for hit in hits[search.offset : wanted]
    ]
    least = search.min_score
    return page if least is None else [hit for hit in page if hit.score >= least]


def _fused(by_meaning: Ranking, by_words: Ranking, wanted: int, most_by_words: float) -> list[Hit]:
    """Fuse the heads of two rankings; their tails follow: first by meaning, then by words.

    Weighted reciprocal rank fusion. A ranking's weight is the query's: words count as much as the
    best hit answers of the query by words, and meaning as much as is left; so a query whose words
    are all there is decided by them, and one in other words than any text by its meaning. And it
    is the hit's: one far behind the first counts for less than its rank says, so a stray word
    brings nothing to the top that meaning has far down.

    Ranks make the order, but tell nothing of how good the best is. So a hit's score is the better
    one of its scores by words and by meaning, and at most that of the hit before it.
    """
    depth = max(wanted, FUSION_DEPTH)
    meant, said = by_meaning(depth), by_words(depth)
    share = min(most_by_words, said[0].score) if said else 0.0
    if not meant:
        share = 1.0
    ranks: dict[tuple[str, str], float] = {}
    for ranking, weight in (
        (_near_the_first(meant[:FUSION_DEPTH]), 1.0 - share),
        (_by_share(said[:FUSION_DEPTH]), share),
    ):
        rank, before = 0, math.inf
        for at, (hit, part) in enumerate(ranking, 1):
            if hit.score < before:
                rank, before = at, hit.score  # equals have one rank
            reciprocal = (RANK_OFFSET + 1) / (RANK_OFFSET + rank)
            ranks[hit.place] = ranks.get(hit.place, 0.0) + weight * part * reciprocal
    order = sorted(ranks, key=lambda place: (-round(ranks[place], RELEVANCE_DIGITS), place))
    if len(order) < wanted:
        tail = (hit.place for hit in (*meant, *said) if hit.place not in ranks)
        order += dict.fromkeys(tail)
    best: dict[tuple[str, str], Hit] = {}
    for half in (meant, said):
        for at, hit in enumerate(half):
            known = best.get(hit.place)
            if known is None or (at < FUSION_DEPTH and hit.score > known.score):
                best[hit.place] = hit
    return list(_descending(best[place] for place in order[:wanted]))


def _descending(hits: Iterable[Hit]) -> Iterator[Hit]:
    """Yield hits in their order, none with a greater score than the one before it."""
    most = 1.0
    for hit in hits:
        most = min(most, hit.score)
        yield hit if hit.score == most else Hit(most, hit.place, hit.id)


def _near_the_first(hits: Sequence[Hit]) -> Iterator[tuple[Hit, float]]:
    """Yield the upper part of a ranking by meaning: its first hit at 1, what is below it at 0."""
    if hits:
        most, least = (
            hits[0].score,
            hits[min(len(hits) - 1, max(1, int(len(hits) * _UPPER_PART)))].score,
        )
        for hit in hits:
            if hit.score < most and hit.score <= least:
                break
            yield hit, (hit.score - least) / (most - least) if most > least else 1.0


def _by_share(hits: Sequence[Hit]) -> Iterator[tuple[Hit, float]]:
    """Hold what hits answer of the query by words against the first, which is at 1."""
    if hits:
        most = _share_of(hits[0].score)
        for hit in hits:
            part = _share_of(hit.score) / most if most else 1.0
            yield hit, part * part


def _share_of(score: float) -> float:
    """Return the share of the greatest weight of which `WordWeights.score` made a score."""
    return 1.0 - float((1.0 - score) ** (1 / 3))
