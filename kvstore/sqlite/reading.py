"""Reads as plain functions on a connection; they know nothing of threads or event loops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from itertools import islice
from typing import Any
from zlib import crc32

import orjson

from kvstore.backend import NamespaceQuery, Page, Selection, Span
from kvstore.codec import decode
from kvstore.collecting import uncollected
from kvstore.errors import StoreCorruptError
from kvstore.filters import ALL, Filter
from kvstore.namespace import decode_namespace, encode_namespace, show, subtree_range
from kvstore.operations import Record
from kvstore.ordering import Order
from kvstore.patterns import EVERY_KEY, Pattern
from kvstore.rules import unpack_indexing
from kvstore.sql import Sql, all_of
from kvstore.sqlite import declared, driver, filter_statements, large, statements
from kvstore.sqlite import index_statements as sql
from kvstore.sqlite.connection import snapshot
from kvstore.sqlite.filters import compile_filter, compile_order
from kvstore.sqlite.read_cache import ABSENT, Entry
from kvstore.types import Draft, Item, Namespace, make_item

__all__ = [
    "Point",
    "checksum",
    "count",
    "damaged",
    "entry_of",
    "get_by_id",
    "get_entry",
    "get_many",
    "get_one",
    "get_small",
    "get_small_by_id",
    "get_small_points",
    "is_light",
    "is_light_page",
    "is_version",
    "item_of",
    "items_of",
    "keys",
    "list_few",
    "list_namespaces",
    "live_item",
    "own_numbers",
    "page",
    "records",
    "select",
    "take_records",
    "to_record",
]


_EVER = -(2**63)  # an instant before which nothing can have expired
_MOST_VERSION = 2**62  # beyond what a store can ever have written


def is_version(value: Any) -> bool:
    """Whether what is kept as the store's version is one."""
    return type(value) is int and 0 <= value < _MOST_VERSION


def own_numbers(row: Sequence[Any]) -> Sequence[int]:
    """Return numbers that a file keeps of itself.

    Raises:
        StoreCorruptError: one is missing, or is none.
    """
    if not all(type(each) is int for each in row):
        raise StoreCorruptError(
            "a number that the file keeps of itself is missing or is none; 'await store.check()' "
            "tells of what, and a backup has it"
        )
    return row


def checksum(path: str, key: str, version: int, data: bytes) -> int:
    """Return the CRC-32 of an item's content, which its row carries."""
    return crc32((path + key).encode() + data, version & 0xFFFFFFFF)


_LATEST_FIRST = Order("version", descends=True)
_FEW_NAMESPACES = 16  # that are listed at once on the event loop's thread
_SPARE = 20  # items beyond a page, in the place of those that have expired
_TRIED = 1_000  # items that are tried in order before all are looked through
_MANY = 2_000  # items that Python's collector is kept from while they are made
_PIECE_BYTES = 8 * 2**20  # of the values of records that are in hand at once


def item_of(namespace: Namespace, path: str, key: str, row: Sequence[Any]) -> Item:
    """Make an item of a row: data, version, created, updated, expires, checksum.

    Raises:
        StoreCorruptError: the row is not as it was written.
    """
    data, version, created_at, updated_at, expires_at = entry_of(namespace, path, key, row)
    return make_item(namespace, key, decode(data), version, created_at, updated_at, expires_at)


def items_of(rows: Iterable[Sequence[Any]]) -> list[Item]:
    """Make items of rows: path, key, and what `item_of` takes; many take two thirds of its time.

    Raises:
        StoreCorruptError: a row is not as it was written.
    """
    items = []
    for path, key, data, version, created_at, updated_at, expires_at, expected in rows:
        namespace = decode_namespace(path)
        try:
            is_whole = (
                checksum(path, key, version, data) == expected
                and type(created_at) is int
                and type(updated_at) is int
                and (expires_at is None or type(expires_at) is int)
            )
        except (TypeError, ValueError) as exc:  # columns of other types than we write
            raise damaged(namespace, key) from exc
        if not is_whole:
            raise damaged(namespace, key)
        draft = Draft()  # as `make_item` does
        draft.value = decode(data)
        items.append(draft.item(namespace, key, version, created_at, updated_at, expires_at))
    return items


