"""Reads of logs and queues. Each takes a connection of the pool, and runs on it alone."""

from __future__ import annotations

from kvstore.jobs import DEAD, RAN_OUT, JobState, QueueSize, SequenceRecord
from kvstore.namespace import decode_namespace, subtree_range
from kvstore.postgres import sequence_statements as sql
from kvstore.postgres.connection import Connection, snapshot
from kvstore.postgres.keys import root_of
from kvstore.postgres.reading import item_of
from kvstore.postgres.sequences import job_of
from kvstore.sequences import EntryPage, SequenceState, key_of, position_of
from kvstore.types import Item

__all__ = ["dead_jobs", "entries", "is_ripe", "length", "queue_size", "records"]

_PAGE_BYTES = 4 * 2**20  # of values, roughly
_FIRST = 50  # entries that are read at once, before it is known how long they are


async def entries(
    connection: Connection, now: int, path: str, after: int | None, limit: int
) -> EntryPage:
    """Return live entries of a log, oldest first: those after a position, or the last ones."""
    labels, place = decode_namespace(path), (root_of(path), path)
    if after is None:
        rows = await connection.fetch(sql.LAST_ENTRIES, *place, now, limit)
    else:
        key = key_of(after) if after else ""
        rows = await connection.fetch(sql.ENTRIES_AFTER, *place, now, min(limit, _FIRST), key)
        if len(rows) == _FIRST < limit:
            size = sum(len(row["value"]) for row in rows) // _FIRST
            more = min(limit, max(_FIRST, _PAGE_BYTES // max(1, size)))
            if more > _FIRST:
                rows = await connection.fetch(sql.ENTRIES_AFTER, *place, now, more, key)
    kind, last, trimmed, size = tuple(rows[0])[:4] if rows else (None, 0, 0, 0)
    if kind is None:  # no log yet
        size, last, _ = await connection.fetchrow(sql.COUNT_ENTRIES, *place, now)
        last, trimmed = 0 if last is None else position_of(last) or 0, 0
    state = SequenceState(path, kind, last, trimmed, size)
    return EntryPage(state, [item_of(labels, row[4], tuple(row)[5:]) for row in rows if row[4]])


async def length(connection: Connection, now: int, path: str) -> int:
    """Count the live entries of a log."""
    place = root_of(path), path, now
    number = await connection.fetchval(sql.LENGTH, *place)
    if number is None:  # no log yet
        there = (await connection.fetchrow(sql.COUNT_ENTRIES, *place))[0]
        number = there - await connection.fetchval(sql.COUNT_EXPIRED_ENTRIES, *place)
    return int(number)


async def queue_size(connection: Connection, now: int, path: str) -> QueueSize:
    """Count the jobs of a queue; costs by what time alone has changed, and nobody written yet."""
    row = await connection.fetchrow(sql.SIZE_OF_QUEUE, root_of(path), path, now)
    if row is None:
        return QueueSize(0, 0, 0, 0)
    size, delayed, leased, dead, woken, over, died = row
    delayed, leased, dead = delayed - woken, leased - over - died, dead + died
    return QueueSize(size - delayed - leased - dead, delayed, leased, dead)


async def dead_jobs(
    connection: Connection, now: int, path: str, limit: int
) -> list[tuple[Item, JobState]]:
    """Return the first dead jobs of a queue, in order."""
    labels = decode_namespace(path)
    found = []
    for row in await connection.fetch(sql.DEAD_JOBS, root_of(path), path, now, limit):
        job = job_of(tuple(row)[:10])
        if job.state != DEAD:
            job = job._replace(error=RAN_OUT)
        found.append((item_of(labels, key_of(job.position), tuple(row)[10:]), job))
    return found


async def records(connection: Connection, path: str, with_jobs: bool) -> list[SequenceRecord]:
    """Return the logs and queues of a subtree, as exports carry them, or without jobs."""
    low, high = subtree_range(path)
    found = []
    async with snapshot(connection):
        rows = await connection.fetch(sql.GET_SEQUENCES, root_of(path), low, high)
        for there, kind, last, trimmed in rows:
            jobs: tuple[JobState, ...] = ()
            if with_jobs:
                noted = await connection.fetch(sql.JOBS_OF_NOTE, root_of(there), there)
                jobs = tuple(map(job_of, noted))
            found.append(SequenceRecord(there, kind, last, trimmed, jobs))
    return found


async def is_ripe(connection: Connection, now: int, path: str) -> bool:
    """Whether there is a job to take, or a clock that was set back to be dealt with."""
    return bool(await connection.fetchval(sql.IS_RIPE, root_of(path), path, now))
