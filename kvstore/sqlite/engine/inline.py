"""`InlineReader`: reads that take but a moment, on the event loop's own thread."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import TypeVar

from kvstore.errors import StoreCorruptError, StoreError
from kvstore.instants import to_micros
from kvstore.past import Moment
from kvstore.sqlite import driver, reading
from kvstore.sqlite.connection import limit, release
from kvstore.sqlite.engine.light import are_few
from kvstore.sqlite.engine.limits import (
    CACHED_AT_ONCE,
    CACHED_READS,
    CACHED_S,
    GROUP_BYTES,
    INLINE_BYTES,
)
from kvstore.sqlite.engine.pace import Pace
from kvstore.sqlite.engine.reader import Reader
from kvstore.sqlite.engine.settling import settle
from kvstore.sqlite.past_cache import PastCache
from kvstore.sqlite.read_cache import NO_MARK, Address, Entry, ReadCache
from kvstore.types import UNKNOWN, Item, Namespace, Recalled

__all__ = ["InlineReader", "NoInlineReader"]

T = TypeVar("T")

_Read = tuple[reading.Point, asyncio.Future[list[Item]]]
# The live item in a list, an empty list, what is wrong, or `None`: it is too long
_Answer = list[Item] | StoreCorruptError | None


class InlineReader:
    """Point reads on the loop's own thread, on a read-only connection of their own.

    The first task that reads in a turn of the loop is answered at once, unless reads come in
    crowds. The others' wait for the next turn, and there share statements.

    Args:
        connection: for this thread alone.
        clock: the present time in seconds since the epoch.
        pace: decides when to read here.
        worker: reads what must not be read here.
        cache: of what was read here; `None`: there is none.
        look: looks whether the file is still there.
    """

    def __init__(
        self,
        connection: driver.Connection,
        clock: Callable[[], float],
        pace: Pace,
        worker: Reader,
        cache: ReadCache | None = None,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        connection.text_factory = bytes
        limit(connection)
        self.raw = connection
        self.is_running = False  # a statement is under way
        self._cursor = connection.cursor()
        self._clock = clock
        self._pace = pace
        self._worker = worker
        self._cache = cache
        self._past_cache = PastCache(cache)
        self._uncharged = 0  # answers from the cache that the pace has not heard of yet
        self._look = look
        self._loop = asyncio.get_running_loop()
        self._is_loop_running = self._loop.is_running
        self._thread = -1  # on which the loop was seen to run
        self._waiting: deque[_Read] = deque()
        self._is_crowd = False  # whether the last flush had more than one read to make
        self._alone = (-1, 0)  # turn and task of the last read that was answered at once

    def recall(self, namespace: Sequence[str], key: str) -> Recalled:
        """Return an item from memory; `UNKNOWN`: all else must be done, and its errors are those.

        The loop is looked at as the caller does it, but in fewer steps: what was seen in this turn
        on this thread is so as long as the loop runs.
        """
        pace, cache = self._pace, self._cache
        if (
            not pace.recalls or get_ident() != self._thread or not self._is_loop_running()
        ) and not self._may_recall():
            return UNKNOWN
        if cache is None:
            return UNKNOWN
        pace.recalls -= 1
        return cache.recall(namespace, key, self._now)

    def recall_past(self, moment: Moment, namespace: Sequence[str], key: str) -> Recalled:
        """As `recall`, of what was there at a moment."""
        pace, cache = self._pace, self._past_cache
        if (
            not pace.recalls or get_ident() != self._thread or not self._is_loop_running()
        ) and not self._may_recall():
            return UNKNOWN
        pace.recalls -= 1
        return cache.recall(moment, namespace, key, self._now)

    def _may_recall(self) -> bool:
        if asyncio.get_running_loop() is not self._loop:
            return False
        self._look()
        self._thread = get_ident()
        return self._pace.may_recall()

    def get(self, namespace: Namespace, path: str, key: str) -> list[Item] | None:
        """Return the live item in a list, an empty list, or `None`: ask `get_later`."""
        pace, cache = self._pace, self._cache
        if pace.is_turn_over or self._is_crowd or self._waiting:
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
            before = NO_MARK if cache is None else cache.header()
            entry = reading.get_small(self._cursor, namespace, path, key, INLINE_BYTES)
            if entry is None:
                return None
            items = self._live(namespace, key, entry)
            if cache is not None:
                cache.fill(before, (((path, key), entry),))
            return items
        except StoreError:
            raise
        except Exception:  # noqa: BLE001 - as in `_run`
            return None
        finally:
            self.is_running = False
            pace.record(began)

    def get_past(
        self, moment: Moment, namespace: Namespace, path: str, key: str
    ) -> list[Item] | None:
        """Return the item that was there in a list, an empty list, or `None`: ask a thread."""
        pace, cache = self._pace, self._past_cache
        if pace.is_turn_over:
            return None
        entry = cache.find(moment, path, key, self._now)
        if entry is not None:
            self._charge_cached()
        else:
            began = time.perf_counter()
            if not pace.allows(began):
                return None
            place, now = (moment, namespace, path, key), self._now()
            entry = self._run(began, 1, lambda raw: cache.read(raw, *place, now, INLINE_BYTES))
            if entry is None:
                return None
        return reading.live_item(namespace, key, entry, lambda: moment.instant)

    def _charge_cached(self) -> None:
        """Take note of an answer from memory."""
        self._uncharged += 1
        if self._uncharged == CACHED_AT_ONCE or not self._pace.is_turn_watched:
            self._pace.charge(self._uncharged * CACHED_S)
            self._uncharged = 0

    def _live(self, namespace: Namespace, key: str, entry: Entry) -> list[Item]:
        return reading.live_item(namespace, key, entry, self._now)

    def _now(self) -> int:
        return to_micros(self._clock())

    def get_later(self, namespace: Namespace, path: str, key: str) -> asyncio.Future[list[Item]]:
        """Read in the next turn, together with others, or on the worker's thread."""
        future: asyncio.Future[list[Item]] = self._loop.create_future()
        if not self._waiting:
            self._pace.call_next_turn(self._flush)
        self._waiting.append(((namespace, path, key), future))
        return future

    def get_few(self, namespace: Namespace, path: str, keys: Sequence[str]) -> list[Item] | None:
        """Return the live items among a few keys, as they are at once, or `None`: ask a thread."""
        pace, cache = self._pace, self._cache
        if pace.is_turn_over:
            return None
        if cache is not None and len(keys) <= CACHED_READS:
            found = cache.recall_all(namespace, path, keys, self._now, INLINE_BYTES)
            if found is not None:
                pace.charge(CACHED_S * len(keys))
                return found
        began = time.perf_counter()
        is_little, is_busy = are_few(path, keys), self._worker.is_busy
        if not pace.allows(began, is_little=is_little, is_thread_busy=is_busy):
            return None
        try:
            self.is_running = True
            answers = self._read([(namespace, path, key) for key in keys])
        except StoreError:
            raise
        except Exception:  # noqa: BLE001 - as in `_run`
            return None
        finally:
            self.is_running = False
            pace.record(began, len(keys))
        items: list[Item] = []
        for answer in answers:
            if not isinstance(answer, list):
                return None
            items += answer
        return items

    def _read_each(self, points: Sequence[reading.Point]) -> list[_Answer]:
        """Make point reads that may be of several moments: of what is known none is made."""
        cache = self._cache
        if cache is None:
            return self._read(points)
        known = [cache.find(path, key) for _, path, key in points]
        rest = [point for point, entry in zip(points, known, strict=True) if entry is None]
        read = iter(self._read(rest) if rest else ())
        return [
            next(read) if entry is None else self._live(namespace, key, entry)
            for (namespace, _, key), entry in zip(points, known, strict=True)
        ]

    def _read(self, points: Sequence[reading.Point]) -> list[_Answer]:
        """Make point reads by one statement."""
        cache = self._cache
        before = NO_MARK if cache is None else cache.header()
        found = reading.get_small_points(self._cursor, points, GROUP_BYTES)
        answers: list[_Answer] = []
        kept: list[tuple[Address, Entry]] = []
        for (namespace, path, key), entry in zip(points, found, strict=True):
            if not isinstance(entry, Entry):
                answers.append(entry)
                continue
            try:
                answers.append(self._live(namespace, key, entry))
                kept.append(((path, key), entry))
            except StoreCorruptError as exc:
                answers.append(exc)
        if cache is not None:
            cache.fill(before, kept)
        return answers

    def scan(
        self,
        weigh: Callable[[driver.Connection], bool],
        read: Callable[[driver.Connection], T],
    ) -> tuple[T] | None:
        """Run a read of a namespace or a page, if it is light, or return `None`: ask a thread."""
        return self._run(time.perf_counter(), 1, lambda raw: (read(raw),) if weigh(raw) else None)

    def quickly(
        self, path: str, keys: Sequence[str], read: Callable[[driver.Connection], T]
    ) -> T | None:
        """Run a read of a few keys, or return `None`: ask a thread."""
        pace = self._pace
        began = time.perf_counter()
        is_little, is_busy = are_few(path, keys), self._worker.is_busy
        if pace.is_turn_over or not pace.allows(began, is_little=is_little, is_thread_busy=is_busy):
            return None
        return self._run(began, len(keys), read)

    def _run(
        self, began: float, parts: int, read: Callable[[driver.Connection], T | None]
    ) -> T | None:
        """Run a read that began at an instant, as texts are read elsewhere."""
        try:
            self.is_running = True
            self.raw.text_factory = str
            return read(self.raw)
        except BaseException as exc:
            release(exc)
            if isinstance(exc, StoreError) or not isinstance(exc, Exception):
                raise
            # The thread meets it again, and has the time to deal with it; unless it came from a
            # watch over the loop, such as that of `langgraph dev`.
            return None
        finally:
            self.raw.text_factory = bytes
            self.is_running = False
            self._pace.record(began, parts)

    def close(self) -> None:
        """Have the worker read what waits, and release the connection."""
        self._pass_on_all()
        self._cache = None  # its view of the file ends with the connection
        self._past_cache = PastCache(None)
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
            if not pace.allows(began, is_due=True) or (has_read and pace.is_share_spent):
                self._waiting.extendleft(reversed(reads))
                break
            has_read = True
            try:
                self.is_running = True
                answers = self._read_each([point for point, _ in reads])
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
        if pace.allows(time.perf_counter(), is_due=True):
            pace.call_next_turn(self._flush)
        else:
            self._pass_on_all()

    def _deliver(self, reads: list[_Read], answers: Sequence[_Answer]) -> None:
        for read, answer in zip(reads, answers, strict=True):
            if answer is None:
                self._pass_on(read)
            elif isinstance(answer, list):
                settle(read[1], answer, None)
            else:
                settle(read[1], None, answer)

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


