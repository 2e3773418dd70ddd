"""Logs and queues in one write transaction: what of them is read, changed in memory, written.

A `Batch` decides in memory. So what its units need of a queue is read before: the jobs that they
name, as many of those that are ready as they may take, and those of which time alone has made
something else. The rules are those of `kvstore.jobs`, over these jobs in memory; what they change
is written in the end. Only the delayed jobs whose time has come, which may be many, are made ready
by a statement.

It sees what the writer before has written: the root is locked, or what comes of it is written only
if nobody has written there since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvstore.jobs import DEAD, DELAYED, READY, Jobs, JobState, SequenceRecord, other_items
from kvstore.memory_jobs import MemoryJobs
from kvstore.namespace import decode_namespace
from kvstore.operations import (
    Append,
    Delete,
    ExtendJob,
    FinishJob,
    GiveBackJob,
    Named,
    OfJobs,
    Operation,
    PutJob,
    RetryJob,
    ReviveJobs,
    TakeJob,
)
from kvstore.plan import Effects, carry_jobs, run_job
from kvstore.postgres import sequence_statements as sql
from kvstore.postgres.connection import Connection
from kvstore.postgres.keys import decode_key, encode_key
from kvstore.postgres.reading import item_of
from kvstore.sequences import SequenceKind, SequenceState, key_of, position_of, require_kind
from kvstore.types import Item

__all__ = ["Ledger", "job_of"]

NO_BOUND = 2**62
_NAME_HEAD = 16  # characters of a name that its index has
JOB_COLUMNS = 10


class Ledger:
    """The logs and queues under a root, as a transaction knows them.

    Args:
        root: which.
        now: the transaction's instant, in microseconds.
        has_any: whether there is a log or a queue under it.
        is_locked: whether the root is; else nothing is written before the one call of
            `kvstore_write`, which takes effect if nobody has written meanwhile.

    Attributes:
        has_any: whether there is a log or a queue under the root.
        is_news: whether somebody may wait for what was changed.
        begins: whether a unit may begin a log or a queue. It must be alone then: what those before
            it write in that namespace makes a difference.
        needs_lock: whether jobs are to be made ready first, and the root is not locked.
    """

    def __init__(self, root: str, now: int, *, has_any: bool, is_locked: bool) -> None:
        self._root = root
        self._now = now
        self.has_any = has_any
        self._is_locked = is_locked
        self.is_news = self.begins = self.needs_lock = False
        self._states: dict[str, SequenceState] = {}  # of those that were looked up and are there
        self._absent: set[str] = set()  # looked up, and no log or queue
        self._new: dict[str, _Beginning] = {}  # of those that units may begin
        self._changed: set[str] = set()
        self._heads: dict[str, int] = {}  # as kvstore_sequences has it
        self._bounds: dict[str, int] = {}  # below, all ready jobs are in memory
        self._items: dict[tuple[str, int], Sequence[Any]] = {}  # of jobs that may be taken
        self._jobs = LoadedJobs(now, self._states, self._changed)

    @property
    def is_changed(self) -> bool:
        """Whether there is something to write."""
        return bool(self._changed)

    @property
    def jobs(self) -> Jobs:
        """The jobs that were read, as they now are."""
        return self._jobs

    # Before the units

    async def load(self, connection: Connection, units: Iterable[Sequence[Operation]]) -> None:
        """Read what units of this root need."""
        ops: list[Any] = [op for unit in units for op in unit]
        begun = dict.fromkeys(op.path for op in ops if isinstance(op, (Append, PutJob)))
        self._new = {}
        self.begins = False
        if not self.has_any and not begun:
            return
        found = await self.find(connection, (op.path for op in ops))
        for path in begun:
            if path not in found:
                self._new[path] = await self._count(connection, path)
        self.begins = bool(self._new)
        self._forget_jobs()
        for path, state in found.items():
            if state.kind == "queue":
                wanted = _Wanted.by(op for op in ops if op.path == path)
                if wanted is not None:
                    await self._load_jobs(connection, path, wanted)

    async def find(self, connection: Connection, paths: Iterable[str]) -> dict[str, SequenceState]:
        """Return the states of those namespaces that are logs or queues."""
        wanted = dict.fromkeys(paths)
        states, absent = self._states, self._absent
        unknown = [path for path in wanted if path not in states and path not in absent]
        if self.has_any and unknown:
            for path, *row, head in await connection.fetch(sql.GET_STATES, self._root, unknown):
                self._states[path] = SequenceState(path, *row)
                self._heads[path] = head
            self._absent.update(path for path in unknown if path not in self._states)
        return self.known(wanted)

    def known(self, paths: Iterable[str]) -> dict[str, SequenceState]:
        """As `find`, of those that were looked up."""
        return {path: self._states[path] for path in paths if path in self._states}

    async def begun(
        self, connection: Connection, path: str, kind: SequenceKind
    ) -> SequenceState | None:
        """Return the state of a log or a queue, `None` if it has not begun."""
        state = (await self.find(connection, (path,))).get(path)
        if state is not None:
            require_kind(state, kind)
        return state

    async def _count(self, connection: Connection, path: str) -> _Beginning:
        row = await connection.fetchrow(sql.COUNT_ENTRIES, self._root, path, self._now)
        size, last, is_taken = row
        last = 0 if last is None else position_of(last) or 0
        return _Beginning(SequenceState(path, last=last, size=size), is_taken)

    def _forget_jobs(self) -> None:
        """Begin anew, once all is written: others have changed the tables since."""
        self._jobs = LoadedJobs(self._now, self._states, self._changed)
        self._bounds.clear()
        self._items.clear()

    async def _load_jobs(self, connection: Connection, path: str, wanted: _Wanted) -> None:
        """Read jobs, once those are ready whose time has come."""
        jobs = await self._fetch_jobs(connection, path, wanted)
        if any(job.state == DELAYED and job.due <= self._now for job in jobs):
            if not self._is_locked:
                self.needs_lock = True
                return
            woken = await connection.fetchrow(sql.WAKE_JOBS, self._root, path, self._now)
            self._jobs.state(path).delayed -= woken[0]
            self._heads[path] = min(self._heads.get(path, 0), woken[1])
            jobs = await self._fetch_jobs(connection, path, wanted)
        self._jobs.load(jobs)
        if wanted.ready:
            ready = sorted({job.position for job in jobs if job.state == READY})
            is_all = len(ready) < wanted.ready
            self._bounds[path] = NO_BOUND if is_all else ready[wanted.ready - 1] + 1
        if wanted.revives:
            names = [job.name for job in jobs if job.state == DEAD and job.name is not None]
            if names:
                self._jobs.load(await self._fetch_jobs(connection, path, _Wanted(names=names)))

    async def _fetch_jobs(
        self, connection: Connection, path: str, wanted: _Wanted
    ) -> list[JobState]:
        names = [*map(encode_key, wanted.names)]
        rows = await connection.fetch(
            sql.GET_JOBS, self._root, path, self._now, wanted.positions,
            [name[:_NAME_HEAD] for name in names], names, wanted.tokens, wanted.ready,
            self._heads.get(path, 0), wanted.is_settled, self._states[path].seen,
        )  # fmt: skip
        for row in rows:
            if row["version"] is not None:
                self._items[path, row["position"]] = tuple(row)[JOB_COLUMNS:]
        return [job_of(tuple(row)[:JOB_COLUMNS]) for row in rows]

    # A unit, in memory

    def of(self, ops: Sequence[Named]) -> Mapping[str, SequenceState]:
        """Return the states of the logs and queues that operations are about, or begin.

        Raises:
            InvalidNamespaceError: a queue is to begin where other items are.
        """
        found: dict[str, SequenceState] = {}
        for op in ops:
            state = self._states.get(op.path)
            if state is not None:
                found[op.path] = state
                if isinstance(op, PutJob) and op.name is not None and state.kind == "queue":
                    self._jobs.settle(op.path)
            elif isinstance(op, (Append, PutJob)):
                beginning = self._new[op.path]
                if isinstance(op, PutJob) and beginning.is_taken:
                    raise other_items(op.namespace)
                found[op.path] = beginning.state
        return found

    def take(self, effects: Effects) -> None:
        """Take over what was decided."""
        if not effects.sequences.changed:
            return
        self._states.update(effects.sequences.changed)
        self._changed |= effects.sequences.changed.keys()
        carry_jobs(effects, self._jobs, self._is_queue)
        self.is_news = self.is_news or bool(effects.writes)

    def run(self, op: OfJobs) -> Any:
        """Do what an operation on jobs asks; return its answer, or of a take the job."""
        answer = run_job(op, self._jobs, self._states.get(op.path), self._now)
        self.is_news = self.is_news or not isinstance(op, (TakeJob, ExtendJob))
        return answer

    def item_of(self, job: JobState) -> Item | None:
        """Return the item of a job, if it was read with that."""
        row = self._items.get((job.path, job.position))
        if row is None:
            return None
        return item_of(decode_namespace(job.path), key_of(job.position), row)

    def _is_queue(self, path: str) -> bool:
        state = self._states.get(path)
        return state is not None and state.kind == "queue"

    # What comes from elsewhere

    async def before_drops(
        self, connection: Connection, addresses: Iterable[tuple[str, str]]
    ) -> None:
        """Read what there is of items that are to go."""
        if not self.has_any:
            return
        positions: dict[str, list[int]] = {}
        for path, key in addresses:
            positions.setdefault(path, []).append(position_of(key) or 0)
        found = await self.find(connection, positions)
        self._forget_jobs()
        for path, state in found.items():
            if state.kind == "queue":
                await self._load_jobs(connection, path, _Wanted(positions=positions[path]))

    def trimmed(self, path: str, key: str) -> None:
        """Take note of the last entry that a trim takes away."""
        self._states[path].trimmed = position_of(key) or 0
        self._changed.add(path)

    async def restore(self, connection: Connection, record: SequenceRecord) -> None:
        """Begin a log or a queue of an import, or have the one that is there go on above it."""
        path = record.path
        state = (await self.find(connection, (path,))).get(path)
        is_taken = False
        if state is None:
            beginning = await self._count(connection, path)
            state, is_taken = beginning.state, beginning.is_taken
        record.onto(state, is_taken=is_taken)
        self._states[path] = state
        self._absent.discard(path)
        self._changed.add(path)

    async def recount(
        self,
        connection: Connection,
        paths: Iterable[str],
        jobs: Mapping[tuple[str, int], JobState],
    ) -> None:
        """Count entries anew, and add jobs, after rows were written."""
        self._forget_jobs()
        for path, state in (await self.find(connection, paths)).items():
            counted = (await self._count(connection, path)).state
            state.size, state.last = counted.size, max(state.last, counted.last)
            self._changed.add(path)
            if state.kind != "queue":
                continue
            rows = await connection.fetch(sql.ITEMS_WITHOUT_JOB, self._root, path)
            new = [position_of(key) or 0 for (key,) in rows]
            restored = [jobs.get((path, at)) or JobState(path, at) for at in new]
            names = [job.name for job in restored if job.name is not None]
            await self._load_jobs(connection, path, _Wanted(names=names))
            for job in restored:
                self._jobs.restore(job)

    async def release(self, connection: Connection, path: str) -> None:
        """End all leases of a queue."""
        if self._is_queue(path):
            rows = await connection.fetch(sql.LEASED_JOBS, self._root, path)
            self._jobs.load(job_of(tuple(row)) for row in rows)
            self._jobs.release(path)

    # After the units

    def take_changes(self) -> Sequence[Any]:
        """Return what has changed, by columns, as `kvstore_apply` has it; forget it."""
        states: list[tuple[Any, ...]] = []
        written: list[tuple[Any, ...]] = []
        erased: list[tuple[Any, ...]] = []
        for path in sorted(self._changed):
            state = self._states[path]
            jobs, gone = self._jobs.take_changes(path)
            head = self._heads[path] = self._head_of(state, jobs)
            counts = state.delayed, state.leased, state.dead, state.seen
            states.append((path, state.kind, state.last, state.trimmed, state.size, *counts, head))
            written += map(_columns_of, jobs)
            erased += [(path, position) for position in gone]
        self._changed.clear()
        self.has_any = True
        return [
            *_by_columns(states, 10),
            *_by_columns(written, JOB_COLUMNS),
            *_by_columns(erased, 2),
        ]

    def _head_of(self, state: SequenceState, written: Iterable[JobState]) -> int:
        """Return a position below which no job is ready."""
        if state.path in self._bounds:
            first = self._jobs.first_ready(state.path)
            known = self._bounds[state.path] if first is None else first.position
            return min(known, self._bounds[state.path], state.last + 1)
        ready = (job.position for job in written if job.state == READY)
        return min([self._heads.get(state.path, 0), *ready])


class LoadedJobs(MemoryJobs):
    """The jobs that a transaction has read, and which of them it has changed."""

    def __init__(self, now: int, states: dict[str, SequenceState], changed: set[str]) -> None:
        super().__init__(now, states, {})
        self._changed = changed
        self._written: dict[str, dict[int, JobState | None]] = {}  # `None`: erased

    def load(self, jobs: Iterable[JobState]) -> None:
        """Take over jobs as they are in the table."""
        for job in jobs:
            if self.get(job.path, job.position) is None:
                super().write(job)

    def state(self, path: str) -> SequenceState:
        self._changed.add(path)
        return super().state(path)

    def write(self, job: JobState) -> None:
        super().write(job)
        self._changed.add(job.path)
        self._written.setdefault(job.path, {})[job.position] = job

    def erase(self, path: str, position: int) -> None:
        super().erase(path, position)
        self._changed.add(path)
        self._written.setdefault(path, {})[position] = None

    def take_changes(self, path: str) -> tuple[list[JobState], list[int]]:
        """Return the jobs to be written, and the positions of those to be erased."""
        changes = self._written.pop(path, {})
        written = [job for job in changes.values() if job is not None]
        return written, [position for position, job in changes.items() if job is None]


@dataclass(frozen=True, slots=True)
class _Beginning:
    """What a log or a queue would begin with, and whether live items are there."""

    state: SequenceState
    is_taken: bool


@dataclass(slots=True)
class _Wanted:
    """Which jobs of a queue are to be read.

    Attributes:
        positions: those at these, and
        names: those of these names that are not dead, and
        tokens: those that these hold, and
        ready: so many of those that are ready.
        is_settled: whether what time alone has changed is to be written.
        revives: whether dead ones may become ready.
    """

    positions: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    ready: int = 0
    is_settled: bool = False
    revives: bool = False

    @classmethod
    def by(cls, ops: Iterable[Operation]) -> _Wanted | None:
        """Return what operations on a queue want; `None`: nothing."""
        wanted = cls()
        keys: list[str] = []
        for op in ops:
            match op:
                case Delete():  # which may be of one that is ready, and that no other take gets
                    keys.append(op.key)
                    wanted.ready += 1
                case FinishJob() | RetryJob() | ExtendJob():
                    keys.append(op.key)
                case GiveBackJob():
                    wanted.tokens.append(op.token)
                case TakeJob():
                    wanted.ready += 1
                    wanted.is_settled = True
                case ReviveJobs():
                    keys += op.keys
                    wanted.is_settled = wanted.revives = True
                case PutJob(name=name) if name is not None:
                    wanted.names.append(name)
                    wanted.is_settled = True
        wanted.positions = [at for key in keys if (at := position_of(key)) is not None]
        return wanted if wanted != cls() else None


def job_of(row: Sequence[Any]) -> JobState:
    """Return a job of a row of kvstore_jobs, without its root."""
    *rest, name, error = row
    texts = (None if text is None else decode_key(text) for text in (name, error))
    return JobState(*rest, *texts)


def _columns_of(job: JobState) -> tuple[Any, ...]:
    return *job[:8], *(None if text is None else encode_key(text) for text in job[8:])


def _by_columns(rows: Sequence[Sequence[Any]], number: int) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True)) if rows else [()] * number
