"""What LangGraph's own SQLite store and saver have written comes over whole."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import kvstore
from tests.running import python

pytest.importorskip("langgraph.checkpoint.sqlite.aio")

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.store.sqlite.aio import AsyncSqliteStore

from kvstore.integrations.langgraph import (
    LangGraphCheckpointer,
    LangGraphStore,
    import_sqlite_saver,
    import_sqlite_store,
)
from tests.integrations.test_langgraph_checkpointer import TEXT, chat, say, thread, workflow

VALUES: dict[str, Any] = {
    "plain": {"text": "ü", "n": [1, 2.5, None, True]},
    "odd": {"$bytes": "no bytes"},
    "nested": {"a": {"$$bytes": {"b": "c"}}},
}


async def old_store(path: Path) -> None:
    async with AsyncSqliteStore.from_conn_string(str(path)) as store:
        await store.setup()
        for key, value in VALUES.items():
            await store.aput(("memories", "alice"), key, value)
        await store.aput(("memories",), "brief", {"n": 1}, ttl=60)
        await store.aput(("memories",), "over", {"n": 1}, ttl=60)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE store SET expires_at = '2020-01-01 00:00:00' WHERE key = 'over'")
    connection.execute("UPDATE store SET created_at = '2025-01-02 03:04:05' WHERE key = 'plain'")
    connection.commit()
    connection.close()


async def old_saver(path: Path) -> list[Any]:
    """Write a file as LangGraph does, and return what it holds."""
    async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
        for number in range(5):
            await chat(saver).ainvoke(say(f"{number} {TEXT}"), thread())
        await workflow(saver).ainvoke({"items": [TEXT]}, thread("waits"))
        return [found async for found in saver.alist(None)]


async def test_a_stores_items_with_their_times(tmp_path: Path) -> None:
    await old_store(tmp_path / "old.db")
    async with LangGraphStore.from_conn_string(str(tmp_path / "new.db")) as store:
        assert await import_sqlite_store(tmp_path / "old.db", tmp_path / "new.db") == 4
        found = {item.key: item for item in await store.asearch(("memories",), limit=100)}
    assert {key: found[key].value for key in VALUES} == VALUES
    assert set(found) == {*VALUES, "brief"}
    assert found["plain"].namespace == ("memories", "alice")
    assert found["plain"].created_at == datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
    async with kvstore.open(tmp_path / "new.db") as plain:
        brief = await plain.get(("memories",), "brief")
    assert brief is not None
    assert brief.expires_at is not None
    assert abs(brief.expires_at - brief.updated_at - timedelta(hours=1)) < timedelta(seconds=5)


async def test_a_file_from_before_there_were_lifetimes(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "old.db")
    connection.execute(
        "CREATE TABLE store (prefix text, key text, value text, created_at TIMESTAMP "
        "DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)"
    )
    connection.execute("INSERT INTO store (prefix, key, value) VALUES ('a.b', 'k', '{\"n\": 1}')")
    connection.commit()
    connection.close()
    async with kvstore.InMemoryStore() as store:
        assert await import_sqlite_store(tmp_path / "old.db", store) == 1
        item = await store.get(("a", "b"), "k")
        assert item is not None
        assert item.value == {"n": 1}


async def test_a_savers_checkpoints_and_writes(tmp_path: Path) -> None:
    old = await old_saver(tmp_path / "old.db")
    assert await import_sqlite_saver(tmp_path / "old.db", tmp_path / "new.db") == len(old)
    assert await import_sqlite_saver(tmp_path / "old.db", tmp_path / "new.db") == len(old)
    async with LangGraphCheckpointer(tmp_path / "new.db") as saver:
        assert [found async for found in saver.alist(None)] == old
        state = await chat(saver).ainvoke(say("more"), thread())
        assert len(state["messages"]) == 12
        waiting = (await workflow(saver).aget_state(thread("waits"))).interrupts
        assert [each.value for each in waiting] == [{"question": "go on?"}]
    async with kvstore.open(tmp_path / "empty.db"):
        pass
    new, before, empty = (
        (tmp_path / f"{name}.db").stat().st_size for name in ("new", "old", "empty")
    )
    assert new - empty < before  # the tables of what is not used here take some pages


async def test_the_command_brings_what_there_is(tmp_path: Path) -> None:
    await old_store(tmp_path / "old.db")
    number = len(await old_saver(tmp_path / "old.db"))

    def run(*words: str) -> tuple[int, str]:
        done = python("-m", "kvstore", "import", *words, cwd=tmp_path)
        return done.returncode, done.stderr

    told = f"4 items imported\n{number} checkpoints imported\n"
    assert await asyncio.to_thread(run, "--from-langgraph", "old.db", "new.db") == (0, told)
    code, told = await asyncio.to_thread(run, "--from-langgraph", "none.db", "new.db")
    assert code != 0
    assert "none.db is not there" in told
    code, told = await asyncio.to_thread(run, "--from-langgraph", "new.db", "other.db")
    assert code != 0
    assert "no table 'store'" in told


@pytest.mark.parametrize("write", [old_store, old_saver])
async def test_to_open_such_a_file_says_what_to_do(tmp_path: Path, write: Any) -> None:
    await write(tmp_path / "old.db")
    before = (tmp_path / "old.db").read_bytes()
    with pytest.raises(kvstore.SchemaError, match="--from-langgraph"):
        async with kvstore.open(tmp_path / "old.db"):
            pass
    assert (tmp_path / "old.db").read_bytes() == before
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE store (n)")
    connection.commit()
    connection.close()
    with pytest.raises(kvstore.SchemaError, match="name another file"):
        async with kvstore.open(tmp_path / "other.db"):
            pass


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        ("UPDATE store SET value = '{' WHERE key = 'odd'", "the item 'odd' of 'memories.alice'"),
        ("UPDATE store SET created_at = 'noon' WHERE key = 'odd'", "the item 'odd'"),
    ],
)
async def test_a_damaged_item_is_named_and_nothing_comes(
    tmp_path: Path, spoil: str, what: str
) -> None:
    await old_store(tmp_path / "old.db")
    connection = sqlite3.connect(tmp_path / "old.db")
    connection.execute(spoil)
    connection.commit()
    connection.close()
    async with kvstore.InMemoryStore() as store:
        with pytest.raises(kvstore.StoreCorruptError, match=what):
            await import_sqlite_store(tmp_path / "old.db", store)
        assert await store.count((), subtree=True) == 0


async def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    await old_saver(tmp_path / "old.db")
    connection = sqlite3.connect(tmp_path / "old.db")
    connection.execute("UPDATE checkpoints SET checkpoint = x'c1' WHERE thread_id = 't1'")
    connection.commit()
    connection.close()
    async with kvstore.InMemoryStore() as store:
        with pytest.raises(kvstore.StoreCorruptError, match="of the thread 't1'"):
            await import_sqlite_saver(tmp_path / "old.db", store)
