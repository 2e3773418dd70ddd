"""What a queue lives by, `put`, `take` and `done`, each as one call of the server.

They come to what `kvstore.plan` and `kvstore.jobs` decide. Where that takes more than the common
case (a name, a delay, a lease that ran out, somebody who watches, a kept past, an index), the call
raises `statements.NOT_PLAIN`, nothing has happened, and the caller goes the long way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvstore.operations import FinishJob, Operation, PutJob, TakeJob
from kvstore.postgres import sequence_statements as sql
from kvstore.postgres.connection import Connection
from kvstore.postgres.reading import item_of
from kvstore.postgres.workspace import Fetch, Stamp
from kvstore.sequences import key_of, position_of

__all__ = ["QuickJob", "find_answer", "quick_job", "run"]

QuickJob = PutJob | TakeJob | FinishJob


def quick_job(ops: Sequence[Operation]) -> QuickJob | None:
    """Return the operation of a unit that one call may do, if it is one."""
    op = ops[0]
    if len(ops) > 1:
        return None
    if type(op) is PutJob:
        is_plain = not op.delay and op.name is None and op.indexing is None and op.vectors is None
        return op if is_plain else None
    return op if isinstance(op, (TakeJob, FinishJob)) else None


async def run(
    fetch: Fetch, root: str, op: QuickJob, now: int, at_least: int, stamp: Stamp
) -> tuple[Any, int]:
    """Do it, in a transaction of its own; return its answer, and the version that it gave or 0.

    Raises:
        DriverError: its state is `statements.NOT_PLAIN`: nothing is done, as it takes more.
    """
    match op:
        case PutJob():
            rows = await fetch(sql.PUT_JOB, root, op.path, op.data.decode(), now, at_least, *stamp)
            return key_of(rows[0][0]), rows[0][1]
        case TakeJob():
            return await _take(fetch, root, op, now, stamp), 0
        case FinishJob():
            job = op.path, position_of(op.key) or 0, op.token
            rows = await fetch(sql.FINISH_JOB, root, *job, now, at_least, *stamp)
            return None, rows[0][0]


async def _take(fetch: Fetch, root: str, op: TakeJob, now: int, stamp: Stamp) -> Any:
    job = op.path, op.token, op.lease, op.attempts
    rows = await fetch(sql.TAKE_JOB, root, *job, now, *stamp)
    if not rows:
        return None
    place, attempt, *item = rows[0]
    return item_of(op.namespace, key_of(place), item), attempt


async def find_answer(connection: Connection, root: str, op: QuickJob, base: int) -> list[Any]:
    """Return what a call has come to whose answer was lost, in a list; an empty one: who knows.

    Args:
        connection: to read over.
        root: of the call.
        op: what it did.
        base: the version of the root before it.
    """
    match op:
        case PutJob():
            key = await connection.fetchval(sql.FIND_PUT_JOB, root, op.path, base + 1)
            return [] if key is None else [key]
        case TakeJob():
            row = await connection.fetchrow(sql.FIND_TAKEN_JOB, root, op.path, op.token)
            if row is None:
                return []
            place, attempt, *item = row
            return [(item_of(op.namespace, key_of(place), item), attempt)]
        case FinishJob():
            return [None]
