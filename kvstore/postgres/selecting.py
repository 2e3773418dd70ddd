"""Searches without a ranking: what passes a filter and has a text, latest first or in an order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kvstore.backend import Selection
from kvstore.filters import ALL, matches
from kvstore.ordering import first_items
from kvstore.paths import Path
from kvstore.postgres import declared, filter_statements, statements
from kvstore.postgres.connection import Connection, snapshot
from kvstore.postgres.filters import compile_filter, compile_text, is_exact
from kvstore.postgres.reading import fetch, make
from kvstore.sql import Sql, all_of
from kvstore.text import contains
from kvstore.types import Item

__all__ = ["select"]

_AT_ONCE = 100  # rows that a search looks at before it asks for more
_MOST_SKIPPED = 1_000  # rows of an offset that are fetched, only to be left out
_MOST_AMONG = 10_000  # items that are looked up one by one; to look at all is as quick for more
_EVERYTHING = 2**63 - 1


async def select(
    connection: Connection, now: int, path: str, selection: Selection, known: Mapping[Path, str]
) -> list[Item]:
    """Return the live items that pass, in the order that is asked for.

    Args:
        connection: over which.
        now: the present instant.
        path: of the namespace.
        selection: what is asked for.
        known: the paths that have entries, as `declared.built` has it.
    """
    orders = selection.orders
    begin, end = selection.offset, selection.offset + selection.limit
    if known and not selection.subtree:
        found = await _among(connection, now, path, selection, known)
        if found is not None:
            return (first_items(found, orders, end) if orders else found)[begin:end]
    if not orders:
        return await _latest(connection, now, path, selection)
    everything = replace(selection, limit=_EVERYTHING, offset=0)
    found = await _latest(connection, now, path, everything)
    return first_items(found, orders, end)[begin:]


async def _among(
    connection: Connection, now: int, path: str, selection: Selection, known: Mapping[Path, str]
) -> list[Item] | None:
    """Return those that pass, latest first, of the few that can be asked for; `None`: of all."""
    addresses = declared.candidates(selection.filter, known, path)
    end, least = selection.offset + selection.limit, 0
    if addresses is None and selection.orders and end <= _MOST_SKIPPED:
        some = 4 * end + _AT_ONCE  # as some may have expired, or not pass
        addresses, least = declared.first(selection.orders[0], known, path, some), end
    if addresses is None:
        return None
    condition = all_of([_condition(selection), statements.live(now)])
    statement = filter_statements.items_among(path, addresses, condition, _MOST_AMONG)
    rows = await fetch(connection, statement)
    if rows[0]["number"] > _MOST_AMONG:
        return None
    found = list(_passing((tuple(row)[1:] for row in rows if row["key"] is not None), selection))
    return None if len(found) < least else found


def _condition(selection: Selection) -> Sql:
    return all_of([compile_filter(selection.filter), compile_text(selection.text)])


async def _latest(connection: Connection, now: int, path: str, selection: Selection) -> list[Item]:
    """Return the live items that pass, latest first, by a look at all."""
    filter, text = selection.filter, selection.text
    statement = statements.select_latest(path, selection.subtree, _condition(selection), now)
    limit, offset = selection.limit, selection.offset
    if filter == ALL and text is None:
        rows = await fetch(connection, statement + Sql("LIMIT ? OFFSET ?", (limit, offset)))
        return [make(row[0], row[1], tuple(row)[2:]) for row in rows]
    end = offset + limit
    if text is None and is_exact(filter) and end <= _MOST_SKIPPED:
        rows = await fetch(connection, statement + Sql("LIMIT ?", (end,)))
        found = list(_passing(rows, selection))
        if len(found) == len(rows):
            return found[offset:]
    passed = 0
    items: list[Item] = []
    async with snapshot(connection):
        cursor = await connection.cursor(statement.render(), *statement.params)
        while len(items) < limit and (rows := await cursor.fetch(_AT_ONCE)):
            for item in _passing(rows, selection):
                passed += 1
                if passed > offset:
                    items.append(item)
    return items[:limit]


def _passing(rows: Iterable[Sequence[Any]], selection: Selection) -> Iterator[Item]:
    for row in rows:
        item = make(row[0], row[1], tuple(row)[2:])
        if matches(selection.filter, item.value) and (
            selection.text is None or contains(item.key, item.value, selection.text)
        ):
            yield item
