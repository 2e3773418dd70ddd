"""Reads: from rows to items. Each takes a connection of the pool, and runs on it alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from kvstore import codec
from kvstore.backend import NamespaceQuery, Page, Span
from kvstore.errors import StoreCorruptError
from kvstore.filters import Filter, matches
from kvstore.namespace import decode_namespace, encode_namespace, show
from kvstore.operations import Record
from kvstore.patterns import Pattern
from kvstore.postgres import statements
from kvstore.postgres.connection import Connection, snapshot
from kvstore.postgres.filters import compile_filter
from kvstore.postgres.keys import Address, decode_key, encode_key, root_of
from kvstore.rules import unpack_indexing
from kvstore.sql import Sql
from kvstore.types import Item, Namespace, make_item

__all__ = [
    "count",
    "fetch",
    "fetch_each",
    "get_by_address",
    "get_many",
    "get_one",
    "get_points",
    "item_of",
    "keys",
    "list_namespaces",
    "make",
    "matching_addresses",
    "page",
    "record_of",
    "records",
]

_MOST_ROOTS = 1_000  # on several machines that are asked one by one for their namespaces


async def fetch(connection: Connection, statement: Sql) -> list[Any]:
    """Run a statement that was put together of pieces."""
    rows: list[Any] = await connection.fetch(statement.render(), *statement.params)
    return rows


async def fetch_each(
    connection: Connection, across: str, under: str, addresses: Sequence[Address], *rest: Any
) -> list[tuple[Any, ...]]:
    """Run a statement for some addresses; its rows begin with the number of one, from 1 on.

    Args:
        connection: over which.
        across: the statement for addresses of any roots.
        under: that for those of one, which each machine gets of which rows are distributed.
        addresses: for which.
        rest: of the parameters.
    """
    if not connection.is_distributed:
        paths, keys = [path for path, _ in addresses], [key for _, key in addresses]
        roots = list(map(root_of, paths))
        return list(map(tuple, await connection.fetch(across, roots, paths, keys, *rest)))
    by_root: dict[str, list[int]] = {}
    for at, (path, _) in enumerate(addresses):
        by_root.setdefault(root_of(path), []).append(at)
    found = []
    for root, places in by_root.items():
        here = zip(*(addresses[at] for at in places), strict=True)
        for number, *row in await connection.fetch(under, root, *here, *rest):
            found.append((places[number - 1] + 1, *row))
    return found


def item_of(namespace: Namespace, key: str, row: Sequence[Any]) -> Item:
    """As `make`, of an address that is decoded already."""
    value, version, created_at, updated_at, expires_at = row
    try:
        decoded = codec.decode(value.encode())
    except StoreCorruptError as exc:
        raise StoreCorruptError(
            f"the value of {show(namespace, key)} is not the JSON that kvstore writes; restore it "
            "from a backup, or put it anew"
        ) from exc
    return make_item(namespace, key, decoded, version, created_at, updated_at, expires_at)


def make(path: str, key: str, row: Sequence[Any]) -> Item:
    """Make an item of a row: value, version, created, updated, expires.

    Raises:
        StoreCorruptError: the row is not as it was written.
    """
    return item_of(decode_namespace(path), decode_key(key), row)


async def get_one(
    connection: Connection, now: int, namespace: Namespace, path: str, key: str
) -> list[Item]:
    """Return the live item in a list, or an empty one."""
    row = await connection.fetchrow(statements.GET, root_of(path), path, encode_key(key), now)
    return [] if row is None else [item_of(namespace, key, row)]


async def get_points(
    connection: Connection, now: int, points: Sequence[tuple[Namespace, str, str]]
) -> list[list[Item] | StoreCorruptError]:
    """Return, for each address, the live item in a list, an empty one, or what is wrong."""
    answers: list[list[Item] | StoreCorruptError] = [[] for _ in points]
    addresses = [(path, encode_key(key)) for _, path, key in points]
    for at, *row in await fetch_each(
        connection, statements.GET_POINTS, statements.GET_POINTS_UNDER, addresses, now
    ):
        namespace, _, key = points[at - 1]
        try:
            answers[at - 1] = [item_of(namespace, key, row)]
        except StoreCorruptError as exc:
            answers[at - 1] = exc
    return answers


async def get_many(
    connection: Connection, now: int, namespace: Namespace, path: str, keys: Sequence[str]
) -> list[Item]:
    """Return the live items among `keys`."""
    wanted = [encode_key(key) for key in keys]
    rows = await connection.fetch(statements.GET_MANY, root_of(path), path, wanted, now)
    return [item_of(namespace, decode_key(row[1]), tuple(row)[2:]) for row in rows]


async def get_by_address(
    connection: Connection, now: int, addresses: Sequence[Address]
) -> dict[Address, Item]:
    """Return the live items at some addresses."""
    points = statements.GET_POINTS, statements.GET_POINTS_UNDER
    rows = await fetch_each(connection, *points, addresses, now)
    found = {}
    for number, *row in rows:
        path, key = addresses[number - 1]
        found[path, key] = make(path, key, row)
    return found


async def items_before(
    connection: Connection, now: int, places: Sequence[tuple[str, str]]
) -> list[Item | None]:
    """Return the live item before each path and key, in its namespace."""
    found: list[Item | None] = [None] * len(places)
    encoded = [(path, encode_key(key)) for path, key in places]
    for number, path, key, *row in await fetch_each(
        connection, statements.GET_BEFORE, statements.GET_BEFORE_UNDER, encoded, now
    ):
        found[number - 1] = make(path, key, row)
    return found


async def list_namespaces(
    connection: Connection, now: int, asked: NamespaceQuery, limit: int | None, offset: int
) -> list[Namespace]:
    """Return the namespaces that match, cut, distinct, sorted and paged."""
    root = encode_namespace(asked.root)
    parts = [(root, True)]
    if connection.is_distributed and not root:  # a root namespace lies in no other's subtree
        roots = await connection.fetch(statements.LIST_ROOTS)
        parts = [(root, bool(root)) for root, _ in roots]
    if asked.max_depth is None or asked.suffix or len(asked.prefix) > asked.max_depth:
        cut = asked.cut(map(decode_namespace, await _paths(connection, parts, now)))
    else:
        most = None if limit is None else offset + limit
        cut = []
        async with snapshot(connection):
            for part in parts:
                left = None if most is None else most - len(cut)
                below = _skip_below(connection, part, asked, asked.max_depth, left, now)
                cut += [labels async for labels in below]
    return cut[offset:][:limit]


async def _paths(connection: Connection, parts: Sequence[tuple[str, bool]], now: int) -> list[str]:
    """Return the paths that hold live items in some namespaces or their subtrees."""
    if len(parts) > _MOST_ROOTS:
        return [path for path, _ in await fetch(connection, statements.scan_paths(now))]
    found: list[str] = []
    for path, subtree in parts:
        if subtree:
            statement = statements.list_paths(path, now)
        else:
            statement = statements.first_live_path(path, path, now, subtree=False)
        found += [row[0] for row in await fetch(connection, statement)]
    return found


async def _skip_below(
    connection: Connection,
    part: tuple[str, bool],
    asked: NamespaceQuery,
    max_depth: int,
    most: int | None,
    now: int,
) -> AsyncIterator[Namespace]:
    """Yield the namespaces cut to a depth, jumping over all that lies below each."""
    root, subtree = part
    low = root
    number = 0
    while most is None or number < most:
        statement = statements.first_live_path(low, root, now, subtree=subtree)
        path = await connection.fetchval(statement.render(), *statement.params)
        if path is None:
            return
        labels, low = asked.listed(path, max_depth, "\x01")
        if labels is not None:
            yield labels
            number += 1


async def keys(connection: Connection, now: int, span: Span, limit: int | None) -> list[str]:
    """Return the keys of a span, in its order."""
    found = await matching_addresses(connection, span, limit, now)
    return [decode_key(key) for _, key in found]


async def matching_addresses(
    connection: Connection, span: Span, limit: int | None, now: int
) -> list[Address]:
    """Return the addresses of a span's items, in its order."""
    statement, exact = statements.select_addresses(
        span, now, limit, is_distributed=connection.is_distributed
    )
    rows = await fetch(connection, statement)
    if exact:
        return [(row[0], row[1]) for row in rows]
    found = [(row[0], row[1]) for row in rows if span.pattern.matches(decode_key(row[1]))]
    return found[:limit]


