"""Many rows at once by COPY, which takes a third of the time of as many upserts.

COPY knows no conflicts: what is there of the rows is deleted before, under the root's lock, so that
nobody else puts one in between. Rows go in binary, some hundreds at a time: while the server stores
those, the next ones are encoded, and the items made that are answered.

Source of the format: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice, repeat, starmap
from typing import Any, Final

import asyncpg

from kvstore.collecting import uncollected
from kvstore.operations import Put, PutColumns, Record
from kvstore.postgres import statements
from kvstore.postgres.connection import Connection
from kvstore.postgres.keys import Address, encode_keys
from kvstore.postgres.workspace import Stamp
from kvstore.rules import pack_indexing
from kvstore.types import Item, Namespace, pack_item

__all__ = ["LEAST_COPIED", "copy_plain", "copy_rows"]

LEAST_COPIED = 2_000  # rows; fewer are upserted in one call

_AT_ONCE = 256  # rows, half a millisecond's work
_SENT_BYTES = 2**19  # that go at once, unless a row has more
_TABLE = "kvstore_items"
_NUMBERS = frozenset({"version", "created_at", "updated_at", "expires_at", "ttl"})
_NULLABLE = frozenset({"expires_at", "ttl", "indexing"})
_COLUMNS = (
    "root", "path", "key", "version", "created_at", "updated_at", "value", "expires_at", "ttl",
    "indexing",
)  # fmt: skip

_BEGIN: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # no flags, and no more of a header
_END: Final = struct.pack(">h", -1)
_NULL: Final = struct.pack(">i", -1)
_fields = struct.Struct(">h").pack  # how many a row has
_length = struct.Struct(">i").pack  # of a field, which follows
_number = struct.Struct(">iq").pack  # a field of 8 bytes


async def copy_plain(
    connection: Connection, root: str, puts: Sequence[Put], now: int, at_least: int, stamp: Stamp
) -> list[Item] | None:
    """As `puts.put_plain`, inside a transaction; quickest with `PutColumns`.

    Returns:
        The items as stored; `None`: there is more to do than this, and the transaction is to be
        given up.

    Raises:
        StoreError: a value cannot be encoded, and the transaction is to be given up.
    """
    row = await connection.fetchrow(statements.ADVANCE_PUTS, root, len(puts), at_least, now, *stamp)
    base, _, until, described, has_sequences, history = row
    if until or described is not None or has_sequences or history:
        return None
    given, number = _Puts.of(puts), len(puts)
    keys = encode_keys(given.keys)
    present = await _delete(connection, root, given.paths, keys)
    created: Column = Same(now)
    if present:
        began = {at: first for at, first, expires in present if expires is None or expires > now}
        paths = _each(given.paths, number)
        created = [began.get(at, now) for at in zip(paths, keys, strict=True)]
    expiries = _mapped(lambda ttl: None if ttl is None else now + ttl, given.ttls)
    rows = _Rows(
        number,
        {
            "root": Same(root),
            "path": given.paths,
            "key": keys,
            "version": range(base + 1, base + 1 + number),
            "created_at": created,
            "updated_at": Same(now),
            "value": given.datas,
            "expires_at": expiries,
            "ttl": given.ttls,
            "indexing": _mapped(pack_indexing, given.indexings),
        },
    )
    items: list[Item] = []
    made = map(
        pack_item, given.namespaces, given.keys, given.datas, count(base + 1),
        _each(created, number), repeat(now), _each(expiries, number),
    )  # fmt: skip

    async def pieces() -> AsyncIterator[slice]:
        for begin in range(0, number, _AT_ONCE):
            end = min(begin + _AT_ONCE, number)
            await given.encoded(end)
            yield slice(begin, end)
            items.extend(islice(made, end - begin))

    with uncollected():
        await _copy(connection, rows, pieces())
    return items


@dataclass(slots=True, frozen=True)
class Same:
    """A column in which all rows have one value."""

    value: Any


Column = Same | Sequence[Any]


def _each(column: Column, number: int) -> Iterable[Any]:
    return repeat(column.value, number) if isinstance(column, Same) else column


def _mapped(change: Callable[[Any], Any], column: Column) -> Column:
    return Same(change(column.value)) if isinstance(column, Same) else list(map(change, column))


def _folded(column: Sequence[Any]) -> Column:
    return Same(column[0]) if column.count(column[0]) == len(column) else column


@dataclass(slots=True)
class _Puts:
    """Puts by columns; `datas` are there as far as `encoded` was awaited."""

    namespaces: Iterable[Namespace]
    paths: Column
    keys: Sequence[str]
    datas: Sequence[bytes]
    ttls: Column
    indexings: Column
    encoded: Callable[[int], Awaitable[Any]]

    @classmethod
    def of(cls, puts: Sequence[Put]) -> _Puts:
        if isinstance(puts, PutColumns):
            alike = Same(puts.path), puts.keys, puts.datas, Same(puts.ttl), Same(puts.indexing)
            return cls(repeat(puts.namespace), *alike, puts.encoded)
        return cls(
            [op.namespace for op in puts],
            _folded([op.path for op in puts]),
            [op.key for op in puts],
            [op.data for op in puts],
            _folded([op.ttl for op in puts]),
            _folded([op.indexing for op in puts]),
            _nothing,
        )


async def _nothing(end: int) -> None:
    """Encode no more, as all is."""


async def copy_rows(
    connection: Connection, root: str, rows: Sequence[Record], versions: Sequence[int]
) -> None:
    """Write rows of different items, whatever is there of them.

    Args:
        connection: inside a transaction that has locked the root.
        root: of all of them.
        rows: as they are to be, but for
        versions: that they get.
    """
    if not rows:
        return
    number = len(rows)
    paths, keys = _folded([row.path for row in rows]), encode_keys([row.key for row in rows])
    await _delete(connection, root, paths, keys)
    columns = {
        "root": Same(root),
        "path": paths,
        "key": keys,
        "version": versions,
        "created_at": _folded([row.created_at for row in rows]),
        "updated_at": _folded([row.updated_at for row in rows]),
        "value": [row.data for row in rows],
        "expires_at": _folded([row.expires_at for row in rows]),
        "ttl": _folded([row.ttl for row in rows]),
        "indexing": _mapped(pack_indexing, _folded([row.indexing for row in rows])),
    }

    async def pieces() -> AsyncIterator[slice]:
        for begin in range(0, number, _AT_ONCE):
            yield slice(begin, min(begin + _AT_ONCE, number))

    await _copy(connection, _Rows(number, columns), pieces())


async def _delete(
    connection: Connection, root: str, paths: Column, keys: Sequence[str]
) -> list[tuple[Address, int, int | None]]:
    """Delete what is there; return the addresses, when each began, and when it expires.

    Args:
        connection: inside a transaction that has locked the root.
        root: of all of them.
        paths: of the items.
        keys: of the items, encoded.
    """
    if isinstance(paths, Same):  # often all behind what is there
        bounds = min(keys), max(keys)
        if not await connection.fetchval(statements.IS_ANY_BETWEEN, root, paths.value, *bounds):
            return []
    before = statements.SEPARATOR
    statement = statements.DELETE_PRESENT
    if connection.is_distributed:
        statement = statements.DELETE_PRESENT_UNDER
    found = await connection.fetch(
        statement, root, before.join(["", *_each(paths, len(keys))]), before.join(["", *keys])
    )
    return [((path, key), created, expires) for path, key, created, expires in found]


class _Rows:
    """Rows to be, by columns.

    Args:
        number: of rows.
        columns: by their names; values are encoded, and may be so while others are sent.

    Attributes:
        names: of the columns, those in which all rows are alike before the others.
    """

    def __init__(self, number: int, columns: dict[str, Column]) -> None:
        self._number = number
        self._columns = columns
        alike = {name: each.value for name, each in columns.items() if isinstance(each, Same)}
        self._own = {name: each for name, each in columns.items() if not isinstance(each, Same)}
        self.names = [*alike, *self._own]
        self._head = _fields(len(columns)) + b"".join(starmap(_field, alike.items()))

    def pieces(self, part: slice) -> Iterator[bytes]:
        """Yield some of the rows as COPY has them, a piece that is sent at once after the other."""
        number = part.stop - part.start
        if number > 1 and sum(map(len, self._own["value"][part])) > _SENT_BYTES:
            middle = part.start + number // 2
            yield from self.pieces(slice(part.start, middle))
            yield from self.pieces(slice(middle, part.stop))
            return
        fields: list[Iterable[bytes]] = [repeat(self._head)]
        for name, column in self._own.items():
            fields += _packed(name, column[part])
        yield b"".join(chain.from_iterable(zip(*fields, strict=False)))

    def tuples(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows as a statement takes them."""
        columns = dict(self._columns)
        columns["value"] = _mapped(bytes.decode, columns["value"])
        return zip(*(_each(columns[name], self._number) for name in _COLUMNS), strict=True)


