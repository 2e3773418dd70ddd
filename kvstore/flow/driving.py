"""How sync code runs the coroutines of a store: the three ways, and which is taken when.

- A SQLite store runs on the calling thread, without any loop (`kvstore.flow.direct`).
- Another store that is not open gets an event loop on a thread of its own.
- A store that is open runs on the loop that it is open on, whose thread then has to be another.

None of them can deadlock: what would wait for itself raises.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, ClassVar, TypeVar

from kvstore.errors import StoreClosedError, WrongLoopError
from kvstore.flow.direct import DirectSQLiteStore, run_directly
from kvstore.sqlite import SQLiteStore
from kvstore.store import Store

__all__ = ["Driver", "driver_for"]

T = TypeVar("T")

_LOOK_S = 0.2  # how often a waiting thread looks whether the loop it waits for still runs


def driver_for(store: Store) -> Driver:
    """Return the driver for a store, with the store open."""
    if store._loop is not None:
        return Guest(store)
    if type(store) is SQLiteStore and store.index is None:
        return Direct(store)
    return LoopThread(store)


class Driver(ABC):
    """Runs coroutines of `store` to their end, from any thread.

    Attributes:
        store: the store, or a twin of it; its coroutines are to be run by this driver alone.
    """

    store: Store

    @abstractmethod
    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and return what it returns.

        Raises:
            StoreClosedError: after `close`, and in a forked child.
            WrongLoopError: it would wait for the very thread that it is called on.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the store, if the driver opened it; may be called more than once."""

    def hosted(self, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return a callback of the user's in a form that may call the driver again."""
        return fn


class Direct(Driver):
    """Runs everything on the calling thread."""

    def __init__(self, store: SQLiteStore) -> None:
        self.store = twin = DirectSQLiteStore.like(store)
        twin.open_now()
        self.close = weakref.finalize(self, twin.close_now)  # type: ignore[method-assign]

    run = staticmethod(run_directly)  # type: ignore[assignment]

    def close(self) -> None:  # replaced by each instance
        raise NotImplementedError
