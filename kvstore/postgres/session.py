"""What every session of a store has: its settings, its schema, and a socket that notices.

They are set by one query once a session has begun, as poolers refuse most of them at startup.
Behind a pooler in transaction mode nothing outlives a transaction: each one begins with them.

`search_path` is `pg_catalog` alone, so that a name in a statement is the server's own function or
operator, whatever other users create in their schemas. Statements name the store's tables without a
schema (`kvstore_items`), and the session puts it before them.
"""

from __future__ import annotations

import re
import socket
import struct
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, cast

import asyncpg

from kvstore.caching import cache_short
from kvstore.errors import StoreAccessError
from kvstore.postgres.target import Target

__all__ = ["IDLE_S", "Session", "choose_schema", "literal", "qualify", "quoted"]

_PROPAGATE: Final = "SET LOCAL citus.propagate_set_commands = 'local'"
IDLE_S: Final = 3.0  # after which the server ends a transaction whose client says nothing more
_PROBE_AFTER_S = 10  # of silence, before the kernel asks whether the other end is still there
_PROBE_EVERY_S = 5
_PROBES = 3
_TCP_INFO: Final = struct.Struct("@120xQQ")  # tcpi_bytes_acked and tcpi_bytes_received
_UNACKNOWLEDGED_MS = 20_000  # that what was sent may stay, before the kernel gives up

# A table where it is named as such; after a quote it is a text, after CREATE INDEX a new index.
_TABLE = re.compile(r"""(?<!["'.\w$])(?<!CREATE INDEX )kvstore_\w+|'kvstore_\w+'::regclass""")
_QUOTES: Final = "$kvstore_text$"  # for `$$`, which may be in the name of a schema
_NAME = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^",]+))\s*(?:,|$)')

# The server's process, and the limits that the administrator has set, in milliseconds; 0: none
_FIND_LIMITS = """
SELECT pg_catalog.pg_backend_pid() AS pid,
    (
        SELECT backend_start FROM pg_catalog.pg_stat_activity
        WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()
    ) AS started,
    (
        SELECT setting::pg_catalog.int4 FROM pg_catalog.pg_settings
        WHERE name OPERATOR(pg_catalog.=) 'statement_timeout'
    ) AS statement_timeout,
    (
        SELECT setting::pg_catalog.int4 FROM pg_catalog.pg_settings
        WHERE name OPERATOR(pg_catalog.=) 'idle_in_transaction_session_timeout'
    ) AS idle_in_transaction_session_timeout
"""
# The names that a session would look through, the schemas of them that are there and may be used,
# in that order, and all schemas in which there is a store already
_FIND_SCHEMA = """
SELECT pg_catalog.current_setting('search_path') AS search_path,
    (
        SELECT source OPERATOR(pg_catalog.=) 'client' FROM pg_catalog.pg_settings
        WHERE name OPERATOR(pg_catalog.=) 'search_path'
    ) AS is_asked,
    CURRENT_USER::pg_catalog.text AS who,
    pg_catalog.current_schemas(false)::pg_catalog.text[] AS schemas,
    ARRAY(
        SELECT pg_namespace.nspname::pg_catalog.text
        FROM pg_catalog.pg_class
        JOIN pg_catalog.pg_namespace
            ON pg_namespace.oid OPERATOR(pg_catalog.=) pg_class.relnamespace
        WHERE pg_class.relname OPERATOR(pg_catalog.=) 'kvstore_schema'
    ) AS holding
"""


# What the driver asks for when it meets a type that it does not know, in its columns. Its own
# question goes over all types and tables of the database, which takes seconds where Citus has a
# word to say about each table; those of a store's columns are plain ones, and arrays of them.
_FIND_TYPES = """
SELECT types.oid, spaces.nspname AS ns, types.typname AS name, types.typtype AS kind,
    NULL::oid AS basetype, types.typelem AS elemtype, elements.typdelim AS elemdelim,
    NULL::oid AS range_subtype, NULL::oid[] AS attrtypoids, NULL::text[] AS attrnames,
    0 AS depth, NULL::text AS basetype_name, types.typelem::regtype::text AS elemtype_name,
    NULL::text AS range_subtype_name
FROM pg_catalog.pg_type AS types
JOIN pg_catalog.pg_namespace AS spaces ON spaces.oid = types.typnamespace
LEFT JOIN pg_catalog.pg_type AS elements ON elements.oid = types.typelem
WHERE types.oid = ANY (
    $1::oid[] || ARRAY(
        SELECT asked.typelem FROM pg_catalog.pg_type AS asked WHERE asked.oid = ANY ($1::oid[])
    )
)
ORDER BY types.typelem <> 0
"""


