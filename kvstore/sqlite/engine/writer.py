"""`Writer`: group commit, on the event loop's own thread or on one with the connection."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Any, TypeVar

from kvstore.errors import StoreBusyError, StoreError
from kvstore.instants import to_micros
from kvstore.operations import Append, Mutate, Operation, Put, PutColumns, PutJob
from kvstore.report import Counters
from kvstore.sqlite import driver, statements
from kvstore.sqlite.connection import WorkerConnection, claimed, is_busy, limit, transaction
from kvstore.sqlite.diagnosis import explain
from kvstore.sqlite.engine.light import are_light_puts, is_light_write
from kvstore.sqlite.engine.limits import (
    BATCH_BYTES,
    BATCH_OPS,
    CHECKPOINT_PAGES,
    INLINE_BYTES,
    INLINE_PUTS,
    PAGE_BYTES,
    POLITE_PAUSE_S,
    POLITE_S,
)
from kvstore.sqlite.engine.pace import Pace
from kvstore.sqlite.engine.settling import call_soon, require_open, settle
from kvstore.sqlite.index_file import Setup
from kvstore.sqlite.openfile import OpenFile
from kvstore.sqlite.plain_puts import are_new, is_bare_put
from kvstore.sqlite.read_cache import ReadCache
from kvstore.sqlite.series import Series
from kvstore.sqlite.writing import ALONE, INLINE_OPS, Batch
from kvstore.types import Item
from kvstore.waiting import Backlog, Bell

__all__ = ["Writer", "without_checkpoints"]

T = TypeVar("T")
_LOG = logging.getLogger("kvstore")

_WEIGHED = 2_000  # operations of a unit, of more a sample: to look at all would hold up the loop
_PAGES_OF_A_PUT = 8  # of the log, at most: its rows and those of the indexes, and the version's
_PAGES_OF_A_CHANGE = 6 + INLINE_BYTES // PAGE_BYTES  # its row with what was replaced, its index
LOCK_WAIT_S = 0.005  # that a lock took, and it was another writer's

# The answers, or what is to be raised; of a bare put its item
_Outcome = list[Any] | Item | BaseException
_NOT_YET: _Outcome = []
_IS_BARE = attrgetter("is_bare")


class _Unit:
    """Operations that are applied together or not at all, and the caller that waits for them."""

    work: Callable[[driver.Connection], Any] | None = None  # instead of operations
    is_alone = False  # in its transaction
    is_bare = False  # it is a put that `is_bare_put`, and nothing else
    is_refused = False  # it is too much for the loop's own thread
    future: asyncio.Future[Any] | None = None  # `None`: nobody waits
    outcome: Any = _NOT_YET

    def __init__(self, ops: Sequence[Operation]) -> None:
        self.ops = ops
        few = ops if len(ops) <= _WEIGHED else ops[:: len(ops) // _WEIGHED]
        size = 0
        if isinstance(few, PutColumns):
            size = len(few) * len(few.path) + sum(map(len, few.keys)) + sum(map(len, few.datas))
        else:
            for op in few:
                if type(op) is Put:
                    size += len(op.path) + len(op.key) + len(op.data)
                elif type(op) is PutJob:
                    size += len(op.data)
                elif type(op) is Append:
                    size += sum(map(len, op.data))
                elif type(op) in ALONE:
                    self.is_alone = True
        self.size = 256 * len(ops) + size * len(ops) // max(1, len(few))  # roughly, in bytes


class _BarePut(_Unit):
    """A plain put, whose caller gets the item alone."""

    is_bare = True

    def __init__(self, op: Put) -> None:
        self.ops = (op,)
        self.size = 256 + len(op.path) + len(op.key) + len(op.data)


class _Work(_Unit):
    """Something else to do on the worker's thread, in its turn."""

    def __init__(self, work: Callable[[driver.Connection], Any]) -> None:
        super().__init__(())
        self.work = work
        self.is_alone = True


