"""PostgresStore keeps the contract where its tables are spread over the machines of a cluster.

`KVSTORE_TEST_CITUS` says which; see cluster.py. Nothing of the contract is skipped: the stores
here may write under several roots at once (`cross_root="unisolated"`), as some of its tests do.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Any

import pytest

from kvstore import (
    Change,
    IndexConfig,
    InMemoryStore,
    InvalidArgumentError,
    Store,
    StoreAccessError,
)
from kvstore.embeddings import HashingEmbeddings
from kvstore.testing import StoreConformance, StoreFactory
from kvstore.testing_history import HistoryConformance
from kvstore.testing_search import SearchConformance
from kvstore.testing_sequences import SequenceConformance

from .cluster import ENVIRONMENT
from .server import Database, reason_to_skip, schema_of

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)
if not os.environ.get(ENVIRONMENT):
    pytest.skip(f"{ENVIRONMENT} names no cluster", allow_module_level=True)

from kvstore.postgres import PostgresStore, searching

from .test_row_security import said

NS = ("a", "b")
FIND_TABLES = """SELECT string_agg(oid::regclass::text, ', ') FROM pg_class
WHERE relnamespace = '{schema}'::regnamespace AND relkind = 'r' AND relname LIKE 'kvstore%'
    AND relname NOT LIKE 'kvstore\\_vectors%'
    AND EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'root')
"""
RESET = """
UPDATE {schema}.kvstore_state SET version = 0, watched_until = 0, index = NULL, history = 0,
    history_until = 0, history_begin = 0, history_begin_at = 0
