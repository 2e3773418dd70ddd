"""Declared filters: the scalars at some paths of each value, in a table of their own, in order.

Triggers keep the table, in whatever way and by whatever store an item is written. A search looks
up there which items of a namespace can pass, and then asks each of those whether it does: so the
table has an entry for everything that passes, and may have more. What comes first in an order is
looked up there, too.

The tables have the entries of a path or they have not, for all roots. A small store gets them when
it is opened, a large one by `reindex`, in both cases by the tables' owner; until then, and where
the tables are spread over machines, which know no triggers, every item is asked.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from struct import pack
from typing import Any

import asyncpg

from kvstore.filters import And, Compare, Contains, Exists, Filter, In, Or, best_lookup
from kvstore.ordering import Order
from kvstore.paths import EACH, Path, parse_path
from kvstore.postgres import filter_statements as sql
from kvstore.postgres import statements
from kvstore.postgres.connection import Connection
from kvstore.postgres.filters import json_path
from kvstore.postgres.roots import lock_root
from kvstore.sql import Sql

__all__ = ["build", "built", "candidates", "find_problems", "first", "prepare", "text_of"]

_LOG = logging.getLogger("kvstore")

_AT_ONCE = 1_000  # items whose entries are made in a transaction, or while a store is opened
_MOST_PARTS = 20  # of an $or that are looked up

# As kvstore_scalar writes them (migrations/postgres/0013_filters.sql)
_NULL, _BOOL, _NUMBER, _STRING, _ORDERLESS, _TEXT = "0", "1", "2", "3", "4", "6"
_MOST_CHARS = 100
_INVERTED = str.maketrans("0123456789abcdef", "fedcba9876543210")


# Making them


async def prepare(connection: Connection, names: Sequence[str]) -> dict[Path, str]:
    """Make the entries that a small store lacks; of others say that they lack them.

    Args:
        connection: outside a transaction.
        names: the paths that are declared.

    Returns:
        What `built` does, afterwards.
    """
    there = await built(connection)
    lacking = _lacking(connection, names, there)
    if not lacking:
        return there
    if not await connection.fetchval(sql.MAY_BUILD):
        how = "the owner of the tables opens the store or calls 'await store.reindex()'"
    elif await connection.fetchval(sql.HAS_MORE, _AT_ONCE):
        how = "'await store.reindex()' has made them"
    else:
        try:
            await _build(connection, lacking, is_patient=False)
            return await built(connection)
        except asyncpg.LockNotAvailableError:  # somebody writes, and goes on doing so
            how = "'await store.reindex()' has made them, as writers are at work"
    _LOG.warning(
        "there are no entries yet for the declared filters %s, which look at every item until %s",
        ", ".join(map(repr, lacking)),
        how,
    )
    return there


async def build(connection: Connection, names: Sequence[str]) -> dict[Path, str]:
    """Make the entries of those paths that have none, if this role may; else as `prepare`."""
    there = await built(connection)
    lacking = _lacking(connection, names, there)
    if not lacking or not await connection.fetchval(sql.MAY_BUILD):
        return there
    await _build(connection, lacking)
    return await built(connection)


async def built(connection: Connection) -> dict[Path, str]:
    """Return the paths that have entries, and their fields, as far as this role may use them."""
    if connection.is_distributed:
        return {}
    async with connection.transaction():  # one server for both, behind a pooler
        if not await connection.fetchval(sql.MAY_LOOK):
            return {}
        rows = await connection.fetch(sql.LIST_BUILT)
    return {parse_path(name): field for field, name in rows}


def _lacking(connection: Connection, names: Sequence[str], there: Mapping[Path, str]) -> list[str]:
    """Return those paths that should have entries, and have not."""
    if connection.is_distributed:
        return []
    return [name for name in names if _place_of(name) is not None and parse_path(name) not in there]


async def _build(
    connection: Connection, lacking: Sequence[str], *, is_patient: bool = True
) -> None:
    """Make the entries of some paths.

    From the first transaction on triggers make those of what is written; then the items that are
    there get theirs, root by root, in slices. What breaks off is gone on with by the next call.

    Args:
        connection: outside a transaction.
        lacking: the paths.
        is_patient: whether to wait for writers as long as a write does; all later ones wait, too.

    Raises:
        LockNotAvailableError: writers kept a lock for too long.
    """
    async with connection.transaction():
        if not is_patient:
            await connection.execute(sql.WAIT_SHORTLY)
        await connection.execute(sql.LOCK_ITEMS)  # who writes has seen no new path yet
        for name in lacking:
            await connection.execute(sql.ADD_FILTER, name, *(_place_of(name) or ()))
        if not await connection.fetchval(sql.HAS_TRIGGERS):
            for statement in sql.CREATE_TRIGGERS:
                await connection.execute(statement)
    for root, _ in await connection.fetch(statements.LIST_ROOTS):
        last: Sequence[str] | None = ("", "")
        while last is not None:
            async with connection.transaction():
                await lock_root(connection, root)
                last = await connection.fetchrow(sql.BUILD, root, *last, _AT_ONCE)
    await connection.execute(sql.SET_BUILT, lacking)


def _place_of(name: str) -> tuple[str, bool] | None:
    """Return where a path leads, in the server's words, and whether to the elements of a list."""
    path = parse_path(name)
    is_list = path[-1:] == (EACH,)
    place = json_path(path[:-1] if is_list else path)
    return None if place is None else (place, is_list)


