"""The past on the server: what is kept of it, how it is trimmed, and read.

It belongs to a root, as versions do. A moment that is a version means that version under each
root; one that is an instant is a version of its own under each root, which is looked up when the
root is read.

Reads look first, and then whether the moment is still kept: what is kept only ever begins later,
so what was read is whole if the moment is there afterwards.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kvstore.backend import Span
from kvstore.namespace import decode_namespace, encode_namespace, root_of
from kvstore.operations import Forget, Keep, Record, Trim
from kvstore.past import Kept, Moment
from kvstore.past_view import changes_of
from kvstore.plan import Address, Effects, ends_of
from kvstore.postgres import past_statements as sql
from kvstore.postgres import statements
from kvstore.postgres.connection import Connection, rows_of, snapshot
from kvstore.postgres.keys import address_columns, decode_key, encode_key
from kvstore.postgres.reading import fetch, record_of
from kvstore.postgres.roots import await_roots, lock_root
from kvstore.rules import pack_indexing
from kvstore.types import Change

__all__ = [
    "PastKeeper",
    "changed_since",
    "find_moment",
    "forget",
    "get_many",
    "history",
    "keep",
    "page",
    "then",
    "trim",
]

_ROOTS_AT_ONCE = 100
_BY_INSTANT = -1  # a version that is still to be looked up


@dataclass(frozen=True, slots=True)
class _InstantMoment(Moment):
    """A moment by its instant.

    Attributes:
        versions: which it is under those roots that were looked up.
    """

    versions: dict[str, int] = field(default_factory=dict, compare=False)


# Write


class PastKeeper:
    """What a transaction is about to end under a root that keeps its past."""

    def __init__(self) -> None:
        self._entries: list[tuple[Any, ...]] = []

    def take(
        self,
        effects: Effects,
        rows: Mapping[Address, Record],
        written: Collection[Address],
        others: Collection[Address],
    ) -> None:
        """Keep what effects end.

        Args:
            effects: not carried out yet.
            rows: as they are before, as far as they are known.
            written: those that this transaction has written, and that are not in the table.
            others: those that it has changed otherwise, likewise.
        """
        after = {(row.path, row.key): row.data.decode() for row, _ in effects.writes}
        for note in ends_of(effects):
            address = note.path, note.key
            row = rows.get(address)
            is_told = address in written or address in others
            if is_told and row is None:  # it is gone already
                continue
            told: tuple[Any, ...] = (False, *[None] * 7)
            if is_told and row is not None:
                data = row.data.decode() if address in written else None
                times = row.version, row.created_at, row.updated_at
                told = (True, *times, data, row.expires_at, row.ttl, pack_indexing(row.indexing))
            following = after.get(address) if note.kind == "put" else None
            self._entries.append(
                (note.version, note.kind, note.path, encode_key(note.key), following, *told)
            )

    def take_arguments(self) -> list[Sequence[Any]]:
        """Return what is to be kept, by columns, as `kvstore_apply` has it; forget it."""
        entries, self._entries = self._entries, []
        return list(zip(*entries, strict=True))


async def keep(connection: Connection, op: Keep, now: int) -> None:
    """Begin to keep the past, under each root and those to come, or go on."""
    done: str = await connection.execute(sql.KEEP_STORE, op.span, now)
    if done.endswith(" 0"):
        return
    await await_roots(connection)
    for (root,) in await connection.fetch(sql.LIST_UNKEPT, op.span, now):
        async with connection.transaction():
            await lock_root(connection, root)
            await connection.execute(sql.KEEP_ROOT, root, op.span, now)
            await connection.execute(statements.RECORD, root, now + op.span)


async def trim(connection: Connection, op: Trim, now: int) -> int:
    """Do a slice of the upkeep; return how many rows went."""
    if op.keeps is not None:
        await keep(connection, Keep(op.keeps), now)
    is_over = await connection.fetchval(sql.IS_HISTORY_OVER, now)
    if is_over and await connection.fetchval(statements.MAY_LOOK_AFTER_ALL):
        await connection.execute(sql.END_HISTORY_OF_STORE, now)
    done = 0
    for root, span, until, begin in await connection.fetch(sql.LIST_PASTS):
        if done >= op.limit:
            break
        done += await _trim_root(connection, root, span, until, begin, op.limit - done, now)
    return done


async def _trim_root(
    connection: Connection, root: str, span: int, until: int, begin: int, limit: int, now: int
) -> int:
    if span and until < now:
        await connection.execute(sql.END_HISTORY, root, now)  # unless it was prolonged meanwhile
        span = 0
    if span:
        rows = await connection.fetch(sql.GET_OLDEST, root, now - span, limit)
    else:
        rows = await connection.fetch(sql.GET_OLDEST_PAST, root, limit)
    if not rows:
        return 0
    cut, at = rows[-1]
    async with connection.transaction():
        state = await lock_root(connection, root)
        if bool(state.history) != bool(span):  # somebody else has begun to keep it, or ended that
            return 0
        if cut > begin:
            await connection.execute(sql.BEGIN_LATER, root, cut, at)
        await connection.execute(sql.DELETE_PAST, root, cut)
        if span:
            await connection.execute(statements.DELETE_CHANGES, root, cut)
    return len(rows)


async def forget(connection: Connection, op: Forget) -> int:
    """Take away what is kept of some keys; return how many rows that were."""
    number = 0
    for path, subtree in await _parts(connection, op.path, op.subtree):
        statement = sql.forget(path, op.pattern, subtree)
        if statement is not None:
            done = await connection.execute(statement.render(), *statement.params)
        else:
            found = await fetch(connection, sql.past_keys(path, op.pattern, subtree))
            doomed = [row for row in found if op.pattern.matches(decode_key(row[1]))]
            columns = [row[0] for row in doomed], [row[1] for row in doomed]
            done = await connection.execute(sql.FORGET_KEYS, root_of(path), *columns)
        number += rows_of(done)
    return number


async def _parts(connection: Connection, path: str, subtree: bool) -> list[tuple[str, bool]]:
    """Return a namespace or a subtree as parts that have one root each."""
    if path or not subtree:
        return [(path, subtree)]
    return [(root, bool(root)) for root, _ in await connection.fetch(statements.LIST_ROOTS)]


# Moments


async def find_moment(
    connection: Connection,
    now: int,
    version: int | None,
    instant: int | None,
    root: str | None = None,
) -> Moment:
    """Find a moment; the errors are those of `Backend.moment`.

    Args:
        connection: to read over.
        now: the present instant.
        version: or
        instant: which it is.
        root: a label, of which it is a version; `None`: of each.
    """
    async with snapshot(connection):
        statement: tuple[str, ...] = (sql.GET_INSTANT_OF_ALL,)
        if root is None:
            kept = await _kept_of_all(connection)
        else:
            place = encode_namespace((root,))
            kept, _ = await _read_kept(connection, place, 0)
            statement = sql.GET_INSTANT_OF, place
        if version is None:
            assert instant is not None
            kept.require_instant(instant, now)
            return _InstantMoment(_BY_INSTANT, instant)
        kept.require_version(version)
        at = await connection.fetchval(*statement, version)
        return Moment(version, max(at or 0, kept.begin.instant))


async def _kept_of_all(connection: Connection) -> Kept:
    """Return how much is kept under any root, at most."""
    span, begin, begin_at, version = await connection.fetchrow(sql.GET_STORE_KEPT)
    newest, last = await connection.fetchrow(sql.GET_NEWEST)
    return Kept(span, Moment(begin, begin_at), max(version, newest or 0), max(begin_at, last or 0))


async def _read_kept(connection: Connection, root: str, version: int) -> tuple[Kept, int | None]:
    """Return how much is kept under a root, and the instant of the change after a version."""
    return await _kept_by(connection, await connection.fetchrow(sql.GET_KEPT, root, version))


async def _kept_by(connection: Connection, row: Sequence[Any] | None) -> tuple[Kept, int | None]:
    if row is None:  # nothing was ever written there
        return await _kept_of_all(connection), None
    span, begin, begin_at, newest, last, following = row
    return Kept(span, Moment(begin, begin_at), newest, max(begin_at, last)), following


async def _resolve(connection: Connection, root: str, moment: Moment) -> Moment:
    """Return which version under a root a moment is."""
    if not isinstance(moment, _InstantMoment):
        return moment
    version = moment.versions.get(root)
    if version is None:
        instant = moment.instant
        version = await connection.fetchval(sql.GET_VERSION_BEFORE, root, instant)
        if version is None:
            version = await connection.fetchval(sql.GET_VERSION_AT, root, instant)
        if version is None:
            return Moment(0, instant)
        moment.versions[root] = version
    return _InstantMoment(version, moment.instant)


async def _require(connection: Connection, root: str, moment: Moment, now: int) -> None:
    """Raise `HistoryExpiredError` unless a moment, a version under a root, is kept."""
    _check(await _read_kept(connection, root, moment.version), moment, now)


def _check(found: tuple[Kept, int | None], moment: Moment, now: int) -> None:
    """Do so by what is kept there.

    An instant before what is kept has no version there: the first that is kept would be found.
    """
    kept, following = found
    kept.require(moment, following, now)
    if isinstance(moment, _InstantMoment):
        kept.require_begun(moment.instant)


# Read


async def get_many(
    connection: Connection, now: int, moment: Moment, path: str, keys: Sequence[str]
) -> list[Record]:
    """Return the items among some keys that were there."""
    root = root_of(path)
    when = await _resolve(connection, root, moment)
    if len(keys) == 1:
        place = path, encode_key(keys[0]), when.instant
        row = await connection.fetchrow(sql.GET_ONE_AT, root, when.version, *place)
        _check(await _kept_by(connection, None if row is None else row[:6]), when, now)
        return [] if row is None or row[6] is None else [record_of(row[6:])]
    found = await _at(connection, root, when, [(path, key) for key in keys])
    await _require(connection, root, when, now)
    return list(found.values())


async def _at(
    connection: Connection, root: str, moment: Moment, addresses: Sequence[Address]
) -> dict[Address, Record]:
    """Return what was at some addresses under a root."""
    rows = await connection.fetch(
        sql.GET_AT, root, *address_columns(addresses), moment.version, moment.instant
    )
    return {(record.path, record.key): record for record in map(record_of, rows)}


async def page(
    connection: Connection, now: int, moment: Moment, span: Span, limit: int
) -> tuple[list[Record], Address | None]:
    """Return the first items of a span that were there, and where to go on."""
    if span.path or not span.subtree:
        return await _page(connection, moment, span, limit, now)
    found: list[Record] = []
    root: str | None
    if span.reverse:
        following, root = sql.LIST_ROOTS_BELOW, None
        if span.before is not None:
            root = _behind(root_of(span.before[0]))
    else:
        following, root = sql.LIST_ROOTS_FROM, ""
        if span.after is not None:
            root = root_of(span.after[0])
    while True:
        rows = await connection.fetch(following, root, _ROOTS_AT_ONCE)
        for (root,) in rows:
            part = replace(span, path=root, subtree=bool(root))
            if part.is_empty:
                continue
            some, end = await _page(connection, moment, part, limit - len(found), now)
            found += some
            if end is not None or len(found) >= limit:
                return found, end or (found[-1].path, found[-1].key)
        if len(rows) < _ROOTS_AT_ONCE:
            return found, None
        (last,) = rows[-1]
        root = last if span.reverse else _behind(last)


def _behind(root: str) -> str:
    """Return what lies between a root and the next one."""
    return root + "\x01"


async def _page(
    connection: Connection, moment: Moment, span: Span, limit: int, now: int
) -> tuple[list[Record], Address | None]:
    """As `page`, under one root."""
    root = root_of(span.path)
    when = await _resolve(connection, root, moment)
    rows = await fetch(connection, sql.select_page(span, when.version, when.instant, limit))
    await _require(connection, root, when, now)
    records = [record_of(row) for row in rows]
    end = (records[-1].path, records[-1].key) if len(rows) == limit else None
    return [record for record in records if span.pattern.matches(record.key)], end


async def changed_since(
    connection: Connection, root: str, moment: Moment, path: str, subtree: bool, now: int
) -> tuple[Moment, list[Address]]:
    """Return which version a moment is under a root, and what has changed there since."""
    when = await _resolve(connection, root, moment)
    await _require(connection, root, when, now)
    rows = await fetch(connection, sql.changed_since(path, subtree, when.version))
    return when, [(there, decode_key(key)) for there, key in rows]


async def then(
    connection: Connection, root: str, moment: Moment, addresses: Sequence[Address]
) -> tuple[list[Address], dict[Address, Record]]:
    """Return those addresses of which it is known what was there, and what it was."""
    found = await _at(connection, root, moment, addresses)
    columns = address_columns(addresses)
    rows = await connection.fetch(sql.FIND_FORGOTTEN, root, *columns, moment.version)
    unknown = {(path, decode_key(key)) for path, key in rows}
    return [at for at in addresses if at in found or at not in unknown], found


async def history(connection: Connection, path: str, key: str, limit: int | None) -> list[Change]:
    """Return the kept changes of an item, the newest first."""
    labels, place = decode_namespace(path), (root_of(path), path, encode_key(key))
    async with snapshot(connection):
        rows = await connection.fetch(sql.GET_PRESENT, *place)
        rows += await connection.fetch(sql.GET_PAST_OF, *place, limit)
    told = (changes_of(labels, record_of(row[:9]), row[9], row[10:]) for row in rows)
    return [change for changes in told for change in changes][:limit]
