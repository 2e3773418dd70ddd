"""Declared filters on a server: they find what is found without, and cost by what they find."""

from __future__ import annotations

import asyncio
import io
import logging
import random
from typing import Any

import pytest

from kvstore import IndexConfig, IndexMismatchError, InMemoryStore
from kvstore.filters import parse_filter
from kvstore.ordering import parse_order
from kvstore.paths import parse_path
from kvstore.testing import ManualClock
from tests.search.test_found_by_declared_filters import DECLARED, FILTERS, PATHS, value
from tests.search.test_ordered_by_paths import ORDERS
from tests.search.test_ordered_by_paths import value as ordered_value

from .server import Database, reason_to_skip, schema_of

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

import asyncpg

from kvstore.postgres import PostgresStore, declared, selecting
from kvstore.postgres.connection import connect_when_ready

NS = ("notes",)


async def test_they_find_what_is_found_without_through_any_history(postgres_url: str) -> None:
    chance, clock = random.Random(11), ManualClock()
    options: dict[str, Any] = {"clock": clock, "sweep_interval": None}
    async with (
        PostgresStore(postgres_url, index=DECLARED, **options) as store,
        PostgresStore(postgres_url, **options) as other,
        InMemoryStore(**options) as oracle,
    ):
        assert len(declared_by(store)) == len(PATHS)
        for turn in range(6):
            writer = (store, other)[turn % 2]
            changed = {f"k{chance.randrange(150):03}": value(chance) for _ in range(80)}
            for each in (writer, oracle):
                await each.put_many((*NS, "below"), dict(list(changed.items())[:9]))
                await each.put_many(NS, changed, ttl=5 if turn == 2 else None)
                await each.delete_many(NS, [f"k{turn * 7 + at:03}" for at in range(7)])
                await each.remove(NS, f"k{turn}?5")
                await each.update(NS, "k001", lambda _: {"status": "open"})
                await each.put(NS, "k002", value(random.Random(turn)))
            clock.advance(3)
            if turn == 4:
                file = io.BytesIO()
                await oracle.export_items(file)
                for each in (writer, oracle):
                    file.seek(0)
                    await each.import_items(file)
                    await each.sweep()
            for spec in FILTERS:
                for subtree in (False, True):
                    asked: dict[str, Any] = {"filter": spec, "limit": 500, "subtree": subtree}
                    expected = await oracle.search(NS, **asked)
                    found = await store.search(NS, **asked)
                    same = [(item.namespace, item.key, item.value) for item in found]
                    assert same == [(i.namespace, i.key, i.value) for i in expected], spec
                page = await store.search(NS, filter=spec, limit=3, offset=2)
                expected = await oracle.search(NS, filter=spec, limit=3, offset=2)
                assert [item.key for item in page] == [item.key for item in expected], spec
            report = await store.check()
            assert report.ok, report.problems


@pytest.mark.parametrize("paths", [("group",), ("group", "score", "user.name", "list[0]")])
async def test_they_order_as_memory_does(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, paths: tuple[str, ...]
) -> None:
    monkeypatch.setattr(selecting, "_AT_ONCE", 1)
    chance, clock = random.Random(3), ManualClock()
    index = IndexConfig(fields=(), filters=paths)
    options: dict[str, Any] = {"clock": clock, "index": index, "sweep_interval": None}
    async with (
        PostgresStore(postgres_url, **options) as store,
        InMemoryStore(**options) as oracle,
    ):
        for has_nul in (False, True):
            for turn in range(60):
                made = ordered_value(chance, has_nul)
                for each in (store, oracle):
                    await each.put(NS, f"k{turn}", made, ttl=1 if turn % 9 == 0 else None)
            clock.advance(2)
            for order in ORDERS:
                for asked in (
                    *({"limit": 5}, {"limit": 5, "offset": 20}, {"limit": 1000}),
                    *({"filter": {"group": 1}, "limit": 7}, {"filter": {"score": 1}}),
                    *({"query": "a", "limit": 3}, {"subtree": True, "limit": 4}),
                ):
                    how: dict[str, Any] = {"order_by": order, **asked}
                    if "query" in how:
                        how["mode"] = "auto"
                    found = [item.key for item in await store.search(NS, **how)]
                    assert found == [item.key for item in await oracle.search(NS, **how)], how


def declared_by(store: PostgresStore) -> dict[Any, str]:
    setup = store.backend._setup
    assert setup is not None
    return setup.declared


