"""Haystack's packaged suite for document stores, unchanged, and the retrievers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore

pytest.importorskip("haystack.testing.document_store")

from haystack import Document, Pipeline
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError
from haystack.testing.document_store import DocumentStoreBaseTests

from kvstore.integrations.haystack import (
    KVBM25Retriever,
    KVDocumentStore,
    KVEmbeddingRetriever,
)


class TestDocumentStore(DocumentStoreBaseTests):  # type: ignore[misc, unused-ignore]
    @pytest.fixture(params=["memory", "sqlite"])
    def document_store(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
        store = KVDocumentStore("memory://" if request.param == "memory" else tmp_path / "a.db")
        yield store
        store.close()

    def test_write_documents(self, document_store: Any) -> None:
        documents = [Document(content="one"), Document(content="two")]
        assert document_store.write_documents(documents) == 2
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([Document(content="three"), documents[0]])
        assert document_store.count_documents() == 2  # nothing of it


DOCUMENTS = [
    Document(id="t", content="green tea from Japan", meta={"year": 1}, embedding=[1.0, 0.0]),
    Document(id="c", content="a cat asleep", meta={"year": 2}, embedding=[0.6, 0.8]),
    Document(id="b", content="black tea", meta={"year": 2}),
]
LATER = {"field": "meta.year", "operator": ">", "value": 1}


def test_retrievers_in_a_pipeline_that_is_written_down(tmp_path: Path) -> None:
    store = KVDocumentStore(tmp_path / "a.db")
    store.write_documents(DOCUMENTS)
    pipeline = Pipeline()
    pipeline.add_component("words", KVBM25Retriever(store, top_k=2))
    pipeline.add_component("meaning", KVEmbeddingRetriever(store))
    guarded = "allowed_modules" in inspect.signature(Pipeline.loads).parameters  # since Haystack 3
    allowed: Any = {"allowed_modules": ["kvstore.integrations.haystack"]} if guarded else {}
    pipeline = Pipeline.loads(pipeline.dumps(), **allowed)
    store.close()
    asked = {
        "words": {"query": "tea", "filters": LATER},
        "meaning": {"query_embedding": [0.0, 1.0], "top_k": 1},
    }
    found = pipeline.run(asked)
    assert [each.id for each in found["words"]["documents"]] == ["b"]
    ((nearest),) = found["meaning"]["documents"]
    assert (nearest.id, round(nearest.score, 6)) == ("c", 0.8)
    assert nearest.meta == {"year": 2}
    for name in ("words", "meaning"):
        pipeline.get_component(name).document_store.close()


async def test_the_async_half(tmp_path: Path) -> None:
    async with kvstore.open(tmp_path / "a.db") as opened:
        store = KVDocumentStore(opened)
        assert await store.write_documents_async(DOCUMENTS) == 3
        assert await store.write_documents_async(DOCUMENTS, DuplicatePolicy.SKIP) == 0
        assert await store.write_documents_async(DOCUMENTS, DuplicatePolicy.OVERWRITE) == 3
        assert [each.id for each in await store.filter_documents_async(LATER)] == ["c", "b"]
        assert len(await store.find_by_words_async("tea")) == 2
        with pytest.raises(kvstore.InvalidArgumentError, match="1 numbers"):
            await store.find_by_embedding_async([1.0])
        with pytest.raises(FilterError):
            await store.filter_documents_async({"field": "meta.year", "value": 1})
        with pytest.raises(asyncio.InvalidStateError):
            store.count_documents()
        await store.delete_documents_async(["t", "none"])
        assert await store.count_documents_async() == 2
        with pytest.raises(kvstore.InvalidArgumentError, match="path"):
            store.to_dict()


def test_words_are_found_beside_what_others_write(tmp_path: Path) -> None:
    documents = KVDocumentStore(tmp_path / "a.db")
    documents.write_documents([Document(id="1", content="green tea")])
    with kvstore.SyncStore(tmp_path / "a.db") as other:  # which knows of no index
        other.put(("other",), "k", "tea")
    (found,) = documents.find_by_words("tea")
    assert found.id == "1"
    documents.close()
