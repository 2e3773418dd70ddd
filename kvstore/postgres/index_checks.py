"""The search index held against the items: what waits to be indexed, and what is damaged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson

from kvstore import codec
from kvstore.description import Description
from kvstore.index_plan import codes_in, has_own, is_as_wanted, texts_of_row
from kvstore.namespace import decode_namespace, show
from kvstore.postgres import index_statements as sql
from kvstore.postgres.connection import Connection, snapshot
from kvstore.postgres.indexing import embeds, vectors_table
from kvstore.postgres.keys import decode_key
from kvstore.postgres.scalars import scalars_of
from kvstore.report import WAITS

__all__ = ["count_pending", "find_problems", "find_waiting"]

_ROWS_AT_ONCE = 500


async def count_pending(connection: Connection) -> int:
    """Return how many items are marked for `reindex`."""
    number: int = await connection.fetchval(sql.COUNT_PENDING)
    return number


async def find_waiting(connection: Connection) -> list[str]:
    """Name items of which the index does not hold everything yet."""
    rows = await connection.fetch(sql.FIND_WAITING)
    return [f"{show(decode_namespace(path), decode_key(key))} {WAITS}" for path, key in rows]


async def find_problems(connection: Connection) -> list[str]:
    """Hold the index against the items."""
    async with snapshot(connection):
        described = {
            root: Description.parse(text)
            for root, text in await connection.fetch(sql.LIST_DESCRIPTIONS)
        }
        if not described:
            return []
        problems = []
        async for rows in _slices(connection, sql.GET_CHECKED):
            problems += [
                problem
                for root, *row in rows
                if root in described and (problem := _problem(row, described[root]))
            ]
        lengths = {each.dimensions for each in described.values() if each.dimensions is not None}
        tables = ["kvstore_entries", "kvstore_facts", "kvstore_pending"]
        for table in tables + [vectors_table(length) for length in sorted(lengths)]:
            number = await connection.fetchval(sql.COUNT_ORPHANS.format(table=table))
            if number:
                problems.append(f"index: {number} rows of {table} belong to no item")
        for (root,) in await connection.fetch(sql.FIND_MISCOUNTED):
            where = show(decode_namespace(root))
            problems.append(f"index: the numbers of words of {where} are not those of its entries")
        return problems


async def _slices(connection: Connection, statement: str) -> AsyncIterator[list[Any]]:
    """Yield the rows of a statement in lists, inside a transaction."""
    cursor = await connection.cursor(statement)
    while rows := await cursor.fetch(_ROWS_AT_ONCE):
        yield rows


def _problem(row: Sequence[Any], description: Description) -> str | None:
    """Say what is wrong with one item's entries."""
    path, key, value, indexing, held, scalars, is_pending = row
    if is_pending:
        return None
    paths = None if indexing is None else orjson.loads(indexing)
    decoded = codec.decode(value.encode())
    texts, codes = texts_of_row(decoded, paths, description), codes_in(held or b"")
    where = f"index: {show(decode_namespace(path), decode_key(key))}"
    if not is_as_wanted(codes, texts) or (texts and held is None):
        return f"{where} is not indexed as it is, and not marked for reindex"
    has_scalars = has_own(codes) or (texts and embeds(description))
    if scalars != (scalars_of(decoded) if has_scalars else None):
        return f"{where} has other scalars than the index says"
    return None
