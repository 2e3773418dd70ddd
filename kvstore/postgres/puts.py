"""Puts without conditions, of different items under one root, by one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvstore.index_plan import texts_of_put
from kvstore.operations import Put
from kvstore.postgres import statements
from kvstore.postgres.codes import Terms
from kvstore.postgres.connection import Connection
from kvstore.postgres.keys import encode_key
from kvstore.postgres.workspace import Fetch, Stamp
from kvstore.rules import pack_indexing
from kvstore.types import Item, pack_item

__all__ = ["find_puts", "put_one", "put_plain", "words_of"]

_BEFORE = statements.SEPARATOR
_BEFORE_BYTES = _BEFORE.encode()


async def put_plain(
    connection: Connection, root: str, puts: Sequence[Put], now: int, at_least: int, stamp: Stamp
) -> tuple[list[Item], bool]:
    """Upsert in one call, which is a transaction of its own if there is none.

    Args:
        connection: for writing.
        root: of all of them.
        puts: without conditions, no two of one item.
        now: the instant, in microseconds.
        at_least: a version, above which new ones are.
        stamp: by which the call is known.

    Returns:
        The items as stored, and whether somebody watches.

    Raises:
        DriverError: by its state, one of `statements`: nothing is done, as the stamp's call was
            done before, or there is more to do than this.
    """
    lifetimes: Sequence[Any] = (None, None, None)
    if any(op.ttl is not None or op.indexing is not None for op in puts):
        lifetimes = (
            [None if op.ttl is None else now + op.ttl for op in puts],
            [op.ttl for op in puts],
            [pack_indexing(op.indexing) for op in puts],
        )
    patience = connection.patience
    rows = await connection.fetch(
        statements.PUT if patience is None else statements.PUT_SOON, root,
        _BEFORE.join(["", *[op.path for op in puts]]),
        _BEFORE.join(["", *[encode_key(op.key) for op in puts]]),
        _BEFORE_BYTES.join([b"", *[op.data for op in puts]]).decode(),
        *lifetimes, len(puts), now, at_least, *stamp, *(() if patience is None else (patience,)),
    )  # fmt: skip
    first = min(row[0] for row in rows) if len(rows) > 1 else rows[0][0]
    created = {row[0]: row[1] for row in rows}
    items = [_item(op, version, created[version], now) for version, op in enumerate(puts, first)]
    return items, rows[0][2]


async def put_one(
    fetch: Fetch,
    root: str,
    op: Put,
    now: int,
    at_least: int,
    stamp: Stamp,
    words: Sequence[Any] = (),
) -> tuple[list[Item], bool]:
    """As `put_plain`, of one put, in a transaction of its own.

    Args:
        fetch: that of a connection for writing.
        root: as there, and all that follows.
        op: see there.
        now: see there.
        at_least: see there.
        stamp: see there.
        words: what goes into the index with it, as `words_of` has it; empty: there is no index.
    """
    ttl = op.ttl
    statement = statements.PUT_WORDS if words else statements.PUT_ONE
    rows = await fetch(
        statement, root, op.path, encode_key(op.key), op.data.decode(),
        None if ttl is None else now + ttl, ttl,
        pack_indexing(op.indexing),
        now, at_least, *stamp, *words,
    )  # fmt: skip
    version, created_at, is_watched = rows[0][0]
    return [_item(op, version, created_at, now)], is_watched == 1


def words_of(op: Put, index: str, fields: tuple[str, ...]) -> Sequence[Any]:
    """Return what an index that has no vectors is to hold of a put, as kvstore_put_words has it.

    Args:
        op: the put.
        index: the description of the index.
        fields: those of the index.
    """
    texts = texts_of_put(op, fields)
    if not texts:
        return index, None, None, None, None
    terms = Terms.of(texts.values(), op.path)
    return index, b"".join(sorted(texts)), terms.length, terms.numbers, terms.counts


async def find_puts(
    connection: Connection, root: str, puts: Sequence[Put], now: int, base: int
) -> list[Item]:
    """Return what a call has stored whose answer was lost.

    Args:
        connection: to read over.
        root: of the call.
        puts: those of the call.
        now: its instant.
        base: the version of the root before it.
    """
    wanted = [op.path for op in puts], [encode_key(op.key) for op in puts], [False] * len(puts)
    rows = await connection.fetch(statements.GET_STATES, root, *wanted)
    began = {(row[0], row[1]): row[3] for row in rows if row[2] is not None}
    return [
        _item(op, version, min(now, began.get((op.path, encode_key(op.key)), now)), now)
        for version, op in enumerate(puts, base + 1)
    ]


def _item(op: Put, version: int, created_at: int, now: int) -> Item:
    expires = None if op.ttl is None else now + op.ttl
    return pack_item(op.namespace, op.key, op.data, version, created_at, now, expires)
