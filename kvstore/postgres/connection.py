"""Connections: where to, how many, and the driver's errors made ours.

The pool is our own, and small: asyncpg's resets a connection each time it comes back, which takes
a round trip. What is done here needs no reset, as no connection ever holds any state of ours.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Concatenate, Final, ParamSpec, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from kvstore.distribution import how_to_install
from kvstore.errors import (
    InvalidArgumentError,
    MissingDependencyError,
    ReadOnlyError,
    SchemaError,
    StoreAccessError,
    StoreBusyError,
    StoreClosedError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    ValueTooLargeError,
)

try:
    import asyncpg
except ImportError:
    raise MissingDependencyError(
        f"PostgresStore needs asyncpg, which is not installed: "
        f"{how_to_install('postgres', 'asyncpg')}"
    ) from None

__all__ = [
    "Connection",
    "DriverError",
    "Link",
    "Pool",
    "Target",
    "connect",
    "is_damage",
    "is_lost",
    "translate",
    "translated",
]

Connection = Any
"""An `asyncpg.Connection`, of whose types there are none."""

P = ParamSpec("P")
T = TypeVar("T")

DriverError: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a connection says that broke in the middle of something
    OSError,
)

OLDEST_SERVER = 13  # the first with pg_current_xact_id
CONNECT_S = 10.0  # for one try to connect
PAUSES_S = (0.02, 0.25)  # between two tries, growing
_POOLER = "pooler"  # our own part of a URL's query


@dataclass(frozen=True, slots=True)
class Target:
    """Where a store's database is.

    Attributes:
        url: for the driver.
        name: for messages: without the password.
        is_pooler: whether a pooler stands before it that gives a session's server to others
            between two transactions.
        is_read_only: whether the server is asked to refuse all writes. A pooler would not know of
            it; behind one, every transaction says so.
    """

    url: str = field(repr=False)
    name: str
    is_pooler: bool
    is_read_only: bool = False

    @classmethod
    def parse(cls, url: str, *, is_pooler: bool = False) -> Target:
        """Read a URL.

        Raises:
            InvalidArgumentError: it is no URL of a PostgreSQL database.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit(":")
        if parts.scheme not in ("postgresql", "postgres"):
            raise InvalidArgumentError(
                "a PostgreSQL URL is written postgresql://user:password@host:5432/database, with "
                "%-escapes for what is special in it"
            )
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        said = query.pop(_POOLER, None)
        if said is not None:
            if said not in ("true", "false"):
                raise InvalidArgumentError(f"{_POOLER} of a PostgreSQL URL is 'true' or 'false'")
            is_pooler = said == "true"
            text = "&".join(f"{quote(name)}={quote(value)}" for name, value in query.items())
            url = parts._replace(query=text).geturl()
        host = parts.netloc.rpartition("@")[2] or query.get("host", "")
        if "port" in query:
            host = f"{host}:{query['port']}"
        user = unquote(parts.username or "") or query.get("user", "")
        database = unquote(parts.path[1:]) or query.get("database") or query.get("dbname", "")
        name = f"{user}@{host}" if user else host
        return cls(url, f"the PostgreSQL database {name}/{database}", is_pooler)


