"""How units come to be one transaction: the ways there are, the quickest first.

Puts without conditions are one call, also under many roots, and so are one put and its words, if it
is indexed by these alone, and most calls of queues. What names its items is read and decided first,
and written by one call, which takes effect if nobody has written in between. All else, and what has
failed at that, is done under the root's lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Any, Final, cast

import asyncpg

from kvstore.errors import StoreAccessError, StoreError
from kvstore.operations import PutColumns, PutJob
from kvstore.postgres import quick_jobs, statements
from kvstore.postgres.channels import Channel, Try
from kvstore.postgres.connection import (
    Connection,
    DriverError,
    Target,
    is_client_side,
    is_lost,
)
from kvstore.postgres.copying import LEAST_COPIED, copy_plain
from kvstore.postgres.puts import find_puts, put_one, put_plain, put_roots, words_of
from kvstore.postgres.queueing import Group, Lines, RootLine, Unit
from kvstore.postgres.quick_jobs import QuickJob
from kvstore.postgres.wide import Transaction, UnreadableError, last_of
from kvstore.postgres.workspace import MakeIndexer, Stamp, Workspace
from kvstore.types import Item

__all__ = ["UNSURE", "Sender", "unknown_outcome"]

ROW_S = 10e-6  # what one more row takes the server, roughly
ROOT_S = 15e-6  # likewise, where each is under another root
OVERHEAD_S = 2e-3  # what a transaction is believed to take by itself, before one was seen
LONG_TURNS = 16  # calls that read before they write, after one that was to be quick and had to
LOCKED_TURNS = 64  # transactions that lock before they read, after one that did not and failed
_CANCELLED: Final = "57014"
UNSURE: Final = "XX000"  # of Citus, where the machine that commits went away over it


class Sender:
    """Sends transactions of a store, and learns what is quick.

    Args:
        target: where to.
        lines: what is known of roots.
        least: the newest version there is.
        clock: the present time in seconds since the epoch.
        make_indexer: from the description of a search index to what keeps it.

    Attributes:
        newest: version that is known here: those to come are above, under any root.
        overhead: what a transaction of plain puts takes by itself, in seconds.
        last_done: when the last transaction was, by the loop's clock.
    """

    def __init__(
        self,
        target: Target,
        lines: Lines,
        least: int,
        clock: Callable[[], float],
        make_indexer: MakeIndexer,
    ) -> None:
        self._target = target
        self._begin_text = statements.BEGIN_PLANNED if target.plans_once else statements.BEGIN
        self._lines = lines
        self._clock = clock
        self._make_indexer = make_indexer
        self._loop = asyncio.get_running_loop()
        self.newest = least
        self.overhead = OVERHEAD_S
        self.last_done = 0.0

    async def send(self, group: Group, channel: Channel, tries: list[Try]) -> Try:
        """Apply units in one transaction; one that fails by itself leaves the others be.

        Args:
            group: with these units.
            channel: over which to; it has a connection.
            tries: earlier ones of the same units; this one is added.

        Returns:
            What was committed: this try, or an earlier one whose answer did not come.

        Raises:
            DriverError: the transaction as a whole failed.
        """
        raw = channel.raw
        assert raw is not None
        units = group.units
        if group.parts is not None:
            return await self._send_parts(group.parts, channel, tries)
        roots = units[0].roots
        is_again = any(each.is_sent for each in tries)
        if is_again or roots is None or len(roots) != 1 or not units[0].is_decided:
            return await self._send_locked(raw, units, channel, tries)
        (root,) = roots
        line = self._lines.line(root)
        done = await self.send_quick(group, channel, tries)
        if done is not None:
            return done
        if not line.locked_turns and not self._target.is_pooler:
            line.locked_turns = LOCKED_TURNS  # unless this goes well
            done = await self._send_looked(raw, units, channel, tries, line)
            if done is not None:
                line.locked_turns = 0
                return done
        line.locked_turns = max(0, line.locked_turns - 1)
        return await self._send_locked(raw, units, channel, tries)

    async def send_quick(self, group: Group, channel: Channel, tries: list[Try]) -> Try | None:
        """Commit plain puts, or what one job is about, by one call; `None`: it takes more."""
        units, raw = group.units, channel.raw
        assert raw is not None
        (root,) = cast("frozenset[str]", units[0].roots)
        line = self._lines.line(root)
        if group.addresses is not None and not line.is_indexed:
            return await self._send_plain(units, channel, tries, line)
        if len(units) > 1 or raw.patience is not None:
            return None
        job = None if line.is_indexed else quick_jobs.quick_job(units[0].ops)
        if job is None and (self._target.is_pooler or not line.is_of_words(units[0])):
            return None
        if not line.long_turns:
            if job is not None:
                done = await self._send_job(job, channel, tries, root)
            else:
                done = await self._send_plain(units, channel, tries, line)
            if done is not None:
                return done
            line.long_turns = LONG_TURNS
        line.long_turns -= 1
        return None

    async def _send_plain(
        self, units: list[Unit], channel: Channel, tries: list[Try], line: RootLine
    ) -> Try | None:
        raw = channel.raw
        assert raw is not None
        attempt, stamp = channel.begin(self._clock(), tries, line.root)
        puts: Any = [op for unit in units for op in unit.ops] if len(units) > 1 else units[0].ops
        attempt.puts = puts
        began = self._loop.time()
        attempt.is_sent = True
        try:
            items, attempt.is_news = await self._put_plain(line, attempt, stamp, channel)
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
        self._learn_overhead(began, len(items) * ROW_S)
        self._give_out(units, items, attempt)
        return attempt

    def _learn_overhead(self, began: float, rows_s: float) -> None:
        """Take note of how long a transaction took, of which some seconds were for its rows."""
        taken = self._loop.time() - max(began, self.last_done)  # before, it waited for another
        self.overhead += (max(0.0, taken - rows_s) - self.overhead) / 8

    async def _put_plain(
        self, line: RootLine, attempt: Try, stamp: Stamp, channel: Channel
    ) -> tuple[list[Item], bool]:
        """Write them by what is quickest; where that takes a transaction, it is left open."""
        raw, puts, root = channel.raw, attempt.puts, line.root
        assert raw is not None
        assert puts is not None
        if len(puts) == 1 and raw.patience is None and not self._target.is_pooler:
            words: Sequence[Any] = ()
            if line.index is not None and line.fields is not None:
                words = words_of(puts[0], line.index, line.fields)
            now, newest = attempt.now, self.newest
            return await put_one(channel.fetch, root, puts[0], now, newest, stamp, words)
        if len(puts) >= LEAST_COPIED:
            copied = await self._copy_plain(raw, root, attempt, stamp)
            if copied is not None:
                return copied, False
        if isinstance(puts, PutColumns):
            await puts.encoded()
        if self._target.is_pooler:
            await raw.execute(statements.BEGIN)
        return await put_plain(raw, root, list(puts), attempt.now, self.newest, stamp)

    async def _send_parts(
        self, parts: dict[str, list[Unit]], channel: Channel, tries: list[Try]
    ) -> Try:
        """Commit puts under several roots by one call, as far as that can be done at once."""
        attempt, _ = channel.begin(self._clock(), tries, "")
        puts: Any = {
            root: units[0].ops if len(units) == 1 else [op for unit in units for op in unit.ops]
            for root, units in parts.items()
        }
        began = self._loop.time()
        call = put_roots(channel.fetch, puts, tries, self.newest, channel.writer)
        items = await self._sent(attempt, call)
        self._learn_overhead(began, sum(map(len, items.values())) * ROOT_S)
        left: list[Unit] = []
        for root, units in parts.items():
            done = items.get(root)
            if done is None:
                left += units
            elif len(units) == 1:
                attempt.outcomes.append(done)
            else:
                rest = iter(done)
                attempt.outcomes += [list(islice(rest, len(unit.ops))) for unit in units]
        self.newest = max([self.newest, *[done[-1].version for done in items.values()]])
        attempt.left = left
        return attempt

    async def _send_job(
        self, job: QuickJob, channel: Channel, tries: list[Try], root: str
    ) -> Try | None:
        """Put, take or finish a job by one call; `None`: it takes more than that."""
        raw = channel.raw
        assert raw is not None
        attempt, stamp = channel.begin(self._clock(), tries, root)
        attempt.job = job
        try:
            call = self._run_job(job, root, attempt, stamp, channel)
            answer, version = await self._sent(attempt, call)
        except asyncpg.PostgresError as exc:
            if exc.sqlstate != statements.NOT_PLAIN:
                raise
            if raw.is_in_transaction():
                await raw.execute("ROLLBACK")
            return None
        self.newest = max(self.newest, version)
        attempt.outcomes = [[answer]]
        attempt.is_news = isinstance(job, PutJob)
        return attempt

    async def _run_job(
        self, job: QuickJob, root: str, attempt: Try, stamp: Stamp, channel: Channel
    ) -> tuple[Any, int]:
        """Do as `quick_jobs.run`, by itself; behind a pooler with the settings of a transaction."""
        raw, asked = channel.raw, (root, job, attempt.now, self.newest, stamp)
        assert raw is not None
        if not self._target.is_pooler:
            return await quick_jobs.run(channel.fetch, *asked)
        await raw.execute(statements.BEGIN)
        done = await quick_jobs.run(raw.fetch, *asked)
        await raw.execute("COMMIT")
        return done

    async def _copy_plain(
        self, raw: Connection, root: str, attempt: Try, stamp: Stamp
    ) -> list[Any] | None:
        """Write many puts in a transaction, which is left open; `None`: it takes more than that."""
        assert attempt.puts is not None
        await raw.execute(self._begin_text)
        items: list[Any] | None = None
        try:
            items = await copy_plain(raw, root, attempt.puts, attempt.now, self.newest, stamp)
        finally:
            if items is None and raw.is_in_transaction():
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
        ops: Any = [await unit.spread() for unit in units]
        attempt, stamp = channel.begin(self._clock(), tries, line.root)
        make = self._make_indexer
        space = None
        while space is None:
            space = await Workspace.look(
                raw, line.root, ops, attempt.now, self.newest, make, is_indexed=line.is_indexed
            )
            if space is None:
                await raw.execute(statements.BEGIN_ROOT, line.root)
        line.learn(space.state.index)
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
        return self._target.is_distributed and exc.sqlstate in (UNSURE, _CANCELLED)

    async def _send_locked(
        self, raw: Connection, units: list[Unit], channel: Channel, tries: list[Try]
    ) -> Try:
        """Lock, then read and write; unless an earlier try turns out to be committed."""
        ops: Any = [await unit.spread() for unit in units]
        sent = [each for each in tries if each.is_sent]
        attempt, stamp = channel.begin(self._clock(), tries, "")
        make = self._make_indexer
        await raw.execute(self._begin_text)
        transaction = Transaction(raw, attempt.now, self.newest, make, stamp)
        for root in sorted({each.root for each in sent}):
            is_done = await transaction.is_done(root)
            if is_done is None:
                raise unknown_outcome(self._target)
            if is_done:
                done = await self._find_done(raw, root, units, channel, sent)
                await raw.execute("ROLLBACK")
                return done
        if len(units) > 1 or units[0].is_decided:
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
                self._lines.line(root).learn(transaction.space(root).state.index)
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
                raise unknown_outcome(self._target)
            done.outcomes = [answer]
            done.is_news = True
        return done


def unknown_outcome(target: Target) -> StoreAccessError:
    """Return the error of a write that may have been applied."""
    return StoreAccessError(
        f"the connection to {target.name} was lost while this was being committed, and "
        "it is unknown whether it was applied: read the items, and write them again if need be"
    )
