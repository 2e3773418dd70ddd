"""Turns synchronous SQLite into asyncio at next to no cost: who runs what on which thread, when.

A hop to a thread and back costs ten times what SQLite itself takes for a small read or write, so
work is either shared out over a hop or does not hop at all:

- `Writer` commits whatever is waiting in one transaction (group commit), and each caller gets its
  own result or its own error. A few small writes commit on the loop's own thread, which under
  `synchronous=NORMAL` touches no disk; many, long or contended ones go to the worker thread.
  Checkpoints, which do touch the disk, always go there.
- `Reader` runs reads on a thread with its own read-only connection; reads of one tick share a hop.
- `InlineReader` runs point reads of small, warm rows on the loop's own thread; those of many
  tasks share statements, a few in each turn of the loop. It also scans small namespaces.
- `Pace` keeps the two inline ways honest: it ends them for a while after a slow one, and limits
  what they may take of one turn.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Concatenate, ParamSpec, TypeVar

from kvstore.backlog import Backlog
from kvstore.errors import StoreClosedError, StoreError
from kvstore.instants import to_micros
from kvstore.operations import Check, Delete, Mutate, Operation, Put, Remove, Touch
from kvstore.sqlite import driver, reading, statements
from kvstore.sqlite.connection import WorkerConnection, is_busy, limit, release, transaction
from kvstore.sqlite.diagnosis import explain
from kvstore.sqlite.indexing import Setup, begin_batch
from kvstore.sqlite.openfile import OpenFile
from kvstore.sqlite.writing import INLINE_OPS, has_restore, is_plain
from kvstore.types import Item, Namespace
from kvstore.watching import Bell

__all__ = ["InlineReader", "Pace", "Reader", "Writer"]

P = ParamSpec("P")
T = TypeVar("T")

INLINE_BYTES = 64 * 1024  # the longest value that is read or overwritten on the loop's thread
INLINE_COMPARISONS = 16  # of a filter that runs on the loop's thread, for each item
GROUP_READS = 20  # point reads that share a statement ...
GROUP_BYTES = INLINE_BYTES // 8  # ... and the longest value that is read with others
LONG_PATH = 2_000  # characters of a namespace and keys that are read through in a thread
INLINE_PUTS = 128  # what one inline transaction may hold, of plain puts; else it is `INLINE_OPS`
TURN_S = 0.0005  # what inline work may take of one turn of the loop ...
SHARE_S = 0.00005  # ... and after how much of it those who wait for a turn wait for the next
TURN_TASKS = 32  # of those that wait for another turn, how many go on in it
SLOW_S, SLOW_OP_S = 0.001, 0.00002  # an inline call that took this long met a cold disk ...
REST_S = (0.001, 0.05)  # ... so the next ones go to a thread, each time twice as long, up to this

BATCH_OPS = 2_000  # what one group commit may hold, so that it never holds the lock long
BATCH_BYTES = 16 * 2**20

CHECKPOINT_PAGES = 2_000  # 8 MiB of WAL
PAGE_BYTES = 4096
_KNOWS_NOOP = driver.VERSION >= (3, 51, 0)  # https://sqlite.org/pragma.html#pragma_wal_checkpoint
POLITE_S = 1.0  # how long after a wait for the lock other processes are believed to want it
POLITE_PAUSE_S = 0.001  # what they then get between two of our transactions
READ_DELIVERY_S = 0.001  # results of a running hop are delivered at least this often


class Pace:
    """Decides when work may run on the event loop's own thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._resting_until = 0.0
        self._rest = REST_S[0]
        self._spent = 0.0  # in this turn of the loop
        self._turn_is_watched = False
        self._next: deque[Callable[[], None]] = deque()  # to be called when the next turn begins
        self._queue: deque[asyncio.Future[None]] = deque()
        self.turn = 0  # counts the turns that had inline work
        self.group = 1  # how many reads may share a statement: few until they prove quick

    @property
    def is_turn_over(self) -> bool:
        """Whether inline work has had all that it may have of this turn of the loop."""
        return self._spent > TURN_S

    @property
    def is_share_spent(self) -> bool:
        """Whether those who wait for a turn have had their share of this one."""
        return self._spent > SHARE_S

    def allows(self, now: float) -> bool:
        """Whether inline work may run at an instant of `time.perf_counter()`."""
        return now >= self._resting_until

    def record(self, began: float, ops: int = 1) -> None:
        """Take note of inline work of so many parts that began at an instant and ends now."""
        ended = time.perf_counter()
        spent = ended - began
        if spent > SLOW_S + ops * SLOW_OP_S:
            self._resting_until = ended + self._rest
            self._rest = min(2 * self._rest, REST_S[1])
            self.group = 1
        else:
            self._rest = REST_S[0]
            self.group = min(self.group + 1, GROUP_READS)
        self._spent += spent
        if not self._turn_is_watched:
            self._turn_is_watched = True
            self._loop.call_soon(self._new_turn)

    def call_next_turn(self, callback: Callable[[], None], *, first: bool = False) -> None:
        """Call back when the next turn of the loop begins, in the order of asking."""
        if first:
            self._next.appendleft(callback)
        else:
            self._next.append(callback)
        if not self._turn_is_watched:
            self._turn_is_watched = True
            self._loop.call_soon(self._new_turn)

    async def next_turn(self) -> None:
        """Wait for a share of a later turn of the loop, in the order of asking.

        With a plain `sleep(0)` each of many tasks would get on in every turn, and the turn's
        length would grow with their number.
        """
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._queue.append(waiter)
        await waiter

    async def give_way(self) -> None:
        """Wait for a share of a later turn if this one is over."""
        if self.is_turn_over:
            await self.next_turn()

    def _new_turn(self) -> None:
        self._spent = 0.0
        self.turn += 1
        try:
            for _ in range(min(len(self._queue), TURN_TASKS)):
                _settle(self._queue.popleft(), None, None)
            for _ in range(len(self._next)):
                self._next.popleft()()
        finally:  # whatever a callback raises, such as KeyboardInterrupt
            self._turn_is_watched = bool(self._queue or self._next or self._spent)
            if self._turn_is_watched:
                self._loop.call_soon(self._new_turn)