"""
FIND_VECTORS = """
SELECT string_agg(format('DROP TABLE %I.%I', schemaname, tablename), ';')
FROM pg_tables WHERE schemaname = '{schema}' AND tablename LIKE 'kvstore\\_vectors\\_of\\_%'
"""

# By the indexes of vectors, on all machines
COUNT_SCANS = """SELECT sum(result::bigint)::bigint FROM run_command_on_all_nodes($command$
SELECT coalesce(sum(idx_scan), 0) FROM pg_stat_user_indexes
WHERE schemaname = '{schema}' AND indexrelname LIKE 'kvstore\\_vectors%hnsw\\_%'
$command$)"""


@pytest.fixture(scope="module")
def schema(citus: Database) -> Iterator[str]:
    """One with the tables of a store, as it takes long to make them."""
    name = f"kvstore_citus_{os.getpid()}"
    citus.execute(f"CREATE SCHEMA {name}")
    yield name
    citus.execute(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture
def citus_url(citus: Database, schema: str) -> str:
    """The address of an empty store."""
    if citus.execute(f"SELECT to_regclass('{schema}.kvstore_roots') IS NOT NULL"):
        citus.execute(f"TRUNCATE {citus.execute(FIND_TABLES.format(schema=schema))}")
        citus.execute(RESET.format(schema=schema))
        drop = citus.execute(f"SELECT ({FIND_VECTORS.format(schema=schema)})")
        for statement in (drop or "").split(";"):
            if statement:
                citus.execute(statement)
    return f"{citus.url}&search_path={schema}"


def spread_store(url: str, **options: Any) -> Store:
    return PostgresStore(url, distributed=True, cross_root="unisolated", **options)


class TestSpreadStore(StoreConformance):
    @pytest.fixture
    def store_factory(self, citus_url: str) -> StoreFactory:
        return partial(spread_store, citus_url)


class TestSpreadStoreSearch(SearchConformance):
    @pytest.fixture
    def store_factory(self, citus_url: str) -> StoreFactory:
        return partial(spread_store, citus_url)


class TestSpreadSequences(SequenceConformance):
    @pytest.fixture
    def store_factory(self, citus_url: str) -> StoreFactory:
        return partial(spread_store, citus_url)


class TestSpreadSequencesWithAnIndex(SequenceConformance):
    @pytest.fixture
    def store_factory(self, citus_url: str) -> StoreFactory:
        return partial(spread_store, citus_url, index=IndexConfig())


class TestSpreadHistory(HistoryConformance):
    @pytest.fixture
    def store_factory(self, citus_url: str) -> StoreFactory:
        return partial(spread_store, citus_url)


@pytest.mark.parametrize("mode", ["text", "semantic", "hybrid"])
async def test_a_search_over_all_roots_ranks_them_alike(citus_url: str, mode: Any) -> None:
    """As on one server: by the words of all, whatever is rare under one root alone."""
    index = IndexConfig(embeddings=HashingEmbeddings(64), fields=["text"])
    texts = ["green tea", "tea with milk, and more tea", "coffee", "a walk", "black tea, no milk"]
    async with spread_store(citus_url, index=index) as spread, InMemoryStore(index=index) as plain:
        for store in (spread, plain):
            for number in range(30):
                place = ("many" if number % 3 else f"few{number % 4}", "x")
                text = f"{texts[number % 5]} on day {number}"
                await store.put(place, f"k{number:02}", {"text": text, "n": number})
            await store.put((), "alone", {"text": "milk"})
        for query in ("milk", "green tea day 7", "coffee walk"):
            for options in ({}, {"offset": 3}, {"filter": {"n": {"$lt": 20}}}):
                both = [
                    await store.search((), query, subtree=True, mode=mode, limit=6, **options)
                    for store in (spread, plain)
                ]
                told = [[(item.key, item.score) for item in found] for found in both]
                assert told[0] == told[1], (query, options)


async def test_a_transaction_over_roots_is_refused(citus_url: str) -> None:
    async with PostgresStore(f"{citus_url}&distributed=true") as store:

        async def move(tx: Any) -> None:
            await tx.put(("a",), "k", 1)
            await tx.put(("b",), "k", 1)

        with pytest.raises(InvalidArgumentError, match="cross_root"):
            await store.transact(move)
    async with PostgresStore(citus_url, cross_root="unisolated") as store:  # found to be spread
        await store.transact(move)
        assert await store.count((), subtree=True) == 2


async def test_a_store_that_holds_items_is_spread(citus: Database) -> None:
    name = f"kvstore_citus_{os.getpid()}_moved"
    citus.execute(f"CREATE SCHEMA {name}")
    url = f"{citus.url}&search_path={name}"
    index = IndexConfig(filters=("group",))  # which a table that is spread has no entries of
    try:
        async with PostgresStore(url, index=index) as store:
            before = await store.put(NS, "k", {"text": "some words", "group": 1})
            assert await store.search(NS, filter={"group": 1}) == [before]
        async with PostgresStore(f"{url}&distributed=true", index=index) as store:
            assert await store.get(NS, "k") == before
            after = await store.put(NS, "k", {"text": "other words", "group": 2})
            assert after.version > before.version
            assert await store.search(NS, filter={"group": 2}, order_by="group") == [after]
            assert [item.key for item in await store.search(NS, "other", mode="text")] == ["k"]
            assert (await store.check()).ok
    finally:
        citus.execute(f"DROP SCHEMA {name} CASCADE")


async def test_many_writers_and_a_watch_over_the_machines(citus_url: str) -> None:
    stores = [PostgresStore(citus_url, distributed=True, pool_size=2) for _ in range(3)]
    for store in stores:
        await store.open()
    async with stores[0].watch() as watch:
        items = await asyncio.gather(
            *(
                store.put((f"tenant {at % 2}",), f"{at}-{number}", number)
                for at, store in enumerate(stores)
                for number in range(40)
            )
        )
        async with asyncio.timeout(60):
            changes = [await anext(watch) for _ in items]
    for root in ("tenant 0", "tenant 1"):
        told = [change.version for change in changes if change.namespace == (root,)]
        assert told == sorted(item.version for item in items if item.namespace == (root,))
        assert len(set(told)) == len(told)
    for store in stores:
        await store.close()


async def test_a_watch_over_the_machines_is_resumed_without_a_gap(citus_url: str) -> None:
    async with (
        PostgresStore(citus_url, distributed=True) as store,
        PostgresStore(citus_url) as other,
    ):
        async with store.watch() as watch:
            await store.put(("tenant 0",), "first", 1)
            since = await anext(watch)
        told: list[Change] = [since]
        writing = [
            asyncio.create_task(write(writer, f"tenant {at % 3}", f"{at}", 40))
            for at, writer in enumerate([store, other] * 3)
        ]
        async with asyncio.timeout(60):
            for size in (5, 30, 1, 60, 144):
                async with store.watch(since=since) as watch:
                    for _ in range(size):
                        since = await anext(watch)
                        told.append(since)
            await asyncio.gather(*writing)
        by_root = {f"tenant {at}": [0] for at in range(3)}
        for change in told:
            by_root[change.namespace[0]].append(change.version)
        for root, versions in by_root.items():
            assert versions == sorted(versions)
            kept = {item.version async for item in store.scan((root,))}
            assert kept == set(versions[1:])


async def write(store: Store, root: str, name: str, number: int) -> None:
    for at in range(number):
        await store.put((root,), f"{name}-{at}", at)


async def test_many_that_open_at_once_spread_it_once(citus: Database) -> None:
    """Tables with items, logs and a past, while others write to them already."""
    with citus.schema() as url:
        async with PostgresStore(url, history=60) as store:
            await store.put(NS, "k", 1)
            await store.log(("a", "log")).append("entry")
            await store.queue(("a", "queue")).put("job")
        stores = [PostgresStore(url, distributed=True, pool_size=2) for _ in range(6)]
        await asyncio.gather(*(store.open() for store in stores))
        await asyncio.gather(*(store.increment(NS, "n") for store in stores))
        assert await stores[0].increment(NS, "n", 0) == len(stores)
        assert [entry.value async for entry in stores[1].log(("a", "log")).read()] == ["entry"]
        job = await stores[2].queue(("a", "queue")).take()
        assert job is not None
        await job.done()
        assert (await stores[3].at(1, root="a").get(NS, "k")).value == 1  # type: ignore[union-attr]
        assert (await stores[4].check()).ok
        await asyncio.gather(*(store.close() for store in stores))


async def test_roles_with_few_rights_work_over_the_machines(citus: Database) -> None:
    """One that writes, one that reads, and one that sees its own root alone."""
    with citus.schema() as url:
        schema = schema_of(url)
        roles = [f"{schema}_{task}" for task in ("app", "reader", "acme")]
        app, reader, tenant = (url.replace("postgres@", f"{role}@", 1) for role in roles)
        async with PostgresStore(url, distributed=True, index=IndexConfig()) as store:
            await store.put(NS, "k", "of nobody")
        for role in roles:
            citus.execute(f"CREATE ROLE {role} LOGIN")
            citus.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        tables = f"ON ALL TABLES IN SCHEMA {schema} TO"
        citus.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE {tables} {roles[0]}")
        citus.execute(f"GRANT SELECT {tables} {roles[1]}")
        try:
            async with PostgresStore(app, index=IndexConfig()) as store, store.watch() as watch:
                await store.put(("new",), "k", "some words")
                assert (await anext(watch)).key == "k"
                await store.log(("new", "log")).append(1)
            async with PostgresStore(reader, read_only=True) as store:
                assert await store.count((), subtree=True) == 3
            citus.execute(said(schema, roles[2]))
            async with PostgresStore(tenant, index=IndexConfig()) as store:
                await store.put((roles[2], "x"), "k", "my words")
                assert await store.get(NS, "k") is None
                assert await store.count((), subtree=True) == 1
                with pytest.raises(StoreAccessError, match="grant"):
                    await store.put(NS, "k", 2)
        finally:
            for role in roles:
                citus.execute(f"DROP OWNED BY {role} CASCADE")
                citus.execute(f"DROP ROLE {role}")


async def test_neighbours_come_from_the_index_of_the_machine_that_has_them(
    citus: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = Random(7)
    vectors = {f"{at}": [chance.gauss(0, 1) for _ in range(16)] for at in range(1_500)}

    async def embed(texts: list[str]) -> list[list[float]]:
        return [vectors[text] for text in texts]

    monkeypatch.setattr(searching, "EXACT_VECTORS", 100)
    index = IndexConfig(embed, dimensions=16, model_id="chance")
    with citus.schema() as url:
        async with PostgresStore(url, distributed=True, index=index) as store:
            await store.put_many(NS, {text: text for text in vectors})
            await store.put(("other",), "1", "1")
            found = total = 0
            for text in list(vectors)[:20]:
                near = [item.key for item in await store.search(NS, text, mode="semantic")]
                monkeypatch.setattr(searching, "EXACT_VECTORS", 10_000)
                exact = [item.key for item in await store.search(NS, text, mode="semantic")]
                monkeypatch.setattr(searching, "EXACT_VECTORS", 100)
                found, total = found + len({*near} & {*exact}), total + len(exact)
            assert found >= 0.95 * total
        scans = 0
        for _ in range(200):  # sessions tell of them when they end
            scans = citus.execute(COUNT_SCANS.format(schema=schema_of(url)))
            if scans == 20:
                break
            await asyncio.sleep(0.1)
        assert scans == 20
