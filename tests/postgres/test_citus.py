"""PostgresStore keeps the contract where its tables are spread over the machines of a cluster.

`KVSTORE_TEST_CITUS` says which; see cluster.py. Nothing of the contract is skipped: the stores
here may write under several roots at once (`cross_root="unisolated"`), as some of its tests do.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from kvstore import IndexConfig, InvalidArgumentError, Store
from kvstore.testing import StoreConformance, StoreFactory
from kvstore.testing_history import HistoryConformance
from kvstore.testing_search import SearchConformance
from kvstore.testing_sequences import SequenceConformance

from .cluster import ENVIRONMENT
from .server import Database, reason_to_skip

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)
if not os.environ.get(ENVIRONMENT):
    pytest.skip(f"{ENVIRONMENT} names no cluster", allow_module_level=True)

from kvstore.postgres import PostgresStore

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
    try:
        async with PostgresStore(url, index=IndexConfig()) as store:
            before = await store.put(NS, "k", "some words")
        async with PostgresStore(f"{url}&distributed=true", index=IndexConfig()) as store:
            assert await store.get(NS, "k") == before
            assert (await store.put(NS, "k", "other words")).version > before.version
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
