"""`InMemoryStore` over `InMemoryBackend`: plain Python, and the model for the other backends.

Rows hold encoded values, as a file would, so nothing stored is shared with the caller. Every
primitive runs without awaiting, so each is atomic on the event loop.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NoReturn, Self, assert_never

from kvstore import codec
from kvstore.backend import Backend, NamespaceQuery, Page, Selection, Settings, Span
from kvstore.context import with_tail
from kvstore.embedding import Embedder
from kvstore.errors import InvalidArgumentError
from kvstore.exchange import Sink, partial_file
from kvstore.feed import ChangePage
from kvstore.filters import Filter, matches
from kvstore.instants import to_datetime
from kvstore.jobs import (
    DEAD,
    RAN_OUT,
    Jobs,
    JobState,
    QueueSize,
    SequenceRecord,
    other_items,
    require_lease,
)
from kvstore.memory_index import MemoryIndex
from kvstore.memory_jobs import MemoryJobs, MemoryQueue
from kvstore.memory_past import MemoryPast, within
from kvstore.namespace import decode_namespace, show, subtree_range
from kvstore.operations import (
    NAMED,
    OF_SEQUENCE,
    Adopt,
    Append,
    ExtendJob,
    Forget,
    GiveBackJob,
    Keep,
    Lease,
    Named,
    Operation,
    PopEntry,
    PutJob,
    Record,
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
    UnembeddedError,
    Wide,
    named_of,
)
from kvstore.own_vectors import OwnVectors
from kvstore.past import Moment
from kvstore.patterns import Pattern
from kvstore.plan import (
    Address,
    Admission,
    Effects,
    Note,
    Vectors,
    decide,
    gone,
    is_rewound,
    not_before,
    rewound,
)
from kvstore.ranking import Search, page_of
from kvstore.report import WAITS, Meter, Report, RootStats, Stats
from kvstore.rules import row_problem
from kvstore.sequences import EntryPage, SequenceState, key_of, position_of, require_kind
from kvstore.store import Store
from kvstore.text import contains, texts_of
from kvstore.types import Change, IndexConfig, Item, Namespace, make_item

__all__ = ["InMemoryBackend", "InMemoryStore"]

_MOST_CHANGES = 250_000  # that the feed holds, however young: some 40 MB
_MOST_WAITING = 100  # items that `check` names
_CHANGES_AT_ONCE = 500
_SLICE = 1_000  # records written out between two looks at the clock


class InMemoryStore(Store):
    """A store in the memory of this process, for tests, prototypes and caches.

    It has the whole contract but for one thing: it does not last. What it holds survives
    `close()` and a new `open()` of the same object.

    Args:
        index: what to index for search; `None`: nothing.
        options: those of `Store`.
    """

    backend: InMemoryBackend

    def __init__(self, *, index: IndexConfig | None = None, **options: Any) -> None:
        super().__init__(InMemoryBackend(), index=index, **options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @classmethod
    def with_embeddings(cls, model: Any, **options: Any) -> Self:
        """Short for `InMemoryStore(index=IndexConfig(model))`."""
        return cls(index=IndexConfig(model), **options)

    def _recipe(self) -> NoReturn:
        raise InvalidArgumentError(
            "a store in memory is in one process alone: it cannot be copied or pickled; use a "
            "file, or make a store in each process"
        )


class InMemoryBackend(Backend):
    """Rows in a dict."""

    has_sequences = True
    keeps_history = True

    def __init__(self) -> None:
        super().__init__()
        self._rows: dict[Address, Record] = {}
        self._order: list[Address] = []  # all addresses, sorted, while `_is_sorted`
        self._is_sorted = True
        self._sequences: dict[str, SequenceState] = {}
        self._positions: dict[str, list[int]] = {}  # of the rows of each of them, sorted
        self._queues: dict[str, MemoryQueue] = {}
        self._restored_jobs: dict[tuple[str, int], JobState] = {}  # of the last import
        self._version = 0
        self._soonest: int | None = None  # nothing expires before this
        self._lease = 0  # when the recording of changes may end; 0: none are recorded
        self._changes: list[Note] = []
        self._changes_begin = 0  # every change after this version is there, while there is a lease
        self._past = MemoryPast()
        self._index: MemoryIndex | None = None

    def attach(
        self, settings: Settings, index: IndexConfig | None, embedder: Embedder | None
    ) -> None:
        super().attach(settings, index, embedder)
        if index is not None and self._index is None:
            self._index = MemoryIndex(has_vectors=embedder is not None)

    async def open(self) -> None:
        """Nothing to acquire."""

    def cross_fork(self, is_open: bool) -> bool:
        return True

    async def close(self) -> None:
        """Nothing to release."""

    # Read

    def peek(self, namespace: Namespace, path: str, key: str) -> list[Item]:
        row = self._live(path, key, self.now())
        return [] if row is None else [_item(namespace, key, row)]

    async def get_many(self, namespace: Namespace, path: str, keys: Sequence[str]) -> list[Item]:
        now = self.now()
        rows = ((key, self._live(path, key, now)) for key in keys)
        return [_item(namespace, key, row) for key, row in rows if row is not None]

    async def select(self, path: str, selection: Selection) -> list[Item]:
        found = []
        for address, row in self._range(path, selection.subtree):
            value = codec.decode(row.data)
            if matches(selection.filter, value) and (
                selection.text is None or contains(address[1], value, selection.text)
            ):
                found.append((address, row))
        found.sort(key=lambda entry: entry[1].version, reverse=True)
        page = found[selection.offset :][: selection.limit]
        return [_item(decode_namespace(path), key, row) for (path, key), row in page]

    async def list_namespaces(
        self, asked: NamespaceQuery, limit: int | None, offset: int
    ) -> list[Namespace]:
        paths = dict.fromkeys(path for (path, _), _ in self._range("", subtree=True))
        found = (decode_namespace(path) for path in paths)
        cut = dict.fromkeys(labels[: asked.max_depth] for labels in found if asked.matches(labels))
        return list(cut)[offset:][:limit]

    async def keys(self, span: Span, limit: int | None) -> list[str]:
        matching = span.pattern.matches
        found = (key for (_, key), _ in self._in_span(span) if matching(key))
        return list(islice(found, limit))

    async def count(self, path: str, pattern: Pattern, subtree: bool) -> int:
        return sum(pattern.matches(key) for (_, key), _ in self._range(path, subtree))

    async def page(self, span: Span, filter: Filter, limit: int) -> Page:
        matching = (entry for entry in self._in_span(span) if span.pattern.matches(entry[0][1]))
        page = list(islice(matching, limit))
        items = [_item(decode_namespace(path), key, row) for (path, key), row in page]
        passing = [item for item in items if matches(filter, item.value)]
        return Page(passing, page[-1][0] if len(page) == limit else None)

    def _live(self, path: str, key: str, now: int) -> Record | None:
        row = self._rows.get((path, key))
        return row if row is not None and row.is_live(now) else None

    def _in_span(self, span: Span) -> Iterator[tuple[Address, Record]]:
        """Yield the live rows of a span, whatever their keys, in its order."""
        after, before = span.bounds
        return self._range(span.path, span.subtree, after, before, span.reverse)

    def _range(
        self,
        path: str,
        subtree: bool,
        after: Address | None = None,
        before: Address | None = None,
        reverse: bool = False,
    ) -> Iterator[tuple[Address, Record]]:
        """Yield the live rows of a namespace or a subtree, in order."""
        now = self.now()
        begin, end = self._bounds(path, subtree, after)
        order = self._order
        if before is not None:
            end = bisect_left(order, before)
        for at in reversed(range(begin, end)) if reverse else range(begin, end):
            row = self._rows[order[at]]
            if row.is_live(now):
                yield order[at], row

    def _bounds(self, path: str, subtree: bool, after: Address | None = None) -> tuple[int, int]:
        """Return where in `_order` a namespace or a subtree begins and ends."""
        if not self._is_sorted:
            self._order = sorted(self._rows)
            self._is_sorted = True
        order = self._order
        low, high = subtree_range(path)
        begin = bisect_left(order, (low, "")) if after is None else bisect_right(order, after)
        if not subtree:
            return begin, bisect_right(order, path, key=lambda address: address[0])
        return begin, len(order) if high is None else bisect_left(order, (high, ""))

    async def records(
        self, path: str, after: Address | None, limit: int
    ) -> tuple[list[Record], Address | None]:
        page = list(islice(self._range(path, True, after), limit))
        return [record for _, record in page], page[-1][0] if len(page) == limit else None

    async def sample_vectors(self, path: str, limit: int) -> list[tuple[str, str, bytes]]:
        addresses = (place for place, _ in self._range(path, True))
        return [] if self._index is None else self._index.sample(addresses, limit)

    async def search(self, path: str, asked: Search) -> list[Item]:
        assert self._index is not None
        rows = {
            address: row
            for address, row in self._range(path, asked.subtree)
            if matches(asked.filter, codec.decode(row.data))
        }
        index, vector, words = self._index, asked.vector, asked.words
        if vector and asked.is_own:
            OwnVectors((vector,), len(vector) // 4).require_length(index.dimensions)
        meant = [] if not vector else index.by_meaning(rows, vector)
        said = [] if not words else index.by_words(rows, words)
        if words and asked.context:
            scope = [address for address, _ in self._range(path, asked.subtree)]
            near = [
                hit for hit in index.in_context(scope, words, asked.context) if hit.place in rows
            ]
            own = said
            said = with_tail(near, lambda wanted: own[:wanted], len(rows))
        page = page_of(
            asked,
            None if vector is None else lambda wanted: meant[:wanted],
            None if words is None else lambda wanted: said[:wanted],
        )
        return [
            replace(
                _item(decode_namespace(hit.place[0]), hit.place[1], rows[hit.place]),
                score=hit.score,
            )
            for hit in page
        ]

    async def items_before(self, places: Sequence[Address]) -> list[Item | None]:
        found: list[Item | None] = []
        for path, key in places:
            before = [row for (_, each), row in self._range(path, subtree=False) if each < key]
            found.append(
                _item(decode_namespace(path), before[-1].key, before[-1]) if before else None
            )
        return found

    # Write

    async def apply(self, ops: Sequence[Operation]) -> list[Any]:
        now = self.now()
        asked = named_of(ops)
        before = self._version
        jobs = MemoryJobs(now, self._sequences, self._queues)
        states = self._states(asked, jobs, now)
        effects = decide(
            *(asked, self._rows, now, before),
            is_watched=self._is_recording,
            sequences=states,
            jobs=jobs,
        )
        if self._index is not None:
            self._require_vectors(self._index, effects, ops)
        self._carry_out(effects)
        answers = iter(effects.answers)
        given = [next(answers) if isinstance(op, NAMED) else self._run(op, now) for op in ops]
        self.counters.committed(1)
        is_job = isinstance(ops[0], OF_SEQUENCE)
        is_news = self._is_recording or effects.sequences.changed
        if is_job or (self._version != before and is_news):
            self.bell.ring()
        return given

    def _require_vectors(
        self, index: MemoryIndex, effects: Effects, ops: Sequence[Operation]
    ) -> None:
        """Raise `UnembeddedError` if a text that the unit would index has no vector."""
        wanted: list[tuple[Record, Vectors | None]] = list(effects.writes)
        for op in ops:
            if isinstance(op, Reindex):
                known = {**(op.vectors or {}), **dict.fromkeys(op.refused, b"")}
                wanted += [(self._rows[address], known) for address in self._marked(op)]
        missing: list[str] = []
        dimensions = index.dimensions
        for row, vectors in wanted:
            if isinstance(vectors, OwnVectors):
                vectors.require_length(dimensions)
                dimensions = vectors.dimensions
                continue
            held = index.held((row.path, row.key))
            texts = self._texts(row.data, row.indexing)
            missing += [text for text in texts if text not in held and text not in (vectors or {})]
        if missing and self.embedder is not None:
            raise UnembeddedError(missing)

    def _texts(self, data: bytes, indexing: tuple[str, ...] | None) -> list[str]:
        assert self.index is not None
        return texts_of(codec.decode(data), self.index.fields if indexing is None else indexing)

    def _run(self, op: Wide, now: int) -> Any:
        match op:
            case PopEntry():
                return self._pop_entry(op, now)
            case TrimLog():
                return self._trim_log(op, now)
            case TakeJob() | RetryJob() | ExtendJob() | GiveBackJob() | ReviveJobs():
                return self._run_job(op, MemoryJobs(now, self._sequences, self._queues), now)
            case Remove():
                rows = self._range(op.path, op.subtree)
                doomed = [address for address, _ in rows if op.pattern.matches(address[1])]
                return self._drop("delete", doomed, now)
            case Sweep():
                return self._sweep_rows(op.limit, now)
            case Restore():
                return self._restore_rows(op, now)
            case Adopt():
                return 0 if self._index is None else len(self._index.pending)
            case Reindex():
                return self._reindex_rows(op)
            case Lease():
                return self._take_lease(op, now)
            case Trim():
                return self._trim(op, now)
            case Keep():
                return self._keep(op, now)
            case Forget():
                return self._past.forget(op.path, op.pattern, op.subtree)
            case Rewind():
                return self._rewind(op, now)
        assert_never(op)

    def _carry_out(self, effects: Effects) -> None:
        not_before(effects, self._past.last)
        if self._past.is_kept:
            self._past.take(effects, self._rows)
        for address in effects.drops:
            del self._rows[address]
            self._is_sorted = False
            if self._index is not None:
                self._index.discard(address)
        for row, vectors in effects.writes:
            self._store_row(row, vectors)
        for row in effects.renewals:
            self._rows[row.path, row.key] = row
            self._note_expiry(row)
        if self._sequences or effects.sequences.changed:
            self._keep_positions(effects)
        self._version = effects.version
        self._changes += effects.notes
        if len(self._changes) > _MOST_CHANGES and not self._past.is_kept:
            self._cut(_MOST_CHANGES // 10)

    def _store_row(self, row: Record, vectors: Vectors | None) -> None:
        address = row.path, row.key
        self._is_sorted &= address in self._rows
        self._rows[address] = row
        self._note_expiry(row)
        if self._index is not None:
            self._index.put(address, self._texts(row.data, row.indexing), vectors)

    def _note_expiry(self, row: Record) -> None:
        if row.expires_at is not None:
            self._soonest = min(row.expires_at, self._soonest or row.expires_at)

    def _drop(self, kind: Literal["delete", "expire"], doomed: list[Address], now: int) -> int:
        states = self._sequences
        is_watched = self._is_recording
        self._carry_out(
            gone(kind, doomed, now, self._version, is_watched=is_watched, sequences=states)
        )
        return len(doomed)

    def _sweep_rows(self, limit: int, now: int) -> int:
        if self._soonest is None or self._soonest > now:
            return 0
        expired = [address for address, row in self._rows.items() if not row.is_live(now)]
        self._drop("expire", expired[:limit], now)
        if len(expired) <= limit:
            expiries = (row.expires_at for row in self._rows.values())
            self._soonest = min((each for each in expiries if each is not None), default=None)
        return len(expired[:limit])

    def _restore_rows(self, op: Restore, now: int) -> int:
        is_watched = self._is_recording
        if is_watched:  # so that no record replaces an expired item, untold
            self._sweep_rows(len(self._rows), now)
        admission = Admission(op, self._version, now, is_watched=is_watched)
        for each in op.sequences:
            state = self._state(each.path)
            each.onto(state)
            if each.path not in self._sequences:
                self._positions[each.path] = self._positions_in(each.path)
                self._sequences[each.path] = state
        self._restored_jobs = {
            (job.path, job.position): job for each in op.sequences for job in each.jobs
        }
        records = list(op.records)
        addresses = () if admission.replaces else ((each.path, each.key) for each in records)
        live = {address for address in addresses if self._live(*address, now) is not None}
        entries = {
            (each.path, each.key): row.data
            for each in records
            if each.path in self._sequences
            and (row := self._live(each.path, each.key, now)) is not None
        }
        self._carry_out(admission.admit(records, live, entries))
        return admission.written

    # Logs

    def _states(self, ops: Iterable[Named], jobs: Jobs, now: int) -> dict[str, SequenceState]:
        """Return the state of each log and queue, and of those that operations begin."""
        new = {op.path for op in ops if type(op) is Append} - self._sequences.keys()
        for op in ops:
            if type(op) is PutJob:
                if op.path not in self._sequences:
                    if any(True for _ in self._range(op.path, subtree=False)):
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

    def _positions_in(self, path: str) -> list[int]:
        """Return the positions that keys of a namespace are, whether live or not, in order."""
        begin, end = self._bounds(path, subtree=False)
        found = (position_of(key) for _, key in self._order[begin:end])
        return [position for position in found if position is not None]

    def _keep_positions(self, effects: Effects) -> None:
        """Keep the logs and queues, and the lists of their positions, after rows have changed."""
        begun = effects.sequences.changed.keys() - self._sequences.keys()
        self._sequences |= effects.sequences.changed
        for path in begun:
            self._positions[path] = self._positions_in(path)
        gone: dict[str, set[int]] = {}
        for path, key in effects.drops:
            position = position_of(key)
            if path in self._sequences and position is not None:
                gone.setdefault(path, set()).add(position)
                if self._sequences[path].kind == "queue":
                    MemoryJobs(effects.now, self._sequences, self._queues).drop(path, position)
        for path, some in gone.items():
            self._positions[path] = [each for each in self._positions[path] if each not in some]
        for row, _ in effects.writes:
            position = position_of(row.key)
            if row.path in self._sequences and position is not None:
                positions = self._positions[row.path]
                at = bisect_left(positions, position)
                if positions[at : at + 1] != [position]:
                    positions.insert(at, position)
                    state = self._sequences[row.path]
                    state.last, state.size = max(state.last, position), len(positions)
        jobs = MemoryJobs(effects.now, self._sequences, self._queues)
        for job in effects.jobs:
            jobs.put(job)
        for row, _ in effects.writes:  # what was imported into a queue is ready
            position = position_of(row.key)
            if position is None or self._state(row.path).kind != "queue":
                continue
            if jobs.get(row.path, position) is None:
                known = self._restored_jobs.get((row.path, position))
                jobs.restore(known or JobState(row.path, position))

    def _run_job(
        self,
        op: TakeJob | RetryJob | ExtendJob | GiveBackJob | ReviveJobs,
        jobs: Jobs,
        now: int,
    ) -> Any:
        state = self._sequences.get(op.path)
        if state is not None:
            require_kind(state, "queue")
        match op:
            case TakeJob():
                if state is None:
                    return None
                taken = jobs.take(op.path, op.token, op.lease, op.attempts)
                if taken is None:
                    return None
                row = self._rows[op.path, key_of(taken.position)]
                return _item(op.namespace, row.key, row), taken.attempt
            case RetryJob() | ExtendJob():
                job = None if state is None else jobs.get(op.path, position_of(op.key) or 0)
                held = require_lease(job, op.token, now, op.namespace, op.key)
                if isinstance(op, RetryJob):
                    jobs.retry(held, op.delay, op.error)
                else:
                    jobs.extend(held, op.lease)
            case GiveBackJob():
                if state is not None:
                    jobs.give_back(op.path, op.token)
            case ReviveJobs():
                positions = [position_of(key) or 0 for key in op.keys]
                return 0 if state is None else jobs.revive(op.path, positions)
        return None

    async def queue_size(self, path: str) -> QueueSize:
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
            told = job if job.state == DEAD else replace(job, error=RAN_OUT)
            found.append((_item(labels, row.key, row), told))
        return found

    async def sequences(self, path: str) -> list[SequenceRecord]:
        low, high = subtree_range(path)
        found = []
        for there, state in sorted(self._sequences.items()):
            if low <= there and (high is None or there < high) and state.kind is not None:
                jobs = self._queues.get(there, MemoryQueue()).jobs.values()
                noted = tuple(sorted(jobs, key=lambda job: job.position))
                found.append(SequenceRecord(there, state.kind, state.last, state.trimmed, noted))
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
            later = islice(positions, bisect_right(positions, after), None)
            rows = list(islice(self._entry_rows(path, later, now), limit))
        labels = decode_namespace(path)
        return EntryPage(replace(state), [_item(labels, row.key, row) for row in rows])

    async def length(self, path: str) -> int:
        positions, now = self._positions.get(path) or self._positions_in(path), self.now()
        if self._soonest is None or self._soonest > now:
            return len(positions)
        return sum(1 for _ in self._entry_rows(path, positions, now))

    def _pop_entry(self, op: PopEntry, now: int) -> Item | None:
        state = self._sequences.get(op.path)
        if state is None:
            return None
        require_kind(state, "log")
        newest = self._entry_rows(op.path, reversed(self._positions[op.path]), now)
        row = next(newest, None)
        if row is None:
            return None
        self._drop("delete", [(row.path, row.key)], now)
        return _item(op.namespace, row.key, row)

    def _trim_log(self, op: TrimLog, now: int) -> int:
        state = self._sequences.get(op.path)
        if state is None:
            return 0
        require_kind(state, "log")
        keys = [(op.path, key_of(position)) for position in self._positions[op.path]]
        live = [address for address in keys if self._rows[address].is_live(now)]
        self._drop("expire", [each for each in keys if not self._rows[each].is_live(now)], now)
        doomed = live[: max(0, len(live) - op.keep)]
        self._drop("delete", doomed, now)
        if doomed:
            self._sequences[op.path].trimmed = position_of(doomed[-1][1]) or 0
        return len(doomed)

    def _marked(self, op: Reindex) -> list[Address]:
        """Return the marked items that an operation is to index, by their versions."""
        assert self._index is not None
        versions = ((self._rows[address].version, address) for address in self._index.pending)
        return [address for version, address in sorted(versions) if version > op.after][: op.limit]

    def _reindex_rows(self, op: Reindex) -> tuple[int, int, list[Address]]:
        index = self._index
        if index is None:
            return 0, 0, []
        marked = self._marked(op)
        for address in marked:
            row = self._rows[address]
            index.put(address, self._texts(row.data, row.indexing), op.vectors)
        last = self._rows[marked[-1]].version if marked else 0
        return last, len(marked), [address for address in marked if address in index.pending]

    # The past

    async def moment(self, version: int | None, instant: int | None) -> Moment:
        return self._past.moment(version, instant, self._version, self.now())

    async def past_many(self, moment: Moment, path: str, keys: Sequence[str]) -> list[Record]:
        self._past.require(moment, self._version, self.now())
        return self._at(moment, [(path, key) for key in keys])

    async def past_page(
        self,
        moment: Moment,
        path: str,
        pattern: Pattern,
        subtree: bool,
        after: Address | None,
        limit: int,
    ) -> tuple[list[Record], Address | None]:
        self._past.require(moment, self._version, self.now())
        addresses = within({*self._rows, *self._past.addresses()}, path, pattern, subtree)
        rest = sorted(at for at in addresses if after is None or at > after)
        page = rest[:limit]
        return self._at(moment, page), page[-1] if len(page) == limit else None

    def _at(self, moment: Moment, addresses: Sequence[Address]) -> list[Record]:
        """Return what was at some addresses."""
        found = (self._past.row_at(moment, at, self._rows.get(at)) for at in addresses)
        return [row for row in found if row is not None and row.data]

    async def history(self, path: str, key: str, limit: int | None) -> list[Change]:
        return self._past.changes((path, key), self._rows.get((path, key)))[:limit]

    @property
    def _is_recording(self) -> bool:
        """Whether changes are noted: somebody watches, or the past is kept."""
        return bool(self._lease) or self._past.is_kept

    def _keep(self, op: Keep, now: int) -> None:
        if not self._is_recording:
            self._changes.clear()
            self._changes_begin = self._version
        self._past.keep(op, self._version, now)

    def _rewind(self, op: Rewind, now: int) -> int:
        self._past.require(op.moment, self._version, now)
        states = self._sequences
        addresses = [
            at
            for at in self._past.changed_since(op.moment.version, op.path, op.subtree)
            if at[0] not in states or is_rewound(states[at[0]], op)
        ]
        then = {at: self._past.row_at(op.moment, at, self._rows.get(at)) for at in addresses}
        told = [at for at in addresses if not (row := then[at]) or row.data]  # not forgotten
        rows = {at: row for at, row in then.items() if row is not None}
        effects = rewound(told, rows, self._rows, now, self._version, states)
        self._carry_out(effects)
        if op.path in states:
            MemoryJobs(now, self._sequences, self._queues).release(op.path)
        return len(effects.answers)

    # Watch

    def _cut(self, number: int) -> None:
        if number:
            self._changes_begin = self._changes[number - 1].version
            del self._changes[:number]

    def _take_lease(self, op: Lease, now: int) -> tuple[int, int]:
        if not self._is_recording:
            self._changes.clear()
            self._changes_begin = self._version
        self._lease = now + op.span
        return self._version, self._changes_begin

    def _trim(self, op: Trim, now: int) -> int:
        if op.is_watched:
            self._lease = max(self._lease, now + op.history)
        elif self._lease <= now:
            self._lease = 0
        else:  # not longer than it could be now: the clock may have been ahead
            self._lease = min(self._lease, now + op.history)
        trimmed = self._past.trim(op, self._version, now)
        oldest = now - op.history
        first = enumerate(self._changes[: op.limit], 1)
        old = max((number for number, change in first if change.at <= oldest), default=0)
        self._cut(old)
        return max(old, trimmed)

    async def read_changes(
        self, after: int, path: str, pattern: Pattern, subtree: bool
    ) -> ChangePage:
        now = self.now()
        low, high = subtree_range(path)
        found: list[Change] = []
        begin = bisect_right(self._changes, after, key=lambda change: change.version)
        seen = self._changes[begin : begin + _CHANGES_AT_ONCE]
        for change in seen:
            inside = low <= change.path and (high is None or change.path < high)
            if (inside if subtree else change.path == path) and pattern.matches(change.key):
                labels = decode_namespace(change.path)
                row = self._put(change, now) if change.kind == "put" else None
                item = None if row is None else _item(labels, change.key, row)
                at = to_datetime(change.at)
                found.append(Change(change.kind, labels, change.key, change.version, at, item))
        position = seen[-1].version if seen else after
        is_due = self._soonest is not None and self._soonest <= now
        return ChangePage(found, position, self._changes_begin, self._lease, is_due, now)

    def _put(self, change: Note, now: int) -> Record | None:
        """Return what was put: as it then was, if that is kept, else as it now is."""
        if not self._past.is_kept:
            return self._live(change.path, change.key, now)
        row = self._rows.get((change.path, change.key))
        if row is not None and row.version == change.version:
            return row
        return self._past.as_it_was(change)

    # Upkeep

    async def backup(self, path: Path, meter: Meter) -> None:
        rows = list(self._range("", subtree=True))  # as of now; a write makes a new row

        def write() -> None:
            with partial_file(path) as partial, partial.open("wb") as file:
                sink = Sink(file)
                sink.begin()
                for begin in range(0, len(rows), _SLICE):
                    sink.add(record for _, record in rows[begin : begin + _SLICE])
                    meter.show(sink.count, len(rows))
                sink.end()
                meter.show(len(rows), len(rows))

        await asyncio.to_thread(write)

    async def check(self, meter: Meter) -> Report:
        problems = []
        rows = list(self._rows.items())
        for number, ((path, key), row) in enumerate(rows, 1):
            paths = None if row.indexing is None else list(row.indexing)
            times = row.created_at, row.updated_at, row.expires_at, row.ttl
            problem = row_problem(row.data, paths, *times)
            if problem is not None:
                problems.append(f"{show(decode_namespace(path), key)}: {problem}")
            if number % _SLICE == 0:
                meter.show(number, len(rows))
                await asyncio.sleep(0)
        meter.show(len(rows), len(rows))
        await asyncio.sleep(0)
        pending = [] if self._index is None else sorted(self._index.pending)[:_MOST_WAITING]
        waiting = [f"{show(decode_namespace(path), key)} {WAITS}" for path, key in pending]
        return Report(len(rows), tuple(problems), tuple(waiting))

    async def stats(self) -> Stats:
        sizes: dict[str, tuple[int, int]] = {}
        for (path, _), row in self._range("", subtree=True):
            items, size = sizes.get(path, (0, 0))
            sizes[path] = items + 1, size + len(row.data)
        roots: dict[Namespace, RootStats] = {}
        for path, (items, size) in sizes.items():
            root = decode_namespace(path)[:1]
            sum_ = roots.get(root, RootStats(0, 0, 0))
            roots[root] = RootStats(sum_.items + items, sum_.namespaces + 1, sum_.bytes + size)
        live = sum(items for items, _ in sizes.values())
        past, past_bytes = self._past.measure()
        states = self._sequences.values()
        return Stats(
            items=live,
            namespaces=len(sizes),
            bytes=sum(size for _, size in sizes.values()),
            roots=roots,
            version=self._version,
            expired=len(self._rows) - live,
            changes=len(self._changes),
            past=past,
            past_bytes=past_bytes,
            logs=sum(state.kind == "log" for state in states),
            queues=sum(state.kind == "queue" for state in states),
            dead_jobs=sum(state.dead for state in states),
        )


def _item(namespace: Namespace, key: str, row: Record) -> Item:
    value = codec.decode(row.data)
    return make_item(
        namespace, key, value, row.version, row.created_at, row.updated_at, row.expires_at
    )
