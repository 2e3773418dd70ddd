"""Looking a store over: is everything as it was written, and how much is there of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from kvstore.namespace import decode_namespace, encode_namespace, show, subtree_range
from kvstore.report import Meter, Report, RootStats, Stats
from kvstore.rules import row_problem
from kvstore.sqlite import driver, statements
from kvstore.sqlite.reading import checksum
from kvstore.types import Namespace

__all__ = ["check", "stats"]

_SLICE = 1_000  # rows between two looks at whether to go on; no read transaction outlives it
_MOST_PROBLEMS = 100

# Each yields one line for each problem of an index, given a connection to read from.
INDEX_CHECKS: list[Callable[[driver.Connection], Iterator[str]]] = []


def check(connection: driver.Connection, path: Path, meter: Meter) -> Report:
    """Look everything over, in slices."""
    problems: list[str] = []
    looked_at = 0
    try:
        total: int = connection.execute(statements.COUNT_ROWS).fetchone()[0]
        meter.show(0, total)
        problems += _check_file(connection, meter)
        for looked_at, problem in _check_rows(connection):
            if problem is not None:
                problems.append(problem)
            if len(problems) > _MOST_PROBLEMS:
                break
            if looked_at % _SLICE == 0:
                meter.show(looked_at, max(total, looked_at))
        problems += _check_meta(connection)
        for check_index in INDEX_CHECKS:
            problems += check_index(connection)
        meter.show(looked_at, looked_at)
    except driver.Error as exc:  # too damaged to be read on
        name = getattr(exc, "sqlite_errorname", type(exc).__name__)
        problems.append(f"{path}: cannot be read on ({name}); restore it from a backup")
    if len(problems) > _MOST_PROBLEMS:
        problems[_MOST_PROBLEMS:] = ["and more of them"]
    return Report(looked_at, tuple(problems))


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


def _check_rows(connection: driver.Connection) -> Iterator[tuple[int, str | None]]:
    """Yield, for each row, how many there were so far, and what is wrong with it."""
    number = last = 0
    while True:
        rows = connection.execute(statements.CHECK_ROWS, (last, _SLICE)).fetchall()
        # After the rows: none of them can be newer.
        version: int = connection.execute(statements.GET_VERSION).fetchone()[0]
        for row in rows:
            number += 1
            yield number, _row_problem(row, version)
        if len(rows) < _SLICE:
            return
        last = rows[-1][0]


def _row_problem(row: tuple[Any, ...], newest: int) -> str | None:
    (id_, path, key, data, version, created_at, updated_at, expires_at, ttl, indexing, sum_) = row
    try:
        path, key = path.decode(), key.decode()
        labels = decode_namespace(path)
        if encode_namespace(labels) != path:
            return f"row {id_}: its path is no namespace"
    except (UnicodeDecodeError, AttributeError, IndexError):
        return f"row {id_}: its path or its key is no text"
    where = show(labels, key)
    if checksum(path, key, version, data) != sum_:
        return f"{where}: its checksum does not match"
    try:
        paths = None if indexing is None else orjson.loads(indexing)
    except ValueError:
        return f"{where}: what of it is indexed is not what kvstore writes"
    problem = row_problem(data, paths, created_at, updated_at, expires_at, ttl)
    if problem is not None:
        return f"{where}: {problem}"
    if not 0 < version <= newest:
        return f"{where}: its version {version} is ahead of the store's, {newest}"
    return None


def _check_meta(connection: driver.Connection) -> Iterator[str]:
    version: Any = connection.execute(statements.GET_VERSION).fetchone()[0]
    until, begin, last = connection.execute(statements.GET_FEED_STATE).fetchone()
    if not all(type(each) is int for each in (version, until, begin)):
        yield "meta: a number of the store's own is missing or is none"
    elif begin > version or (last or 0) > version:
        yield f"changes: the feed is ahead of the store's version, {version}"


def stats(connection: driver.Connection, path: Path, now: int, meter: Meter) -> Stats:
    """Measure everything, by one statement for each root namespace."""
    roots: dict[Namespace, RootStats] = {}
    version: int = connection.execute(statements.GET_VERSION).fetchone()[0]
    low, high = "", "\0"  # `()` itself: its path is empty
    while True:
        items, namespaces, size = connection.execute(
            statements.MEASURE, (low, high, now)
        ).fetchone()
        if items:
            roots[decode_namespace(low)] = RootStats(items, namespaces, int(size))
        meter.check()
        found = statements.first_live_path(high, None, now)
        row = connection.execute(found.text, found.params).fetchone()
        if row is None:
            break
        low, upper = subtree_range(encode_namespace(decode_namespace(row[0])[:1]))
        assert upper is not None
        high = upper
    rest = connection.execute(statements.COUNT_REST, (now,)).fetchone()
    expired, changes, has_index, pending = rest
    items = sum(root.items for root in roots.values())
    wal = Path(f"{path}-wal")
    return Stats(
        items=items,
        namespaces=sum(root.namespaces for root in roots.values()),
        bytes=sum(root.bytes for root in roots.values()),
        roots=roots,
        version=version,
        expired=expired,
        indexed=max(0, items - pending) if has_index else None,
        changes=changes,
        file_bytes=path.stat().st_size,
        wal_bytes=wal.stat().st_size if wal.exists() else 0,
    )
