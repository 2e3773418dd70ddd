"""A PostgresStore that is read only makes nothing, and has the server refuse every write."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest

from .server import reason_to_skip

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

import asyncpg

import kvstore
from kvstore import IndexConfig, ReadOnlyError, SchemaError, StoreCorruptError
from kvstore.embeddings import HashingEmbeddings
from kvstore.postgres import PostgresStore
from kvstore.postgres.connection import translate

NS = ("n",)


async def tables(url: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        rows: list[Any] = await connection.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
        )
        return rows
    finally:
        await connection.close()


async def test_an_empty_schema_stays_empty(empty_schema: str) -> None:
    with pytest.raises(SchemaError, match="holds no store yet"):
        await PostgresStore(empty_schema, read_only=True).open()
    assert await tables(empty_schema) == []


@pytest.mark.parametrize("is_pooler", [False, True])
@pytest.mark.parametrize("index", [None, IndexConfig(HashingEmbeddings())], ids=["no", "both"])
async def test_reads_see_commits_and_writes_are_refused(
    postgres_url: str, index: IndexConfig | None, is_pooler: bool
) -> None:
    async with PostgresStore(postgres_url, index=index) as writer:
        await writer.put_many(NS, {"k": "some words", "l": "others"})
        before = await tables(postgres_url)
        url = f"{postgres_url}&mode=ro&pooler={'true' if is_pooler else 'false'}"
        async with kvstore.open(url, index=index) as store:
            assert isinstance(store, PostgresStore)
            await writer.put(NS, "m", "more")
            assert await store.get(NS, "m")
            assert await store.keys(NS) == ["k", "l", "m"]
            assert (await store.search(NS, "words"))[0].key == "k"
            assert (await store.check()).ok
            assert (await store.stats()).items == 3
            assert await store.export_items(io.BytesIO()) == 3
            for write in (
                store.put(NS, "k", 1),
                store.remove(NS, "*"),
                store.sweep(),
                store.vacuum(),
                store.transact(lambda tx: tx.delete(NS, "k")),
            ):
                with pytest.raises(ReadOnlyError, match="read_only"):
                    await write
            if not is_pooler:
                with pytest.raises(ReadOnlyError):  # the server's word
                    await store.backend._pool.run(
                        lambda link: link.execute("DELETE FROM kvstore_items")
                    )
        assert await tables(postgres_url) == before
        assert await writer.count(NS) == 3


async def test_writes_during_a_check_are_no_problems(postgres_url: str) -> None:
    async with PostgresStore(postgres_url, index=IndexConfig()) as store:
        await store.put_many(NS, {f"{number:04}": "some words" for number in range(1_500)})
        async with store.watch():
            for _ in range(3):
                checking = asyncio.create_task(store.check())
                number = 0
                while not checking.done():
                    number += 1
                    await store.put(NS, f"{number % 2_000:04}", f"words {number}")
                report = await checking
                assert report.ok, report.problems


DAMAGE = {"XX001", "XX002"}


ERRORS: list[Any] = [each for each in vars(asyncpg.exceptions).values() if isinstance(each, type)]
STATES = {
    each.sqlstate: each
    for each in ERRORS
    if issubclass(each, asyncpg.PostgresError) and each.sqlstate
}


def test_only_the_states_of_damage_say_damage() -> None:
    assert len(STATES) > 200
    for state, kind in STATES.items():
        error = translate(kind("of no matter"), "the database")
        assert isinstance(error, StoreCorruptError) == (state in DAMAGE), state
        assert "of no matter" not in str(error)
        assert state in str(error)


def test_without_descriptors_that_is_what_is_said() -> None:
    error = translate(OSError(24, "Too many open files"), "the database")
    assert "no more files" in str(error)
