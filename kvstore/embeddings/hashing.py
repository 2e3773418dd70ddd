"""`HashingEmbeddings`: vectors of words and parts of words, by feature hashing, without a model.

Source: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009: signed
hashes of features, whose products are those of the features but for collisions.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from zlib import crc32

from kvstore.caching import cache_short
from kvstore.errors import InvalidArgumentError
from kvstore.text import WORDS_REVISION, words_of

__all__ = ["HashingEmbeddings"]

_PART = 4  # characters of a part of a word
_PART_WEIGHT = 0.3  # of all parts of a word, against the word itself
_TEXTS_A_TURN = 16  # of the event loop


class HashingEmbeddings:
    """Texts are near that share words, or parts of words: lexical, offline and deterministic.

    For tests and demos: it knows nothing of meaning, so `car` and `automobile` are strangers.

    Args:
        dimensions: the length of the vectors; the more, the fewer words collide.
    """

    def __init__(self, dimensions: int = 256) -> None:
        if isinstance(dimensions, bool) or not isinstance(dimensions, int) or dimensions < 8:
            raise InvalidArgumentError(f"dimensions is an int of at least 8, not {dimensions!r}")
        self.dimensions = dimensions
        self.model_id = f"hashing-{dimensions}-{WORDS_REVISION}"

    async def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a vector for each text."""
        vectors = []
        for at, text in enumerate(texts):
            if at % _TEXTS_A_TURN == _TEXTS_A_TURN - 1:
                await asyncio.sleep(0)
            vectors.append(self._embed(text))
        return vectors

    async def embed_query(self, text: str) -> list[float]:
        """Return the vector of a query; it is the same as that of a document."""
        return self._embed(text)

    def _embed(self, text: str) -> list[float]:
        vector = [0.0] * self.dimensions
        for word, count in Counter(words_of([text])).items():
            weight = 1.0 + math.log(count)
            for code, share in _features(word):
                vector[code % self.dimensions] += share * weight
        return vector


@cache_short(65_536, 64)
def _features(word: str) -> tuple[tuple[int, float], ...]:
    """Return the hash and the signed weight of a word and of its parts."""
    padded = f"<{word}>"
    parts = {padded[at : at + _PART] for at in range(len(padded) - _PART + 1)}
    weight = _PART_WEIGHT / math.sqrt(len(parts)) if parts else 0.0
    features = [(f"w{word}", 1.0), *((f"p{part}", weight) for part in sorted(parts))]
    hashed = ((crc32(feature.encode()), share) for feature, share in features)
    return tuple((code >> 1, share if code & 1 else -share) for code, share in hashed)
