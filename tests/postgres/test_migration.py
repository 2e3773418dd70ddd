"""A store of an earlier version is moved in place, and its programs are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore import IndexConfig, SchemaError
from kvstore.embeddings import HashingEmbeddings
from kvstore.types import Namespace

from .server import Database, reason_to_skip, schema_of

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

import asyncpg

from kvstore.postgres import PostgresStore
from kvstore.postgres.migrate import migrations

EARLIER = Path(__file__).with_name("schema_3.sql")
NOW = 1_700_000_100.0
ITEMS: dict[tuple[Namespace, str], object] = {
    ((), "top"): [1, 2, 3],
    (("acme", "notes"), "coffee"): {"text": "black coffee", "n": 1},
    (("acme", "notes"), "seen"): "while watched",
    (("acme", "notes"), "tea"): "green tea and long walks",
    (("globex",), "blob"): {"data": b"\x00\xff", "text": "tea for two"},
    (("tab\there",), "key\x00"): "odd",
}
# What a running program of before sends: a write, and a read
EARLIER_PUT = (
    "UPDATE {schema}.kvstore_state SET version = version + 1, turn = turn + 1 WHERE id = 1"
)
EARLIER_GET = (
    "SELECT value FROM {schema}.kvstore_items WHERE root = '' AND path = '' AND key = 'top'"
)


@pytest.fixture
def earlier_url(postgres: Database, empty_schema: str) -> str:
    """The address of a store of before."""
    if not postgres.has_vectors:
        pytest.skip("the server has no pgvector")
    text = EARLIER.read_text("utf-8").replace("kv.", f"{schema_of(empty_schema)}.")
    postgres.execute(text)
    return empty_schema


def store_at(url: str) -> PostgresStore:
    index = IndexConfig(HashingEmbeddings(8))
    return PostgresStore(url, index=index, clock=lambda: NOW)


async def test_a_store_of_before_keeps_everything(earlier_url: str) -> None:
    async with store_at(earlier_url) as store:
        items = {(item.namespace, item.key): item async for item in store.scan()}
        assert {place: item.value for place, item in items.items()} == ITEMS
        assert items[(), "top"].version == 4
        report = await store.check()
        assert report.ok, report.problems
        assert not report.waiting
        by_words = await store.search(("acme",), "walks", mode="text", subtree=True)
        assert [item.key for item in by_words] == ["tea"]
        by_meaning = await store.search((), "black coffee", mode="semantic", subtree=True)
        assert by_meaning[0].key == "coffee"
        for namespace in (("acme", "notes"), ("new",)):
            assert (await store.put(namespace, "more", "a new text")).version > 10
        async with store.watch(("acme",), since=7) as changes:
            assert [(await anext(changes)).key for _ in range(2)] == ["seen", "more"]
        assert (await store.check()).ok


async def test_programs_of_before_are_refused_or_fail_and_read(
    postgres: Database, earlier_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = schema_of(earlier_url)
    running = await asyncpg.connect(earlier_url)
    await running.execute(EARLIER_PUT.format(schema=schema))
    async with store_at(earlier_url) as store:
        with pytest.raises(asyncpg.UndefinedColumnError):
            await running.execute(EARLIER_PUT.format(schema=schema))
        assert await running.fetchval(EARLIER_GET.format(schema=schema)) == "[1,2,3]"
        assert (await store.get((), "top")) is not None
    await running.close()
    monkeypatch.setattr("kvstore.postgres.migrate.migrations", lambda: migrations()[:3])
    with pytest.raises(SchemaError, match="upgrade kvstore"):
        await store_at(earlier_url).open()


async def test_a_writer_of_before_is_waited_for_and_not_for_long(earlier_url: str) -> None:
    running = await asyncpg.connect(earlier_url)
    transaction = running.transaction()
    await transaction.start()
    await running.execute(EARLIER_PUT.format(schema=schema_of(earlier_url)))
    with pytest.raises(Exception, match="locked by another writer"):
        await PostgresStore(earlier_url, busy_timeout=0.3).open()
    await transaction.commit()
    await running.close()
    async with store_at(earlier_url) as store:
        assert (await store.put((), "top", 1)).version == 12
