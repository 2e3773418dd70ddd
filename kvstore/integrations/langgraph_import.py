"""What LangGraph's own SQLite store and saver have written, brought over."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, Final

import orjson
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from kvstore import codec
from kvstore.errors import InvalidArgumentError, StoreAccessError, StoreBusyError, StoreCorruptError
from kvstore.integrations.access import Access, Target
from kvstore.integrations.langgraph_checkpoints import Checkpoints, Write
from kvstore.integrations.langgraph_drafts import Memory, Place
from kvstore.operations import Conflict
from kvstore.sqlite import SQLiteStore
from kvstore.sqlite.connection import connect, transaction, translated
from kvstore.sqlite.guard import Hold
from kvstore.sqlite.migrate import APPLICATION_ID, is_langgraphs
from kvstore.store import Store

__all__ = [
    "begin_adoption",
    "finish_adoption",
    "import_sqlite_saver",
    "import_sqlite_store",
    "tables_of",
]

_ROWS: Final = 500  # in hand at once

_ITEMS: Final = """
SELECT prefix, key, value, created_at, updated_at, {expires_at}, {ttl_minutes} FROM store
ORDER BY updated_at, prefix, key
"""
_CHECKPOINTS: Final = """
SELECT thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
FROM checkpoints ORDER BY checkpoint_id
"""
_WRITES: Final = """
SELECT thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, value, {task_path}
FROM writes ORDER BY thread_id, checkpoint_ns, checkpoint_id, task_id, idx
"""


async def import_sqlite_store(
    path: str | os.PathLike[str], store: Target, *, on_conflict: Conflict = "replace"
) -> int:
    """Bring over what LangGraph's `SqliteStore` or `AsyncSqliteStore` has written.

    Namespaces, keys, values, times and lifetimes stay; vectors are made anew by the index that
    the store has. All or nothing.

    Args:
        path: the old file, which is only read.
        store: where to, an open store, or a path or URL.
        on_conflict: what to do where a key is there already: `"replace"` the item, `"skip"` the
            old one, or raise an `"error"`.

    Returns:
        How many items there were; what is expired is left out.

    Raises:
        StoreAccessError: the old file is not there, or cannot be read.
        InvalidArgumentError: it holds no store of LangGraph's.
        StoreCorruptError: a row of it cannot be read; it is named.
    """

    async def bring(opened: Store) -> int:
        folder = tempfile.TemporaryDirectory(prefix="kvstore-", ignore_cleanup_errors=True)
        try:
            lines = Path(folder.name, "items.jsonl")
            await asyncio.to_thread(_write_lines, Path(path), lines)
            return await opened.import_items(lines, on_conflict=on_conflict)
        finally:
            await asyncio.to_thread(folder.cleanup)

    access = Access(store, "import_sqlite_store")
    try:
        return await access.run(bring)
    finally:
        await access.close()


def _write_lines(path: Path, lines: Path) -> None:
    """Write the items of a file as `import_items` reads them."""
    with lines.open("wb") as file:
        for rows in _rows(path, "store", _ITEMS, ("expires_at", "ttl_minutes")):
            for row in rows:
                _write_line(file, row, path)


def _write_line(file: IO[bytes], row: Sequence[Any], path: Path) -> None:
    prefix, key, value, created_at, updated_at, expires_at, ttl_minutes = row
    try:
        head: dict[str, Any] = {
            "namespace": prefix.split("."),
            "key": key,
            "created_at": _time(created_at),
            "updated_at": _time(updated_at),
        }
        if expires_at is not None:
            head |= {"expires_at": _time(expires_at), "ttl": (ttl_minutes or 1) * 60}
        encoded = codec.encode(orjson.loads(value))
        file.write(orjson.dumps(head)[:-1] + b',"value":' + encoded + b"}\n")
    except (AttributeError, TypeError, ValueError) as exc:
        raise StoreCorruptError(
            f"the item {key!r} of {prefix!r} in {path} is damaged: {type(exc).__name__}"
        ) from exc


def _time(text: str) -> str:
    """Return a time as SQLite or Python wrote it, without a zone for UTC, in full."""
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()


async def import_sqlite_saver(
    path: str | os.PathLike[str], target: Target, *, serde: SerializerProtocol | None = None
) -> int:
    """Bring over the checkpoints and writes of LangGraph's `SqliteSaver` or `AsyncSqliteSaver`.

    Each checkpoint comes whole; a call that was cut short may be made again.

    Args:
        path: the old file, which is only read.
        target: where to, an open store, or a path or URL.
        serde: that of the old saver, if it had one, as of `LangGraphCheckpointer`.

    Returns:
        How many checkpoints there were.

    Raises:
        StoreAccessError: the old file is not there, or cannot be read.
        InvalidArgumentError: it holds no checkpoints of LangGraph's.
        StoreCorruptError: a row of it cannot be read; it is named.
    """
    read = serde or JsonPlusSerializer()

    async def bring(opened: Store) -> int:
        checkpoints = Checkpoints(opened, read, Memory())
        number = 0
        async for rows in _pages(Path(path), "checkpoints", _CHECKPOINTS, ()):
            for row in rows:
                await _bring_checkpoint(checkpoints, row, Path(path))
                number += 1
        async for rows in _pages(Path(path), "writes", _WRITES, ("task_path",)):
            for (thread, ns, id, task), slots in groupby(rows, itemgetter(0, 1, 2, 3)):
                writes = {
                    slot: Write(task, slot, channel, (kind, value), task_path or "")
                    for *_, slot, channel, kind, value, task_path in slots
                }
                await checkpoints.put_slots(Place(thread, ns), id, task, writes)
        return number

    access = Access(target, "import_sqlite_saver")
    try:
        return await access.run(bring)
    finally:
        await access.close()


async def _bring_checkpoint(checkpoints: Checkpoints, row: Sequence[Any], path: Path) -> None:
    thread, ns, id, parent, kind, data, metadata = row
    try:
        checkpoint = checkpoints.serde.loads_typed((kind, data))
        described = {} if metadata is None else orjson.loads(metadata)
        new = checkpoint["channel_versions"]
    except Exception as exc:
        raise StoreCorruptError(
            f"the checkpoint {id!r} of the thread {thread!r} in {path} cannot be read: "
            f"{type(exc).__name__}"
        ) from exc
    await checkpoints.put(Place(thread, ns), parent, {**checkpoint, "id": id}, described, new)


# The old file


def tables_of(path: Path) -> frozenset[str]:
    """Return the names of a database's tables."""
    if not path.is_file():
        raise StoreAccessError(f"{path} is not there, or is no file; name the old file")
    connection = connect(path, "ro", busy_timeout=5.0)
    try:
        with translated(path):
            found = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
            return frozenset(name for (name,) in found)
    finally:
        connection.close()


