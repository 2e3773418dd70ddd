"""The SQLite backend: one file, no server."""

from kvstore.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