def entry_of(namespace: Namespace, path: str, key: str, row: Sequence[Any]) -> Entry:
    """Return what a row holds, once it is known to be as it was written."""
    data, version, created_at, updated_at, expires_at, expected = row
    try:
        if (
            checksum(path, key, version, data) == expected
            and type(created_at) is int
            and type(updated_at) is int
            and (expires_at is None or type(expires_at) is int)
        ):
            return Entry(data, version, created_at, updated_at, expires_at)
    except (TypeError, ValueError) as exc:  # columns of other types than we write
        raise damaged(namespace, key) from exc
    raise damaged(namespace, key)


def live_item(namespace: Namespace, key: str, entry: Entry, now: Callable[[], int]) -> list[Item]:
    """Return the item of an entry in a list; an empty one if it is not there now."""
    item = entry.item(namespace, key, now)
    return [] if item is None else [item]


def damaged(namespace: Namespace, key: str) -> StoreCorruptError:
    """Return the error that says which row is not as it was written."""
    return StoreCorruptError(
        f"the row of {show(namespace, key)} is damaged: its checksum does not match; "
        "restore it from a backup, or put it anew"
    )


def get_one(
    connection: driver.Connection, namespace: Namespace, path: str, key: str, now: int
) -> list[Item]:
    """Return the live item in a list, or an empty one."""
    row = connection.execute(statements.GET, (path, key, now)).fetchone()
    return [] if row is None else [item_of(namespace, path, key, row)]


def get_entry(connection: driver.Connection, namespace: Namespace, path: str, key: str) -> Entry:
    """Return what is at an address, live or not.

    Raises:
        StoreCorruptError: the row is not as it was written.
    """
    row = connection.execute(statements.GET, (path, key, _EVER)).fetchone()
    return ABSENT if row is None else entry_of(namespace, path, key, row)


def get_small(
    cursor: driver.Cursor, namespace: Namespace, path: str, key: str, longest: int
) -> Entry | None:
    """Return what is at an address, live or not; `None` if its value is longer, unread.

    The cursor is of a connection that gives text as bytes, and is used over and over.

    Raises:
        StoreCorruptError: the row is not as it was written.
    """
    # All rows: only then the statement is done, and with it its read transaction.
    rows = cursor.execute(statements.GET_SMALL, (longest, path, key)).fetchall()
    if not rows:
        return ABSENT
    return None if rows[0][0] is None else entry_of(namespace, path, key, rows[0])


Point = tuple[Namespace, str, str]  # a read of one item: labels, path, key


def get_small_points(
    cursor: driver.Cursor, points: Sequence[Point], longest: int
) -> list[Entry | StoreCorruptError | None]:
    """Make point reads as `get_small` does, by one statement."""
    found: list[Entry | StoreCorruptError | None] = [ABSENT for _ in points]
    params: list[Any] = []
    for _, path, key in points:
        params += (path, key)
    params.append(longest)
    for at, *row in cursor.execute(statements.get_small_points(len(points)), params).fetchall():
        if row[0] is None:
            found[at] = None
            continue
        try:
            namespace, path, key = points[at]
            found[at] = entry_of(namespace, path, key, row)
        except StoreCorruptError as exc:
            found[at] = exc
    return found


def get_many(
    connection: driver.Connection, namespace: Namespace, path: str, keys: Sequence[str], now: int
) -> list[Item]:
    """Return the live items among `keys`, as they are at one moment."""
    if len(keys) == 1:
        return get_one(connection, namespace, path, keys[0], now)
    wanted = orjson.dumps(list(keys)).decode()
    if "\\u0000" in wanted:  # which an older json_each cuts
        with snapshot(connection):
            return [item for key in keys for item in get_one(connection, namespace, path, key, now)]
    rows = connection.execute(statements.GET_MANY, (wanted, path, now))
    with uncollected() if len(keys) > _MANY else nullcontext():
        return items_of(rows)


