"""What PostgreSQL does to many puts by one statement is what `kvstore.plan` decides."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

import orjson
import pytest

from .server import reason_to_skip

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

from kvstore.namespace import decode_namespace
from kvstore.operations import Named, Put, Record
from kvstore.plan import Address, decide
from kvstore.postgres import PostgresStore
from kvstore.postgres.connection import Target, connect
from kvstore.postgres.keys import decode_key, encode_key
from kvstore.postgres.puts import put_plain
from kvstore.postgres.workspace import Stamp
from kvstore.types import Item

NOW = 1_000_000_000
PATHS = ["a\t", "a\tb\t", "a\tb\t\nI\t"]
KEYS = [*(f"k{n}" for n in range(12)), "\x00", "a\nb"]
ALL = """
SELECT path, key, version, created_at, updated_at, expires_at, ttl, indexing, value
FROM kvstore_items
"""


@pytest.mark.parametrize("is_bare", [False, True])
async def test_one_statement_does_what_is_decided(postgres_url: str, is_bare: bool) -> None:
    async with PostgresStore(postgres_url, clock=lambda: NOW / 1e6) as store:
        connection = await connect(Target.parse(postgres_url, is_pooler=False))
        dice = Random(5)
        for number in range(20):
            await store.remove((), "*", subtree=True)
            await store.put(("a",), "gone", 1)
            await store.delete(("a",), "gone")
            before = await filled(store, dice, number)
            puts: list[Put] = [put(dice, is_bare) for _ in range(dice.choice([1, 3, 20, 200]))]
            puts = list({(op.path, op.key): op for op in puts}.values())
            version = (await store.stats()).version
            stamp = Stamp(1, number + 1, number + 1)
            items, is_watched = await put_plain(connection, "a\t", puts, NOW, 0, stamp)
            assert not is_watched
            expected, answers = decided(before, puts, version)
            assert list(map(seen, items)) == list(map(seen, answers))
            assert {tuple(row) for row in await connection.fetch(ALL)} == expected
            assert (await store.stats()).version == version + len(puts)
        await connection.close()


async def filled(store: PostgresStore, dice: Random, number: int) -> dict[Address, Record]:
    """Put some items, a part of them long ago, and return their rows."""
    sender = store.backend._writer._sender
    for at in range(dice.randrange(20)):
        sender._clock = partial(float, (NOW - 40 + 3 * at) / 1e6)
        op = put(dice, is_bare=False)
        index = None if op.indexing is None else list(op.indexing) or False
        ttl = None if op.ttl is None else op.ttl / 1e6
        await store.put(op.namespace, op.key, number, ttl=ttl, index=index)
    sender._clock = partial(float, NOW / 1e6)
    connection = await connect(store.backend.target)
    rows = await connection.fetch(ALL)
    await connection.close()
    found = {}
    for path, key, *numbers, indexing, value in map(tuple, rows):
        paths = {None: None, "[]": (), '["a"]': ("a",)}[indexing]
        version, created, updated, expires, ttl = numbers
        plain = decode_key(key)
        found[path, plain] = Record(
            path, plain, value.encode(), version, created, updated, expires, ttl, paths
        )
    return found


def put(dice: Random, is_bare: bool) -> Put:
    path, data = dice.choice(PATHS), str(dice.randrange(9)).encode()
    ttl = None if is_bare else dice.choice([None, None, 5, 20, 60])
    indexing = None if is_bare else dice.choice([None, None, (), ("a",)])
    key = dice.choice(KEYS)
    return Put(decode_namespace(path), path, key, data, ttl, indexing=indexing)


def decided(
    before: dict[Address, Record], puts: list[Put], version: int
) -> tuple[set[tuple[Any, ...]], list[Item]]:
    """Apply puts by `decide` alone, each as a unit."""
    there, answers = dict(before), []
    for op in puts:
        unit: list[Named] = [op]
        effects = decide(unit, there, NOW, version, is_watched=False)
        there |= {(row.path, row.key): row for row, _ in effects.writes}
        version = effects.version
        answers += effects.answers
    return set(map(columns, there.values())), answers


def columns(row: Record) -> tuple[Any, ...]:
    """Return a row as `ALL` gives it."""
    indexing = None if row.indexing is None else orjson.dumps(row.indexing).decode()
    times = row.created_at, row.updated_at, row.expires_at
    return (
        row.path,
        encode_key(row.key),
        row.version,
        *times,
        row.ttl,
        indexing,
        row.data.decode(),
    )


def seen(item: Item) -> tuple[Any, ...]:
    times = item.created_at, item.updated_at, item.expires_at
    return (item.namespace, item.key, item.value, item.version, *times)
