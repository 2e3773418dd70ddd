"""Declared filters find what the same filters find without, and cost by what they find."""

from __future__ import annotations

import io
import logging
import random
from pathlib import Path
from typing import Any

import pytest

from kvstore import IndexConfig, InMemoryStore, InvalidArgumentError, SQLiteStore
from kvstore.filters import Filter, matches, parse_filter
from kvstore.paths import parse_path
from kvstore.sqlite import declared, driver, filter_statements, statements
from kvstore.sqlite.connection import connect
from kvstore.sqlite.filters import CAN_DECLARE
from kvstore.testing import ManualClock

NS = ("notes",)
PATHS = ("status", "user.id", "tags[*]", "list[0]")
DECLARED = IndexConfig(fields=(), filters=PATHS)
needs_exact_json = pytest.mark.skipif(not CAN_DECLARE, reason="this SQLite reads numbers inexactly")

SCALARS: list[Any] = [
    *(None, True, False, 0, 1, 1.0, 1.5, 0.1, -2, 2**53, 2**53 + 1, 2**63, 2**64 - 1, 1e300),
    *("", "a", "1", "open", "b\0c", "\uffff", [], ["a"], {}, {"id": 1}, b"a"),
]
FILTERS: list[dict[str, Any]] = [
    *({"status": {"$eq": each}} for each in SCALARS),
    *({"user.id": {"$eq": each}} for each in SCALARS),
    *({"tags": {"$contains": each}} for each in SCALARS),
    *(
        {"status": {operator: each}}
        for operator in ("$gt", "$gte", "$lt", "$lte")
        for each in (*SCALARS, 0.1 + 1e-16)
    ),
    {"status": {"$in": SCALARS}},
    {"user.id": {"$in": []}},
    {"user.id": {"$in": [1, "a", None]}},
    {"status": {"$nin": [1, "a"]}},
    {"status": {"$exists": True}},
    {"status": {"$exists": False}},
    {"status": {"$gte": 0, "$lt": 2}},
    {"status": {"$gt": "a", "$lte": 5}},
    {"status": {"$gte": "a", "$lt": "p"}, "user.id": {"$exists": True}},
    {"$or": [{"status": "open"}, {"user.id": 1}, {"list[0]": 1}]},
    {"$or": [{"status": "open"}, {"other": 1}]},
    {"$and": [{"status": "open"}, {"$not": {"user.id": 1}}]},
]


def value(chance: random.Random) -> dict[str, Any]:
    found: dict[str, Any] = {"other": chance.randrange(3)}
    if chance.random() < 0.8:
        found["status"] = chance.choice(SCALARS)
    if chance.random() < 0.8:
        found["user"] = chance.choice([{"id": chance.choice(SCALARS)}, "a", None, [1]])
    if chance.random() < 0.8:
        found["tags"] = chance.choice([chance.choices(SCALARS, k=3), "abc", "open", 1])
        found["list"] = chance.choices(SCALARS, k=2)
    if chance.random() < 0.1:
        found["status\0odd"] = "a"
    return found


async def test_they_find_what_is_found_without_through_any_history(tmp_path: Path) -> None:
    chance, clock = random.Random(11), ManualClock()
    options: dict[str, Any] = {"clock": clock, "sweep_interval": None}
    path = tmp_path / "store.db"
    async with (
        SQLiteStore(path, index=DECLARED, **options) as store,
        SQLiteStore(path, **options) as other,
        InMemoryStore(index=DECLARED, **options) as memory,
        InMemoryStore(**options) as oracle,
    ):
        for turn in range(6):
            writer = (store, other)[turn % 2]
            changed = {f"k{chance.randrange(150):03}": value(chance) for _ in range(80)}
            for each in (writer, memory, oracle):
                await each.put_many((*NS, "below"), dict(list(changed.items())[:9]))
                await each.put_many(NS, changed, ttl=5 if turn == 2 else None)
                await each.delete_many(NS, [f"k{turn * 7 + at:03}" for at in range(7)])
                await each.remove(NS, f"k{turn}?5")
                await each.update(NS, "k001", lambda _: {"status": "open"})
            clock.advance(3)
            if turn == 4:
                file = io.BytesIO()
                await oracle.export_items(file)
                for each in (writer, memory, oracle):
                    file.seek(0)
                    await each.import_items(file)
                    await each.sweep()
            for spec in FILTERS:
                for subtree in (False, True):
                    asked: dict[str, Any] = {"filter": spec, "limit": 500, "subtree": subtree}
                    expected = await oracle.search(NS, **asked)
                    for each in (store, other, memory):
                        found = await each.search(NS, **asked)
                        same = [(item.namespace, item.key, item.value) for item in found]
                        assert same == [(i.namespace, i.key, i.value) for i in expected], spec
            assert (await store.check()).ok


