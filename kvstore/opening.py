"""`kvstore.open`: from a path or a URL to the store that serves it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from kvstore.errors import InvalidArgumentError
from kvstore.memory import InMemoryStore
from kvstore.sqlite import SQLiteStore
from kvstore.store import Store

__all__ = ["open_store"]

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):")  # two letters at least: C:\ is a path


def open_store(url: str | os.PathLike[str], **options: Any) -> Store:
    """Return the store for a path or a URL; open it by `async with` or `await store.open()`.

    Args:
        url: `"agent.db"` or `"sqlite:///agent.db"` (relative; `sqlite:////tmp/agent.db` is
            absolute): `SQLiteStore`. `"memory://"`: `InMemoryStore`.
            `"postgresql://user@host/db"`: `PostgresStore`, of the extra `agent-kvstore[postgres]`.
        options: the keyword arguments of that class.

    Raises:
        InvalidArgumentError: the URL has another scheme.
        MissingDependencyError: the backend needs an extra that is not installed.
    """
    if isinstance(url, Path) or not isinstance(url, str):
        return SQLiteStore(os.fspath(url), **options)
    match = _SCHEME.match(url)
    scheme = match[1].lower() if match and url != ":memory:" else None
    match scheme:
        case None:
            return SQLiteStore(url, **options)
        case "sqlite":
            return SQLiteStore(_sqlite_path(url), **options)
        case "memory":
            return InMemoryStore(**options)
        case "postgresql" | "postgres":
            from kvstore.postgres import PostgresStore

            return PostgresStore(url, **options)
    raise InvalidArgumentError(
        f"{scheme}: is no scheme that kvstore opens; there are a path, sqlite:///path, memory:// "
        "and postgresql://user@host/db (write ./ in front of a path that looks like a URL)"
    )


def _sqlite_path(url: str) -> str:
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc or not path.startswith("/") or len(path) < 2:
        raise InvalidArgumentError(
            "a SQLite URL has three slashes and a path: 'sqlite:///agent.db' is relative, "
            "'sqlite:////var/lib/agent.db' absolute"
        )
    return path[1:]
