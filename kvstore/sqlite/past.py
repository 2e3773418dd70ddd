"""The past in the file: how it is begun, trimmed, and read.

Reads look first, and then whether the moment is still kept: what is kept only ever begins later,
so what was read is whole if the moment is there afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from kvstore.backend import Span
from kvstore.instants import to_datetime
from kvstore.namespace import decode_namespace
from kvstore.operations import Keep, Record, Trim
from kvstore.past import Kept, Moment
from kvstore.past_view import changes_of, item_of
from kvstore.sqlite import driver, reading, statements
from kvstore.sqlite import past_statements as sql
from kvstore.sqlite.connection import snapshot
from kvstore.types import Change, Item

__all__ = [
    "begin_after",
    "changed_since",
    "feed_state",
    "find_moment",
    "get_few",
    "get_many",
    "history",
    "keep",
    "last_instant",
    "page",
    "put_of",
    "read_kept",
    "require",
    "then",
    "told_at",
    "trim",
]

_BYTES_AT_ONCE = 16 * 2**20  # of values that go in one slice
_EVERYTHING = 2**62


# Write


def keep(connection: driver.Connection, op: Keep, version: int, now: int) -> None:
    """Begin to keep the past, or go on.

    Args:
        connection: inside a write transaction, to which all changes so far are written.
        op: for how long.
        version: of the store, with what this transaction has written so far.
        now: the instant, in microseconds.
    """
    execute = connection.execute
    span, until, _ = _span(connection)
    if not span:
        watched_until, _, last = feed_state(connection)
        if not watched_until and last != version:  # something was written that is not there
            execute(statements.SET_META, (version, "changes_begin"))
        _begin(connection, version, max(now, last_instant(connection)))
        execute(sql.STRIP_ALL)
    if op.span > span or until < now:
        span = op.span
        execute(statements.SET_META, (span, "history"))
    if op.span >= span:
        execute(statements.SET_META, (now + op.span, "history_until"))


def feed_state(connection: driver.Connection) -> tuple[int, int, int | None]:
    """Return until when changes are noted, where they begin, and the version of the last one."""
    until, begin, last = connection.execute(statements.GET_FEED_STATE).fetchone()
    reading.own_numbers((until, begin))
    return until, begin, last


def _span(connection: driver.Connection) -> Sequence[int]:
    """Return for how long the past is kept, until when that holds, and where it begins."""
    return reading.own_numbers(connection.execute(sql.GET_SPAN).fetchone())


def _begin(connection: driver.Connection, version: int, instant: int) -> None:
    connection.execute(statements.SET_META, (version, "history_begin"))
    connection.execute(statements.SET_META, (instant, "history_begin_at"))


def trim(connection: driver.Connection, op: Trim, version: int, now: int) -> tuple[int, int]:
    """Do a slice of the upkeep; return how many rows it looked at, and how long the rest is kept.

    What was goes out of the rows; whether the changes go, too, is the feed's affair.
    """
    execute = connection.execute
    if op.keeps is not None:
        keep(connection, Keep(op.keeps), version, now)
    span, until, begin = _span(connection)
    if span and until < now:
        span = 0
        execute(statements.SET_META, (0, "history"))
    oldest = now - span if span else _EVERYTHING
    cut: tuple[int, int] | None = None
    size = number = stripped = 0
    rows = execute(sql.GET_OLDEST, (begin, op.limit)).fetchall()
    for ended, at, length in rows:
        if at > oldest:
            break
        cut = ended, at
        number += 1
        if length is not None:
            stripped, size = stripped + 1, size + length
        if size > _BYTES_AT_ONCE:
            number = op.limit  # there is more to do
            break
    if cut is not None:
        if stripped:
            execute(sql.STRIP_UP_TO, (begin, cut[0]))
        _begin(connection, *cut)
    return number, span


def begin_after(connection: driver.Connection, version: int, at: int) -> None:
    """Take note that the changes up to a version are not kept any more."""
    if _span(connection)[2] < version:
        _begin(connection, version, at)


def last_instant(connection: driver.Connection) -> int:
    """Return the instant of the last change that is known; none comes before it."""
    (instant,) = reading.own_numbers(connection.execute(sql.GET_LAST_INSTANT).fetchone())
    return instant


# Read


def read_kept(connection: driver.Connection, version: int = 0) -> tuple[Kept, int | None]:
    """Return how much is kept, and the instant of the first change after a version, if any."""
    *own, last, following = connection.execute(sql.GET_KEPT, (version,)).fetchone()
    span, begin, begin_at, newest = reading.own_numbers(own)
    reading.own_numbers([at for at in (last, following) if at is not None])
    return Kept(span, Moment(begin, begin_at), newest, max(begin_at, last or 0)), following


def require(connection: driver.Connection, moment: Moment, now: int) -> int:
    """Return until when a moment is kept, or raise `HistoryExpiredError`."""
    kept, following = read_kept(connection, moment.version)
    return kept.require(moment, following, now)


def find_moment(
    connection: driver.Connection, version: int | None, instant: int | None, now: int
) -> Moment:
    """Find a moment; the errors are those of `Backend.moment`."""
    with snapshot(connection):
        kept, _ = read_kept(connection)
        if version is not None:
            kept.require_version(version)
            moment = Moment(version, _change_up_to(connection, version, kept)[1])
        else:
            assert instant is not None
            kept.require_instant(instant, now)
            moment = Moment(_version_at(connection, instant, kept), instant)
        require(connection, moment, now)
        return moment


def _change_up_to(connection: driver.Connection, version: int, kept: Kept) -> tuple[int, int]:
    """Return the last change up to a version and its instant, or where the past begins."""
    row = connection.execute(sql.GET_CHANGE_UP_TO, (version,)).fetchone()
    if row is None or row[0] <= kept.begin.version:
        return kept.begin.version, kept.begin.instant
    return int(row[0]), int(row[1])


def _version_at(connection: driver.Connection, instant: int, kept: Kept) -> int:
    """Return the last version whose instant is not later: instants grow with versions."""
    low, high = kept.begin.version, kept.version  # `low` is not later, all above `high` are
    while low < high:
        middle = (low + high + 1) // 2
        found, at = _change_up_to(connection, middle, kept)
        if at <= instant:
            low = middle
        else:
            high = found - 1
    return low


def get_many(
    connection: driver.Connection, moment: Moment, path: str, keys: Sequence[str], now: int
) -> list[Record]:
    """Return the items among some keys that were there."""
    rows = _at(connection, moment, [(path, key) for key in keys], _EVERYTHING)
    require(connection, moment, now)
    return [reading.to_record(row) for row in rows]


def get_few(
    connection: driver.Connection,
    moment: Moment,
    path: str,
    keys: Sequence[str],
    now: int,
    longest: int,
) -> list[Record] | None:
    """As `get_many`; `None`: a value is longer, and was not read."""
    rows = _at(connection, moment, [(path, key) for key in keys], longest)
    require(connection, moment, now)
    if any(row[2] is None for row in rows):
        return None
    return list(map(reading.to_record, rows))


def _at(
    connection: driver.Connection,
    moment: Moment,
    addresses: Sequence[tuple[str, str]],
    longest: int,
) -> list[Any]:
    found = []
    when = moment.version, moment.instant, longest
    for path, key in addresses:
        found += connection.execute(sql.GET_AT, (path, key, *when)).fetchall()
    return found


def page(
    connection: driver.Connection,
    moment: Moment,
    span: Span,
    limit: int,
    now: int,
) -> tuple[list[Record], tuple[str, str] | None]:
    """Return the first items of a span that were there, and where to go on."""
    statement = sql.select_past_page(span, moment.version, moment.instant, limit)
    found = reading.take_records(connection, statement, limit)
    require(connection, moment, now)
    return found


def then(
    connection: driver.Connection, moment: Moment, addresses: Sequence[tuple[str, str]]
) -> tuple[list[tuple[str, str]], dict[tuple[str, str], Record]]:
    """Return those addresses of which it is known what was there, and what it was."""
    rows = _at(connection, moment, addresses, _EVERYTHING)
    found = {(row[0], row[1]): reading.to_record(row) for row in rows}
    version = moment.version
    known = [
        (path, key)
        for path, key in addresses
        if (path, key) in found
        or connection.execute(sql.IS_FORGOTTEN, (path, key, version, version)).fetchone() is None
    ]
    return known, found


def changed_since(
    connection: driver.Connection, version: int, path: str, subtree: bool
) -> list[tuple[str, str]]:
    """Return the addresses of what has changed since a version, in order."""
    return driver.run(connection, sql.changed_since(version, path, subtree)).fetchall()


def history(connection: driver.Connection, path: str, key: str, limit: int | None) -> list[Change]:
    """Return the kept changes of an item, the newest first."""
    labels = decode_namespace(path)
    with snapshot(connection):
        present = connection.execute(sql.GET_PRESENT, (path, key)).fetchall()
        most = -1 if limit is None else limit
        past = connection.execute(sql.GET_PAST_OF, (path, key, most)).fetchall()
    found: list[Change] = []
    for row in (*present, *past):
        record = reading.to_record(row[:10])
        at = record.updated_at if row[10] is None else row[10]
        reading.own_numbers((at, *row[12:13]))
        found += changes_of(labels, record, at, row[11:])
    return found[:limit]


def told_at(at: Any) -> datetime:
    """Return the instant of a change that a row has."""
    return to_datetime(*reading.own_numbers((at,)))


def put_of(connection: driver.Connection, path: str, key: str, version: int) -> list[Item]:
    """Return the item of a put as it then was, in a list; an empty one if that is not kept."""
    row = connection.execute(sql.GET_PUT, (path, key, version)).fetchone()
    return [] if row is None else [item_of(decode_namespace(path), reading.to_record(row))]
