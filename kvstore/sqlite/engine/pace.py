"""`Pace`: which work runs on the event loop's own thread, and how much of it in one turn."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from kvstore.sqlite.engine.limits import (
    CACHED_AT_ONCE,
    CACHED_S,
    GROUP_READS,
    REST_S,
    SHARE_S,
    SLOW_OP_S,
    SLOW_S,
    TURN_S,
    TURN_TASKS,
)
from kvstore.sqlite.engine.settling import settle

__all__ = ["Pace"]


class Pace:
    """Decides which work runs on the event loop's own thread, by `allows`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._resting_until = 0.0
        self._rest = REST_S[0]
        self._spent = 0.0  # in this turn of the loop
        self.is_turn_watched = False  # there was inline work in it, or somebody waits for the next
        self._next: deque[Callable[[], None]] = deque()  # to be called when the next turn begins
        self._queue: deque[asyncio.Future[None]] = deque()
        self.is_turn_over = False  # inline work has had all that it may have of this turn
        self.turn = 0  # counts the turns that had inline work
        self.recalls = 0  # answers from memory that may still be given before `may_recall` is asked
        self._recalled: set[int] = set()  # tasks that had one after the turn was over
        self.group = 1  # how many reads may share a statement: few until they prove quick

    @property
    def is_share_spent(self) -> bool:
        """Whether those who wait for a turn have had their share of this one."""
        return self._spent > SHARE_S

    def allows(
        self,
        now: float,
        *,
        is_little: bool = True,
        is_thread_busy: bool = False,
        is_due: bool = False,
    ) -> bool:
        """Decide whether work runs on the loop's thread; else it goes to one with a connection.

        A hop to a thread and back takes ten times as long as little work itself; other work would
        hold up whatever else runs on the loop. So work runs here if it is little, if what ran here
        lately was quick (else a disk is cold, or the machine is busy), if this turn of the loop has
        time left, and if the thread is not at work anyway. These are the cases:

        - What the read cache holds: no statement runs, so that but the turn's time counts; and each
          task may have one such answer more, see `may_recall`.
        - The read of one item; of several tasks together, a group of them in each turn (`is_due`).
        - A few items of a namespace: `are_few`.
        - A look through one namespace, in key order or by a filter: `light_look`, `light_page`.
        - A list of few namespaces: `light_listing`.
        - A search by meaning alone in one namespace.
        - The commit of a few operations: `is_light_write`. None is made here with
          `durability="full"`, when a checkpoint is due, or while the writer's thread is at work.

        What is here found to be more than it seemed (long values, many rows, a lock that another
        process has) is left undone and goes to the thread after all, as does what is none of these:
        lists of many namespaces, exports, changes, other searches, and all upkeep. An SQLite
        before 3.43 reads a value to tell its length; there, only reads of few items run here. A
        store that is read only runs everything on threads.

        Args:
            now: an instant of `time.perf_counter()`.
            is_little: whether it is as much as its case allows, as `kvstore.sqlite.engine.light`
                tells.
            is_thread_busy: whether the thread that it would go to is at work.
            is_due: whether it has waited for this turn, and so does not depend on what others took.
        """
        return (
            is_little
            and not is_thread_busy
            and now >= self._resting_until
            and (is_due or self._spent <= TURN_S)
        )

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
        self.charge(spent)

    def charge(self, seconds: float) -> None:
        """Take note of inline work, such as is too short to be measured."""
        self._spent += seconds
        self.is_turn_over = self._spent > TURN_S
        if not self.is_turn_watched:
            self.is_turn_watched = True
            self._loop.call_soon(self._new_turn)

    def may_recall(self) -> bool:
        """Allow some answers from memory, if this turn has the time for them.

        To have a task wait for another turn takes longer than such an answer. So each may have one
        when the turn is over, and only those that go on and on must wait.
        """
        self.recalls = CACHED_AT_ONCE
        if self.is_turn_over:
            task = id(asyncio.current_task(self._loop))
            if task in self._recalled:
                self.recalls = 0
                return False
            self._recalled.add(task)
            self.recalls = 1
        self.charge(self.recalls * CACHED_S)
        return True

    def call_next_turn(self, callback: Callable[[], None], *, first: bool = False) -> None:
        """Call back when the next turn of the loop begins, in the order of asking."""
        if first:
            self._next.appendleft(callback)
        else:
            self._next.append(callback)
        if not self.is_turn_watched:
            self.is_turn_watched = True
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
        self.is_turn_over = TURN_S < 0
        self.turn += 1
        self.recalls = 0
        self._recalled.clear()
        try:
            for _ in range(min(len(self._queue), TURN_TASKS)):
                settle(self._queue.popleft(), None, None)
            for _ in range(len(self._next)):
                self._next.popleft()()
        finally:  # whatever a callback raises, such as KeyboardInterrupt
            self.is_turn_watched = bool(self._queue or self._next or self._spent)
            if self.is_turn_watched:
                self._loop.call_soon(self._new_turn)