def is_light(
    connection: driver.Connection, longest: int, path: str, pattern: Pattern | None = None
) -> bool:
    """Whether a namespace, or what of it begins as a pattern does, has few rows and bytes."""
    (octets,) = driver.run(connection, statements.weigh(path, pattern)).fetchone()
    return octets is not None and octets <= longest


def is_light_page(
    connection: driver.Connection, longest: int, span: Span, limit: int, now: int
) -> bool:
    """Whether a span's first rows are there, all of them, and have few bytes."""
    (octets,) = driver.run(connection, statements.weigh_first(span, now, limit)).fetchone()
    return octets is not None and octets <= longest


def get_by_id(connection: driver.Connection, ids: Sequence[int]) -> dict[int, Item]:
    """Return the items of some rows, by their ids."""
    rows = connection.execute(sql.GET_BY_ID, (orjson.dumps(list(ids)).decode(),))
    return {id_: item_of(decode_namespace(path), path, key, row) for path, key, id_, *row in rows}


def items_before(
    connection: driver.Connection, places: Sequence[tuple[str, str]], now: int
) -> list[Item | None]:
    """Return the live item before each path and key, in its namespace."""
    found: list[Item | None] = [None] * len(places)
    rows = connection.execute(sql.GET_BEFORE, (now, orjson.dumps(places).decode()))
    for number, path, key, *row in rows:
        found[number] = item_of(decode_namespace(path), path, key, row)
    return found


def get_small_by_id(
    connection: driver.Connection, path: str, ids: Iterable[int], now: int, longest: int
) -> dict[int, Item] | None:
    """Return the live items of some rows of a namespace, or `None`: their values are longer."""
    namespace = decode_namespace(path)
    wanted = orjson.dumps(list(ids)).decode()
    items = {}
    size = 0
    for key, id_, *row in connection.execute(sql.GET_SMALL_BY_ID, (longest, wanted, now)):
        size += longest + 1 if row[0] is None else len(row[0])
        if size > longest:
            return None
        items[id_] = item_of(namespace, path, key, row)
    return items


def select(
    connection: driver.Connection,
    path: str,
    selection: Selection,
    now: int,
    asked: large.Asked | None = None,
) -> list[Item]:
    """Return the live items that pass, latest first or as they are to be ordered.

    Where an index has their order, those that come first are tried before all others are looked at.
    `asked` takes note of large namespaces whose order none has.
    """
    passes = _passes(selection)
    with snapshot(connection):
        among, _ = candidates(connection, path, selection.subtree, selection.filter)
        if not selection.subtree and (among is None or _are_many(connection, among)):
            first = _first(connection, path, selection, asked)
            if first is not None:
                items = _select(connection, path, selection, now, passes, first[0])
                if first[1] or len(items) == selection.limit:
                    return items
        return _select(connection, path, selection, now, passes, among)


def select_few(
    connection: driver.Connection, path: str, selection: Selection, now: int
) -> list[Item]:
    """As `select`, by a look at all items of a namespace that has few, and short ones."""
    statement = statements.select_few(
        *(path, _passes(selection), now, selection.limit, selection.offset, _order(selection))
    )
    return items_of(driver.run(connection, statement))


def _passes(selection: Selection) -> Sql:
    condition = compile_filter(selection.filter)
    if selection.text is None:
        return condition
    text = selection.text.encode()
    return all_of([condition, Sql("kvstore_contains(?, CAST(key AS BLOB), value)", (text,))])


