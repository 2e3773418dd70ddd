"""An index outlives the store that made it, in a file or on a server, and meets other ones."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import EmbeddingError, IndexConfig, IndexMismatchError, Store
from kvstore.testing_search import RecordingEmbeddings, found, random_vector
from tests.search.models import OtherModel
from tests.waiting import until

NS = ("notes",)


class ModelThatGoesDown(RecordingEmbeddings):
    """A model that, for a while, takes no text after the first hundred and some."""

    is_down = True

    async def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if self.is_down and len(self.texts) > 100:
            raise RuntimeError("down")
        return await super().embed_documents(texts)


@pytest.fixture(params=["file", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where stores lie that the test opens one after the other."""
    if request.param == "file":
        return str(tmp_path / "store.db")
    url: str = request.getfixturevalue("postgres_url")
    return url


def store_with(place: str, model: Any, **config: Any) -> Store:
    return kvstore.open(place, index=IndexConfig(model, **config))


async def test_an_index_lasts(place: str, model: RecordingEmbeddings) -> None:
    async with store_with(place, model) as store:
        await store.put_many(NS, {"a": "apple", "b": "banana"})
    async with store_with(place, model) as store:
        assert found(await store.search(NS, "banana", limit=1)) == ["b"]
        assert found(await store.search(NS, "banana", mode="text")) == ["b"]
    assert len(model.texts) == 2


async def test_an_index_added_later_needs_reindex(place: str, model: RecordingEmbeddings) -> None:
    async with kvstore.open(place) as store:
        await store.put_many(NS, {f"k{at}": f"text {at}" for at in range(200)})
    async with store_with(place, model) as store:
        await store.put(NS, "new", "new")
        for mode in ("semantic", "hybrid", "text"):
            with pytest.raises(IndexMismatchError, match="reindex"):
                await store.search(NS, "text", mode=mode)
        assert len(await store.search(NS, limit=300)) == 201
        seen: list[tuple[int, int | None]] = []
        assert await store.reindex(progress=lambda done, total: seen.append((done, total))) == 200
        assert seen[-1] == (200, 200)
        assert len(await store.search(NS, "text", limit=300)) == 201
        assert found(await store.search(NS, "text 7", limit=1)) == ["k7"]
        assert len(model.texts) == 201
        assert await store.reindex() == 0
        assert (await store.check()).ok


def reindexing(place: str, model: Any) -> Store:
    return kvstore.open(place, index=IndexConfig(model), reindex=True)


async def test_an_index_added_later_comes_in_the_background(
    place: str, model: RecordingEmbeddings, caplog: pytest.LogCaptureFixture
) -> None:
    async with kvstore.open(place) as store:
        await store.put_many(NS, {f"k{at}": f"text {at}" for at in range(100)})
        await store.put(NS, "bad", "poisoned text")
    model.gate = asyncio.Event()
    model.poison = "poisoned"
    async with reindexing(place, model) as store:  # and is closed in the middle of it
        assert await store.count(NS) == 101
        assert await store.search(NS, "text", mode="text") == []
    async with reindexing(place, model) as store:
        await store.put(NS, "new", "words", index=False)
        model.gate.set()
        for mode in ("text", "semantic", "hybrid"):
            assert len(await store.search(NS, "text", mode=mode, limit=200)) <= 101

        async def is_done() -> bool:
            return (await store.stats()).indexed == 101

        await until(is_done)
        assert found(await store.search(NS, "text 7", limit=1)) == ["k7"]
        assert len(await store.search(NS, "text", mode="semantic", limit=200)) == 100
        assert found(await store.search(NS, "poisoned", mode="text")) == ["bad"]
        assert (await store.check()).ok
        assert (await store.reindex()).skipped == ((NS, "bad"),)
    assert "'bad' out" in caplog.text


