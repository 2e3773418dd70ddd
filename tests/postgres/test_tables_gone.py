"""Tables that are gone under an open store: dropped by hand, or as the server is a younger one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kvstore import IndexConfig, IndexMismatchError, SchemaError, StoreAccessError
from kvstore.embeddings import HashingEmbeddings
from tests.postgres.server import Database, reason_to_skip, schema_of

pytest.importorskip("asyncpg", reason=reason_to_skip())

from kvstore.postgres import PostgresStore

NS = ("notes",)
INDEX = IndexConfig(HashingEmbeddings(8))
VECTORS = "kvstore_vectors_of_8"
Call = Callable[[PostgresStore], Awaitable[Any]]


async def of_writing(store: PostgresStore) -> None:
    await store.put(NS, "new", "three")


async def of_deleting(store: PostgresStore) -> None:
    assert await store.delete(NS, "y")


async def of_adding_up(store: PostgresStore) -> None:
    assert await store.increment(NS, "n") == 1


@pytest.mark.parametrize("call", [of_writing, of_deleting, of_adding_up])
async def test_a_table_of_vectors_is_made_anew_and_what_was_in_it_is_known_to_be_missing(
    postgres: Database, postgres_url: str, call: Call
) -> None:
    async with PostgresStore(postgres_url, index=INDEX) as store:
        await store.put_many(NS, {"x": "one", "y": "two"})
        await store.put(("other",), "x", "one")
        postgres.execute(f"DROP TABLE {schema_of(postgres_url)}.{VECTORS}")
        await call(store)
        with pytest.raises(IndexMismatchError, match="reindex"):
            await store.search(NS, "one", mode="semantic")
        assert len((await store.check()).waiting) >= 2
        assert await store.reindex() >= 2
        for namespace in (NS, ("other",)):
            found = await store.search(namespace, "one", mode="semantic")
            assert (found[0].key, found[0].score) == ("x", 1.0)
        assert (await store.check()).ok


async def test_a_search_notices_as_well(postgres: Database, postgres_url: str) -> None:
    async with PostgresStore(postgres_url, index=INDEX) as store:
        await store.put(NS, "x", "one")
        postgres.execute(f"DROP TABLE {schema_of(postgres_url)}.{VECTORS}")
        async with PostgresStore(postgres_url, index=INDEX, read_only=True) as reader:
            with pytest.raises(SchemaError, match="dropped"):
                await reader.search(NS, "one", mode="semantic")
        with pytest.raises(IndexMismatchError, match="reindex"):
            await store.search(NS, "one", mode="semantic")
        assert await store.reindex() == 1
        assert (await store.search(NS, "one", mode="semantic"))[0].score == 1.0


async def test_a_store_goes_on_over_tables_that_others_have_made_anew(
    postgres: Database, postgres_url: str
) -> None:
    """As after a server has been replaced by one on which there were no vectors yet."""
    schema = schema_of(postgres_url)
    async with PostgresStore(postgres_url, index=INDEX) as store:
        await store.put(NS, "x", "one")
        await store.put(NS, "x", "two")
        postgres.execute(f"DROP SCHEMA {schema} CASCADE")
        with pytest.raises(StoreAccessError, match="no schema"):
            await store.put(NS, "x", "three")
        postgres.execute(f"CREATE SCHEMA {schema}")
        async with PostgresStore(postgres_url, index=INDEX):
            pass
        await store.put(NS, "x", "four")
        found = await store.search(NS, "four", mode="semantic")
        assert [(item.value, item.score) for item in found] == [("four", 1.0)]
        assert (await store.check()).ok
    async with PostgresStore(postgres_url) as plain:
        for number in range(3):
            await plain.put(("plain",), "x", number)
        postgres.execute(f"DROP SCHEMA {schema} CASCADE; CREATE SCHEMA {schema}")
        async with PostgresStore(postgres_url):
            pass
        for number in range(3):
            await plain.put(("plain",), "x", number)
        assert (await plain.check()).ok


async def test_a_put_says_so_as_all_else_does(postgres: Database, postgres_url: str) -> None:
    schema = schema_of(postgres_url)
    async with PostgresStore(postgres_url) as store:
        await store.put(NS, "x", 1)
        postgres.execute(f"DROP SCHEMA {schema} CASCADE; CREATE SCHEMA {schema}")
        with pytest.raises(SchemaError, match="was it dropped"):
            await store.put(NS, "x", 2)
        async with PostgresStore(postgres_url):
            pass
        await store.put(NS, "x", 3)
        assert (await store.check()).ok
