"""A root, the first label of namespaces, as `kvstore_roots` and `kvstore_turns` know it.

Everything that a write depends on belongs to its root: the version, the lock, whether changes are
recorded, the search index. Whoever holds the row's lock is the only writer under that root until
the transaction ends, so versions are in commit order, which the change feed relies on; writers of
different roots share nothing. A transaction over several roots locks them in order, so that no two
can deadlock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kvstore.errors import SchemaError, StoreAccessError
from kvstore.postgres import statements
from kvstore.postgres.connection import Connection
from kvstore.postgres.session import qualify

__all__ = ["RootState", "await_roots", "lock_root", "store_state"]

_NO_STATE = "kvstore_state has lost its row; restore it from a backup"


@dataclass(slots=True)
class RootState:
    """A root as a statement has seen it.

    Attributes:
        version: of the last write under it.
        writes: counts the transactions that wrote.
        watched_until: see migrations/postgres/0002_changes.sql; 0: changes are not recorded.
        changes_begin: the version after which the feed holds all.
        recorded: the last version that the feed has told of.
        index: the description of the search index; `None`: there is none.
        has_sequences: whether there is a log or a queue under it.
        history: for how long its past is kept, in microseconds; 0: it is not.
    """

    root: str
    version: int
    writes: int
    watched_until: int
    changes_begin: int
    recorded: int
    index: str | None
    has_sequences: bool
    history: int

    @classmethod
    def of(cls, root: str, row: Sequence[Any]) -> RootState:
        """Read what a row of a statement begins with."""
        return cls(root, *row[:8])


async def lock_root(connection: Connection, root: str) -> RootState:
    """Lock a root to the end of the transaction; it is made if it is not there."""
    while await connection.fetchval(statements.LOCK_ROOT, root) is None:
        await connection.execute(statements.BEGIN_ROOT, root)
    return RootState.of(root, await connection.fetchrow(statements.GET_ROOT, root))


async def await_roots(connection: Connection) -> None:
    """Wait until the roots that are being made are there, so that they are found.

    Args:
        connection: outside a transaction; it has changed what new roots begin with.

    Raises:
        StoreAccessError: a machine over which the store is spread cannot be asked.
        DriverError: as the connection has it.
    """
    if not connection.is_distributed:
        await connection.fetchval(statements.AWAIT_ROOTS)
        return
    command = qualify(statements.AWAIT_ROOTS, connection.schema)
    limited = f"SET lock_timeout = {connection.patience}; {command}"
    if not await connection.fetchval(statements.AWAIT_ROOTS_OF_ALL, limited):
        raise StoreAccessError("a machine of the cluster does not answer; retry in a moment")


async def store_state(
    connection: Connection, statement: str = statements.GET_STATE
) -> tuple[int, int, str | None]:
    """Return what new roots begin with: version, end of the recording, description of the index.

    Raises:
        SchemaError: the row is missing.
    """
    row = await connection.fetchrow(statement)
    if row is None:
        raise SchemaError(_NO_STATE)
    version, watched_until, index = row
    return version, watched_until, index
