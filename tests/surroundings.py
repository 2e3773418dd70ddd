"""Where else the suite must hold: on the stock `sqlite3`, and with others at its files.

The environment says which, for all of a run (see `tests/conftest.py`).
"""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

__all__ = ["block_pysqlite3", "doors", "onlooker", "skipped_for_want_of_extensions"]

_SHARE = 0.05  # of the calls, before which the file is opened once more


# The driver


def block_pysqlite3() -> None:
    """Have this process, and those that it starts, choose the stock `sqlite3`."""
    assert "kvstore" not in sys.modules
    blocker = str(Path(__file__).with_name("without"))
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = blocker if inherited is None else blocker + os.pathsep + inherited
    sys.path.insert(0, blocker)


@contextmanager
def skipped_for_want_of_extensions() -> Iterator[None]:
    """Skip a test that needs an extension of SQLite, where the driver cannot load any."""
    from kvstore import MissingDependencyError
    from kvstore.sqlite import driver

    try:
        yield
    except MissingDependencyError as exc:
        if driver.CAN_LOAD_EXTENSIONS or "cannot load extensions" not in str(exc):
            raise
        pytest.skip("this SQLite loads no extensions")


# Others at the files


@contextmanager
def doors() -> Iterator[None]:
    """Have this process open a store's file at random by other doors, and close it again."""
    from kvstore.sqlite.store import SQLiteBackend

    chance = random.Random(1)

    def through_a_door(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: SQLiteBackend, *args: Any, **kwargs: Any) -> Any:
            if chance.random() < _SHARE and self.file.is_file():
                chance.choice((_open_by_facade, _open_by_stock_driver))(self.file)
            return method(self, *args, **kwargs)

        return call

    patches = [
        mock.patch.object(SQLiteBackend, name, through_a_door(getattr(SQLiteBackend, name)))
        for name in ("apply", "get", "get_many", "select", "keys", "page")
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def _open_by_facade(path: Path) -> None:
    from kvstore import KeyValueStore, StoreError

    with suppress(StoreError):  # what the test is about, such as a damaged file
        KeyValueStore(path).close()


def _open_by_stock_driver(path: Path) -> None:
    connection = sqlite3.connect(path, timeout=0)
    with suppress(sqlite3.Error):
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    connection.close()


@contextmanager
def onlooker(directory: Path) -> Iterator[None]:
    """Have another process look into every store below a directory, again and again."""
    command = [sys.executable, "-m", "tests.surroundings", str(directory)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1]) as process:
        try:
            yield
        finally:
            assert process.poll() is None, "the onlooker has ended by itself"
            process.kill()


def _look_for_ever(directory: Path) -> None:
    while True:
        for log in directory.rglob("*.db-wal"):  # of stores that are open
            with suppress(sqlite3.Error):
                connection = sqlite3.connect(
                    log.with_name(log.name.removesuffix("-wal")), timeout=0
                )
                with suppress(sqlite3.Error):
                    connection.execute("SELECT count(*) FROM items").fetchone()
                connection.close()
        time.sleep(0.01)


if __name__ == "__main__":
    _look_for_ever(Path(sys.argv[1]))