async def test_a_model_that_is_down_leaves_the_store_as_it_was(
    place: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = ModelThatGoesDown()
    async with kvstore.open(place) as store:
        await store.put_many(NS, {f"k{at}": f"text {at}" for at in range(500)})
    async with reindexing(place, model) as store:
        await until(lambda: "could not complete" in caplog.text)
        assert await store.count(NS) == 500
        assert len(await store.search(NS, "text", mode="semantic", limit=600)) < 500
        model.is_down = False
        await store.reindex()
        assert len(await store.search(NS, "text", mode="semantic", limit=600)) == 500


def test_reindexing_needs_an_index_and_writes() -> None:
    index = IndexConfig()
    with pytest.raises(kvstore.InvalidArgumentError, match="no index"):
        kvstore.open("memory://", reindex=True)
    with pytest.raises(kvstore.InvalidArgumentError, match="writes nothing"):
        kvstore.open("memory://", index=index, read_only=True, reindex=True)
    with pytest.raises(kvstore.InvalidArgumentError, match="True or False"):
        kvstore.open("memory://", index=index, reindex=1)


@pytest.mark.parametrize("index", [None, IndexConfig()], ids=["no index", "no model"])
async def test_what_a_store_without_the_model_writes_is_marked(
    place: str, model: RecordingEmbeddings, index: IndexConfig | None
) -> None:
    async with store_with(place, model) as store:
        await store.put_many(NS, {"a": "apple", "b": "banana", "c": "cherry", "d": "date"})
    async with kvstore.open(place, index=index) as store:
        await store.put(NS, "a", "avocado")
        await store.put(NS, "b", "banana")
        await store.put(NS, "e", "elder")
        await store.delete(NS, "c")
        await store.put(NS, "d", None)
        assert (await store.check()).ok
    async with store_with(place, model) as store:
        assert found(await store.search(NS, "apple")) == ["b"]
        assert found(await store.search(NS, "apple", mode="text")) == []
        assert sorted(found(await store.search(NS, "avocado elder", mode="text"))) == ["a", "e"]
        assert await store.reindex() == 2
        assert model.texts[4:] == ["avocado", "elder"]
        assert sorted(found(await store.search(NS, "apple"))) == ["a", "b", "e"]


async def test_another_model_is_noticed_and_reindex_makes_it_the_index(
    place: str, model: RecordingEmbeddings
) -> None:
    other = OtherModel()
    async with store_with(place, model) as first:
        await first.put_many(NS, {"a": "apple", "b": "banana"})
        async with store_with(place, other) as store:
            for mode in ("auto", "semantic", "hybrid"):
                with pytest.raises(IndexMismatchError, match=r"await store\.reindex"):
                    await store.search(NS, "apple", mode=mode)
            assert found(await store.search(NS, "apple", mode="text")) == ["a"]
            await store.put(NS, "c", "cherry")
            assert found(await store.search(NS, "cherry", mode="text")) == ["c"]
            assert other.texts == []
            assert (await store.check()).ok
            assert await store.reindex() == 3
            assert sorted(other.texts) == ["apple", "banana", "cherry"]
            (item,) = await store.search(NS, "cherry", limit=1)
            assert (item.key, item.score) == ("c", 1.0)
            assert (await store.check()).ok
        with pytest.raises(IndexMismatchError):
            await first.search(NS, "apple")
        await first.put(NS, "d", "date")
        assert found(await first.search(NS, "date", mode="text")) == ["d"]
        assert (await first.check()).ok


async def test_other_dimensions_of_the_same_model_are_noticed(
    place: str, model: RecordingEmbeddings
) -> None:
    async with store_with(place, model, model_id="m") as store:
        await store.put(NS, "a", "apple")
    async with store_with(place, OtherModel(), model_id="m") as store:
        with pytest.raises(IndexMismatchError, match="8 numbers"):
            await store.search(NS, "apple")
        await store.put(NS, "b", "banana")
        await store.put(NS, "c", "cherry")
        assert (await store.check()).ok
        assert await store.reindex() == 3
        assert found(await store.search(NS, "banana", limit=1)) == ["b"]


async def test_dimensions_may_be_told(place: str, model: RecordingEmbeddings) -> None:
    async with store_with(place, model, dimensions=7) as store:
        with pytest.raises(EmbeddingError, match="7 were expected"):
            await store.put(NS, "a", "apple")


async def test_other_fields_reuse_the_vectors_that_are_there(
    place: str, model: RecordingEmbeddings
) -> None:
    async with store_with(place, model, fields=["title"]) as store:
        await store.put(NS, "a", {"title": "apple", "body": "red"})
        await store.put(NS, "b", {"title": "banana", "body": "yellow"}, index=["body"])
    async with store_with(place, model, fields=["title", "body"]) as store:
        with pytest.raises(IndexMismatchError, match="fields"):
            await store.search(NS, "red")
        assert await store.search(NS, "red", mode="text") == []
        await store.reindex()
        assert found(await store.search(NS, "red", limit=1)) == ["a"]
        assert found(await store.search(NS, "red", mode="text")) == ["a"]
        assert await store.search(NS, "banana", mode="text") == []
        assert sorted(model.texts) == ["apple", "red", "yellow"]
        assert (await store.check()).ok


async def test_reindex_goes_on_where_it_was(place: str) -> None:
    async with kvstore.open(place) as store:
        await store.put_many(NS, {f"k{at:03}": f"text {at}" for at in range(300)})
    model = ModelThatGoesDown()
    async with store_with(place, model) as store:
        with pytest.raises(EmbeddingError):
            await store.reindex()
        done = len(model.texts)
        assert 100 < done < 300
        with pytest.raises(IndexMismatchError):
            await store.search(NS, "text")
    before = model.texts
    model.is_down = False
    async with store_with(place, model) as store:
        assert await store.reindex() < 200
        assert len(model.texts) < len(before) + 200
        assert len(await store.search(NS, "text", limit=400)) == 300


async def test_reindex_while_the_store_is_in_use(place: str, model: RecordingEmbeddings) -> None:
    async with kvstore.open(place) as store:
        await store.put_many(NS, {f"k{at:03}": f"text {at}" for at in range(300)})
    async with store_with(place, model) as store:
        written = 0

        async def write() -> None:
            nonlocal written
            while not is_done:
                await store.put(NS, f"k{written % 350:03}", f"new {written}")
                await store.delete(NS, f"k{(written * 7) % 350:03}")
                written += 1

        is_done = False
        writing = asyncio.create_task(write())
        await store.reindex()
        is_done = True
        await writing
        assert written > 0
        assert (await store.check()).ok
        assert len(await store.search(NS, "text", limit=500)) == await store.count(NS)


async def test_what_is_imported_is_indexed(
    place: str, model: RecordingEmbeddings, tmp_path: Path
) -> None:
    file = tmp_path / "items.jsonl"
    async with store_with(place, model) as store:
        await store.put_many(NS, {f"k{at}": f"text {at}" for at in range(50)})
        await store.export_items(file)
        await store.remove(NS, "k1*")
        await store.put(NS, "k2", "changed")
        before = len(model.texts)
        await store.import_items(file)
        assert len(model.texts) - before == 12
        assert len(await store.search(NS, "text", limit=100)) == 50
        assert found(await store.search(NS, "text 2", limit=1)) == ["k2"]
        assert await store.search(NS, "changed", mode="text") == []
        assert (await store.check()).ok


async def test_own_vectors_last_without_a_model(place: str, model: RecordingEmbeddings) -> None:
    async with store_with(place, None) as store:
        await store.put(NS, "k", "apple", vector=model.vector("apple"))
    async with store_with(place, None, fields=["title"]) as store:  # other fields: words anew
        assert found(await store.search(NS, vector=model.vector("apple"))) == ["k"]
        assert await store.reindex() == 1
        assert found(await store.search(NS, vector=model.vector("apple"))) == ["k"]
        assert (await store.check()).ok
    async with kvstore.open(place) as store:  # without an index: what it writes has no vector
        await store.put(NS, "k", "pear")
    async with store_with(place, None) as store:
        assert await store.search(NS, vector=model.vector("apple")) == []
        assert (await store.check()).ok


async def test_a_model_makes_an_index_of_own_vectors_its_own(
    place: str, model: RecordingEmbeddings
) -> None:
    async with store_with(place, None) as store:
        await store.put(NS, "k", "apple", vector=[1.0, 2.0, 3.0])
    async with store_with(place, model) as store:
        with pytest.raises(IndexMismatchError, match="own vectors"):
            await store.search(NS, "apple")
        with pytest.raises(IndexMismatchError, match="own vectors"):
            await store.put(NS, "new", "pear", vector=model.vector("pear"))
        assert await store.get(NS, "new") is None
        assert await store.reindex() == 1
        assert found(await store.search(NS, "apple")) == ["k"]
        assert model.texts == ["apple"]
        assert (await store.check()).ok


async def test_own_vectors_of_another_name_are_noticed(place: str) -> None:
    async with store_with(place, None, model_id="one") as store:
        await store.put(NS, "k", "apple", vector=[1.0, 0.0])
    async with store_with(place, None, model_id="two") as store:
        with pytest.raises(IndexMismatchError, match="'two'"):
            await store.search(NS, vector=[1.0, 0.0])
        with pytest.raises(IndexMismatchError, match="'two'"):
            await store.put(NS, "k", "pear", vector=[1.0, 0.0])
        assert await store.reindex() == 1  # it is of "two" now, and has no vectors
        await store.put(NS, "k", "apple", vector=[1.0, 0.0, 0.0])
        assert found(await store.search(NS, vector=[1.0, 0.0, 0.0])) == ["k"]
        assert (await store.check()).ok


async def test_without_the_model_its_vectors_may_come_from_elsewhere(
    place: str, model: RecordingEmbeddings
) -> None:
    async with store_with(place, model, model_id="mine") as store:
        await store.put(NS, "a", "apple")
    async with store_with(place, None, model_id="mine") as store:
        await store.put(NS, "b", "banana", vector=model.vector("banana"))
        assert found(await store.search(NS, vector=model.vector("apple"), limit=1)) == ["a"]
        assert found(await store.search(NS, vector=model.vector("banana"), limit=1)) == ["b"]
    async with store_with(place, None) as store:  # it does not say of which model
        assert found(await store.search(NS, vector=model.vector("apple"), limit=1)) == ["a"]
    async with store_with(place, model, model_id="mine") as store:
        assert found(await store.search(NS, "banana", limit=1)) == ["b"]
        assert await store.reindex() == 0
        assert (await store.check()).ok
    assert model.texts == ["apple"]


async def test_an_import_leaves_vectors_to_the_model(
    place: str, model: RecordingEmbeddings, tmp_path: Path
) -> None:
    async with store_with(place, model) as store:
        await store.put(NS, "k", "apple", vector=random_vector("other"))
        await store.export_items(tmp_path / "items.jsonl")
        await store.import_items(tmp_path / "items.jsonl")
        (item,) = await store.search(NS, "apple")
        assert item.score == pytest.approx(1.0, abs=1e-5)
        assert (await store.check()).ok


def test_own_vectors_without_await(tmp_path: Path) -> None:
    with kvstore.SyncStore(tmp_path / "store.db", index=IndexConfig()) as store:
        store.put(NS, "a", 1, vector=[1.0, 0.0])
        store.transact(lambda tx: tx.put(NS, "b", 2, vector=[0.6, 0.8]))
        assert [item.key for item in store.search(NS, vector=[0.6, 0.8])] == ["b", "a"]
