"""What a search is ordered by: the same order in a file and in memory."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from kvstore import IndexConfig, InMemoryStore, InvalidArgumentError, SearchQuery, SQLiteStore
from kvstore.ordering import Order
from kvstore.sqlite import declared, reading
from kvstore.sqlite.connection import connect
from kvstore.sqlite.filters import CAN_DECLARE
from kvstore.testing import ManualClock

NS = ("notes",)
needs_exact_json = pytest.mark.skipif(not CAN_DECLARE, reason="this SQLite reads numbers inexactly")
VALUES: list[Any] = [
    *(None, True, False, 0, 1, 1.5, -2, 2**53 + 1, 2**62, 1e300, "", "a", "b", "\uffff", "😀"),
    *([], {}, ["a"], b"a", "x\0y"),
]
ORDERS: list[str | list[str]] = [
    *("key", "-key", "version", "-version", "created_at", "-updated_at", "expires_at"),
    *("-expires_at", "$.score", "-$.score", "score", "$.user.name", "-$.user.name", '$."odd.one"'),
    *(["$.group", "-$.score"], ["-$.group", "key"], ["$.score", "created_at", "-key"], []),
    *("-$.list[0]", "$.list[-1]", '-$."$bytes"'),
]


def value(chance: random.Random, has_nul: bool) -> dict[str, Any]:
    values = VALUES if has_nul else [each for each in VALUES if each != "x\0y"]
    found: dict[str, Any] = {"group": chance.randrange(3)}
    for name in ("score", "odd.one", "list", "$bytes"):
        if chance.random() < 0.8:
            found[name] = chance.choice(values)
    found["user"] = {"name": chance.choice(values)} if chance.random() < 0.7 else "nobody"
    if chance.random() < 0.3:
        found["list"] = chance.choices(values, k=2)
    if has_nul and chance.random() < 0.1:
        found["score\0odd"] = 1
    return found


@pytest.mark.parametrize("has_nul", [True, False])
@pytest.mark.parametrize("paths", [("group",), ("group", "score", "user.name", "list[0]")])
async def test_a_file_orders_as_memory_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: tuple[str, ...], has_nul: bool
) -> None:
    monkeypatch.setattr(reading, "_SPARE", 1)
    monkeypatch.setattr(reading, "_TRIED", 10)
    chance, clock = random.Random(3), ManualClock()
    index = IndexConfig(fields=(), filters=paths)
    options: dict[str, Any] = {"clock": clock, "index": index, "sweep_interval": None}
    async with (
        SQLiteStore(tmp_path / "store.db", **options) as store,
        InMemoryStore(**options) as oracle,
    ):
        for turn in range(120):
            where = NS if turn % 5 else (*NS, "below")
            put: tuple[str, Any] = (f"k{chance.randrange(90):02}", value(chance, has_nul))
            ttl = chance.choice([None, None, 50, 70 + turn])
            for each in (store, oracle):
                await each.put(where, *put, ttl=ttl)
            clock.advance(chance.choice([0, 1]))
        for order in ORDERS:
            for asked in (
                SearchQuery(order_by=order, limit=500),
                SearchQuery(order_by=order, limit=7, offset=5),
                *(SearchQuery(order_by=order, limit=limit) for limit in (1, 2, 12, 40)),
                SearchQuery(order_by=order, limit=2, filter={"group": 1}),
                SearchQuery(order_by=order, limit=2, filter={"score": {"$exists": True}}),
                SearchQuery(order_by=order, limit=500, subtree=True),
                SearchQuery(order_by=order, limit=500, filter={"group": 1}),
            ):
                found = await store.search(NS, asked)
                expected = await oracle.search(NS, asked)
                assert [(item.namespace, item.key) for item in found] == [
                    (item.namespace, item.key) for item in expected
                ], order


async def test_missing_values_come_last_and_ties_latest_first() -> None:
    async with InMemoryStore() as store:
        values = [{"n": 2}, {}, {"n": 1}, {"n": None}, {"n": "1"}, {"n": 1}]
        await store.put_many(NS, {f"k{at}": each for at, each in enumerate(values)})
        for order, expected in (("$.n", "352041"), ("-$.n", "405231"), (["$.n", "key"], "325041")):
            found = await store.search(NS, order_by=order)
            assert "".join(item.key[1:] for item in found) == expected


@pytest.mark.parametrize("wrong", ["", "-", "$.", "a[*]", 1, [1], {"key": 1}, "a..b"])
async def test_what_is_no_order_is_refused(wrong: Any) -> None:
    async with InMemoryStore(index=IndexConfig()) as store:
        with pytest.raises(InvalidArgumentError, match="order_by"):
            await store.search(NS, order_by=wrong)
        with pytest.raises(InvalidArgumentError, match="order_by"):
            await store.search(NS, "words", order_by="key")


@needs_exact_json
async def test_the_first_by_a_declared_path_are_a_range_of_its_entries(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with SQLiteStore(path, index=IndexConfig(fields=(), filters=("score",))) as store:
        values = [*range(40), *map(str, range(40)), None, True, False, [], 0.5]
        await store.put_many(NS, {f"k{at:02}": {"score": each} for at, each in enumerate(values)})
    connection = connect(path, "ro")
    for descends in (False, True):
        for most in (1, 3, 4, 20, 50, 80):
            order = Order(("score",), descends)
            statement = declared.first(connection, "notes\t", order, most)
            assert statement is not None
            found = connection.execute(statement.text, statement.params).fetchall()
            assert most <= len(found) <= most + 1
            plan = connection.execute(f"EXPLAIN QUERY PLAN {statement.text}", statement.params)
            looks = [row[3] for row in plan if "filter_scalars" in row[3]]
            assert all("field=? AND path=? AND scalar" in look for look in looks), looks
        assert declared.first(connection, "notes\t", order, len(values) + 1) is None
    connection.close()
