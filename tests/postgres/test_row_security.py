"""Row-level security by root, as docs/postgres.md has it: a tenant sees its own root alone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kvstore import IndexConfig, Item, StoreAccessError
from kvstore.testing import ManualClock

from .server import Database, reason_to_skip, schema_of

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

from kvstore.postgres import PostgresStore
from kvstore.postgres.copying import LEAST_COPIED

GUIDE = Path(__file__).parents[2] / "docs" / "postgres.md"
FIND_TABLES = """SELECT count(*) FROM pg_class
WHERE relnamespace = '{schema}'::regnamespace AND relkind = 'r' AND NOT relrowsecurity
    AND EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'root')
"""


def said(schema: str, role: str) -> str:
    """What the guide tells an administrator to run, for a schema and a role."""
    guide = GUIDE.read_text("utf-8")
    block: str = re.findall(r"```sql\n(-- Row-level security.*?)```", guide, re.DOTALL)[0]
    return block.replace("kv.", f"{schema}.").replace("'kv'", f"'{schema}'").replace("acme", role)


@pytest.fixture
def tenants(
    postgres: Database, empty_schema: str, request: pytest.FixtureRequest
) -> Iterator[dict[str, str]]:
    """The addresses of two tenants, each with a role of its name; the parameter: an index."""
    index = getattr(request, "param", IndexConfig())
    schema = schema_of(empty_schema)
    names = [f"{schema}_{label}" for label in ("acme", "globex")]
    parts = urlsplit(empty_schema)
    host = parts.netloc.rpartition("@")[2]

    async def prepare() -> None:
        async with PostgresStore(empty_schema, index=index) as store:
            await store.put(("shared",), "k", "of nobody")

    asyncio.run(prepare())
    for name in names:
        postgres.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
        postgres.execute(f"GRANT USAGE ON SCHEMA {schema} TO {name}")
        postgres.execute(said(schema, name))
    yield {name: parts._replace(netloc=f"{name}:secret@{host}").geturl() for name in names}
    for name in names:
        postgres.execute(f"DROP OWNED BY {name} CASCADE")
        postgres.execute(f"DROP ROLE {name}")


async def test_a_tenant_sees_and_writes_its_own_root_alone(
    postgres: Database, empty_schema: str, tenants: dict[str, str]
) -> None:
    (mine, url), (other, other_url) = tenants.items()
    assert not postgres.execute(FIND_TABLES.format(schema=schema_of(empty_schema)))
    async with (
        PostgresStore(url, index=IndexConfig()) as store,
        PostgresStore(other_url, index=IndexConfig()) as stranger,
    ):
        await stranger.put((other, "notes"), "secret", "their words")
        async with store.watch((mine,)) as changes:
            await store.put((mine, "notes"), "k", "my words", ttl=60)
            await stranger.put((other, "notes"), "more", "their words")
            assert await store.increment((mine,), "n") == 1
            async with asyncio.timeout(20):
                assert [(await anext(changes)).key for _ in range(2)] == ["k", "n"]
        assert await store.list_namespaces() == [(mine,), (mine, "notes")]
        assert await store.get((other, "notes"), "secret") is None
        assert await store.count((), subtree=True) == 2
        for scope in ((mine,), (other,), ()):
            found = await store.search(scope, "words", mode="text", subtree=True)
            assert [item.key for item in found] == ([] if scope == (other,) else ["k"])
        for write in (
            lambda: store.put((other, "notes"), "mine now", 1),
            lambda: store.put(("new",), "k", 1),
            lambda: store.increment((other, "notes"), "n"),
        ):
            with pytest.raises(StoreAccessError, match="does not let this user"):
                await write()
        with pytest.raises(StoreAccessError, match="does not let this user"):
            await anext(store.watch())  # of all roots
        assert await store.remove((), "*", subtree=True) == 2
        await store.sweep()
        assert await stranger.count((other,), subtree=True) == 2
        assert (await stranger.check()).ok


async def test_what_a_tenant_puts_at_once_reaches_its_own_root_alone(
    tenants: dict[str, str],
) -> None:
    (mine, url), (other, other_url) = tenants.items()
    async with PostgresStore(url) as store, PostgresStore(other_url) as stranger:
        for number in range(3):
            await stranger.put((other,), "k", number)
            puts = [store.put((root,), "k", "mine") for root in (mine, other, "shared")]
            outcomes = await asyncio.gather(*puts, return_exceptions=True)
            assert [type(each) for each in outcomes] == [Item, StoreAccessError, StoreAccessError]
            item = await stranger.get((other,), "k")
            assert item is not None
            assert item.value == number


async def test_a_tenant_looks_after_its_root_once_nobody_watches_all(
    postgres: Database, empty_schema: str, tenants: dict[str, str]
) -> None:
    """What is left of that watch belongs to the whole store, which a tenant cannot change."""
    (mine, url), _ = tenants.items()
    schema, clock = schema_of(empty_schema), ManualClock()
    async with (
        PostgresStore(empty_schema, clock=clock, sweep_interval=None, history=60.0) as owner,
        PostgresStore(url, clock=clock, sweep_interval=None) as store,
    ):
        async with owner.watch():
            await store.put((mine,), "k", 1, ttl=1)
        clock.advance(10 * 86_400)
        assert await store.sweep() == 1
        count = f"SELECT count(*) FROM {schema}.kvstore_items WHERE key = 'k'"
        assert postgres.execute(f"{count} AND root LIKE '{mine}%'") == 0


@pytest.mark.parametrize("tenants", [None], indirect=True)
async def test_a_tenant_writes_as_many_items_at_once_as_anybody(
    tenants: dict[str, str], tmp_path: Path
) -> None:
    """The server refuses to copy into a table of which a role sees only some rows."""
    (mine, url), _ = tenants.items()
    namespace, file = (mine, "bulk"), tmp_path / "all.jsonl"
    items = {f"k{at:05}": at for at in range(LEAST_COPIED)}
    async with PostgresStore(url) as store:
        for ttl in (None, 60.0):
            put = await store.put_many(namespace, items, ttl=ttl)
            assert put == list((await store.get_many(namespace, items)).values())
        assert await store.export_items(file, namespace=namespace) == len(items)
        assert await store.import_items(file) == len(items)
        found = (await store.get_many(namespace, items)).values()
        assert [item.value for item in found if item.expires_at] == list(items.values())
        with pytest.raises(StoreAccessError, match="does not let this user"):
            await store.put_many(("new",), items)


@pytest.mark.parametrize("tenants", [IndexConfig(fields=(), filters=("status",))], indirect=True)
async def test_a_tenant_finds_by_declared_filters_what_is_its_own(tenants: dict[str, str]) -> None:
    index = IndexConfig(fields=(), filters=("status",))
    for name, url in tenants.items():
        async with PostgresStore(url, index=index) as store:
            setup = store.backend._setup
            assert setup is not None
            assert setup.declared
            await store.put_many((name,), {f"k{at}": {"status": at % 3} for at in range(9)})
            await store.put((name,), "k0", {"status": 1})
    for name, url in tenants.items():
        async with PostgresStore(url, index=index) as store:
            found = await store.search((name,), filter={"status": 1})
            assert sorted(item.key for item in found) == ["k0", "k1", "k4", "k7"]
            others = [other for other in tenants if other != name]
            assert not await store.search((others[0],), filter={"status": 1})
