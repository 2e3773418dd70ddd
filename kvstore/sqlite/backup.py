"""Backup and vacuum: copies of the whole file, made by a thread of their own."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from kvstore.errors import StoreAccessError, StoreCorruptError
from kvstore.exchange import file_errors, partial_file
from kvstore.report import Meter
from kvstore.sqlite import driver, statements
from kvstore.sqlite.connection import claimed, connect, translated
from kvstore.sqlite.openfile import OpenFile
from kvstore.targets import SIDE_FILES

__all__ = ["backup", "vacuum"]

_STEP_PAGES = 256  # 1 MiB between two looks at whether to go on


def backup(connection: driver.Connection, source: Path, target: Path, meter: Meter) -> None:
    """Copy the store as it is now; others may write meanwhile.

    The read transaction around it holds one snapshot. Without it SQLite would begin anew at each
    write of another connection (https://sqlite.org/backup.html).
    """
    with file_errors(source):
        mode = stat.S_IMODE(source.stat().st_mode)
    with partial_file(target, mode) as partial:
        copy = connect(partial, "rwc")
        try:
            with translated(partial):
                connection.execute("BEGIN")
                connection.execute(statements.TOUCH_SCHEMA).fetchone()

                def show(status: int, remaining: int, total: int) -> None:
                    meter.show(total - remaining, total)

                _copy_pages(connection, copy, partial, show)
                # One file, complete in itself; a store that opens it switches the log on again.
                copy.execute("PRAGMA journal_mode = DELETE").fetchall()
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            copy.close()
            for suffix in SIDE_FILES:
                with suppress(OSError):
                    Path(f"{partial}{suffix}").unlink()


def _copy_pages(
    connection: driver.Connection,
    copy: driver.Connection,
    partial: Path,
    show: Callable[[int, int, int], None],
) -> None:
    """Have SQLite copy all pages.

    Some drivers raise a backup's errors without their codes. Then an attempt to write to the copy
    tells whether it is that which fails.

    Raises:
        StoreFullError: there is no room for the copy.
        driver.Error: with its code.
    """
    try:
        connection.backup(copy, pages=_STEP_PAGES, progress=show, sleep=0)
    except driver.OperationalError as exc:
        if getattr(exc, "sqlite_errorcode", None) is not None:
            raise
        with file_errors(partial), partial.open("ab", buffering=0) as file:
            for _ in range(2):  # the first may still fit in part
                file.write(bytes(_STEP_PAGES * 4096))
            os.fsync(file.fileno())
        raise StoreAccessError(f"{partial} or its source cannot be read or written") from exc
    except driver.DatabaseError as exc:
        if getattr(exc, "sqlite_errorcode", None) is not None or type(exc) is not (
            driver.DatabaseError
        ):
            raise
        raise StoreCorruptError("the store is damaged; 'await store.check()' tells where") from exc


def vacuum(connection: driver.Connection, file: OpenFile, busy_timeout: float) -> int:
    """Rewrite the file without its free pages; return by how many bytes it shrank.

    Args:
        connection: that of the writer, outside a transaction.
        file: that of the connection.
        busy_timeout: how long to wait for other processes, in seconds.
    """
    file.look()
    connection.execute(f"PRAGMA busy_timeout = {int(busy_timeout * 1000)}")
    connection.execute("PRAGMA temp_store = FILE")  # it holds a whole copy
    try:
        _empty_log(connection, file, busy_timeout)
        before = file.path.stat().st_size
        with claimed(file, busy_timeout):
            connection.execute("VACUUM")
        _empty_log(connection, file, busy_timeout)
        return before - file.path.stat().st_size
    finally:
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA busy_timeout = 0")


def _empty_log(connection: driver.Connection, file: OpenFile, busy_timeout: float) -> None:
    with claimed(file, busy_timeout, to_copy=True):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
