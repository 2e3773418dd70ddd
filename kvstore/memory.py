"""`InMemoryStore` over `InMemoryBackend`: plain Python, and the model for the other backends.

Rows hold encoded values, as a file would, so nothing stored is shared with the caller. Every
primitive runs without awaiting, so each is atomic on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from heapq import merge
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal, NoReturn, Self, assert_never

from kvstore.backend import Span
from kvstore.errors import InvalidArgumentError
from kvstore.exchange import Sink
from kvstore.feed import ChangePage
from kvstore.files import partial_file
from kvstore.index_plan import Wanted, complete
from kvstore.instants import to_datetime
from kvstore.jobs import Jobs, JobState
from kvstore.memory_jobs import MemoryJobs
from kvstore.memory_past import MemoryPast
from kvstore.memory_rows import MemoryRows, in_span
from kvstore.namespace import decode_namespace, is_within, show
from kvstore.operations import (
    Adopt,
    ExtendJob,
    Forget,
    GiveBackJob,
    Keep,
    Lease,
    Named,
    OfSequence,
    Operation,
    PopEntry,
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
    Wide,
    named_of,
)
from kvstore.past import Moment
from kvstore.past_view import item_of
from kvstore.patterns import Pattern
from kvstore.plan import (
    Address,
    Admission,
    Effects,
    Note,
    decide,
    gone,
    is_rewound,
    not_before,
    rewound,
)
from kvstore.report import WAITS, Meter, Report, RootStats, Stats
from kvstore.rules import row_problem
from kvstore.sequences import key_of, position_of, queues_among, require_kind
from kvstore.store import Store
from kvstore.types import Change, IndexConfig, Item, Namespace

__all__ = ["InMemoryBackend", "InMemoryStore"]

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


class InMemoryBackend(MemoryRows):
    """Rows in a dict."""

    has_sequences = True
    keeps_history = True

    def __init__(self) -> None:
        super().__init__()
        self._version = 0
        self._past = MemoryPast()

    async def open(self) -> None:
        """Nothing to acquire."""

    def cross_fork(self, is_open: bool) -> bool:
        return True

    async def close(self) -> None:
        """Nothing to release."""

    # Write

    async def apply(self, ops: Sequence[Operation]) -> list[Any]:
        now = self.now()
        asked = named_of(ops)
        before = self._version
        jobs = MemoryJobs(now, self._sequences, self._queues)
        answers: Iterator[Any] = iter(())
        is_news = self._past.is_recording
        if asked or self._index is not None:
            effects = decide(
                *(asked, self._rows, now, before),
                is_watched=is_news,
                sequences=self._states(asked, jobs, now),
                jobs=jobs,
            )
            self._carry_out(effects, jobs, self._planned(effects, ops))
            answers = iter(effects.answers)
            is_news = is_news or bool(effects.sequences.changed)
        given = [next(answers) if isinstance(op, Named) else self._run(op, now, jobs) for op in ops]
        self.counters.committed(1)
        if isinstance(ops[0], OfSequence) or (is_news and self._version != before):
            self.bell.ring()
        return given

    def _planned(self, effects: Effects, ops: Sequence[Operation] = ()) -> list[Wanted]:
        """Return what the index is to hold of what is written.

        Args:
            effects: of a unit.
            ops: the unit, if it is to fail with `UnembeddedError` where vectors are missing.
        """
        index = self._index
        if index is None:
            return []
        finder = index.finder()
        planned = [index.plan(finder, row, vectors) for row, vectors in effects.writes]
        for op in ops:
            if isinstance(op, Reindex):
                for address in index.marked(op.after, op.limit):
                    index.plan(finder, self._rows[address], op.vectors, op.refused)
        if ops:
            finder.require_all()
        return planned

    def _run(self, op: Wide, now: int, jobs: Jobs) -> Any:
        match op:
            case PopEntry():
                return self._pop_entry(op, now)
            case TrimLog():
                return self._trim_log(op, now)
            case TakeJob() | RetryJob() | ExtendJob() | GiveBackJob() | ReviveJobs():
                return self._run_job(op, jobs, now)
            case Remove():
                rows = self._range(op.path, op.subtree)
                doomed = [address for address, _ in rows if op.pattern.matches(address[1])]
                return self._drop("delete", doomed, now)
            case Sweep():
                return self._sweep_rows(op.limit, now)
            case Restore():
                return self._restore_rows(op, now)
            case Adopt():
                return 0 if self._index is None else self._index.adopt(self._rows)
            case Reindex():
                return self._reindex_rows(op)
            case Lease():
                return self._past.lease(op, self._version, now)
            case Trim():
                return self._past.trim(op, self._version, now)
            case Keep():
                return self._past.keep(op, self._version, now)
            case Forget():
                return self._past.forget(op.path, op.pattern, op.subtree)
            case Rewind():
                return self._rewind(op, now)
        assert_never(op)

    def _carry_out(
        self,
        effects: Effects,
        jobs: Jobs | None = None,
        planned: list[Wanted] | None = None,
        restored: Mapping[tuple[str, int], JobState] | None = None,
    ) -> None:
        not_before(effects, self._past.last)
        if self._past.is_recording:
            self._past.take(effects, self._rows)
        for address in effects.drops:
            del self._rows[address]
            self._is_sorted = False
            if self._index is not None:
                self._index.discard(address)
        for row, _ in effects.writes:
            self._is_sorted &= (row.path, row.key) in self._rows
            self._rows[row.path, row.key] = row
            self._note_expiry(row)
        if self._index is not None:
            planned = self._planned(effects) if planned is None else planned
            for (row, _), wanted in zip(effects.writes, planned, strict=True):
                self._index.put(row, wanted)
        for row in effects.renewals:
            self._rows[row.path, row.key] = row
            self._note_expiry(row)
        if self._sequences or effects.sequences.changed:
            if jobs is None:
                jobs = MemoryJobs(effects.now, self._sequences, self._queues)
            self._keep_positions(effects, jobs, restored or {})
        self._version = effects.version

    def _drop(self, kind: Literal["delete", "expire"], doomed: list[Address], now: int) -> int:
        states, is_watched = self._sequences, self._past.is_recording
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
        is_watched = self._past.is_recording
        if is_watched:  # so that no record replaces an expired item, untold
            self._sweep_rows(len(self._rows), now)
        admission = Admission(op, self._version, now, is_watched=is_watched)
        states = {each.path: self._state(each.path).copied() for each in op.sequences}
        for each in op.sequences:
            is_taken = each.path not in self._sequences and self._has_items(each.path)
            each.onto(states[each.path], is_taken=is_taken)
        records = list(op.records)
        addresses = () if admission.replaces else ((each.path, each.key) for each in records)
        live = {address for address in addresses if self._live(*address, now) is not None}
        entries = {
            (each.path, each.key): row.data
            for each in records
            if (each.path in self._sequences or each.path in states)
            and (row := self._live(each.path, each.key, now)) is not None
        }
        queues = queues_among(self._sequences | states)
        effects = admission.admit(records, live, entries, queues)
        for path in states.keys() - self._sequences.keys():
            self._positions[path] = self._positions_in(path)
        self._sequences |= states
        jobs = {(job.path, job.position): job for each in op.sequences for job in each.jobs}
        self._carry_out(effects, restored=jobs)
        return admission.written

    # Logs

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
        return item_of(op.namespace, row)

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

    def _reindex_rows(self, op: Reindex) -> tuple[int, int, list[Address]]:
        index = self._index
        if index is None:
            return 0, 0, []
        marked, finder = index.marked(op.after, op.limit), index.finder()
        for address in marked:
            row = self._rows[address]
            index.put(row, index.plan(finder, row, op.vectors, op.refused))
        if not marked:
            complete(index.description, index.setup)
        last = self._rows[marked[-1]].version if marked else 0
        return last, len(marked), [address for address in marked if address in index.pending]

    # The past

    async def moment(
        self, version: int | None, instant: int | None, root: str | None = None
    ) -> Moment:
        return self._past.moment(version, instant, self._version, self.now())

    def past_peek(self, moment: Moment, namespace: Namespace, path: str, key: str) -> list[Item]:
        self._past.require(moment, self._version, self.now())
        row = self._past.row_at(moment, (path, key), self._rows.get((path, key)))
        return [item_of(namespace, row)] if row is not None and row.data else []

    async def past_many(self, moment: Moment, path: str, keys: Sequence[str]) -> list[Record]:
        self._past.require(moment, self._version, self.now())
        return self._at(moment, [(path, key) for key in keys])

    async def past_page(
        self, moment: Moment, span: Span, limit: int
    ) -> tuple[list[Record], Address | None]:
        self._past.require(moment, self._version, self.now())
        some = (in_span(order, span) for order in (self._sorted(), self._past.addresses()))
        both = groupby(merge(*some, reverse=span.reverse))  # most are in either
        page = list(islice((at for at, _ in both if span.pattern.matches(at[1])), limit))
        return self._at(moment, page), page[-1] if len(page) == limit else None

    def _at(self, moment: Moment, addresses: Sequence[Address]) -> list[Record]:
        """Return what was at some addresses."""
        found = (self._past.row_at(moment, at, self._rows.get(at)) for at in addresses)
        return [row for row in found if row is not None and row.data]

    async def history(self, path: str, key: str, limit: int | None) -> list[Change]:
        return self._past.changes((path, key), self._rows.get((path, key)))[:limit]

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

    async def read_changes(
        self, after: int, path: str, pattern: Pattern, subtree: bool
    ) -> ChangePage:
        now = self.now()
        found: list[Change] = []
        seen = self._past.notes_after(after, _CHANGES_AT_ONCE)
        for change in seen:
            if is_within(change.path, path, subtree) and pattern.matches(change.key):
                labels = decode_namespace(change.path)
                row = self._put(change, now) if change.kind == "put" else None
                item = None if row is None else item_of(labels, row)
                at = to_datetime(change.at)
                found.append(Change(change.kind, labels, change.key, change.version, at, item))
        position = seen[-1].version if seen else after
        is_due = self._soonest is not None and self._soonest <= now
        feed = self._past.notes_begin, self._past.watched_until
        return ChangePage(found, position, *feed, is_due, now)

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
        sequences = await self.sequences("")  # without a turn of the loop in between

        def write() -> None:
            with partial_file(path) as partial, partial.open("wb") as file:
                sink = Sink(file)
                sink.begin()
                for begin in range(0, len(rows), _SLICE):
                    sink.add(record for _, record in rows[begin : begin + _SLICE])
                    meter.show(sink.count, len(rows))
                sink.add_sequences(sequences)
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
        problems += self._sequence_problems()
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
        changes, past, past_bytes = self._past.measure(self._rows.values())
        states = self._sequences.values()
        indexed = None
        if self._index is not None and self.index is not None and self.index.ranks:
            indexed = max(0, live - len(self._index.pending))
        return Stats(
            items=live,
            namespaces=len(sizes),
            bytes=sum(size for _, size in sizes.values()),
            roots=roots,
            version=self._version,
            expired=len(self._rows) - live,
            indexed=indexed,
            changes=changes,
            past=past,
            past_bytes=past_bytes,
            logs=sum(state.kind == "log" for state in states),
            queues=sum(state.kind == "queue" for state in states),
            dead_jobs=sum(state.dead for state in states),
        )