_Read = tuple[reading.Point, asyncio.Future[list[Item]]]


class InlineReader:
    """Point reads on the loop's own thread, on a read-only connection of their own.

    The first task that reads in a turn of the loop is answered at once, unless reads come in
    crowds. The others' wait for the next turn, and there share statements.

    Args:
        connection: for this thread alone.
        clock: the present time in seconds since the epoch.
        pace: decides when to read here.
        worker: reads what must not be read here.
    """

    def __init__(
        self,
        connection: driver.Connection,
        clock: Callable[[], float],
        pace: Pace,
        worker: Reader,
    ) -> None:
        connection.text_factory = bytes
        limit(connection)
        self.raw = connection
        self.is_running = False  # a statement is under way
        self._cursor = connection.cursor()
        self._clock = clock
        self._pace = pace
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Read] = deque()
        self._is_crowd = False  # whether the last flush had more than one read to make
        self._alone = (-1, 0)  # turn and task of the last read that was answered at once

    def get(self, namespace: Namespace, path: str, key: str) -> list[Item] | None:
        """Return the live item in a list, an empty list, or `None`: ask `get_later`."""
        pace = self._pace
        if self._is_crowd or self._waiting or pace.is_turn_over:
            return None
        began = time.perf_counter()
        if not pace.allows(began):
            return None
        turn, task = self._alone
        if turn != pace.turn:
            self._alone = (pace.turn, id(asyncio.current_task()))
        elif task != id(asyncio.current_task()):
            return None
        try:
            self.is_running = True
            now = to_micros(self._clock())
            return reading.get_small(self._cursor, namespace, path, key, now, INLINE_BYTES)
        except driver.Error:
            return None  # the worker meets it again, and has the time to deal with it
        finally:
            self.is_running = False
            pace.record(began)

    def get_later(self, namespace: Namespace, path: str, key: str) -> asyncio.Future[list[Item]]:
        """Read in the next turn, together with others, or on the worker's thread."""
        future: asyncio.Future[list[Item]] = self._loop.create_future()
        if not self._waiting:
            self._pace.call_next_turn(self._flush)
        self._waiting.append(((namespace, path, key), future))
        return future

    def get_few(self, namespace: Namespace, path: str, keys: Sequence[str]) -> list[Item] | None:
        """Return the live items among a few keys, as they are at once, or `None`: ask a thread."""
        pace = self._pace
        began = time.perf_counter()
        if len(keys) > GROUP_READS or len(path) + sum(map(len, keys)) > LONG_PATH:
            return None
        if self._worker.is_busy or pace.is_turn_over or not pace.allows(began):
            return None
        try:
            self.is_running = True
            points = [(namespace, path, key) for key in keys]
            now = to_micros(self._clock())
            answers = reading.get_small_points(self._cursor, points, now, GROUP_BYTES)
        except driver.Error:
            return None  # the thread meets it again, and has the time to deal with it
        finally:
            self.is_running = False
            pace.record(began, len(keys))
        items: list[Item] = []
        for answer in answers:
            if not isinstance(answer, list):
                return None
            items += answer
        return items

    def scan(self, path: str, read: Callable[[driver.Connection], T]) -> tuple[T] | None:
        """Run a read of a whole namespace, if it is small, or return `None`: ask a thread."""
        pace = self._pace
        began = time.perf_counter()
        if not statements.READS_LENGTH_ALONE or len(path) > LONG_PATH:
            return None
        if pace.is_turn_over or not pace.allows(began):
            return None
        try:
            self.is_running = True
            self.raw.text_factory = str
            return (read(self.raw),) if reading.is_light(self.raw, INLINE_BYTES, path) else None
        except driver.Error:
            return None  # the thread meets it again, and has the time to deal with it
        except BaseException as exc:
            release(exc)
            raise
        finally:
            self.raw.text_factory = bytes
            self.is_running = False
            pace.record(began)

    def close(self) -> None:
        """Have the worker read what waits, and release the connection."""
        self._pass_on_all()
        self.raw.close()

    def _take(self, most: int) -> list[_Read]:
        """Take reads from the queue that somebody still waits for."""
        taken: list[_Read] = []
        while self._waiting and len(taken) < most:
            read = self._waiting.popleft()
            if not read[1].done():
                taken.append(read)
        return taken

    def _flush(self) -> None:
        pace = self._pace
        self._is_crowd = len(self._waiting) > 1
        has_read = False  # one group in each turn, however long the writes before it took
        while reads := self._take(pace.group):
            began = time.perf_counter()
            if not pace.allows(began) or (has_read and pace.is_share_spent):
                self._waiting.extendleft(reversed(reads))
                break
            has_read = True
            try:
                self.is_running = True
                points = [point for point, _ in reads]
                now = to_micros(self._clock())
                answers = reading.get_small_points(self._cursor, points, now, GROUP_BYTES)
            except Exception:  # noqa: BLE001 - the worker meets it again, and tells the callers
                answers = [None] * len(reads)
            except BaseException:  # such as KeyboardInterrupt
                self._waiting.extendleft(reversed(reads))
                pace.call_next_turn(self._flush)
                raise
            finally:
                self.is_running = False
                pace.record(began, len(reads))
            self._deliver(reads, answers)
        if not self._waiting:
            return
        if pace.allows(time.perf_counter()):
            pace.call_next_turn(self._flush)
        else:
            self._pass_on_all()

    def _deliver(self, reads: list[_Read], answers: Sequence[reading.Answer | None]) -> None:
        for read, answer in zip(reads, answers, strict=True):
            if answer is None:
                self._pass_on(read)
            elif isinstance(answer, list):
                _settle(read[1], answer, None)
            else:
                _settle(read[1], None, answer)

    def _pass_on_all(self) -> None:
        while self._waiting:
            self._pass_on(self._waiting.popleft())

    def _pass_on(self, read: _Read) -> None:
        """Have the worker make a read."""
        (namespace, path, key), future = read

        def get(connection: driver.Connection) -> list[Item]:
            now = to_micros(self._clock())
            return reading.get_one(connection, namespace, path, key, now)

        self._worker.post(get, future)


