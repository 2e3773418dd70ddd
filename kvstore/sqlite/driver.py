"""Which SQLite driver the library runs on: the one place that chooses.

`pysqlite3` is taken where it is installed: it carries a current SQLite that can load extensions.
The stock `sqlite3` of many Pythons cannot (python.org's on macOS, many of pyenv's); with such a
one everything works but semantic search. A program may have put `pysqlite3` in the place of
`sqlite3` in `sys.modules`, as many do: nothing is taken from either that only one of them has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvstore.errors import MissingDependencyError
from kvstore.sql import Sql

if TYPE_CHECKING:
    import sqlite3 as _module
else:
    try:
        from pysqlite3 import dbapi2 as _module
    except ImportError:
        import sqlite3 as _module

__all__ = [
    "CAN_LOAD_EXTENSIONS",
    "NAME",
    "VERSION",
    "Connection",
    "Cursor",
    "DatabaseError",
    "Error",
    "OperationalError",
    "ProgrammingError",
    "complete_statement",
    "connect",
    "require_extensions",
    "run",
]

_OLDEST = (3, 37, 0)  # of 2021; RETURNING, and PRAGMA table_list in the tools


Connection = _module.Connection
Cursor = _module.Cursor
DatabaseError = _module.DatabaseError
Error = _module.Error
OperationalError = _module.OperationalError
ProgrammingError = _module.ProgrammingError
complete_statement = _module.complete_statement

NAME = _module.__name__.partition(".")[0]
VERSION = _module.sqlite_version_info
CAN_LOAD_EXTENSIONS = hasattr(Connection, "enable_load_extension")


def connect(uri: str, factory: type[Connection] = Connection) -> Connection:
    """Open a connection in autocommit mode, for use by one thread at a time.

    Args:
        uri: the file, as SQLite writes it: `file:...?mode=...`.
        factory: the connection's class; that of a simulation decides when a statement runs.

    Raises:
        Error: SQLite cannot open the file.
        MissingDependencyError: this SQLite is too old.
    """
    if VERSION < _OLDEST:
        raise MissingDependencyError(
            f"kvstore needs SQLite 3.37 or newer, and {NAME} has {_module.sqlite_version}: "
            "pip install pysqlite3"
        )
    return _module.connect(
        uri,
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
        factory=factory,
    )


def run(connection: Connection, statement: Sql) -> Cursor:
    """Execute a statement with its parameters."""
    return connection.execute(statement.text, statement.params)


def require_extensions() -> None:
    """Raise `MissingDependencyError` unless this driver can load extensions."""
    if not CAN_LOAD_EXTENSIONS:
        raise MissingDependencyError(
            "semantic search loads sqlite-vec into SQLite, and this Python's sqlite3 cannot load "
            "extensions: pip install pysqlite3"
        )
