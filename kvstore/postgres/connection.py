"""Connections: opening and closing one, and the driver's errors made ours."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeVar

from kvstore.distribution import or_install
from kvstore.errors import (
    InvalidArgumentError,
    ReadOnlyError,
    SchemaError,
    StoreAccessError,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    ValueTooLargeError,
)

with or_install("PostgresStore needs asyncpg, which is not installed", "postgres", "asyncpg"):
    import asyncpg

from kvstore.postgres import tls
from kvstore.postgres.session import Session
from kvstore.postgres.target import Target
from kvstore.waiting import on_own_thread

__all__ = [
    "Connection",
    "DriverError",
    "Retries",
    "Target",
    "aside",
    "begin_aside",
    "connect",
    "connect_when_ready",
    "hang_up",
    "heard",
    "is_behind",
    "is_client_side",
    "is_damage",
    "is_demoted",
    "is_lost",
    "is_passing",
    "lacks_table",
    "leave_transaction",
    "pauses",
    "plan_once",
    "reconnect",
    "require_own_session",
    "rows_of",
    "snapshot",
    "state_of",
    "translate",
    "translated",
]

T = TypeVar("T")

Connection = Any
"""An `asyncpg.Connection`, of whose types there are none."""

DriverError: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a connection says that broke in the middle of something
    OSError,
)

_REFUSED_SETTINGS: Final = (
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidParameterValueError,
    asyncpg.CantChangeRuntimeParamError,
)

OLDEST_SERVER = 13  # the first with pg_current_xact_id
CONNECT_S = 10.0  # for one try to connect
TRY_S = 1.0  # for the first of several; each time twice as long
LEAST_TRY_S = 1.0
_LOOK_S = 5.0  # for the look whether a session has a server of its own
_SEEN = "SELECT current_setting('kvstore.session', true)"
_BEGIN_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# For writes, which are single calls that go by primary keys: to plan them anew each time would take
# the server as long as to do them.
_PLAN_ONCE = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off"
_HEARINGS = 3  # that a server which waits for us gets before it would hang up
_BEHIND: Final = "08006"
_READ_ONLY: Final = "25006"
_STARTING: Final = "57P03"
_FULL: Final = "53300"
_NOT_READY: Final = (_STARTING, _FULL)
_NO_TABLE: Final = "42P01"
_CONFLICTS: Final = ("40001", "40P01")  # the server gave up one transaction of several
_PAUSES_S = (0.02, 0.25)  # between two tries, growing


async def connect(target: Target, *, patience: float = CONNECT_S) -> Session:
    """Open a connection.

    Args:
        target: where to.
        patience: for it all, in seconds.

    Raises:
        StoreError: as `translate` has it; also that the server's encoding is not UTF-8.
    """
    with translated(target.name):
        try:
            async with asyncio.timeout(patience):
                return await _open(target, patience)
        except TimeoutError as exc:
            raise StoreAccessError(
                f"{target.name} did not answer within {patience:g} seconds"
            ) from exc
        except _REFUSED_SETTINGS as exc:
            if not target.server_settings:
                raise
            raise InvalidArgumentError(
                f"{target.name} refuses a setting of the URL ({type(exc).__name__}): of "
                f"{', '.join(target.server_settings)}, which are sent to it, leave out what is "
                "meant for another driver"
            ) from None
        except ssl.SSLError:  # some of which are ValueErrors, too
            raise
        except (ValueError, FileNotFoundError, asyncpg.ClientConfigurationError) as exc:
            # Its message may quote the URL, and with it the password.
            problem = tls.bad_setting(target.url)
            if problem is not None:
                raise InvalidArgumentError(f"{target.name}: {problem}") from None
            if isinstance(exc, FileNotFoundError):  # of the server's socket
                raise
            raise InvalidArgumentError(
                "the URL of the PostgreSQL database does not parse; it is written "
                "postgresql://user:password@host:5432/database"
            ) from None


async def _open(target: Target, patience: float) -> Session:
    connection: Session = await asyncpg.connect(
        target.url,
        timeout=patience,
        statement_cache_size=0 if target.is_pooler else 200,
        server_settings={"application_name": target.application},
        connection_class=Session,
    )
    try:
        _check_server(connection, target)
        await connection.prepare_for(target)
    except BaseException:
        connection.terminate()
        raise
    return connection


def _check_server(connection: Session, target: Target) -> None:
    if connection.get_server_version()[0] < OLDEST_SERVER:
        raise StoreAccessError(
            f"{target.name} is older than PostgreSQL {OLDEST_SERVER}; upgrade it"
        )
    encoding = connection.get_settings().server_encoding
    if encoding != "UTF8":
        raise SchemaError(
            f"{target.name} has the encoding {encoding}, and kvstore needs one in UTF8: "
            "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )


async def reconnect(target: Target, patience: float) -> Session:
    """Open a connection to a server that may be on its way back, for some seconds.

    The first tries are short: what is sent into a network that is down is not always sent again
    when that is back.

    Raises:
        StoreError: the last try's.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    limit = TRY_S
    for pause in pauses():
        left = deadline - loop.time()
        try:
            return await connect(target, patience=max(LEAST_TRY_S, min(limit, left, CONNECT_S)))
        except StoreAccessError as exc:
            if not is_lost(exc.__cause__) or loop.time() + pause > deadline:
                raise
        await asyncio.sleep(pause)
        limit *= 2
    raise AssertionError(limit)


