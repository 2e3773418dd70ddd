"""Looking a store over: is everything as it was written, and how much is there of it.

Both see one moment: what others write meanwhile is neither damage nor counted twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from kvstore import codec
from kvstore.errors import StoreCorruptError, StoreError
from kvstore.files import file_errors
from kvstore.index_plan import is_as_wanted, texts_of_row
from kvstore.jobs import DEAD, DELAYED, no_job
from kvstore.namespace import decode_namespace, encode_namespace, show, subtree_range
from kvstore.report import WAITS, Meter, Report, RootStats, Stats
from kvstore.rules import row_problem, unpack_indexing
from kvstore.sequences import SequenceState, key_of, position_of
from kvstore.sqlite import (
    codes,
    declared,
    driver,
    index_statements,
    large,
    sequence_statements,
    statements,
)
from kvstore.sqlite import past_statements as sql
from kvstore.sqlite.connection import is_unclear, snapshot
from kvstore.sqlite.index_file import FREE, codes_held, describe
from kvstore.sqlite.layout import problems_of
from kvstore.sqlite.lineage import log_bytes
from kvstore.sqlite.migrate import steps
from kvstore.sqlite.reading import checksum, is_version
from kvstore.sqlite.sequences import Execute, count_state
from kvstore.types import Namespace

__all__ = ["check", "check_index", "check_rows", "stats"]

_SLICE = 1_000  # rows between two looks at whether to go on
_MOST_PROBLEMS = 100
_UNREADABLE = (codes.SQLITE_CORRUPT, codes.SQLITE_FORMAT, codes.SQLITE_IOERR, codes.SQLITE_NOTADB)


def check(connection: driver.Connection, path: Path, meter: Meter) -> Report:
    """Look everything over; what cannot be read ends its own part alone.

    In a file whose schema is another's, that is all that is looked at.

    The log cannot start over while it lasts, and grows by what others write.
    """
    problems: list[str] = []
    looked_at = 0

    def rows() -> Iterator[str]:
        nonlocal looked_at
        for looked_at, problem in check_rows(connection):
            if problem is not None:
                yield problem
            if looked_at % _SLICE == 0:
                meter.show(looked_at, max(total, looked_at))

    with snapshot(connection):
        problems += _readable(_check_schema(connection), path, "the schema")
        if problems:  # what others have made may never end
            return Report(0, tuple(problems))
        total = _count_rows(connection)
        meter.show(0, total)
        parts = {
            "the pages": _check_file(connection, meter),
            "items": rows(),
            "the store": _check_meta(connection),
            "the index": check_index(connection),
            "filters": declared.find_problems(connection),
            "large namespaces": large.find_problems(connection),
            "history": _check_past(connection),
            "logs and queues": _check_sequences(connection),
        }
        for what, part in parts.items():
            for problem in _readable(part, path, what):
                problems.append(problem)
                if len(problems) > _MOST_PROBLEMS:
                    break
            meter.check()
        waiting = [] if problems else _waiting(connection)
    meter.show(looked_at, looked_at)
    if len(problems) > _MOST_PROBLEMS:
        problems[_MOST_PROBLEMS:] = ["and more of them"]
    return Report(looked_at, tuple(dict.fromkeys(problems)), tuple(waiting))


def _waiting(connection: driver.Connection) -> list[str]:
    """Name items of which the index does not hold everything yet."""
    return [
        f"{show(decode_namespace(path), key)} {WAITS}"
        for path, key in connection.execute(index_statements.FIND_WAITING)
    ]


def _readable(problems: Iterable[str], path: Path, what: str) -> Iterator[str]:
    """Yield problems, and if they cannot be found, that; `what` they are of.

    Raises:
        driver.Error: it is no damage that keeps them from being found.
    """
    try:
        yield from problems
    except driver.Error as exc:
        if not is_unclear(exc) and getattr(exc, "sqlite_errorcode", 0) & 0xFF not in _UNREADABLE:
            raise
        name = getattr(exc, "sqlite_errorname", type(exc).__name__)
        yield f"{path}: cannot be read on ({name}); restore it from a backup"
    except StoreError as exc:
        yield str(exc)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        yield f"{path}: what it keeps of {what} is not as it was written; restore it from a backup"


def _check_schema(connection: driver.Connection) -> Iterator[str]:
    for problem in problems_of(connection, steps()):
        yield f"schema: {problem}"


def _count_rows(connection: driver.Connection) -> int:
    """Return how many rows there are to look at; 0 if that cannot be told."""
    with suppress(driver.Error):
        number: int = connection.execute(statements.COUNT_ROWS).fetchone()[0]
        return number
    return 0


def _check_file(connection: driver.Connection, meter: Meter) -> Iterator[str]:
    """Have SQLite look over its pages and indexes; that is one long statement."""

    def should_stop() -> int:
        try:
            meter.check()
        except BaseException:  # noqa: BLE001 - told to SQLite, which raises SQLITE_INTERRUPT
            return 1
        return 0

    connection.set_progress_handler(should_stop, 100_000)
    try:
        for (line,) in connection.execute("PRAGMA integrity_check(100)"):
            if line != "ok":
                yield f"file: {line}"
    finally:
        connection.set_progress_handler(None, 0)


def check_rows(connection: driver.Connection) -> Iterator[tuple[int, str | None]]:
    """Yield, for each row, how many there were so far, and what is wrong with it."""
    number = 0
    for rows in _slices(connection, statements.CHECK_ROWS):
        # After the rows: none of them can be newer, in a transaction or out of it.
        state = connection.execute(statements.GET_VERSION).fetchone()
        newest = state[0] if state is not None and is_version(state[0]) else None
        for row in rows:
            number += 1
            yield number, _row_problem(row, newest)


def _slices(connection: driver.Connection, statement: str) -> Iterator[list[Any]]:
    """Yield the rows of a statement, some at once: those above a number, in its order."""
    last = -1
    while rows := connection.execute(statement, (last, _SLICE)).fetchall():
        yield rows
        last = rows[-1][0]


def _row_problem(row: tuple[Any, ...], newest: int | None) -> str | None:
    """Say what is wrong with a row.

    Args:
        row: as `CHECK_ROWS` has it; any column may hold anything.
        newest: the store's version; `None`: it has none.
    """
    (id_, types, path, key, data, version, created_at, updated_at, expires_at, ttl, indexing) = row[
        :-1
    ]
    if types != "texttexttext":
        return f"row {id_}: its path, its key or its value is no text"
    try:
        path, key = path.decode(), key.decode()
        labels = decode_namespace(path)
        if encode_namespace(labels) != path or "" in labels:
            return f"row {id_}: its path is no namespace"
    except (ValueError, IndexError):
        return f"row {id_}: its path or its key is no text"
    where = show(labels, key)
    if type(version) is not int or checksum(path, key, version, data) != row[-1]:
        return f"{where}: its checksum does not match"
    try:
        paths = None if indexing is None else orjson.loads(indexing)
    except ValueError:
        return f"{where}: what of it is indexed is not what kvstore writes"
    problem = row_problem(data, paths, created_at, updated_at, expires_at, ttl)
    if problem is not None:
        return f"{where}: {problem}"
    if newest is not None and not 0 < version <= newest:
        return f"{where}: its version {version} is ahead of the store's, {newest}"
    return None


def _check_meta(connection: driver.Connection) -> Iterator[str]:
    row = connection.execute(statements.GET_VERSION).fetchone()
    version: Any = None if row is None else row[0]
    until, begin, last = connection.execute(statements.GET_FEED_STATE).fetchone()
    kept = connection.execute(sql.GET_KEPT, (0,)).fetchone()[:3]
    if not all(type(each) is int for each in (version, until, begin, *kept)):
        yield "meta: a number of the store's own is missing or is none"
    elif not is_version(version):
        yield f"meta: the store's version, {version}, is none that writing leads to"
    elif begin > version or (last or 0) > version:
        yield f"changes: the feed is ahead of the store's version, {version}"


def check_index(connection: driver.Connection) -> Iterator[str]:
    """Hold the index against the items, without any help of sqlite-vec."""
    description = describe(connection)
    if description is None:
        return
    for rows in _slices(connection, index_statements.GET_CHECKED):
        for item, indexing, value, slots, has_words, is_pending in rows:
            try:
                texts = texts_of_row(codec.decode(value), unpack_indexing(indexing), description)
            except (StoreError, TypeError, ValueError):
                continue  # a damaged row, which is told as such
            held = set(codes_held(slots or b"")) - {FREE}
            if (slots is not None) != bool(has_words):
                yield f"index: item {item} is in one of its tables and not in the other"
            is_right = is_as_wanted(held, texts) and (slots is not None or not texts)
            if not is_pending and not is_right:
                yield f"index: item {item} is not indexed as it is, and not marked for reindex"
    checks = {
        "index_entries": index_statements.COUNT_ENTRIES_WITHOUT_ITEM,
        "words": index_statements.COUNT_WORDS_WITHOUT_ITEM,
    }
    if description.dimensions is not None:
        for table in index_statements.VECTOR_TABLES:
            checks[table] = index_statements.count_orphans(table)
    execute = connection.execute
    strays = {what: execute(statement).fetchone()[0] for what, statement in checks.items()}
    for what, number in strays.items():
        if number:
            yield f"index: {number} rows of {what} belong to no item"
    if not strays["index_entries"] and execute(index_statements.FIND_MISCOUNTED).fetchone():
        yield "index: the numbers of its words are not those of its entries"


def _check_past(connection: driver.Connection) -> Iterator[str]:
    """Yield what is wrong with the past: each old item is held against its checksum."""
    for rows in _slices(connection, sql.CHECK_PAST):
        newest = connection.execute(statements.GET_VERSION).fetchone()[0]
        for last, ended_at, version, is_forgotten, *names, data, created, updated, code in rows:
            try:
                path, key = (name.decode() for name in names)
                where = show(decode_namespace(path), key)
                numbers = ended_at, version, created, updated
                if not all(type(each) is int for each in numbers) or not version < last <= newest:
                    yield f"history: {where}: its versions or its times are none"
                elif not is_forgotten and checksum(path, key, version, data) != code:
                    yield f"history: {where}: the checksum of version {version} does not match"
            except (TypeError, ValueError, IndexError, AttributeError):
                yield f"history: row {last} is not as it was written"


def _check_sequences(connection: driver.Connection) -> Iterator[str]:
    """Yield what is wrong with logs and queues, by the items that there are."""
    execute = connection.execute
    for path, kind, *numbers in execute(sequence_statements.CHECK_SEQUENCES).fetchall():
        where = f"{kind}: {_named(path)}"
        if kind not in ("log", "queue") or not all(_is_count(each) for each in numbers):
            yield f"{where}: its numbers are none"
            continue
        state = SequenceState(path, kind, *numbers)
        counted = count_state(execute, path)
        if counted.size != state.size:
            yield f"{where}: {counted.size:,} are there, and its size is {state.size:,}"
        if counted.last > state.last or state.trimmed > state.last:
            yield f"{where}: it is ahead of the last position that was given, {state.last}"
        if kind == "queue":
            yield from _check_jobs(execute, state, where)
    for (path,) in execute(sequence_statements.JOBS_OF_NO_QUEUE).fetchall():
        yield f"queue: {_named(path)}: it has jobs, and is none"


def _check_jobs(execute: Execute, state: SequenceState, where: str) -> Iterator[str]:
    numbers = dict(execute(sequence_statements.COUNT_STATES, (state.path,)).fetchall())
    for name, kind, kept in (("delayed", DELAYED, state.delayed), ("dead", DEAD, state.dead)):
        if numbers.get(kind, 0) != kept:
            yield f"{where}: {numbers.get(kind, 0):,} jobs are {name}, and {kept:,} are counted"
    for (position,) in execute(sequence_statements.JOBS_WITHOUT_ITEM, (state.path,)).fetchall():
        yield f"{where}: the job {position} has no item"
    for (key,) in execute(sequence_statements.ITEMS_NO_JOBS, (state.path,)).fetchall():
        yield no_job(state.path, key)
    known = state.path, key_of(state.noted)
    for (key,) in execute(sequence_statements.ITEMS_WITHOUT_JOB, known).fetchall():
        yield f"{where}: nothing is known of the job {position_of(key)}, which nobody will take"


def _named(path: Any) -> str:
    try:
        return show(decode_namespace(path))
    except (ValueError, IndexError, TypeError, AttributeError):
        return "a namespace that is none"


def _is_count(number: object) -> bool:
    return type(number) is int and number >= 0


def _labels(path: Any) -> Namespace:
    """Return the labels of a path that a row has.

    Raises:
        StoreCorruptError: it is none that is written.
    """
    with suppress(ValueError, IndexError, TypeError, AttributeError):
        labels = decode_namespace(path)
        if encode_namespace(labels) == path:
            return labels
    raise StoreCorruptError(f"{path!r} is no namespace; 'await store.check()' tells what is wrong")


def stats(connection: driver.Connection, path: Path, now: int, meter: Meter) -> Stats:
    """Measure everything, by one statement for each root namespace.

    Raises:
        StoreCorruptError: what is damaged cannot be measured.
    """
    with snapshot(connection):
        return _stats(connection, path, now, meter)


def _stats(connection: driver.Connection, path: Path, now: int, meter: Meter) -> Stats:
    roots: dict[Namespace, RootStats] = {}
    state = connection.execute(statements.GET_VERSION).fetchone()
    if state is None or not is_version(state[0]):
        raise StoreCorruptError(f"{path} has lost its version; restore it from a backup")
    version: int = state[0]
    low, high = "", "\0"  # `()` itself: its path is empty
    while True:
        items, namespaces, size = connection.execute(
            statements.MEASURE, (low, high, now)
        ).fetchone()
        if items:
            roots[_labels(low)] = RootStats(items, namespaces, int(size))
        meter.check()
        row = driver.run(connection, statements.first_live_path(high, None, now)).fetchone()
        if row is None:
            break
        low, upper = subtree_range(encode_namespace(_labels(row[0])[:1]))
        assert upper is not None
        high = upper
    rest = connection.execute(statements.COUNT_REST, (now,)).fetchone()
    expired, changes, has_index, pending = rest
    past, past_bytes = connection.execute(sql.MEASURE_PAST).fetchone()
    logs, queues, dead = connection.execute(sequence_statements.MEASURE_SEQUENCES).fetchone()
    items = sum(root.items for root in roots.values())
    with file_errors(path):
        file_bytes, wal_bytes = path.stat().st_size, log_bytes(path)
    return Stats(
        items=items,
        namespaces=sum(root.namespaces for root in roots.values()),
        bytes=sum(root.bytes for root in roots.values()),
        roots=roots,
        version=version,
        expired=expired,
        indexed=max(0, items - pending) if has_index else None,
        changes=changes,
        past=past,
        past_bytes=int(past_bytes),
        logs=logs,
        queues=queues,
        dead_jobs=dead,
        file_bytes=file_bytes,
        wal_bytes=wal_bytes,
    )
