"""Operations that find their items themselves, in a transaction over one root or several."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from kvstore.backend import Span
from kvstore.errors import InvalidArgumentError
from kvstore.namespace import decode_namespace
from kvstore.operations import (
    NAMED,
    OF_SEQUENCE,
    Named,
    Operation,
    Record,
    Remove,
    Restore,
    named_of,
    take_piece,
)
from kvstore.plan import Address, Admission, named
from kvstore.postgres import statements
from kvstore.postgres.connection import Connection
from kvstore.postgres.keys import SURELY_SHORT, check_length, decode_key, root_of
from kvstore.postgres.reading import matching_addresses
from kvstore.postgres.workspace import MakeIndexer, Stamp, Workspace

__all__ = ["Transaction", "UnreadableError", "roots_of"]

_REMOVED_AT_ONCE = 5_000


class UnreadableError(Exception):
    """The records of a `Restore` cannot be read on, and its `reason` says why."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


def roots_of(ops: Sequence[Operation]) -> frozenset[str] | None:
    """Return the roots under which operations write; `None`: they find out themselves."""
    roots = set()
    for op in ops:
        path = getattr(op, "path", None)
        if path is None or (isinstance(op, Remove) and op.subtree and not path):
            return None
        roots.add(root_of(path))
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
        return any(self._spaces[root].is_watched for root in self._changed)

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

    async def apply(self, units: Sequence[Sequence[Named]]) -> list[list[Any] | Exception]:
        """Apply units of operations that name their items; those that fail change nothing."""
        wanted: dict[str, dict[Address, bool]] = {}
        for address, with_value in named(op for ops in units for op in ops).items():
            wanted.setdefault(root_of(address[0]), {})[address] = with_value
        for root in sorted(set(wanted).union(*(roots_of(ops) or () for ops in units))):
            space = await self.lock(root)
            await space.load(self._connection, wanted.get(root, {}))
        outcomes = [self._apply_named(ops) for ops in units]
        await self.flush()
        return outcomes

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
        return [next(answers) if isinstance(op, NAMED) else await self._run(op) for op in ops]

    async def _run(self, op: Operation) -> Any:
        if isinstance(op, OF_SEQUENCE):
            raise NotImplementedError  # it has no logs and no queues
        match op:
            case Remove():
                return await self._remove(op)
            case Restore():
                return await self._restore(op)
        raise InvalidArgumentError("a PostgresStore keeps no history yet")

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
        if statement is not None and not space.is_watched and space.indexer is None:
            done: str = await self._connection.execute(statement.render(), *statement.params)
            number = int(done.rpartition(" ")[2])
            space.skip(number)
            await self.flush()
            return number
        span = Span(op.path, op.pattern, op.subtree)
        found = await matching_addresses(self._connection, span, None, self._now)
        doomed = [(path, decode_key(key)) for path, key in found]
        for begin in range(0, len(doomed), _REMOVED_AT_ONCE):
            some = doomed[begin : begin + _REMOVED_AT_ONCE]
            if space.indexer is not None:
                await space.load(self._connection, dict.fromkeys(some, False))
            space.drop("delete", some)
            await self.flush()
        return len(doomed)

    async def _restore(self, op: Restore) -> int:
        """Write records, in pieces that memory holds."""
        records = iter(op.records)
        admissions: dict[str, Admission] = {}
        while some := await _next_piece(records):
            by_root: dict[str, list[Record]] = {}
            for each in some:
                by_root.setdefault(root_of(each.path), []).append(each)
            for root in sorted(by_root):
                space = await self.lock(root)
                if root not in admissions:
                    admissions[root] = await self._admission(space, op)
                await self._admit(space, admissions[root], by_root[root])
            await self.flush()
        return sum(admission.written for admission in admissions.values())

    async def _admission(self, space: Workspace, op: Restore) -> Admission:
        if space.is_watched:  # so that no record replaces an expired item, untold
            root = space.state.root
            found = await self._connection.fetch(statements.FIND_EXPIRED_UNDER, root, self._now)
            over = [(path, decode_key(key)) for path, key in found]
            if space.indexer is not None:
                await space.load(self._connection, dict.fromkeys(over, False))
            space.drop("expire", over)
        return Admission(op, space.version, self._now, is_watched=space.is_watched)

    async def _admit(
        self, space: Workspace, admission: Admission, records: Sequence[Record]
    ) -> None:
        live: set[Address] = set()
        if not admission.replaces or space.indexer is not None:
            addresses = [(each.path, each.key) for each in records]
            await space.load(self._connection, dict.fromkeys(addresses, False))
            live = space.live(addresses)
        effects = admission.admit(records, live)
        for row, _ in effects.writes:
            if len(row.path) + len(row.key) > SURELY_SHORT:
                check_length(decode_namespace(row.path), row.path, row.key)
        space.write(effects)


async def _next_piece(records: Iterator[Record]) -> list[Record]:
    try:
        return await asyncio.to_thread(take_piece, records)
    except Exception as exc:
        raise UnreadableError(exc) from exc
