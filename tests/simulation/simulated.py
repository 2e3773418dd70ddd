"""Stores on a scheduler: their threads, their time, and a driver whose statements may fail."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self
from unittest import mock

from kvstore.sqlite import driver
from kvstore.sqlite.connection import WorkerConnection
from kvstore.sqlite.direct import DirectBackend
from kvstore.sqlite.store import SQLiteBackend
from tests.simulation.scheduler import Lock, Scheduler

__all__ = ["Faults", "backend_class", "direct_backend_class", "simulation"]

_CODES = {"SQLITE_BUSY": 5, "SQLITE_FULL": 13, "SQLITE_IOERR_READ": 266, "SQLITE_IOERR_FSYNC": 1034}
_WRITES = ("INSERT", "UPDATE", "DELETE", "COMMIT", "WITH")


class Faults:
    """Which statements fail, and how.

    Attributes:
        share: of the statements, how many fail; 0.0 until the stores are open.
        raised: how many have.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.random = scheduler.random
        self.share = 0.0
        self.raised = 0

    def before(self, sql: str, cursor: driver.Cursor) -> None:
        """Raise what SQLite would, if this statement is to fail; nothing has happened then."""
        if not self.share or self.random.random() >= self.share:
            return
        verb = sql.split(None, 1)[0].upper()
        if verb == "ROLLBACK" and not getattr(cursor.connection, "is_writer", True):
            return  # to end a read takes no access to the disk
        if verb == "BEGIN":
            name = "SQLITE_BUSY"
        elif verb in _WRITES:
            name = self.random.choice(("SQLITE_FULL", "SQLITE_IOERR_FSYNC"))
        else:
            name = "SQLITE_IOERR_READ"
        self.raised += 1
        if verb != "ROLLBACK" and cursor.connection.in_transaction and self.random.random() < 0.3:
            driver.Cursor.execute(cursor, "ROLLBACK")  # as SQLite may do by itself
        raise self.error(name, verb)

    def error(self, name: str, verb: str) -> driver.Error:
        """Return one of SQLite's errors."""
        error = driver.Error(f"simulated {name} of {verb}")
        error.sqlite_errorcode = _CODES[name]
        error.sqlite_errorname = name
        return error


def _connection_class(scheduler: Scheduler, faults: Faults) -> type[driver.Connection]:
    class Cursor(driver.Cursor):
        def execute(self, sql: str, *args: Any) -> Self:
            if sql.startswith("PRAGMA busy_timeout"):
                sql = "PRAGMA busy_timeout = 0"  # SQLite itself would wait in real time
            scheduler.pause(sql.lstrip()[:12])
            faults.before(sql, self)
            super().execute(sql, *args)
            return self

        def executemany(self, sql: str, *args: Any) -> Self:
            scheduler.pause(sql.lstrip()[:12])
            faults.before(sql, self)
            super().executemany(sql, *args)
            return self

    class Connection(driver.Connection):
        def __init__(self, database: str, **options: Any) -> None:
            self.is_writer = "mode=ro" not in database
            super().__init__(database, **options)

        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

    return Connection


@contextmanager
def simulation(scheduler: Scheduler, faults_class: type[Faults] = Faults) -> Iterator[Faults]:
    """Give the library the scheduler's time, chance and connections."""
    faults = faults_class(scheduler)
    connection_class = _connection_class(scheduler, faults)
    connect = driver.connect

    def simulated_connect(uri: str) -> driver.Connection:
        return connect(uri, connection_class)

    with mock.patch.multiple(driver, connect=simulated_connect):
        patches = [
            mock.patch.object(module, name, scheduler)
            for module in list(sys.modules.values())
            if getattr(module, "__name__", "").startswith("kvstore.")
            for name in ("time", "random")
            if getattr(module, name, None) is sys.modules[name]
        ]
        for patch in patches:
            patch.start()
        try:
            yield faults
        finally:
            for patch in patches:
                patch.stop()


assert time  # the module that is replaced above


def backend_class(scheduler: Scheduler) -> type[SQLiteBackend]:
    """Return the backend of a file with threads of a scheduler."""

    class Worker(WorkerConnection):
        def __init__(self, connector: Callable[[], driver.Connection]) -> None:
            self._connection = None
            self._connector = connector
            self._queue: deque[Callable[[], None]] = deque()
            self._is_at_work = False

        async def open(self) -> None:
            self._connection = self._connector()

        async def close(self) -> None:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

        def post(self, work: Callable[[], None]) -> None:
            self._queue.append(work)
            if not self._is_at_work:
                self._is_at_work = True
                scheduler.spawn("worker", self._run)

        def _run(self) -> None:
            while self._queue:
                self._queue.popleft()()
            self._is_at_work = False

    class SimulatedBackend(SQLiteBackend):
        worker = Worker

    return SimulatedBackend


def direct_backend_class(scheduler: Scheduler) -> type[DirectBackend]:
    """Return the backend of the sync facade with locks of a scheduler."""

    class SimulatedDirectBackend(DirectBackend):
        new_lock = partial(Lock, scheduler)

    return SimulatedDirectBackend
