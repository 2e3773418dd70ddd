"""One seed decides who runs when: an event loop and threads whose every step a scheduler chooses.

The threads are fibers (greenlets). Each gives way wherever `pause` is called, which a simulated
driver does before every statement, so that the loop and its threads interleave statement by
statement. Time is virtual: it passes by what steps cost, and jumps when all wait.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

__all__ = ["DeadlockError", "Fiber", "Lock", "Scheduler", "SimulatedLoop"]

T = TypeVar("T")

_STEP_S = (0.000001, 0.00005)  # what a step usually takes ...
_SLOW_STEP_S = 0.005  # ... and what one of a cold disk does
_SLOW_SHARE = 0.01


class DeadlockError(AssertionError):
    """Nobody can go on: all wait for each other."""


class Fiber:
    """A simulated thread."""

    def __init__(self, scheduler: Scheduler, name: str, work: Callable[[], None]) -> None:
        self.name = name
        self.wakes_at = 0.0
        self.waits_for: Lock | None = None
        self.greenlet = greenlet(work, parent=scheduler.hub)

    def can_run(self, now: float) -> bool:
        return self.wakes_at <= now and (self.waits_for is None or not self.waits_for.is_held)


class Scheduler:
    """Chooses the next step of everything that could go on.

    Args:
        seed: decides everything.

    Attributes:
        random: the one source of chance.
        now: the virtual time, in seconds.
        steps: what happened, in order: two runs of a seed have the same.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1_000.0
        self.hub = getcurrent()
        self.steps: list[str] = []
        self._fibers: list[Fiber] = []
        self._switch_share = self.random.choice((0.1, 0.3, 0.6))

    def spawn(self, name: str, work: Callable[[], None]) -> Fiber:
        """Begin a thread."""
        fiber = Fiber(self, name, work)
        self._fibers.append(fiber)
        return fiber

    def pause(self, what: str) -> None:
        """Let others run before a step of the present thread."""
        self._record(what)
        slow = self.random.random() < _SLOW_SHARE
        self.now += _SLOW_STEP_S if slow else self.random.uniform(*_STEP_S)
        if getcurrent() is self.hub:
            while self.random.random() < self._switch_share and self.step():
                pass
        elif self.random.random() < 2 * self._switch_share:
            self.hub.switch()

    def sleep(self, seconds: float) -> None:
        """Block the present thread."""
        assert getcurrent() is not self.hub, "the event loop's thread was put to sleep"
        self._record("sleep")
        self._here().wakes_at = self.now + seconds
        self.hub.switch()

    def wait_for(self, lock: Lock) -> None:
        """Block the present thread while somebody holds a lock."""
        assert getcurrent() is not self.hub, "the event loop's thread waits for a lock"
        fiber = self._here()
        while lock.is_held:
            fiber.waits_for = lock
            self.hub.switch()
        fiber.waits_for = None

    def step(self) -> bool:
        """Let one thread go on until it gives way; whether there was one that could."""
        able = [fiber for fiber in self._fibers if fiber.can_run(self.now)]
        if not able:
            return False
        fiber = self.random.choice(able)
        self._record(f"> {fiber.name}")
        fiber.greenlet.switch()
        if fiber.greenlet.dead:
            self._fibers.remove(fiber)
        return True

    def next_wake(self) -> float | None:
        """Return when the first of the threads that sleep wakes up."""
        return min(
            (fiber.wakes_at for fiber in self._fibers if fiber.wakes_at > self.now), default=None
        )

    def run_threads(self) -> None:
        """Let all threads run to their ends, without any loop."""
        while self._fibers:
            if not self.step():
                wake = self.next_wake()
                if wake is None:
                    raise DeadlockError([fiber.name for fiber in self._fibers])
                self.now = wake

    def kill_threads(self) -> None:
        """End what still runs, so that nothing outlives the simulation."""
        for fiber in self._fibers:
            fiber.greenlet.throw()
        self._fibers.clear()

    def _here(self) -> Fiber:
        here = getcurrent()
        return next(fiber for fiber in self._fibers if fiber.greenlet is here)

    def _record(self, what: str) -> None:
        self.steps.append(what)

    # What stands for the modules `time` and `random` in the code that is simulated

    def monotonic(self) -> float:
        return self.now

    perf_counter = time = monotonic

    def uniform(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)


class Lock:
    """Stands for `threading.Lock` between simulated threads."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.is_held = False

    def locked(self) -> bool:
        return self.is_held

    def __enter__(self) -> bool:
        self._scheduler.pause("lock")
        if self.is_held:
            self._scheduler.wait_for(self)
        self.is_held = True
        return True

    def __exit__(self, *exc: object) -> None:
        self.is_held = False


class SimulatedLoop(asyncio.BaseEventLoop):
    """An event loop on a scheduler's time, which lets its threads go on between callbacks.

    Callbacks run in the order in which they were scheduled, as asyncio promises; with
    `is_shuffled` in any order, for code that should not depend on it.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, scheduler: Scheduler, *, is_shuffled: bool = False) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._is_shuffled = is_shuffled

    def time(self) -> float:
        return self._scheduler.now

    def finish(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, and close the loop."""
        try:
            return self.run_until_complete(main)
        finally:
            for task in sorted(asyncio.all_tasks(self), key=lambda task: task.get_name()):
                task.cancel()
            self._scheduler.kill_threads()
            self.close()

    def _run_once(self) -> None:
        self._take_timers()
        scheduler = self._scheduler
        scheduler.pause("turn")
        if not self._ready and not scheduler.step():
            self._skip_time()
            return
        for _ in range(len(self._ready)):
            if self._is_shuffled:
                self._ready.rotate(-scheduler.random.randrange(len(self._ready)))
            handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()
            scheduler.pause("callback")

    def _take_timers(self) -> None:
        while self._scheduled and (
            self._scheduled[0].cancelled() or self._scheduled[0].when() <= self.time()
        ):
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]
            if not timer.cancelled():
                self._ready.append(timer)

    def _skip_time(self) -> None:
        """Go on to when the first of those wakes up who sleep."""
        timers = [timer.when() for timer in self._scheduled[:1]]
        wake = self._scheduler.next_wake()
        if wake is not None:
            timers.append(wake)
        if not timers:
            raise DeadlockError("nothing is ready, and nothing will be")
        self._scheduler.now = min(timers)

    def _write_to_self(self) -> None:
        """A callback came from a thread: there is no selector to wake."""
        if getcurrent() is not self._scheduler.hub:
            self._scheduler.pause("call_soon_threadsafe")

    def _process_events(self, event_list: Any) -> None:
        """There are none."""
