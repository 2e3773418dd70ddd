"""Logs and queues in a write transaction: their states, entries and jobs.

How a job fares is decided by `kvstore.jobs`. What a queue lives by, `put`, `take` and `done`, takes
as few statements as may be, which come to the same. Where that takes more than the common case (a
name, a delay, a lease that ran out, a job that is tried again, a watched file, an index), they do
nothing, and the long way is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kvstore.errors import StoreCorruptError
from kvstore.jobs import JobState, SequenceRecord, lease_lost, other_items, seen_at
from kvstore.namespace import show
from kvstore.operations import (
    Append,
    FinishJob,
    GiveBackJob,
    Named,
    OfJobs,
    PopEntry,
    PutJob,
    Record,
    RetryJob,
    ReviveJobs,
    TakeJob,
    TrimLog,
)
from kvstore.plan import Address, Effects, decide, named, run_job
from kvstore.sequences import SequenceKind, SequenceState, key_of, position_of, require_kind
from kvstore.sql import Sql
from kvstore.sqlite import (
    reading,
    sequences,
    statements,
)
from kvstore.sqlite import sequence_statements as sql
from kvstore.sqlite.read_cache import ABSENT, Entry
from kvstore.sqlite.rows import NotInlineError, Rows, StoredRow, columns_of
from kvstore.types import Item

__all__ = ["SequenceRows"]

_PLAIN_JOB = (0, None, None, None)  # a job's delay, name, indexing and vectors


class SequenceRows(Rows):
    """Rows, of which some are the entries of logs and the jobs of queues."""

    def _decide(
        self, ops: Sequence[Named], version: int
    ) -> tuple[Effects, dict[Address, StoredRow]]:
        """Return what operations come to after a version, and the rows that they name."""
        rows = self._read_rows(named(ops))
        states = self._states_of(ops)
        effects = decide(
            *(ops, rows, self._now, version),
            is_watched=self._is_watched,
            sequences=states,
            jobs=self._jobs,
        )
        return effects, rows

    def _states_of(self, ops: Sequence[Named]) -> dict[str, SequenceState]:
        """Return the states of the logs and queues that operations are about, or begin."""
        begun = {op.path for op in ops if type(op) is Append or type(op) is PutJob}
        if self._sequences is None and not begun:
            return {}
        states = self._known_states({op.path for op in ops})
        for op in ops:
            if type(op) is not PutJob:
                continue
            if op.path in states:
                if op.name is not None and states[op.path].kind == "queue":
                    self._jobs.settle(op.path)
            elif self._has_items(op.path):
                raise other_items(op.namespace)
        for path in begun - states.keys():
            if self._longest is not None and not reading.is_light(
                self._connection, self._longest, path
            ):
                raise NotInlineError
            states[path] = sequences.count_state(self._execute, path)
        return states

    def _has_items(self, path: str) -> bool:
        found = self._execute(sql.HAS_ITEMS, (path, self._now)).fetchone()
        return bool(found[0])

    def _begun(self, path: str, kind: SequenceKind) -> SequenceState | None:
        """Return the state of a log or a queue, `None` if it has not begun."""
        state = self._known_states((path,)).get(path)
        if state is not None:
            require_kind(state, kind)
        return state

    def _quick_job(self, op: PutJob | TakeJob | FinishJob) -> list[Any] | None:
        """Answer what a queue lives by, in few statements; `None`: the long way is to be gone."""
        assert self._sequences is not None
        if type(op) is not TakeJob and (self._is_watched or self.index is not None):
            return None
        if type(op) is PutJob and (op.delay, op.name, op.indexing, op.vectors) != _PLAIN_JOB:
            return None
        self._file_jobs = None  # it would not know
        state = self._sequences.pop(op.path, None)
        if state is not None and op.path in self._changed:
            sequences.save_state(self._execute, state)
            self._changed.discard(op.path)
        match op:
            case PutJob():
                return self._quick_put(op)
            case TakeJob():
                return self._quick_take(op)
            case FinishJob():
                return self._quick_finish(op)

    def _quick_put(self, op: PutJob) -> list[str] | None:
        row = self._execute(sql.GIVE_POSITION, (op.path,)).fetchone()
        if row is None:  # the queue has not begun
            return None
        self._version += 1
        self._has_jobs = True
        key, now = key_of(row[0]), self._now
        job = Record(op.path, key, op.data, self._version, now, now)
        self._execute(statements.UPSERT, columns_of(job))
        if self.changed is not None:
            self.changed[op.path, key] = Entry(op.data, self._version, now, now, None)
        return [key]

    def _quick_take(self, op: TakeJob) -> list[tuple[Item, int] | None] | None:
        """Lease a job that nobody has taken before."""
        path, lease, execute, now = op.path, op.lease, self._execute, self._now
        found = execute(sql.LOOK_FOR_JOB, (path, now, self._most)).fetchone()
        if found is None:
            return [None]
        kind, last, seen, noted, soonest, is_delay_over, is_any_again, key, *row = found
        if kind != "queue" or soonest <= now or seen > now or is_delay_over or is_any_again:
            return None
        if key is None:
            if last - noted > sequences.NOTED_BEHIND:
                execute(sql.SET_NOTED, (seen, last, soonest, path))
            return [None]
        if row[0] is None:
            raise NotInlineError
        position, end = position_of(key) or 0, now + lease
        execute(sql.LEASE_NEW, (path, position, end, lease, op.token, op.attempts <= 1))
        latest = seen_at(seen, now, lease)
        if end < soonest or position - noted > sequences.NOTED_BEHIND or latest != seen:
            execute(sql.SET_NOTED, (latest, position, min(end, soonest), path))
        return [(reading.item_of(op.namespace, path, key, row), 1)]

    def _quick_finish(self, op: FinishJob) -> list[None]:
        lease = op.path, position_of(op.key) or 0, op.token, self._now
        if not self._execute(sql.END_LEASE, lease).rowcount:
            raise lease_lost(op.namespace, op.key)
        deleted = self._execute(sql.DELETE_JOB, (op.path, op.key, self._most)).rowcount
        if not deleted and self._longest:
            raise NotInlineError
        self._execute(sql.COUNT_DONE, (op.path,))
        self._version += 1
        if self.changed is not None:
            self.changed[op.path, op.key] = ABSENT
        return [None]

    def _run_job(self, op: OfJobs) -> Any:
        state = self._known_states((op.path,)).get(op.path)
        answer = run_job(op, self._jobs, state, self._now)
        if isinstance(op, (GiveBackJob, ReviveJobs)) or (isinstance(op, RetryJob) and not op.delay):
            self._has_jobs |= state is not None
        if not isinstance(answer, JobState):
            return answer
        key = key_of(answer.position)
        row = self._execute(statements.GET, (op.path, key, self._now)).fetchone()
        if row is None:
            raise StoreCorruptError(f"the job {show(op.namespace, key)} has lost its item")
        return reading.item_of(op.namespace, op.path, key, row), answer.attempt

    def _pop_entry(self, op: PopEntry) -> Item | None:
        if self._begun(op.path, "log") is None:
            return None
        found = self._execute(sql.LAST_ENTRIES, (op.path, self._now, 1)).fetchall()
        if not found:
            return None
        key, *row = found[0]
        item = reading.item_of(op.namespace, op.path, key, row)
        self._end_rows("delete", Sql(sql.ENTRY, (op.path, key)))
        return item

    def _trim_log(self, op: TrimLog) -> int:
        state = self._begun(op.path, "log")
        if state is None:
            return 0
        self._end_rows("expire", Sql(sql.EXPIRED_ENTRIES, (op.path, self._now)))
        number = self._known_states((op.path,))[op.path].size - op.keep
        if number <= 0:
            return 0
        trimmed = self._end_rows("delete", Sql(sql.OLDEST_ENTRIES, (op.path, number)))
        self._known_states((op.path,))[op.path].trimmed = position_of(trimmed[-1][1]) or 0
        return len(trimmed)

    def _entries_there(self, records: Sequence[Record]) -> dict[Address, bytes]:
        """Return what is there where records are to become entries of logs, or jobs."""
        inside = self._known_states({record.path for record in records})
        wanted = {(each.path, each.key): True for each in records if each.path in inside}
        rows = self._read_rows(wanted)
        return {address: row.data for address, row in rows.items() if row.is_live(self._now)}

    def _restore_sequences(self, records: Iterable[SequenceRecord]) -> None:
        for record in records:
            path = record.path
            state = self._known_states((path,)).get(path)
            is_taken = state is None and self._has_items(path)
            if state is None:
                state = sequences.count_state(self._execute, path)
            record.onto(state, is_taken=is_taken)
            self._sequences = {**(self._sequences or {}), path: state}
            self._changed.add(path)

    def _recount(
        self, paths: Iterable[str], jobs: Mapping[Address, JobState] | None = None
    ) -> None:
        """Count the entries of logs anew, and add jobs, after records were written."""
        for path, state in self._known_states(paths).items():
            counted = sequences.count_state(self._execute, path)
            state.size, state.last = counted.size, max(state.last, counted.last)
            self._changed.add(path)
            self._has_jobs = True
            if state.kind == "queue":
                self._recount_jobs(path, state.noted, jobs or {})

    def _recount_jobs(self, path: str, noted: int, jobs: Mapping[Address, JobState]) -> None:
        """Add what is known of jobs that were written, and rows for those that need them."""
        last = max([key_of(noted), *(key for there, key in jobs if there == path)])
        statement = sql.ITEMS_WITHOUT_JOB
        for (key,) in self._execute(statement, (path, last)).fetchall():
            self._jobs.restore(jobs.get((path, key)) or JobState(path, position_of(key) or 0))
