"""The rows of an `InMemoryBackend`, how they are read, and the logs and queues among them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from heapq import nlargest
from itertools import islice
from operator import attrgetter, itemgetter
from typing import Any

from kvstore import codec
from kvstore.backend import Backend, NamespaceQuery, Page, Selection, Settings, Span
from kvstore.context import with_tail
from kvstore.description import IndexSetup, check_index
from kvstore.embedding import Embedder
from kvstore.filters import ALL, Filter, matches
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
from kvstore.memory_filters import DeclaredRows
from kvstore.memory_index import MemoryIndex
from kvstore.memory_jobs import MemoryJobs, MemoryQueue
from kvstore.namespace import decode_namespace, is_within, show, subtree_range
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
from kvstore.patterns import EVERY_KEY, Pattern
from kvstore.plan import Address, Effects, run_job
from kvstore.ranking import Hit, Search, page_of
from kvstore.sequences import EntryPage, SequenceState, key_of, position_of
from kvstore.text import contains
from kvstore.types import IndexConfig, Item, Namespace

__all__ = ["MemoryRows", "in_span"]

_FEW = 100  # positions that are taken out of a list one by one


class MemoryRows(Backend):
    """Rows in a dict, which can be gone through in order; encoded values, as a file would have."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: dict[Address, Record] = {}
        self._order: list[Address] = []  # all addresses, sorted, while `_is_sorted`
        self._is_sorted = True
        self._soonest: int | None = None  # nothing expires before this
        self._index: MemoryIndex | None = None
        self._sequences: dict[str, SequenceState] = {}
        self._positions: dict[str, list[int]] = {}  # of the rows of each of them, sorted
        self._queues: dict[str, MemoryQueue] = {}

    def attach(
        self, settings: Settings, index: IndexConfig | None, embedder: Embedder | None
    ) -> None:
        super().attach(settings, index, embedder)
        if index is not None and self._index is None:
            setup = IndexSetup.of(index, embedder, serves_part=settings.reindex)
            self._index = MemoryIndex(setup)
            if index.filters:
                self._rows = DeclaredRows(index.filters)

    def peek(self, namespace: Namespace, path: str, key: str) -> list[Item]:
        row = self._live(path, key, self.now())
        return [] if row is None else [item_of(namespace, row)]

    async def get_many(self, namespace: Namespace, path: str, keys: Sequence[str]) -> list[Item]:
        now = self.now()
        rows = (self._live(path, key, now) for key in keys)
        return [item_of(namespace, row) for row in rows if row is not None]

    async def select(self, path: str, selection: Selection) -> list[Item]:
        found = self._passing(path, selection.subtree, selection.filter, selection.text)
        wanted = selection.offset + selection.limit
        page = nlargest(wanted, found.values(), key=attrgetter("version"))[selection.offset :]
        return [item_of(decode_namespace(row.path), row) for row in page]

    async def list_namespaces(
        self, asked: NamespaceQuery, limit: int | None, offset: int
    ) -> list[Namespace]:
        paths = dict.fromkeys(path for (path, _), _ in self._range("", subtree=True))
        return asked.cut(map(decode_namespace, paths))[offset:][:limit]

    async def keys(self, span: Span, limit: int | None) -> list[str]:
        matching = span.pattern.matches
        found = (key for (_, key), _ in self._in_span(span) if matching(key))
        return list(islice(found, limit))

    async def count(self, path: str, pattern: Pattern, subtree: bool) -> int:
        return sum(pattern.matches(key) for (_, key), _ in self._range(path, subtree))

    async def page(self, span: Span, filter: Filter, limit: int) -> Page:
        matching = (entry for entry in self._in_span(span) if span.pattern.matches(entry[0][1]))
        page = list(islice(matching, limit))
        items = [item_of(decode_namespace(path), row) for (path, _), row in page]
        passing = [item for item in items if matches(filter, item.value)]
        return Page(passing, page[-1][0] if len(page) == limit else None)

    def _passing(
        self, path: str, subtree: bool, filter: Filter, text: str | None = None
    ) -> dict[Address, Record]:
        """Return the live rows that pass a filter, and have a text in their key or value."""
        live = self._may_pass(path, subtree, filter)
        if filter == ALL and text is None:
            return dict(live)
        passing = {}
        for address, row in live:
            value = codec.decode(row.data)
            if matches(filter, value) and (text is None or contains(address[1], value, text)):
                passing[address] = row
        return passing

    def _may_pass(
        self, path: str, subtree: bool, filter: Filter
    ) -> Iterator[tuple[Address, Record]]:
        """Yield the live rows that declared filters let through, or else all."""
        known = None
        if isinstance(self._rows, DeclaredRows) and not subtree:
            known = self._rows.candidates(path, filter)
        if known is None:
            return self._range(path, subtree)
        now, rows = self.now(), self._rows
        return ((at, rows[at]) for at in known if rows[at].is_live(now))

    def _live(self, path: str, key: str, now: int) -> Record | None:
        row = self._rows.get((path, key))
        return row if row is not None and row.is_live(now) else None

    def _in_span(self, span: Span) -> Iterator[tuple[Address, Record]]:
        """Yield the live rows of a span, whatever their keys, in its order."""
        now = self.now()
        for address in in_span(self._sorted(), span):
            row = self._rows[address]
            if row.is_live(now):
                yield address, row

    def _range(self, path: str, subtree: bool) -> Iterator[tuple[Address, Record]]:
        """Yield the live rows of a namespace or a subtree, in order."""
        return self._in_span(Span(path, EVERY_KEY, subtree))

    def _sorted(self) -> list[Address]:
        """Return all addresses, in order."""
        if not self._is_sorted:
            self._order = sorted(self._rows)
            self._is_sorted = True
        return self._order

    async def records(
        self, path: str, after: Address | None, limit: int
    ) -> tuple[list[Record], Address | None]:
        page = list(islice(self._in_span(Span(path, EVERY_KEY, True, after)), limit))
        return [record for _, record in page], page[-1][0] if len(page) == limit else None

    async def sample_vectors(self, path: str, limit: int) -> list[tuple[str, str, bytes]]:
        addresses = (place for place, _ in self._range(path, True))
        return [] if self._index is None else self._index.sample(addresses, limit)

    async def search(self, path: str, asked: Search) -> list[Item]:
        assert self._index is not None
        rows = self._passing(path, asked.subtree, asked.filter)
        index, vector, words = self._index, asked.vector, asked.words
        check_index(index.description, index.setup, asked)
        said: list[Hit] = []
        if words:
            weights = index.weigh(words, path, subtree=asked.subtree)
            own = said = index.by_words(rows, weights)
            if asked.context:
                scope = [address for address, _ in self._range(path, asked.subtree)]
                near = index.in_context(scope, weights, asked.context)
                near = [hit for hit in near if hit.place in rows]
                said = with_tail(near, lambda wanted: own[:wanted], len(rows))
        page = page_of(
            asked,
            None if vector is None else lambda wanted: index.by_meaning(rows, vector, wanted),
            None if words is None else lambda wanted: said[:wanted],
        )
        return [
            replace(
                item_of(decode_namespace(hit.place[0]), rows[hit.place]),
                score=hit.score,
            )
            for hit in page
        ]

    async def items_before(self, places: Sequence[Address]) -> list[Item | None]:
        found: list[Item | None] = []
        for path, key in places:
            before = [row for (_, each), row in self._range(path, subtree=False) if each < key]
            found.append(item_of(decode_namespace(path), before[-1]) if before else None)
        return found

    def _note_expiry(self, row: Record) -> None:
        if row.expires_at is not None:
            self._soonest = min(row.expires_at, self._soonest or row.expires_at)

    # Logs and queues: some rows are their entries, or jobs

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
        return self._sequences | {path: self._state(path) for path in new}

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


def in_span(order: list[Address], span: Span) -> Iterator[Address]:
    """Yield those of sorted addresses that lie in a span, whatever their keys, in its order."""
    low, high = subtree_range(span.path)
    after, before = span.bounds
    begin = bisect_left(order, (low, "")) if after is None else bisect_right(order, after)
    if before is not None:
        end = bisect_left(order, before)
    elif not span.subtree:
        end = bisect_right(order, span.path, key=itemgetter(0))
    else:
        end = len(order) if high is None else bisect_left(order, (high, ""))
    numbers = range(begin, end)
    return (order[at] for at in (reversed(numbers) if span.reverse else numbers))


def _take_out(positions: list[int], some: list[int]) -> None:
    """Take some positions out of a sorted list that has them."""
    if len(some) <= _FEW:
        for position in some:
            del positions[bisect_left(positions, position)]
    else:
        gone = set(some)
        positions[:] = [each for each in positions if each not in gone]
