"""What a queue lives by, `put`, `take` and `done`, each in as few statements as may be.

They come to what `kvstore.plan` and `kvstore.jobs` decide. Where that takes more than the common
case (a name, a delay, a lease that ran out, a job that is tried again, a watched file, an index),
they do nothing, and the caller goes the long way.
"""

from __future__ import annotations

from typing import Any

from kvstore.jobs import lease_lost, seen_at
from kvstore.operations import FinishJob, PutJob, TakeJob
from kvstore.sequences import key_of, position_of
from kvstore.sqlite import sequence_statements as sql
from kvstore.sqlite import statements
from kvstore.sqlite.reading import checksum, item_of
from kvstore.sqlite.sequences import NOTED_BEHIND, Execute
from kvstore.types import Item

__all__ = ["LONG_WAY", "TOO_LONG", "finish", "is_plain", "put", "take"]

LONG_WAY: Any = object()
"""The answer where nothing was done."""

TOO_LONG: Any = object()
"""The same: the job's value is longer than may be read."""


def is_plain(op: PutJob) -> bool:
    """Whether a job is ready at once, and has nothing but its value."""
    return not op.delay and op.name is None and op.indexing is None and op.vectors is None


def put(execute: Execute, op: PutJob, version: int, now: int) -> str | None:
    """Add a job that `is_plain`; return its key. `None`: the queue has not begun."""
    row = execute(sql.GIVE_POSITION, (op.path,)).fetchone()
    if row is None:
        return None
    key = key_of(row[0])
    code = checksum(op.path, key, version, op.data)
    content = version, now, now, code, op.data.decode(), None, None, None
    execute(statements.UPSERT, (op.path, key, *content))
    return key


def take(execute: Execute, op: TakeJob, now: int, most: int) -> tuple[Item, int] | None:
    """Lease a job that nobody has taken before; `None`: there is no job, `LONG_WAY`: perhaps.

    `TOO_LONG`: its value has more than `most` bytes.
    """
    path = op.path
    found = execute(sql.LOOK_FOR_JOB, (path, now, most)).fetchone()
    if found is None:
        return None
    kind, last, seen, noted, soonest, is_delay_over, is_any_again, key, *row = found
    if kind != "queue" or soonest <= now or seen > now or is_delay_over or is_any_again:
        return LONG_WAY  # type: ignore[no-any-return]
    if key is None:
        if last - noted > NOTED_BEHIND:
            execute(sql.SET_NOTED, (seen, last, soonest, path))
        return None
    if row[0] is None:
        return TOO_LONG  # type: ignore[no-any-return]
    position, lease = position_of(key) or 0, op.lease
    end = now + lease
    execute(sql.LEASE_NEW, (path, position, end, lease, op.token, op.attempts <= 1))
    latest = seen_at(seen, now, lease)
    if end < soonest or position - noted > NOTED_BEHIND or latest != seen:
        execute(sql.SET_NOTED, (latest, position, min(end, soonest), path))
    return item_of(op.namespace, path, key, row), 1


def finish(execute: Execute, op: FinishJob, now: int, most: int) -> bool:
    """Delete a job that a token holds; whether its value had no more than `most` bytes.

    Raises:
        LeaseLostError: it does not, and nothing was done.
    """
    position = position_of(op.key) or 0
    if not execute(sql.END_LEASE, (op.path, position, op.token, now)).rowcount:
        raise lease_lost(op.namespace, op.key)
    deleted = execute(sql.DELETE_JOB, (op.path, op.key, most)).rowcount
    execute(sql.COUNT_DONE, (op.path,))
    return bool(deleted)