async def find_problems(connection: Connection) -> list[str]:
    """Hold the entries against the items, if this role sees the entries of all that it sees."""
    if connection.is_distributed or not await connection.fetchval(sql.MAY_LOOK):
        return []
    return [
        f"filters: {number} entries of {name!r} are {'missing' if is_missing else 'of no item'}"
        for name, number, is_missing in await connection.fetch(sql.COUNT_WRONG)
    ]


# Looking up


def candidates(node: Filter, declared: Mapping[Path, str], path: str) -> Sql | None:
    """Select the addresses of all items of a namespace that may pass; `None`: ask every item."""
    match node:
        case Or(parts):
            found = [candidates(part, declared, path) for part in parts]
            known = [each for each in found if each is not None]
            if not 0 < len(known) == len(found) <= _MOST_PARTS:
                return None
            statement = Sql.of("(?)", known[0])
            for each in known[1:]:
                statement += Sql.of("UNION (?)", each)
            return statement
        case And(parts):
            return best_lookup(
                parts,
                lambda part: candidates(part, declared, path),
                lambda compared: _within(compared, declared, path),
            )
        case Compare(_, op) if op != "eq":
            return _within([node], declared, path)
        case Compare(at, _, operand) if at in declared:
            return _equal(declared[at], path, (operand,))
        case In(at, operands) if at in declared:
            return _equal(declared[at], path, operands)
        case Exists(at) if at in declared:
            return sql.entries_that(path, sql.between(declared[at], declared[at] + "9"))
        case Contains(at, operand) if (*at, EACH) in declared:
            others = (_TEXT,) if isinstance(operand, str) else ()
            return _equal(declared[(*at, EACH)], path, (operand,), others)
    return None


def _equal(
    field: str, path: str, operands: Sequence[Any], others: Sequence[str] = ()
) -> Sql | None:
    texts = [text_of(operand) for operand in operands]
    known = [text for text in texts if text is not None]
    if len(known) < len(texts):
        return None
    among = [field + text for text in (*known, *others, sql.UNSURE)]
    return sql.entries_that(path, Sql("scalars.scalar = ANY (?::text[])", (among,)))


def _within(compared: Sequence[Compare], declared: Mapping[Path, str], path: str) -> Sql | None:
    """Lie within bounds of the first one's type; the others are left to the filter itself."""
    field = declared.get(compared[0].path)
    if field is None:
        return None
    texts = [text_of(each.operand) for each in compared]
    kind = (texts[0] or _ORDERLESS)[0]
    if kind not in (_BOOL, _NUMBER, _STRING):
        return None
    low, high = kind, chr(ord(kind) + 1)
    for each, text in zip(compared, texts, strict=True):
        if text is None or text[0] != kind:
            continue
        if each.op in ("gt", "gte"):
            low = max(low, text)
        else:
            high = min(high, text)
    inside = sql.entries_that(path, sql.between(field + low, field + high))
    unsure = sql.entries_that(path, Sql("scalars.scalar = ?", (field + sql.UNSURE,)))
    return inside + Sql("UNION ALL") + unsure


def first(order: Order, declared: Mapping[Path, str], path: str, count: int) -> Sql | None:
    """Select the addresses of the items of a namespace that come first, and perhaps some more."""
    if isinstance(order.by, str) or order.by not in declared:
        return None
    return sql.first_entries(declared[order.by], path, order.descends, count)


def text_of(operand: object) -> str | None:
    """Write what an entry has of a scalar, as kvstore_scalar does; `None`: no text can say it."""
    match operand:
        case None:
            return _NULL
        case bool():
            return _BOOL + ("t" if operand else "f")
        case int() | float():
            bits = pack(">d", operand or 0).hex()  # of the two zeros the server has one
            return _NUMBER + ("n" + bits.translate(_INVERTED) if operand < 0 else "p" + bits)
        case str():
            return None if "\x00" in operand else _STRING + operand[:_MOST_CHARS]
    return _ORDERLESS
