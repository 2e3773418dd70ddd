"""A file of LangGraph's own SQLite store, made kvstore's where it lies.

LangGraph's tables stay as they are, and its own saver may go on with its; kvstore's come beside
them, and what the store's tables hold is brought over once. Until that is done a table says so, so
that it is made up for where a process died in between.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Final

from kvstore.errors import StoreBusyError
from kvstore.integrations.langgraph_import import import_sqlite_store, tables_of
from kvstore.sqlite import SQLiteStore
from kvstore.sqlite.connection import connect, transaction, translated
from kvstore.sqlite.guard import Hold
from kvstore.sqlite.migrate import APPLICATION_ID, is_langgraphs
from kvstore.store import Store

__all__ = ["begin", "finish"]

_LOG: Final = logging.getLogger(__name__)
_PENDING: Final = "langgraph_store_to_import"
_TIMEOUT: Final = 5.0  # for whoever else is at it, in seconds
_PAUSE: Final = 0.02


async def begin(store: Store) -> None:
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


async def finish(store: Store) -> None:
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