async def test_a_large_store_gets_them_by_reindex_and_says_so(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with PostgresStore(postgres_url) as store:
        await store.put_many(NS, {f"k{at}": {"status": at} for at in range(1500)})
        await store.put(("other",), "k", {"status": 7})
    with caplog.at_level(logging.WARNING, "kvstore"):
        async with PostgresStore(postgres_url, index=DECLARED) as store:
            assert "'status'" in caplog.text
            assert "reindex" in caplog.text
            assert [item.key for item in await store.search(NS, filter={"status": 7})] == ["k7"]
            assert await store.reindex() == 0
            assert declared_by(store)
            await store.put(NS, "new", {"status": 7})
            found = await store.search(NS, filter={"status": 7})
            assert [item.key for item in found] == ["new", "k7"]
            assert (await store.check()).ok
    caplog.clear()
    async with PostgresStore(postgres_url, index=DECLARED) as store:
        assert not caplog.text
        assert declared_by(store)
    raw = await asyncpg.connect(postgres_url)
    await raw.execute("DELETE FROM kvstore_scalars WHERE key = 'k7'")
    await raw.execute("UPDATE kvstore_scalars SET key = 'none' WHERE key = 'k8'")
    await raw.close()
    async with PostgresStore(postgres_url) as store:
        problems = str((await store.check()).problems)
        assert "2 entries of 'status' are missing" in problems
        assert "1 entries of 'status' are of no item" in problems


async def test_what_is_written_while_they_are_made_has_its_own(postgres_url: str) -> None:
    async with PostgresStore(postgres_url) as writer:
        await writer.put_many(NS, {f"k{at:05}": {"status": at % 7} for at in range(4000)})
        done = asyncio.Event()

        async def write(seed: int) -> None:
            chance = random.Random(seed)
            while not done.is_set():
                key = f"k{chance.randrange(4500):05}"
                if chance.random() < 0.2:
                    await writer.delete(NS, key)
                elif chance.random() < 0.2:
                    some = {f"k{chance.randrange(4500):05}": {"status": 1} for _ in range(50)}
                    await writer.put_many(NS, some)
                else:
                    await writer.put(NS, key, {"status": chance.randrange(7)})

        writing = [asyncio.create_task(write(seed)) for seed in range(4)]
        async with (
            PostgresStore(postgres_url, index=DECLARED) as one,
            PostgresStore(postgres_url, index=DECLARED) as two,
        ):
            await asyncio.gather(one.reindex(), two.reindex())
            done.set()
            await asyncio.gather(*writing)
            report = await one.check()
            assert report.ok, report.problems
            assert declared_by(one) == declared_by(two) != {}
            every = [item async for item in writer.scan(NS)]
            for status in range(7):
                expected = {item.key for item in every if item.value["status"] == status}
                found = await one.search(NS, filter={"status": status}, limit=5000)
                assert {item.key for item in found} == expected


async def test_what_has_filters_alone_says_that_it_has_no_words(postgres_url: str) -> None:
    async with PostgresStore(postgres_url, index=DECLARED) as store:
        await store.put(NS, "k", {"status": "open words"})
        assert await store.reindex() == 0
    async with PostgresStore(postgres_url, index=IndexConfig()) as store:
        with pytest.raises(IndexMismatchError, match="reindex"):
            await store.search(NS, "open", mode="text")
        assert await store.reindex() == 1
        assert [item.key for item in await store.search(NS, "open", mode="text")] == ["k"]


async def test_what_is_looked_up_is_a_range_of_the_entries(postgres_url: str) -> None:
    async with PostgresStore(postgres_url, index=DECLARED) as store:
        await store.put(NS, "k", {"status": 1})
        known = declared_by(store)
        target = store.backend.target
        assert set(known) == set(map(parse_path, PATHS))
    sure: list[dict[str, Any]] = [
        {"status": "open"},
        {"status": {"$in": ["a", 1, None]}},
        {"status": {"$gte": 1, "$lt": 5}},
        {"status": {"$exists": True}},
        {"tags": {"$contains": "a"}},
        {"$or": [{"status": 1}, {"user.id": {"$gt": "a"}}]},
        {"other": 1, "status": "open"},
    ]
    raw = await connect_when_ready(target)
    await raw.execute("SET enable_seqscan = off")
    looked = [declared.candidates(parse_filter(spec), known, "notes\t") for spec in sure]
    looked += [
        declared.first(parse_order(name)[0], known, "notes\t", 10) for name in ("status", "-status")
    ]
    for among in looked:
        assert among is not None
        rows = await raw.fetch(f"EXPLAIN {among.render()}", *among.params)
        plan = "\n".join(row[0] for row in rows)
        assert "kvstore_scalars_in_order" in plan
        assert "Seq Scan" not in plan, plan
    await raw.close()
    others: list[dict[str, Any]] = [{"other": 1}, {"status": "a\0"}, {"status": {"$nin": [1]}}]
    for spec in others:
        assert declared.candidates(parse_filter(spec), known, "notes\t") is None


async def test_entries_are_in_the_order_of_what_they_are_of(postgres_url: str) -> None:
    """The server writes them as the client does, and as they are ordered."""
    numbers: list[Any] = [
        *(-1.7976931348623157e308, -1e300, -(2**63), -1.5, -1, -5e-324, 0, -0.0, 5e-324, 0.1, 1),
        *(1 + 2**-52, 2**53, 2**53 + 1, 2**63, 2**64 - 1, 1e300, 1.7976931348623157e308),
    ]
    texts_alone = ["", "a", "a" * 200, "a" * 99 + "é", "é", "😀"]
    scalars = [None, False, True, *numbers, *texts_alone, [1], {"a": 1}, b"a"]
    async with PostgresStore(postgres_url, index=DECLARED) as store:
        await store.put_many(NS, {f"k{at:02}": {"status": one} for at, one in enumerate(scalars)})
        raw = await asyncpg.connect(postgres_url)
        rows = await raw.fetch(
            "SELECT key, substr(scalar, 5) AS scalar FROM kvstore_scalars "
            "JOIN kvstore_filters ON field = left(scalar, 4) "
            "WHERE name = 'status' ORDER BY kvstore_scalars.scalar, key"
        )
        await raw.close()
        texts = dict(map(tuple, rows))
        for at, one in enumerate(scalars):
            assert texts[f"k{at:02}"] == declared.text_of(one), one
        assert [row["key"] for row in rows] == sorted(texts)
        assert [item.value["status"] for item in await store.search(NS, filter={"status": 0})] == [
            0, 0
        ]  # fmt: skip


async def test_semantic_searches_find_the_same_by_them(postgres_url: str) -> None:
    chance = random.Random(7)
    values = {f"k{at:03}": value(chance) for at in range(200)}

    async def embed(texts: list[str]) -> list[list[float]]:
        return [[1.0, len(text) / 100] for text in texts]

    index = IndexConfig(embed, filters=PATHS, model_id="lengths")
    async with (
        PostgresStore(postgres_url, index=index) as store,
        InMemoryStore(index=IndexConfig(embed)) as oracle,
    ):
        for each in (store, oracle):
            await each.put_many(NS, values)
        for spec in FILTERS:
            found = await store.search(NS, "a", mode="semantic", filter=spec, limit=20)
            exact = await oracle.search(NS, "a", mode="semantic", filter=spec, limit=20)
            assert [item.key for item in found] == [item.key for item in exact], spec


async def test_a_role_that_owns_nothing_makes_none_and_uses_what_there_is(
    postgres: Database, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    schema = schema_of(postgres_url)
    app = f"{schema}_app"
    async with PostgresStore(postgres_url) as store:
        await store.put(NS, "k", {"status": 1})
    postgres.execute(
        f"CREATE ROLE {app} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {app};"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {app}"
    )
    theirs = postgres_url.replace("postgres@", f"{app}@")
    try:
        with caplog.at_level(logging.WARNING, "kvstore"):
            async with PostgresStore(theirs, index=DECLARED) as store:
                assert "owner" in caplog.text
                assert declared_by(store) == {}
                assert await store.reindex() == 0
                assert declared_by(store) == {}
        async with PostgresStore(postgres_url, index=DECLARED):
            pass
        async with PostgresStore(theirs, index=DECLARED) as store:
            assert declared_by(store)
            await store.put(NS, "new", {"status": 1})
            found = await store.search(NS, filter={"status": 1})
            assert [item.key for item in found] == ["new", "k"]
        postgres.execute(f"REVOKE ALL ON {schema}.kvstore_scalars FROM {app}")
        async with PostgresStore(theirs, index=DECLARED) as store:
            assert declared_by(store) == {}
            await store.put(NS, "third", {"status": 1})  # the triggers write as their owner
            assert len(await store.search(NS, filter={"status": 1})) == 3
        async with PostgresStore(postgres_url, index=DECLARED) as store:
            assert len(await store.search(NS, filter={"status": 1})) == 3
            assert (await store.check()).ok
    finally:
        postgres.execute(f"DROP OWNED BY {app} CASCADE; DROP ROLE {app}")


async def test_a_role_that_may_not_look_at_them_checks_the_rest(
    postgres: Database, postgres_url: str
) -> None:
    schema = schema_of(postgres_url)
    app = f"{schema}_app"
    async with PostgresStore(postgres_url, index=DECLARED) as store:
        await store.put(NS, "k", {"status": 1})
    postgres.execute(
        f"CREATE ROLE {app} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {app};"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {app};"
        f"REVOKE ALL ON {schema}.kvstore_scalars, {schema}.kvstore_filters FROM {app}"
    )
    theirs = postgres_url.replace("postgres@", f"{app}@")
    try:
        async with PostgresStore(theirs) as store:
            assert (await store.check()).ok
        postgres.execute(
            f"GRANT SELECT ON {schema}.kvstore_scalars, {schema}.kvstore_filters TO {app};"
            f"ALTER TABLE {schema}.kvstore_items ENABLE ROW LEVEL SECURITY;"
            f"CREATE POLICY others ON {schema}.kvstore_items TO {app} USING (root <> E'notes\\t')"
        )
        async with PostgresStore(theirs) as store:
            assert (await store.check()).ok  # there are entries of items that it does not see
    finally:
        postgres.execute(f"DROP OWNED BY {app} CASCADE; DROP ROLE {app}")


async def test_a_store_opens_beside_a_long_transaction(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with PostgresStore(postgres_url) as store:
        await store.put(NS, "k", {"status": 1})
    raw = await asyncpg.connect(postgres_url)
    writing = raw.transaction()
    await writing.start()
    await raw.execute("DELETE FROM kvstore_items WHERE false")
    with caplog.at_level(logging.WARNING, "kvstore"):
        async with PostgresStore(postgres_url, index=DECLARED) as store:
            assert "writers are at work" in caplog.text
            assert [item.key for item in await store.search(NS, filter={"status": 1})] == ["k"]
            await writing.rollback()
            await store.reindex()
            assert declared_by(store)
            assert [item.key for item in await store.search(NS, filter={"status": 1})] == ["k"]
    await raw.close()


async def test_an_item_that_passes_parts_of_an_or_is_found_once(postgres_url: str) -> None:
    async with PostgresStore(postgres_url, index=DECLARED) as store:
        await store.put(NS, "nul", {"status": "a\0b", "user": {"id": "b"}})
        await store.put(NS, "k", {"status": "open", "user": {"id": "b"}})
        ranged = {"user.id": {"$gt": "a"}}
        for parts in ([{"status": "open"}, ranged], [ranged, {"status": {"$gt": "a"}}]):
            found = await store.search(NS, filter={"$or": parts})
            assert [item.key for item in found] == ["k", "nul"]


async def test_more_paths_are_declared_than_two_digits_count(postgres_url: str) -> None:
    paths = [f"p{number}" for number in range(300)]
    async with PostgresStore(postgres_url, index=IndexConfig(fields=(), filters=paths)) as store:
        await store.put(NS, "k", {path: number for number, path in enumerate(paths)})
        assert len(declared_by(store)) == 300
        for number in (0, 16, 255, 256, 299):
            assert len(await store.search(NS, filter={f"p{number}": number})) == 1
        assert (await store.check()).ok


async def test_a_change_of_a_long_list_costs_by_what_has_changed(postgres_url: str) -> None:
    tags = [f"t{number}" for number in range(3000)]
    async with PostgresStore(postgres_url, index=DECLARED) as store:
        await store.put(NS, "k", {"tags": tags})
    raw = await asyncpg.connect(postgres_url)
    async with raw.transaction():
        read = (
            "SELECT idx_tup_fetch FROM pg_stat_xact_user_tables"
            " WHERE relid = 'kvstore_scalars'::regclass"
        )
        before = await raw.fetchval(read)
        await raw.execute("UPDATE kvstore_items SET value = replace(value, 't7\"', 'x7\"')")
        changed = await raw.fetchval(read)
        assert changed - before == 1
        await raw.execute("DELETE FROM kvstore_items")
        assert await raw.fetchval(read) - changed == 3000
        assert await raw.fetchval("SELECT count(*) FROM kvstore_scalars") == 0
    await raw.close()


async def test_a_search_for_words_says_that_only_filters_were_indexed(postgres_url: str) -> None:
    async with PostgresStore(postgres_url) as store:
        await store.put(NS, "k", {"status": "open"})
    async with PostgresStore(postgres_url, index=DECLARED) as store:
        assert len(await store.search(NS, filter={"status": "open"})) == 1
    async with PostgresStore(postgres_url, index=IndexConfig()) as store:
        with pytest.raises(IndexMismatchError, match="does not hold all items"):
            await store.search(NS, "open", mode="text")
        await store.reindex()
        assert len(await store.search(NS, "open", mode="text")) == 1