def _packed(name: str, values: Sequence[Any]) -> Sequence[Iterable[bytes]]:
    """Return the fields of a column, in one part or two."""
    if name in _NULLABLE and None in values:
        return ([_NULL if value is None else _field(name, value) for value in values],)
    if name in _NUMBERS:
        return (map(_number, repeat(8), values),)
    texts = values if name == "value" else list(map(str.encode, values))
    return map(_length, map(len, texts)), texts


def _field(name: str, value: Any) -> bytes:
    return b"".join(chain.from_iterable(_packed(name, [value]))) if value is not None else _NULL


async def _copy(connection: Connection, rows: _Rows, parts: AsyncIterator[slice]) -> None:
    """Write rows, some after the others as they come; what fails meanwhile ends it.

    Raises:
        Exception: what `parts` has raised.
        DriverError: the server's, or that the connection is lost.
    """
    failure: Exception | None = None

    async def source() -> AsyncIterator[bytes]:
        nonlocal failure
        yield _BEGIN
        try:
            async for part in parts:
                for piece in rows.pieces(part):
                    if connection.is_closed():
                        return
                    yield piece
        except Exception as exc:  # noqa: BLE001 - to be raised once the server has the end
            failure = exc
        yield _END

    if await connection.fetchval(statements.HAS_ROW_SECURITY):  # which lets nobody COPY
        async for _ in parts:
            pass
        await connection.executemany(statements.INSERT, rows.tuples())
        return
    try:
        await connection.copy_to_table(
            _TABLE, source=source(), columns=rows.names, schema_name=connection.schema,
            format="binary",
        )  # fmt: skip
    except AttributeError as exc:  # as the driver has nowhere to write to any more
        if not connection.is_closed():
            raise
        raise asyncpg.ConnectionDoesNotExistError("it was given up during a COPY") from exc
    if failure is not None:
        raise failure
