"""LangChain's own standard suites, unchanged, and what they leave out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore

pytest.importorskip("langchain_core")
pytest.importorskip("langchain_tests")

from langchain_core.caches import BaseCache
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.stores import BaseStore
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import (
    AsyncCacheTestSuite,
    BaseStoreAsyncTests,
    BaseStoreSyncTests,
    SyncCacheTestSuite,
    VectorStoreIntegrationTests,
)

from kvstore.integrations.langchain import (
    KVByteStore,
    KVCache,
    KVChatMessageHistory,
    KVVectorStore,
)


class Bytes:
    @pytest.fixture(params=["memory", "sqlite"])
    def kv_store(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
        store = KVByteStore("memory://" if request.param == "memory" else tmp_path / "a.db")
        yield store
        store.close()

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"one", b"\0\xff", b""


class TestByteStore(Bytes, BaseStoreSyncTests[bytes]):  # type: ignore[misc, unused-ignore]
    pass


class TestAsyncByteStore(Bytes, BaseStoreAsyncTests[bytes]):  # type: ignore[misc, unused-ignore]
    @pytest.fixture
    async def kv_store(self, tmp_path: Path) -> Any:
        store = KVByteStore(tmp_path / "a.db")
        yield store
        await store.aclose()


class TestCache(SyncCacheTestSuite):  # type: ignore[misc, unused-ignore]
    @pytest.fixture
    def cache(self, tmp_path: Path) -> Iterator[BaseCache]:
        cache = KVCache(tmp_path / "a.db")
        yield cache
        cache.close()


class TestAsyncCache(AsyncCacheTestSuite):  # type: ignore[misc, unused-ignore]
    @pytest.fixture
    async def cache(self, tmp_path: Path) -> Any:
        cache = KVCache(tmp_path / "a.db")
        yield cache
        await cache.aclose()


class TestVectorStore(VectorStoreIntegrationTests):  # type: ignore[misc, unused-ignore]
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[VectorStore]:
        store = KVVectorStore(tmp_path / "a.db", self.get_embeddings())
        yield store
        store.close()


def test_keys_are_literal_and_come_one_by_one(tmp_path: Path) -> None:
    store: BaseStore[str, bytes] = KVByteStore(tmp_path / "a.db")
    store.mset([("a*b", b"1"), ("a*c", b"2"), ("axb", b"3"), ("a*b", b"4")])
    assert list(store.yield_keys(prefix="a*")) == ["a*b", "a*c"]
    assert iter(store.yield_keys()) is not None
    assert store.mget(["a*b", "none"]) == [b"4", None]
    store.close()  # type: ignore[attr-defined]


async def test_a_cache_is_exact_and_gives_fresh_objects(tmp_path: Path) -> None:
    cache = KVCache(tmp_path / "a.db")
    answer = ChatGeneration(
        message=AIMessage("x", tool_calls=[{"name": "f", "args": {"a": 1}, "id": "1"}])
    )
    await cache.aupdate("prompt", "model", [answer, Generation(text="y")])
    one, two = await cache.alookup("prompt", "model"), await cache.alookup("prompt", "model")
    assert one == two == [answer, Generation(text="y")]
    assert one is not None
    assert two is not None
    one[0].message.content = "changed"
    assert two[0] == answer
    assert await cache.alookup("prompt", "other") is None
    assert await cache.alookup("modelprompt", "") is None
    await cache.aclear()
    assert await cache.alookup("prompt", "model") is None
    await cache.aclose()


async def test_a_history_keeps_its_order_in_both_halves(tmp_path: Path) -> None:
    messages = [
        HumanMessage("hello", id="1"),
        AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "c"}]),
        ToolMessage("done", tool_call_id="c"),
    ]
    async with kvstore.open(tmp_path / "a.db") as store:
        history = KVChatMessageHistory(store, "a/b")
        for _ in range(5):
            await history.aadd_messages(messages)
        assert await history.aget_messages() == messages * 5
        assert await asyncio.to_thread(lambda: history.messages) == messages * 5
        with pytest.raises(asyncio.InvalidStateError):
            _ = history.messages
        assert await KVChatMessageHistory(store, "other").aget_messages() == []
        await history.aclear()
        assert await history.aget_messages() == []
        await asyncio.gather(*(history.aadd_messages([HumanMessage(str(n))]) for n in range(50)))
        texts = [message.text for message in await history.aget_messages()]
        assert sorted(texts, key=int) == [str(n) for n in range(50)]


def test_documents_are_found_by_meaning_and_by_metadata(tmp_path: Path) -> None:
    embedding: Any = TestVectorStore.get_embeddings()
    store = KVVectorStore(tmp_path / "a.db", embedding)
    store.add_texts(["tea", "cat"], [{"year": 1, "a": {"b": 2}}, {"year": 2}], ids=["t", "c"])
    ((found, score),) = store.similarity_search_with_score("tea", k=1)
    assert (found.id, round(score, 5)) == ("t", 1.0)
    (found,) = store.similarity_search("tea", filter={"year": {"$gte": 2}})
    assert found.id == "c"
    (found,) = store.similarity_search("x", filter={"$and": [{"a.b": 2}, {"$not": {"year": 2}}]})
    assert found == Document("tea", metadata={"year": 1, "a": {"b": 2}}, id="t")
    assert store.as_retriever(search_kwargs={"k": 1}).invoke("cat")[0].id == "c"
    store.close()
    with pytest.raises(kvstore.InvalidArgumentError, match="model"):
        KVVectorStore(tmp_path / "a.db")
    with pytest.raises(kvstore.InvalidArgumentError, match="IndexConfig"):
        KVVectorStore(kvstore.InMemoryStore())


def test_a_namespace_that_is_a_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(kvstore.InvalidNamespaceError, match="not a str"):
        KVChatMessageHistory(tmp_path / "a.db", "s", namespace="sessions")
