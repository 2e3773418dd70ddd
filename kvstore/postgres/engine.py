"""The writers of a store in this process: who waits together is committed together.

While a transaction under a root is on its way, what is asked for meanwhile under that root
gathers, and is the next one. Each caller gets its own result or its own error, once its
transaction is committed. Transactions of different roots go side by side, over connections of
their own. Of many plain puts two transactions of one root may be on their way at once: the server
commits them one after the other, but while it works on one, this process works on the other.

When the connection is lost, nothing that was acknowledged is, and nothing is written twice: each
connection is a writer with a name, and numbers its transactions. The server takes none again, nor
an earlier one, so a transaction whose answer did not come is sent once more. See
kvstore/postgres/workspace.py for how a transaction comes about.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Any, Final, cast

import asyncpg

from kvstore.backlog import Backlog
from kvstore.errors import StoreAccessError, StoreBusyError, StoreError
from kvstore.feed import Bell
from kvstore.metrics import Counters
from kvstore.operations import Append, Mutate, Operation, Put, PutJob
from kvstore.postgres import quick_jobs, statements
from kvstore.postgres.channels import Channel, Try
from kvstore.postgres.connection import (
    Connection,
    DriverError,
    Retries,
    Target,
    hang_up,
    is_lost,
    plan_once,
    reconnect,
    translate,
)
from kvstore.postgres.copying import LEAST_COPIED, copy_plain
from kvstore.postgres.keys import SURELY_SHORT, check_length
from kvstore.postgres.puts import find_puts, put_plain
from kvstore.postgres.queueing import Group, Lines, RootLine, Unit
from kvstore.postgres.quick_jobs import QuickJob
from kvstore.postgres.replica import Replica
from kvstore.postgres.watchman import Watchman
from kvstore.postgres.wide import Transaction, UnreadableError, last_of
from kvstore.postgres.workspace import MakeIndexer, Stamp, Workspace
from kvstore.sequences import DIGITS, LAST_KEY

__all__ = ["Writer"]

_LOG = logging.getLogger("kvstore")

LEAST_PUTS = 64  # on their way or waiting, that two transactions of a root at once are worth it
ROW_S = 10e-6  # what one more row takes the server, roughly
CALLER_S = 6e-6  # what one more put takes this process, which it can do while the server works
OVERHEAD_S = 2e-3  # what a transaction is believed to take by itself, before one was seen
LONG_TURNS = 16  # calls of queues that read before they write, after one that had to
LOCKED_TURNS = 64  # transactions that lock before they read, after one that did not and failed
FEW_CHANNELS = 4  # connections that a store writes over, unless some of them wait for others
_WAITS_S = 0.1  # after which a transaction is believed to wait for others
_TRIES = 5  # for one transaction
_READ_ONLY: Final = "25006"
_CANCELLED: Final = "57014"
_UNSURE: Final = "XX000"  # of Citus, where the machine that commits went away over it
_CONFLICTS: Final = ("40001", "40P01")  # the server gave up one transaction of several


class Writer:
    """Applies units of operations, in transactions that many share.

    Args:
        target: where to.
        connection: for writing.
        most: how many connections it may have.
        least: the newest version there is.
        clock: the present time in seconds since the epoch.
        bell: rung when there is something for those who watch.
        backlog: counts what waits, and is the store's.
        counters: of what is done, likewise.
        make_indexer: from the description of a search index to what keeps it.
        tell: called when something is committed that those who watch elsewhere want to know.
        watchman: told of what is on its way.
        demoted: called when the server takes no writes any more.
        replica: told of each commit, so that it does not serve reads that miss it.

    Attributes:
        newest: version that is known here: those to come are above, under any root.
    """

    def __init__(
        self,
        target: Target,
        connection: Connection,
        *,
        most: int,
        least: int,
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
        self._begin_text = statements.BEGIN_PLANNED if target.plans_once else statements.BEGIN
        self._most = most
        self._watchman = watchman
        self._demoted = demoted
        self._clock = clock
        self._bell = bell
        self._make_indexer = make_indexer
        self._tell = tell
        self._replica = replica
        self._loop = asyncio.get_running_loop()
        self._lines = Lines()
        self._backlog = backlog
        self._counters = counters
        self._is_scheduled = False  # `_begin_waiting` is, for the end of this turn of the loop
        self._impatience: asyncio.TimerHandle | None = None
        self._channels = [Channel(connection)]
        self.newest = least
        self._overhead = OVERHEAD_S
        self._last_done = 0.0  # when the last group was
        self._quiet: asyncio.Future[None] | None = None  # set by `close`, done when all is

    def apply(self, ops: Sequence[Operation]) -> Awaitable[list[Any]]:
        """Apply a unit of operations, and return the answers once it is committed."""
        for op in ops:
            if isinstance(op, (Put, Mutate)) and len(op.path) + len(op.key) > SURELY_SHORT:
                check_length(op.namespace, op.path, op.key)
            elif isinstance(op, (Append, PutJob)) and len(op.path) + DIGITS > SURELY_SHORT:
                check_length(op.namespace, op.path, LAST_KEY)
        return self._apply_later(ops) if self._backlog.is_full else self._queue(ops)

    async def _apply_later(self, ops: Sequence[Operation]) -> list[Any]:
        await self._backlog.room()
        return await self._queue(ops)

    def _queue(self, ops: Sequence[Operation]) -> asyncio.Future[list[Any]]:
        unit = Unit(ops, self._loop.create_future())
        self._backlog.add(unit.size)
        self._lines.add(unit)
        self._schedule()
        return unit.future

    async def close(self) -> None:
        """Commit what waits, then close the connections."""
        while self._backlog.units:  # a woken caller may have queued once more
            self._quiet = self._loop.create_future()
            await self._quiet
        if self._impatience is not None:
            self._impatience.cancel()
        for channel in self._channels:
            if channel.raw is not None:
                await hang_up(channel.raw)

    # Who goes when

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._begin_waiting)

    def _begin_waiting(self) -> None:
        """Send off what waits, as far as it may go now."""
        self._is_scheduled = False
        while (channel := self._free_channel()) is not None:
            group = self._lines.next(self._share)
            if group is None:
                return
            channel.task = self._loop.create_task(self._commit_group(group, channel))

    def _free_channel(self) -> Channel | None:
        """Return a connection over which nothing is on its way, or a place for one.

        There are few; but those do not count that have been busy for long, as they wait for
        another program that writes under their root, or for the network.
        """
        for channel in self._channels:
            if channel.task is None:
                return channel
        late = self._loop.time() - _WAITS_S
        quick = sum(1 for channel in self._channels if not channel.since or channel.since > late)
        if len(self._channels) >= self._most:
            return None
        if quick >= FEW_CHANNELS:
            if self._impatience is None:
                self._impatience = self._loop.call_later(_WAITS_S, self._look_again)
            return None
        self._channels.append(Channel(None))
        return self._channels[-1]

    def _look_again(self) -> None:
        self._impatience = None
        self._schedule()

    def _share(self, line: RootLine) -> int:
        """Return how many transactions of a root at once are quicker than one with all that waits.

        Two are, if what this process can do, while the server works on the other, outweighs what
        a transaction takes by itself, which is mostly the disk's.
        """
        if line.is_indexed:
            return 1
        puts = len(line.waiting) + sum(len(group.units) for group in line.committing)
        return 2 if puts >= LEAST_PUTS and puts * CALLER_S > self._overhead else 1

    async def _commit_group(self, group: Group, channel: Channel) -> None:
        """Commit units, and tell their callers."""
        units = group.units
        try:
            await self._commit_or_fail(group, channel)
        except BaseException as exc:
            for unit in units:
                unit.settle(exc)
            if not isinstance(exc, Exception):
                raise
        finally:
            self._watchman.end(channel)
            channel.since = 0.0
            channel.task = None
            self._last_done = self._loop.time()
            self._lines.done(group)
            self._backlog.subtract(len(units), sum(unit.size for unit in units))
            self._schedule()
            if self._quiet is not None and not self._backlog.units and not self._quiet.done():
                self._quiet.set_result(None)

    # What becomes of a transaction

    async def _commit_or_fail(self, group: Group, channel: Channel) -> None:
        """Commit units, each alone if they cannot be together, and tell their callers."""
        units = group.units
        failure: BaseException | None = None
        has_left = False
        tries: list[Try] = []
        retries = Retries(_TRIES, self._target.busy_timeout)
        while True:
            wanted = units if tries else [unit for unit in units if not unit.future.cancelled()]
            if not wanted:
                return
            units = wanted
            try:
                done = await self._commit(Group(units, group.addresses), channel, tries)
            except DriverError as exc:
                failure = exc
                await self._leave_transaction(exc, channel)
                if self._replica is not None:
                    self._replica.forget()
                if _state(exc) == _READ_ONLY:
                    self._leave_server(channel)
                    if has_left:  # and came to another that is no better
                        break
                    has_left = True
                elif not (_is_worth_a_retry(exc) or (_state(exc) == _UNSURE and tries[-1].is_sent)):
                    break
                if any(unit.is_once for unit in units) or not await retries.wait(exc):
                    break
                self._counters.retries += 1
                _LOG.info("a write is tried again (%s)", type(exc).__name__)
            else:
                self._deliver(units, done)
                return
        assert failure is not None
        if any(each.is_sent for each in tries):
            error: StoreError = self._unknown()
            error.__cause__ = failure
        elif len(units) > 1 and not isinstance(failure, StoreError) and not is_lost(failure):
            for unit in units:
                await self._commit_or_fail(Group([unit], group.addresses), channel)
            return
        else:
            error = translate(failure, self._target.name)
            if error is not failure:
                error.__cause__ = failure
        for unit in units:
            unit.settle(error)

    async def _leave_transaction(self, exc: BaseException, channel: Channel) -> None:
        """See to it that a connection on which something failed has no transaction open."""
        raw = channel.raw
        if raw is None or raw.is_closed():
            return
        if is_lost(exc) or not isinstance(exc, asyncpg.PostgresError) or is_client_side(exc):
            raw.terminate()
        elif raw.is_in_transaction():
            try:
                await raw.execute("ROLLBACK")
            except DriverError:
                raw.terminate()

    def _leave_server(self, channel: Channel) -> None:
        """Go from a server that takes no writes any more, to where the URL leads by now."""
        _LOG.warning("%s is read-only now: its connections are given up", self._target.name)
        if channel.raw is not None:
            channel.raw.terminate()
        self._demoted()

    def _deliver(self, units: list[Unit], done: Try) -> None:
        for unit, outcome in zip(units, done.outcomes, strict=True):
            future = unit.future
            if future.done():  # its caller was cancelled
                continue
            if type(outcome) is list:
                future.set_result(outcome)
            else:
                future.set_exception(outcome)  # type: ignore[arg-type]
        if done.is_news:
            self._bell.ring()
            self._tell()

    async def _commit(self, group: Group, channel: Channel, tries: list[Try]) -> Try:
        """Apply units in one transaction; one that fails by itself leaves the others be.

        Args:
            group: with these units.
            channel: over which to.
            tries: earlier ones of the same units; this one is added.

        Returns:
            What was committed: this try, or an earlier one whose answer did not come.

        Raises:
            DriverError: the transaction as a whole failed.
        """
        raw = await self._connected(channel)
        done = await self._send(raw, group, channel, tries)
        self._counters.committed(len(group.units))
        if self._replica is not None:
            await self._replica.note(raw)
        return done

    async def _connected(self, channel: Channel) -> Connection:
        if channel.raw is None or channel.raw.is_closed():
            if channel.raw is not None:
                self._counters.reconnects += 1
                _LOG.info("the writer connects to %s anew", self._target.name)
            channel.raw = await reconnect(self._target, self._target.busy_timeout)
            await plan_once(channel.raw, self._target)
        self._watchman.begin(channel)
        return channel.raw

    async def _find_done(
        self, raw: Connection, root: str, units: list[Unit], channel: Channel, sent: list[Try]
    ) -> Try:
        """Return the earlier try of the same units that was committed after all."""
        number, base = await last_of(raw, root, channel.writer)
        done = next(each for each in sent if each.number == number)
        if done.puts is not None:
            self._give_out(units, await find_puts(raw, root, done.puts, done.now, base), done)
            done.is_news = True  # as it may be
        elif done.job is not None:
            answer = await quick_jobs.find_answer(raw, root, done.job, base)
            if not answer:
                raise self._unknown()
            done.outcomes = [answer]
            done.is_news = True
        return done

    # Ways to commit

    async def _send(self, raw: Connection, group: Group, channel: Channel, tries: list[Try]) -> Try:
        units = group.units
        roots = units[0].roots
        is_again = any(each.is_sent for each in tries)
        if is_again or roots is None or len(roots) != 1 or not units[0].is_decided:
            return await self._send_locked(raw, units, channel, tries)
        (root,) = roots
        line = self._lines.line(root)
        if group.addresses is not None and not line.is_indexed:
            done = await self._send_plain(raw, group, channel, tries)
            if done is not None:
                return done
        job = quick_jobs.quick_job(units[0].ops) if len(units) == 1 else None
        if job is not None and not line.is_indexed and raw.patience is None:
            if not line.long_turns:
                done = await self._send_job(raw, job, channel, tries, line)
                if done is not None:
                    return done
                line.long_turns = LONG_TURNS
            line.long_turns -= 1
        if not line.locked_turns and not self._target.is_pooler:
            line.locked_turns = LOCKED_TURNS  # unless this goes well
            done = await self._send_looked(raw, units, channel, tries, line)
            if done is not None:
                line.locked_turns = 0
                return done
        line.locked_turns = max(0, line.locked_turns - 1)
        return await self._send_locked(raw, units, channel, tries)

    async def _send_plain(
        self, raw: Connection, group: Group, channel: Channel, tries: list[Try]
    ) -> Try | None:
        """Commit plain puts by one call; `None`: it takes more than that."""
        units = group.units
        (root,) = cast("frozenset[str]", units[0].roots)
        attempt, stamp = channel.begin(self._clock(), tries, root)
        attempt.puts = [op for unit in units for op in unit.ops]  # type: ignore[misc]
        began = self._loop.time()
        attempt.is_sent = True
        try:
            copied = None
            if len(attempt.puts) >= LEAST_COPIED:
                copied = await self._copy_plain(raw, root, attempt, stamp)
            if copied is not None:
                items, attempt.is_news = copied, False
            else:
                if self._target.is_pooler:
                    await raw.execute(statements.BEGIN)
                items, attempt.is_news = await put_plain(
                    raw, root, attempt.puts, attempt.now, self.newest, stamp
                )
            if raw.is_in_transaction():
                await raw.execute("COMMIT")
        except asyncpg.PostgresError as exc:
            if exc.sqlstate != statements.NOT_PLAIN:
                attempt.is_sent = self._may_be_done(exc)
                raise
            attempt.is_sent = False
            if raw.is_in_transaction():
                await raw.execute("ROLLBACK")
            return None
        taken = self._loop.time() - max(began, self._last_done)  # before, it waited for another
        self._overhead += (max(0.0, taken - len(items) * ROW_S) - self._overhead) / 8
        self._give_out(units, items, attempt)
        return attempt

    async def _send_job(
        self, raw: Connection, job: QuickJob, channel: Channel, tries: list[Try], line: RootLine
    ) -> Try | None:
        """Put, take or finish a job by one call; `None`: it takes more than that."""
        attempt, stamp = channel.begin(self._clock(), tries, line.root)
        attempt.job = job
        call = quick_jobs.run(raw, line.root, job, attempt.now, self.newest, stamp)
        try:
            answer, version = await self._sent(attempt, call)
        except asyncpg.PostgresError as exc:
            if exc.sqlstate != statements.NOT_PLAIN:
                raise
            return None
        self.newest = max(self.newest, version)
        attempt.outcomes = [[answer]]
        attempt.is_news = isinstance(job, PutJob)
        return attempt

    async def _copy_plain(
        self, raw: Connection, root: str, attempt: Try, stamp: Stamp
    ) -> list[Any] | None:
        """Write many puts in a transaction, which is left open; `None`: it takes more than that."""
        assert attempt.puts is not None
        await raw.execute(self._begin_text)
        items = await copy_plain(raw, root, attempt.puts, attempt.now, self.newest, stamp)
        if items is None:
            await raw.execute("ROLLBACK")
        return items

    def _give_out(self, units: list[Unit], items: list[Any], attempt: Try) -> None:
        self.newest = max(self.newest, items[-1].version)
        if len(items) == len(units):
            attempt.outcomes = [[item] for item in items]
            return
        rest = iter(items)
        attempt.outcomes = [list(islice(rest, len(unit.ops))) for unit in units]

    async def _send_looked(
        self,
        raw: Connection,
        units: list[Unit],
        channel: Channel,
        tries: list[Try],
        line: RootLine,
    ) -> Try | None:
        """Read, decide, and only then lock and write; `None`: somebody has written meanwhile."""
        attempt, stamp = channel.begin(self._clock(), tries, line.root)
        ops: Any = [unit.ops for unit in units]
        make = self._make_indexer
        space = None
        while space is None:
            space = await Workspace.look(
                raw, line.root, ops, attempt.now, self.newest, make, is_indexed=line.is_indexed
            )
            if space is None:
                await raw.execute(statements.BEGIN_ROOT, line.root)
        line.is_indexed = space.indexer is not None
        if space.ledger.needs_lock or (space.ledger.begins and len(units) > 1):
            return None
        attempt.outcomes = await space.apply_all(raw, ops)
        attempt.is_news = space.is_news
        if not space.is_changed:
            return attempt
        call = space.in_one_call(stamp, raw.patience)
        if call is not None:
            is_done = await self._sent(attempt, raw.fetchval(call[0], *call[1]))
        else:
            await raw.execute(statements.BEGIN)
            is_done = await space.flush(raw, stamp)
            if is_done:
                await self._sent(attempt, raw.execute("COMMIT"))
            else:
                await raw.execute("ROLLBACK")
        if not is_done:
            attempt.is_sent = False
            return None
        self.newest = max(self.newest, space.version)
        return attempt

    async def _sent(self, attempt: Try, sending: Awaitable[Any]) -> Any:
        """Wait for what the server may commit."""
        attempt.is_sent = True
        try:
            return await sending
        except asyncpg.PostgresError as exc:
            attempt.is_sent = self._may_be_done(exc)
            raise

    def _may_be_done(self, exc: asyncpg.PostgresError) -> bool:
        """Whether what has failed may be committed all the same."""
        if is_lost(exc) or is_client_side(exc):
            return True
        return self._target.is_distributed and exc.sqlstate in (_UNSURE, _CANCELLED)

    async def _send_locked(
        self, raw: Connection, units: list[Unit], channel: Channel, tries: list[Try]
    ) -> Try:
        """Lock, then read and write; unless an earlier try turns out to be committed."""
        sent = [each for each in tries if each.is_sent]
        attempt, stamp = channel.begin(self._clock(), tries, "")
        make = self._make_indexer
        await raw.execute(self._begin_text)
        transaction = Transaction(raw, attempt.now, self.newest, make, stamp)
        for root in sorted({each.root for each in sent}):
            is_done = await transaction.is_done(root)
            if is_done is None:
                raise self._unknown()
            if is_done:
                await raw.execute("ROLLBACK")
                return await self._find_done(raw, root, units, channel, sent)
        if len(units) > 1 or units[0].is_decided:
            ops: Any = [unit.ops for unit in units]
            attempt.outcomes = await transaction.apply(ops)
        else:
            outcome = await self._apply_wide(transaction, units[0])
            attempt.outcomes = [outcome]
            if isinstance(outcome, Exception):
                await raw.execute("ROLLBACK")
                return attempt
        if sent:
            await transaction.flush(is_forced=True)
        attempt.is_news = transaction.is_news
        if transaction.changed_root is None:
            await raw.execute("COMMIT")
        else:
            attempt.root = transaction.changed_root
            await self._sent(attempt, raw.execute("COMMIT"))
        self.newest = max(self.newest, transaction.version)
        for unit in units:
            for root in unit.roots or ():
                self._lines.line(root).is_indexed = transaction.space(root).indexer is not None
        return attempt

    async def _apply_wide(self, transaction: Transaction, unit: Unit) -> list[Any] | Exception:
        try:
            return await transaction.apply_wide(unit.ops)
        except UnreadableError as exc:
            return exc.reason
        except Exception as exc:
            if isinstance(exc, DriverError) and not isinstance(exc, StoreError):
                raise
            return exc

    def _unknown(self) -> StoreAccessError:
        return StoreAccessError(
            f"the connection to {self._target.name} was lost while this was being committed, and "
            "it is unknown whether it was applied: read the items, and write them again if need be"
        )


def is_client_side(exc: asyncpg.PostgresError) -> bool:
    """Whether an error is the driver's own word for a lost connection, and not the server's."""
    return (exc.sqlstate or "08").startswith("08")


def _state(exc: BaseException) -> str | None:
    return getattr(exc, "sqlstate", None)


def _is_worth_a_retry(exc: BaseException) -> bool:
    if isinstance(exc, StoreBusyError):
        return False
    if isinstance(exc, asyncpg.PostgresError) and exc.sqlstate in _CONFLICTS:
        return True
    return not isinstance(exc, StoreError) and is_lost(exc)
