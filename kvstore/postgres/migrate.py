"""Migrations: creates the tables of a new store, and brings those of an older one up to date.

The steps are `migrations/postgres/NNNN_name.sql`, applied in order and recorded in the same
transaction. An advisory lock within it makes processes that start at once wait for the first, also
behind a pooler. A schema that is newer than this version is used as it is, as during a rolling
deployment, unless one of its steps says (`-- needs: 7`) that programs must know step 7. Everything
is created in the session's schema.
"""

from __future__ import annotations

import re

from kvstore.errors import SchemaError
from kvstore.postgres import statements
from kvstore.postgres.connection import Connection
from kvstore.schema import Script, scripts

__all__ = ["migrate", "migrations", "require_migrated"]

_NEEDS = re.compile(r"^-- needs: (\d+)$", re.MULTILINE)


def migrations() -> tuple[Script, ...]:
    """Return the steps, in order."""
    return scripts("postgres")


async def migrate(connection: Connection, name: str) -> None:
    """Bring the schema to this version's state.

    Raises:
        SchemaError: it is of a newer version of kvstore, or the names are taken.
        DriverError: as the connection has it.
    """
    if await _applied(connection, name) >= migrations()[-1].number:
        return
    async with connection.transaction():
        await connection.execute("SET LOCAL statement_timeout = 0")
        await connection.execute(statements.LOCK_TABLES)
        applied = await _applied(connection, name)
        if not applied:
            await connection.execute(statements.CREATE_SCHEMA_RECORD)
        for step in migrations():
            if step.number > applied:
                for statement in statements_of(step.text):
                    await connection.execute(statement)
                await connection.execute(statements.NOTE_STEP, step.number, step.name)
                needs = _NEEDS.search(step.text)
                if needs is not None:
                    await connection.execute(statements.NOTE_NEEDS, step.number, int(needs[1]))


def statements_of(text: str) -> list[str]:
    """Cut a step into its statements, which end with a line: some engines take one at a time."""
    found: list[str] = []
    lines: list[str] = []
    is_body = False  # of a function, between dollars
    for line in text.splitlines():
        lines.append(line)
        code = line.partition("--")[0].rstrip()
        is_body ^= code.count("$$") % 2 == 1
        if code.endswith(";") and not is_body:
            found.append("\n".join(lines))
            lines.clear()
    return found


async def require_migrated(connection: Connection, name: str) -> None:
    """Refuse a schema that would have to be made or brought to this version's state first.

    Raises:
        SchemaError: it would.
    """
    number = await _applied(connection, name)
    if number < migrations()[-1].number:
        what = "is of an older version of kvstore" if number else "holds no store yet"
        raise SchemaError(f"{name} {what}: open it once without read_only")


async def _applied(connection: Connection, name: str) -> int:
    """Return the number of the last step that was applied; 0: none.

    Raises:
        SchemaError: this version must not work beside it.
    """
    async with connection.transaction():  # one server for both, behind a pooler
        if not await connection.fetchval(statements.HAS_SCHEMA_RECORD, connection.schema):
            return 0
        number, needs = await connection.fetchrow(statements.GET_APPLIED)
    newest = migrations()[-1].number
    if (needs or 0) > newest:
        raise SchemaError(
            f"{name} was written by a newer version of kvstore (its schema is {number} and "
            f"needs programs that know {needs}; this version knows up to {newest}): upgrade kvstore"
        )
    return number or 0