class NoInlineReader(InlineReader):
    """In the place of an inline reader where nothing is read on the loop's thread."""

    def __init__(self, worker: Reader, clock: Callable[[], float]) -> None:
        self.is_running = False
        self._worker = worker
        self._clock = clock
        self._loop = asyncio.get_running_loop()

    def get(self, namespace: Namespace, path: str, key: str) -> list[Item] | None:
        """Answer nothing."""
        return None

    def get_past(
        self, moment: Moment, namespace: Namespace, path: str, key: str
    ) -> list[Item] | None:
        """Answer nothing."""
        return None

    def get_later(self, namespace: Namespace, path: str, key: str) -> asyncio.Future[list[Item]]:
        """Read on the worker's thread."""
        future: asyncio.Future[list[Item]] = self._loop.create_future()
        self._pass_on(((namespace, path, key), future))
        return future

    def get_few(self, namespace: Namespace, path: str, keys: Sequence[str]) -> list[Item] | None:
        """Answer nothing."""
        return None

    def scan(
        self,
        weigh: Callable[[driver.Connection], bool],
        read: Callable[[driver.Connection], T],
    ) -> tuple[T] | None:
        """Answer nothing."""
        return None

    def quickly(
        self, path: str, keys: Sequence[str], read: Callable[[driver.Connection], T]
    ) -> T | None:
        """Answer nothing."""
        return None

    def close(self) -> None:
        """There is nothing to close."""
