"""The writers of a store in this process: who waits together is committed together.

While a transaction under a root is on its way, what is asked for meanwhile under that root
gathers, and is the next one. Each caller gets its own result or its own error, once its
transaction is committed. Transactions of different roots go side by side, over connections of
their own; but puts without conditions that wait under many roots go together, as far as nobody
else has these locked. Of many plain puts two transactions may be on their way at once, also of one
root: the server commits these one after the other, but while it works on one, this process works
on the other.

When the connection is lost, nothing that was acknowledged is, and nothing is written twice: each
connection is a writer with a name, and numbers its transactions. The server takes none again, nor
an earlier one, so a transaction whose answer did not come is sent once more. See
kvstore/postgres/workspace.py for how a transaction comes about.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from kvstore.errors import StoreBusyError, StoreError
from kvstore.operations import Append, Mutate, Operation, Put, PutColumns, PutJob
from kvstore.postgres.channels import Channel, Try
from kvstore.postgres.connection import (
    Connection,
    DriverError,
    Retries,
    Target,
    hang_up,
    is_demoted,
    is_lost,
    is_passing,
    leave_transaction,
    pauses,
    plan_once,
    reconnect,
    state_of,
    translate,
)
from kvstore.postgres.keys import SURELY_SHORT, check_length, check_lengths
from kvstore.postgres.queueing import Group, Lines, RootLine, Unit, by_root, is_quick
from kvstore.postgres.replica import Replica
from kvstore.postgres.sending import UNSURE, Sender, unknown_outcome
from kvstore.postgres.watchman import Watchman
from kvstore.postgres.wide import roots_of
from kvstore.postgres.workspace import MakeIndexer, is_decided
from kvstore.report import Counters
from kvstore.sequences import DIGITS, LAST_KEY
from kvstore.waiting import Backlog, Bell

__all__ = ["Writer"]

_LOG = logging.getLogger("kvstore")

LEAST_PUTS = 64  # on their way or waiting, that two transactions of a root at once are worth it
CALLER_S = 6e-6  # what one more put takes this process, which it can do while the server works
FEW_CHANNELS = 4  # connections that a store writes over, unless some of them wait for others
GATHER_S = 1e-3  # for which puts wait for those that are on their way, to go with more of them
_WAITS_S = 0.1  # after which a transaction is believed to wait for others
_TRIES = 5  # for one transaction


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
        self._most = most
        self._watchman = watchman
        self._demoted = demoted
        self._bell = bell
        self._tell = tell
        self._replica = replica
        self._loop = asyncio.get_running_loop()
        # Where a transaction is several messages, a client that stops would hold many roots
        self._lines = Lines(gathers=not (target.is_distributed or target.is_pooler))
        self._going: dict[Group, float] = {}  # plain puts that are on their way, and since when
        self._backlog = backlog
        self._counters = counters
        self._is_scheduled = False  # `_begin_waiting` is, for the end of this turn of the loop
        self._goes_alone = False  # what comes next, most likely, as the last group was one unit
        self._impatience: asyncio.TimerHandle | None = None
        self._channels = [Channel(connection)]
        self._starved: list[Channel] = []  # that wait for a connection, as the server is full
        self._sender = Sender(target, self._lines, least, clock, make_indexer)
        self._quiet: asyncio.Future[None] | None = None  # set by `close`, done when all is

    @property
    def newest(self) -> int:
        """The newest version that is known here: those to come are above, under any root."""
        return self._sender.newest

    def learn(self, version: int) -> None:
        """Take note of a version that was given out elsewhere."""
        self._sender.newest = max(self._sender.newest, version)

    def apply(self, ops: Sequence[Operation]) -> Awaitable[list[Any]]:
        """Apply a unit of operations, and return the answers once it is committed."""
        if isinstance(ops, PutColumns):
            check_lengths(ops.namespace, ops.path, ops.keys)
            return self._apply_later(ops) if self._backlog.is_full else self._queue(ops)
        for op in ops:
            if isinstance(op, (Put, Mutate)) and len(op.path) + len(op.key) > SURELY_SHORT:
                check_length(op.namespace, op.path, op.key)
            elif isinstance(op, (Append, PutJob)) and len(op.path) + DIGITS > SURELY_SHORT:
                check_length(op.namespace, op.path, LAST_KEY)
        if self._goes_alone and not self._backlog.units and is_quick(ops):
            return self._apply_alone(ops)
        return self._apply_later(ops) if self._backlog.is_full else self._queue(ops)

    def locks_first(self, ops: Sequence[Operation]) -> bool:
        """Whether a unit is likely to be decided under the lock, and not by a look before."""
        roots = roots_of(ops)
        if roots is None or not is_decided(ops):
            return False
        return (
            self._target.is_pooler
            or len(roots) > 1
            or any(self._lines.line(root).locked_turns for root in roots)
        )

    async def _apply_later(self, ops: Sequence[Operation]) -> list[Any]:
        await self._backlog.room()
        return await self._queue(ops)

    def _queue(self, ops: Sequence[Operation]) -> asyncio.Future[list[Any]]:
        unit = Unit(ops, self._loop.create_future())
        self._backlog.add(unit.size)
        self._lines.add(unit)
        self._schedule()
        return unit.future

    async def _apply_alone(self, ops: Sequence[Operation]) -> list[Any]:
        """Apply a quick call that nobody is likely to go with, in the task of its caller.

        That spares two turns of the loop. What does not go well goes on in a task of its own, and
        so does what is cancelled: it may be committed, and others wait for its end.
        """
        channel = self._channels[0]
        if self._backlog.units or not channel.prepared or not channel.is_open:
            return await self._queue(ops)
        unit = Unit(ops, self._loop.create_future())
        group = self._lines.send_alone(unit)
        if group is None:
            return await self._queue(ops)
        self._backlog.add(unit.size)
        channel.task = unit.future
        self._watchman.begin(channel)
        if unit.is_plain:
            self._going[group] = channel.since
        tries: list[Try] = []
        failure: Exception | None = None
        try:
            done = await self._sender.send_quick(group, channel, tries)
        except asyncio.CancelledError:
            unit.future.cancel()
            self._start(group, channel, tries, ConnectionAbortedError("its caller has gone"))
            raise
        except Exception as exc:  # noqa: BLE001 - it goes on there
            done, failure = None, exc
        if done is None:
            group.addresses = None  # as it is nothing quick
            self._start(group, channel, tries, failure)
            return await unit.future
        self._counters.committed(1)
        self._end(group, channel)
        if done.is_news:
            self._bell.ring()
            self._tell()
        return cast("list[Any]", done.outcomes[0])

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
        while self._lines.may_go and (channel := self._free_channel()) is not None:
            group = self._gather() or self._lines.next(self._share)
            if group is None:
                return
            if group.addresses is not None:
                self._going[group] = self._loop.time()
            self._start(group, channel, [])

    def _gather(self) -> Group | None:
        """Take plain puts under many roots, unless it is better to wait for more of them.

        As long as some are on their way that have only just begun, others gather: a call for many
        costs little more than one for each of a few. Where it takes longer, they do not wait.
        """
        if not self._lines.may_gather:
            return None
        share = self._share_of(self._backlog.units)
        recent = self._loop.time() - GATHER_S
        if sum(began > recent for began in self._going.values()) >= share:
            self._look_later(GATHER_S)
            return None
        return self._lines.gather(share)

    def _start(
        self, group: Group, channel: Channel, tries: list[Try], failure: Exception | None = None
    ) -> None:
        """Have a group committed, of which there were `tries`; the last one ended by `failure`."""
        committing = self._commit_group(group, channel, tries, failure)
        channel.task = self._loop.create_task(committing)

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
            self._look_later(_WAITS_S)
            return None
        self._channels.append(Channel(None))
        return self._channels[-1]

    def _look_later(self, seconds: float) -> None:
        """See then whether something may go that may not now, if nothing happens until then."""
        when = self._loop.time() + seconds
        if self._impatience is not None:
            if self._impatience.when() <= when:
                return
            self._impatience.cancel()
        self._impatience = self._loop.call_at(when, self._look_again)

    def _look_again(self) -> None:
        self._impatience = None
        self._schedule()

    def _share(self, line: RootLine) -> int:
        """Return into how many transactions at once what waits under a root is to be cut."""
        if line.is_indexed:
            return 1
        return self._share_of(len(line.waiting) + sum(len(each.units) for each in line.committing))

    def _share_of(self, puts: int) -> int:
        """Return how many transactions at once are quicker than one with so many puts.

        Two are, if what this process can do, while the server works on the other, outweighs what
        a transaction takes by itself, which is mostly the disk's.
        """
        return 2 if puts >= LEAST_PUTS and puts * CALLER_S > self._sender.overhead else 1

    async def _commit_group(
        self, group: Group, channel: Channel, tries: list[Try], failure: Exception | None
    ) -> None:
        """Commit units, and tell their callers."""
        units = group.units
        try:
            await self._commit_or_fail(group, channel, tries, failure)
        except BaseException as exc:
            for unit in units:
                unit.settle(exc)
            if not isinstance(exc, Exception):
                raise
        finally:
            self._end(group, channel)

    def _end(self, group: Group, channel: Channel) -> None:
        """Have those go who waited for a group, or for the connection."""
        units = group.units
        self._going.pop(group, None)
        self._watchman.end(channel)
        channel.since = 0.0
        channel.task = None
        if self._starved and channel.is_open:
            self._starved.pop(0).take_over(channel)
        self._sender.last_done = self._loop.time()
        self._goes_alone = len(units) == 1 and self._replica is None
        self._lines.done(group)
        self._backlog.subtract(len(units), sum([unit.size for unit in units]))
        if self._lines.may_go:
            self._schedule()
        if self._quiet is not None and not self._backlog.units and not self._quiet.done():
            self._quiet.set_result(None)

    # What becomes of a transaction

    async def _commit_or_fail(
        self, group: Group, channel: Channel, tries: list[Try], last: Exception | None
    ) -> None:
        """Commit units, each alone if they cannot be together, and tell their callers."""
        units = group.units
        failure: Exception | None = None
        has_left = False
        retries = Retries(_TRIES, self._target.busy_timeout)
        while True:
            wanted = units if tries else [unit for unit in units if not unit.future.cancelled()]
            if not wanted:
                return
            units = wanted
            try:
                if last is not None:
                    raise last
                done = await self._commit(group.with_units(units), channel, tries)
            except DriverError as exc:
                failure, last = exc, None
                if channel.raw is not None:
                    await leave_transaction(channel.raw, exc)
                if self._replica is not None:
                    self._replica.forget()
                if is_demoted(exc):
                    self._leave_server(channel)
                    if has_left:  # and came to another that is no better
                        break
                    has_left = True
                elif not (is_passing(exc) or (state_of(exc) == UNSURE and tries[-1].is_sent)):
                    break
                if any(unit.is_once for unit in units) or not await retries.wait(exc):
                    break
                self._counters.retries += 1
                _LOG.info("a write is tried again (%s)", type(exc).__name__)
            else:
                if not done.left:
                    self._deliver(units, done)
                    return
                left = set(done.left)
                self._deliver([unit for unit in units if unit not in left], done)
                sent = [each for each in tries if each.is_sent and each is not done]
                if sent:
                    await self._settle(group, done.left, channel, sent)
                else:
                    self._give_back(group, done.left)
                return
        assert failure is not None
        await self._fail(group, units, channel, tries, failure)

    def _give_back(self, group: Group, left: Sequence[Unit]) -> None:
        """Have units of a group wait again that go better by themselves."""
        self._lines.give_back(left)
        others = set(left)
        group.units = [unit for unit in group.units if unit not in others]

    async def _settle(
        self, group: Group, left: Sequence[Unit], channel: Channel, sent: list[Try]
    ) -> None:
        """Find out, root by root, what has become of units of which earlier tries were `sent`.

        This connection has to do that, as it has sent them. The rest of their group is done, and
        who waited for that goes on.
        """
        parts = by_root(left)
        done = set(group.units).difference(left)
        self._lines.leave(group, set(group.roots).difference(parts))
        self._backlog.subtract(len(done), sum(unit.size for unit in done))
        group.units, group.parts = list(left), parts
        self._schedule()
        for root, units in parts.items():
            puts: Any = [op for unit in units for op in unit.ops]
            tries = [replace(each, root=root, puts=puts) for each in sent]
            await self._commit_or_fail(Group(units, group.addresses), channel, tries, None)

    async def _fail(
        self,
        group: Group,
        units: list[Unit],
        channel: Channel,
        tries: list[Try],
        failure: Exception,
    ) -> None:
        """Tell callers what has become of their units, or commit each alone."""
        if any(each.is_sent for each in tries):
            error: StoreError = unknown_outcome(self._target)
            error.__cause__ = failure
        elif len(units) > 1 and not isinstance(failure, StoreError) and not is_lost(failure):
            if group.parts is not None:
                self._give_back(group, units)
                return
            for unit in units:
                await self._commit_or_fail(Group([unit], group.addresses), channel, [], None)
            return
        else:
            error = translate(failure, self._target.name)
            if error is not failure:
                error.__cause__ = failure
        for unit in units:
            unit.settle(error)

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
        """Apply units in one transaction, as `Sender.send` has it."""
        raw = await self._connected(channel)
        done = await self._sender.send(group, channel, tries)
        self._counters.committed(len(group.units) - len(done.left))
        if self._replica is not None:
            await self._replica.note(raw)
        return done

    async def _connected(self, channel: Channel) -> Connection:
        if not channel.is_open:
            if channel.raw is not None:
                self._counters.reconnects += 1
                _LOG.info("the writer connects to %s anew", self._target.name)
            await self._connect(channel)
        self._watchman.begin(channel)
        return channel.raw

    async def _connect(self, channel: Channel) -> None:
        """Open a connection; where the server takes no more, take over another channel's.

        Raises:
            StoreError: there is none to be had.
        """
        channel.prepared.clear()
        deadline = self._loop.time() + self._target.busy_timeout
        for pause in pauses():
            left = deadline - self._loop.time()
            try:
                channel.raw = await reconnect(self._target, max(0.0, left))
            except StoreBusyError:
                if pause > left:
                    raise
            else:
                await plan_once(channel.raw, self._target)
                return
            idle = (each for each in self._channels if each.task is None and each.is_open)
            if (other := next(idle, None)) is not None:
                channel.take_over(other)
                return
            self._starved.append(channel)
            await asyncio.sleep(pause)
            if channel not in self._starved:  # another one's group has ended, and gave its own
                return
            self._starved.remove(channel)
