"""Haystack over a kvstore: `KVDocumentStore`, `KVBM25Retriever` and `KVEmbeddingRetriever`.

Filters are judged by Haystack's own code, over all documents; ranked retrieval by words is the
store's. The file of a path gets an index of words; a store that is given should have one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from kvstore.errors import InvalidArgumentError, StoreCorruptError
from kvstore.instants import FOREVER
from kvstore.integrations.access import Access, Adapter, Target, halves, indexed
from kvstore.integrations.requirements import needing
from kvstore.namespace import check_namespace
from kvstore.recipe import Recipe
from kvstore.store import Store
from kvstore.transaction import Transaction
from kvstore.types import IndexConfig, Item

with needing("kvstore.integrations.haystack", "haystack-ai", "2.20", extra="haystack"):
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.document_stores.errors import DuplicateDocumentError
    from haystack.document_stores.types import DuplicatePolicy
    from haystack.errors import FilterError
    from haystack.utils.filters import document_matches_filter

__all__ = ["KVBM25Retriever", "KVDocumentStore", "KVEmbeddingRetriever"]

Filters = Mapping[str, Any] | None

_MOST: Final = 10_000  # documents that a ranked search with a filter looks at


class KVDocumentStore(Recipe, Adapter):
    """A Haystack document store.

    Args:
        target: a path or URL, as for `kvstore.open`, or a store.
        namespace: where the documents are.
    """

    def __init__(
        self, target: Target, *, namespace: Sequence[str] = ("haystack", "documents")
    ) -> None:
        index = IndexConfig(fields=("content",))
        self._access = Access(target, type(self).__name__, index=index)
        self._target = target
        self._namespace = check_namespace(namespace)

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` makes such a document store of.

        Raises:
            InvalidArgumentError: it was made with a store, and not with a path or URL.
        """
        if isinstance(self._target, Store):
            raise InvalidArgumentError(
                "a KVDocumentStore that was given a store cannot be written down; give it a path"
            )
        made: dict[str, Any] = default_to_dict(
            self, target=os.fspath(self._target), namespace=list(self._namespace)
        )
        return made

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> KVDocumentStore:
        """Return the document store that `to_dict` has written down."""
        made: KVDocumentStore = default_from_dict(cls, data)
        return made

    async def _count(self, store: Store) -> int:
        """Return how many documents there are."""
        return await store.count(self._namespace)

    count_documents, count_documents_async = halves(_count)

    async def _delete(self, store: Store, document_ids: list[str]) -> None:
        """Delete documents; what is not there is left out."""
        await store.delete_many(self._namespace, document_ids)

    delete_documents, delete_documents_async = halves(_delete)

    async def _delete_all(self, store: Store) -> None:
        """Delete all documents."""
        await store.remove(self._namespace, "*")

    delete_all_documents, delete_all_documents_async = halves(_delete_all)

    async def _filter(self, store: Store, filters: Filters = None) -> list[Document]:
        """Return the documents that pass; without filters, all."""
        _check_filters(filters)
        items = [item async for item in store.scan(self._namespace, subtree=False)]
        items.sort(key=lambda item: item.version)  # as they were written
        documents = [_document(item) for item in items]
        return [each for each in documents if _passes(each, filters)]

    filter_documents, filter_documents_async = halves(_filter)

    async def _write(
        self,
        store: Store,
        documents: list[Document],
        policy: DuplicatePolicy = DuplicatePolicy.NONE,
    ) -> int:
        """Store documents, all or none of them; return how many were written.

        Args:
            store: where.
            documents: what.
            policy: what to do where one of the id is there; by default, as `FAIL` does.

        Raises:
            DuplicateDocumentError: one is there; nothing is written.
        """
        _check_documents(documents)

        async def write(tx: Transaction) -> int:
            written = 0
            for document in documents:
                is_there = (
                    policy != DuplicatePolicy.OVERWRITE
                    and await tx.get(self._namespace, document.id) is not None
                )
                if is_there and policy != DuplicatePolicy.SKIP:
                    raise DuplicateDocumentError(f"the document {document.id!r} is there already")
                if not is_there:
                    value = document.to_dict(flatten=False)
                    tx.put(self._namespace, document.id, value, ttl=FOREVER)
                    written += 1
            return written

        return await store.transact(write)

    write_documents, write_documents_async = halves(_write)

    async def _by_words(
        self, store: Store, query: str, filters: Filters = None, top_k: int = 10
    ) -> list[Document]:
        """Return the documents that words find, the best first, with their scores."""
        _check_filters(filters)
        limit = top_k if filters is None else _MOST
        mode = "auto" if store.index is None else "text"
        found = await indexed(
            store, lambda: store.search(self._namespace, query, limit=limit, mode=mode)
        )
        documents = [_document(item, item.score) for item in found]
        return [each for each in documents if _passes(each, filters)][:top_k]

    find_by_words, find_by_words_async = halves(_by_words)

    async def _by_embedding(
        self,
        store: Store,
        embedding: Sequence[float],
        filters: Filters = None,
        top_k: int = 10,
    ) -> list[Document]:
        """Return the documents whose embeddings are nearest, with their cosine similarities."""
        documents = [each for each in await self._filter(store, filters) if each.embedding]
        scored = [replace(each, score=_cosine(embedding, each.embedding)) for each in documents]
        return sorted(scored, key=lambda each: each.score, reverse=True)[:top_k]

    find_by_embedding, find_by_embedding_async = halves(_by_embedding)


