"""What a role must be allowed, and no more: as docs/postgres.md has it."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from kvstore import IndexConfig, ReadOnlyError, StoreAccessError

from .server import Database, reason_to_skip, schema_of

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

from kvstore.postgres import PostgresStore

NS = ("a", "b")


@pytest.fixture
def roles(postgres: Database, empty_schema: str) -> Iterator[dict[str, str]]:
    """The addresses of an owner, a writer and a reader of one schema."""
    schema = schema_of(empty_schema)
    names = {kind: f"{schema}_{kind}" for kind in ("owner", "writer", "reader")}
    for name in names.values():
        postgres.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    postgres.execute(f"GRANT CREATE, USAGE ON SCHEMA {schema} TO {names['owner']}")
    postgres.execute(f"GRANT USAGE ON SCHEMA {schema} TO {names['writer']}, {names['reader']}")
    parts = urlsplit(empty_schema)
    host = parts.netloc.rpartition("@")[2]
    yield {
        kind: parts._replace(netloc=f"{name}:secret@{host}").geturl()
        for kind, name in names.items()
    }
    for name in names.values():
        postgres.execute(f"DROP OWNED BY {name} CASCADE")
        postgres.execute(f"DROP ROLE {name}")


async def test_each_role_needs_what_the_guide_grants(
    postgres: Database, empty_schema: str, roles: dict[str, str]
) -> None:
    schema = schema_of(empty_schema)
    with pytest.raises(StoreAccessError, match="grant it the rights"):
        await PostgresStore(roles["writer"]).open()
    async with PostgresStore(roles["owner"], index=IndexConfig()) as store:
        await store.put(NS, "k", "some words")
    tables = f"ON ALL TABLES IN SCHEMA {schema} TO {schema}_"
    postgres.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE {tables}writer")
    postgres.execute(f"GRANT SELECT {tables}reader")

    async with PostgresStore(roles["writer"], index=IndexConfig()) as store:
        async with store.watch(NS) as changes:
            await store.put(NS, "mine", "other words", ttl=60)
            assert (await anext(changes)).key == "mine"
        assert await store.increment(NS, "n") == 1
        assert [item.key for item in await store.search(NS, "other", mode="text")] == ["mine"]
        assert await store.delete(NS, "k")
        await store.sweep()
        assert (await store.check()).ok
        assert (await store.stats()).items == 2

    async with PostgresStore(roles["reader"], read_only=True) as store:
        assert await store.count(NS) == 2
        assert await store.get(NS, "n") is not None
        with pytest.raises(ReadOnlyError):
            await store.put(NS, "k", 1)
    async with PostgresStore(roles["reader"]) as store:  # not said, and the server says it
        assert await store.get(NS, "n") is not None
        with pytest.raises(StoreAccessError, match="grant it the rights"):
            await store.put(NS, "k", 1)