class Session(asyncpg.Connection):  # type: ignore[misc]
    """A connection of a store.

    Attributes:
        pid: of the server's process, and
        started: when that began; `None` behind a pooler, and where the server does not tell.
        schema: of the store's tables.
        is_distributed: whether the store's tables are spread over machines.
        patience: how long to wait there for others, in milliseconds, as settings of the session
            do not reach them; `None`: they are here.
        is_proxied: whether something stands between that gives sessions numbers of its own.
        idle_s: after which the server ends a transaction whose client says nothing more.
        rests: whether this process is at work between two statements, and waits for no answer.
    """

    __slots__ = (
        "_is_pooled", "_opening", "idle_s", "is_distributed", "is_proxied", "patience", "pid",
        "rests", "schema",
        "started",
    )  # fmt: skip

    def __init__(self, protocol: Any, transport: Any, *args: Any) -> None:
        super().__init__(protocol, transport, *args)
        self._intro_query = _FIND_TYPES  # type: ignore[misc]
        self.pid: int | None = None
        self.started: Any = None
        self.schema: str | None = None
        self.is_distributed = False
        self.patience: int | None = None
        self.is_proxied = False
        self.idle_s = IDLE_S
        self.rests = False
        self._opening = ""  # of each transaction
        self._is_pooled = False
        _keep_alive(transport.get_extra_info("socket"))
        # Else a COPY that waits for room to write does so for ever, once the connection is lost.
        self.add_termination_listener(lambda _: protocol.resume_writing())

    @property
    def progress(self) -> tuple[int, ...]:
        """What changes with each statement that is sent, and with each part that gets through."""
        return (
            self._protocol.queries_count,
            self._transport.get_write_buffer_size(),
            *_passed(self._transport.get_extra_info("socket")),
        )

    async def prepare_for(self, target: Target) -> None:
        """Make the settings, and find out which schema the store's tables are in.

        Raises:
            StoreAccessError: there is no schema to work in.
            DriverError: the server refused.
        """
        schema = target.schema
        if schema is None:
            schema = await self._find_schema(target)
        self.schema = schema
        found = await super().fetchrow(_FIND_LIMITS)
        assert found is not None
        self.is_proxied = found["pid"] != self.get_server_pid()
        self.idle_s = min(IDLE_S, found["idle_in_transaction_session_timeout"] / 1000 or IDLE_S)
        settings = _settings(target, found)
        if target.is_pooler:
            self._opening = f"; {settings}"
            self._is_pooled = True
        else:
            await super().execute(settings)
            if found["started"] is not None:
                self.pid, self.started = found["pid"], found["started"]
        if target.is_distributed:
            self.spread(target)

    async def _find_schema(self, target: Target) -> str:
        await super().execute("BEGIN READ ONLY")
        if target.search_path is not None:
            path = literal(target.search_path)
            await super().execute(f"SELECT pg_catalog.set_config('search_path', {path}, true)")
        found = await super().fetchrow(_FIND_SCHEMA)
        await super().execute("COMMIT")
        assert found is not None
        path, who = target.search_path or found["search_path"], found["who"]
        is_asked = target.search_path is not None or bool(found["is_asked"])
        schemas = found["schemas"]
        holding = [name for name in schemas if name in found["holding"]]
        if not is_asked and not holding:
            for name in (who if name == "$user" else name for name in names_of(path)):
                if name in found["holding"]:  # to make another one elsewhere is not what is meant
                    raise StoreAccessError(
                        f"{target.name} has a store in the schema {name}, which this user may not "
                        "use: GRANT USAGE ON it, or name another one by ?search_path= in the URL"
                    )
        if not is_asked and len(holding) > 1:
            raise StoreAccessError(
                f"{target.name} has more than one store, in the schemas "
                f"{' and '.join(sorted(holding))}: say which is meant, by ?search_path= in the URL"
            )
        schema = choose_schema(path, who, schemas, holding, is_asked=is_asked)
        if schema is None:
            raise StoreAccessError(
                f"{target.name} has no schema to work in: CREATE SCHEMA the first one of "
                f"search_path, {path!r}, and let this user use it"
            )
        return schema

    def spread(self, target: Target) -> None:
        """Take note that the store's tables are distributed over machines.

        Only what a transaction sets for itself reaches the other machines that take part in it.
        """
        self.is_distributed = True
        self.patience = _milliseconds(target.busy_timeout)
        self._opening += f"; {_PROPAGATE}; SET LOCAL lock_timeout = {self.patience}"

    # What names tables; all else is the driver's

    def execute(self, query: str, *args: Any, **options: Any) -> Awaitable[Any]:
        """As the driver has it."""
        if self._opening and query.lstrip().startswith("BEGIN"):
            begin, _, rest = query.partition(";")
            query = f"{begin}{self._opening};{rest}"
        if not args:  # which the server runs as it stands, and VACUUM in no transaction
            query = qualify(query, self.schema)
            return cast("Awaitable[Any]", super().execute(query, **options))
        return self._ask(super().execute, query, args, options)

    def executemany(self, command: str, *args: Any, **options: Any) -> Awaitable[Any]:
        """As the driver has it."""
        return self._ask(super().executemany, command, args, options)

    def fetch(self, query: str, *args: Any, **options: Any) -> Awaitable[Any]:
        """As the driver has it."""
        return self._ask(super().fetch, query, args, options)

    def fetchrow(self, query: str, *args: Any, **options: Any) -> Awaitable[Any]:
        """As the driver has it."""
        return self._ask(super().fetchrow, query, args, options)

    def fetchval(self, query: str, *args: Any, **options: Any) -> Awaitable[Any]:
        """As the driver has it."""
        return self._ask(super().fetchval, query, args, options)

    def cursor(self, query: str, *args: Any, **options: Any) -> Any:
        """As the driver has it."""
        return super().cursor(qualify(query, self.schema), *args, **options)

    async def prepare(self, query: str, **options: Any) -> Any:
        """As the driver has it."""
        return await super().prepare(qualify(query, self.schema), **options)

    def _ask(
        self,
        ask: Callable[..., Awaitable[Any]],
        query: str,
        args: Sequence[Any],
        options: Mapping[str, Any],
    ) -> Awaitable[Any]:
        """Run a statement; behind a pooler in a transaction, if need be in one of its own.

        The driver parses a statement first and runs it then. Between the two, and without the
        settings of a transaction, it could be another server that has it.
        """
        query = qualify(query, self.schema)
        if self._is_pooled and not self.is_in_transaction():
            return self._ask_alone(ask, query, args, options)
        return ask(query, *args, **options)

    async def _ask_alone(
        self,
        ask: Callable[..., Awaitable[Any]],
        query: str,
        args: Sequence[Any],
        options: Mapping[str, Any],
    ) -> Any:
        async with self.transaction():
            return await ask(query, *args, **options)


