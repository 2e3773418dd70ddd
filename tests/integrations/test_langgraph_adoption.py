"""A file of LangGraph's own store goes on where it lies: changing the import is the migration."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import kvstore

pytest.importorskip("langgraph.checkpoint.sqlite.aio")

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.store.sqlite.aio import AsyncSqliteStore

from kvstore.integrations.langgraph import LangGraphStore
from kvstore.integrations.langgraph_import import begin_adoption
from kvstore.sqlite.guard import CAN_LOCK
from tests.integrations.test_langgraph_checkpointer import chat, say, thread
from tests.integrations.test_langgraph_import import VALUES, old_store


async def keys(path: Path) -> set[str]:
    async with LangGraphStore.from_conn_string(str(path)) as store:
        return {item.key for item in await store.asearch((), limit=100)}


async def test_it_goes_on_where_it_lies(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "agent.db"
    await old_store(path)
    async with LangGraphStore.from_conn_string(str(path)) as store:
        found = {item.key: item for item in await store.asearch(("memories",), limit=100)}
        assert {key: found[key].value for key in VALUES} == VALUES
        assert found["plain"].created_at.year == 2025
        await store.adelete(("memories", "alice"), "plain")
    assert "brought over its 4 items" in caplog.text
    assert await keys(path) == {*VALUES, "brief"} - {"plain"}  # once is enough
    assert caplog.text.count("brought over") == 1
    async with kvstore.open(path) as plain:
        assert (await plain.check()).ok
    async with AsyncSqliteStore.from_conn_string(str(path)) as theirs:  # nothing is taken away
        assert await theirs.aget(("memories", "alice"), "plain")


async def test_langgraphs_own_saver_goes_on_there(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    await old_store(path)
    async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
        await chat(saver).ainvoke(say("one"), thread())
        if CAN_LOCK:
            with pytest.raises(kvstore.StoreBusyError, match="close that first"):
                await keys(path)
    assert await keys(path) == {*VALUES, "brief"}
    async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
        for number in (4, 6):
            state = await chat(saver).ainvoke(say("two"), thread())
            assert len(state["messages"]) == number
            assert await keys(path) == {*VALUES, "brief"}


async def test_what_was_cut_short_is_made_up_for(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    await old_store(path)
    await begin_adoption(kvstore.SQLiteStore(path))
    async with kvstore.open(path) as store:  # ours, and still empty
        assert await store.count((), subtree=True) == 0
        await store.put(("memories", "alice"), "plain", {"new": 1})
    async with LangGraphStore.from_conn_string(str(path)) as again:
        item = await again.aget(("memories", "alice"), "plain")
        assert item is not None
        assert item.value == {"new": 1}
    assert await keys(path) == {*VALUES, "brief"}


async def test_a_damaged_row_is_named_until_it_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    await old_store(path)

    def write(value: str) -> None:
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE store SET value = ? WHERE key = 'odd'", (value,))
        connection.close()

    write("{no json")
    for _ in range(2):
        with pytest.raises(kvstore.StoreCorruptError, match="'odd'"):
            await keys(path)
    write('{"n": 1}')
    assert await keys(path) == {*VALUES, "brief"}


async def test_others_are_refused_and_left_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE store (a)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(kvstore.SchemaError, match="another program"):
        await keys(path)
    assert path.read_bytes() == before
    await old_store(tmp_path / "agent.db")
    before = (tmp_path / "agent.db").read_bytes()
    url = f"sqlite:///{tmp_path / 'agent.db'}?mode=ro"
    for opening in (LangGraphStore.from_conn_string(url), kvstore.open(tmp_path / "agent.db")):
        with pytest.raises(kvstore.SchemaError, match="--from-langgraph"):
            async with opening:
                pass
    assert (tmp_path / "agent.db").read_bytes() == before
    (tmp_path / "text.db").write_text("no database " * 100)
    with pytest.raises(kvstore.StoreCorruptError):
        await keys(tmp_path / "text.db")
    assert await keys(tmp_path / "new.db") == set()


PROGRAM = """
import asyncio, sys
from kvstore.integrations.langgraph import LangGraphStore
from kvstore.sqlite.guard import CAN_LOCK
async def main():
    async with LangGraphStore.from_conn_string(sys.argv[1]) as store:
        print(len(await store.asearch((), limit=1000)))
asyncio.run(main())
"""


@pytest.mark.slow
async def test_many_processes_begin_at_once(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    await old_store(path)

    def run() -> str:
        command = [sys.executable, "-c", PROGRAM, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert await asyncio.gather(*(asyncio.to_thread(run) for _ in range(4))) == ["4"] * 4
    async with kvstore.open(path) as store:
        assert await store.count((), subtree=True) == 4
        assert (await store.check()).ok