class _Job:
    """A read that waits for its turn, and then for its delivery."""

    __slots__ = ("error", "future", "result", "work")

    def __init__(self, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None


class Reader:
    """Runs read functions on a thread with a connection; what waits together hops together."""

    def __init__(self, connection: WorkerConnection, file: OpenFile) -> None:
        self._connection = connection
        self._file = file
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Job] = deque()
        self._is_scheduled = False  # a flush is due in this turn of the loop
        self.is_running = False  # the thread is at work, and takes what comes
        self._is_closed = False
        self._quiet: asyncio.Future[None] | None = None  # set by `close`, done when nothing waits

    def submit(
        self,
        read: Callable[Concatenate[driver.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> asyncio.Future[T]:
        """Run `read(connection, ...)` on the thread; the future is of what it returns."""
        future: asyncio.Future[T] = self._loop.create_future()
        self.post(lambda connection: read(connection, *args, **kwargs), future)
        return future

    def post(self, read: Callable[[driver.Connection], T], future: asyncio.Future[T]) -> None:
        """As `submit`, for a future that is there already."""
        _require(not self._is_closed)
        raw = self._connection.raw
        self._waiting.append(_Job(lambda: read(raw), future))
        if not self._is_scheduled and not self.is_running:
            self._is_scheduled = True
            self._loop.call_soon(self._flush)

    @property
    def is_busy(self) -> bool:
        """Whether the thread is at work, or will be before this turn of the loop is over."""
        return self.is_running or self._is_scheduled

    @property
    def raw(self) -> driver.Connection:
        """The driver's connection."""
        return self._connection.raw

    async def close(self) -> None:
        """Finish what waits, then close the connection."""
        if self._waiting or self.is_running:
            self._quiet = self._loop.create_future()
            await self._quiet
        self._is_closed = True
        await self._connection.close()

    def _flush(self) -> None:
        self._is_scheduled = False
        if self._waiting and not self.is_running:
            self.is_running = True
            self._connection.post(self._drain)

    def _drain(self) -> None:
        """On the thread: run what waits until nothing does."""
        done: list[_Job] = []
        delivered_at = time.monotonic()
        while self._waiting:
            job = self._waiting.popleft()
            if not job.future.cancelled():
                self._run_job(job)
                done.append(job)
            if time.monotonic() - delivered_at > READ_DELIVERY_S:
                _call_soon(self._loop, self._deliver, done, False)
                done = []
                delivered_at = time.monotonic()
        _call_soon(self._loop, self._deliver, done, True)

    def _run_job(self, job: _Job) -> None:
        try:
            job.result = job.work()
        except driver.Error as exc:
            release(exc)
            job.error = explain(exc, self._file, self._connection.raw)
            job.error.__cause__ = exc
        except BaseException as exc:  # noqa: BLE001 - it belongs to the caller
            release(exc)
            job.error = exc

    def _deliver(self, done: list[_Job], is_end: bool) -> None:
        for job in done:
            _settle(job.future, job.result, job.error)
        if is_end:
            self.is_running = False
            self._flush()
        if self._quiet is not None and not self._waiting and not self.is_running:
            _settle(self._quiet, None, None)


_Outcome = list[Any] | BaseException  # the answers, or what is to be raised
_NOT_YET: _Outcome = []


class _Unit:
    """Operations that are applied together or not at all, and the caller that waits for them."""

    __slots__ = ("future", "is_alone", "is_refused", "ops", "outcome", "size")

    work: Callable[[driver.Connection], Any] | None = None  # instead of operations

    def __init__(self, ops: Sequence[Operation]) -> None:
        self.ops = ops
        self.size = 256 * len(ops)  # roughly, in bytes
        for op in ops:
            if type(op) is Put:
                self.size += len(op.path) + len(op.key) + len(op.data)
        self.is_alone = has_restore(ops)  # in its transaction
        self.is_refused = False  # it is too much for the loop's own thread
        self.future: asyncio.Future[list[Any]] | None = None  # `None`: nobody waits
        self.outcome = _NOT_YET


class _Work(_Unit):
    """Something else to do on the worker's thread, in its turn."""

    __slots__ = ("work",)

    def __init__(self, work: Callable[[driver.Connection], Any]) -> None:
        super().__init__(())
        self.work = work
        self.is_alone = True


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
        setup: Setup | None = None,
    ) -> None:
        self._connection = connection
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
        self._is_scheduled = False
        self.is_running = False
        self._is_closed = False
        self._quiet: asyncio.Future[None] | None = None  # set by `close`, done when nothing waits
        self._polite_until = 0.0
        self._is_crowd = False  # whether the last flush had more than one unit to commit
        self._alone = (-1, 0)  # turn and task of the last unit that committed alone
        self._wal_pages = 0  # at most so many since the last checkpoint
        # Checkpoints run when the results are delivered, and not inside a COMMIT.
        connection.raw.execute("PRAGMA wal_autocheckpoint = 0")
        limit(connection.raw)

    def apply(self, ops: Sequence[Operation]) -> Awaitable[list[Any]]:
        """Apply a unit of operations; gives the answers once it is committed."""
        unit = _Unit(ops)
        pace = self._pace
        if pace is not None and self._is_alone(pace, unit):
            return self._apply_alone(pace, unit)
        return self._queue_in_time(unit) if self._backlog.is_full else self._queue(unit)

    async def _apply_alone(self, pace: Pace, unit: _Unit) -> list[Any]:
        self._alone = (pace.turn, id(asyncio.current_task()))
        if not self.is_running and self._commit_inline(pace, [unit]):
            await pace.give_way()
            if isinstance(unit.outcome, BaseException):
                raise unit.outcome
            return unit.outcome
        return await self._queue_in_time(unit)

    async def run(self, work: Callable[[driver.Connection], T]) -> T:
        """Run something else on the worker's thread, outside any transaction, in its turn."""
        return (await self._queue(_Work(work)))[0]  # type: ignore[no-any-return]

    async def _queue_in_time(self, unit: _Unit) -> list[Any]:
        await self._backlog.room()
        return await self._queue(unit)

    def _queue(self, unit: _Unit) -> asyncio.Future[list[Any]]:
        _require(not self._is_closed)
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
        return self._connection.raw

    async def finish(self) -> None:
        """Commit what waits, and take no more."""
        while self._backlog.units or self.is_running:  # a woken caller may have queued once more
            self._quiet = self._loop.create_future()
            await self._quiet
        self._is_closed = True

    async def close(self) -> None:
        """Commit what waits, then close the connection."""
        await self.finish()
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

    def _is_alone(self, pace: Pace, unit: _Unit) -> bool:
        """Whether a unit may commit at once, as no other can be expected to share its commit.

        That is so for the first write of a turn of the loop, and for the next ones of the same
        task, which waited for each; but not while writes come in crowds.
        """
        if self._waiting or self.is_running or self._is_crowd:
            return False
        if not self._may_be_inline(pace, (unit,)):
            return False
        turn, task = self._alone
        return turn != pace.turn or task == id(asyncio.current_task())

    def _may_be_inline(self, pace: Pace, units: Sequence[_Unit]) -> bool:
        return (
            len(units) <= INLINE_PUTS
            and sum(unit.size for unit in units) <= INLINE_BYTES
            and self._is_quick([op for unit in units for op in unit.ops])
            and not any(unit.is_refused or unit.work is not None for unit in units)
            and self._wal_pages < CHECKPOINT_PAGES
            and not pace.is_turn_over
            and pace.allows(time.perf_counter())
        )

    def _is_quick(self, ops: Sequence[Operation]) -> bool:
        """Whether operations are a little bounded work."""
        if len(ops) > INLINE_OPS:
            return len(ops) <= INLINE_PUTS and not self._is_heavy and all(map(is_plain, ops))
        for op in ops:
            match op:
                case Put() | Delete() | Mutate() | Check():
                    continue
                case Touch(keys=keys) if len(keys) <= INLINE_OPS:
                    continue
                case Remove(subtree=False, pattern=pattern) if pattern.is_quick and len(ops) == 1:
                    return not self._is_heavy
            return False
        return True

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
            pace.record(began, min(sum(len(unit.ops) for unit in units), INLINE_OPS))
        self._ring()
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
                _settle(future, None, outcome)
            else:
                future.set_result(outcome)
        self._ring()
        self._backlog.subtract(len(units), sum(unit.size for unit in units))
        if is_end:
            self.is_running = False
            self._flush()
        if self._quiet is not None and not self._backlog.units and not self.is_running:
            _settle(self._quiet, None, None)

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
        raw = self._connection.raw
        with transaction(raw, timeout, self._file) as waited:
            if waited:
                self._polite_until = time.monotonic() + POLITE_S
            batch = begin_batch(raw, to_micros(self._clock()), longest, self._setup)
            self._is_heavy = batch.is_heavy
            wanted = [unit for unit in units if unit.future is None or not unit.future.cancelled()]
            outcomes = batch.apply([unit.ops for unit in wanted])
            batch.finish()
        batch.committed()
        if batch.is_news:
            self._has_news = True
        pages = 2
        for unit, outcome in zip(wanted, outcomes, strict=True):
            unit.outcome = outcome
            pages += 3 * len(unit.ops) + unit.size // PAGE_BYTES
        self._wal_pages += pages

    # On the worker's thread

    def _drain(self) -> None:
        """Commit what waits until nothing does."""
        while True:
            units = self._take()
            self._commit_or_fail(units)
            due = self._wal_pages >= CHECKPOINT_PAGES
            is_end = not self._waiting and not due
            _call_soon(self._loop, self._deliver_from_thread, units, is_end)
            if is_end:
                return
            if due:
                self._checkpoint()
            if time.monotonic() < self._polite_until:
                time.sleep(POLITE_PAUSE_S)
            if not self._waiting:
                _call_soon(self._loop, self._deliver_from_thread, [], True)
                return

    def _deliver_from_thread(self, units: list[_Unit], is_end: bool) -> None:
        self._deliver(units, is_end=is_end)

    def _commit_or_fail(self, units: list[_Unit]) -> None:
        """Commit units, each alone if they cannot be together, and give errors to their callers."""
        try:
            if units[0].work is not None:
                units[0].outcome = [units[0].work(self._connection.raw)]
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

        What is in the WAL is safe there: where this fails, the next one tries again.
        """
        execute = self._connection.raw.execute
        self._wal_pages = 0
        with suppress(driver.Error):
            if _KNOWS_NOOP:  # the count so far was an upper bound
                _, written, copied = execute("PRAGMA wal_checkpoint(NOOP)").fetchone()
                self._wal_pages = written - copied
            if not 0 < self._wal_pages < CHECKPOINT_PAGES:
                execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                self._wal_pages = 0


def _require(is_open: bool) -> None:
    """Refuse what comes after the end, such as a call that awaited something of the caller's."""
    if not is_open:
        raise StoreClosedError("the store was closed while this call was under way")


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # its caller was cancelled
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):  # of a clock, say; no future takes one
        future.set_exception(RuntimeError(f"StopIteration: {error}"))
    else:
        future.set_exception(error)


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *args: Any) -> None:
    """Have the loop call back; where it is closed, nobody waits any more."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise
