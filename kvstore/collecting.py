"""Python's cyclic garbage collector, kept from many new objects that are no garbage.

It looks at all that a process holds each time its objects have grown by a quarter, and so takes a
third of the time in which many are made at once.

It is held back by its threshold, and not by `gc.disable`: that is the program's own switch, which
may be thrown meanwhile.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

__all__ = ["uncollected"]

_LONGEST_S = 1.0  # of a pause that others join
_NEVER = 2**31 - 1  # new objects, by which a collection begins


class _Pause:
    """A pause of the collector, which several may want at once, on whatever threads.

    Where there is always one who wants it, or one was forgotten on the way, it ends after a second.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._wanted = 0
        self._threshold = 0  # as it was before the first of them
        self._began = 0.0

    def begin(self) -> None:
        with self._lock:
            if not self._wanted:
                self._threshold = gc.get_threshold()[0]
                gc.set_threshold(_NEVER)
                self._began = time.monotonic()
            elif time.monotonic() - self._began > _LONGEST_S:
                self._stop()  # until all of them are done
            self._wanted += 1

    def end(self) -> None:
        with self._lock:
            self._wanted = max(0, self._wanted - 1)
            if not self._wanted:
                self._stop()

    def forked(self) -> None:
        """Go on in a child process, which has no thread of those that wanted it."""
        self._lock = Lock()
        self._wanted = 0
        self._stop()

    def _stop(self) -> None:
        if gc.get_threshold()[0] == _NEVER:  # else the program has set another one meanwhile
            gc.set_threshold(self._threshold)


_pause = _Pause()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pause.forked)


@contextmanager
def uncollected() -> Iterator[None]:
    """Make objects for a moment; they are looked at when all are there."""
    _pause.begin()
    try:
        yield
    finally:
        _pause.end()