def _settings(target: Target, present: Mapping[str, int]) -> str:
    """Return the statements that make a session's settings, or behind a pooler a transaction's.

    A limit of the administrator's own that is shorter stays. None of them reads anything, so that
    a transaction which sees one state sees that of its first own statement.

    Args:
        target: where the session is.
        present: the limits that it has, in milliseconds; 0: none.
    """
    settings = {
        "search_path": "pg_catalog, pg_temp",
        "lock_timeout": str(_milliseconds(target.busy_timeout)),
        "jit": "off",  # a guess at many rows would cost short statements milliseconds
    }
    limits = {"idle_in_transaction_session_timeout": IDLE_S}
    if target.statement_timeout is not None:
        limits["statement_timeout"] = target.statement_timeout
    for name, limit in limits.items():
        wanted = _milliseconds(limit)
        settings[name] = str(min(present[name] or wanted, wanted))
    if not target.is_pooler:  # of its own connections, these are not ours to say
        settings["default_transaction_isolation"] = "'read committed'"
        settings["tcp_keepalives_idle"] = str(_PROBE_AFTER_S)
        settings["tcp_keepalives_interval"] = str(_PROBE_EVERY_S)
        settings["tcp_keepalives_count"] = str(_PROBES)
        settings["tcp_user_timeout"] = str(_UNACKNOWLEDGED_MS)
        if target.is_read_only:
            settings["default_transaction_read_only"] = "on"
    how = "SET LOCAL" if target.is_pooler else "SET"
    return "; ".join(f"{how} {name} = {value}" for name, value in settings.items())


