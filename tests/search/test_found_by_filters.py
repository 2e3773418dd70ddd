"""What passes a filter is remembered, and stays true whatever is written meanwhile."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from kvstore import IndexConfig, InMemoryStore, SQLiteStore
from kvstore.filters import parse_filter
from kvstore.sql import all_of
from kvstore.sqlite import driver, index_statements, statements
from kvstore.sqlite.connection import connect
from kvstore.sqlite.filters import CAN_DECLARE, compile_filter
from kvstore.sqlite.passing import PassingItems
from kvstore.testing import ManualClock
from kvstore.testing_search import RecordingEmbeddings, cosine

NS = ("notes",)
pytestmark = pytest.mark.skipif(
    not driver.CAN_LOAD_EXTENSIONS, reason="this SQLite loads no extensions"
)

needs_exact_json = pytest.mark.skipif(not CAN_DECLARE, reason="this SQLite reads numbers inexactly")


@pytest.mark.parametrize("cache", [0, 2**24], ids=["vec0", "cache"])
@pytest.mark.parametrize("fields", [("text",), ("text", "more[*]")], ids=["one vector", "several"])
@pytest.mark.slow
async def test_filters_stay_true_through_any_history(
    tmp_path: Path, cache: int, fields: tuple[str, ...]
) -> None:
    """Two stores of one file write; one searches with the same filters over and over."""
    model, clock, chance = RecordingEmbeddings(), ManualClock(), random.Random(7)
    index = IndexConfig(model, fields=fields)
    options: dict[str, Any] = {"clock": clock, "sweep_interval": None}
    path = tmp_path / "store.db"

    def value(at: int) -> dict[str, Any]:
        more = [f"more {at} {n}" for n in range(at % 3)]
        return {"text": f"text {chance.randrange(5000)}", "n": chance.randrange(100), "more": more}

    async with (
        SQLiteStore(path, index=index, vector_cache_bytes=cache, **options) as store,
        SQLiteStore(path, index=index, **options) as other,
        InMemoryStore(index=index, **options) as oracle,
    ):
        first = {f"k{at:04}": value(at) for at in range(1500)}
        for each in (store, oracle):
            await each.put_many(NS, first)
        for turn in range(12):
            for n in (0, 3, 60, 97, 100):
                asked: dict[str, Any] = {"filter": {"n": {"$gte": n}}, "limit": 12}
                items = await store.search(NS, "query", **asked)
                exact = await oracle.search(NS, "query", **asked)
                assert [item.key for item in items] == [item.key for item in exact], (turn, n)
                assert [item.value for item in items] == [item.value for item in exact]
            writer = (store, other)[turn % 2]
            for _ in range(20):
                key = f"k{chance.randrange(1600):04}"
                changed = value(turn)
                for each in (writer, oracle):
                    match turn % 3:
                        case 0:
                            await each.put(NS, key, changed)
                        case 1:
                            await each.delete(NS, key)
                        case _:
                            await each.put(NS, key, changed, ttl=5)
            clock.advance(3)
            if turn % 4 == 3:
                for each in (writer, oracle):
                    await each.sweep()


@pytest.mark.parametrize("cache", [0, 2**24], ids=["vec0", "cache"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.6])
async def test_a_filter_whose_matches_are_the_farthest(
    tmp_path: Path, cache: int, share: float
) -> None:
    model, count = RecordingEmbeddings(), 1500
    query = model.vector("query")
    texts = sorted(
        (f"text {at}" for at in range(count)), key=lambda text: -cosine(query, model.vector(text))
    )
    index = IndexConfig(model, fields=("text",))
    path = tmp_path / "store.db"
    async with SQLiteStore(path, index=index, vector_cache_bytes=cache) as store:
        values = {f"k{at:04}": {"text": text, "far": at} for at, text in enumerate(texts)}
        await store.put_many(NS, dict(random.Random(3).sample(sorted(values.items()), count)))
        for _ in range(3):  # the third is answered from the cache, where there is one
            await store.search(NS, "query")
        first = int(count * (1 - share))
        for limit in (1, 12):
            for begin in (first, first + 1, first):
                asked = {"far": {"$gte": begin}}
                items = await store.search(NS, "query", filter=asked, limit=limit)
                assert [item.value["far"] for item in items] == list(range(begin, begin + limit))


@pytest.mark.parametrize("cache", [0, 2**24], ids=["vec0", "cache"])
async def test_without_a_filter_no_value_is_asked(tmp_path: Path, cache: int) -> None:
    path, index = tmp_path / "store.db", IndexConfig(RecordingEmbeddings())
    async with SQLiteStore(path, index=index, vector_cache_bytes=cache) as store:
        await store.put_many(NS, {f"k{at}": f"text {at}" for at in range(1500)})
        asked: list[str] = []
        for _ in range(3):
            store.backend._scans.raw.set_trace_callback(asked.append)
            assert len(await store.search(NS, "query", mode="semantic", limit=20)) == 20
    assert [sql for sql in asked if "items" in sql]
    by_ids = ("FROM json_each", "id IN (SELECT value FROM json_each")
    assert not [sql for sql in asked if "items" in sql and not any(map(sql.__contains__, by_ids))]


@needs_exact_json
async def test_declared_filters_name_those_that_are_asked(tmp_path: Path) -> None:
    index = IndexConfig(RecordingEmbeddings(), fields=("text",), filters=("n",))
    path = tmp_path / "store.db"
    async with (
        SQLiteStore(path, index=index, vector_cache_bytes=0) as store,
        InMemoryStore(index=index) as oracle,
    ):
        values = {
            f"k{at:04}": {"text": f"text {at}", "n": at % 50, "m": at % 7} for at in range(1500)
        }
        for each in (store, oracle):
            await each.put_many(NS, values)
        asked: list[str] = []
        store.backend._scans.raw.set_trace_callback(asked.append)
        for filter in ({"n": 3}, {"n": {"$gte": 48}, "m": 2}, {"n": {"$lt": 10}}, {"m": 2}):
            for _ in range(3):
                items = await store.search(NS, "query", filter=filter, limit=12)
                exact = await oracle.search(NS, "query", filter=filter, limit=12)
                assert [item.key for item in items] == [item.key for item in exact]
    passes = [sql for sql in asked if "json_group_array(i" in sql]
    by_entries = ["filter_scalars" in sql for sql in passes]
    by_items = ["FROM items" in sql for sql in passes]
    assert list(zip(by_entries, by_items, strict=True)) == [
        *((True, False), (True, True), (True, False), (False, True))
    ]


async def test_only_what_was_written_since_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with SQLiteStore(path) as store:
        await store.put_many(NS, {f"k{at}": {"n": at} for at in range(100)})
        connection = connect(path, "ro")
        passing = PassingItems()
        condition = compile_filter(parse_filter({"n": {"$gte": 90}}))
        asked: list[str] = []

        def ids() -> list[int]:
            connection.set_trace_callback(asked.append)
            connection.execute("BEGIN")
            found = sorted(passing.ids(connection, "notes\t", False, condition))
            connection.execute("COMMIT")
            connection.set_trace_callback(None)
            return found

        assert not passing.knows("notes\t", False, condition)
        assert ids() == list(range(91, 101))
        assert passing.knows("notes\t", False, condition)
        assert len([sql for sql in asked if "FROM items" in sql]) == 1
        assert ids() == list(range(91, 101))
        assert len([sql for sql in asked if "FROM items" in sql]) == 1  # nothing was written
        await store.put(NS, "k5", {"n": 95})
        await store.put(NS, "k95", {"n": 5})
        assert ids() == [6, *range(91, 96), *range(97, 101)]
        assert "version > " in asked[-2]
        connection.close()


async def test_candidates_are_looked_up_by_their_ids(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with SQLiteStore(path):
        connection = connect(path, "ro")
        condition = all_of([statements.in_range("notes\t", False), statements.live(1)])
        statement = index_statements.select_among(condition)
        plan = connection.execute(
            f"EXPLAIN QUERY PLAN {statement.text}", ("[1]", *statement.params)
        ).fetchall()
        connection.close()
    assert any("SEARCH items USING INTEGER PRIMARY KEY" in row[3] for row in plan), plan