def _select(
    connection: driver.Connection,
    path: str,
    selection: Selection,
    now: int,
    passes: Sql,
    among: Sql | None,
) -> list[Item]:
    """Return the live items that pass, of some whose ids are selected, or of all."""
    statement = statements.select_latest(
        *(path, selection.subtree, passes, now),
        *(selection.limit, selection.offset, among, _order(selection)),
    )
    return items_of(driver.run(connection, statement))


def _order(selection: Selection) -> Sql | None:
    return compile_order(selection.orders, selection.subtree) if selection.orders else None


def candidates(
    connection: driver.Connection, path: str, subtree: bool, filter: Filter
) -> tuple[Sql | None, bool]:
    """Select the ids of all items that may pass a filter, if declared filters tell.

    Also whether next to none of them fail it.
    """
    if filter == ALL or not (known := declared.built(connection)):
        return None, False
    among = filter_statements.candidates(filter, known, statements.within_each(path, subtree))
    return among, among is not None and filter_statements.is_told(filter, known)


def _are_many(connection: driver.Connection, among: Sql) -> bool:
    """Whether it pays to try what comes first before all that may pass."""
    return driver.run(connection, statements.has_more(among, 2 * _TRIED)).fetchone() is not None


def _first(
    connection: driver.Connection, path: str, selection: Selection, asked: large.Asked | None
) -> tuple[Sql, bool] | None:
    """Select the ids of the items that come first, more than are asked for; and whether it is all.

    So many more that the page is full though some may have expired or may not pass.
    """
    wanted = selection.offset + selection.limit
    is_sure = selection.filter == ALL and selection.text is None
    if not is_sure and wanted > _TRIED:
        return None
    most = wanted + _SPARE if is_sure else 4 * wanted + _TRIED
    if not selection.orders or selection.orders[0] == _LATEST_FIRST:
        return large.latest(connection, path, most, asked)
    first = declared.first(connection, path, selection.orders[0], most)
    return None if first is None else (first, False)


def list_namespaces(
    connection: driver.Connection, asked: NamespaceQuery, limit: int | None, offset: int, now: int
) -> list[Namespace]:
    """Return the namespaces that match, cut, distinct, sorted and paged."""
    if asked.max_depth is None or asked.suffix or len(asked.prefix) > asked.max_depth:
        namespaces = _below(connection, asked.root, now, _most(asked, limit, offset))
        return asked.cut(namespaces)[offset:][:limit]
    with snapshot(connection):
        below = _skip_below(connection, encode_namespace(asked.root), asked, asked.max_depth, now)
        return list(islice(below, offset, None if limit is None else offset + limit))


def list_few(
    connection: driver.Connection,
    longest: int,
    asked: NamespaceQuery,
    limit: int | None,
    offset: int,
    now: int,
) -> list[Namespace] | None:
    """As `list_namespaces`, of a page or of few namespaces; `None`: there are more, or long ones.

    Those that are read take no more characters together than `longest`, but for the last.
    """
    most = _most(asked, limit, offset)
    is_page = most is not None and most <= statements.FEW
    wanted = most if is_page else _FEW_NAMESPACES + 1
    namespaces = []
    with closing(driver.run(connection, _paths(asked.root, now, wanted))) as paths:
        for (path,) in paths:
            longest -= len(path)
            if longest < 0:
                return None
            namespaces.append(decode_namespace(path))
    if not is_page and len(namespaces) > _FEW_NAMESPACES:
        return None
    return asked.cut(namespaces)[offset:][:limit]


def _most(asked: NamespaceQuery, limit: int | None, offset: int) -> int | None:
    """Return how many namespaces below the root make a page; `None`: that depends on them."""
    is_known = not asked.suffix and asked.root == asked.prefix and asked.max_depth is None
    return None if limit is None or not is_known else offset + limit


def _below(
    connection: driver.Connection, root: Namespace, now: int, limit: int | None
) -> list[Namespace]:
    """Return the first namespaces at and below a root that hold live items."""
    paths = driver.run(connection, _paths(root, now, limit))
    return [decode_namespace(path) for (path,) in paths.fetchall()]