async def connect(target: Target, *, lock_timeout: float | None = None) -> Connection:
    """Open a connection.

    Args:
        target: where to.
        lock_timeout: how long a statement waits for a lock, in seconds; not behind a pooler.

    Raises:
        StoreError: as `translate` has it; also that the server's encoding is not UTF-8.
    """
    settings = {"application_name": "kvstore"}
    if lock_timeout is not None and not target.is_pooler:
        settings["lock_timeout"] = str(max(1, int(lock_timeout * 1000)))
    if target.is_read_only and not target.is_pooler:
        settings["default_transaction_read_only"] = "on"
    with translated(target.name):
        try:
            connection = await asyncpg.connect(
                target.url,
                timeout=CONNECT_S,
                statement_cache_size=0 if target.is_pooler else 200,
                server_settings=settings,
            )
        except TimeoutError as exc:
            raise StoreAccessError(
                f"{target.name} did not answer within {CONNECT_S:g} seconds"
            ) from exc
        except (ValueError, asyncpg.ClientConfigurationError):
            # Its message may quote the URL, and with it the password.
            raise InvalidArgumentError(
                "the URL of the PostgreSQL database does not parse; it is written "
                "postgresql://user:password@host:5432/database"
            ) from None
    if connection.get_server_version()[0] < OLDEST_SERVER:
        connection.terminate()
        raise StoreAccessError(
            f"{target.name} is older than PostgreSQL {OLDEST_SERVER}; upgrade it"
        )
    encoding = connection.get_settings().server_encoding
    if encoding != "UTF8":
        connection.terminate()
        raise SchemaError(
            f"{target.name} has the encoding {encoding}, and kvstore needs one in UTF8: "
            "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )
    return connection


async def reconnect(
    target: Target, patience: float, *, lock_timeout: float | None = None
) -> Connection:
    """Open a connection to a server that may be on its way back, for some seconds.

    Raises:
        StoreError: the last try's.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    pause = PAUSES_S[0]
    while True:
        try:
            return await connect(target, lock_timeout=lock_timeout)
        except StoreAccessError as exc:
            if not is_lost(exc.__cause__) or loop.time() + pause > deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, PAUSES_S[1])


@dataclass(slots=True, eq=False)
class Link:
    """A connection of a pool, with the statement that it runs most."""

    raw: Connection
    get: Any = None  # the prepared statement
    replayed: int = 0  # of a replica: the place in the log that it is known to have reached


class Pool:
    """Connections for reads; they are opened when they are needed, and kept.

    Args:
        target: where to.
        size: how many at most.
        timeout: how long to wait for one, in seconds.
    """

    def __init__(self, target: Target, size: int, timeout: float) -> None:
        self.target = target
        self._size = size
        self._timeout = timeout
        self._idle: list[Link] = []
        self._opened = 0
        self._waiting: deque[asyncio.Future[Link | None]] = deque()
        self._is_closed = False
        self._quiet: asyncio.Future[None] | None = None

    async def run(
        self, read: Callable[Concatenate[Link, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a read on a connection; once more on a new one, if that was lost.

        Behind a pooler it is in a transaction of its own, so that one server has all of it.
        """
        if not self.target.is_pooler:
            return await self.run_alone(read, *args, **kwargs)

        async def read_in_transaction(link: Link) -> T:
            async with link.raw.transaction(isolation="repeatable_read", readonly=True):
                return await read(link, *args, **kwargs)

        return await self.run_alone(read_in_transaction)

    async def run_alone(
        self, read: Callable[Concatenate[Link, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `run`, for a read that begins a transaction itself."""
        link = self.take() or await self.acquire()
        try:
            return await read(link, *args, **kwargs)
        except DriverError as exc:
            if isinstance(exc, StoreError):
                raise
            if not (is_lost(exc) or link.raw.is_closed()):
                raise translate(exc, self.target.name) from exc
            link.raw.terminate()  # it may not know yet
        finally:
            self.release(link)
        self.forget_idle()  # they go to the same server
        link = await self.acquire()
        try:
            return await read(link, *args, **kwargs)
        except DriverError as exc:
            if is_lost(exc):
                link.raw.terminate()
            raise translate(exc, self.target.name) from exc
        finally:
            self.release(link)

    def take(self) -> Link | None:
        """Return an idle connection, or `None`."""
        while self._idle:
            link = self._idle.pop()
            if not link.raw.is_closed():
                return link
            self._opened -= 1
        return None

    async def acquire(self) -> Link:
        """Return a connection; `release` it.

        Raises:
            StoreBusyError: all were in use for too long.
        """
        deadline = asyncio.get_running_loop().time() + self._timeout
        while True:
            link = self.take()
            if link is not None:
                return link
            if self._is_closed:
                raise StoreClosedError(f"the store over {self.target.name} is closed")
            if self._opened < self._size:
                self._opened += 1
                try:
                    return Link(await reconnect(self.target, self._timeout))
                except BaseException:
                    self._opened -= 1
                    self._hand_on(None)
                    raise
            waiter: asyncio.Future[Link | None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                async with asyncio.timeout_at(deadline):
                    given = await waiter
            except BaseException as exc:
                if waiter.done() and not waiter.cancelled():
                    given = waiter.result()
                    if given is None:
                        self._hand_on(None)
                    else:
                        self.release(given)
                if isinstance(exc, TimeoutError):
                    raise StoreBusyError(
                        f"all {self._size} connections to {self.target.name} were in use for "
                        f"{self._timeout:g} seconds; raise pool_size, or ask for less at once"
                    ) from None
                raise
            if given is not None:
                return given

    def release(self, link: Link) -> None:
        """Give a connection back."""
        raw = link.raw
        if raw.is_closed() or self._is_closed or raw.is_in_transaction():
            raw.terminate()
            self._opened -= 1
            self._hand_on(None)
        elif self._waiting:
            self._hand_on(link)
        else:
            self._idle.append(link)
        if self._quiet is not None and not self._opened and not self._quiet.done():
            self._quiet.set_result(None)

    def put_back(self, link: Link) -> None:
        """As `release`, after one statement outside a transaction."""
        if self._waiting or self._is_closed:
            self.release(link)
        else:
            self._idle.append(link)

    def _hand_on(self, link: Link | None) -> None:
        """Give the first who waits a connection, or word that one may be opened."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(link)
                return
        if link is not None:
            self._idle.append(link)

    def forget_idle(self) -> None:
        """Drop the idle connections."""
        while self._idle:
            self._idle.pop().raw.terminate()
            self._opened -= 1

    async def close(self) -> None:
        """Close all connections, once what uses them is done."""
        self._is_closed = True
        idle, self._idle = self._idle, []
        self._opened -= len(idle)
        while self._waiting:
            self._hand_on(None)
        for link in idle:
            await hang_up(link.raw)
        if self._opened:
            self._quiet = asyncio.get_running_loop().create_future()
            await self._quiet


async def hang_up(connection: Connection) -> None:
    """Close a connection, politely if the server still listens."""
    try:
        await connection.close(timeout=2.0)
    except (*DriverError, TimeoutError):
        connection.terminate()


def is_lost(exc: BaseException | None) -> bool:
    """Whether an error says that the connection is gone, or that there is none to be had now."""
    if isinstance(exc, asyncpg.PostgresError):
        state = exc.sqlstate or ""
        return state.startswith("08") or state in ("57P01", "57P02", "57P03", "57P05", "25P03")
    return isinstance(exc, (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError))


def is_damage(exc: BaseException) -> bool:
    """Whether an error says that something is damaged."""
    return isinstance(translate(exc, ""), StoreCorruptError)


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Raise the driver's errors as ours: the one seam between them."""
    try:
        yield
    except DriverError as exc:
        if isinstance(exc, StoreError):
            raise
        raise translate(exc, name) from exc


_AWAY = "cannot be reached; is the server running, and are host and port right"
_DAMAGED = "is damaged, by the server's word; restore it from a backup"
_FOREIGN = (
    "has tables of these names that kvstore did not make; use another schema: CREATE SCHEMA kv, "
    "and ?search_path=kv in the URL"
)
_STATES: Final[Sequence[tuple[str, type[StoreError], str]]] = (
    ("28", StoreAccessError, "refuses the user or the password"),
    ("3D000", StoreAccessError, "does not exist: create the database first"),
    ("3F000", StoreAccessError, "has no schema to work in: create the one in search_path"),
    ("42501", StoreAccessError, "does not let this user do that; grant it the rights"),
    ("25006", ReadOnlyError, "is read-only: a replica, or a server set so"),
    ("53100", StoreFullError, "cannot grow: the server's disk is full; make room and try again"),
    ("53300", StoreBusyError, "takes no more connections; raise max_connections or use fewer"),
    ("55P03", StoreBusyError, "is kept locked by another writer; retry, or raise busy_timeout"),
    ("40", StoreBusyError, "is written by others at the same time; retry"),
    ("57014", StoreBusyError, "took too long, and the server cancelled it; retry"),
    ("57P04", StoreAccessError, "was dropped"),
    ("57P03", StoreAccessError, "is starting up or shutting down; retry in a moment"),
    ("57", StoreAccessError, "was shut down; retry in a moment"),
    ("08", StoreAccessError, "hung up; retry in a moment"),
    ("54", ValueTooLargeError, "takes no text that long"),
    ("42P01", SchemaError, "lacks a table of kvstore's; was it dropped?"),
    ("42P07", SchemaError, _FOREIGN),
    ("42703", SchemaError, _FOREIGN),
    ("58030", StoreAccessError, "cannot be read or written: the server reports an I/O error"),
    ("53200", StoreError, "cannot do that: the server is out of memory"),
    ("XX001", StoreCorruptError, _DAMAGED),
    ("XX002", StoreCorruptError, _DAMAGED),
)


def translate(exc: BaseException, name: str) -> StoreError:
    """Return our error for one of the driver's, by its code and never by its text."""
    if isinstance(exc, StoreError):
        return exc
    if isinstance(exc, asyncpg.PostgresError):
        state = exc.sqlstate or "unknown"
        for prefix, kind, what in _STATES:
            if state.startswith(prefix):
                return kind(f"{name} {what} ({type(exc).__name__}, {state})")
        return StoreError(f"{name} failed ({type(exc).__name__}, {state})")
    if isinstance(exc, OSError):
        if exc.errno in (errno.EMFILE, errno.ENFILE):
            return StoreAccessError(
                f"{name} cannot be reached: no more files can be open at once in this process; "
                "close some, or raise the limit (ulimit -n)"
            )
        return StoreAccessError(f"{name} {_AWAY}? ({type(exc).__name__})")
    return StoreAccessError(f"the connection to {name} is lost; retry ({type(exc).__name__})")
