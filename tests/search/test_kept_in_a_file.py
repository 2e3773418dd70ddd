"""What is SQLite's own of the index: its file, its cache, its drivers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from kvstore import (
    IndexConfig,
    MissingDependencyError,
    SQLiteStore,
)
from kvstore.sqlite import driver
from kvstore.testing_search import RecordingEmbeddings, found

NS = ("notes",)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def store_with(path: Path, model: Any, **config: Any) -> SQLiteStore:
    return SQLiteStore(path, index=IndexConfig(model, **config))


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
        assert one.backend._cache is not None
        assert one.backend._cache._held
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
        assert store.backend._cache is not None
        (held,) = store.backend._cache._held.values()
        for at in range(100):
            await store.put(NS, f"k{at:04}", f"changed {at}")
            await store.put(NS, f"n{at:04}", f"new {at}")
            await store.delete(NS, f"k{at + 1000:04}")
            assert found(await store.search(NS, f"new {at}", limit=1)) == [f"n{at:04}"]
            assert found(await store.search(NS, f"changed {at}", limit=1)) == [f"k{at:04}"]
            assert found(await store.search(NS, f"text {at + 1000}", limit=1)) != [f"k{at + 1000}"]
        assert list(store.backend._cache._held.values()) == [held]
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


async def test_a_put_that_needs_vectors_begins_one_transaction(
    path: Path, model: RecordingEmbeddings
) -> None:
    async with store_with(path, model) as store:
        await store.put(NS, "k", "apple")
        await store.put(NS, "k", "apple")
        await store.put(NS, "k", "banana")
        await store.put_many(NS, {f"k{at}": f"text {at}" for at in range(300)})
        assert store.metrics().units == store.metrics().commits == 4
        calls = [store.put(NS, f"other{at}", f"text {at + 1000}") for at in range(100)]
        await asyncio.gather(*calls)
        assert store.metrics().units == 104
        await store.put(NS, "k0", "text 0")  # nothing of it is new
        assert store.metrics().units == 105
        assert sorted(model.texts) == sorted(set(model.texts))
        assert found(await store.search(NS, "text 1077", limit=1)) == ["other77"]


async def test_what_another_store_has_changed_meanwhile_is_embedded_all_the_same(
    path: Path, model: RecordingEmbeddings
) -> None:
    async with store_with(path, model) as one, store_with(path, model) as other:
        await one.put(NS, "k", "apple")
        await other.put(NS, "k", "banana")
        await one.put(NS, "k", "apple")  # it has not heard that the vector is gone
        assert found(await other.search(NS, "apple", limit=1, min_score=0.99)) == ["k"]
        await other.delete(NS, "k")
        await one.put(NS, "k", "apple")
        assert found(await other.search(NS, "apple", limit=1, min_score=0.99)) == ["k"]
        assert (await one.check()).ok
