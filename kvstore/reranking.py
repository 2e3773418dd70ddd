"""Reranking: the best candidates of a search are read once more, together with the query.

The order that comes of it is fused with the one that was there, by reciprocal rank, and not put in
its place: on conversations, the order of a cross-encoder alone was worse on four of five.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from kvstore.embedding import awaitable
from kvstore.errors import EmbeddingError, InvalidArgumentError, StoreError
from kvstore.text import texts_of
from kvstore.types import Item

__all__ = ["CANDIDATES", "Reranker", "fused", "text_for"]

CANDIDATES: Final = 40  # that are read: what a small cross-encoder does in a quarter of a second
_RANK_OFFSET = 10  # the k of reciprocal rank fusion
_MOST_BEFORE = 400  # characters of the item before: a model's input is short
_SCORE_DIGITS = 9


class Reranker:
    """A function from a query and texts to scores, sync or async.

    Raises:
        InvalidArgumentError: it is none.
    """

    def __init__(self, function: Any) -> None:
        if not callable(function) or isinstance(function, type):
            raise InvalidArgumentError(
                "rerank is a function from a query and a list of texts to a list of scores, such "
                f"as LocalReranker(), not {function!r}"
            )
        self._score = awaitable(function)
        self._name = getattr(function, "__qualname__", type(function).__name__)

    async def scores(self, query: str, texts: list[str]) -> list[float]:
        """Return a score for each text; higher is better, and any number will do.

        Raises:
            EmbeddingError: the function failed, or what it returned are no scores.
        """
        if not texts:
            return []
        try:
            answer = await self._score(query, texts)
            scores = [float(score) for score in answer]
        except StoreError:
            raise
        except Exception as exc:
            raise EmbeddingError(
                f"the reranker {self._name} failed: {type(exc).__name__}: {exc}"
            ) from exc
        if len(scores) != len(texts):
            raise EmbeddingError(
                f"the reranker {self._name} returned {len(scores)} scores for {len(texts)} texts"
            )
        if not all(map(math.isfinite, scores)):
            raise EmbeddingError(f"the reranker {self._name} returned a score that is not finite")
        return scores


def text_for(item: Item, before: Item | None, fields: Sequence[str]) -> str:
    """Return what is read of a candidate: its text, after that of the item before it."""
    own = "\n".join(texts_of(item.value, fields) or texts_of(item.value, ("$",)))
    if before is None:
        return own
    return "\n".join(texts_of(before.value, fields))[-_MOST_BEFORE:] + "\n" + own


def fused(items: Sequence[Item], scores: Sequence[float], begin: int = 0) -> list[Item]:
    """Order items anew, and give them scores from 0 to 1.

    Args:
        items: as a search has ranked them.
        scores: of the first of them, by the reranker; the others follow in their order.
        begin: how many come before.
    """
    by_score = sorted(range(len(scores)), key=lambda at: (-scores[at], at))
    parts = [1.0 / (_RANK_OFFSET + at) for at in range(begin + 1, begin + len(items) + 1)]
    for rank, at in enumerate(by_score, 1):
        parts[at] += 1.0 / (_RANK_OFFSET + rank)
    most = 2.0 / (_RANK_OFFSET + 1)
    order = sorted(range(len(items)), key=lambda at: (-parts[at], at))
    return [replace(items[at], score=round(parts[at] / most, _SCORE_DIGITS)) for at in order]
