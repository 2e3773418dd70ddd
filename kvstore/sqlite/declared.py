"""Declared filters: the scalars at some paths of each value, in a table of their own, in order.

Triggers keep the table, in whatever way and by whatever store an item is written. A search looks
up there which items can pass, and then asks each of those whether it does, as it would without:
so the table must have an entry for everything that passes, and may have more. Of what has no
order of its own (lists, objects, `bytes`) it has but the fact that something is there; a value in
which names may hold a NUL is always asked. What comes first in an order is looked up there, too.

A file has the entries of a path or it has not; `meta` says which, as `filters`. A small file gets
them when it is opened, a large one by `reindex`, and until then every item is asked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson

from kvstore.caching import cache_short
from kvstore.errors import StoreCorruptError
from kvstore.ordering import Order
from kvstore.paths import Path, parse_path
from kvstore.sql import Sql
from kvstore.sqlite import driver, statements
from kvstore.sqlite import filter_statements as sql
from kvstore.sqlite.connection import transaction
from kvstore.sqlite.filters import CAN_DECLARE
from kvstore.sqlite.openfile import OpenFile

__all__ = ["build", "built", "find_problems", "first", "missing", "prepare"]

_LOG = logging.getLogger("kvstore")

_AT_ONCE = 1_000  # items whose entries are made while a file is opened


def _names(connection: driver.Connection) -> list[str]:
    row = connection.execute(sql.GET_NAMES).fetchone()
    return [] if row is None else _parse_names(row[0])


@cache_short(64, 10_000)
def _parse_names(text: str) -> list[str]:
    try:
        names: list[str] = orjson.loads(text)
        for name in names:
            parse_path(name)
    except (AttributeError, TypeError, ValueError) as exc:
        raise StoreCorruptError(
            "the list of declared filters in the file is damaged; restore it from a backup"
        ) from exc
    return names


def built(connection: driver.Connection) -> dict[Path, int]:
    """Return the paths that the file has entries of, and their numbers there."""
    if not CAN_DECLARE:
        return {}
    return {parse_path(name): number for number, name in enumerate(_names(connection))}


def build(connection: driver.Connection, names: Iterable[str]) -> None:
    """Make the entries of those paths that have none, inside a write transaction."""
    lacking = missing(connection, names) if CAN_DECLARE else []
    if not lacking:
        return
    there = [*_names(connection)]
    for name in lacking:
        place = sql.place_of(parse_path(name))
        assert place is not None
        if not there:
            connection.execute(sql.CREATE_TABLE)
        number = len(there)
        there.append(name)
        statement = sql.ADD_ENTRIES.format(entries=sql.entries(number, place))
        connection.execute(statement)
        for statement in sql.triggers_of(number, place).values():
            connection.execute(statement)
    connection.execute(statements.PUT_META, ("filters", orjson.dumps(there).decode()))


def missing(connection: driver.Connection, names: Iterable[str]) -> list[str]:
    """Return those paths that a file should have entries of, and has not."""
    there = _names(connection)
    return [
        name for name in names if name not in there and sql.place_of(parse_path(name)) is not None
    ]


def first(connection: driver.Connection, path: str, order: Order, most: int) -> Sql | None:
    """Select the ids of the items of a namespace that come first in an order, if entries tell.

    Args:
        connection: inside a snapshot.
        path: of the namespace.
        order: what they are ordered by first of all.
        most: how many ids are enough.
    """
    number = None if isinstance(order.by, str) else built(connection).get(order.by)
    if number is None:
        return None

    def ask(statement: Sql) -> Any:
        row = driver.run(connection, statement).fetchone()
        return None if row is None else row[0]

    return sql.first_entries(number, path, order.descends, most, ask)


def prepare(
    connection: driver.Connection, names: Sequence[str], timeout: float, file: OpenFile
) -> None:
    """Make the entries that a small file lacks; of a large one say that it lacks them."""
    if _older_triggers(connection):
        with transaction(connection, timeout, file):
            for name, statement in _older_triggers(connection).items():
                connection.execute(sql.DROP_TRIGGER.format(name=name))
                connection.execute(statement)
    lacking = missing(connection, names)
    if not lacking:
        return
    if connection.execute(sql.HAS_MORE, (_AT_ONCE,)).fetchone():
        _LOG.warning(
            "%s has no entries yet for the declared filters %s, which look at every item until "
            "'await store.reindex()' has made them",
            *(file.path, ", ".join(map(repr, lacking))),
        )
        return
    with transaction(connection, timeout, file):
        build(connection, names)


def _older_triggers(connection: driver.Connection) -> dict[str, str]:
    """Return what is to replace those triggers of a file that are not made as they are now."""
    wanted: dict[str, str] = {}
    for number, name in enumerate(_names(connection)):
        place = sql.place_of(parse_path(name))
        wanted |= {} if place is None else sql.triggers_of(number, place)
    made = dict(connection.execute(sql.GET_TRIGGERS)) if wanted else {}
    return {name: text for name, text in wanted.items() if made.get(name) != text}


def find_problems(connection: driver.Connection) -> Iterator[str]:
    """Hold the entries against the items."""
    for number, name in enumerate(_names(connection)):
        place = sql.place_of(parse_path(name))
        if place is None:
            continue
        held = sql.HELD_ENTRIES.format(field=number)
        wanted = sql.entries(number, place)
        for one, other, what in ((wanted, held, "are missing"), (held, wanted, "are no item's")):
            statement = sql.COUNT_OTHERS.format(some=one, others=other)
            (count,) = connection.execute(statement).fetchone()
            if count:
                yield f"filters: {count} entries of {name!r} {what}"
