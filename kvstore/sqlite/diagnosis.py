"""What is wrong when SQLite's word for it leaves that open: the file, or a statement of ours."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvstore.errors import (
    ReadOnlyError,
    SchemaError,
    StoreAccessError,
    StoreCorruptError,
    StoreError,
)
from kvstore.sqlite import codes, driver
from kvstore.sqlite.checking import check_rows
from kvstore.sqlite.connection import connect, is_unclear, translate
from kvstore.sqlite.layout import problems_of
from kvstore.sqlite.migrate import steps
from kvstore.sqlite.openfile import OpenFile

__all__ = ["explain"]

_PROBE_BYTES = 64 * 1024
_LOOK_S = 2.0  # for how long damage is looked for
_STEPS = 10_000  # of SQLite's machine between two looks at the time


def explain(exc: driver.Error, file: OpenFile, connection: driver.Connection | None) -> StoreError:
    """Return our error for one that a statement on a connection met.

    Args:
        exc: what the driver raised.
        file: that of the connection.
        connection: for this thread alone; `None`: one is opened to look.
    """
    path = file.path
    try:
        file.look()
    except StoreError as reason:
        return reason
    if not is_unclear(exc):
        return _why_not_written(exc, path) or translate(exc, path)
    try:
        if connection is not None:
            return _found(connection, path) or translate(exc, path)
        own = connect(path, "ro", busy_timeout=1.0)
        try:
            return _found(own, path) or translate(exc, path)
        finally:
            own.close()
    except driver.Error as other:
        found = translate(other, path)
    except StoreError as other:
        found = other
    return found if isinstance(found, StoreCorruptError) else translate(exc, path)


def _why_not_written(exc: driver.Error, path: Path) -> StoreError | None:
    """Return why the system refused a write, which SQLite does not tell, by writing once more.

    `None`: there is no room, or the system has nothing against it now.
    """
    if getattr(exc, "sqlite_errorcode", 0) & 0xFF != codes.SQLITE_IOERR:
        return None
    try:
        with tempfile.TemporaryFile(dir=path.parent) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as reason:
        if reason.errno == errno.EROFS:
            return ReadOnlyError(
                f"{path} cannot be written: its file system is read-only now, as the system makes "
                "one whose disk fails; see the system's log, and close the store"
            )
        if reason.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return StoreAccessError(f"{path} cannot be written: {reason.strerror}")
    return None


def _found(connection: driver.Connection, path: Path) -> StoreError | None:
    """Return what a look at the file finds wrong with it."""
    for problem in problems_of(connection, steps()):
        return SchemaError(f"{path} was changed by another program: {problem}")
    damage = _damage(connection, path)
    if damage is None:
        return None
    return StoreCorruptError(f"{damage}; restore it from a backup, or put it anew")


def _damage(connection: driver.Connection, path: Path) -> str | None:
    """Return what is damaged, of rows and then of their index, if it is found in time."""
    deadline = time.monotonic() + _LOOK_S
    with _until(connection, deadline):
        for _, problem in check_rows(connection):
            if problem is not None or time.monotonic() > deadline:
                return problem
        (line,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        return None if line == "ok" else f"{path} is damaged ({line})"


@contextmanager
def _until(connection: driver.Connection, deadline: float) -> Iterator[None]:
    """Have statements end at an instant of `time.monotonic()`, with SQLITE_INTERRUPT."""
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)