def _paths(root: Namespace, now: int, limit: int | None) -> Sql:
    return statements.list_paths(encode_namespace(root), now, limit)


def _skip_below(
    connection: driver.Connection, root: str, asked: NamespaceQuery, max_depth: int, now: int
) -> Iterator[Namespace]:
    """Yield the namespaces cut to a depth, jumping over all that lies below each."""
    low, high = subtree_range(root)
    while True:
        row = driver.run(connection, statements.first_live_path(low, high, now)).fetchone()
        if row is None:
            return
        labels, low = asked.listed(row[0], max_depth, "\0")
        if labels is not None:
            yield labels


def keys(connection: driver.Connection, span: Span, limit: int | None, now: int) -> list[str]:
    """Return the keys of a span, in its order."""
    return [key for (key,) in driver.run(connection, statements.select_keys(span, now, limit))]


def count(
    connection: driver.Connection,
    path: str,
    pattern: Pattern,
    subtree: bool,
    now: int,
    asked: large.Asked | None = None,
) -> int:
    """Count the matching items; `asked` is as for `select`."""
    if pattern.matches_all and not subtree:
        with snapshot(connection):
            return large.number(connection, path, now, asked)
    return count_few(connection, path, pattern, subtree, now)


def count_few(
    connection: driver.Connection, path: str, pattern: Pattern, subtree: bool, now: int
) -> int:
    """As `count`, by a look at all items."""
    number: int = driver.run(connection, statements.count(path, subtree, pattern, now)).fetchone()[
        0
    ]
    return number


def page(connection: driver.Connection, span: Span, filter: Filter, limit: int, now: int) -> Page:
    """Return the first piece of a span."""
    statement = statements.select_page(span, compile_filter(filter), now, limit)
    rows = driver.run(connection, statement).fetchall()
    items = items_of(row for row in rows if row[2] is not None)
    return Page(items, (rows[-1][0], rows[-1][1]) if len(rows) == limit else None)


def records(
    connection: driver.Connection, path: str, after: tuple[str, str] | None, limit: int, now: int
) -> tuple[list[Record], tuple[str, str] | None]:
    """Return the next piece of a subtree's live records, and where the one after it begins."""
    span = Span(path, EVERY_KEY, subtree=True, after=after)
    return take_records(connection, statements.select_records(span, now, limit), limit)


def take_records(
    connection: driver.Connection, statement: Sql, limit: int
) -> tuple[list[Record], tuple[str, str] | None]:
    """Return the records of a statement, at most `limit`, and where more may begin."""
    rows: list[Any] = []
    size = 0
    found = driver.run(connection, statement)
    for row in found:
        rows.append(row)
        size += len(row[2])
        if size > _PIECE_BYTES:
            break
    found.close()
    records = [to_record(row) for row in rows]
    is_cut = len(rows) == limit or size > _PIECE_BYTES
    return records, (records[-1].path, records[-1].key) if is_cut else None


def to_record(row: Sequence[Any]) -> Record:
    """Return the record of a row: path, key, `ROW`, ttl, indexing.

    Raises:
        StoreCorruptError: it is not as it was written.
    """
    path, key, data, version, created_at, updated_at, expires_at, expected, ttl, indexing = row
    try:
        namespace = decode_namespace(path)
        times = (created_at, updated_at, *(at for at in (expires_at, ttl) if at is not None))
        if (
            checksum(path, key, version, data) != expected
            or encode_namespace(namespace) != path
            or not all(type(each) is int for each in times)
        ):
            raise damaged(namespace, key)
        paths = unpack_indexing(indexing)
    except (AttributeError, IndexError, TypeError, ValueError) as exc:
        raise StoreCorruptError(
            f"the row of {key!r} in {path!r} is damaged; restore it from a backup, or put it anew"
        ) from exc
    return Record(path, key, data, version, created_at, updated_at, expires_at, ttl, paths)
