"""Which log belongs to which file, so that a restored file never meets the log of another.

A process that dies leaves its log beside the file, and SQLite replays it at the next opening. If a
backup was copied over the file meanwhile, the log is of another state, or of another store, and
the two together are neither (https://sqlite.org/howtocorrupt.html, section 1.3). What tells:

- A backup is not in WAL mode, and has no log.
- The first transaction of each log notes the version of the store that it builds on, and the
  store's identity. A file that is older, or another store's, is not what the log was written for.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kvstore.errors import StoreReplacedError
from kvstore.sqlite import driver, statements
from kvstore.sqlite.guard import Hold

__all__ = ["begin_log", "log_bytes", "read_numbers", "require_own_log", "stamp"]

Written = tuple[int, int]  # of a file: its length, and when it was written

_MOST_STEPS = 100_000  # of SQLite's machine, to read three rows


def begin_log(connection: driver.Connection, version: int) -> None:
    """Note what the log builds on.

    Args:
        connection: inside a transaction that is about to commit.
        version: of the store, before the transaction.
    """
    connection.execute(statements.PUT_META, ("log_base", version))
    connection.execute(statements.SET_IDENTITY)


def log_bytes(path: Path) -> int:
    """Return how long the log of a file is."""
    return stamp(path)[1][0]


def stamp(path: Path) -> tuple[Written, Written]:
    """Return what changes when somebody writes: of a file and its log, how long and of when.

    Zeros of one that is not there, as another process may be removing it just now, or is empty:
    whoever looks at the file makes a log.
    """
    return _written(path), _written(Path(f"{path}-wal"))


def _written(path: Path) -> Written:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return (found.st_size, found.st_mtime_ns) if found.st_size else (0, 0)


def require_own_log(path: Path, hold: Hold, *, may_look: bool) -> None:
    """Refuse a file beside which the log of another state of it lies, or of another store.

    Args:
        path: of the file.
        hold: of the file.
        may_look: whether SQLite may open the file, and leave an index beside it.

    Raises:
        StoreReplacedError: it is so.
    """
    if log_bytes(path) == 0 or not hold.read(1):
        return
    if not hold.has_log:
        _refuse(path, "a backup was copied over it")
    if not may_look or hold.is_used is not False:  # it is in use
        return
    file, whole = read_numbers(path, is_alone=True), read_numbers(path, is_alone=False)
    identity, base = whole.get("identity"), whole.get("log_base")
    if file.get("identity") is not None and file["identity"] != identity:
        _refuse(path, "the file is another store's")
    version = file.get("version")  # of a file whose pages a power loss has torn: none can be told
    if type(base) is int and type(version) is int and version < base:
        _refuse(path, "the file is of an earlier time")


def read_numbers(path: Path, *, is_alone: bool) -> dict[str, Any]:
    """Read what `meta` says of a file that nobody uses: `version`, `identity`, `log_base`.

    Args:
        path: of the file.
        is_alone: without its log.

    Returns:
        What is there; nothing, if the file is damaged.
    """
    try:
        # What is immutable has no log, as SQLite sees it, and is not locked.
        options = "mode=ro&immutable=1" if is_alone else "mode=ro"
        connection = driver.connect(f"file:{quote(os.fsencode(path))}?{options}")
        connection.set_progress_handler(lambda: True, _MOST_STEPS)  # whatever `meta` may be there
        try:
            return dict(connection.execute(statements.GET_LINEAGE).fetchall())
        finally:
            connection.close()
    except (driver.Error, ValueError):  # of torn pages; what is no text is a UnicodeDecodeError
        return {}


def _refuse(path: Path, what: str) -> None:
    raise StoreReplacedError(
        f"{path} does not belong to the log beside it, {path.name}-wal: {what}, and the log was "
        "left there by a process that died. Put a backup in place by 'kvstore restore BACKUP "
        f"STORE --overwrite' or kvstore.restore_backup(); or move {path.name}-wal and "
        f"{path.name}-shm away, if the file is what you want to keep"
    )