def _check_documents(documents: Any) -> None:
    if not isinstance(documents, list) or not all(isinstance(each, Document) for each in documents):
        raise InvalidArgumentError("write_documents takes a list of Documents")


def _check_filters(filters: Filters) -> None:
    if filters and "operator" not in filters:
        raise FilterError("a filter is an object with 'operator', and 'conditions' or 'field'")


def _passes(document: Document, filters: Filters) -> bool:
    return not filters or bool(document_matches_filter(dict(filters), document))


def _document(item: Item, score: float | None = None) -> Document:
    try:
        document = Document.from_dict(item.value)
    except (AttributeError, TypeError, ValueError) as exc:
        raise StoreCorruptError(
            f"the item {item.key!r} of {item.namespace} is no document"
        ) from exc
    return document if score is None else replace(document, score=score)


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    if len(one) != len(other):
        raise InvalidArgumentError(
            f"the query's embedding has {len(one)} numbers, and a document's {len(other)}"
        )
    length = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / length if length else 0.0


class _Retriever:
    """What both retrievers are made of."""

    def __init__(
        self, document_store: KVDocumentStore, *, filters: Filters = None, top_k: int = 10
    ) -> None:
        self.document_store = document_store
        self.filters = filters
        self.top_k = top_k

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` makes such a retriever of."""
        made: dict[str, Any] = default_to_dict(
            self,
            document_store=self.document_store.to_dict(),
            filters=self.filters,
            top_k=self.top_k,
        )
        return made

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """Return the retriever that `to_dict` has written down."""
        settings = data["init_parameters"]
        store = settings["document_store"]
        if isinstance(store, dict):
            settings["document_store"] = KVDocumentStore.from_dict(store)
        return default_from_dict(cls, data)


@component  # type: ignore[untyped-decorator, unused-ignore]
class KVBM25Retriever(_Retriever):
    """Retrieves documents of a `KVDocumentStore` by words."""

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator, unused-ignore]
    def run(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Return the best documents, as `documents`."""
        found = self.document_store.find_by_words(
            query, filters or self.filters, self.top_k if top_k is None else top_k
        )
        return {"documents": found}


@component  # type: ignore[untyped-decorator, unused-ignore]
class KVEmbeddingRetriever(_Retriever):
    """Retrieves documents of a `KVDocumentStore` by their embeddings."""

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator, unused-ignore]
    def run(
        self,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """Return the nearest documents, as `documents`."""
        found = self.document_store.find_by_embedding(
            query_embedding, filters or self.filters, self.top_k if top_k is None else top_k
        )
        return {"documents": found}
