"""An index whose words another version has made is noticed, and made anew."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from kvstore import IndexConfig, IndexMismatchError, SQLiteStore
from kvstore.sqlite import driver
from kvstore.testing_search import RecordingEmbeddings, found

NS = ("notes",)
needs_vectors = pytest.mark.skipif(
    not driver.CAN_LOAD_EXTENSIONS, reason="this SQLite loads no extensions"
)


def make_older(path: Path) -> None:
    """Make the index what it was before words were made in Python."""
    connection = driver.connect(str(path))
    text = connection.execute("SELECT value FROM meta WHERE name = 'index'").fetchone()[0]
    known = orjson.loads(text)
    del known["words"]
    connection.execute(
        "UPDATE meta SET value = ? WHERE name = 'index'", (orjson.dumps(known).decode(),)
    )
    connection.execute("DROP TABLE words")
    connection.execute("""
CREATE VIRTUAL TABLE words USING fts5(
    text, namespaces,
    tokenize = "porter unicode61 remove_diacritics 2 categories 'L* N* M* Co'"
)
""")
    connection.execute("INSERT INTO words (rowid, text) SELECT id, value FROM items")
    connection.execute("UPDATE index_entries SET words = x'', length = 0")
    connection.execute("UPDATE index_roots SET length = 0")
    connection.commit()
    connection.close()


@needs_vectors
async def test_older_words_are_made_anew_and_vectors_kept(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    model = RecordingEmbeddings()
    async with SQLiteStore(path, index=IndexConfig(model)) as store:
        await store.put_many(NS, {f"k{at}": f"text {at}" for at in range(20)})
        before = await store.search(NS, "text 7", mode="hybrid")
    make_older(path)
    async with SQLiteStore(path, index=IndexConfig(model)) as store:
        assert found(await store.search(NS, "text 7", mode="semantic", limit=1)) == ["k7"]
        by_meaning = await store.search(NS, "text 7", mode="semantic")
        assert await store.search(NS, "text 7") == by_meaning  # what was searched is still
        for mode in ("text", "hybrid"):
            with pytest.raises(IndexMismatchError, match=r"store\.reindex\(\)"):
                await store.search(NS, "text 7", mode=mode)
        await store.delete(NS, "k19")
        await store.put(NS, "k19", "text 19")
        asked = len(model.texts)
        await store.reindex()
        assert len(model.texts) == asked
        after = await store.search(NS, "text 7", mode="hybrid")
        assert [(item.key, item.score) for item in after] == [
            (item.key, item.score) for item in before
        ]
        assert (await store.check()).ok


async def test_a_store_without_an_index_writes_on(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with SQLiteStore(path, index=IndexConfig()) as store:
        await store.put(NS, "old", "apple")
    make_older(path)
    async with SQLiteStore(path) as store:
        await store.put(NS, "new", "banana")
        await store.delete(NS, "old")
        assert (await store.check()).ok
    async with SQLiteStore(path, index=IndexConfig()) as store:
        assert await store.reindex() == 1
        assert found(await store.search(NS, "banana", mode="text")) == ["new"]
        assert (await store.check()).ok


async def test_the_words_of_each_root_are_counted_in_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with SQLiteStore(path, index=IndexConfig()) as store:
        for root in ((), ("ann",), ("ann", "notes"), ("bob",)):
            await store.put_many(root, {f"k{at}": "red tea" * at for at in range(5)})
        before = [await store.search(at, "red", mode="text") for at in [(), ("ann",), ("bob",)]]
    connection = driver.connect(str(path))
    entries, words = connection.execute(
        "SELECT sum(items), sum(length) FROM index_roots"
    ).fetchone()
    connection.execute("DROP TABLE index_roots")
    connection.execute("INSERT INTO meta VALUES ('index_items', ?)", (entries,))
    connection.execute("INSERT INTO meta VALUES ('index_length', ?)", (words,))
    connection.execute("PRAGMA user_version = 8")
    connection.commit()
    connection.close()
    async with SQLiteStore(path, index=IndexConfig()) as store:
        after = [await store.search(at, "red", mode="text") for at in [(), ("ann",), ("bob",)]]
        assert (await store.check()).problems == ()
    assert after == before
