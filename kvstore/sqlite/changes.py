"""The change feed in the file: its lease, its upkeep, and how a watch reads it.

Writers record changes exactly while `watched_until` is not 0. They never look at a clock for it,
so that what lies between the beginning and the end of a recording has no gaps, whatever clocks
do; a watch that finds its position outside gets an error and never a hole.
"""

from __future__ import annotations

from kvstore.feed import MOST_CHANGES, ChangePage, lease_after
from kvstore.namespace import decode_namespace, is_within
from kvstore.operations import Lease, Trim
from kvstore.patterns import Pattern
from kvstore.sqlite import driver, past, reading, statements
from kvstore.sqlite.connection import snapshot
from kvstore.types import Change, Item

__all__ = ["read_changes", "take_lease", "trim"]

_ROWS_AT_ONCE = 1_000
_BYTES_AT_ONCE = 4 * 2**20  # of values, roughly


def take_lease(connection: driver.Connection, op: Lease, version: int, now: int) -> int:
    """Begin a recording, or prolong the one that there is; return where it begins.

    Args:
        connection: inside a write transaction.
        op: how long for.
        version: of the store, with what this transaction has written so far.
        now: the instant, in microseconds.
    """
    until, begin, last = past.feed_state(connection)
    if until == 0 and last != version:  # something was written that is not there
        begin = version
        connection.execute(statements.SET_META, (begin, "changes_begin"))
    connection.execute(statements.SET_META, (now + op.span, "watched_until"))
    return begin


def trim(connection: driver.Connection, op: Trim, version: int, now: int) -> int:
    """Do a slice of the feed's upkeep; return how many rows went."""
    until, begin, last = past.feed_state(connection)
    if until:
        renewed = lease_after(until, op, now)
        if renewed != until:
            connection.execute(statements.SET_META, (renewed, "watched_until"))
    ended, kept = past.trim(connection, op, version, now)
    if last is None:
        return ended
    rows = connection.execute(statements.GET_OLDEST_CHANGES, (op.limit,)).fetchall()
    oldest, least = now - max(op.history if until or not kept else 0, kept), version - MOST_CHANGES
    least = begin if kept else max(least, begin)
    old = [(row, at) for row, at in rows if at <= oldest or row <= least]
    cut, cut_at = max(old, default=(begin, 0))
    if cut > begin:
        connection.execute(statements.SET_META, (cut, "changes_begin"))
        past.begin_after(connection, cut, cut_at)
    number = connection.execute(statements.DELETE_CHANGES, (cut,)).rowcount
    return max(number, ended)


def read_changes(
    connection: driver.Connection, after: int, path: str, pattern: Pattern, subtree: bool, now: int
) -> ChangePage:
    """Return the next changes after a version, with the items as they are at one instant."""
    with snapshot(connection):
        row = connection.execute(statements.GET_FEED, (now,)).fetchone()
        until, begin, kept, has_expired = reading.own_numbers(row)
        found: list[Change] = []
        position, size = after, 0
        rows = connection.execute(statements.GET_CHANGES, (after, _ROWS_AT_ONCE))
        for position, kind, there, key, at, length in rows:
            if is_within(there, path, subtree) and pattern.matches(key):
                item: Item | None = None
                labels = decode_namespace(there)
                if kind == "put":
                    size += length or 0
                    if kept:
                        items = past.put_of(connection, there, key, position)
                    else:
                        items = reading.get_one(connection, labels, there, key, now)
                    item = items[0] if items else None
                found.append(Change(kind, labels, key, position, past.told_at(at), item))
                if size > _BYTES_AT_ONCE:
                    break
        return ChangePage(found, position, begin, until, bool(has_expired), now)
