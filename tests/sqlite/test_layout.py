"""A file whose schema is not what the migrations make is refused; tables of others are let be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import IndexConfig, SchemaError
from kvstore.embeddings import HashingEmbeddings
from kvstore.sqlite import driver

NS = ("a",)
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c"
EMBEDDED = IndexConfig(HashingEmbeddings() if driver.CAN_LOAD_EXTENSIONS else None)

HOSTILE = {
    "view for a table": f"""
        CREATE TABLE kept AS SELECT * FROM items; DROP TABLE items;
        CREATE VIEW items AS SELECT x AS id, 'a' || char(9) AS path, 'k' AS key, 1 AS version,
            1 AS created_at, 1 AS updated_at, NULL AS expires_at, NULL AS ttl, NULL AS indexing,
            0 AS checksum, '1' AS value FROM ({ENDLESS}) WHERE x < 0""",
    "view beside": "CREATE VIEW open_items AS SELECT * FROM items",
    "endless trigger": f"""
        CREATE TRIGGER t AFTER INSERT ON items
        BEGIN SELECT count(*) FROM ({ENDLESS}); END""",
    "deleting trigger": """
        CREATE TRIGGER t AFTER INSERT ON items
        BEGIN DELETE FROM items WHERE path <> new.path; END""",
    "trigger on a table of another's": """
        CREATE TABLE notes (text);
        CREATE TRIGGER t AFTER INSERT ON notes BEGIN DELETE FROM items; END""",
    "trigger by our name": """
        DROP TRIGGER items_dropped;
        CREATE TRIGGER items_dropped AFTER DELETE ON items BEGIN DELETE FROM items; END""",
    "column added": "ALTER TABLE items ADD COLUMN colour TEXT",
    "column of an expression": "ALTER TABLE items ADD COLUMN n AS (length(hex(value)))",
    "column renamed": "ALTER TABLE items RENAME COLUMN ttl TO lifetime",
    "column dropped": "DROP INDEX items_expiry; ALTER TABLE items DROP COLUMN expires_at",
    "index of an expression": "CREATE INDEX i ON items (hex(zeroblob(length(value) * 100000)))",
    "index of a column": "CREATE UNIQUE INDEX i ON items (path)",
    "index dropped": "DROP INDEX items_expiry",
    "index by our name": "DROP INDEX items_expiry; CREATE INDEX items_expiry ON items (path)",
    "table dropped": "DROP TABLE meta",
    "table made anew": "DROP TABLE meta; CREATE TABLE meta (name, value)",
    "virtual table for a table": """
        DROP TABLE meta; CREATE VIRTUAL TABLE meta USING fts5(name, value)""",
    "table of an extension": "ALTER TABLE words_docsize ADD COLUMN n AS (hex(sz))",
    "index on a table of an extension": "CREATE INDEX i ON words_docsize (hex(sz))",
    "schema version lost": "PRAGMA user_version = 0",
    "earlier schema version": "PRAGMA user_version = 1",
}


async def make(path: Path, index: IndexConfig | None = EMBEDDED) -> None:
    async with kvstore.open(path, index=index) as store:
        await store.put(NS, "k", "some words")


def change(path: Path, script: str) -> None:
    connection = driver.connect(f"file:{path}?mode=rw")
    connection.executescript(script)
    connection.close()


@pytest.mark.parametrize("what", HOSTILE)
async def test_what_others_hung_on_our_tables_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "store.db"
    await make(path)
    change(path, HOSTILE[what])
    before = path.read_bytes()
    with pytest.raises(SchemaError, match="cannot be used: its"):
        await kvstore.open(path).open()
    with pytest.raises(SchemaError, match="cannot be used: its"):
        kvstore.KeyValueStore(path).list_keys()
    assert path.read_bytes() == before


@pytest.mark.parametrize("what", HOSTILE)
async def test_check_tells_what_came_after_the_opening(tmp_path: Path, what: str) -> None:
    path = tmp_path / "store.db"
    async with kvstore.open(path, index=EMBEDDED, sweep_interval=None) as store:
        await store.put(NS, "k", "some words")
        change(path, HOSTILE[what])
        began = time.monotonic()
        async with asyncio.timeout(60):
            report = await store.check()
        assert time.monotonic() - began < 30
    assert not report.ok
    assert any(problem.startswith("schema: its ") for problem in report.problems)


OTHERS = """
    CREATE TABLE checkpoints (thread_id TEXT NOT NULL, checkpoint BLOB, PRIMARY KEY (thread_id));
    CREATE TABLE writes (thread_id TEXT, value BLOB, n AS (length(value)));
    CREATE INDEX writes_by_length ON writes (length(value));
    CREATE VIRTUAL TABLE notes USING fts5(text);
    INSERT INTO writes VALUES ('t', 'abc');
    ANALYZE;
"""


@pytest.mark.parametrize("index", [None, IndexConfig(), EMBEDDED], ids=["none", "words", "both"])
async def test_tables_of_others_are_let_be(tmp_path: Path, index: IndexConfig | None) -> None:
    path = tmp_path / "store.db"
    await make(path, index)
    change(path, OTHERS)
    async with kvstore.open(path, index=index) as store:
        await store.put(NS, "n", 2)
        await store.vacuum()
        assert (await store.check()).ok


async def test_comments_and_spaces_are_no_difference(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await make(path)
    change(
        path,
        """
        DROP TABLE index_writes;
        CREATE TABLE index_writes (path TEXT PRIMARY KEY, /* of a namespace */ writes
            INTEGER NOT NULL) -- how many
        WITHOUT ROWID
        """,
    )
    await make(path)


@pytest.mark.parametrize("inline", ["get", "get_many", "put", "search"])
async def test_nothing_runs_for_ever_on_the_loop(tmp_path: Path, inline: str) -> None:
    """A trigger or view that comes after the opening stalls its own call, and no other."""
    path = tmp_path / "store.db"
    store = await kvstore.open(path, sweep_interval=None).open()
    await store.put(NS, "k", 1)
    await store.get(NS, "k")
    what = "endless trigger" if inline == "put" else "view for a table"
    change(path, HOSTILE[what])
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "get": lambda: store.get(NS, "k"),
        "get_many": lambda: store.get_many(NS, ["k", "l"]),
        "put": lambda: store.put(NS, "l", 1),
        "search": lambda: store.search(NS),
    }
    with pytest.raises((TimeoutError, kvstore.StoreError)):
        async with asyncio.timeout(0.5):
            await calls[inline]()
    backend: Any = store.backend
    for connection in (backend._points.raw, backend._scans.raw, backend._writer.raw):
        connection.interrupt()
    await store.close()
