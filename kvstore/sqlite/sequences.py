"""Logs and queues in the file: their state, and how they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvstore.errors import StoreCorruptError
from kvstore.jobs import LEASED, RAN_OUT, Jobs, JobState, QueueSize, SequenceRecord
from kvstore.namespace import decode_namespace, show, subtree_range
from kvstore.sequences import EntryPage, SequenceState, key_of, position_of
from kvstore.sqlite import driver
from kvstore.sqlite import sequence_statements as sql
from kvstore.sqlite.connection import snapshot
from kvstore.sqlite.reading import get_one, item_of, own_numbers
from kvstore.types import Item

__all__ = [
    "NEVER",
    "NOTED_BEHIND",
    "FileJobs",
    "count_state",
    "dead_jobs",
    "entries",
    "find_state",
    "is_ripe",
    "length",
    "queue_size",
    "records",
    "save_state",
]

NEVER = 2**62  # an instant
NOTED_BEHIND = 8  # jobs with rows that a take passes over before it notes how far they go
_PAGE_BYTES = 4 * 2**20  # of values, roughly


Execute = Callable[[str, tuple[Any, ...]], driver.Cursor]


def find_state(execute: Execute, path: str) -> SequenceState | None:
    """Return what is kept of a namespace that is a log or a queue."""
    row = execute(sql.GET_SEQUENCE, (path,)).fetchone()
    if row is None:
        return None
    kind, *numbers = row
    if kind not in ("log", "queue"):
        raise StoreCorruptError(f"{show(decode_namespace(path))} is neither a log nor a queue")
    return SequenceState(path, kind, *own_numbers(numbers))


def count_state(execute: Execute, path: str) -> SequenceState:
    """Return what a log or queue begins with, in a namespace that is none yet."""
    size, last = execute(sql.COUNT_ENTRIES, (path,)).fetchone()
    return SequenceState(path, last=0 if last is None else position_of(last) or 0, size=size)


def save_state(execute: Execute, state: SequenceState) -> None:
    """Keep it."""
    jobs = state.delayed, state.dead, state.seen, state.noted, state.soonest
    numbers = state.last, state.trimmed, state.size, *jobs
    execute(sql.SET_SEQUENCE, (state.path, state.kind, *numbers))


class FileJobs(Jobs):
    """The jobs in a file, within a write transaction.

    Args:
        execute: of a cursor inside it.
        now: its instant, in microseconds.
        states: to the state of a queue that is known.
        changed: the paths of those that are to be saved, which are added to it.
        refuse: called before what may take long, to raise; `None`: that is no matter.
    """

    def __init__(
        self,
        execute: Execute,
        now: int,
        states: Callable[[str], SequenceState],
        changed: set[str],
        *,
        refuse: Callable[[], None] | None,
    ) -> None:
        super().__init__(now)
        self._execute = execute
        self._states = states
        self._changed = changed
        self._refuse = refuse
        self._awake: set[str] = set()  # of the queues whose delays were looked at
        self._seen: dict[tuple[str, int], JobState] = {}  # of those looked up, as they now are

    def look(self, path: str) -> SequenceState:
        return self._states(path)

    def state(self, path: str) -> SequenceState:
        self._changed.add(path)
        return self._states(path)

    def get(self, path: str, position: int) -> JobState | None:
        job = self._seen.get((path, position))
        if job is None:
            job = self._one(sql.GET_JOB, path, position)
            if job is not None:
                self._seen[path, position] = job
        return job

    def named(self, path: str, name: str) -> JobState | None:
        return self._one(sql.GET_NAMED_JOB, path, name)

    def first_ready(self, path: str) -> JobState | None:
        again = self._one(sql.FIRST_READY, path)
        state = self.look(path)
        row = self._execute(sql.FIRST_NEW, (path, key_of(state.noted))).fetchone()
        new = None if row is None else position_of(row[0])
        noted = state.last if new is None else new - 1
        if noted - state.noted > NOTED_BEHIND:
            self.state(path).noted = noted
        if new is None or (again is not None and again.position < new):
            return again
        return JobState(path, new)

    def put(self, job: JobState) -> None:
        """Add a job; of one above `noted` that is just ready, its item says it all."""
        if job == JobState(job.path, job.position) and job.position > self.look(job.path).noted:
            return
        super().put(job)

    def wake(self, path: str) -> int:
        if path in self._awake:
            return 0
        self._awake.add(path)
        due = path, self._now
        if not self._execute(sql.IS_ANY_DELAY_OVER, due).fetchone()[0]:
            return 0
        if self._refuse is not None:
            found = self._execute(sql.ARE_MANY_DUE, due).fetchone()
            if found[0]:
                self._refuse()
        self._seen.clear()
        return self._execute(sql.WAKE_JOBS, due).rowcount

    def over(self, path: str) -> list[JobState]:
        if self._now < self.look(path).soonest:
            return []
        found = self._all(sql.JOBS_OVER, path, self._now)
        (following,) = self._execute(sql.NEXT_OVER, (path, self._now)).fetchone()
        self.state(path).soonest = NEVER if following is None else following
        return found

    def far(self, path: str) -> list[JobState]:
        return self._all(sql.JOBS_FAR, path, self._now)

    def leased(self, path: str) -> list[JobState]:
        return self._all(sql.LEASED_JOBS, path)

    def held(self, path: str, token: int) -> JobState | None:
        return self._one(sql.HELD_JOB, path, token)

    def write(self, job: JobState) -> None:
        address = job.path, job.position
        self._seen[address] = job
        self._execute(sql.ERASE_JOB, address)
        self._execute(sql.ADD_JOB, job)
        if job.state == LEASED and job.due < self.look(job.path).soonest:
            self.state(job.path).soonest = job.due

    def erase(self, path: str, position: int) -> None:
        self._seen.pop((path, position), None)
        self._execute(sql.ERASE_JOB, (path, position))

    def _one(self, statement: str, *params: Any) -> JobState | None:
        row = self._execute(statement, params).fetchone()
        return None if row is None else _job(row)

    def _all(self, statement: str, *params: Any) -> list[JobState]:
        return [_job(row) for row in self._execute(statement, params).fetchall()]


def _job(row: tuple[Any, ...]) -> JobState:
    path, position, state, due, span, attempt, token, is_last, name, error = row
    own_numbers(row[1:7])
    return JobState(path, position, state, due, span, attempt, token, bool(is_last), name, error)


def queue_size(connection: driver.Connection, path: str, now: int) -> QueueSize:
    """Count the jobs of a queue; costs by what time alone has changed, and nobody written yet."""
    with snapshot(connection):
        state = find_state(connection.execute, path) or SequenceState(path)
        woken, leased, over, died = connection.execute(sql.COUNT_OVER, (path, now)).fetchone()
    delayed, leased, dead = state.delayed - woken, leased - over - died, state.dead + died
    return QueueSize(state.size - delayed - leased - dead, delayed, leased, dead)


def dead_jobs(
    connection: driver.Connection, path: str, limit: int, now: int
) -> list[tuple[Item, JobState]]:
    """Return the first dead jobs of a queue, in order."""
    labels = decode_namespace(path)
    with snapshot(connection):
        rows = connection.execute(sql.DEAD_JOBS, (path, limit)).fetchall()
        over = connection.execute(sql.JOBS_OVER, (path, now)).fetchall()
        died = [job._replace(error=RAN_OUT) for job in map(_job, over) if job.is_last]
        jobs = sorted([*map(_job, rows), *died], key=lambda job: job.position)[:limit]
        found = []
        for job in jobs:
            items = get_one(connection, labels, path, key_of(job.position), now)
            found += [(item, job) for item in items]
    return found


def records(connection: driver.Connection, path: str, with_jobs: bool) -> list[SequenceRecord]:
    """Return the logs and queues of a subtree, as exports carry them, or without jobs."""
    found = []
    low, high = subtree_range(path)
    with snapshot(connection):
        statement = sql.GET_SEQUENCES
        for there, kind, *numbers in connection.execute(statement, (low, high)).fetchall():
            noted = sql.JOBS_OF_NOTE
            rows = connection.execute(noted, (there,)).fetchall() if with_jobs else ()
            last, trimmed = own_numbers(numbers)
            found.append(SequenceRecord(there, kind, last, trimmed, tuple(map(_job, rows))))
    return found


def is_ripe(connection: driver.Connection, path: str, now: int) -> bool:
    """Whether there is a job to take, or a clock that was set back to be dealt with."""
    return bool(connection.execute(sql.IS_RIPE, (path, now)).fetchone()[0])


def entries(
    connection: driver.Connection, path: str, after: int | None, limit: int, now: int
) -> EntryPage:
    """Return live entries of a log, oldest first: those after a position, or the last ones."""
    labels = decode_namespace(path)
    with snapshot(connection):
        state = find_state(connection.execute, path) or count_state(connection.execute, path)
        if after is None:
            found = connection.execute(sql.LAST_ENTRIES, (path, now, limit))
        else:
            key = key_of(after) if after else ""
            found = connection.execute(sql.ENTRIES_AFTER, (path, key, now, limit))
        items, size = [], 0
        for key, *row in found:
            items.append(item_of(labels, path, key, row))
            size += len(row[0])
            if after is not None and size > _PAGE_BYTES:
                break
        found.close()
    return EntryPage(state, items if after is not None else items[::-1])


def length(connection: driver.Connection, path: str, now: int) -> int:
    """Count the live entries of a log."""
    with snapshot(connection):
        state = find_state(connection.execute, path) or count_state(connection.execute, path)
        row = connection.execute(sql.COUNT_EXPIRED_ENTRIES, (path, now)).fetchone()
    return state.size - int(row[0])