async def test_in_memory_they_look_at_what_may_pass_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with InMemoryStore(index=DECLARED) as store:
        await store.put_many(NS, {f"k{at}": {"status": at, "tags": ["a", at]} for at in range(500)})
        await store.put(NS, "k3", {"status": "three"})
        await store.search(NS, filter={"status": 1})
        looked = 0

        def count(node: Filter, value: object) -> bool:
            nonlocal looked
            looked += 1
            return matches(node, value)

        monkeypatch.setattr("kvstore.memory_rows.matches", count)
        for spec, expected in (
            ({"status": 7}, 1),
            ({"status": {"$in": [7, 8, 3]}}, 2),
            ({"status": {"$gte": 490}}, 10),
            ({"status": {"$gt": "a"}}, 1),
            ({"tags": {"$contains": 9}}, 1),
            ({"status": {"$lt": 200}, "tags": {"$contains": 9}}, 1),
        ):
            looked = 0
            assert len(await store.search(NS, filter=spec, limit=500)) == expected
            assert looked <= expected + 1


@needs_exact_json
async def test_a_large_file_gets_them_by_reindex_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "store.db"
    async with SQLiteStore(path) as store:
        await store.put_many(NS, {f"k{at}": {"status": at} for at in range(1500)})
    with caplog.at_level(logging.WARNING, "kvstore"):
        async with SQLiteStore(path, index=DECLARED) as store:
            assert "'status'" in caplog.text
            assert "reindex" in caplog.text
            assert [item.key for item in await store.search(NS, filter={"status": 7})] == ["k7"]
            assert await store.reindex() == 0
            await store.put(NS, "new", {"status": 7})
            found = await store.search(NS, filter={"status": 7})
            assert [item.key for item in found] == ["new", "k7"]
            assert (await store.check()).ok
    caplog.clear()
    async with SQLiteStore(path, index=DECLARED):
        assert not caplog.text
    connection = connect(path, "rw")
    connection.execute("DELETE FROM filter_scalars WHERE scalar = 7")
    connection.close()
    async with SQLiteStore(path) as store:
        assert "'status'" in str((await store.check()).problems)


@needs_exact_json
async def test_what_is_looked_up_is_a_range_of_the_entries(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with SQLiteStore(path, index=DECLARED) as store:
        await store.put(NS, "k", {"status": 1})
    connection = connect(path, "ro")
    known = declared.built(connection)
    assert set(known) == set(map(parse_path, PATHS))
    sure: list[dict[str, Any]] = [
        {"status": "open"},
        {"status": {"$in": ["a", 1, None]}},
        {"status": {"$gte": 1, "$lt": 5}},
        {"tags": {"$contains": "a"}},
        {"$or": [{"status": 1}, {"user.id": {"$gt": "a"}}]},
        {"other": 1, "status": "open"},
    ]
    for spec in sure:
        within = statements.within_each("notes\t", subtree=False)
        among = filter_statements.candidates(parse_filter(spec), known, within)
        assert among is not None
        plan = connection.execute(f"EXPLAIN QUERY PLAN {among.text}", among.params).fetchall()
        looks = [row[3] for row in plan if "filter_scalars" in row[3]]
        assert looks
        assert all("field=? AND path=? AND scalar" in look for look in looks), (spec, looks)
    others: list[dict[str, Any]] = [{"other": 1}, {"status": 2**63}, {"status": {"$nin": [1]}}]
    for spec in others:
        within = statements.within_each("notes\t", subtree=False)
        assert filter_statements.candidates(parse_filter(spec), known, within) is None
    connection.close()


async def test_no_index_of_words_is_made_where_no_field_is_named(tmp_path: Path) -> None:
    for store in (SQLiteStore(tmp_path / "s.db", index=DECLARED), InMemoryStore(index=DECLARED)):
        async with store:
            await store.put(NS, "k", {"status": "Hello"})
            assert [item.key for item in await store.search(NS, "hello")] == ["k"]
            with pytest.raises(InvalidArgumentError, match="index"):
                await store.search(NS, "hello", mode="text")
    with driver.connect(f"file:{tmp_path / 's.db'}") as connection:
        tables = connection.execute("SELECT name FROM sqlite_schema").fetchall()
    assert ("words",) not in tables


def test_what_is_no_path_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="list of paths"):
        IndexConfig(filters="status")  # type: ignore[arg-type]
    for wrong in ("$", "a..b", "a[", 1):
        with pytest.raises(InvalidArgumentError):
            InMemoryStore(index=IndexConfig(filters=(wrong,)))  # type: ignore[arg-type]


