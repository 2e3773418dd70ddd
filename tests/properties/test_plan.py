"""What SQLite does to plain puts and changes the short way is what `kvstore.plan` decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.namespace import decode_namespace
from kvstore.operations import Mutate, Named, Put, Record
from kvstore.plan import Address, decide, ends_of
from kvstore.sqlite import driver, statements
from kvstore.sqlite.connection import connect
from kvstore.sqlite.migrate import migrate
from kvstore.sqlite.plain_puts import is_bare_put
from kvstore.sqlite.read_cache import Entry
from kvstore.sqlite.reading import checksum
from kvstore.sqlite.rows import NotInlineError
from kvstore.sqlite.writing import Batch
from kvstore.types import Item

NOW = 1_000_000
LONGEST = 40  # bytes of a value that a batch on the event loop's thread may overwrite

paths = st.sampled_from(["a\t", "a\tb\t", ""])
keys = st.sampled_from([f"k{n}" for n in range(12)])
lifetimes = st.sampled_from([None, None, (NOW - 1, 5), (NOW, 5), (NOW + 1, 5), (NOW + 9, 9)])
data = st.sampled_from([b"1", b'"text"', orjson.dumps("long" * LONGEST)])


@st.composite
def rows(draw: st.DrawFn) -> dict[Address, Record]:
    """Draw what is in a store already, live and expired."""
    found = {}
    for version, (path, key) in enumerate(draw(st.sets(st.tuples(paths, keys))), 1):
        expires_at, ttl = draw(lifetimes) or (None, None)
        indexing = draw(st.sampled_from([None, None, (), ("a",)]))
        updated_at = draw(st.sampled_from([5, NOW, NOW + 5]))
        found[path, key] = Record(
            path, key, draw(data), version, 5, updated_at, expires_at, ttl, indexing
        )
    return found


def put(path: str, key: str, data: bytes, ttl: int | None) -> Put:
    return Put(decode_namespace(path), path, key, data, ttl)


class RefusedError(Exception):
    """What a change may raise."""


def change(path: str, key: str, written: str, ttl: int | None) -> Mutate:
    """Return a change that writes down what it was given, leaves it, or refuses it."""

    def of(present: bytes | None) -> tuple[bytes | None, Any]:
        if written == "refuse":
            raise RefusedError
        before = None if present is None else orjson.loads(present)
        if written == "leave":
            return None, before
        return orjson.dumps([written, str(before)[-9:]]), [before]

    return Mutate(decode_namespace(path), path, key, of, ttl)


plain = st.builds(put, paths, keys, data, st.none())
puts = st.builds(put, paths, keys, data, st.sampled_from([None, None, None, 7]))
changes = st.builds(
    *(change, paths, keys, st.sampled_from(["x", "y", "x" * LONGEST, "leave", "refuse"])),
    st.sampled_from([None, None, 7]),
)
units = st.lists(
    st.lists(plain | changes, min_size=1, max_size=1)
    | st.lists(changes, min_size=1, max_size=1)
    | st.lists(puts, min_size=1, max_size=3, unique_by=lambda op: (op.path, op.key)),
    max_size=20,
)


@st.composite
def crowds(draw: st.DrawFn) -> list[list[Put | Mutate]]:
    """Draw more puts and changes than one statement takes, many of them of one item."""
    chosen = draw(
        st.lists(plain, min_size=1, max_size=20)
        | st.lists(plain | changes, min_size=1, max_size=20)
    )
    dice = Random(draw(st.integers(0, 999)))
    return [[dice.choice(chosen)] for _ in range(draw(st.integers(129, 300)))]


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[driver.Connection]:
    path: Path = tmp_path_factory.mktemp("plan") / "store.db"
    connection = connect(path, "rwc")
    migrate(connection, path, 1.0)
    yield connection
    connection.close()


@settings(deadline=None, max_examples=150)
@given(
    before=rows(),
    units=units | crowds(),
    is_watched=st.booleans(),
    keeps=st.booleans(),
    longest=st.none() | st.just(LONGEST),
    known=st.none() | st.sets(st.tuples(paths, keys)),
    as_crowd=st.booleans(),
)
def test_the_quick_ways_do_what_is_decided(
    sqlite: driver.Connection,
    before: dict[Address, Record],
    units: list[list[Named]],
    is_watched: bool,
    keeps: bool,
    longest: int | None,
    known: set[Address] | None,
    as_crowd: bool,
) -> None:
    is_watched |= keeps
    sqlite.execute("BEGIN IMMEDIATE")
    try:
        for row in before.values():
            sqlite.execute(statements.UPSERT, columns(row))
        sqlite.execute(statements.SET_META, (len(before), "version"))
        sqlite.execute(statements.SET_META, (int(is_watched), "watched_until"))
        sqlite.execute(statements.SET_META, (int(keeps), "history"))
        batch = Batch(sqlite.cursor(), NOW, longest)
        if known is not None:  # to the cache of reads
            cached = {at: entry(row) for at, row in before.items() if at in known}
            batch.changed, batch.look = {}, lambda addresses: list(map(cached.get, addresses))
        try:
            items = None
            if as_crowd and all(len(ops) == 1 and is_bare_put(ops[0]) for ops in units):
                items = batch.put_crowd([op for ops in units for op in ops])  # type: ignore[misc]
                assert (items is None) == is_watched
            outcomes = batch.apply(units) if items is None else [[item] for item in items]
        except NotInlineError:
            assert longest is not None  # it may give up, and then leaves nothing behind
            return
        batch.finish()
        told = "SELECT version, kind, path, key, at FROM changes ORDER BY version"
        noted = sqlite.execute(told).fetchall()
        past = dict(map(kept, sqlite.execute(KEPT).fetchall()))
        there = {row.path + "|" + row.key: row for row in stored(sqlite)}
        version = sqlite.execute(statements.GET_VERSION).fetchone()[0]
    finally:
        sqlite.execute("ROLLBACK")
    expected, answers, notes, ended, last = decided(before, units, is_watched)
    assert [shown(outcome) for outcome in outcomes] == answers
    assert there == {row.path + "|" + row.key: row for row in expected.values()}
    assert noted == notes
    assert past == (ended if keeps else {})
    for at, told_ in (batch.changed or {}).items():
        assert told_ in (None, entry(expected[at]))
    assert version == last


def entry(row: Record) -> Entry:
    return Entry(row.data, row.version, row.created_at, row.updated_at, row.expires_at)


KEPT = """
SELECT version, path, key, was, created_at, updated_at, expires_at, ttl, indexing, checksum,
    CAST(value AS BLOB)
