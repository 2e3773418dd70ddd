"""Semantic search through `LangGraphStore`, as LangGraph's own stores have it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langgraph.store.base")

from langchain_core.embeddings import Embeddings
from langgraph.store.base import SearchOp

import kvstore
from kvstore.integrations.langgraph import LangGraphStore, index_config_of

WORDS = ("tea", "coffee", "cat", "dog")
USERS = ("users", "alice")


class Words(Embeddings):
    """One dimension a word, and one for all the rest, so that no text is without direction."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.seen += texts
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(text.count(word)) for word in WORDS] + [0.1]


@pytest.fixture
def words() -> Words:
    return Words()


@pytest.fixture(params=["memory", "sqlite"])
def conn_string(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else str(tmp_path / "agent.db")


@pytest.fixture
async def store(conn_string: str, words: Words) -> AsyncIterator[LangGraphStore]:
    index: Any = {"dims": 5, "embed": words, "fields": ["text", "notes[*].text"]}
    async with LangGraphStore.from_conn_string(conn_string, index=index) as opened:
        yield opened


async def found(store: LangGraphStore, query: str | None, **options: Any) -> list[tuple[str, Any]]:
    items = await store.asearch((), query=query, **options)
    return [(item.key, None if item.score is None else round(item.score, 2)) for item in items]


async def test_the_nearest_come_first_with_their_similarity(store: LangGraphStore) -> None:
    await store.aput(USERS, "1", {"text": "tea and coffee"})
    await store.aput(USERS, "2", {"text": "tea"})
    await store.aput(("users", "bob"), "3", {"text": "a dog"})
    assert await found(store, "tea") == [("2", 1.0), ("1", 0.71), ("3", 0.01)]
    assert await found(store, "coffee", limit=1) == [("1", 0.71)]
    items = await store.asearch(("users", "bob"), query="tea")
    assert [item.key for item in items] == ["3"]


async def test_an_item_scores_by_its_best_text(store: LangGraphStore) -> None:
    await store.aput(USERS, "1", {"text": "dog", "notes": [{"text": "cat"}, {"text": "tea"}]})
    await store.aput(USERS, "2", {"text": "dog cat tea"})
    assert await found(store, "tea") == [("1", 1.0), ("2", 0.58)]


async def test_only_the_configured_text_is_embedded(store: LangGraphStore, words: Words) -> None:
    await store.aput(USERS, "1", {"text": "tea", "secret": "cat", "notes": []})
    assert words.seen == ["tea"]


async def test_an_update_replaces_what_was_indexed(store: LangGraphStore) -> None:
    await store.aput(USERS, "1", {"text": "tea"})
    await store.aput(USERS, "1", {"text": "cat"})
    assert await found(store, "tea") == [("1", 0.01)]
    await store.aput(USERS, "1", {"text": "tea"}, index=False)
    assert await found(store, "tea") == [("1", None)]
    await store.adelete(USERS, "1")
    await store.aput(USERS, "1", {"other": "tea"})
    assert await found(store, "tea") == [("1", None)]


async def test_a_put_may_name_the_paths(store: LangGraphStore) -> None:
    await store.aput(USERS, "1", {"text": "dog", "title": "tea"}, index=["title"])
    await store.aput(USERS, "2", {"text": "dog", "a": {"b": "tea", "c": "cat"}}, index=["a.{b,c}"])
    assert await found(store, "tea") == [("1", 1.0), ("2", 1.0)]
    assert (await found(store, "dog"))[0][1] < 0.1


async def test_what_has_no_vector_comes_last_without_a_score(store: LangGraphStore) -> None:
    for number in range(3):
        await store.aput(USERS, f"plain {number}", {"text": "tea"}, index=False)
    for number in range(3):
        await store.aput(USERS, f"{number}", {"text": "tea " * number + "cat"})
    whole = await found(store, "tea", limit=100)
    assert [key for key, _ in whole[:3]] == ["2", "1", "0"]
    assert {key for key, score in whole[3:] if score is None} == {"plain 0", "plain 1", "plain 2"}
    for size in (1, 2, 4):
        paged = [
            hit
            for start in range(0, 6, size)
            for hit in await found(store, "tea", limit=size, offset=start)
        ]
        assert paged == whole
    assert await found(store, "tea", limit=5, offset=6) == []


async def test_a_filter_holds_for_both_kinds(store: LangGraphStore) -> None:
    await store.aput(USERS, "1", {"text": "tea", "color": "red"})
    await store.aput(USERS, "2", {"text": "tea", "color": "blue"})
    await store.aput(USERS, "3", {"text": "tea", "color": "red"}, index=False)
    assert await found(store, "tea", filter={"color": "red"}) == [("1", 1.0), ("3", None)]


@pytest.mark.parametrize("query", [None, "", " "])
async def test_without_a_query_nothing_is_scored(store: LangGraphStore, query: str | None) -> None:
    await store.aput(USERS, "1", {"text": "tea"})
    assert await found(store, query) == [("1", None)]


async def test_a_bad_page_is_refused(store: LangGraphStore) -> None:
    for op in (SearchOp((), query="tea", limit=-1), SearchOp((), query="tea", offset=-1)):
        with pytest.raises(ValueError, match="at least 0"):
            await store.abatch([op])


async def test_the_whole_value_is_the_default(conn_string: str, words: Words) -> None:
    index: Any = {"dims": 5, "embed": words}
    async with LangGraphStore.from_conn_string(conn_string, index=index) as store:
        await store.aput(USERS, "1", {"title": "tea", "deep": [{"x": "cat"}]})
        await store.aput(USERS, "2", {"title": "dog"})
        assert [key for key, _ in await found(store, "cat")] == ["1", "2"]


async def test_a_function_may_embed(conn_string: str, words: Words) -> None:
    async def embed(texts: list[str]) -> list[list[float]]:
        return words.embed_documents(texts)

    index: Any = {"dims": 5, "embed": embed, "text_fields": ["text"]}
    async with LangGraphStore.from_conn_string(conn_string, index=index) as store:
        await store.aput(USERS, "1", {"text": "tea"})
        assert await found(store, "tea") == [("1", 1.0)]


def test_sync_code_searches_too(conn_string: str, words: Words) -> None:
    import kvstore
    from kvstore.integrations.langgraph import index_config_of

    index: Any = {"dims": 5, "embed": words, "fields": ["text"]}
    store = LangGraphStore(kvstore.open(conn_string, index=index_config_of(index)), index=index)
    store.put(USERS, "1", {"text": "tea"})
    store.put(USERS, "2", {"text": "cat"})
    assert [item.key for item in store.search((), query="cat")] == ["2", "1"]
    store.close()


# Models, as `IndexConfig` takes them


class Own:
    """An async model of kvstore's kind, which is no LangChain one."""

    def __init__(self, name: str = "own") -> None:
        self.model = name

    async def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return Words().embed_documents(texts)

    async def embed_query(self, text: str) -> list[float]:
        return Words().embed_query(text)


def sync_function(texts: list[str]) -> list[list[float]]:
    return Words().embed_documents(texts)


async def async_function(texts: list[str]) -> list[list[float]]:
    return Words().embed_documents(texts)


def other_function(texts: list[str]) -> list[list[float]]:
    return [[1.0, 0.0, 0.0, 0.0, 0.0] for _ in texts]


@pytest.mark.parametrize("model", [Own(), sync_function, async_function, Words()])
async def test_whatever_kvstore_takes_for_a_model(conn_string: str, model: Any) -> None:
    index: Any = {"dims": 5, "embed": model}
    async with LangGraphStore.from_conn_string(conn_string, index=index) as store:
        await store.aput(USERS, "1", {"text": "tea"})
        await store.aput(USERS, "2", {"text": "cat"})
        assert [key for key, _ in await found(store, "tea", limit=1)] == ["1"]
        assert store.index_config is not None
        assert store.index_config["embed"] is model


@pytest.mark.parametrize("model", [7, None, Own, "nobody:nothing"])
def test_what_is_no_model_is_refused_at_once(tmp_path: Path, model: Any) -> None:
    with pytest.raises((kvstore.InvalidArgumentError, ValueError, ImportError)):
        kvstore.SQLiteStore(tmp_path / "a.db", index=index_config_of({"dims": 5, "embed": model}))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (sync_function, other_function),
        (sync_function, async_function),
        (Own("one"), Own("two")),
        (Own(), Words()),
    ],
)
async def test_a_change_of_model_is_noticed(tmp_path: Path, first: Any, second: Any) -> None:
    path = str(tmp_path / "agent.db")
    index: Any = {"dims": 5, "embed": first}
    async with LangGraphStore.from_conn_string(path, index=index) as store:
        await store.aput(USERS, "1", {"text": "tea"})
    index = {"dims": 5, "embed": second}
    async with LangGraphStore.from_conn_string(path, index=index) as store:
        with pytest.raises(kvstore.IndexMismatchError, match="reindex"):
            await store.asearch(USERS, query="tea")
        assert await store.aget(USERS, "1") is not None
