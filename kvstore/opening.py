"""`kvstore.open`: from a path or a URL to the store that serves it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from kvstore.errors import InvalidArgumentError
from kvstore.files import FilePath
from kvstore.memory import InMemoryStore
from kvstore.sqlite import SQLiteStore
from kvstore.store import Store

__all__ = ["open_store"]

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):")  # two letters at least: C:\ is a path


def open_store(url: FilePath, **options: Any) -> Store:
    """Return the store for a path or a URL; open it by `async with` or `await store.open()`.

    Args:
        url: `"agent.db"` or `"sqlite:///agent.db"` (relative; `sqlite:////tmp/agent.db` is
            absolute): `SQLiteStore`. `"memory://"`: `InMemoryStore`.
            `"postgresql://user@host/db"`: `PostgresStore`, of the extra `agent-kvstore[postgres]`.
            After the path of a `sqlite` URL there may be options: `?mode=ro` (read-only),
            `?durability=full`, `?busy_timeout=2.5`, and several with `&` between them. `%` begins
            an escape there (`%3F` is a question mark, `%25` a percent sign), and `#` is part of
            the path. A path that is no URL is taken as it is.
            `memory://` and `postgresql://` URLs take `?mode=ro`, too.
        options: the keyword arguments of that class.

    Options of every store: `index=IndexConfig(...)` for search, `default_ttl`, `refresh_ttl`,
    `history`, `read_only`, `reindex`, `max_value_bytes`, `sweep_interval`, `clock`, `observer`. Of
    a file besides: `durability="full"`, `busy_timeout`, `file_mode`, `read_cache_bytes`,
    `vector_cache_bytes`. `help(kvstore.Store)`, `help(kvstore.SQLiteStore)` and
    `help(kvstore.postgres.PostgresStore)` say what each means.

        async with kvstore.open("agent.db", default_ttl=3600) as store:
            await store.put(("users", "alice"), "theme", "dark")

    Raises:
        InvalidArgumentError: the URL has another scheme, or an option that is not understood.
        MissingDependencyError: the backend needs an extra that is not installed.
        TypeError: the store has no such keyword argument; the message names those that it has.
    """
    match = _SCHEME.match(url) if isinstance(url, str) else None
    if match is None or not isinstance(url, str):
        return SQLiteStore(url, **options)
    match match[1].lower():
        case "sqlite":
            path, said = _parts_of(url)
            return SQLiteStore(path, **_merged(said, options))
        case "memory":
            rest, _, query = url[match.end() :].partition("?")
            if rest not in ("", "//"):
                raise InvalidArgumentError("the URL of a store in memory is 'memory://' alone")
            said = _options_of(query, ("mode",))
            return InMemoryStore(**_merged(said, options))
        case "postgresql" | "postgres":
            from kvstore.postgres import PostgresStore

            url, said = _without_mode(url)
            return PostgresStore(url, **_merged(said, options))
        case scheme:
            raise InvalidArgumentError(
                f"{scheme}: is no scheme that kvstore opens; there are a path, sqlite:///path, "
                "memory:// and postgresql://user@host/db (write ./ in front of a path that looks "
                "like a URL)"
            )


def _parts_of(url: str) -> tuple[str, dict[str, Any]]:
    """Return path and options of a SQLite URL."""
    whole, _, query = url.partition("?")
    _, slashes, path = whole.partition(":///")
    if not slashes or not path:
        raise InvalidArgumentError(
            "a SQLite URL has three slashes and a path: 'sqlite:///agent.db' is relative, "
            "'sqlite:////var/lib/agent.db' absolute"
        )
    return os.fsdecode(unquote_to_bytes(os.fsencode(path))), _options_of(query, _OPTIONS)


def _without_mode(url: str) -> tuple[str, dict[str, Any]]:
    """Return a URL of PostgreSQL without our own option, and what that means."""
    whole, mark, query = url.partition("?")
    own = [part for part in query.split("&") if part.partition("=")[0] == "mode"]
    rest = "&".join(part for part in query.split("&") if part not in own)
    return whole + (mark if rest else "") + rest, _options_of("&".join(own), ("mode",))


def _options_of(query: str, known: Iterable[str]) -> dict[str, Any]:
    """Return what the options in a URL mean as keyword arguments."""
    found: dict[str, Any] = {}
    try:
        said = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise InvalidArgumentError(f"the options of the URL, {query!r}, do not parse") from None
    for name, text in said:
        if name not in known:
            raise InvalidArgumentError(
                f"{name!r} is no option that such a URL can have; there are {', '.join(known)} "
                "(a question mark in a path is written %3F)"
            )
        read = _OPTIONS[name]
        keyword, value = read(text)
        if keyword in found:
            raise InvalidArgumentError(f"the URL has {name!r} twice")
        found[keyword] = value
    return found


def _mode(text: str) -> tuple[str, Any]:
    if text != "ro":
        raise InvalidArgumentError(f"mode is 'ro' (read-only), or left out, and not {text!r}")
    return "read_only", True


def _busy_timeout(text: str) -> tuple[str, Any]:
    try:
        return "busy_timeout", float(text)
    except ValueError:
        raise InvalidArgumentError(f"busy_timeout is a number of seconds, not {text!r}") from None


_OPTIONS: Mapping[str, Callable[[str], tuple[str, Any]]] = {
    "mode": _mode,
    "durability": lambda text: ("durability", text),
    "busy_timeout": _busy_timeout,
}


def _merged(said: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a URL and the keyword arguments as one."""
    for name in said.keys() & options.keys():
        if said[name] != options[name]:
            raise InvalidArgumentError(
                f"the URL says {name}={said[name]!r}, and the keyword argument {options[name]!r}"
            )
    return said | options