FROM changes
WHERE was IS NOT NULL
"""


def kept(row: tuple[Any, ...]) -> tuple[int, tuple[Record, bool]]:
    """Return by its end an item that was, and whether its value is that of the next version."""
    ended, path, key, was, created, updated, expires, ttl, indexing, code, value = row
    paths_ = None if indexing is None else tuple(orjson.loads(indexing))
    record = Record(path, key, value or b"", was, created, updated, expires, ttl, paths_)
    assert value is None or checksum(path, key, was, value) == code
    return ended, (record, value is None)


def decided(
    before: dict[Address, Record], units: list[list[Named]], is_watched: bool
) -> tuple[dict[Address, Record], list[list[Any]], list[Any], dict[int, tuple[Record, bool]], int]:
    """Apply units by `decide` alone."""
    there, version = dict(before), len(before)
    answers, notes, ended = [], [], {}
    for ops in units:
        try:
            effects = decide(ops, there, NOW, version, is_watched=is_watched)
        except RefusedError as exc:
            answers.append(shown(exc))
            continue
        data = {(row.path, row.key): row.data for row, _ in effects.writes}
        for note in ends_of(effects):
            if (was := there.get((note.path, note.key))) is not None:
                is_same = note.kind == "put" and was.data == data[note.path, note.key]
                ended[note.version] = (replace(was, data=b"") if is_same else was), is_same
        there |= {(row.path, row.key): row for row, _ in effects.writes}
        version = effects.version
        answers.append(shown(effects.answers))
        notes += effects.notes
    return there, answers, notes, ended, version


def shown(outcome: list[Any] | Exception) -> list[Any]:
    if isinstance(outcome, Exception):
        return [type(outcome)]
    return [seen(answer) if isinstance(answer, Item) else answer for answer in outcome]


def seen(item: Item) -> tuple[Any, ...]:
    times = item.created_at, item.updated_at, item.expires_at
    return (item.namespace, item.key, item.value, item.version, *times)


def columns(row: Record) -> tuple[Any, ...]:
    indexing = None if row.indexing is None else orjson.dumps(row.indexing).decode()
    code = checksum(row.path, row.key, row.version, row.data)
    times = row.created_at, row.updated_at
    rest = row.data.decode(), row.expires_at, row.ttl, indexing
    return (row.path, row.key, row.version, *times, code, *rest)


def stored(connection: driver.Connection) -> Iterator[Record]:
    """Yield the rows of a file, whose checksums must be right."""
    for _, _, *texts, version, created, updated, expires, ttl, indexing, code in connection.execute(
        statements.CHECK_ROWS, (0, 1_000)
    ):
        path, key, value = texts[0].decode(), texts[1].decode(), texts[2]
        paths_ = None if indexing is None else tuple(orjson.loads(indexing))
        row = Record(path, key, value, version, created, updated, expires, ttl, paths_)
        assert checksum(path, key, version, value) == code
        yield row
