"""The index of a file outlives the store that made it, and meets others."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from kvstore import (
    EmbeddingError,
    IndexConfig,
    IndexMismatchError,
    MissingDependencyError,
    SQLiteStore,
)
from kvstore.sqlite import driver
from kvstore.testing_search import RecordingEmbeddings, found, random_vector

NS = ("notes",)


class OtherModel(RecordingEmbeddings):
    """A model whose vectors have another length."""

    def __init__(self) -> None:
        super().__init__()
        self.model_id = "other"

    def vector(self, text: str) -> list[float]:
        return random_vector(text, 5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def model() -> RecordingEmbeddings:
    return RecordingEmbeddings()


def store_with(path: Path, model: Any, **config: Any) -> SQLiteStore:
    return SQLiteStore(path, index=IndexConfig(model, **config))


async def test_an_index_lasts(path: Path, model: RecordingEmbeddings) -> None:
    async with store_with(path, model) as store:
        await store.put_many(NS, {"a": "apple", "b": "banana"})
    async with store_with(path, model) as store:
        assert found(await store.search(NS, "banana", limit=1)) == ["b"]
        assert found(await store.search(NS, "banana", mode="text")) == ["b"]
    assert len(model.texts) == 2


async def test_an_index_added_to_a_file_needs_reindex(
    path: Path, model: RecordingEmbeddings
) -> None:
    async with SQLiteStore(path) as store:
        await store.put_many(NS, {f"k{at}": f"text {at}" for at in range(200)})
    async with store_with(path, model) as store:
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


@pytest.mark.parametrize("index", [None, IndexConfig()], ids=["no index", "no model"])
async def test_what_a_store_without_the_model_writes_is_marked(
    path: Path, model: RecordingEmbeddings, index: IndexConfig | None
) -> None:
    async with store_with(path, model) as store:
        await store.put_many(NS, {"a": "apple", "b": "banana", "c": "cherry", "d": "date"})
    async with SQLiteStore(path, index=index) as store:
        await store.put(NS, "a", "avocado")
        await store.put(NS, "b", "banana")
        await store.put(NS, "e", "elder")
        await store.delete(NS, "c")
        await store.put(NS, "d", None)
        assert (await store.check()).ok
    async with store_with(path, model) as store:
        assert found(await store.search(NS, "apple")) == ["b"]
        assert found(await store.search(NS, "apple", mode="text")) == []
        assert sorted(found(await store.search(NS, "avocado elder", mode="text"))) == ["a", "e"]
        assert await store.reindex() == 2
        assert model.texts[4:] == ["avocado", "elder"]
        assert sorted(found(await store.search(NS, "apple"))) == ["a", "b", "e"]


async def test_another_model_is_noticed_and_reindex_makes_it_the_index(
    path: Path, model: RecordingEmbeddings
) -> None:
    async with store_with(path, model) as store:
        await store.put_many(NS, {"a": "apple", "b": "banana"})
    other = OtherModel()
    async with store_with(path, other) as store:
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
    async with store_with(path, model) as store:
        with pytest.raises(IndexMismatchError):
            await store.search(NS, "apple")


async def test_other_dimensions_of_the_same_model_are_noticed(
    path: Path, model: RecordingEmbeddings
) -> None:
    async with store_with(path, model, model_id="m") as store:
        await store.put(NS, "a", "apple")
    async with store_with(path, OtherModel(), model_id="m") as store:
        with pytest.raises(IndexMismatchError, match="8 numbers"):
            await store.search(NS, "apple")
        await store.put(NS, "b", "banana")
        await store.put(NS, "c", "cherry")
        assert (await store.check()).ok
        assert await store.reindex() == 3
        assert found(await store.search(NS, "banana", limit=1)) == ["b"]


async def test_dimensions_may_be_told(path: Path, model: RecordingEmbeddings) -> None:
    async with store_with(path, model, dimensions=7) as store:
        with pytest.raises(EmbeddingError, match="7 were expected"):
            await store.put(NS, "a", "apple")


async def test_other_fields_reuse_the_vectors_that_are_there(
    path: Path, model: RecordingEmbeddings
) -> None:
    async with store_with(path, model, fields=["title"]) as store:
        await store.put(NS, "a", {"title": "apple", "body": "red"})
        await store.put(NS, "b", {"title": "banana", "body": "yellow"}, index=["body"])
    async with store_with(path, model, fields=["title", "body"]) as store:
        with pytest.raises(IndexMismatchError, match="fields"):
            await store.search(NS, "red")
        assert await store.search(NS, "red", mode="text") == []
        await store.reindex()
        assert found(await store.search(NS, "red", limit=1)) == ["a"]
        assert found(await store.search(NS, "red", mode="text")) == ["a"]
        assert await store.search(NS, "banana", mode="text") == []
        assert sorted(model.texts) == ["apple", "red", "yellow"]
        assert (await store.check()).ok


async def test_reindex_goes_on_where_it_was(path: Path, model: RecordingEmbeddings) -> None:
    async with SQLiteStore(path) as store:
        await store.put_many(NS, {f"k{at:03}": f"text {at}" for at in range(300)})
    model.poison = "text 200"
    async with store_with(path, model) as store:
        with pytest.raises(EmbeddingError):
            await store.reindex()
        done = len(model.texts)
        assert 100 < done < 300
        with pytest.raises(IndexMismatchError):
            await store.search(NS, "text")
    model.poison = None
    before = model.texts
    async with store_with(path, model) as store:
        assert await store.reindex() < 200
        assert len(model.texts) < len(before) + 200
        assert len(await store.search(NS, "text", limit=400)) == 300


async def test_reindex_while_the_store_is_in_use(path: Path, model: RecordingEmbeddings) -> None:
    async with SQLiteStore(path) as store:
        await store.put_many(NS, {f"k{at:03}": f"text {at}" for at in range(300)})
    async with store_with(path, model) as store:
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


async def test_a_file_that_a_backup_made_has_its_index(
    path: Path, model: RecordingEmbeddings
) -> None:
    async with store_with(path, model) as store:
        await store.put_many(NS, {f"k{at}": f"text {at}" for at in range(50)})
        await store.vacuum()
        await store.backup(path.with_name("copy.db"))
    async with store_with(path.with_name("copy.db"), model) as store:
        assert found(await store.search(NS, "text 7", limit=1)) == ["k7"]
        assert (await store.check()).ok


async def test_what_is_imported_is_indexed(path: Path, model: RecordingEmbeddings) -> None:
    async with store_with(path, model) as store:
        await store.put_many(NS, {f"k{at}": f"text {at}" for at in range(50)})
        await store.export_items(path.with_suffix(".jsonl"))
        await store.remove(NS, "k1*")
        await store.put(NS, "k2", "changed")
        before = len(model.texts)
        await store.import_items(path.with_suffix(".jsonl"))
        assert len(model.texts) - before == 12
        assert len(await store.search(NS, "text", limit=100)) == 50
        assert found(await store.search(NS, "text 2", limit=1)) == ["k2"]
        assert await store.search(NS, "changed", mode="text") == []
        assert (await store.check()).ok


async def test_check_finds_what_is_wrong_with_an_index(
    path: Path, model: RecordingEmbeddings
) -> None:
    async with store_with(path, model) as store:
        await store.put_many(NS, {"a": "apple", "b": "banana", "c": "cherry"})
    connection = driver.connect(f"file:{path}")
    connection.execute("DROP TRIGGER items_dropped")
    connection.execute("DELETE FROM items WHERE key = 'a'")
    connection.execute("UPDATE index_entries SET slots = zeroblob(16) WHERE item = 2")
    connection.execute("DELETE FROM words WHERE rowid = 3")
    connection.close()
    async with store_with(path, model) as store:
        problems = (await store.check()).problems
    assert len(problems) == 6 - 1, problems


async def test_foreign_writes_are_seen_at_once(path: Path, model: RecordingEmbeddings) -> None:
    """The cache serves nothing that another store of the same file has changed."""
    async with store_with(path, model) as one, store_with(path, model) as other:
        await one.put_many(NS, {f"k{at:04}": f"text {at}" for at in range(3000)})
        for _ in range(3):
            assert found(await one.search(NS, "text 77", limit=1)) == ["k0077"]
        assert one._cache is not None
        assert one._cache._held
        await other.put(NS, "k0077", "changed")
        await other.put(NS, "new", "text 77")
        assert found(await one.search(NS, "text 77", limit=1)) == ["new"]
        await one.put(NS, "own", "something")
        await other.delete(NS, "new")
        for _ in range(3):
            assert found(await one.search(NS, "text 77", limit=1)) != ["new"]
            assert found(await one.search(NS, "something", limit=1)) == ["own"]
            await one.put(NS, "own", "something")


async def test_own_writes_go_into_the_cache(path: Path, model: RecordingEmbeddings) -> None:
    async with store_with(path, model) as store:
        await store.put_many(NS, {f"k{at:04}": f"text {at}" for at in range(3000)})
        for _ in range(3):
            await store.search(NS, "text 1")
        assert store._cache is not None
        (held,) = store._cache._held.values()
        for at in range(100):
            await store.put(NS, f"k{at:04}", f"changed {at}")
            await store.put(NS, f"n{at:04}", f"new {at}")
            await store.delete(NS, f"k{at + 1000:04}")
            assert found(await store.search(NS, f"new {at}", limit=1)) == [f"n{at:04}"]
            assert found(await store.search(NS, f"changed {at}", limit=1)) == [f"k{at:04}"]
            assert found(await store.search(NS, f"text {at + 1000}", limit=1)) != [f"k{at + 1000}"]
        assert list(store._cache._held.values()) == [held]
        assert held.count == 3000


async def test_without_extensions_words_are_searched_and_vectors_kept_true(
    path: Path, model: RecordingEmbeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with store_with(path, model) as store:
        await store.put_many(NS, {"a": "apple", "b": "banana", "c": "cherry"})
    with monkeypatch.context() as patch:
        patch.setattr(driver, "CAN_LOAD_EXTENSIONS", False)
        with pytest.raises(MissingDependencyError, match="pip install"):
            await store_with(path, model).open()
        async with SQLiteStore(path, index=IndexConfig()) as store:
            await store.put(NS, "a", "avocado")
            await store.delete(NS, "b")
            await store.put(NS, "d", "date")
            assert sorted(found(await store.search(NS, "avocado date", mode="text"))) == ["a", "d"]
            assert (await store.check()).ok
    async with store_with(path, model) as store:
        for _ in range(2):
            assert found(await store.search(NS, "apple banana")) == ["c"]
            assert (await store.check()).ok
            await store.put(NS, "c", "cherry")
        assert await store.reindex() == 2
        assert sorted(found(await store.search(NS, "apple"))) == ["a", "c", "d"]
        assert (await store.check()).ok


@pytest.mark.slow
def test_with_an_old_sqlite_words_are_searched(tmp_path: Path) -> None:
    """The stock sqlite3, which may be old and load no extensions; pysqlite3 is hidden from it."""
    program = dedent(
        """
        import asyncio, sys
        sys.modules["pysqlite3"] = None
        from kvstore import IndexConfig, SQLiteStore

        async def main():
            async with SQLiteStore(sys.argv[1], index=IndexConfig()) as store:
                await store.put(("n",), "a", "apple")
                await store.put(("n",), "b", "pear")
                await store.put(("n",), "a", "avocado")
                await store.delete(("n",), "b")
                assert await store.search(("n",), "apple pear") == []
                assert len(await store.search(("n",), "avocados")) == 1
                assert (await store.check()).ok

        asyncio.run(main())
        """
    )
    path = str(tmp_path / "store.db")
    subprocess.run([sys.executable, "-W", "error", "-c", program, path], check=True)
