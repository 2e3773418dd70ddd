"""Copies of the whole file, made by a thread of their own: backup, restore and vacuum.

To restore is to put a backup in the place of a store that nobody has open, side files and all. The
restored store goes on above the versions of both: what a client or a watch remembers of the old
store is never taken for something of the new one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from kvstore.errors import StoreAccessError, StoreBusyError, StoreCorruptError
from kvstore.files import SIDE_FILES, check_name, file_errors, partial_file, resolved, same_file
from kvstore.report import Meter
from kvstore.sqlite import driver, sequence_statements, statements
from kvstore.sqlite.connection import claimed, connect, transaction, translated
from kvstore.sqlite.guard import Hold
from kvstore.sqlite.lineage import read_numbers, stamp
from kvstore.sqlite.migrate import check_file, migrate
from kvstore.sqlite.openfile import OpenFile
from kvstore.sqlite.past import read_kept

__all__ = ["backup", "restore", "vacuum"]

_STEP_PAGES = 256  # 1 MiB between two looks at whether to go on
_UNKNOWN = 1 << 32  # above a version that cannot be read: more than any store has written in a life
_BUSY_S = 5.0  # that a restore waits for whoever looks at one of its files


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


# Restoring


def restore(source: Path, target: Path, *, overwrite: bool, meter: Meter) -> None:
    """Put a backup in the place of a store; the arguments are those of `restore_backup`."""
    source, target = resolved(source), resolved(target)
    with file_errors(target), Hold(source) as kept, Hold(target) as hold:
        check_name(target)
        check_file(source, kept, read_only=True)
        if not kept.is_there():
            raise StoreAccessError(f"{source} does not exist; name a backup")
        if same_file(source, target):
            raise StoreAccessError(f"{source} is to be restored over itself; name another file")
        left = [path for path in _files(target) if os.path.lexists(path)]
        if left and not overwrite:
            raise StoreAccessError(
                f"{left[0]} is there already; overwrite=True (--overwrite) puts the backup in its "
                "place"
            )
        before = stamp(target)
        floor = 0 if hold.is_used else _version(target, hold)
        if hold.is_used or not hold.lock_out() or stamp(target) != before:
            raise StoreBusyError(
                f"{target} is open, in this process or in another; close it first, everywhere"
            )
        _replace(source, target, hold, floor, meter)


def _replace(source: Path, target: Path, hold: Hold, floor: int, meter: Meter) -> None:
    """Make a whole store of the backup, then let it take the name, then remove what was beside."""
    owner = target.stat() if hold.is_there() else None
    mode = stat.S_IMODE((owner or source.stat()).st_mode) | stat.S_IRUSR | stat.S_IWUSR
    with partial_file(target, mode) as partial:
        with closing(connect(source, "ro", busy_timeout=_BUSY_S)) as connection:
            backup(connection, source, partial, meter)
        partial.chmod(mode)  # a backup has its source's
        with closing(connect(partial, "rw")) as connection:
            _go_on(connection, partial, floor)
        for path in _files(partial)[1:]:
            path.unlink(missing_ok=True)
        if owner is not None and hasattr(os, "chown"):
            with suppress(PermissionError):  # only root can give files away
                os.chown(partial, owner.st_uid, owner.st_gid)
    # A crash before this leaves the old log beside a backup, which is refused at opening.
    for path in _files(target)[1:]:
        path.unlink(missing_ok=True)


def _go_on(connection: driver.Connection, path: Path, floor: int) -> None:
    """Have the store go on above a version, with no changes that older ones could resume from."""
    with translated(path):
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise StoreCorruptError(f"the backup is damaged ({found}); nothing was restored")
    migrate(connection, path, _BUSY_S)
    with translated(path), transaction(connection, _BUSY_S):
        (before,) = connection.execute(statements.GET_VERSION).fetchone()
        version = max(before, floor) + 1
        # Of each log and queue, at most so many positions were given since as there were versions
        connection.execute(sequence_statements.SKIP_POSITIONS, (version - before - 1,))
        connection.execute(statements.SET_VERSION, (version,))
        connection.execute(statements.SET_META, (version, "changes_begin"))
        if not read_kept(connection)[0].span:  # else they tell at which instants the past was
            connection.execute(statements.DELETE_CHANGES, (version,))
        connection.execute(statements.FORGET_LINEAGE)
        connection.execute(statements.SET_IDENTITY)  # a log of the old store is none of this one


def _version(target: Path, hold: Hold) -> int:
    """Return the version of the store that is to be replaced, or one that is surely above it."""
    if not hold.is_there() or not hold.read(1):
        return 0
    file, whole = read_numbers(target, is_alone=True), read_numbers(target, is_alone=False)
    known = [each for each in (*file.values(), *whole.values()) if type(each) is int]
    return max(known, default=0) + (0 if type(whole.get("version")) is int else _UNKNOWN)


def _files(path: Path) -> list[Path]:
    """Return the names of a database and of what SQLite keeps beside it."""
    return [path, *(Path(f"{path}{suffix}") for suffix in SIDE_FILES)]
