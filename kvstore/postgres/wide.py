"""Operations that find their items themselves, in a transaction over one root or several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

from kvstore.backend import Span
from kvstore.collecting import uncollected
from kvstore.namespace import decode_namespace
from kvstore.operations import (
    Named,
    OfJobs,
    OfUpkeep,
    Operation,
    PopEntry,
    Record,
    Remove,
    Restore,
    Rewind,
    TrimLog,
    Wide,
    named_of,
    take_piece,
)
from kvstore.plan import Address, Admission, Effects, is_rewound, named, rewound
from kvstore.postgres import past, sequence_statements, statements
from kvstore.postgres.connection import Connection, aside, begin_aside, heard, rows_of
from kvstore.postgres.copying import copy_rows
from kvstore.postgres.keys import SURELY_SHORT, check_length, decode_key, root_of
from kvstore.postgres.reading import item_of, matching_addresses
from kvstore.postgres.workspace import MakeIndexer, Stamp, Workspace, is_light
from kvstore.sequences import SequenceState, queues_among
from kvstore.types import Item

__all__ = ["Transaction", "UnreadableError", "roots_of"]

_REMOVED_AT_ONCE = 5_000
_REWOUND_AT_ONCE = 500
_COPIED_AT_ONCE = 20_000  # rows of an import
_INDEXED_BYTES = 2**18  # of those that are indexed


class UnreadableError(Exception):
    """The records of a `Restore` cannot be read on, and its `reason` says why."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


def roots_of(ops: Sequence[Operation]) -> frozenset[str] | None:
    """Return the roots under which operations write; `None`: they find out themselves."""
    roots = set()
    known: str | None = None
    for op in ops:
        path = getattr(op, "path", None)
        if path is None or (isinstance(op, (Remove, Rewind)) and op.subtree and not path):
            return None
        if path is not known:  # which those of a `put_many` have in common
            roots.add(root_of(path))
            known = path
    return frozenset(roots)


async def last_of(connection: Connection, root: str, writer: int) -> tuple[int | None, int]:
    """Return the number of a writer's last transaction under a root, and the version before it.

    No number: it cannot be told. 0: there was none.
    """
    writers, numbers, bases = await connection.fetchrow(statements.GET_WRITERS, root)
    if writer in writers:
        place = writers.index(writer)
        return numbers[place], bases[place]
    return (None if len(writers) >= statements.MOST_WRITERS else 0), 0


