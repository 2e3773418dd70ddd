"""Large namespaces: the order of their versions, and how many items they have.

To find the latest items of a namespace, or to count it, is to look at all of it. An index by the
version that each namespace has would do away with that, and take a third of the time of each put
more. So it is made for those large namespaces alone that are asked for their latest items, or for
their number, more than once. Triggers keep it from there on, whoever writes; a put into such a
namespace then takes some 10 µs more, and into another one next to nothing.

It is made in slices, in key order, each behind one of the slow searches: so none waits for long,
no lock is kept for long, and what is asked for but once costs nothing. `until` says how far it is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from kvstore.errors import StoreError
from kvstore.namespace import decode_namespace, show
from kvstore.sql import Sql
from kvstore.sqlite import driver, statements
from kvstore.sqlite import large_statements as sql
from kvstore.sqlite.connection import transaction, translated
from kvstore.sqlite.openfile import OpenFile

__all__ = ["LARGE", "Asked", "extend", "find_problems", "latest", "number"]

_LOG = logging.getLogger("kvstore")

LARGE = 4_000  # items of a namespace that are looked through in less than a millisecond
_SLICE = 50_000  # items taken in at once: some 40 ms
_OFTEN = 2  # times that a namespace is looked through before it is worth it
_SELDOM = 15  # searches of a namespace that was small, until it is looked at again
_MOST_ASKED = 1_000  # namespaces that are remembered


class Asked:
    """The large namespaces that a store was asked about, and had to look through."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}
        self._small: dict[str, int] = {}  # and how many more searches will take that for granted
        self._due: str | None = None

    def look(self, connection: driver.Connection, path: str) -> None:
        """Take note of a namespace that is looked through, if it is large."""
        if left := self._small.get(path, 0):
            self._small[path] = left - 1
        elif connection.execute(sql.HAS_MORE, (path, LARGE)).fetchone():
            self.note(path)
        else:
            if len(self._small) >= _MOST_ASKED:
                self._small = {}
            self._small[path] = _SELDOM

    def note(self, path: str) -> None:
        """Take note that a large namespace was looked through; any thread may call this."""
        times = self._times[path] = self._times.get(path, 0) + 1
        if times >= _OFTEN:
            self._due = path
        elif len(self._times) > _MOST_ASKED:
            self._times = {}

    def take(self) -> str | None:
        """Return a namespace of which the next slice is due, if there is one, but once."""
        due, self._due = self._due, None
        return due


def latest(
    connection: driver.Connection, path: str, most: int, asked: Asked | None
) -> tuple[Sql, bool] | None:
    """Select the ids of the latest items of a namespace, if it is one whose order is kept.

    Args:
        connection: inside a snapshot.
        path: of the namespace.
        most: how many ids are enough.
        asked: takes note, if it is not kept.

    Returns:
        The statement, and whether it gives all items of the namespace.
    """
    kept = _kept(connection, path)
    if kept is not None:
        return sql.latest(path, most), kept <= most
    if asked is not None:
        asked.look(connection, path)
    return None


def number(connection: driver.Connection, path: str, now: int, asked: Asked | None) -> int:
    """Count the live items of a namespace, inside a snapshot."""
    kept = _kept(connection, path)
    if kept is None:
        counted = statements.count_all(path, subtree=False, now=now)
        found: int = driver.run(connection, counted).fetchone()[0]
        if asked is not None and found > LARGE:
            asked.note(path)
        return found
    (expired,) = connection.execute(statements.COUNT_EXPIRED, (now, path)).fetchone()
    return int(kept - expired)


def _kept(connection: driver.Connection, path: str) -> int | None:
    """Return how many rows a namespace has whose order is kept."""
    if connection.execute(sql.IS_MADE).fetchone() is None:
        return None
    row = connection.execute(sql.GET_NAMESPACE, (path,)).fetchone()
    return None if row is None or row[1] is not None else int(row[0])


def extend(connection: driver.Connection, path: str, file: OpenFile) -> None:
    """Take the next slice of a namespace in; where that fails, things stay as they are.

    A search waits for it, so that it waits for no other process itself.
    """
    try:
        with translated(file.path), transaction(connection, 0, file):
            _extend(connection, path)
    except StoreError as exc:  # busy or full: the search has had its answer
        where = show(decode_namespace(path))
        _LOG.info("the order of the versions of %s cannot be kept yet: %s", where, exc)


def _extend(connection: driver.Connection, path: str) -> None:
    if connection.execute(sql.IS_MADE).fetchone() is None:
        for statement in sql.CREATE:
            connection.execute(statement)
    row = connection.execute(sql.GET_NAMESPACE, (path,)).fetchone()
    if row is not None and row[1] is None:
        return
    after = None if row is None else row[1]
    end = driver.run(connection, sql.end_of_slice(path, after, _SLICE)).fetchone()
    until = None if end is None else end[0]
    added = driver.run(connection, sql.add_slice(path, after, until)).rowcount
    connection.execute(sql.SET_NAMESPACE, (path, added, until))


def find_problems(connection: driver.Connection) -> Iterator[str]:
    """Hold what is kept against the items."""
    if connection.execute(sql.IS_MADE).fetchone() is None:
        return
    for path, items, until in connection.execute(sql.GET_NAMESPACES).fetchall():
        missing, strange, there = connection.execute(sql.COUNT_OTHERS, (path, until)).fetchone()
        where = f"the order of the versions of {show(decode_namespace(path))}"
        if missing or strange:
            yield f"{where}: {missing} items are missing, and {strange} entries are no item's"
        if items != there:
            yield f"{where}: it has {there} entries, and is said to have {items}"