def _rows(path: Path, table: str, query: str, added: Sequence[str]) -> Iterator[list[Any]]:
    """Yield the rows of a query in pages, as they are at one moment.

    Args:
        path: of the file.
        table: what must be there.
        query: with a placeholder for each column that old files lack.
        added: these columns.
    """
    if table not in tables_of(path):
        raise InvalidArgumentError(f"{path} has no table {table!r}, as LangGraph's files have")
    connection = connect(path, "ro", busy_timeout=5.0)
    try:
        with translated(path):
            columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            names = {name: name if name in columns else f"NULL AS {name}" for name in added}
            found = connection.execute(query.format(**names))
            while rows := found.fetchmany(_ROWS):
                yield rows
    finally:
        connection.close()


async def _pages(
    path: Path, table: str, query: str, added: Sequence[str]
) -> AsyncIterator[list[Any]]:
    """Yield the same, read in threads."""
    rows = _rows(path, table, query, added)
    try:
        while page := await asyncio.to_thread(next, rows, None):
            yield page
    finally:
        await asyncio.to_thread(rows.close)  # type: ignore[attr-defined]


# A file of the old store, made kvstore's where it lies.
#
# LangGraph's tables stay as they are, and its own saver may go on with its; kvstore's come beside
# them, and what the store's tables hold is brought over once. Until that is done a table says so,
# so that it is made up for where a process died in between.


_LOG: Final = logging.getLogger(__name__)
_PENDING: Final = "langgraph_store_to_import"
_TIMEOUT: Final = 5.0  # for whoever else is at it, in seconds
_PAUSE: Final = 0.02


async def begin_adoption(store: Store) -> None:
    """Make a file kvstore's if LangGraph's own store has made it.

    Args:
        store: of the file, not open yet.

    Raises:
        StoreBusyError: somebody has the file open.
    """
    if isinstance(store, SQLiteStore) and not store.settings.read_only:
        await asyncio.to_thread(_begin, store.path)


def _begin(path: Path) -> None:
    deadline = time.monotonic() + _TIMEOUT
    with Hold(path) as hold:
        while is_langgraphs(hold):
            if not hold.is_used:
                if "store" in tables_of(path):
                    _mark(path)
                return
            if time.monotonic() > deadline:  # it may be another SQLite library of this process
                raise StoreBusyError(
                    f"{path} is a file of LangGraph's own store, to be made kvstore's, and "
                    "somebody has it open: close that first, and open it again afterwards"
                )
            time.sleep(_PAUSE)


def _mark(path: Path) -> None:
    _execute(
        path,
        f"CREATE TABLE IF NOT EXISTS {_PENDING} (unused)",
        f"PRAGMA application_id = {APPLICATION_ID}",
    )


async def finish_adoption(store: Store) -> None:
    """Bring over what is to be brought over, if that is not done yet.

    Args:
        store: the same, and open.
    """
    if not isinstance(store, SQLiteStore) or store.settings.read_only:
        return
    path = store.path
    if not path.is_file() or _PENDING not in await asyncio.to_thread(tables_of, path):
        return
    number = await import_sqlite_store(path, store, on_conflict="skip")
    await asyncio.to_thread(_execute, path, f"DROP TABLE IF EXISTS {_PENDING}")
    _LOG.warning(
        "%s was a file of LangGraph's own store: kvstore has brought over its %d items, and goes "
        "on in the same file; what LangGraph's own store writes there from now on is not seen",
        path,
        number,
    )


def _execute(path: Path, *statements: str) -> None:
    connection = connect(path, "rw", busy_timeout=_TIMEOUT)
    try:
        with translated(path), transaction(connection, _TIMEOUT):
            for statement in statements:
                connection.execute(statement)
    finally:
        connection.close()
