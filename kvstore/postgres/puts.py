"""Puts without conditions, of different items, by one call: under one root, or under several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from kvstore.index_plan import texts_of_put
from kvstore.operations import Put
from kvstore.postgres import statements
from kvstore.postgres.channels import Try
from kvstore.postgres.codes import Terms
from kvstore.postgres.connection import Connection
from kvstore.postgres.keys import encode_key
from kvstore.postgres.workspace import Fetch, Stamp
from kvstore.rules import pack_indexing
from kvstore.types import Item, pack_item

__all__ = ["find_puts", "put_one", "put_plain", "put_roots", "words_of"]

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
    patience = connection.patience
    rows = await connection.fetch(
        statements.PUT if patience is None else statements.PUT_SOON, root, *_texts_of(puts),
        *_lifetimes_of(puts, now), len(puts), now, at_least, *stamp,
        *(() if patience is None else (patience,)),
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


async def put_roots(
    fetch: Fetch,
    puts: Mapping[str, Sequence[Put]],
    tries: Sequence[Try],
    at_least: int,
    writer: int,
) -> dict[str, list[Item]]:
    """As `put_plain`, under each of several roots for which nobody has to be waited for.

    What an earlier try has done is not done again.

    Args:
        fetch: that of a connection for writing.
        puts: by root.
        tries: the earlier ones, and this one; who learns whether somebody watches.
        at_least: see there.
        writer: of the tries.

    Returns:
        The items as stored, by root. The roots that are not there were left out.
    """
    all_puts = [op for some in puts.values() for op in some]
    sizes = [len(some) for some in puts.values()]
    places = [place for place, some in enumerate(puts.values(), 1) for _ in some]
    by_number = {each.number: each for each in tries}
    attempt = tries[-1]
    now = attempt.now
    rows = await fetch(
        statements.PUT_ROOTS, _BEFORE.join(["", *puts]), sizes, [0, *accumulate(sizes[:-1])],
        *_texts_of(all_puts), places, *_lifetimes_of(all_puts, now), now, at_least,
        writer, tries[0].number, attempt.number,
    )  # fmt: skip
    found: dict[str, dict[int, tuple[int, int | None]]] = {}
    for root, number, version, created_at, is_watched in rows:
        found.setdefault(root, {})[version] = number, created_at
        attempt.is_news = attempt.is_news or is_watched
    return {
        root: [
            _item_of(op, version, *done[version], by_number, attempt)
            for version, op in enumerate(puts[root], min(done))
        ]
        for root, done in found.items()
    }


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


def _texts_of(puts: Sequence[Put]) -> tuple[str, str, str]:
    """Return paths, keys and values, as the functions of the server take them."""
    return (
        _BEFORE.join(["", *[op.path for op in puts]]),
        _BEFORE.join(["", *[encode_key(op.key) for op in puts]]),
        _BEFORE_BYTES.join([b"", *[op.data for op in puts]]).decode(),
    )


def _lifetimes_of(puts: Sequence[Put], now: int) -> Sequence[Any]:
    """Return when they end, their lifetimes, and what is to be indexed, likewise."""
    if all(op.ttl is None and op.indexing is None for op in puts):
        return None, None, None
    return (
        [None if op.ttl is None else now + op.ttl for op in puts],
        [op.ttl for op in puts],
        [pack_indexing(op.indexing) for op in puts],
    )


def _item_of(
    op: Put, version: int, number: int, created_at: int | None, tries: Mapping[int, Try], last: Try
) -> Item:
    """Return what one of several tries has stored; an earlier one's may be another item by now."""
    now = tries[number].now
    if created_at is None:
        created_at = now
    elif number != last.number:
        created_at = min(now, created_at)
    return _item(op, version, created_at, now)


def _item(op: Put, version: int, created_at: int, now: int) -> Item:
    expires = None if op.ttl is None else now + op.ttl
    return pack_item(op.namespace, op.key, op.data, version, created_at, now, expires)