async def count(
    connection: Connection, now: int, path: str, pattern: Pattern, subtree: bool
) -> int:
    """Count the matching items."""
    statement = statements.count(
        path, subtree, pattern, now, is_distributed=connection.is_distributed
    )
    if statement is None:
        return len(await matching_addresses(connection, Span(path, pattern, subtree), None, now))
    number: int = await connection.fetchval(statement.render(), *statement.params)
    return number


async def page(connection: Connection, now: int, span: Span, filter: Filter, limit: int) -> Page:
    """Return the first piece of a span."""
    matching, exact = statements.key_matches(span.pattern)
    statement = statements.select_page(span, matching, compile_filter(filter), now, limit)
    rows = await fetch(connection, statement)
    items = [
        item
        for row in rows
        if row[2] is not None
        and (exact or span.pattern.matches(decode_key(row[1])))
        and matches(filter, (item := make(row[0], row[1], tuple(row)[2:])).value)
    ]
    end = None if len(rows) < limit else (rows[-1][0], decode_key(rows[-1][1]))
    return Page(items, end)


async def records(
    connection: Connection, now: int, path: str, after: tuple[str, str] | None, limit: int
) -> tuple[list[Record], tuple[str, str] | None]:
    """Return the next piece of a subtree's live records, and where the one after it begins."""
    rows = await fetch(connection, statements.select_records(path, now, after, limit))
    found = [record_of(row) for row in rows]
    return found, (found[-1].path, found[-1].key) if len(rows) == limit else None


def record_of(row: Sequence[Any]) -> Record:
    """Return the record of a row: path, key, `ROW`, ttl, indexing."""
    path, key, value, version, created_at, updated_at, expires_at, ttl, indexing = row
    return Record(
        path,
        decode_key(key),
        value.encode(),
        version,
        created_at,
        updated_at,
        expires_at,
        ttl,
        unpack_indexing(indexing),
    )
