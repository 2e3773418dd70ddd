"""A store looked over, as of one moment: what is damaged, what waits, and how much there is.

What others write meanwhile is no damage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from kvstore import codec
from kvstore.description import Description
from kvstore.index_plan import codes_in, has_own, is_as_wanted, texts_of_row
from kvstore.jobs import no_job
from kvstore.namespace import decode_namespace, encode_namespace, root_of, show
from kvstore.postgres import (
    declared,
    index_statements,
    past_statements,
    sequence_statements,
    statements,
)
from kvstore.postgres.codes import scalars_of
from kvstore.postgres.connection import Connection, DriverError, is_damage, snapshot
from kvstore.postgres.indexing import embeds, vectors_table
from kvstore.postgres.keys import decode_key, encode_key
from kvstore.postgres.reading import fetch
from kvstore.report import WAITS, Meter, Report, RootStats, Stats
from kvstore.rules import row_problem
from kvstore.sequences import position_of

__all__ = ["check", "find_index_problems", "stats"]

_SLICE = 1_000  # rows looked at by one statement
_INDEXED_SLICE = 500  # the same, with what the index has of them
_MOST_PROBLEMS = 100
_MOST_VERSION = 2**62  # beyond what a store can ever have written


async def check(connection: Connection, meter: Meter) -> Report:
    """Look everything over, in one transaction.

    Raises:
        DriverError: it is no damage that keeps something from being read.
    """
    looking = _Looking(connection, meter)
    try:
        async with snapshot(connection):
            await looking.at_everything()
    except DriverError as exc:
        if not is_damage(exc):
            raise
        looking.problems.append(
            f"the server cannot read on ({type(exc).__name__}); restore it from a backup"
        )
    problems = looking.problems
    meter.show(looking.seen, looking.seen)
    await asyncio.sleep(0)  # for the last word of progress
    if len(problems) > _MOST_PROBLEMS:
        problems[_MOST_PROBLEMS:] = ["and more of them"]
    return Report(looking.seen, tuple(problems), tuple(looking.waiting))


class _Looking:
    """A look at a store, and what it has found so far."""

    def __init__(self, connection: Connection, meter: Meter) -> None:
        self._connection = connection
        self._meter = meter
        self.problems: list[str] = []
        self.waiting: list[str] = []
        self.seen = 0

    async def at_everything(self) -> None:
        connection = self._connection
        if await connection.fetchrow(statements.GET_STATE) is None:
            self.problems.append("kvstore_state: the store's own row is missing")
        newest = dict(map(tuple, await connection.fetch(statements.LIST_ROOTS)))
        await self._at_rows(newest)
        for (root,) in await connection.fetch(statements.FIND_FEEDS_AHEAD):
            self.problems.append(f"changes: the feed of {_named(root)} is ahead")
        for root, version in newest.items():
            if version >= _MOST_VERSION:
                self.problems.append(
                    f"the version of {_named(root)}, {version}, is none that writing leads to"
                )
        for (root,) in await connection.fetch(past_statements.FIND_AHEAD):
            self.problems.append(f"the past of {_named(root)} is ahead of it")
        self.problems += await _find_sequence_problems(connection)
        self.problems += await find_index_problems(connection)
        self.problems += await declared.find_problems(connection)
        for path, key in await connection.fetch(index_statements.FIND_WAITING):
            self.waiting.append(f"{_named(path, key)} {WAITS}")

    async def _at_rows(self, newest: Mapping[str, int]) -> None:
        connection = self._connection
        expected = await connection.fetchval(statements.COUNT_ROWS)
        place: tuple[str, str, str] | None = None
        while len(self.problems) <= _MOST_PROBLEMS:
            self._meter.show(self.seen, max(expected, self.seen))
            rows = await fetch(connection, statements.check_rows(place, _SLICE))
            for row in rows:
                problem = _row_problem(tuple(row), newest.get(row[0]))
                self.problems += [] if problem is None else [problem]
            self.seen += len(rows)
            if len(rows) < _SLICE:
                return
            place = tuple(rows[-1])[:3]


def _named(path: str, *keys: str) -> str:
    """Name a namespace, or an item, as its columns have it."""
    return show(decode_namespace(path), *map(decode_key, keys))


def _row_problem(row: Sequence[Any], newest: int | None) -> str | None:
    """Say what is wrong with a row, if something is.

    Args:
        row: of `statements.check_rows`.
        newest: the version of its root; `None`: there is no such root.
    """
    root, path, key, value, version, created_at, updated_at, expires_at, ttl, indexing = row
    try:
        labels = decode_namespace(path) if path.endswith("\t") or not path else None
    except (IndexError, ValueError):
        labels = None
    if labels is None or encode_namespace(labels) != path or root_of(path) != root:
        return f"the row at {path!r}: its path is no namespace"
    if encode_key(decode_key(key)) != key:
        return f"the row at {show(labels)}: its key is not as kvstore writes it"
    where = show(labels, decode_key(key))
    try:
        paths = None if indexing is None else orjson.loads(indexing)
    except ValueError:
        return f"{where}: what of it is indexed is not what kvstore writes"
    problem = row_problem(value.encode(), paths, created_at, updated_at, expires_at, ttl)
    if problem is not None:
        return f"{where}: {problem}"
    if newest is None:
        return f"{where}: kvstore_roots has lost the row of its root"
    if not 0 < version <= newest:
        return f"{where}: its version {version} is ahead of the root's, {newest}"
    return None


async def _find_sequence_problems(connection: Connection) -> list[str]:
    """Say where what is kept of logs and queues is not true of their items."""
    found = []
    for path, kind, last, *rest in await connection.fetch(sequence_statements.CHECK_SEQUENCES):
        size, delayed, leased, dead, newest, number, *counted = rest
        where = f"{kind}: {_named(path)}"
        if number != size:
            found.append(f"{where}: {number:,} are there, and its size is {size:,}")
        if newest is not None and (position_of(newest) or 0) > last:
            found.append(f"{where}: it is ahead of the last position that was given, {last}")
        expected = [delayed, leased, dead, size if kind == "queue" else 0]
        names = ("delayed", "leased", "dead", "known")
        found += [
            f"{where}: {there:,} jobs are {name}, and {kept:,} are counted"
            for name, there, kept in zip(names, counted, expected, strict=True)
            if there != kept
        ]
    foreign = await connection.fetch(sequence_statements.ITEMS_NO_JOBS)
    return found + [no_job(path, decode_key(key)) for path, key in foreign]


async def find_index_problems(connection: Connection) -> list[str]:
    """Hold the search index against the items."""
    async with snapshot(connection):
        described = {
            root: Description.parse(text)
            for root, text in await connection.fetch(index_statements.LIST_DESCRIPTIONS)
        }
        if not described:
            return []
        problems = []
        cursor = await connection.cursor(index_statements.GET_CHECKED)
        while rows := await cursor.fetch(_INDEXED_SLICE):
            problems += [
                problem
                for root, *row in rows
                if root in described and (problem := _index_problem(row, described[root]))
            ]
        lengths = {each.dimensions for each in described.values() if each.dimensions is not None}
        tables = ["kvstore_entries", "kvstore_facts", "kvstore_pending"]
        for table in tables + [vectors_table(length) for length in sorted(lengths)]:
            count = index_statements.COUNT_ORPHANS.format(table=table)
            if number := await connection.fetchval(count):
                problems.append(f"index: {number} rows of {table} belong to no item")
        for (root,) in await connection.fetch(index_statements.FIND_MISCOUNTED):
            where = _named(root)
            problems.append(f"index: the numbers of words of {where} are not those of its entries")
        return problems


def _index_problem(row: Sequence[Any], description: Description) -> str | None:
    """Say what is wrong with one item's entries."""
    path, key, value, indexing, held, scalars, is_pending = row
    if is_pending:
        return None
    paths = None if indexing is None else orjson.loads(indexing)
    decoded = codec.decode(value.encode())
    texts, codes = texts_of_row(decoded, paths, description), codes_in(held or b"")
    where = f"index: {_named(path, key)}"
    if not is_as_wanted(codes, texts) or (texts and held is None):
        return f"{where} is not indexed as it is, and not marked for reindex"
    has_scalars = has_own(codes) or (texts and embeds(description))
    if scalars != (scalars_of(decoded) if has_scalars else None):
        return f"{where} has other scalars than the index says"
    return None


