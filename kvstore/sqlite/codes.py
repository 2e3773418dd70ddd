"""SQLite's result codes that are told apart here, by number (https://sqlite.org/rescode.html).

The numbers are part of the file library's interface and never change; the names are not in every
driver: `pysqlite3` has no extended ones, and a program may have put it in the place of `sqlite3`.
"""

from __future__ import annotations

from typing import Final

SQLITE_ERROR: Final = 1
SQLITE_PERM: Final = 3
SQLITE_BUSY: Final = 5
SQLITE_LOCKED: Final = 6
SQLITE_NOMEM: Final = 7
SQLITE_READONLY: Final = 8
SQLITE_IOERR: Final = 10
SQLITE_CORRUPT: Final = 11
SQLITE_FULL: Final = 13
SQLITE_CANTOPEN: Final = 14
SQLITE_PROTOCOL: Final = 15
SQLITE_TOOBIG: Final = 18
SQLITE_MISUSE: Final = 21
SQLITE_AUTH: Final = 23
SQLITE_FORMAT: Final = 24
SQLITE_NOTADB: Final = 26

SQLITE_IOERR_SHORT_READ: Final = SQLITE_IOERR | 2 << 8
SQLITE_IOERR_WRITE: Final = SQLITE_IOERR | 3 << 8
SQLITE_IOERR_SHMSIZE: Final = SQLITE_IOERR | 19 << 8
SQLITE_IOERR_CORRUPTFS: Final = SQLITE_IOERR | 33 << 8

__all__ = [name for name in globals() if name.startswith("SQLITE_")]
