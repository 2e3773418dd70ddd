"""What a search index says of itself, and whether it is that of a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import orjson

from kvstore.embedding import Embedder
from kvstore.errors import IndexMismatchError, StoreCorruptError
from kvstore.own_vectors import OwnVectors
from kvstore.ranking import Search
from kvstore.text import WORDS_REVISION
from kvstore.types import IndexConfig

__all__ = ["Description", "IndexSetup", "check_index"]

_OWN_VECTORS = "own vectors"  # computed elsewhere, by a model of which no more may be known


@dataclass(slots=True)
class Description:
    """What an index is. It is kept beside it, as JSON.

    Attributes:
        fields: the paths that are indexed of an item without paths of its own.
        model: the id of the model; `None`: there are no vectors. Of vectors that were put into an
            index without a model: what `IndexSetup.own` has said.
        dimensions: the length of its vectors; `None`: there was none yet.
        has_all_words: whether the words of every item that should be are in it.
        has_all_vectors: the same for the vectors, but for the items that are marked since.
        epoch: grows when vectors are dropped as a whole.
        words: the `WORDS_REVISION` by which its words were made.
    """

    fields: tuple[str, ...]
    model: str | None
    dimensions: int | None
    has_all_words: bool = True
    has_all_vectors: bool = True
    epoch: int = 1
    words: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `text` has written.

        Raises:
            StoreCorruptError: it has not.
        """
        try:
            known: dict[str, Any] = orjson.loads(text)
            return cls(**{**known, "fields": tuple(known["fields"])})
        except (KeyError, TypeError, ValueError) as exc:
            raise StoreCorruptError(
                "the description of the search index is damaged; restore the store from a backup"
            ) from exc

    @property
    def is_own(self) -> bool:
        """Whether its vectors were put, and none are made of texts."""
        return self.model is not None and self.model.startswith(_OWN_VECTORS)

    @property
    def text(self) -> str:
        """The description as JSON."""
        return orjson.dumps(self).decode()


@dataclass(slots=True)
class IndexSetup:
    """What one store brings along for the index.

    Attributes:
        fields: its `IndexConfig.fields`.
        model: the id of its model; `None`: it has none.
        embedder: its model; `None`: it has none.
        name: what a store without a model says of that by which its own vectors were made, and
            `None` if it does not say: then they are taken for the index's.
        serves_part: whether its searches answer from what an index holds that is not complete.
    """

    fields: tuple[str, ...]
    model: str | None = None
    embedder: Embedder | None = None
    name: str | None = None
    serves_part: bool = False

    @classmethod
    def of(cls, index: IndexConfig, embedder: Embedder | None, *, serves_part: bool) -> Self:
        """Return what a store brings that was told so."""
        if embedder is None:
            return cls(index.fields, name=index.model_id, serves_part=serves_part)
        return cls(index.fields, embedder.model_id, embedder, serves_part=serves_part)

    @property
    def dimensions(self) -> int | None:
        """The length of its model's vectors, as far as it is known."""
        return None if self.embedder is None else self.embedder.dimensions

    @property
    def own(self) -> str:
        """What to call the model of an index whose first vector this store puts."""
        return _OWN_VECTORS if self.name is None else f"{_OWN_VECTORS}: {self.name}"

    def mismatch(self, description: Description) -> str | None:
        """Say in which way an index is not this store's, by model or dimensions."""
        if self.model is None:
            return self._other_name(description)
        if description.model != self.model:
            made_by = (
                "without vectors" if description.model is None else f"by {description.model!r}"
            )
            return f"the index was made {made_by}, and this store has {self.model!r}"
        if self.dimensions is not None:
            return _other_length(description, self.dimensions)
        return None

    def _other_name(self, description: Description) -> str | None:
        if description.model is None or self.name is None:
            return None
        if description.model in (self.name, self.own):
            return None
        return f"the vectors of the index are {description.model!r}, and not {self.name!r}"


def _other_length(description: Description, length: int) -> str | None:
    if description.dimensions in (None, length):
        return None
    return (
        f"the index has vectors of {description.dimensions} numbers, and this store's model gives "
        f"{length}"
    )


def check_index(description: Description, setup: IndexSetup, asked: Search) -> None:
    """Raise unless an index can answer a store's search.

    Args:
        description: of the index.
        setup: by the store.
        asked: the search.

    Raises:
        IndexMismatchError: the index is another model's, or is not complete.
        InvalidArgumentError: the caller's vector is not as long as those of the index.
    """
    vector, by_words = asked.vector, asked.words is not None
    if by_words and description.words != WORDS_REVISION:
        raise IndexMismatchError(
            "the words of the index were made by another version of kvstore; 'await "
            "store.reindex()' makes them anew, and everything but searches by words works without"
        )
    holds_words = description.has_all_words and bool(description.fields or not setup.fields)
    is_complete = holds_words or not by_words
    if vector is not None:
        problem = setup.mismatch(description)
        if problem is None and setup.model is not None and setup.fields != description.fields:
            problem = (
                f"the index is of the fields {list(description.fields)}, and this store has "
                f"{list(setup.fields)}"
            )
        if problem is None and vector and asked.is_own:
            OwnVectors((vector,), len(vector) // 4).require_length(description.dimensions)
        elif problem is None and vector:
            problem = _other_length(description, len(vector) // 4)
        if problem is not None:
            raise IndexMismatchError(
                f"{problem}; 'await store.reindex()' makes it this store's, and everything else "
                "works without"
            )
        is_complete &= description.has_all_vectors or description.model is None
    if not is_complete and not setup.serves_part:
        raise IndexMismatchError(
            "the index does not hold all items yet; 'await store.reindex()' completes it, and a "
            "store opened with reindex=True does so by itself"
        )