class Transaction:
    """A transaction that locks each root before it reads what is there.

    Args:
        connection: inside a transaction, of read committed isolation.
        now: the instant of all writes, in microseconds.
        at_least: a version, above which new ones are.
        make_indexer: from the description of a search index to what keeps it.
        stamp: by which it is known to each root that it changes.
    """

    def __init__(
        self,
        connection: Connection,
        now: int,
        at_least: int,
        make_indexer: MakeIndexer,
        stamp: Stamp,
    ) -> None:
        self._connection = connection
        self._now = now
        self._at_least = at_least
        self._make_indexer = make_indexer
        self._stamp = stamp
        self._spaces: dict[str, Workspace] = {}
        self._changed: set[str] = set()

    @property
    def version(self) -> int:
        """The newest that it has given out, or seen."""
        return max((space.version for space in self._spaces.values()), default=self._at_least)

    @property
    def is_news(self) -> bool:
        """Whether there is something for those who watch."""
        spaces = (self._spaces[root] for root in self._changed)
        return any(space.is_watched or space.ledger.is_news for space in spaces)

    @property
    def changed_root(self) -> str | None:
        """One of those that it changes; `None`: it changes none."""
        return min(self._changed, default=None)

    async def is_done(self, root: str) -> bool | None:
        """Whether an earlier try of the same transaction is committed; locks the root.

        `None`: so many others have written there since that it cannot be told.
        """
        await self.lock(root)
        assert self._stamp.writer is not None
        assert self._stamp.first is not None
        number, _ = await last_of(self._connection, root, self._stamp.writer)
        return None if number is None else number >= self._stamp.first

    def space(self, root: str) -> Workspace:
        """Return a root that is locked."""
        return self._spaces[root]

    async def lock(self, root: str) -> Workspace:
        """Lock a root; several are to be locked in order."""
        space = self._spaces.get(root)
        if space is None:
            space = self._spaces[root] = await Workspace.lock(
                self._connection, root, self._now, self._at_least, self._make_indexer
            )
        return space

    async def apply(self, units: Sequence[Sequence[Operation]]) -> list[list[Any] | Exception]:
        """Apply units that are decided in memory; those that fail change nothing."""
        wanted: dict[str, dict[Address, bool]] = {}
        for address, with_value in named(op for ops in units for op in named_of(ops)).items():
            wanted.setdefault(root_of(address[0]), {})[address] = with_value
        begins = False
        for root in sorted(set(wanted).union(*(roots_of(ops) or () for ops in units))):
            space = await self.lock(root)
            await space.load(self._connection, wanted.get(root, {}))
            here = [[op for op in ops if root_of(op.path) == root] for ops in units]  # type: ignore[union-attr]
            await space.ledger.load(self._connection, here)
            begins = begins or space.ledger.begins
        if begins and len(units) > 1:
            return [outcome for ops in units for outcome in await self.apply([ops])]
        is_indexed = any(space.indexer is not None for space in self._spaces.values())
        if is_indexed and not is_light(units):
            outcomes = await aside(
                self._connection, lambda: [self._apply_decided(ops) for ops in units]
            )
        else:
            outcomes = [self._apply_decided(ops) for ops in units]
        await self.flush()
        return outcomes

    def _apply_decided(self, ops: Sequence[Operation]) -> list[Any] | Exception:
        roots = roots_of(ops) or frozenset()
        if len(roots) == 1:
            return self._spaces[min(roots)].apply(ops)
        return self._apply_named(cast("Sequence[Named]", ops))

    def _apply_named(self, ops: Sequence[Named]) -> list[Any] | Exception:
        by_root: dict[str, list[int]] = {}
        for at, op in enumerate(ops):
            by_root.setdefault(root_of(op.path), []).append(at)
        answers: list[Any] = [None] * len(ops)
        try:
            decisions = {
                root: self._spaces[root].decide([ops[at] for at in places])
                for root, places in by_root.items()
            }
        except Exception as exc:  # noqa: BLE001 - it belongs to the unit's caller
            return exc
        for root, decision in decisions.items():
            self._spaces[root].take(decision)
            for at, answer in zip(by_root[root], decision.effects.answers, strict=True):
                answers[at] = answer
        return answers

    async def apply_wide(self, ops: Sequence[Operation]) -> list[Any]:
        """Apply one unit, whatever is in it.

        Raises:
            Exception: the unit's own error; the transaction is to be given up.
        """
        asked = named_of(ops)
        given: list[Any] = []
        if asked:
            (outcome,) = await self.apply([asked])
            if isinstance(outcome, Exception):
                raise outcome
            given = outcome
        answers = iter(given)
        return [next(answers) if isinstance(op, Named) else await self._run(op) for op in ops]

    async def _run(self, op: Wide) -> Any:
        match op:
            case PopEntry():
                return await self._pop_entry(op)
            case TrimLog():
                return await self._trim_log(op)
            case Remove():
                return await self._remove(op)
            case Restore():
                return await self._restore(op)
            case Rewind():
                return await self._rewind(op)
        elsewhere: OfJobs | OfUpkeep = op
        raise AssertionError(elsewhere)

    async def flush(self, *, is_forced: bool = False) -> None:
        """Write what has been changed in memory; `is_forced`: take part in any case."""
        for root, space in self._spaces.items():
            if space.is_changed or is_forced:
                self._changed.add(root)
                done = await space.flush(self._connection, self._stamp)
                assert done, "the root is locked"

    async def _remove(self, op: Remove) -> int:
        span = Span(op.path, op.pattern, op.subtree)
        if op.path or not op.subtree:
            return await self._remove_under(root_of(op.path), op)
        found = await matching_addresses(self._connection, span, None, self._now)
        number = 0
        for root in sorted({root_of(path) for path, _ in found}):
            path = root
            number += await self._remove_under(
                root, Remove(decode_namespace(path), path, op.pattern, bool(root))
            )
        return number

    async def _remove_under(self, root: str, op: Remove) -> int:
        space = await self.lock(root)
        statement = statements.delete_range(op.path, op.subtree, op.pattern, self._now)
        if statement is not None and space.is_plain and not space.ledger.has_any:
            done: str = await self._connection.execute(statement.render(), *statement.params)
            number = rows_of(done)
            space.skip(number)
            await self.flush()
            return number
        span = Span(op.path, op.pattern, op.subtree)
        found = await matching_addresses(self._connection, span, None, self._now)
        doomed = [(path, decode_key(key)) for path, key in found]
        for begin in range(0, len(doomed), _REMOVED_AT_ONCE):
            await self._drop(space, "delete", doomed[begin : begin + _REMOVED_AT_ONCE])
        return len(doomed)

    async def _drop(
        self, space: Workspace, kind: Literal["delete", "expire"], doomed: Sequence[Address]
    ) -> None:
        """Have rows go, with all that hangs on them."""
        if space.indexer is not None:
            await space.load(self._connection, dict.fromkeys(doomed, False))
        await space.ledger.before_drops(self._connection, doomed)
        space.drop(kind, doomed)
        await self.flush()

    # Logs

    async def _pop_entry(self, op: PopEntry) -> Item | None:
        space = await self.lock(root_of(op.path))
        if await space.ledger.begun(self._connection, op.path, "log") is None:
            return None
        place = root_of(op.path), op.path
        row = await self._connection.fetchrow(sequence_statements.FIND_NEWEST, *place, self._now)
        if row is None:
            return None
        key, *rest = row
        await self._drop(space, "delete", [(op.path, key)])
        return item_of(op.namespace, key, rest)

    async def _trim_log(self, op: TrimLog) -> int:
        place = root_of(op.path), op.path
        space = await self.lock(place[0])
        if await space.ledger.begun(self._connection, op.path, "log") is None:
            return 0
        over = await self._connection.fetch(
            sequence_statements.FIND_EXPIRED_ENTRIES, *place, self._now
        )
        if over:
            await self._drop(space, "expire", [(op.path, key) for (key,) in over])
        state = space.ledger.known((op.path,))[op.path]
        number = state.size - op.keep
        if number <= 0:
            return 0
        rows = await self._connection.fetch(sequence_statements.FIND_OLDEST, *place, number)
        space.ledger.trimmed(op.path, rows[-1][0])
        for begin in range(0, len(rows), _REMOVED_AT_ONCE):
            some = rows[begin : begin + _REMOVED_AT_ONCE]
            await self._drop(space, "delete", [(op.path, key) for (key,) in some])
        return len(rows)

    # The past

    async def _rewind(self, op: Rewind) -> int:
        """Bring items back, root by root."""
        if op.path or not op.subtree:
            return await self._rewind_under(root_of(op.path), op, op.path, op.subtree)
        number = 0
        for root, _ in await self._connection.fetch(statements.LIST_ROOTS):
            number += await self._rewind_under(root, op, root, bool(root))
        return number

    async def _rewind_under(self, root: str, op: Rewind, path: str, subtree: bool) -> int:
        connection, space, number = self._connection, await self.lock(root), 0
        when, found = await past.changed_since(
            *(connection, root, op.moment, path, subtree, self._now)
        )
        inside = await space.ledger.find(connection, (path, *(there for there, _ in found)))
        changed = [at for at in found if at[0] not in inside or is_rewound(inside[at[0]], op)]
        for begin in range(0, len(changed), _REWOUND_AT_ONCE):
            known, then = await past.then(
                connection, root, when, changed[begin : begin + _REWOUND_AT_ONCE]
            )
            await space.load(connection, dict.fromkeys(known, True))
            await space.ledger.before_drops(connection, known)
            states = space.ledger.known(dict.fromkeys(there for there, _ in known))
            effects = rewound(known, then, space.rows(known), self._now, space.version, states)
            await self._write(space, effects)
            await self.flush()
            number += len(effects.answers)
        if op.path in inside:
            await space.ledger.recount(connection, (op.path,), {})
            await space.ledger.release(connection, op.path)
            await self.flush()
        return number

    # Imports

    async def _restore(self, op: Restore) -> int:
        """Write records, in pieces that memory holds."""
        for sequence in sorted(op.sequences, key=lambda sequence: sequence.path):
            space = await self.lock(root_of(sequence.path))
            await space.ledger.restore(self._connection, sequence)
        touched = {sequence.path for sequence in op.sequences}
        records = iter(op.records)
        admissions: dict[str, Admission] = {}
        reading = begin_aside(lambda: _take(records))
        while some := await heard(self._connection, reading):
            reading = begin_aside(lambda: _take(records))  # while the server works
            by_root = _by_root(some)
            for root in sorted(by_root):
                space = await self.lock(root)
                if root not in admissions:
                    admissions[root] = await self._admission(space, op)
                for piece in _pieces(by_root[root], is_indexed=space.indexer is not None):
                    touched |= await self._admit(space, admissions[root], piece)
                    await self.flush()
            for space in self._spaces.values():
                space.forget_rows()
        await self._recount(op, touched)
        return sum(admission.written for admission in admissions.values())

    async def _recount(self, op: Restore, touched: set[str]) -> None:
        """Count logs and queues anew, and give the jobs what is known of them."""
        known = {(job.path, job.position): job for each in op.sequences for job in each.jobs}
        for path in sorted(touched):
            space = await self.lock(root_of(path))
            await space.ledger.recount(self._connection, (path,), known)
            await self.flush()

    async def _admission(self, space: Workspace, op: Restore) -> Admission:
        if space.is_watched:  # so that no record replaces an expired item, untold
            root = space.state.root
            found = await self._connection.fetch(statements.FIND_EXPIRED_UNDER, root, self._now)
            over = [(path, decode_key(key)) for path, key in found]
            await self._drop(space, "expire", over)
        return Admission(op, space.version, self._now, is_watched=space.is_watched)

    async def _admit(
        self, space: Workspace, admission: Admission, records: Sequence[Record]
    ) -> set[str]:
        """Write records; return those of their namespaces that are logs or queues."""
        inside = await space.ledger.find(self._connection, (each.path for each in records))
        is_plain = space.is_plain and not inside
        if is_plain and admission.replaces:
            with uncollected():
                rows, versions = admission.take(records)
        else:
            effects = await self._decide(space, admission, records, inside)
            rows = [row for row, _ in effects.writes]
            versions = [row.version for row in rows]
        for row in rows:
            if len(row.path) + len(row.key) > SURELY_SHORT:
                check_length(decode_namespace(row.path), row.path, row.key)
        if is_plain:
            await copy_rows(self._connection, space.state.root, rows, versions)
            space.skip(admission.version - space.version)
        else:
            await self._write(space, effects)
        return set(inside)

    async def _decide(
        self,
        space: Workspace,
        admission: Admission,
        records: Sequence[Record],
        inside: Mapping[str, SequenceState],
    ) -> Effects:
        """Let in what may be, by what is there."""
        live: dict[Address, Record] = {}
        if not admission.replaces or space.indexer is not None or inside:
            addresses = {(each.path, each.key): each.path in inside for each in records}
            await space.load(self._connection, addresses)
            live = space.live(addresses)
        entries = {at: row.data for at, row in live.items() if at[0] in inside}
        with uncollected():
            return admission.admit(records, live, entries, queues_among(inside))

    async def _write(self, space: Workspace, effects: Effects) -> None:
        if space.indexer is None:
            space.write(effects)
        else:
            await aside(self._connection, lambda: space.write(effects))


def _pieces(records: Sequence[Record], *, is_indexed: bool) -> Iterator[Sequence[Record]]:
    """Cut records into what is written by one call: less of those whose words go along."""
    begin = size = 0
    for at, record in enumerate(records):
        if is_indexed and size >= _INDEXED_BYTES:
            yield records[begin:at]
            begin, size = at, 0
        size += len(record.data)
    yield records[begin:]


def _by_root(records: list[Record]) -> dict[str, list[Record]]:
    roots = {path: root_of(path) for path in {record.path for record in records}}
    by_root: dict[str, list[Record]] = {root: [] for root in roots.values()}
    if len(by_root) == 1:
        return dict.fromkeys(by_root, records)
    for record in records:
        by_root[roots[record.path]].append(record)
    return by_root


def _take(records: Iterator[Record]) -> list[Record]:
    """Take what is written at once.

    Raises:
        UnreadableError: they cannot be read on.
    """
    try:
        with uncollected():
            return take_piece(records, _COPIED_AT_ONCE)
    except Exception as exc:
        raise UnreadableError(exc) from exc
