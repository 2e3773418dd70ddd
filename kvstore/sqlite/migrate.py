"""Makes a file ready: refuses what is not ours, creates what is new, migrates what is old.

The schema comes from `migrations/sqlite/NNNN_name.sql`, applied in order, each in a transaction
of its own together with its number (`PRAGMA user_version`). `PRAGMA application_id` marks a file
as kvstore's. See https://sqlite.org/fileformat2.html#application_id.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from kvstore.errors import ReadOnlyError, SchemaError, StoreAccessError, StoreCorruptError
from kvstore.files import special
from kvstore.schema import scripts
from kvstore.sqlite import driver, statements
from kvstore.sqlite.connection import READ_TIMEOUT_S, connect, snapshot, transaction, translated
from kvstore.sqlite.guard import Hold
from kvstore.sqlite.layout import Steps, require_layout
from kvstore.sqlite.lineage import log_bytes, require_own_log

__all__ = ["check_file", "migrate", "require_ready", "steps"]

APPLICATION_ID = 0x6B767374  # "kvst"
_MAGIC = b"SQLite format 3\0"
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_FRACTIONS = b"\x40\x20\x20"  # the same in every database's header
_HEADER_BYTES = 108  # of the file, and of its first page
_FIRST_BYTES = 16_384  # in these the tables of a small database are named
_LANGGRAPHS = ("store_migrations", "checkpoint_ns")  # in what LangGraph's own savers make
_BRING_OVER = (
    "LangGraph's own store or saver wrote it: bring it over, by 'kvstore import "
    "--from-langgraph {path} NEW.db' or kvstore.integrations.langgraph.import_sqlite_store"
)


@cache
def steps() -> Steps:
    """Return the statements of each migration, in order; the first leads to schema 1."""
    return tuple(tuple(_statements(script.text)) for script in scripts("sqlite"))


def _statements(script: str) -> list[str]:
    """Split a script; `executescript` would commit before it."""
    found = [""]
    for line in script.splitlines(keepends=True):
        found[-1] += line
        if driver.complete_statement(found[-1]):
            found.append("")
    return found[:-1]


def check_file(path: Path, hold: Hold, *, read_only: bool = False) -> None:
    """Refuse a file that is no kvstore file of a known version, and leave it untouched.

    Args:
        path: of the file.
        hold: of the file, through which it is looked into.
        read_only: it is to be there, and is not opened here.

    Raises:
        StoreCorruptError: no regular file, no database, or damaged.
        StoreAccessError: it may not be read, or its directory does not exist.
        SchemaError: another program's database, or of a newer version of kvstore.
        StoreReplacedError: the log beside it is of another state, or of another store.
    """
    try:
        what = special(path.stat().st_mode)
        if what is not None:  # not even opened: a pipe would wait for a writer
            raise StoreCorruptError(f"{path} is {what}, not a database file; name a regular file")
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise StoreAccessError(
                f"the directory {path.parent} does not exist; create it first"
            ) from None
    except OSError as exc:
        raise StoreAccessError(f"{path} cannot be used: {exc.strerror}") from exc
    try:
        is_there, header = hold.is_there(), hold.read(_FIRST_BYTES)
    except OSError as exc:
        raise StoreAccessError(f"{path} cannot be read: {exc.strerror}") from exc
    if not is_there:
        if read_only:
            raise StoreAccessError(f"{path} does not exist")
        return
    if not read_only and not os.access(path, os.W_OK):
        raise ReadOnlyError(f"{path} may only be read; open it with read_only=True")
    if not header:
        if read_only:
            raise SchemaError(f"{path} is empty, and holds no store yet")
        return
    is_database = header.startswith(_MAGIC) and header[21:24] == _FRACTIONS
    if not is_database or len(header) < _HEADER_BYTES:
        if not read_only and _is_half_made(path):
            return  # the power failed while it was made: SQLite will undo that, and begin anew
        raise StoreCorruptError(
            f"{path} is not a database (its header is another); name a new file, or one that "
            "kvstore has written"
        )
    require_own_log(path, hold, may_look=not read_only)
    if read_only or log_bytes(path) == 0:
        # The header says it all, and SQLite would leave files of its own beside a foreign one.
        _check_ours(_Header.parse(header), path)
        return
    connection = connect(path, "ro", busy_timeout=READ_TIMEOUT_S)
    try:
        with translated(path):
            _check_ours(_Header.read(connection), path)
    finally:
        connection.close()


def require_ready(connection: driver.Connection, path: Path) -> None:
    """Refuse a file that would have to be migrated before it can be read.

    Raises:
        SchemaError: it would; or it is not ours, or not as the migrations make it.
    """
    if _check_ours(_Header.read(connection), path) < len(steps()):
        raise SchemaError(
            f"{path} is of an older version of kvstore: open it once without read_only"
        )
    require_layout(connection, steps(), path)


def _is_half_made(path: Path) -> bool:
    """Whether a rollback journal lies beside a file: https://sqlite.org/fileformat2.html#rollbk.

    SQLite makes a file by one, before there is a write-ahead log.
    """
    try:
        with path.with_name(path.name + "-journal").open("rb") as journal:
            return journal.read(len(_JOURNAL_MAGIC)) == _JOURNAL_MAGIC
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class _Header:
    """What tells whose a database is (https://sqlite.org/fileformat2.html#database_header)."""

    application_id: int
    user_version: int
    is_empty: bool
    is_langgraphs: bool  # made by LangGraph's own store or saver

    @classmethod
    def parse(cls, header: bytes) -> _Header:
        """Read it from the first bytes of the file."""
        number = partial(int.from_bytes, byteorder="big")
        return cls(
            number(header[68:72]),
            number(header[60:64]),
            number(header[103:105]) == 0,
            any(name.encode() in header for name in _LANGGRAPHS),
        )

    @classmethod
    def read(cls, connection: driver.Connection) -> _Header:
        """Read it through SQLite, at one moment: another process may be at work."""
        with snapshot(connection):
            schema = [sql or "" for (sql,) in connection.execute(statements.READ_SQL_OF_SCHEMA)]
            return cls(
                connection.execute("PRAGMA application_id").fetchone()[0],
                connection.execute("PRAGMA user_version").fetchone()[0],
                not schema,
                any(name in sql for name in _LANGGRAPHS for sql in schema),
            )


def _check_ours(header: _Header, path: Path) -> int:
    """Return the file's schema version, 0 for an empty database; refuse what is not ours."""
    if header.application_id != APPLICATION_ID and (header.application_id or not header.is_empty):
        raise SchemaError(
            f"{path} is a database of another program, not a kvstore file; "
            + (_BRING_OVER.format(path=path) if header.is_langgraphs else "name another file")
        )
    newest = len(steps())
    if header.user_version > newest:
        raise SchemaError(
            f"{path} was written by a newer version of kvstore (its schema is "
            f"{header.user_version}, and this version knows up to {newest}): upgrade kvstore"
        )
    return header.user_version


def is_langgraphs(hold: Hold) -> bool:
    """Whether a file was made by LangGraph's own store or saver, and by nobody since."""
    header = hold.read(_FIRST_BYTES)
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        return False
    read = _Header.parse(header)
    return read.is_langgraphs and not read.application_id


def migrate(connection: driver.Connection, path: Path, timeout: float) -> None:
    """Bring a file to the present schema; several processes may do so at once.

    Args:
        connection: with write access, outside a transaction.
        path: for messages.
        timeout: how long to wait for another process, in seconds.

    Raises:
        SchemaError: see `check_file`; also that its schema is not as the migrations make it.
        StoreBusyError: another process kept the lock.
    """
    with translated(path):
        number = _check_ours(_Header.read(connection), path)
        require_layout(connection, steps(), path)
        if number == len(steps()):
            return
        for number, step in enumerate(steps(), start=1):
            with transaction(connection, timeout):
                if _check_ours(_Header.read(connection), path) >= number:
                    continue  # another process was faster
                for statement in step:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {number}")
                connection.execute(statements.SET_IDENTITY)  # so that no log of another is its own
