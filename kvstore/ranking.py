"""Ranking as pure functions: distances and weights to scores, rankings to one ranking, to a page.

A ranking is a list of hits, best first: by descending score, equal scores by place, so that every
page of it is the same list cut elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from kvstore.filters import Filter

__all__ = [
    "MOST_COUNTED",
    "Hit",
    "Ranking",
    "Search",
    "WordWeights",
    "page_of",
    "rarity",
    "reciprocal_rank_fusion",
    "similarity",
    "similarity_of_distance",
]

K = TypeVar("K", bound=Hashable)

SCORE_DIGITS = 6  # of a similarity: what float32 vectors can tell
RELEVANCE_DIGITS = 9  # of a score by words: what all machines agree on
MOST_COUNTED = 127  # of one word in one item: more of it weigh the same
# A small k and some more weight for words keep what one half puts first near the top. Chosen on the
# tuning half of benchmarks/ranking.py: titles, paraphrases and keywords over 2,213 docstrings, with
# all-MiniLM-L6-v2. A weight of 2 is better there by 0.005 of MRR, which is noise; 1.5 leaves more
# to models that are better than this small one.
FUSION_K = 1
FUSION_WEIGHTS = (1.0, 1.5)  # of meaning and of words
FUSION_DEPTH = 50  # hits of each ranking that are fused; what comes after follows in its order


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
        signed: leave cosines below 0 as they are, for neighbours whose scores begin at -1.
    """

    filter: Filter
    limit: int
    offset: int
    subtree: bool
    min_score: float | None
    vector: bytes | None
    words: tuple[str, ...] | None
    signed: bool = False


def similarity(cosine: float) -> float:
    """Return a cosine to the digits that float32 vectors can tell."""
    return round(cosine, SCORE_DIGITS)


def similarity_of_distance(distance: float) -> float:
    """Return the cosine of two unit vectors of their Euclidean distance."""
    return round(1.0 - distance * distance / 2.0, SCORE_DIGITS)


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


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[K]], *, k: int = 60, weights: Sequence[float] | None = None
) -> dict[K, float]:
    """Merge best-first rankings into one score per key.

    Args:
        rankings: m lists of keys, best first, any lengths, no repeats inside a list.
        k: rank offset (count, >= 0). A larger k flattens the lead of the first ranks.
        weights: of the rankings; `None`: 1 each.

    Returns:
        Score per key, in (0, sum of the weights / (k + 1)]; higher is better. Keys in no ranking
        are absent.

    Raises:
        ValueError: k is negative.

    Source: Cormack, Clarke and Buettcher, SIGIR 2009 (reciprocal rank fusion), including k = 60.
    """
    if k < 0:
        raise ValueError(f"k is at least 0, not {k}")
    scores: dict[K, float] = {}
    for ranking, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        for rank, key in enumerate(ranking, 1):
            scores[key] = scores.get(key, 0.0) + weight / (k + rank)
    return scores


def page_of(search: Search, by_meaning: Ranking | None, by_words: Ranking | None) -> list[Hit]:
    """Return the page of hits that a search asks for, from one ranking or from two fused."""
    wanted = search.offset + search.limit
    if by_meaning is not None and by_words is not None:
        hits = _fused(by_meaning, by_words, wanted)
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


def _fused(by_meaning: Ranking, by_words: Ranking, wanted: int) -> list[Hit]:
    """Fuse the heads of two rankings; their tails follow: first by meaning, then by words."""
    depth = max(wanted, FUSION_DEPTH)
    rankings = [by_meaning(depth), by_words(depth)]
    heads = [[hit.place for hit in ranking[:FUSION_DEPTH]] for ranking in rankings]
    ids = {hit.place: hit.id for ranking in rankings for hit in ranking}
    best = sum(FUSION_WEIGHTS) / (FUSION_K + 1)
    scores = reciprocal_rank_fusion(heads, k=FUSION_K, weights=FUSION_WEIGHTS)
    hits = [Hit(score / best, place, ids[place]) for place, score in scores.items()]
    hits.sort(key=lambda hit: (-hit.score, hit.place))
    seen = set(scores)
    for ranking in rankings:
        for hit in ranking[FUSION_DEPTH:]:
            if len(hits) >= wanted:
                return hits
            if hit.place not in seen:
                seen.add(hit.place)
                rank = len(hits) + 1
                hits.append(
                    Hit(min(hits[-1].score, 1 / (FUSION_K + rank) / best), hit.place, hit.id)
                )
    return hits