def without_checkpoints(connection: driver.Connection) -> driver.Connection:
    """Return a `Writer`'s connection so that it makes no checkpoint inside a COMMIT.

    They are made when the results are delivered.
    """
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection


class Writer:
    """The one writer of a store in this process.

    Its connection is used by one thread at a time: the worker's while `is_running`, else the
    loop's.

    Args:
        connection: with write access.
        file: that of the connection.
        clock: the present time in seconds since the epoch.
        busy_timeout: how long to wait for other processes, in seconds.
        pace: shared with the inline reads; `None`: never write on the loop's thread.
        bell: rung on the loop's thread when there is something for those who watch.
        backlog: counts what waits, and is the store's.
        setup: of a store that has a search index.
        cache: of reads, which goes along with what is written; `None`: there is none.
    """

    def __init__(
        self,
        connection: WorkerConnection,
        file: OpenFile,
        *,
        clock: Callable[[], float],
        busy_timeout: float,
        pace: Pace | None,
        bell: Bell,
        backlog: Backlog,
        counters: Counters,
        setup: Setup | None = None,
        cache: ReadCache | None = None,
    ) -> None:
        self._connection = connection
        self._raw = connection.raw
        self._series = Series(self._raw, file, setup, cache)
        self._file = file
        self._setup = setup
        self._bell = bell
        self._has_news = False
        self._is_heavy = setup is not None  # the file is watched or has an index
        self._clock = clock
        self._busy_timeout = busy_timeout
        self._pace = pace if statements.READS_LENGTH_ALONE else None
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Unit] = deque()
        self._backlog = backlog
        self._counters = counters
        self._is_scheduled = False
        self.is_running = False
        self._is_closed = False
        self._quiet: asyncio.Future[None] | None = None  # set by `close`, done when nothing waits
        self._polite_until = 0.0
        self._is_crowd = False  # whether the last flush had more than one unit to commit
        self._alone = (-1, 0)  # turn and task of the last unit that committed alone
        self._wal_pages = 0  # at most so many since the last checkpoint
        limit(self._raw)

    def apply(self, ops: Sequence[Operation]) -> Awaitable[list[Any]]:
        """Apply a unit of operations; gives the answers once it is committed."""
        unit = _Unit(ops)
        pace = self._pace
        if pace is not None and self._is_alone(pace) and self._may_be_inline(pace, (unit,)):
            return self._apply_alone(pace, unit)
        return self._queue_in_time(unit) if self._backlog.is_full else self._queue(unit)

    def put_now(self, op: Put) -> Item | asyncio.Future[Item] | None:
        """Commit a plain put at once, on this thread, or soon with those that came before.

        `None`: `apply` must be asked.
        """
        if self._waiting or self._is_crowd or self.is_running:
            is_plain = self._setup is None and is_bare_put(op)
            return self._queue(_BarePut(op)) if is_plain else None
        pace = self._pace
        if pace is None or not self._is_alone(pace) or not is_bare_put(op):
            return None
        size = len(op.data) + len(op.path) + len(op.key)
        if size > INLINE_BYTES or not self._begins(pace):
            return None
        began = time.perf_counter()
        try:
            item = self._series.put_alone(op, to_micros(self._clock()), 0.0, INLINE_BYTES)
        except Exception:  # noqa: BLE001 - the worker meets it again, and has time to deal with it
            return None
        finally:
            pace.record(began)
        if item is not None:
            self._note_alone(1, size)
        return item

    def change_now(self, op: Mutate) -> tuple[Any] | None:
        """Commit a change of a plain item at once; `None`: `apply` must be asked."""
        pace = self._pace
        if pace is None or not self._is_alone(pace) or not self._begins(pace):
            return None
        began = time.perf_counter()
        try:
            done = self._series.change_alone(op, to_micros(self._clock()), 0.0, INLINE_BYTES)
        except Exception:  # noqa: BLE001 - as above, and the caller hears of it
            return None
        finally:
            pace.record(began)
        if done is None:
            return None
        answer, size = done
        self._note_alone(1, size)
        return (answer,)

    def _begins(self, pace: Pace) -> bool:
        """Whether a write may begin on this thread; if so, it is the task's that runs."""
        if self._is_log_long() or not pace.allows(time.perf_counter()):
            return False
        self._alone = pace.turn, id(asyncio.current_task(self._loop))
        return True

    def _note_alone(self, items: int, size: int) -> None:
        """Take note of a transaction with so many items, of so many bytes, and of one unit."""
        self._counters.committed(1)
        self._wal_pages += _PAGES_OF_A_PUT * items + size // PAGE_BYTES
        if self._series.is_watched:
            self._wal_pages += _PAGES_OF_A_CHANGE * items
            self._bell.ring()

    async def _apply_alone(self, pace: Pace, unit: _Unit) -> list[Any]:
        self._alone = (pace.turn, id(asyncio.current_task(self._loop)))
        if not self.is_running and (
            self._add_inline(pace, unit) or self._commit_inline(pace, [unit])
        ):
            if pace.is_turn_over:
                await pace.next_turn()
            if isinstance(unit.outcome, BaseException):
                raise unit.outcome
            answers: list[Any] = unit.outcome
            return answers
        return await self._queue_in_time(unit)

    async def run(self, work: Callable[[driver.Connection], T]) -> T:
        """Run something else on the worker's thread, outside any transaction, in its turn."""
        return (await self._queue(_Work(work)))[0]  # type: ignore[no-any-return]

    async def _queue_in_time(self, unit: _Unit) -> list[Any]:
        await self._backlog.room()
        answers: list[Any] = await self._queue(unit)
        return answers

    def _queue(self, unit: _Unit) -> asyncio.Future[Any]:
        if self._is_closed:
            require_open(False)
        unit.future = self._loop.create_future()
        self._backlog.add(unit.size)
        self._waiting.append(unit)
        if not self._is_scheduled and not self.is_running:
            self._is_scheduled = True
            if self._pace is None:
                self._loop.call_soon(self._flush)
            else:
                self._pace.call_next_turn(self._flush, first=True)
        return unit.future

    @property
    def raw(self) -> driver.Connection:
        """The driver's connection."""
        return self._raw

    async def finish(self) -> None:
        """Commit what waits, and take no more."""
        while self._backlog.units or self.is_running:  # a woken caller may have queued once more
            self._quiet = self._loop.create_future()
            await self._quiet
        self._is_closed = True

    async def close(self) -> None:
        """Commit what waits, then close the connection."""
        await self.finish()
        self._series.end()
        await self._connection.close()

    # On the loop's thread

    def _flush(self) -> None:
        self._is_scheduled = False
        if self.is_running or not self._waiting:
            return
        self._is_crowd = len(self._waiting) > 1
        if self._pace is not None and self._may_be_inline(self._pace, self._waiting):
            units = self._take()
            try:
                is_done = self._commit_inline(self._pace, units)
            except BaseException:  # such as KeyboardInterrupt: committed or not, nobody knows
                for unit in units:
                    if unit.future is not None:
                        unit.future.cancel()
                self._deliver(units, is_end=False)
                raise
            if is_done:
                self._deliver(units, is_end=False)
                return
            self._waiting.extendleft(reversed(units))
        self.is_running = True
        self._connection.post(self._drain)

    def _is_alone(self, pace: Pace) -> bool:
        """Whether a unit may commit at once, as no other can be expected to share its commit.

        That is so for the first write of a turn of the loop, and for the next ones of the same
        task, which waited for each; but not while writes come in crowds.
        """
        if self._waiting or self.is_running or self._is_crowd:
            return False
        turn, task = self._alone
        return turn != pace.turn or task == id(asyncio.current_task(self._loop))

    def _is_log_long(self) -> bool:
        """Whether the log is so long that a checkpoint is due."""
        if self._wal_pages >= CHECKPOINT_PAGES:  # at most
            pages = self._file.pages_to_copy
            self._wal_pages = self._wal_pages if pages is None else pages
        return self._wal_pages >= CHECKPOINT_PAGES

    def _may_be_inline(self, pace: Pace, units: Sequence[_Unit]) -> bool:
        if len(units) > INLINE_PUTS or self._is_log_long():
            return False
        size, are_bare = 0, True
        for unit in units:
            if unit.is_refused or unit.work is not None:
                return False
            size += unit.size
            are_bare &= unit.is_bare
        if are_bare:
            is_little = are_light_puts(len(units), size, is_heavy=self._is_heavy)
        else:
            one = len(units) == 1
            ops = units[0].ops if one else [op for unit in units for op in unit.ops]
            is_little = is_light_write(ops, size, is_heavy=self._is_heavy)
        return pace.allows(time.perf_counter(), is_little=is_little)

    def _commit_inline(self, pace: Pace, units: list[_Unit]) -> bool:
        """Commit on this thread; whether it did: it never waits, and never takes long."""
        began = time.perf_counter()
        try:
            self._commit(units, timeout=0.0, longest=INLINE_BYTES)
        except Exception:  # noqa: BLE001 - the worker meets it again, and has time to deal with it
            for unit in units:
                unit.is_refused = True
            return False
        finally:
            pace.record(began, min(sum([len(unit.ops) for unit in units]), INLINE_OPS))
        self._ring()
        return True

    def _add_inline(self, pace: Pace, unit: _Unit) -> bool:
        """Commit a unit of new items on this thread, in the time of a plain put; whether it did."""
        ops = unit.ops
        if not are_new(ops):
            return False
        began = time.perf_counter()
        try:
            answers = self._series.add_alone(ops, to_micros(self._clock()), 0.0)
        except Exception:  # noqa: BLE001 - a batch meets it again, or has time to deal with it
            return False
        finally:
            pace.record(began, len(ops))
        if answers is None:
            return False
        unit.outcome = answers
        self._note_alone(len(ops), unit.size)
        return True

    def _ring(self) -> None:
        if self._has_news:
            self._has_news = False
            self._bell.ring()

    def _deliver(self, units: list[_Unit], *, is_end: bool) -> None:
        for unit in units:
            future, outcome = unit.future, unit.outcome
            if future is None or future.done():  # its caller was cancelled
                continue
            if isinstance(outcome, BaseException):
                settle(future, None, outcome)
            else:
                future.set_result(outcome)
        self._ring()
        self._backlog.subtract(len(units), sum([unit.size for unit in units]))
        if is_end:
            self.is_running = False
            self._flush()
        if self._quiet is not None and not self._backlog.units and not self.is_running:
            settle(self._quiet, None, None)

    # On whichever thread writes

    def _take(self) -> list[_Unit]:
        """Take from the queue what one transaction may hold."""
        taken: list[_Unit] = []
        ops = size = 0
        while self._waiting:
            unit = self._waiting[0]
            if unit.is_alone and taken:
                break
            if taken and (ops + len(unit.ops) > BATCH_OPS or size + unit.size > BATCH_BYTES):
                break
            taken.append(self._waiting.popleft())
            if unit.is_alone:
                break
            ops += len(unit.ops)
            size += unit.size
        return taken

    def _commit(self, units: list[_Unit], timeout: float, longest: int | None = None) -> None:
        """Apply units in one transaction; one that fails by itself leaves the others be.

        Raises:
            driver.Error: the transaction as a whole failed, and nothing was written.
            NotInlineError: a value is longer than `longest`, and nothing was written.
        """
        raw = self._raw
        began = time.monotonic() if timeout else 0.0
        with transaction(raw, timeout, self._file, self._series.cursor) as waited:
            if waited:
                self._note_wait(time.monotonic() - began)
            changed_before = raw.total_changes
            batch = self._series.begin(to_micros(self._clock()), longest)
            self._is_heavy = batch.is_heavy
            wanted = [unit for unit in units if unit.future is None or not unit.future.cancelled()]
            outcomes = self._apply(batch, wanted)
            batch.finish()
        self._series.committed(batch)
        self._counters.committed(len(wanted))
        if batch.is_news:
            self._has_news = True
        pages = 2 + 3 * (raw.total_changes - changed_before)
        for unit, outcome in zip(wanted, outcomes, strict=True):
            unit.outcome = outcome
            pages += unit.size // PAGE_BYTES
            if unit.is_alone:  # nobody knows how much it has written
                pages += CHECKPOINT_PAGES
        self._wal_pages += pages

    @staticmethod
    def _apply(batch: Batch, units: Sequence[_Unit]) -> Sequence[_Outcome]:
        """Apply units; of bare puts, which are most of a crowd, the outcome is the item."""
        if all(map(_IS_BARE, units)):
            puts: Any = [unit.ops[0] for unit in units]
            if (items := batch.put_crowd(puts)) is not None:
                return items
        outcomes = batch.apply([unit.ops for unit in units])
        return [
            outcome[0] if unit.is_bare and isinstance(outcome, list) else outcome
            for unit, outcome in zip(units, outcomes, strict=True)
        ]

    def _note_wait(self, seconds: float) -> None:
        """Take note that another writer was at work, for so long."""
        self._polite_until = time.monotonic() + POLITE_S
        if seconds > LOCK_WAIT_S:
            self._counters.lock_waits += 1
            _LOG.info("waited %.3f s for another writer of %s", seconds, self._file.path)

    # On the worker's thread

    def _drain(self) -> None:
        """Commit what waits until nothing does."""
        while True:
            units = self._take()
            self._commit_or_fail(units)
            due = self._is_log_long()
            is_end = not self._waiting and not due
            call_soon(self._loop, self._deliver_from_thread, units, is_end)
            if is_end:
                return
            if due:
                self._checkpoint()
            if time.monotonic() < self._polite_until:
                time.sleep(POLITE_PAUSE_S)
            if not self._waiting:
                call_soon(self._loop, self._deliver_from_thread, [], True)
                return

    def _deliver_from_thread(self, units: list[_Unit], is_end: bool) -> None:
        self._deliver(units, is_end=is_end)

    def _commit_or_fail(self, units: list[_Unit]) -> None:
        """Commit units, each alone if they cannot be together, and give errors to their callers."""
        try:
            if units[0].work is not None:
                self._wal_pages += CHECKPOINT_PAGES  # nobody knows how much it writes
                units[0].outcome = [units[0].work(self._raw)]
            else:
                self._commit(units, self._busy_timeout)
        except driver.Error as exc:
            if len(units) > 1 and not is_busy(exc):
                for unit in units:
                    self._commit_or_fail([unit])
            else:
                for unit in units:
                    unit.outcome = self._error(exc)
        except BaseException as exc:  # noqa: BLE001 - a defect of ours, for the callers to hear of
            for unit in units:
                unit.outcome = exc

    def _error(self, exc: driver.Error) -> StoreError:
        error = explain(exc, self._file, None)  # the connection may be in any state
        error.__cause__ = exc
        return error

    def _checkpoint(self) -> None:
        """Copy the WAL into the file, if it is long, so that it starts over; waits for no reader.

        What is in the WAL is safe there: where this fails, the next one tries again. It claims the
        file, as whoever starts the log over must not do so while it is copied.
        """
        execute = self._raw.execute
        self._wal_pages = 0
        claim = claimed(self._file, self._busy_timeout, to_copy=True)
        with suppress(driver.Error, StoreBusyError), claim:
            _, written, copied = execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            is_long = written * PAGE_BYTES > statements.LOG_BYTES
            if is_long and copied == written and not self._waiting:
                # A large transaction made it so, and nobody may come to start it over.
                execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
