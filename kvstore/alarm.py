"""Calls at their time for code that does not await, all on one thread of the process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf

__all__ = ["ALARM", "Alarm"]

_IDLE_S = 10.0  # after which the thread ends, until there is something again


class Alarm:
    """Calls functions later, unless they are dropped before; they have to be quick.

    Those that are late, as the machine was busy, are called in the order of their times.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._condition = threading.Condition()
        self._calls: dict[object, tuple[float, Callable[[], object]]] = {}
        self._wakes = inf  # when the thread looks again by itself
        self._thread: threading.Thread | None = None

    def after_fork(self) -> None:
        """Forget all, in a child that has no such thread."""
        self._begin()

    def later(self, seconds: float, fn: Callable[[], object]) -> object:
        """Have a function called; return by what to `drop` that.

        Raises:
            RuntimeError: no thread could be had; the next call tries again.
        """
        key, due = object(), time.monotonic() + seconds
        with self._condition:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="kvstore-alarm", daemon=True)
                thread.start()  # it waits for the lock
                self._thread = thread
            self._calls[key] = due, fn
            if due < self._wakes:
                self._condition.notify()
        return key

    def drop(self, key: object) -> None:
        """Have a function not called, if it is not being called already."""
        with self._condition:
            self._calls.pop(key, None)

    def _run(self) -> None:
        while calls := self._wait():
            for fn in calls:
                with suppress(RuntimeError):  # no thread could be had: others may be luckier
                    fn()

    def _wait(self) -> list[Callable[[], object]]:
        """Return what is to be called once there is something; nothing: there was none for long."""
        with self._condition:
            while True:
                now, calls = time.monotonic(), self._calls
                ripe = [key for key, (due, _) in calls.items() if due <= now]
                if ripe:
                    ripe.sort(key=lambda key: calls[key][0])
                    return [calls.pop(key)[1] for key in ripe]
                self._wakes = min((due for due, _ in calls.values()), default=now + _IDLE_S)
                is_idle = not calls
                is_told = self._condition.wait(self._wakes - now)
                if is_idle and not is_told and not calls:
                    self._thread = None
                    return []


ALARM = Alarm()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=ALARM.after_fork)
