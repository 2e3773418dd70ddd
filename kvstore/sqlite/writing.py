"""Writes as plain functions on a connection: units of operations inside one transaction.

A unit's conditions are tested before its first write, so a unit that fails has changed nothing,
and its neighbours in the same transaction go on: no savepoint is needed. Those that are `ALONE` may
fail late; they have no neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, assert_never

from kvstore.jobs import JobState
from kvstore.operations import (
    Adopt,
    ExtendJob,
    FinishJob,
    Forget,
    GiveBackJob,
    Keep,
    Lease,
    Mutate,
    Named,
    Operation,
    PopEntry,
    PutJob,
    Reindex,
    Remove,
    Restore,
    RetryJob,
    ReviveJobs,
    Rewind,
    Sweep,
    TakeJob,
    Trim,
    TrimLog,
    Wide,
    named_of,
    take_piece,
)
from kvstore.plan import (
    Address,
    Admission,
    is_rewound,
    not_before,
    rewound,
)
from kvstore.sequences import key_of, queues_among
from kvstore.sql import Sql
from kvstore.sqlite import (
    changes,
    declared,
    driver,
    past,
    reading,
    sequences,
    statements,
)
from kvstore.sqlite import past_statements as sql
from kvstore.sqlite.plain_changes import Outcome, PlainChanges
from kvstore.sqlite.plain_puts import are_bare_puts, is_bare_put
from kvstore.sqlite.rows import NotInlineError, StoredRow, columns_of

__all__ = ["ALONE", "INLINE_OPS", "Batch"]

INLINE_OPS = 16  # on the event loop's thread, of those that cost more than a plain put
_REWIND_SLICE = 500  # items in hand at once
_QUICK = (PutJob, TakeJob, FinishJob)
ALONE = (Restore, Rewind)  # of which a unit may fail late, and so has a transaction to itself


_Way = Callable[[Sequence[Sequence[Operation]]], list[Outcome]]


class Batch(PlainChanges):
    """The units of one transaction, which the caller has begun and commits; see `Rows`."""

    def apply(self, units: Sequence[Sequence[Operation]]) -> list[Outcome]:
        """Apply units, in order; return for each the answers to its operations, or its error.

        A unit that gets an error has changed nothing. Plain puts and changes that follow each
        other, of one unit or of many, share statements.

        Raises:
            driver.Error: the transaction cannot go on.
            NotInlineError: it would take too long for the event loop's own thread.
            Exception: what a `Restore` met; the transaction must be given up.
        """
        self._require_few(units)
        outcomes: list[Outcome] = []
        waiting: list[Sequence[Operation]] = []
        way: _Way | None = None  # that those who wait go together
        for ops in units:
            another = self._shared_way(ops)
            if way is not None and another != way:
                outcomes += way(waiting)
                waiting = []
            way = another
            if way is None:
                item = self._put_watched(ops) if self._is_watched else None
                outcomes.append(self._outcome(ops) if item is None else [item])
            else:
                waiting.append(ops)
        return outcomes if way is None else [*outcomes, *way(waiting)]

    def _shared_way(self, ops: Sequence[Operation]) -> _Way | None:
        """Return what applies a unit with others like it; `None`: it goes by itself."""
        if self._is_watched:
            return None
        one = ops[0] if len(ops) == 1 else None
        if one is not None and type(one) is Mutate:
            return self._change_units if self._are_outside(ops) else None
        are_bare = are_bare_puts(ops) if one is None else is_bare_put(one)
        return self._put_units if are_bare and self._are_outside(ops) else None

    def _change_units(self, units: Sequence[Sequence[Operation]]) -> list[Outcome]:
        return self._change_each([ops[0] for ops in units], self._outcome)  # type: ignore[misc]

    def _outcome(self, ops: Sequence[Operation]) -> Outcome:
        """Return the answers to a unit, or its error."""
        try:
            answers = self._quick_answers(ops[0]) if len(ops) == 1 else None
            return self._apply_unit(ops) if answers is None else answers
        except (driver.Error, NotInlineError):
            raise
        except Exception as exc:
            if any(type(op) in ALONE for op in ops):
                raise
            return exc  # it belongs to the unit's caller

    def _quick_answers(self, op: Operation) -> list[Any] | None:
        """Apply an operation that is a unit the short way, if it has one and may go it."""
        if type(op) is Mutate:
            return self._change(op) if self.index is None and self._are_outside((op,)) else None
        if self._sequences is not None and type(op) in _QUICK:
            return self._quick_job(op)  # type: ignore[arg-type]
        return None

    def finish(self) -> None:
        """Write what the transaction's end needs; call it before COMMIT."""
        self._file_jobs = None  # else the two would keep each other, and the connection
        if self._version != self._first_version:
            self._execute(statements.SET_VERSION, (self._version,))
            self._write_notes()
        if self._sequences:
            for path in self._changed:
                state = self._sequences[path]
                assert state is not None
                sequences.save_state(self._execute, state)

    def committed(self) -> None:
        """Take note that the transaction is committed."""

    @property
    def is_news(self) -> bool:
        """Whether there is something for those who watch."""
        return self._has_jobs or (self._is_watched and self._version != self._first_version)

    def _apply_unit(self, ops: Sequence[Operation]) -> list[Any]:
        """Apply operations as `kvstore.plan` decides."""
        asked = named_of(ops)
        if not asked:
            return [self._run(op) for op in ops]  # type: ignore[arg-type]
        effects, rows = self._decide(asked, self._version)
        self._carry_out(effects, rows)
        if len(asked) == len(ops):
            return effects.answers
        answers = iter(effects.answers)
        return [next(answers) if isinstance(op, Named) else self._run(op) for op in ops]

    def _run(self, op: Wide) -> Any:
        match op:
            case PopEntry():
                return self._pop_entry(op)
            case TrimLog():
                return self._trim_log(op)
            case TakeJob() | RetryJob() | ExtendJob() | GiveBackJob() | ReviveJobs():
                return self._run_job(op)
            case Remove():
                if self._longest is not None:
                    self._require_little(op, self._longest)
                doomed = statements.matching(op.path, op.subtree, op.pattern, self._now)
                return self._delete_rows("delete", doomed)
            case Sweep():
                return self._delete_rows("expire", _expired(self._now, op.limit))
            case Restore():
                return self._restore(op)
            case Lease():
                self._write_notes()
                begin = changes.take_lease(self._connection, op, self._version, self._now)
                self._is_watched = True
                return self._version, begin
            case Trim():
                self._is_state_known = False  # it may have ended the recording
                self._write_notes()
                return changes.trim(self._connection, op, self._version, self._now)
            case Keep():
                self._write_notes()
                past.keep(self._connection, op, self._version, self._now)
                self._is_watched = self._keeps = True
                self._last = past.last_instant(self._connection)
                return None
            case Forget():
                forgotten = sql.forget(op.path, op.pattern, op.subtree)
                return self._execute(forgotten.text, forgotten.params).rowcount
            case Rewind():
                return self._rewind(op)
            case Adopt():
                declared.build(self._connection, op.filters)
                return 0
            case Reindex():
                return 0, 0, []
        assert_never(op)

    def _rewind(self, op: Rewind) -> int:
        """Bring items back. What fails here has written, so the transaction must be given up."""
        self._write_notes()
        past.require(self._connection, op.moment, self._now)
        found = past.changed_since(self._connection, op.moment.version, op.path, op.subtree)
        inside = self._known_states({path for path, _ in found})
        changed = [at for at in found if at[0] not in inside or is_rewound(inside[at[0]], op)]
        number = 0
        for begin in range(0, len(changed), _REWIND_SLICE):
            some = changed[begin : begin + _REWIND_SLICE]
            known, then = past.then(self._connection, op.moment, some)
            rows = self._read_rows(dict.fromkeys(known, True))
            effects = rewound(known, then, rows, self._now, self._version, inside)
            self._carry_out(effects, rows)
            inside |= effects.sequences.changed
            number += len(effects.answers)
        self._recount(path for path in inside if path == op.path)
        if self._is_queue(op.path):
            self._jobs.release(op.path)
        return number

    def _restore(self, op: Restore) -> int:
        """Write records. What fails here has written, so the transaction must be given up.

        There is no savepoint: each statement inside one costs more the more it has changed.
        """
        self.changed = None
        if self._is_watched:  # so that no record replaces an expired item, untold
            self._delete_rows("expire", _expired(self._now, -1))
        admission = Admission(op, self._version, self._now, is_watched=self._is_watched)
        self._restore_sequences(op.sequences)
        records = iter(op.records)
        touched = {record.path for record in op.sequences}
        told = (job for each in op.sequences for job in each.jobs)
        known = {(job.path, key_of(job.position)): job for job in told}
        jobs: dict[Address, JobState] = {}  # of those that are new here
        while some := take_piece(records):
            there: Mapping[Address, StoredRow] = {}
            if not admission.replaces or self._keeps:
                there = self._read_rows({(each.path, each.key): False for each in some})
            live = {address for address, row in there.items() if row.is_live(self._now)}
            entries = self._entries_there(some)
            queues = queues_among(self._known_states({each.path for each in some}))
            effects = admission.admit(some, live, entries, queues)
            if known:
                written = {(row.path, row.key) for row, _ in effects.writes} - entries.keys()
                jobs |= {address: known[address] for address in written & known.keys()}
            touched |= {row.path for row, _ in effects.writes}
            not_before(effects, self._last)
            if self._keeps:
                self._keep_past(effects, there)
            rows = (columns_of(row) for row, _ in effects.writes)
            self._connection.executemany(statements.UPSERT, rows)
            self._take(effects)
        self._recount(touched, jobs)
        return admission.written

    def _require_few(self, units: Sequence[Sequence[Operation]]) -> None:
        """Refuse many heavy writes on the event loop's own thread."""
        if self._longest is not None and self.is_heavy and sum(map(len, units)) > INLINE_OPS:
            raise NotInlineError

    def _require_little(self, op: Remove, longest: int) -> None:
        """Refuse a removal that looks at many rows or at long ones, or that is heavy."""
        is_heavy = op.subtree or self.is_heavy
        if is_heavy or not reading.is_light(self._connection, longest, op.path, op.pattern):
            raise NotInlineError


def _expired(now: int, limit: int) -> Sql:
    return Sql(statements.EXPIRED, (now, limit))