@needs_exact_json
async def test_an_older_file_gets_its_triggers_made_anew(tmp_path: Path) -> None:
    index = IndexConfig(fields=(), filters=("status", "tags[*]"))
    path = tmp_path / "store.db"
    async with SQLiteStore(path, index=index) as store:
        await store.put_many(NS, {f"k{at}": {"status": at, "tags": [at, "a"]} for at in range(9)})
    made = triggers_of(path)
    assert len(made) == 6
    with driver.connect(f"file:{path}") as connection:
        for name in made:
            connection.execute(f"DROP TRIGGER {name}")
        connection.executescript((Path(__file__).parent / "older_filters.sql").read_text())
    assert all(text != made[name] for name, text in triggers_of(path).items())
    async with SQLiteStore(path) as store:  # declares nothing, and leaves them: they do their work
        await store.put(NS, "k1", {"status": 7, "tags": ["b"]})
        assert (await store.check()).ok
    assert triggers_of(path).keys() == made.keys()
    async with SQLiteStore(path, index=index) as store:
        assert triggers_of(path) == made
        await store.put(NS, "k2", {"status": 7, "tags": "b"})
        found = await store.search(NS, filter={"status": 7})
        assert {item.key for item in found} == {"k1", "k2", "k7"}
        assert (await store.check()).ok


def triggers_of(path: Path) -> dict[str, str]:
    with driver.connect(f"file:{path}?mode=ro") as connection:
        return dict(connection.execute(filter_statements.GET_TRIGGERS))


@needs_exact_json
@pytest.mark.parametrize("cache", [0, 2**20])
async def test_searches_by_meaning_find_the_same_by_them(tmp_path: Path, cache: int) -> None:
    """What is told by the entries alone may have some more, and those are looked at again."""
    chance = random.Random(7)
    values = {f"k{at:03}": value(chance) for at in range(300)}

    async def embed(texts: list[str]) -> list[list[float]]:
        return [[1.0, len(text) / 100] for text in texts]

    index = IndexConfig(embed, filters=PATHS, model_id="lengths")
    async with (
        SQLiteStore(tmp_path / "store.db", index=index, vector_cache_bytes=cache) as store,
        InMemoryStore(index=IndexConfig(embed)) as oracle,
    ):
        for each in (store, oracle):
            await each.put_many(NS, values)
        for spec in FILTERS:
            for _ in range(2):
                found = await store.search(NS, "a", mode="semantic", filter=spec, limit=20)
                exact = await oracle.search(NS, "a", mode="semantic", filter=spec, limit=20)
                assert [item.key for item in found] == [item.key for item in exact], spec


@needs_exact_json
@pytest.mark.parametrize(
    ("spec", "is_told"),
    [
        ({"status": "open"}, True),
        ({"status": {"$gte": 1, "$lt": 5}}, True),
        ({"$or": [{"status": 1}, {"user.id": {"$in": [1, 2]}}]}, True),
        ({"status": {"$gte": 1}, "user.id": 1}, False),
        ({"tags": {"$contains": "a"}}, False),  # any text may
        ({"status": {"$gt": True}}, False),
    ],
)
async def test_what_is_told_by_the_entries_alone(spec: dict[str, Any], is_told: bool) -> None:
    known = {parse_path(name): at for at, name in enumerate(PATHS)}
    assert filter_statements.is_told(parse_filter(spec), known) is is_told