async def stats(connection: Connection, now: int) -> Stats:
    """Measure everything, at one instant."""
    async with snapshot(connection):
        rows = await connection.fetch(statements.MEASURE, now)
        version, _, index = await connection.fetchrow(statements.GET_STATE)
        newest = await connection.fetchval(statements.GET_NEWEST)
        expired, changes, size = await connection.fetchrow(statements.COUNT_REST, now)
        past, past_bytes = await connection.fetchrow(past_statements.MEASURE)
        logs, queues, dead = await connection.fetchrow(sequence_statements.MEASURE)
        described = None if index is None else Description.parse(index)
        pending = None
        if described is not None and (described.fields or described.model):
            pending = await connection.fetchval(index_statements.COUNT_PENDING)
    roots = {
        decode_namespace(root): RootStats(items, namespaces, int(length))
        for root, items, namespaces, length in rows
    }
    items = sum(root.items for root in roots.values())
    return Stats(
        items=items,
        namespaces=sum(root.namespaces for root in roots.values()),
        bytes=sum(root.bytes for root in roots.values()),
        roots=roots,
        version=version if newest is None else newest,
        expired=expired,
        indexed=None if pending is None else max(0, items - pending),
        changes=changes,
        file_bytes=size,
        past=past,
        past_bytes=int(past_bytes),
        logs=logs,
        queues=queues,
        dead_jobs=int(dead),
    )