async def connect_when_ready(target: Target) -> Session:
    """Open a connection; a server that starts, or that takes no more, is waited for.

    One that is not there is not.

    Raises:
        StoreError: as `connect`, and the server kept saying so for `busy_timeout`.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + target.busy_timeout
    for pause in pauses():
        try:
            return await connect(target)
        except StoreError as exc:
            if state_of(exc.__cause__) not in _NOT_READY or loop.time() + pause > deadline:
                raise
        await asyncio.sleep(pause)
    raise AssertionError(deadline)


def pauses() -> Iterator[float]:
    """Yield how long to wait before each new try, in seconds."""
    pause, most = _PAUSES_S
    while True:
        yield pause
        pause = min(2 * pause, most)


class Retries:
    """How often something that has failed is tried again, and when.

    Args:
        most: how often at all; but as often as there is time while a server of a cluster is away.
        patience: how long to wait for that one, in seconds.
    """

    __slots__ = ("_deadline", "_left", "_patience", "_pauses")

    def __init__(self, most: int, patience: float) -> None:
        self._left = most
        self._patience = patience
        self._pauses: Iterator[float] | None = None
        self._deadline = 0.0

    async def wait(self, exc: BaseException) -> bool:
        """Wait until the next try; return whether there is to be one."""
        if not is_behind(exc):
            self._left -= 1
            return self._left > 0
        now = asyncio.get_running_loop().time()
        if self._pauses is None:
            self._pauses = pauses()
            self._deadline = now + self._patience
        if now < self._deadline:
            await asyncio.sleep(next(self._pauses))
        return now < self._deadline


async def aside(connection: Connection, work: Callable[[], T]) -> T:
    """Do what takes this process long on a thread, so that neither the loop nor the server stops.

    Args:
        connection: over which nothing else is on its way; in a transaction or not. The server
            would end one whose client says nothing for `Session.idle_s`.
        work: to be done.
    """
    return await heard(connection, begin_aside(work))


def begin_aside(work: Callable[[], T]) -> asyncio.Task[T]:
    """Begin to do something on a thread; an error that nobody comes to ask for is forgotten."""
    doing = asyncio.create_task(on_own_thread(work))
    doing.add_done_callback(_forget)
    return doing


async def heard(connection: Connection, doing: asyncio.Task[T]) -> T:
    """Wait for what was begun on a thread, as `aside` does."""
    pause = connection.idle_s / _HEARINGS
    try:
        connection.rests = True
        while not (await asyncio.wait([doing], timeout=pause))[0]:
            connection.rests = False
            await connection.execute("SELECT")
            connection.rests = True
    finally:
        connection.rests = False
    return await doing


def _forget(done: asyncio.Task[Any]) -> None:
    """Take note of an error that nobody else does, where the connection was lost before."""
    if not done.cancelled():
        done.exception()


async def plan_once(connection: Session, target: Target) -> None:
    """Have a session plan each statement once, if it may."""
    if target.plans_once:
        await connection.execute(_PLAN_ONCE)


async def require_own_session(connection: Session, target: Target) -> None:
    """Refuse a pooler in transaction mode of which nobody has said that it is there.

    What one session has set is seen by another one there, or is gone as soon as another one has a
    transaction open.

    Raises:
        StoreAccessError: there is one.
    """
    if target.is_pooler or not connection.is_proxied:
        return
    is_own = False
    other = await connect(target)
    with translated(target.name):
        try:
            async with asyncio.timeout(_LOOK_S):
                await connection.execute("SET kvstore.session = 'mine'")
                await other.execute("BEGIN")
                seen = await other.fetchval(_SEEN)
                is_own = seen != "mine" and await connection.fetchval(_SEEN) == "mine"
        except TimeoutError:  # they wait for each other's server
            pass
        finally:
            other.terminate()
    if not is_own:
        raise StoreAccessError(f"{target.name} {_POOLED}")


@asynccontextmanager
async def snapshot(raw: Connection, settings: str = "") -> AsyncIterator[None]:
    """See one state of everything, and write nothing; with settings for it, as statements.

    A block that fails leaves the transaction open, to be ended by whom the connection goes back
    to: who is cancelled has no time for that.
    """
    if raw.is_in_transaction():  # it is in one already
        if settings:
            await raw.execute(settings)
        yield
        return
    await raw.execute(f"{_BEGIN_SNAPSHOT}; {settings}" if settings else _BEGIN_SNAPSHOT)
    yield
    await raw.execute("COMMIT")


async def leave_transaction(raw: Connection, exc: BaseException) -> None:
    """See to it that a connection on which something failed has no transaction open."""
    if raw.is_closed():
        return
    if is_lost(exc) or not isinstance(exc, asyncpg.PostgresError) or is_client_side(exc):
        raw.terminate()
    elif raw.is_in_transaction():
        try:
            await raw.execute("ROLLBACK")
        except DriverError:
            raw.terminate()


async def hang_up(connection: Connection) -> None:
    """Close a connection, politely if the server still listens."""
    try:
        await connection.close(timeout=2.0)
    except (*DriverError, TimeoutError):
        connection.terminate()


def rows_of(status: str) -> int:
    """Return how many rows a statement has changed, by what the server says of it."""
    return int(status.rpartition(" ")[2])


def state_of(exc: BaseException | None) -> str | None:
    """Return the server's code for an error; `None`: the error is not the server's."""
    return getattr(exc, "sqlstate", None)


def is_lost(exc: BaseException | None) -> bool:
    """Whether an error says that the connection is gone, or that there is none to be had now."""
    if isinstance(exc, asyncpg.PostgresError):
        state = exc.sqlstate or ""
        return state.startswith("08") or state in ("57P01", "57P02", _STARTING, "57P05", "25P03")
    if tls.is_refused(exc):
        return False
    return isinstance(exc, (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError))


def is_client_side(exc: asyncpg.PostgresError) -> bool:
    """Whether an error is the driver's own word for a lost connection, and not the server's."""
    return (exc.sqlstate or "08").startswith("08")


def is_passing(exc: BaseException) -> bool:
    """Whether what has failed may well succeed when it is tried again."""
    if isinstance(exc, StoreBusyError):
        return False
    if isinstance(exc, asyncpg.PostgresError) and exc.sqlstate in _CONFLICTS:
        return True
    return not isinstance(exc, StoreError) and is_lost(exc)


def is_behind(exc: BaseException) -> bool:
    """Whether a server, which is there, says that another one of its cluster is not."""
    return state_of(exc) == _BEHIND


def is_demoted(exc: BaseException) -> bool:
    """Whether an error says that the server takes no writes, as after a failover."""
    return state_of(exc) == _READ_ONLY


def lacks_table(exc: BaseException | None) -> bool:
    """Whether an error says that a table is not there."""
    return state_of(exc) == _NO_TABLE


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
_POOLED = (
    "is behind a pooler in transaction mode, which gives each transaction another session: say so "
    "by ?pooler=true in the URL, or PostgresStore(url, pooler=True)"
)
_NOT_LET_IN = (
    "lets nobody in from here as this user: there is none of that name, or pg_hba.conf wants "
    "another address, or TLS (?sslmode=require); the server's log says what it was"
)
_STATES: Final[Sequence[tuple[str, type[StoreError], str]]] = (
    ("28000", StoreAccessError, _NOT_LET_IN),
    ("28", StoreAccessError, "refuses the user or the password"),
    ("3D000", StoreAccessError, "does not exist: create the database first"),
    ("3F000", StoreAccessError, "has no schema to work in: create the one in search_path"),
    ("42501", StoreAccessError, "does not let this user do that; grant it the rights"),
    ("26000", StoreAccessError, _POOLED),
    ("42P05", StoreAccessError, _POOLED),
    (_READ_ONLY, ReadOnlyError, "is read-only: a replica, or a server set so"),
    ("53100", StoreFullError, "cannot grow: the server's disk is full; make room and try again"),
    (_FULL, StoreBusyError, "takes no more connections; raise max_connections or use fewer"),
    ("55P03", StoreBusyError, "is kept locked by another writer; retry, or raise busy_timeout"),
    ("40", StoreBusyError, "is written by others at the same time; retry"),
    ("57014", StoreBusyError, "took too long, and the server cancelled it; retry"),
    ("25P04", StoreBusyError, "took too long, and the server ended its transaction; retry"),
    ("57P04", StoreAccessError, "was dropped"),
    (_STARTING, StoreAccessError, "is starting up or shutting down; retry in a moment"),
    ("57", StoreAccessError, "was shut down; retry in a moment"),
    (
        _BEHIND,
        StoreAccessError,
        "cannot reach another server of its cluster; retry in a moment",
    ),
    ("08", StoreAccessError, "hung up; retry in a moment"),
    ("54", ValueTooLargeError, "takes no text that long"),
    (_NO_TABLE, SchemaError, "lacks a table of kvstore's; was it dropped?"),
    ("42883", SchemaError, "lacks a function of kvstore's; was it dropped?"),
    ("KV004", SchemaError, "has lost the row of kvstore_state; restore it from a backup"),
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
        what = tls.refusal(exc) or f"{_AWAY}?"
        return StoreAccessError(f"{name} {what} ({type(exc).__name__})")
    return StoreAccessError(f"the connection to {name} is lost; retry ({type(exc).__name__})")
