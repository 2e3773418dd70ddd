"""Logs and queues of an `InMemoryBackend`: their states, their positions, and their jobs."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from kvstore.backend import Span
from kvstore.jobs import (
    DEAD,
    DELAYED,
    LEASED,
    RAN_OUT,
    Jobs,
    JobState,
    QueueSize,
    SequenceRecord,
    no_job,
    other_items,
)
from kvstore.memory_jobs import MemoryJobs, MemoryQueue
from kvstore.memory_rows import MemoryRows, in_span
from kvstore.namespace import decode_namespace, is_within, show
from kvstore.operations import (
    Append,
    ExtendJob,
    GiveBackJob,
    Named,
    PutJob,
    Record,
    RetryJob,
    ReviveJobs,
    TakeJob,
)
from kvstore.past_view import item_of
from kvstore.patterns import EVERY_KEY
from kvstore.plan import Effects, run_job
from kvstore.sequences import EntryPage, SequenceState, key_of, position_of
from kvstore.types import Item

__all__ = ["MemorySequences"]

_FEW = 100  # that are taken out of a list one by one


class MemorySequences(MemoryRows):
    """Rows of which some are entries of logs, or jobs."""

    def __init__(self) -> None:
        super().__init__()
        self._sequences: dict[str, SequenceState] = {}
        self._positions: dict[str, list[int]] = {}  # of the rows of each of them, sorted
        self._queues: dict[str, MemoryQueue] = {}

    def _states(self, ops: Iterable[Named], jobs: Jobs, now: int) -> dict[str, SequenceState]:
        """Return the state of each log and queue, and of those that operations begin."""
        new = {op.path for op in ops if type(op) is Append} - self._sequences.keys()
        for op in ops:
            if type(op) is PutJob:
                if op.path not in self._sequences:
                    if self._has_items(op.path):
                        raise other_items(op.namespace)
                    new.add(op.path)
                elif op.name is not None and self._sequences[op.path].kind == "queue":
                    jobs.settle(op.path)
        if not new:
            return self._sequences
        states = dict(self._sequences)
        for path in new:
            positions = self._positions_in(path)
            states[path] = SequenceState(path, last=max(positions, default=0), size=len(positions))
        return states

    def _has_items(self, path: str) -> bool:
        return any(True for _ in self._range(path, subtree=False))

    def _positions_in(self, path: str) -> list[int]:
        """Return the positions that keys of a namespace are, whether live or not, in order."""
        there = in_span(self._sorted(), Span(path, EVERY_KEY, subtree=False))
        found = (position_of(key) for _, key in there)
        return [position for position in found if position is not None]

    def _keep_positions(
        self, effects: Effects, jobs: Jobs, restored: Mapping[tuple[str, int], JobState]
    ) -> None:
        """Keep the logs and queues, and the lists of their positions, after rows have changed.

        Of the jobs of an import, `restored` tells more than their items do.
        """
        changed = effects.sequences.changed
        begun = changed.keys() - self._sequences.keys()
        self._sequences |= changed
        for path in begun:
            self._positions[path] = self._positions_in(path)
        gone: dict[str, list[int]] = {}
        for path, key in effects.drops:
            position = position_of(key)
            if path in self._sequences and position is not None:
                gone.setdefault(path, []).append(position)
                if self._sequences[path].kind == "queue":
                    jobs.drop(path, position)
        for path, some in gone.items():
            _take_out(self._positions[path], some)
        for job in effects.jobs:
            jobs.put(job)
        for row, _ in effects.writes:
            state, position = self._sequences.get(row.path), position_of(row.key)
            if state is None or position is None:
                continue
            positions = self._positions[row.path]
            at = bisect_left(positions, position)
            if positions[at : at + 1] != [position]:
                positions.insert(at, position)
                state.last, state.size = max(state.last, position), len(positions)
            if state.kind == "queue" and jobs.get(row.path, position) is None:  # it was imported
                known = restored.get((row.path, position))
                jobs.restore(known or JobState(row.path, position))

    def _sequence_problems(self) -> Iterator[str]:
        """Yield what is wrong with logs and queues, by the items that there are."""
        for path, state in self._sequences.items():
            where = f"{state.kind}: {show(decode_namespace(path))}"
            positions = self._positions_in(path)
            if len(positions) != state.size or positions != self._positions.get(path, []):
                yield f"{where}: {len(positions):,} are there, and its size is {state.size:,}"
            if max([*positions[-1:], state.trimmed]) > state.last:
                yield f"{where}: it is ahead of the last position that was given, {state.last}"
            if state.kind == "queue":
                jobs = self._queues.get(path, MemoryQueue()).jobs
                if jobs.keys() != set(positions):
                    yield f"{where}: {len(jobs):,} jobs are known, and {len(positions):,} are there"
                for (_, key), row in self._range(path, subtree=False):
                    if position_of(key) is None and row.expires_at is None:
                        yield no_job(path, key)
                numbers = Counter(job.state for job in jobs.values())
                counted = {DELAYED: state.delayed, LEASED: state.leased, DEAD: state.dead}
                for kind, kept in counted.items():
                    if numbers[kind] != kept:
                        yield f"{where}: {numbers[kind]:,} jobs of state {kind}, {kept:,} counted"

    def _run_job(
        self,
        op: TakeJob | RetryJob | ExtendJob | GiveBackJob | ReviveJobs,
        jobs: Jobs,
        now: int,
    ) -> Any:
        answer = run_job(op, jobs, self._sequences.get(op.path), now)
        if not isinstance(answer, JobState):
            return answer
        row = self._rows[op.path, key_of(answer.position)]
        return item_of(op.namespace, row), answer.attempt

    async def queue_size(self, path: str) -> QueueSize:
        if path not in self._queues:
            return QueueSize(0, 0, 0, 0)
        state, now = self._state(path), self.now()
        jobs = MemoryJobs(now, self._sequences, self._queues)
        woken, over = jobs.count_due(path), jobs.over(path)
        died = sum(job.is_last for job in over)
        delayed, leased = state.delayed - woken, state.leased - len(over)
        dead = state.dead + died
        return QueueSize(state.size - delayed - leased - dead, delayed, leased, dead)

    async def dead_jobs(self, path: str, limit: int) -> list[tuple[Item, JobState]]:
        jobs = MemoryJobs(self.now(), self._sequences, self._queues)
        dead = [*jobs.dead(path), *(job for job in jobs.over(path) if job.is_last)]
        labels = decode_namespace(path)
        found = []
        for job in sorted(dead, key=lambda job: job.position)[:limit]:
            row = self._rows[path, key_of(job.position)]
            told = job if job.state == DEAD else job._replace(error=RAN_OUT)
            found.append((item_of(labels, row), told))
        return found

    async def sequences(self, path: str, *, with_jobs: bool = True) -> list[SequenceRecord]:
        found = []
        for there, state in sorted(self._sequences.items()):
            if is_within(there, path, subtree=True) and state.kind is not None:
                jobs = self._queues.get(there, MemoryQueue()).jobs.values() if with_jobs else ()
                noted = [job for job in jobs if not job.is_just_ready]
                noted.sort(key=lambda job: job.position)
                last, trimmed = state.last, state.trimmed
                found.append(SequenceRecord(there, state.kind, last, trimmed, tuple(noted)))
        return found

    async def is_ripe(self, path: str) -> bool:
        jobs = MemoryJobs(self.now(), self._sequences, self._queues)
        if path not in self._queues:
            return False
        is_back = self.now() < self._state(path).seen
        return (
            is_back
            or jobs.first_ready(path) is not None
            or bool(jobs.count_due(path))
            or bool(jobs.over(path))
        )

    def _entry_rows(self, path: str, positions: Iterable[int], now: int) -> Iterator[Record]:
        """Yield those of some entries that are live."""
        rows = (self._live(path, key_of(position), now) for position in positions)
        return (row for row in rows if row is not None)

    def _state(self, path: str) -> SequenceState:
        state = self._sequences.get(path)
        if state is None:
            positions = self._positions_in(path)
            return SequenceState(path, last=max(positions, default=0), size=len(positions))
        return state

    async def entries(self, path: str, after: int | None, limit: int) -> EntryPage:
        state, now = self._state(path), self.now()
        positions = self._positions.get(path) or self._positions_in(path)
        if after is None:
            rows = list(islice(self._entry_rows(path, reversed(positions), now), limit))[::-1]
        else:
            begin = bisect_right(positions, after)
            later = map(positions.__getitem__, range(begin, len(positions)))
            rows = list(islice(self._entry_rows(path, later, now), limit))
        labels = decode_namespace(path)
        return EntryPage(state.copied(), [item_of(labels, row) for row in rows])

    async def length(self, path: str) -> int:
        positions, now = self._positions.get(path) or self._positions_in(path), self.now()
        if self._soonest is None or self._soonest > now:
            return len(positions)
        return sum(1 for _ in self._entry_rows(path, positions, now))


def _take_out(positions: list[int], some: list[int]) -> None:
    """Take some positions out of a sorted list that has them."""
    if len(some) <= _FEW:
        for position in some:
            del positions[bisect_left(positions, position)]
    else:
        gone = set(some)
        positions[:] = [each for each in positions if each not in gone]
