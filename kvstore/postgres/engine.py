"""The one writer of a store in this process: who waits together is committed together.

While a transaction is on its way, what is asked for meanwhile gathers, and is the next one. Each
caller gets its own result or its own error, once its transaction is committed. Of many plain puts
two transactions may be on their way at once, on two connections: the server commits them one after
the other, but while it works on one, this process works on the other.

When the connection is lost, nothing that was acknowledged is, and nothing is written twice: what
certainly was not committed is tried again on a new connection; what may have been is looked up by
its transaction's number (or, of what is one statement, by what it has written, once the server's
process that may still be at it is gone). What cannot be told raises `StoreAccessError`, and says
so.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from random import getrandbits
from typing import Any, Final

import asyncpg

from kvstore.backlog import Backlog
from kvstore.errors import StoreAccessError, StoreBusyError, StoreError
from kvstore.feed import Bell
from kvstore.instants import to_micros
from kvstore.metrics import Counters
from kvstore.operations import Mutate, Operation, Put, Restore
from kvstore.postgres import statements
from kvstore.postgres.connection import (
    Connection,
    DriverError,
    Target,
    hang_up,
    is_lost,
    reconnect,
    translate,
)
from kvstore.postgres.keys import SURELY_SHORT, Address, check_length
from kvstore.postgres.replica import Replica
from kvstore.postgres.watchman import Watched, Watchman
from kvstore.postgres.writing import Batch, MakeIndexer, find_plain, is_simple, put_plain

__all__ = ["Writer"]

_LOG = logging.getLogger("kvstore")

BATCH_OPS = 2_000  # what one group commit may hold, so that it never holds the lock long
BATCH_BYTES = 8 * 2**20
PLAIN_BYTES = 64 * 2**20  # what one statement may hold; a message ends at 1 GB
LEAST_PUTS = 64  # on their way or waiting, that two transactions at once are worth it
ROW_S = 10e-6  # what one more row takes the server, roughly
CALLER_S = 6e-6  # what one more put takes this process, which it can do while the server works
TOLL_S = 2e-3  # what a transaction is believed to take, however little it does, before one was seen
LOCKED_TURNS = 64  # transactions that lock before they read, after one that did not and failed
_TRIES = 5  # for one transaction
_ASK_PAUSE_S = 0.05  # between two questions for the outcome of a transaction
_READ_ONLY: Final = "25006"
_CONFLICTS: Final = ("40001", "40P01")  # the server gave up one transaction of several


class _Unit:
    """Operations that are applied together or not at all, and the caller that waits for them."""

    __slots__ = ("future", "is_bare", "is_once", "is_plain", "ops", "size")

    def __init__(self, ops: Sequence[Operation], future: asyncio.Future[list[Any]]) -> None:
        self.ops = ops
        self.future = future
        plain = bare = True
        once = False
        size = 256 * len(ops)
        for op in ops:
            if type(op) is Put:
                size += len(op.data)
                if op.expected is not None or op.keep:
                    plain = False
                if op.ttl is not None or op.indexing is not None:
                    bare = False
            else:
                plain = False
                once = once or type(op) is Restore
        self.is_plain = plain  # puts without conditions ...
        self.is_bare = bare  # ... and without lifetime and indexing of their own
        self.is_once = once  # what it carries can be read but once
        self.size = size  # roughly, in bytes

    def settle(self, outcome: list[Any] | BaseException) -> None:
        if self.future.done():  # its caller was cancelled
            return
        if isinstance(outcome, BaseException):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class _Attempt:
    """How far a transaction got."""

    def __init__(self) -> None:
        self.units: list[_Unit] = []  # of a transaction that is one statement
        self.now = 0
        self.xid = ""
        self.turns: tuple[int, int] | None = None  # before and after, of one that takes no lock
        self.is_sent = False  # the server may have been told to commit
        self.outcomes: list[list[Any] | Exception] = []
        self.is_news = False


@dataclass(slots=True, eq=False)
class _Lane(Watched):
    """A connection for writing, and what is on its way over it.

    Attributes:
        addresses: what the flight writes; `None`: it flies alone.
        is_distinct: whether the flight writes no item twice.
    """

    backend: tuple[int, Any] | None = None  # which of the server's processes serves it
    flight: asyncio.Task[None] | None = None
    addresses: set[Address] | None = None
    is_distinct: bool = False


class Writer:
    """Applies units of operations, in transactions that many share.

    Args:
        target: where to.
        connection: for writing.
        clock: the present time in seconds since the epoch.
        bell: rung when there is something for those who watch.
        backlog: counts what waits, and is the store's.
        counters: of what is done, likewise.
        make_indexer: from the description of the search index to what keeps it.
        tell: called when something is committed that those who watch elsewhere want to know.
        watchman: told of what is on its way.
        demoted: called when the server takes no writes any more.
        replica: told of each commit, so that it does not serve reads that miss it.
    """

    def __init__(
        self,
        target: Target,
        connection: Connection,
        *,
        clock: Callable[[], float],
        bell: Bell,
        backlog: Backlog,
        counters: Counters,
        make_indexer: MakeIndexer,
        tell: Callable[[], None],
        watchman: Watchman,
        demoted: Callable[[], None],
        replica: Replica | None = None,
    ) -> None:
        self._target = target
        self._watchman = watchman
        self._demoted = demoted
        self._clock = clock
        self._busy_timeout = target.busy_timeout
        self._bell = bell
        self._make_indexer = make_indexer
        self._tell = tell
        self._replica = replica
        self._locked_turns = 0  # to come
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Unit] = deque()
        self._backlog = backlog
        self._counters = counters
        self._is_scheduled = False  # `_launch` is, for the end of this turn of the loop
        self._lanes = [_Lane(connection), _Lane(None)]
        self._is_plain = True  # no one watched, and there was no index, at the last look
        self._version = -1  # of the store after the last commit here; -1: unknown
        self._toll = TOLL_S
        self._landed = 0.0  # when the last flight did
        self._quiet: asyncio.Future[None] | None = None  # set by `close`, done when all is

    def apply(self, ops: Sequence[Operation]) -> Awaitable[list[Any]]:
        """Apply a unit of operations, and return the answers once it is committed."""
        for op in ops:
            if isinstance(op, (Put, Mutate)) and len(op.path) + len(op.key) > SURELY_SHORT:
                check_length(op.namespace, op.path, op.key)
        return self._apply_later(ops) if self._backlog.is_full else self._queue(ops)

    async def _apply_later(self, ops: Sequence[Operation]) -> list[Any]:
        await self._backlog.room()
        return await self._queue(ops)

    def _queue(self, ops: Sequence[Operation]) -> asyncio.Future[list[Any]]:
        unit = _Unit(ops, self._loop.create_future())
        self._backlog.add(unit.size)
        self._waiting.append(unit)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._launch)
        return unit.future

    async def close(self) -> None:
        """Commit what waits, then close the connections."""
        while self._backlog.units:  # a woken caller may have queued once more
            self._quiet = self._loop.create_future()
            await self._quiet
        for lane in self._lanes:
            if lane.raw is not None:
                await hang_up(lane.raw)

    def _launch(self) -> None:
        """Send off what waits, as far as it may go now."""
        self._is_scheduled = False
        while self._waiting:
            free = [lane for lane in self._lanes if lane.flight is None]
            others = [lane.addresses for lane in self._lanes if lane.flight is not None]
            if not free or None in others or (others and not self._is_overlapping):
                return
            units = self._take(len(free))
            addresses = self._addresses(units)
            if others and (
                addresses is None or not all(map(addresses.isdisjoint, others))  # type: ignore[arg-type]
            ):
                self._waiting.extendleft(reversed(units))
                return
            lane = free[0]
            lane.addresses = addresses
            lane.is_distinct = addresses is not None and len(addresses) == sum(
                len(unit.ops) for unit in units
            )
            lane.flight = self._loop.create_task(self._fly(units, lane))

    @property
    def _is_overlapping(self) -> bool:
        """Whether two transactions at once are quicker than one with all that waits.

        They are if what this process can do, while the server works on the other, outweighs what
        a transaction takes by itself, which is mostly the disk's.
        """
        puts = self._backlog.units
        return puts >= LEAST_PUTS and puts * CALLER_S > self._toll

    def _addresses(self, units: list[_Unit]) -> set[Address] | None:
        """Return the items that plain puts name; `None`: there are other operations.

        What is not plain flies alone, and no two flights have an item in common: so writes of an
        item are applied in the order in which they were asked for.
        """
        if not self._is_plain or not units[0].is_plain:
            return None
        return {(op.path, op.key) for unit in units for op in unit.ops}  # type: ignore[union-attr]

    def _take(self, lanes: int) -> list[_Unit]:
        """Take from the queue what one transaction may hold.

        Where two may be on their way at once, and none is yet, a half is left for the other.
        """
        waiting = self._waiting
        first = waiting[0]
        kind, most = first.is_plain, BATCH_OPS
        sorts_out = self._is_plain
        if kind and sorts_out and self._is_overlapping:
            most = min(most, -(-len(waiting) // lanes))
        taken: list[_Unit] = []
        ops = size = 0
        while waiting:
            unit = waiting[0]
            ops += len(unit.ops)
            size += unit.size
            if taken and (
                ops > most
                or size > BATCH_BYTES
                or (sorts_out and unit.is_plain is not kind)
                or unit.is_once
                or first.is_once
            ):
                break
            taken.append(waiting.popleft())
        return taken

    async def _fly(self, units: list[_Unit], lane: _Lane) -> None:
        """Commit units, and tell their callers."""
        try:
            await self._commit_or_fail(units, lane)
        except BaseException as exc:
            for unit in units:
                unit.settle(exc)
            if not isinstance(exc, Exception):
                raise
        finally:
            self._watchman.end(lane)
            lane.flight = None
            self._landed = self._loop.time()
            self._backlog.subtract(len(units), sum(unit.size for unit in units))
            if not self._is_scheduled:
                self._is_scheduled = True
                self._loop.call_soon(self._launch)
            if self._quiet is not None and not self._backlog.units and not self._quiet.done():
                self._quiet.set_result(None)

    async def _commit_or_fail(self, units: list[_Unit], lane: _Lane) -> None:
        """Commit units, each alone if they cannot be together, and tell their callers."""
        failure: BaseException | None = None
        has_left = False
        for _ in range(_TRIES):
            wanted = [unit for unit in units if not unit.future.cancelled()]
            if not wanted:
                return
            attempt = _Attempt()
            try:
                await self._commit(wanted, attempt, lane)
            except DriverError as exc:
                failure = exc
                if self._replica is not None:
                    self._replica.forget()
                if await self._is_committed(attempt, exc, lane):
                    await self._note_again(lane)
                    self._deliver(wanted, attempt)
                    return
                if getattr(exc, "sqlstate", None) == _READ_ONLY:
                    self._leave(lane)
                    if has_left:  # and came to another that is no better
                        break
                    has_left = True
                elif not _is_worth_a_retry(exc):
                    break
                if any(unit.is_once for unit in units):
                    break
                self._counters.retries += 1
                _LOG.info("a write is tried again (%s)", type(exc).__name__)
            else:
                self._deliver(wanted, attempt)
                return
        assert failure is not None
        if len(units) > 1 and not isinstance(failure, StoreError) and not is_lost(failure):
            for unit in units:
                await self._commit_or_fail([unit], lane)
            return
        error = translate(failure, self._target.name)
        if error is not failure:
            error.__cause__ = failure
        for unit in units:
            unit.settle(error)

    def _leave(self, lane: _Lane) -> None:
        """Go from a server that takes no writes any more, to where the URL leads by now."""
        _LOG.warning("%s is read-only now: its connections are given up", self._target.name)
        if lane.raw is not None:
            lane.raw.terminate()
        self._demoted()

    def _deliver(self, units: list[_Unit], attempt: _Attempt) -> None:
        for unit, outcome in zip(units, attempt.outcomes, strict=True):
            future = unit.future
            if future.done():  # its caller was cancelled
                continue
            if type(outcome) is list:
                future.set_result(outcome)
            else:
                future.set_exception(outcome)  # type: ignore[arg-type]
        if attempt.is_news:
            self._bell.ring()
            self._tell()

    async def _commit(self, units: list[_Unit], attempt: _Attempt, lane: _Lane) -> None:
        """Apply units in one transaction; one that fails by itself leaves the others be.

        Raises:
            DriverError: the transaction as a whole failed; `attempt` tells how far it got.
        """
        raw = await self._connection(lane)
        began = self._loop.time()
        attempt.now = to_micros(self._clock())
        is_done = False
        if (
            self._is_plain
            and all(unit.is_plain for unit in units)
            and sum(unit.size for unit in units) <= PLAIN_BYTES
        ):
            is_done = await self._commit_plain(raw, units, attempt, lane.is_distinct)
            rows = sum(len(unit.ops) for unit in units)
            taken = self._loop.time() - max(began, self._landed)  # before, it waited for another
            self._toll += (max(0.0, taken - rows * ROW_S) - self._toll) / 8
        elif self._may_look(units):
            is_done = await self._commit_looked(raw, units, attempt)
        if not is_done:
            await self._commit_batch(raw, units, attempt)
        self._counters.committed(len(units))
        if self._replica is not None:
            await self._replica.note(raw)

    async def _connection(self, lane: _Lane) -> Connection:
        if lane.raw is None or lane.raw.is_closed():
            lane.backend = None
            if lane.raw is not None:
                self._counters.reconnects += 1
                _LOG.info("the writer connects to %s anew", self._target.name)
            lane.raw = await reconnect(self._target, self._busy_timeout)
        if lane.backend is None and not self._target.is_pooler:
            lane.backend = (lane.raw.pid or 0, lane.raw.started)
        self._watchman.begin(lane)
        return lane.raw

    async def _commit_plain(
        self, raw: Connection, units: list[_Unit], attempt: _Attempt, is_distinct: bool
    ) -> bool:
        """Commit plain puts by one statement; whether that was possible."""
        puts: list[Put] = [op for unit in units for op in unit.ops]  # type: ignore[misc]
        attempt.units = units
        is_bare = is_distinct and all(unit.is_bare for unit in units)
        if self._target.is_pooler:
            await raw.execute(statements.BEGIN)
            attempt.xid = await raw.fetchval(statements.GET_XID)
            items = await put_plain(raw, puts, attempt.now, is_bare=is_bare)
            if items is not None:
                self._give_out(units, items, attempt)
                attempt.is_sent = True
            await raw.execute("COMMIT")
        else:
            attempt.is_sent = True
            items = await put_plain(raw, puts, attempt.now, is_bare=is_bare)
            if items is not None:
                self._give_out(units, items, attempt)
        if items is None:
            attempt.is_sent = False
            attempt.units = []
            attempt.xid = ""
            self._is_plain = False
            return False
        return True

    def _give_out(self, units: list[_Unit], items: list[Any], attempt: _Attempt) -> None:
        self._version = items[-1].version
        if len(items) == len(units):
            attempt.outcomes = [[item] for item in items]
            return
        rest = iter(items)
        attempt.outcomes = [list(islice(rest, len(unit.ops))) for unit in units]

    def _may_look(self, units: list[_Unit]) -> bool:
        """Whether to read before the state is locked, in the hope that nobody else writes."""
        return (
            not self._locked_turns
            and not self._target.is_pooler
            and all(is_simple(unit.ops) for unit in units)
        )

    async def _commit_looked(self, raw: Connection, units: list[_Unit], attempt: _Attempt) -> bool:
        """Read, apply, and only then lock and write; whether nobody else has written meanwhile."""
        self._locked_turns = LOCKED_TURNS  # unless this goes well
        batch = Batch(raw, attempt.now, self._make_indexer)
        attempt.outcomes = await batch.look([unit.ops for unit in units])
        if not batch.is_changed:
            self._note_state(batch)
        elif batch.is_writable:
            attempt.turns = batch.turn, getrandbits(62)
            attempt.is_sent = True
            if not await batch.write(attempt.turns[1]):
                attempt.turns = None
                attempt.is_sent = False
                return False
            self._note_state(batch)
        else:
            await raw.execute(statements.BEGIN)
            if not await batch.lock():
                await raw.execute("ROLLBACK")
                return False
            await batch.flush()
            await self._finish(raw, batch, attempt)
        self._locked_turns = 0
        return True

    async def _commit_batch(self, raw: Connection, units: list[_Unit], attempt: _Attempt) -> None:
        await raw.execute(statements.BEGIN)
        batch = Batch(raw, attempt.now, self._make_indexer)
        await batch.begin()
        attempt.outcomes = await batch.apply([unit.ops for unit in units])
        await self._finish(raw, batch, attempt)
        self._locked_turns = max(0, self._locked_turns - 1)

    async def _finish(self, raw: Connection, batch: Batch, attempt: _Attempt) -> None:
        attempt.xid = batch.xid
        attempt.is_news = batch.is_news
        attempt.is_sent = True
        await raw.execute(f"{batch.finish()} COMMIT")
        self._note_state(batch)

    def _note_state(self, batch: Batch) -> None:
        self._is_plain = not batch.is_watched and batch.index is None
        self._version = batch.version

    async def _is_committed(self, attempt: _Attempt, exc: BaseException, lane: _Lane) -> bool:
        """Whether a transaction that failed is committed all the same; leaves no transaction open.

        Raises:
            StoreAccessError: that cannot be told.
        """
        if isinstance(exc, StoreError):  # of a connection that could not be had
            return False
        certainly_not = isinstance(exc, asyncpg.PostgresError) and not is_client_side(exc)
        if lane.raw is not None and not lane.raw.is_closed():
            if certainly_not and not is_lost(exc):
                try:
                    await lane.raw.execute("ROLLBACK")
                except DriverError:
                    lane.raw.terminate()
            else:
                lane.raw.terminate()
        if certainly_not or not attempt.is_sent:
            return False
        try:
            return await self._ask(attempt, lane)
        except (StoreError, *DriverError) as second:
            if lane.raw is not None:
                lane.raw.terminate()
            raise self._unknown() from second

    async def _ask(self, attempt: _Attempt, lane: _Lane) -> bool:
        """Ask the server, on a new connection, what has become of a transaction."""
        before = lane.backend
        raw = await self._connection(lane)
        if attempt.turns is not None:
            await self._end(raw, before)
            turn = await raw.fetchval(statements.GET_TURN)
            if turn not in attempt.turns:
                raise self._unknown()
            return bool(turn == attempt.turns[1])
        if attempt.units and not attempt.xid:
            await self._end(raw, before)
            puts: list[Put] = [op for unit in attempt.units for op in unit.ops]  # type: ignore[misc]
            items = await find_plain(raw, puts, attempt.now, self._version)
            if items is None:
                raise self._unknown()
            if items:
                self._give_out(attempt.units, items, attempt)
            return bool(items)
        deadline = self._loop.time() + self._busy_timeout
        while True:
            async with raw.transaction():
                outcome = await raw.fetchval(statements.GET_OUTCOME, attempt.xid)
            if outcome == "committed":
                return True
            if outcome == "aborted":
                return False
            if outcome is None or self._loop.time() > deadline:
                raise self._unknown()
            await asyncio.sleep(_ASK_PAUSE_S)  # its session has not noticed yet

    async def _end(self, raw: Connection, backend: tuple[int, Any] | None) -> None:
        """See to it that a process of the server does nothing more."""
        assert backend is not None
        deadline = self._loop.time() + self._busy_timeout
        while await raw.fetch(statements.END_BACKEND, *backend):
            if self._loop.time() > deadline:
                raise self._unknown()
            await asyncio.sleep(_ASK_PAUSE_S)

    async def _note_again(self, lane: _Lane) -> None:
        """Tell the replica of what turned out to be committed."""
        if self._replica is not None and lane.raw is not None:
            try:
                await self._replica.note(lane.raw)
            except DriverError:
                self._replica.forget()

    def _unknown(self) -> StoreAccessError:
        return StoreAccessError(
            f"the connection to {self._target.name} was lost while this was being committed, and "
            "it is unknown whether it was applied: read the items, and write them again if need be"
        )


def is_client_side(exc: asyncpg.PostgresError) -> bool:
    """Whether an error is the driver's own word for a lost connection, and not the server's."""
    return (exc.sqlstate or "08").startswith("08")


def _is_worth_a_retry(exc: BaseException) -> bool:
    if isinstance(exc, StoreBusyError):
        return False
    if isinstance(exc, asyncpg.PostgresError) and exc.sqlstate in _CONFLICTS:
        return True
    return not isinstance(exc, StoreError) and is_lost(exc)
