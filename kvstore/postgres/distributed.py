"""Citus: the tables of a store spread over machines by root, each root's rows in one place.

Every table begins its primary key with `root`. Hashed by it, and colocated, they keep all that a
write of one root touches on one machine, and a write is a call of a function that is sent there.
"""

from __future__ import annotations

from kvstore.errors import MissingDependencyError
from kvstore.postgres.connection import Connection
from kvstore.postgres.filter_statements import FORGET_FILTERS
from kvstore.postgres.session import literal, quoted
from kvstore.postgres.statements import LOCK_TABLES

__all__ = ["distribute", "distribute_table", "is_distributed"]

_HAS_CITUS = "SELECT to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL"
_IS_DISTRIBUTED = """
SELECT EXISTS (
    SELECT 1 FROM pg_catalog.pg_dist_partition WHERE logicalrelid = 'kvstore_roots'::regclass
)
"""
# One connection to each machine for all of it
_SEQUENTIAL = (
    "SET LOCAL statement_timeout = 0; SET LOCAL citus.multi_shard_modify_mode = sequential"
)
_FIRST = "kvstore_roots"
# Tables with rows of roots, and functions that get the root first, which are not spread yet
_FIND_TABLES = """
SELECT pg_class.relname::text AS name FROM pg_catalog.pg_class
WHERE pg_class.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1)
    AND pg_class.relkind = 'r' AND pg_class.relname LIKE 'kvstore\\_%'
    AND EXISTS (
        SELECT 1 FROM pg_catalog.pg_attribute
        WHERE attrelid = pg_class.oid AND attname = 'root'
    )
    AND NOT EXISTS (
        SELECT 1 FROM pg_catalog.pg_dist_partition WHERE logicalrelid = pg_class.oid
    )
ORDER BY pg_class.relname <> 'kvstore_roots', 1
"""
_FIND_FUNCTIONS = """
SELECT pg_proc.oid::regprocedure::text AS signature FROM pg_catalog.pg_proc
WHERE pg_proc.pronamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1)
    AND pg_proc.proname LIKE 'kvstore\\_%' AND pg_proc.proargnames[1] = 'the_root'
    AND NOT EXISTS (
        SELECT 1 FROM pg_catalog.pg_dist_object
        WHERE classid = 'pg_catalog.pg_proc'::regclass AND objid = pg_proc.oid
            AND distribution_argument_index IS NOT NULL
    )
"""


async def is_distributed(connection: Connection) -> bool:
    """Whether the tables of a store are spread over machines."""
    async with connection.transaction():  # one server for both, behind a pooler
        if not await connection.fetchval(_HAS_CITUS):
            return False
        spread: bool = await connection.fetchval(_IS_DISTRIBUTED)
        return spread


async def distribute(connection: Connection, name: str) -> None:
    """Spread the tables of a store over machines, as far as they are not.

    Raises:
        MissingDependencyError: the database has no Citus.
        DriverError: as the connection has it.
    """
    if not await connection.fetchval(_HAS_CITUS):
        raise MissingDependencyError(
            f"distributed=True needs the extension citus, which {name} lacks: have an "
            "administrator install it, run CREATE EXTENSION citus, and add the workers"
        )
    async with connection.transaction():
        await connection.execute(_SEQUENTIAL)
        await connection.execute(LOCK_TABLES)
        if not await connection.fetchval(_IS_DISTRIBUTED):
            for statement in FORGET_FILTERS:  # a table with triggers cannot be spread
                await connection.execute(statement)
            await connection.execute("SELECT create_reference_table('kvstore_state'::regclass)")
        for (table,) in await connection.fetch(_FIND_TABLES, connection.schema):
            await distribute_table(connection, table)
        for (signature,) in await connection.fetch(_FIND_FUNCTIONS, connection.schema):
            await connection.execute(
                f"SELECT create_distributed_function({literal(signature)}::regprocedure, "
                f"'the_root', colocate_with => {_text(connection, _FIRST)})"
            )


async def distribute_table(connection: Connection, table: str) -> None:
    """Spread a new table, inside a transaction."""
    beside = "" if table == _FIRST else f", colocate_with => {_text(connection, _FIRST)}"
    await connection.execute(
        f"SELECT create_distributed_table('{table}'::regclass, 'root'{beside})"
    )


def _text(connection: Connection, table: str) -> str:
    """Write the name of a table as a constant."""
    return literal(f"{quoted(connection.schema)}.{table}")