def _milliseconds(seconds: float) -> int:
    return min(max(1, int(seconds * 1000)), 2**31 - 1)


def choose_schema(
    search_path: str, user: str, schemas: Sequence[str], holding: Sequence[str], *, is_asked: bool
) -> str | None:
    """Choose the schema in which a store is, or will be.

    A path in the URL is taken literally: its first schema. The server's default path usually has
    `"$user"` in it, and begins with another schema as soon as somebody creates that; so there the
    first schema that already holds a store is the one, and only without any the first of all.

    Args:
        search_path: as the session or the URL has it.
        user: that the session is.
        schemas: of the path, those that are there and may be used, in order.
        holding: those of them that hold a store.
        is_asked: whether the URL says so.

    Returns:
        Its name; `None`: there is none to work in.
    """
    if is_asked:
        first = next(iter(names_of(search_path)), "")
        if first != "$user":
            return first if first in schemas else None
        if user in schemas:
            return user
    for schema in schemas:
        if schema in holding:
            return schema
    return schemas[0] if schemas else None


def names_of(search_path: str) -> list[str]:
    """Return the names in a path, be there such schemas or not."""
    return [
        quoted.replace('""', '"') if quoted else plain.strip().lower()
        for quoted, plain in _NAME.findall(search_path)
    ]


def literal(text: str) -> str:
    """Write a text as a constant in SQL."""
    quoted = text.replace("'", "''").replace("\\", "\\\\")
    return f"E'{quoted}'"


def quoted(name: str) -> str:
    """Write an identifier as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def qualify(query: str, schema: str | None) -> str:
    """Put the schema before each of the store's tables that a statement names."""
    return query if schema is None else _qualified((query, schema))


@cache_short(500, longest=10_000)
def _qualified(of: tuple[str, str]) -> str:
    query, schema = of
    name = quoted(schema)

    def qualified(match: re.Match[str]) -> str:
        table = match[0]
        if table[0] == "'":
            return literal(f"{name}.{table[1:].partition(chr(39))[0]}") + "::regclass"
        return f"{name}.{table}"

    return _TABLE.sub(qualified, query.replace("$$", _QUOTES))


def _passed(sock: socket.socket | None) -> tuple[int, ...]:
    """Return how many bytes the other end has acknowledged and sent, if the kernel tells."""
    if sys.platform != "linux" or sock is None or sock.family == socket.AF_UNIX:
        return ()
    try:
        found = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        return _TCP_INFO.unpack(found)
    except (OSError, struct.error):  # it is closed, or the kernel an old one
        return ()


def _keep_alive(sock: socket.socket | None) -> None:
    """Have the kernel notice a peer that has gone without a word."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    wanted = {
        "TCP_KEEPIDLE": _PROBE_AFTER_S,
        "TCP_KEEPALIVE": _PROBE_AFTER_S,  # as macOS calls it
        "TCP_KEEPINTVL": _PROBE_EVERY_S,
        "TCP_KEEPCNT": _PROBES,
        "TCP_USER_TIMEOUT": _UNACKNOWLEDGED_MS,
    }
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in wanted.items():
        option = getattr(socket, name, None)
        if option is not None:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
