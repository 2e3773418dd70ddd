"""Makes a file ready: refuses what is not ours, creates what is new, migrates what is old.

The schema comes from `migrations/sqlite/NNNN_name.sql`, applied in order, each in a transaction
of its own together with its number (`PRAGMA user_version`). `PRAGMA application_id` marks a file
as kvstore's. See https://sqlite.org/fileformat2.html#application_id.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from sqlite3 import complete_statement

from kvstore.errors import SchemaError, StoreAccessError, StoreCorruptError
from kvstore.sqlite import driver
from kvstore.sqlite.connection import connect, transaction, translated

__all__ = ["Migration", "check_file", "migrate", "migrations"]

APPLICATION_ID = 0x6B767374  # "kvst"
_MAGIC = b"SQLite format 3\0"
_FILE_NAME = re.compile(r"(\d{4})_\w+\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    number: int
    name: str
    statements: tuple[str, ...]


@cache
def migrations() -> tuple[Migration, ...]:
    """Return the steps, in order."""
    folder = resources.files("kvstore.migrations") / "sqlite"
    found = sorted(folder.iterdir(), key=lambda file: file.name)
    return tuple(
        Migration(int(match[1]), file.name, tuple(_statements(file.read_text("utf-8"))))
        for file in found
        if (match := _FILE_NAME.fullmatch(file.name))
    )


def _statements(script: str) -> list[str]:
    """Split a script; `executescript` would commit before it."""
    found = [""]
    for line in script.splitlines(keepends=True):
        found[-1] += line
        if complete_statement(found[-1]):
            found.append("")
    return found[:-1]


def check_file(path: Path) -> None:
    """Refuse a file that is no kvstore file of a known version, and leave it untouched.

    Raises:
        StoreCorruptError: a directory, no database, or damaged.
        StoreAccessError: it may not be read, or its directory does not exist.
        SchemaError: another program's database, or of a newer version of kvstore.
    """
    if path.is_dir():
        raise StoreCorruptError(f"{path} is a directory, not a database file; name a file in it")
    if not path.parent.is_dir():
        raise StoreAccessError(f"the directory {path.parent} does not exist; create it first")
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except FileNotFoundError:
        return
    except OSError as exc:
        raise StoreAccessError(f"{path} cannot be read: {exc.strerror}") from exc
    if not magic:
        return
    if magic != _MAGIC:
        raise StoreCorruptError(
            f"{path} is not a database (its header is another); name a new file, or one that "
            "kvstore has written"
        )
    connection = connect(path, "ro", busy_timeout=1.0)
    try:
        with translated(path):
            _check_ours(connection, path)
    finally:
        connection.close()


def _check_ours(connection: driver.Connection, path: Path) -> int:
    """Return the file's schema version, 0 for an empty database; refuse what is not ours."""
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    is_empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if application_id != APPLICATION_ID and not (application_id == 0 and is_empty):
        raise SchemaError(
            f"{path} is a database of another program, not a kvstore file; name another file"
        )
    newest = migrations()[-1].number
    if version > newest:
        raise SchemaError(
            f"{path} was written by a newer version of kvstore (its schema is {version}, and this "
            f"version knows up to {newest}): pip install --upgrade kvstore"
        )
    return version


def migrate(connection: driver.Connection, path: Path, timeout: float) -> None:
    """Bring a file to the present schema; several processes may do so at once.

    Args:
        connection: with write access, outside a transaction.
        path: for messages.
        timeout: how long to wait for another process, in seconds.

    Raises:
        SchemaError: see `check_file`.
        StoreBusyError: another process kept the lock.
    """
    with translated(path):
        if _check_ours(connection, path) == migrations()[-1].number:
            return
        for migration in migrations():
            with transaction(connection, timeout):
                if _check_ours(connection, path) >= migration.number:
                    continue  # another process was faster
                for statement in migration.statements:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {migration.number}")
